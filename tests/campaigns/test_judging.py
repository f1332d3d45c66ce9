"""What judging asks once for many moments is what asking each campaign of each would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns import hours, judging, rules
from campaigns.audience import compile_tree
from campaigns.catalogue import EMPTY
from campaigns.compiling import BrandRules
from campaigns.definition import HoursPolicy, InitialState, TriggerOn
from campaigns.moments import Happening
from campaigns.reasons import Reason, Refusal
from campaigns.sequences import Pattern, Step
from tests.campaigns.values import NOON_MS, a_campaign, a_moment, a_subject

MORNINGS = (hours.Daypart(hours.EVERY_DAY, 8 * 60, 11 * 60),)
LUNCH_QUIET = hours.Daypart(hours.EVERY_DAY, 11 * 60, 13 * 60)
BRAND = BrandRules(id=1, name="Bara")

CAMPAIGNS: list[dict[str, Any]] = [
    {"problem": "no title"},
    {"starts_ms": NOON_MS - 1_000},
    {"ends_ms": NOON_MS},
    {"on": TriggerOn.EXITED},
    {"on": TriggerOn.EVENT},
    {"initial_state": InitialState.FIRE},
    {"initial_state": InitialState.REQUIRE_EXIT},
    {"max_age_ms": 1_000},
    {"where": (("what", "shoes"),)},
    {"pattern": Pattern(steps=(Step(name="a"),))},
    {"audience": compile_tree({"attribute": "tier", "value": "gold"})},
    {"dayparts": MORNINGS},
    {"dayparts": MORNINGS, "outside_dayparts": HoursPolicy.HOLD},
    {"quiet": LUNCH_QUIET},
    {"quiet": LUNCH_QUIET, "quiet_policy": HoursPolicy.WHILE_GOOD},
    {"expires_after_ms": 7_200_000},
    {"transactional": True},
]
MOMENTS: list[dict[str, Any]] = [
    {"occurred_ms": NOON_MS - 1_000},
    {"occurred_ms": NOON_MS - 1_001},
    {"occurred_ms": NOON_MS - 900_001},
    {"on": TriggerOn.EXITED},
    {"on": TriggerOn.EXITED, "reason": "disarmed"},
    {"began_initially": True},
    {"began_initially": True, "on": TriggerOn.DWELLED},
    {"properties": {"what": "shoes"}},
    {"objection": Refusal(Reason.SEQUENCE_RESTS, {"fired": 1})},
    {"subject": a_subject(attributes={"tier": "gold"})},
    {"subject": a_subject(consent_location=False)},
    {"subject": a_subject(consent_location=False), "geofence_id": None},
    {"subject": a_subject(consent_marketing=False)},
]


WHEN = [
    {"tz": ZoneInfo(name), "now_ms": now_ms}
    for name in ("Europe/Helsinki", "Asia/Tokyo", "America/Sao_Paulo")
    for now_ms in (NOON_MS, NOON_MS + 800_000)
]


def several(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Several of the plain one, each with what its parts say."""
    one = st.tuples(*parts).map(
        lambda found: {name: value for part in found for name, value in part.items()}
    )
    return st.lists(one, min_size=1, max_size=6)


def perhaps(of: list[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.just({}) | st.sampled_from(of)


@settings(max_examples=300)
@given(
    several(*[perhaps(CAMPAIGNS)] * 3),
    several(st.sampled_from(WHEN), *[perhaps(MOMENTS)] * 2),
)
def test_it_refuses_as_each_gate_of_each_campaign_would(
    campaigns: list[dict[str, Any]], moments: list[dict[str, Any]]
) -> None:
    candidates = tuple(a_campaign(**fields, id=number) for number, fields in enumerate(campaigns))
    happenings = [
        Happening(moment=a_moment(**fields, id=number), brand=BRAND, candidates=candidates)
        for number, fields in enumerate(moments)
    ]
    let_through: list[tuple[int, int]] = []

    def read(likely: Sequence[judging.Pair]) -> judging.Offers:
        let_through.extend((happening.moment.id, one.id) for happening, one in likely)
        return judging.Offers()

    verdicts = next(judging.in_steps(happenings, EMPTY, read))

    asked = [
        ((happening.moment.id, one.id), rules.gate(one, happening.moment))
        for happening in happenings
        for one in candidates
    ]
    assert let_through == [pair for pair, refusal in asked if refusal is None]
    assert [
        ((happening.moment.id, one.id), (decision.reason, decision.trace))
        for happening, one, decision in verdicts.refusals
    ] == [(pair, tuple(refusal)) for pair, refusal in asked if refusal is not None]
