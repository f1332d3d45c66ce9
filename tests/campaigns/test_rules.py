"""The rules: every reason, and the order in which they speak."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from campaigns import caps, hours, words
from campaigns.audience import compile_tree
from campaigns.definition import HoursPolicy, InitialState, TriggerOn
from campaigns.reasons import Decision, Reason
from campaigns.restraint import Winner, decide, won
from campaigns.rules import Moment, ranked
from campaigns.sequences import Pattern, Step
from tests.campaigns.values import NOON_MS, a_campaign, a_history, a_moment, a_subject, an_offer

DAY_MS = 86_400_000
MORNINGS = (hours.Daypart(hours.EVERY_DAY, 8 * 60, 11 * 60),)
LUNCH_QUIET = hours.Daypart(hours.EVERY_DAY, 11 * 60, 13 * 60)
ONCE_A_DAY = (caps.Cap(limit=1, scope=caps.CapScope.DEVICE, window_ms=DAY_MS),)
GOLD = compile_tree({"attribute": "tier", "value": "gold"})
CAME, BOUGHT = Step(name="entered", tags=frozenset({"shop"})), Step(name="purchase", is_event=True)
OTHER = Winner(campaign_id=3, name="Tea", priority=9)


@pytest.mark.parametrize(
    ("reason", "campaign", "moment", "trace"),
    [
        (Reason.MATCHED, {}, {}, {"local": "2026-06-10T12:00+03:00"}),
        (Reason.MALFORMED, {"problem": "no title"}, {}, {"problem": "no title"}),
        (Reason.OUTSIDE_WINDOW, {"starts_ms": NOON_MS}, {}, {"starts_at": NOON_MS}),
        (Reason.OUTSIDE_WINDOW, {"ends_ms": NOON_MS}, {}, {"ends_at": NOON_MS}),
        (
            Reason.NOT_A_CROSSING,
            {"on": TriggerOn.EXITED},
            {"on": TriggerOn.EXITED, "reason": "disarmed"},
            {"transition_reason": "disarmed"},
        ),
        (
            Reason.NOT_A_CROSSING,
            {"on": TriggerOn.EXITED},
            {"on": TriggerOn.EXITED, "reason": "silence"},
            {},
        ),
        (Reason.INITIAL_STATE, {}, {"began_initially": True}, {"policy": "suppress"}),
        (
            Reason.MATCHED,
            {"initial_state": InitialState.FIRE},
            {"began_initially": True},
            {},
        ),
        (  # its dwell counts, only the welcome is left out
            Reason.MATCHED,
            {},
            {"began_initially": True, "on": TriggerOn.DWELLED},
            {},
        ),
        (
            Reason.INITIAL_STATE,
            {"initial_state": InitialState.REQUIRE_EXIT},
            {"began_initially": True, "on": TriggerOn.DWELLED},
            {"policy": "require_exit"},
        ),
        (
            Reason.TOO_LATE,
            {},
            {"occurred_ms": NOON_MS - 901_000},
            {"age_s": 901, "max_age_s": 900},
        ),
        (Reason.MATCHED, {}, {"occurred_ms": NOON_MS - 900_000}, {}),
        (
            Reason.EVENT_DIFFERS,
            {"where": (("what", "shoes"),)},
            {"properties": {"what": "socks"}},
            {"property": "what", "wanted": "shoes", "seen": "socks"},
        ),
        (
            Reason.NO_LOCATION_CONSENT,
            {},
            {"subject": a_subject(consent_location=False)},
            {},
        ),
        (
            Reason.MATCHED,  # an event has no place
            {},
            {"subject": a_subject(consent_location=False), "geofence_id": None},
            {},
        ),
        (
            Reason.NO_LOCATION_CONSENT,  # it ends with an event, but began at a place
            {"pattern": Pattern(steps=(CAME, BOUGHT))},
            {"subject": a_subject(consent_location=False), "geofence_id": None},
            {},
        ),
        (
            Reason.MATCHED,
            {"pattern": Pattern(steps=(BOUGHT, BOUGHT))},
            {"subject": a_subject(consent_location=False), "geofence_id": None},
            {},
        ),
        (
            Reason.NO_MARKETING_CONSENT,
            {},
            {"subject": a_subject(consent_marketing=False)},
            {},
        ),
        (
            Reason.MATCHED,
            {"transactional": True},
            {"subject": a_subject(consent_marketing=False)},
            {},
        ),
        (
            Reason.NOT_IN_AUDIENCE,
            {"audience": GOLD},
            {"subject": a_subject(attributes={"tier": "tin"})},
            {"path": "audience", "seen": "tin"},
        ),
        (
            Reason.OUTSIDE_DAYPART,
            {"dayparts": MORNINGS},
            {},
            {"local": "2026-06-10T12:00+03:00", "next_at": NOON_MS + 20 * 3_600_000},
        ),
        (Reason.QUIET_HOURS, {"quiet": LUNCH_QUIET}, {}, {"next_at": NOON_MS + 3_600_000}),
        (Reason.MATCHED, {"quiet": LUNCH_QUIET, "transactional": True}, {}, {}),
        (
            Reason.HELD,
            {"quiet": LUNCH_QUIET, "quiet_policy": HoursPolicy.HOLD},
            {},
            {"due_at": NOON_MS + 3_600_000},
        ),
        (
            Reason.HELD,
            {
                "quiet": LUNCH_QUIET,
                "quiet_policy": HoursPolicy.WHILE_GOOD,
                "expires_after_ms": 3_600_001,
            },
            {},
            {"due_at": NOON_MS + 3_600_000},
        ),
        (
            Reason.QUIET_HOURS,  # it would be over by then
            {"quiet": LUNCH_QUIET, "quiet_policy": HoursPolicy.WHILE_GOOD},
            {},
            {"next_at": NOON_MS + 3_600_000, "good_for_s": 3_600},
        ),
        (
            Reason.OUTSIDE_DAYPART,
            {"dayparts": MORNINGS, "outside_dayparts": HoursPolicy.WHILE_GOOD},
            {},
            {"next_at": NOON_MS + 20 * 3_600_000, "good_for_s": 3_600},
        ),
        (
            Reason.HELD,
            {"dayparts": MORNINGS, "outside_dayparts": HoursPolicy.HOLD},
            {},
            {"due_at": NOON_MS + 20 * 3_600_000},
        ),
    ],
)
def test_it_gives_its_reason(
    reason: Reason, campaign: dict[str, Any], moment: dict[str, Any], trace: dict[str, Any]
) -> None:
    decision = decide(a_campaign(**campaign), a_moment(**moment), a_history())
    assert decision.reason is reason
    assert decision.send is (reason in {Reason.MATCHED, Reason.HELD})
    assert decision.trace.items() >= trace.items()


def test_it_says_how_many_there_were_and_when_one_more_fits() -> None:
    decision = decide(a_campaign(caps=ONCE_A_DAY), a_moment(), a_history(an_offer()))
    assert decision.reason is Reason.CAP_REACHED
    assert decision.trace == {
        "scope": "device",
        "seen": 1,
        "limit": 1,
        "window_s": 86_400,
        "next_at": NOON_MS - 60_000 + DAY_MS,
    }


def test_it_exempts_what_is_transactional_from_caps_and_arbitration() -> None:
    campaign = a_campaign(caps=ONCE_A_DAY, transactional=True)
    history = a_history(an_offer())
    history.winners[""] = OTHER
    assert decide(campaign, a_moment(), history).reason is Reason.MATCHED


def test_it_lets_one_campaign_speak_at_a_moment() -> None:
    history = a_history()
    first = decide(a_campaign(id=1, priority=5), a_moment(), history)
    won(a_campaign(id=1, name="Tea", priority=5), a_moment(), history, first.due_ms)
    second = decide(a_campaign(id=2), a_moment(), history)
    assert second == Decision(
        False,
        Reason.LOST_TO_PRIORITY,
        {"winner_id": 1, "winner": "Tea", "winner_priority": 5, "priority": 0, "by": "priority"},
    )


def test_it_lets_each_group_have_its_own_winner() -> None:
    history = a_history()
    won(a_campaign(id=1), a_moment(), history, NOON_MS)
    assert decide(a_campaign(id=2, group="service"), a_moment(), history).send


def test_it_counts_its_own_offers_as_it_goes() -> None:
    history, campaign = a_history(), a_campaign(caps=ONCE_A_DAY)
    won(campaign, a_moment(), history, NOON_MS)
    history.winners.clear()
    assert decide(campaign, a_moment(id=101), history).reason is Reason.CAP_REACHED


def test_it_counts_a_held_offer_when_it_is_due() -> None:
    held = a_campaign(quiet=LUNCH_QUIET, quiet_policy=HoursPolicy.HOLD, caps=ONCE_A_DAY)
    yesterday = an_offer(NOON_MS + 3_600_000 - DAY_MS)
    assert decide(held, a_moment(), a_history(yesterday)).reason is Reason.HELD
    too_close = an_offer(NOON_MS + 3_600_000 - DAY_MS + 1)
    assert decide(held, a_moment(), a_history(too_close)).reason is Reason.CAP_REACHED


def everything_wrong() -> tuple[dict[str, Any], dict[str, Any]]:
    """A campaign and a moment with every possible objection."""
    campaign = {
        "problem": "broken",
        "ends_ms": NOON_MS,
        "on": TriggerOn.EXITED,
        "initial_state": InitialState.REQUIRE_EXIT,
        "where": (("what", "shoes"),),
        "audience": GOLD,
        "dayparts": MORNINGS,
        "quiet": LUNCH_QUIET,
        "caps": ONCE_A_DAY,
    }
    moment = {
        "on": TriggerOn.EXITED,
        "reason": "disarmed",
        "began_initially": True,
        "occurred_ms": NOON_MS - DAY_MS,
        "subject": a_subject(consent_location=False, consent_marketing=False),
    }
    return campaign, moment


def test_it_speaks_in_a_fixed_order() -> None:
    campaign, moment = everything_wrong()
    mends: list[tuple[Reason, dict[str, Any], dict[str, Any]]] = [
        (Reason.MALFORMED, {"problem": ""}, {}),
        (Reason.OUTSIDE_WINDOW, {"ends_ms": None}, {}),
        (Reason.NOT_A_CROSSING, {}, {"reason": ""}),
        (Reason.INITIAL_STATE, {}, {"began_initially": False}),
        (Reason.TOO_LATE, {}, {"occurred_ms": NOON_MS}),
        (Reason.EVENT_DIFFERS, {"where": ()}, {}),
        (Reason.NO_LOCATION_CONSENT, {}, {"subject": a_subject(consent_marketing=False)}),
        (Reason.NO_MARKETING_CONSENT, {}, {"subject": a_subject()}),
        (Reason.NOT_IN_AUDIENCE, {"audience": compile_tree({})}, {}),
        (Reason.OUTSIDE_DAYPART, {"dayparts": ()}, {}),
        (Reason.QUIET_HOURS, {"quiet": None}, {}),
    ]
    history = a_history(an_offer())
    history.winners[""] = OTHER
    for reason, mended_campaign, mended_moment in mends:
        assert decide(a_campaign(**campaign), a_moment(**moment), history).reason is reason
        campaign |= mended_campaign
        moment |= mended_moment
    assert decide(a_campaign(**campaign), a_moment(**moment), history).reason is (
        Reason.LOST_TO_PRIORITY
    )
    history.winners.clear()
    assert decide(a_campaign(**campaign), a_moment(**moment), history).reason is Reason.CAP_REACHED


def test_it_ranks_by_priority_then_age() -> None:
    found = ranked([a_campaign(id=3), a_campaign(id=2, priority=1), a_campaign(id=1)])
    assert [one.id for one in found] == [2, 1, 3]


@pytest.mark.parametrize("language", words.LANGUAGES)
@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_words(reason: Reason, language: str) -> None:
    assert "{" not in words.message(reason, {}, language)
    assert words.message(reason, {}, language) != words.label(reason)


def test_it_says_the_values_it_saw() -> None:
    trace = {"scope": "person", "seen": 3, "limit": 3, "next_at": NOON_MS}
    assert words.message("cap_reached", trace) == (
        "Enough for now: 3 of 3 per person; next possible at 2026-06-10 09:00 UTC."
    )
    assert "3 sur 3 par personne" in words.message("cap_reached", trace, "fr")
    assert words.message("a_reason_of_the_future", {}) == "A reason of the future"


def test_a_trace_is_small() -> None:
    long = a_subject(attributes={"tier": "x" * 10_000})
    decision = decide(a_campaign(audience=GOLD), a_moment(subject=long), a_history())
    assert len(str(decision.trace)) < 250


def test_moments_know_their_own_instant() -> None:
    moment: Moment = a_moment()
    assert datetime.fromtimestamp(moment.now_ms / 1000, UTC).hour == 9


@pytest.mark.parametrize(
    ("reason", "trace", "english", "french"),
    [
        ("too_late", {"age_s": 2_930, "max_age_s": 900}, "49 minutes ago", "il y a 49 minutes"),
        ("sequence_incomplete", {"matched": 1, "of": 2, "lacks": "no balance_low before"},
         "no balance_low before", "pas de « balance_low » avant"),
        ("sequence_incomplete", {"matched": 2, "of": 2, "lacks": "40 s too late"},
         "40 s too late", "40 s trop tard"),
        ("sequence_incomplete", {"matched": 1, "of": 1, "lacks": "not away for 60 s"},
         "not away for 60 s", "pas absent pendant 60 s"),
        ("sequence_incomplete", {"matched": 1, "of": 1, "lacks": "not number 3"},
         "not number 3", "pas la fois numéro 3"),
        ("initial_state", {"policy": "require_exit"},
         "to wait until they have left once", "attendre qu’ils soient partis"),
        ("not_a_crossing", {"transition_reason": "silence"},
         "the device fell silent", "l’appareil s’est tu"),
        ("held_out", {"group": "control"}, "control group", "groupe témoin"),
    ],
)  # fmt: skip
def test_no_code_and_no_english_is_left_in_the_words(
    reason: str, trace: dict[str, Any], english: str, french: str
) -> None:
    assert english in words.message(reason, trace)
    assert french in words.message(reason, trace, "fr")
    for code in ("require_exit", "silence)", "(control"):
        assert code not in words.message(reason, trace, "fr")


def test_times_in_words_are_of_one_clock_and_name_it() -> None:
    trace = {"local": "2026-06-10T22:00+03:00", "next_at": NOON_MS + 22 * 3_600_000}
    assert words.message("quiet_hours", trace, tz=ZoneInfo("Europe/Helsinki")) == (
        "During quiet hours: it was 2026-06-10 22:00 Europe/Helsinki; "
        "next at 2026-06-11 10:00 Europe/Helsinki."
    )
    assert "2026-06-10 19:00 UTC" in words.message("quiet_hours", trace)
