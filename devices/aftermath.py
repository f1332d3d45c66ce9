"""Asks the management API what a replay led to; it counts only the replay's own phones."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import httpx

from devices.lines import ask

LOOK_AGAIN_S = 1.0
_LISTS = (
    ("/v1/transitions", "recorded_at", "kind"),
    ("/v1/deliveries", "created_at", "state"),
)
UNDER_WAY = frozenset({"pending", "sending"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """Transitions by kind, deliveries by state; `settled` says that nothing was still under way."""

    transitions: Counter[str]
    deliveries: Counter[str]
    settled: bool


async def _rows(
    client: httpx.AsyncClient, path: str, written: str, after: datetime
) -> AsyncIterator[dict[str, Any]]:
    """The rows of a list that were written after an instant: lists are newest first."""
    cursor: str | None = None
    while True:
        params = {"limit": "1000", **({"cursor": cursor} if cursor else {})}
        page = (await ask(client, "GET", path, params=params)).json()
        for row in page["results"]:
            if datetime.fromisoformat(row[written]) < after:
                return
            yield row
        cursor = page["next"]
        if cursor is None:
            return


async def look(
    base_url: str, server_key: str, *, device_ids: Set[int], after: datetime, within_s: float
) -> Aftermath:
    """Count what was written after an instant, until two looks agree or the time is up."""
    headers = {"Authorization": f"Bearer {server_key}"}
    until = time.monotonic() + within_s
    before: Aftermath | None = None
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60) as client:
        while True:
            seen = [
                Counter(
                    [
                        row[field]
                        async for row in _rows(client, path, written, after)
                        if row["device_id"] in device_ids
                    ]
                )
                for path, written, field in _LISTS
            ]
            now = Aftermath(transitions=seen[0], deliveries=seen[1], settled=False)
            if now == before and not UNDER_WAY & now.deliveries.keys():
                return replace(now, settled=True)
            if time.monotonic() > until:
                return now
            before = now
            await asyncio.sleep(LOOK_AGAIN_S)
