"""Starts the web processes: `python -m config.serve --host 127.0.0.1 --port 8000 --workers 2`."""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import sys
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from config.launch import die_with_parent

GRACE_S = 5  # to answer what is under way, before supervisor's patience ends
HUNG_S = 60  # a worker that says nothing for so long is started anew


def application() -> Any:
    """Make the application, in the process that serves it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        die_with_parent()
        if not parent.is_alive():  # it was killed before we asked
            sys.exit(1)
    from config.asgi import application

    return application


class Workers(Multiprocess):
    """Several processes on one port, each with a socket of its own.

    Of one socket for all, whoever wakes first accepts everybody who comes at that moment: all of a
    back office's few connections. Among several, the system deals them out.
    """

    @property
    def sockets(self) -> list[socket.socket]:
        """For the next process; asked once for each."""
        family = socket.AF_INET6 if ":" in self.config.host else socket.AF_INET
        own = socket.socket(family)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        own.bind((self.config.host, self.config.port))
        return [own]

    @sockets.setter
    def sockets(self, _: list[socket.socket]) -> None:
        """There is none that all share."""

    def keep_subprocess_alive(self) -> None:
        """Ask each whether it is well, and start anew who is not.

        Of the line it is asked on, a worker alone has the other end then: it breaks with the
        worker. While we hold that end too, we wait HUNG_S for one that died before it answered.
        """
        for worker in self.processes:
            worker.child_conn.close()
        super().keep_subprocess_alive()


def configuration(*, host: str, port: int, workers: int) -> uvicorn.Config:
    """How it is served."""
    return uvicorn.Config(
        "config.serve:application",
        factory=True,
        interface="asgi3",
        host=host,
        port=port,
        workers=workers,
        loop="uvloop",
        http="config.asgi:Protocol",
        ws="config.asgi:Sockets",
        lifespan="on",
        # Each frame is small: to pack it costs more than to send it.
        ws_per_message_deflate=False,
        # It only finds peers that died: the stream keeps quiet lines open by itself, and each
        # ping wakes a phone.
        ws_ping_interval=300,
        backlog=4096,
        proxy_headers=False,  # nothing here asks for a client's address
        server_header=False,
        access_log=False,  # nor is one written down
        log_level="error",
        log_config=None,  # as everything else is written down: config.logs
        timeout_graceful_shutdown=GRACE_S,
        timeout_worker_healthcheck=HUNG_S,
    )


def main() -> None:
    """Serve until told to end."""
    arguments = argparse.ArgumentParser(prog="python -m config.serve")
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=8000)
    arguments.add_argument("--workers", type=int, default=1)
    config = configuration(**vars(arguments.parse_args()))
    config.bind_socket().close()  # ends here, and says so, where somebody else has the port
    if config.workers == 1:
        uvicorn.Server(config).run()
    else:
        Workers(config, sockets=[]).run()


if __name__ == "__main__":
    main()
