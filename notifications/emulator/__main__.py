"""`python -m notifications.emulator`: serves the emulator on this machine until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
from pathlib import Path

import uvloop
from granian.constants import Interfaces
from granian.server.embed import Server

from notifications.emulator.app import Emulator, Settings
from notifications.emulator.oauth import ServiceAccount

log = logging.getLogger("notifications.emulator")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="notifications.emulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9099)
    parser.add_argument("--latency-ms", type=int, default=20, help="time that FCM takes to answer")
    parser.add_argument("--slow-ms", type=int, default=3_000, help="the same for slow- tokens")
    parser.add_argument("--retry-after-s", type=int, default=5, help="said to unavailable- tokens")
    parser.add_argument("--keep", type=int, default=5_000, help="messages shown; older ones go")
    parser.add_argument("--credentials", type=Path, help="keep the service account in this file")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    return parser.parse_args()


async def serve(options: argparse.Namespace) -> None:
    account = (
        ServiceAccount.kept_at(options.credentials)
        if options.credentials
        else ServiceAccount.create()
    )
    settings = Settings(
        latency_ms=options.latency_ms,
        slow_ms=options.slow_ms,
        retry_after_s=options.retry_after_s,
    )
    server = Server(
        Emulator(account, settings, keep=options.keep),
        address=options.host,
        port=options.port,
        interface=Interfaces.ASGINL,
        # Our own limit is what the page shows; the server's would only queue in silence.
        backlog=1_024,
        backpressure=10_000,
        log_enabled=False,
        ssl_cert=options.tls_cert,
        ssl_key=options.tls_key,
    )
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, server.stop)
    log.info("FCM emulator on port %s; what arrived: /messages", options.port)
    await server.serve()


def check_free(host: str, port: int) -> None:
    """Fail at once and in words where the port is taken: the server would only say so in a log."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SystemExit(f"the emulator cannot listen on {host}:{port}: {error}") from None


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    chosen = arguments()
    check_free(chosen.host, chosen.port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(chosen))
