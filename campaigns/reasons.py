"""Every reason that a campaign may have to speak or not, and the verdict that bears it. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple


class Reason(StrEnum):
    """Why a campaign spoke, or which rule was the first to object."""

    MATCHED = "matched"
    HELD = "held"
    MALFORMED = "malformed"
    OUTSIDE_WINDOW = "outside_window"
    NOT_A_CROSSING = "not_a_crossing"
    INITIAL_STATE = "initial_state"
    TOO_LATE = "too_late"
    EVENT_DIFFERS = "event_differs"
    SEQUENCE_INCOMPLETE = "sequence_incomplete"
    SEQUENCE_RESTS = "sequence_rests"
    CALLED_OFF = "called_off"
    NO_LOCATION_CONSENT = "no_location_consent"
    NO_MARKETING_CONSENT = "no_marketing_consent"
    NOT_IN_AUDIENCE = "not_in_audience"
    CONTRADICTS_ATTRIBUTE = "contradicts_attribute"
    CONTRADICTS_EVENT = "contradicts_event"
    CONTRADICTS_OFFER = "contradicts_offer"
    OUTSIDE_DAYPART = "outside_daypart"
    QUIET_HOURS = "quiet_hours"
    LOST_TO_PRIORITY = "lost_to_priority"
    CAP_REACHED = "cap_reached"
    BUDGET_SPENT = "budget_spent"
    PACED = "paced"
    COUPONS_GONE = "coupons_gone"
    CONTENT_ERROR = "content_error"
    HELD_OUT = "held_out"


SENDS = frozenset({Reason.MATCHED, Reason.HELD})

Trace = dict[str, Any]


class Refusal(NamedTuple):
    """The reason against an offer, and the values seen."""

    reason: Reason
    trace: Trace


class Decision(NamedTuple):
    """A verdict with its reason and the values seen; `due_ms` where an offer is made."""

    send: bool
    reason: Reason
    trace: Trace
    due_ms: int = 0
