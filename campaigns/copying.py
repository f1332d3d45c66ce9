"""What was decided as PostgreSQL's COPY takes it, in its binary format. It writes to no table.

The format: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4. A batch has
twenty decisions for each moment, so what a moment's or a campaign's rows have in common is put
into bytes once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from struct import Struct
from typing import Protocol

import msgspec

from campaigns import rules
from campaigns.reasons import Decision, Reason, Trace

COLUMNS = (
    "device_id, moment_kind, moment_id, geofence_id, brand_id, campaign_id, campaign_version,"
    " verdict, reason, decided_at, trace"
)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_FIELDS = Struct(">h").pack(len(COLUMNS.split(",")))
_FIELDS_WITH_ID = Struct(">h").pack(1 + len(COLUMNS.split(",")))
_NULL = b"\xff\xff\xff\xff"
_LENGTH = Struct(">i").pack
_INT = Struct(">ii").pack
_BIGINT = Struct(">iq").pack
_JSONB_VERSION = 1
_TRACE = Struct(">ib").pack


class Happening(Protocol):
    """What a moment belongs to."""

    @property
    def moment(self) -> rules.Moment: ...


Row = tuple[Happening, rules.Campaign, Decision]
_encode = msgspec.json.Encoder().encode


class Copied:
    """The rows of one batch, all decided at one instant; lives no longer than its decisions."""

    __slots__ = ("_at", "_campaigns", "_said")

    def __init__(self, at: datetime) -> None:
        self._at = _BIGINT(8, (at - _EPOCH) // timedelta(microseconds=1))
        # By campaign and trace: those who lose to the same winner say the same. With the trace,
        # so that no other one is made in its place.
        self._said: dict[tuple[int, int], tuple[bytes, Trace]] = {}
        self._campaigns: dict[int, bytes] = {}

    def rows(self, decided: Iterable[Row]) -> bytes:
        """Rows that take their ids from the table's sequence."""
        said, parts, tails = self._said, list[bytes](), list[bytes]()
        last: Happening | None = None
        for happening, campaign, decision in decided:
            if happening is not last:
                if last is not None:
                    parts.append((_FIELDS + _about(last.moment)).join(tails))
                last, tails = happening, [b""]
            trace = decision.trace
            found = said.get((campaign.id, id(trace)))
            if found is None:
                found = (self._tail(campaign, decision), trace)
                said[campaign.id, id(trace)] = found
            tails.append(found[0])
        if last is not None:
            parts.append((_FIELDS + _about(last.moment)).join(tails))
        return b"".join(parts)

    def numbered(self, decided: Iterable[tuple[int, Row]]) -> bytes:
        """Rows whose ids, which come first, were taken before."""
        return b"".join(
            [
                _FIELDS_WITH_ID
                + _BIGINT(8, key)
                + _about(happening.moment)
                + self._tail(campaign, decision)
                for key, (happening, campaign, decision) in decided
            ]
        )

    def _tail(self, campaign: rules.Campaign, decision: Decision) -> bytes:
        by = self._campaigns.get(campaign.id)
        if by is None:
            by = self._campaigns[campaign.id] = _by(campaign)
        trace = _encode(decision.trace)
        return (
            by
            + _verdict(decision.send, decision.reason)
            + self._at
            + _TRACE(1 + len(trace), _JSONB_VERSION)
            + trace
        )


def _about(moment: rules.Moment) -> bytes:
    place = moment.geofence_id
    return (
        _BIGINT(8, moment.subject.device_id)
        + _text(moment.kind)
        + _BIGINT(8, moment.id)
        + (_NULL if place is None else _BIGINT(8, place))
    )


def _by(campaign: rules.Campaign) -> bytes:
    return _BIGINT(8, campaign.brand_id) + _BIGINT(8, campaign.id) + _INT(4, campaign.version)


@cache
def _verdict(send: bool, reason: Reason) -> bytes:
    return _text("send" if send else "refuse") + _text(reason)


@lru_cache(maxsize=64)
def _text(text: str) -> bytes:
    data = text.encode()
    return _LENGTH(len(data)) + data
