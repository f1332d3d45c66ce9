"""The replaying client: what it sends when, and what it does about each kind of failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import websockets

from devices.lines import BusyError, HttpLine, LostError, RefusedError, SocketLine
from devices.replay import Over, Plan, Replay, Stamp, dues, items, stamps
from devices.traces import Trace, Track

BEGIN_MS = 1_767_603_600_000
FIX = {"lat": 60.1, "lng": 24.9, "recorded_at": BEGIN_MS}


def make_track(*seconds: int, name: str = "a") -> Track:
    count = len(seconds)
    return Track(
        name=name,
        at_ms=BEGIN_MS + np.array(seconds, dtype=np.int64) * 1000,
        lat=np.full(count, 60.1),
        lng=np.full(count, 24.9),
        measures={"accuracy_m": np.array([5.0, *[np.nan] * (count - 1)])},
    )


def make_trace(*tracks: Track) -> Trace:
    return Trace(tracks=list(tracks), unreadable=0)


def make_plan(**fields: Any) -> Plan:
    return Plan(**{"base_url": "http://127.0.0.1:1", "app_key": "pk"} | fields)


TRACK = make_track(0, 20, 10, 60)


@pytest.mark.parametrize(
    ("stamp", "speed", "expected_ms"),
    [
        (Stamp.LIVE, 1.0, [0, 20_000, 10_000, 60_000]),
        (Stamp.LIVE, 10.0, [0, 2_000, 1_000, 6_000]),
        (Stamp.SHIFTED, 0.0, [-60_000, -40_000, -50_000, 0]),
    ],
)
def test_it_moves_times_to_now(stamp: Stamp, speed: float, expected_ms: list[int]) -> None:
    plan = make_plan(stamp=stamp, speed=speed)

    at_ms = stamps(TRACK, make_trace(TRACK), plan, start_ms=5_000_000)

    assert (at_ms - 5_000_000).tolist() == expected_ms


def test_it_leaves_recorded_times_alone_when_asked() -> None:
    plan = make_plan(stamp=Stamp.RECORDED)

    assert stamps(TRACK, make_trace(TRACK), plan, start_ms=5).tolist() == TRACK.at_ms.tolist()


def test_it_sends_late_fixes_late() -> None:
    assert dues(TRACK, make_trace(TRACK), make_plan(speed=10.0)).tolist() == [0, 2, 2, 6]


def test_it_leaves_out_what_is_unknown() -> None:
    sent = items(TRACK, TRACK.at_ms, slice(0, 2))

    assert sent[0]["accuracy_m"] == 5.0
    assert "accuracy_m" not in sent[1]


def line_answering(answer: Callable[[httpx.Request], httpx.Response]) -> HttpLine:
    transport = httpx.MockTransport(answer)
    return HttpLine(httpx.AsyncClient(transport=transport, base_url="http://server"), "token")


async def test_it_posts_one_fix_bare_and_more_in_a_list() -> None:
    bodies: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json={"accepted": 1, "rejected": []})

    line = line_answering(answer)

    await line.send([FIX])
    await line.send([FIX, FIX])

    assert bodies == [FIX, {"locations": [FIX, FIX]}]


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (429, {"Retry-After": "3"}, BusyError),
        (503, {}, BusyError),
        (500, {}, LostError),
        (401, {}, RefusedError),
        (422, {}, RefusedError),
    ],
)
async def test_it_tells_failures_apart(
    status: int, headers: dict[str, str], error: type[Exception]
) -> None:
    line = line_answering(lambda _: httpx.Response(status, headers=headers, json={"code": "x"}))

    with pytest.raises(error):
        await line.send([FIX])


async def test_it_hears_offers_on_its_socket_and_says_what_came_of_them() -> None:
    heard: list[Any] = []
    done = asyncio.Event()

    async def serve(socket: websockets.ServerConnection) -> None:
        async for raw in socket:
            frame = json.loads(raw)
            heard.append(frame)
            if frame["type"] == "locations":
                await socket.send(json.dumps({"type": "offer", "delivery_id": 7, "title": "Hi"}))
                ack = {"type": "ack", "seq": frame["seq"], "accepted": 1, "rejected": []}
                await socket.send(json.dumps(ack))
            else:
                done.set()

    async with websockets.serve(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = SocketLine(
            f"ws://127.0.0.1:{port}",
            "token",
            offered=lambda _offer: ["received"],
            complain=heard.append,
        )
        verdicts = await line.send([FIX])
        await asyncio.wait_for(done.wait(), 10)
        await line.close()

    assert verdicts.accepted == 1
    assert heard[1] == {"type": "feedback", "delivery_id": 7, "event": "received"}


async def test_it_sends_again_what_a_lost_socket_did_not_acknowledge() -> None:
    connections = 0

    async def serve(socket: websockets.ServerConnection) -> None:
        nonlocal connections
        connections += 1
        async for raw in socket:
            if connections == 1:
                return  # hangs up without an answer
            frame = json.loads(raw)
            ack = {"type": "ack", "seq": frame["seq"], "accepted": 1, "rejected": []}
            await socket.send(json.dumps(ack))

    async with websockets.serve(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = SocketLine(
            f"ws://127.0.0.1:{port}", "token", offered=lambda _: [], complain=lambda _: None
        )
        with pytest.raises(LostError):
            await line.send([FIX])
        verdicts = await line.send([FIX])
        await line.close()

    assert verdicts.accepted == 1


async def test_it_waits_as_told_and_gives_up_what_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter(
        [
            httpx.Response(201, json={"device_id": 1, "token": "t"}),
            httpx.Response(429, headers={"Retry-After": "0.01"}),
            httpx.Response(
                200, json={"accepted": 0, "rejected": [{"index": 0, "code": "null_island"}]}
            ),
            httpx.Response(413, json={"code": "too_large"}),
            httpx.Response(200, json={"accepted": 1, "rejected": []}),
        ]
    )
    transport = httpx.MockTransport(lambda _: next(answers))
    replay = Replay(
        make_trace(make_track(0, 1, 2)),
        make_plan(speed=0.0, stamp=Stamp.SHIFTED, over=Over.HTTP),
    )
    original = httpx.AsyncClient
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **options: original(transport=transport, **options)
    )

    tally = await replay.run()

    assert (tally.phones, tally.sent, tally.accepted) == (1, 3, 1)
    assert tally.throttled == 1
    assert tally.rejected == {"null_island": 1}
    assert tally.failures == {"HTTP 413 too_large": 1}


async def test_it_stops_when_asked_in_the_middle_of_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    posted = asyncio.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/locations":
            posted.set()
        return httpx.Response(
            200, json={"device_id": 1, "token": "t", "accepted": 1, "rejected": []}
        )

    transport = httpx.MockTransport(answer)
    original = httpx.AsyncClient
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **options: original(transport=transport, **options)
    )
    replay = Replay(make_trace(make_track(0, 3600)), make_plan(loop=True))
    running = asyncio.create_task(replay.run())
    await asyncio.wait_for(posted.wait(), 10)
    replay.stop.set()

    tally = await asyncio.wait_for(running, 10)

    assert tally.sent == 1
