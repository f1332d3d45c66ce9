"""What was decided as PostgreSQL's COPY takes it, in its binary format. It writes to no table.

The format: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4. A batch has
twenty decisions for each moment, so what a moment's or a campaign's rows have in common is put
into bytes once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from struct import Struct

import msgspec

from campaigns import rules

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

Row = tuple[rules.Moment, rules.Campaign, rules.Decision]
_encode = msgspec.json.Encoder().encode


class Copied:
    """The rows of one batch, all decided at one instant; lives no longer than its decisions."""

    __slots__ = ("_about", "_at", "_moment", "_said")

    def __init__(self, at: datetime) -> None:
        self._at = _BIGINT(8, (at - _EPOCH) // timedelta(microseconds=1))
        self._moment: rules.Moment | None = None
        self._about = b""
        # By campaign and trace: those who lose to the same winner say the same.
        self._said: dict[tuple[int, int], bytes] = {}

    def rows(self, decided: Iterable[Row]) -> bytes:
        """Rows that take their ids from the table's sequence."""
        said, parts = self._said, []
        for moment, campaign, decision in decided:
            if moment is not self._moment:
                self._moment, self._about = moment, _FIELDS + _about(moment)
            key = (campaign.id, id(decision.trace))
            tail = said.get(key)
            if tail is None:
                tail = said[key] = self._tail(campaign, decision)
            parts.append(self._about)
            parts.append(tail)
        return b"".join(parts)

    def numbered(self, decided: Iterable[tuple[int, Row]]) -> bytes:
        """Rows whose ids, which come first, were taken before."""
        return b"".join(
            _FIELDS_WITH_ID + _BIGINT(8, key) + _about(moment) + self._tail(campaign, decision)
            for key, (moment, campaign, decision) in decided
        )

    def _tail(self, campaign: rules.Campaign, decision: rules.Decision) -> bytes:
        trace = _encode(decision.trace)
        return b"".join(
            (
                _BIGINT(8, campaign.brand_id),
                _BIGINT(8, campaign.id),
                _INT(4, campaign.version),
                _text("send" if decision.send else "refuse"),
                _text(decision.reason),
                self._at,
                _TRACE(1 + len(trace), _JSONB_VERSION),
                trace,
            )
        )


def _about(moment: rules.Moment) -> bytes:
    place = moment.geofence_id
    return b"".join(
        (
            _BIGINT(8, moment.subject.device_id),
            _text(moment.kind),
            _BIGINT(8, moment.id),
            _NULL if place is None else _BIGINT(8, place),
        )
    )


def _text(text: str) -> bytes:
    data = text.encode()
    return _LENGTH(len(data)) + data
