"""The presence rules, cell by cell, then against a slow and obvious reading of a whole walk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import walks
from devices.presence import (
    CERTAINTY,
    REASONS,
    TABLE,
    Change,
    PresenceState,
    Sighting,
    TransitionKind,
    TransitionReason,
    classify,
    in_words,
)
from tests.devices import clerk
from tests.devices.clerk import Belief, Rules, Stop
from tests.devices.walking import as_rows, beliefs_of, rows_of, walk

OUTSIDE, UNSURE, INSIDE = Sighting
MINUTE = 60_000


def belief(state: PresenceState, **fields: int) -> Belief:
    return Belief(state, **{"visit_id": 7, "entered_ms": 1000, "since_ms": 1000} | fields)


def move(
    before: Belief | None, sighting: Sighting, *, at_ms: int = 5000, rules: Rules | None = None
) -> tuple[Belief | None, Change | None]:
    stops = [Stop(at_ms, {2: (sighting, sighting)})]
    beliefs = {} if before is None else {2: before}
    after, prints = walk(1, stops, beliefs, rules_of=lambda _: rules or Rules(), seen_ms=at_ms)
    changes = [each.change for each in prints]
    assert len(changes) <= 1
    return after.get(2), changes[0] if changes else None


def elapse(
    before: Belief, *, until_ms: int, seen_ms: int, rules: Rules
) -> tuple[Belief | None, list[Change]]:
    slots, at = rows_of(1, {2: before}), np.array([seen_ms])
    told = walks.elapse(
        slots, *as_rows([rules]), at, np.array([until_ms]), silence_ms=rules.silence_ms
    )
    return beliefs_of(slots).get(2), list(in_words(told))


def due_ms(belief: Belief, *, seen_ms: int, rules: Rules) -> int:
    slots, at = rows_of(1, {2: belief}), np.array([seen_ms])
    return int(walks.due_ms(slots, *as_rows([rules]), at, silence_ms=rules.silence_ms)[0])


def test_it_spells_out_every_pair_of_state_and_sighting() -> None:
    assert set(TABLE) == {(state, sighting) for state in PresenceState for sighting in Sighting}


@pytest.mark.parametrize(
    ("state", "sighting", "after", "kind"),
    [
        # One fix is enough (the default): crossing the edge changes the belief at once.
        (None, OUTSIDE, None, None),
        (None, UNSURE, None, None),
        (None, INSIDE, PresenceState.INSIDE, TransitionKind.ENTERED),
        (PresenceState.INSIDE, OUTSIDE, None, TransitionKind.EXITED),
        (PresenceState.INSIDE, UNSURE, PresenceState.INSIDE, None),
        (PresenceState.INSIDE, INSIDE, PresenceState.INSIDE, None),
        # A change under way (rules were stricter when it began) is finished or given up.
        (PresenceState.ENTERING, OUTSIDE, None, None),
        (PresenceState.ENTERING, UNSURE, PresenceState.ENTERING, None),
        (PresenceState.ENTERING, INSIDE, PresenceState.INSIDE, TransitionKind.ENTERED),
        (PresenceState.LEAVING, OUTSIDE, None, TransitionKind.EXITED),
        (PresenceState.LEAVING, UNSURE, PresenceState.LEAVING, None),
        (PresenceState.LEAVING, INSIDE, PresenceState.INSIDE, None),
    ],
)
def test_it_moves_a_belief(
    state: PresenceState | None,
    sighting: Sighting,
    after: PresenceState | None,
    kind: TransitionKind | None,
) -> None:
    moved, change = move(None if state is None else belief(state), sighting)
    assert (None if moved is None else moved.state) == after
    assert (None if change is None else change.kind) == kind


def test_it_waits_for_as_many_fixes_as_the_geofence_wants() -> None:
    rules = Rules(confirm_fixes=3)
    first, change = move(None, INSIDE, at_ms=1000, rules=rules)
    assert first is not None
    assert (first.state, change) == (PresenceState.ENTERING, None)
    second, change = move(first, INSIDE, at_ms=2000, rules=rules)
    assert change is None
    third, change = move(second, INSIDE, at_ms=3000, rules=rules)
    assert change is not None
    assert third is not None
    assert (change.kind, change.entered_ms, change.occurred_ms) == ("entered", 1000, 3000)
    assert third.state is PresenceState.INSIDE


def test_it_waits_for_as_long_as_the_geofence_wants() -> None:
    rules = Rules(confirm_ms=10_000)
    first, _ = move(None, INSIDE, at_ms=1000, rules=rules)
    second, change = move(first, INSIDE, at_ms=9000, rules=rules)
    assert change is None
    _, change = move(second, INSIDE, at_ms=11_000, rules=rules)
    assert change is not None


def test_it_starts_counting_anew_after_a_fix_that_disagrees() -> None:
    rules = Rules(confirm_fixes=2)
    doubting, _ = move(belief(PresenceState.INSIDE), OUTSIDE, at_ms=2000, rules=rules)
    back, _ = move(doubting, INSIDE, at_ms=3000, rules=rules)
    again, change = move(back, OUTSIDE, at_ms=4000, rules=rules)
    assert change is None
    assert again is not None
    assert again.agreeing == 1


@pytest.mark.parametrize(
    ("distance_m", "accuracy_m", "if_outside", "if_inside"),
    [
        (50.0, np.nan, INSIDE, INSIDE),  # unknown accuracy counts as exact
        (0.0, np.nan, INSIDE, INSIDE),  # the edge is inside
        (-1.0, np.nan, OUTSIDE, UNSURE),  # within the exit buffer of 20 m
        (-20.0, np.nan, OUTSIDE, UNSURE),
        (-20.1, np.nan, OUTSIDE, OUTSIDE),
        (50.0, 50 / CERTAINTY, INSIDE, INSIDE),  # just sure enough
        (50.0, 51 / CERTAINTY, UNSURE, INSIDE),  # straddles: does not enter, does not leave
        (-60.0, 50 / CERTAINTY, OUTSIDE, UNSURE),
        (-71.0, 50 / CERTAINTY, OUTSIDE, OUTSIDE),
    ],
)
def test_it_is_unsure_of_a_fix_that_straddles_the_edge(
    distance_m: float, accuracy_m: float, if_outside: Sighting, if_inside: Sighting
) -> None:
    found = [
        int(
            classify(
                np.array([distance_m]),
                np.array([accuracy_m]),
                np.array([20.0]),
                np.array([believed]),
            )[0]
        )
        for believed in (False, True)
    ]
    assert found == [if_outside, if_inside]


def test_it_fires_a_dwell_at_its_due_time_though_no_fix_came() -> None:
    rules = Rules(dwell_thresholds=(60, 300))
    after, changes = elapse(
        belief(PresenceState.INSIDE), until_ms=61_000, seen_ms=1000, rules=rules
    )
    assert [(c.kind, c.dwell_s, c.occurred_ms) for c in changes] == [("dwelled", 60, 61_000)]
    assert after is not None
    assert due_ms(after, seen_ms=1000, rules=rules) == 301_000
    again, changes = elapse(after, until_ms=62_000, seen_ms=1000, rules=rules)
    assert changes == []
    assert again == after


def test_it_gives_a_silent_device_up() -> None:
    rules = Rules(dwell_thresholds=(7200,), silence_ms=3_600_000)
    after, changes = elapse(
        belief(PresenceState.INSIDE), until_ms=9_000_000, seen_ms=1000, rules=rules
    )
    assert after is None
    assert [(c.kind, c.reason, c.occurred_ms) for c in changes] == [
        ("exited", TransitionReason.SILENCE, 3_601_000)
    ]


def test_it_never_dwells_while_it_doubts() -> None:
    rules = Rules(dwell_thresholds=(60,))
    _, changes = elapse(belief(PresenceState.LEAVING), until_ms=100_000, seen_ms=1000, rules=rules)
    assert changes == []


def test_it_forgets_an_entry_that_was_never_confirmed() -> None:
    after, changes = elapse(
        belief(PresenceState.ENTERING), until_ms=9_000_000, seen_ms=1000, rules=Rules()
    )
    assert (after, changes) == (None, [])


def test_it_leaves_no_visit_before_it_began() -> None:
    states = [PresenceState.ENTERING, PresenceState.INSIDE, PresenceState.LEAVING]
    slots = rows_of(1, {key: belief(state) for key, state in enumerate(states)})
    reasons = np.full(3, REASONS.index(TransitionReason.GEOFENCE_ENDED), np.int8)
    told = list(in_words(walks.end(slots, np.array([500, 500, 2000]), reasons)))
    assert beliefs_of(slots) == {}
    assert [(each.kind, each.occurred_ms, each.reason) for each in told] == [
        ("exited", 1000, "geofence_ended"),
        ("exited", 2000, "geofence_ended"),
    ]


def test_it_names_a_visit_by_nothing_but_the_visit() -> None:
    def begun(device_id: int, geofence_id: int, at_ms: int) -> int:
        stops = [Stop(at_ms, {geofence_id: (INSIDE, INSIDE)})]
        after, _ = walk(device_id, stops, {}, rules_of=lambda _: Rules(), seen_ms=at_ms)
        return after[geofence_id].visit_id

    assert begun(1, 2, 3) == begun(1, 2, 3)
    visits = {begun(d, g, t) for d in range(9) for g in range(9) for t in range(9)}
    assert len(visits) == 9**3
    assert all(0 <= each < 2**63 for each in visits)


def test_it_exits_before_it_enters_on_one_fix_in_order_of_geofences() -> None:
    sure = (INSIDE, INSIDE)
    gone = (OUTSIDE, OUTSIDE)
    start = Stop(0, {1: sure, 4: sure})
    _, prints = walk(
        9,
        [start, Stop(MINUTE, {1: gone, 4: gone, 2: sure, 3: sure})],
        {},
        rules_of=lambda _: Rules(),
        seen_ms=0,
    )
    told = [(each.geofence_id, each.change.kind.value) for each in prints]
    assert told == [
        (1, "entered"),
        (4, "entered"),
        (1, "exited"),
        (4, "exited"),
        (2, "entered"),
        (3, "entered"),
    ]


def test_it_ends_a_visit_when_the_geofence_moves_and_begins_a_new_one() -> None:
    old = {5: belief(PresenceState.INSIDE, shape_version=1)}
    after, prints = walk(
        9,
        [Stop(MINUTE, {5: (INSIDE, INSIDE)})],
        old,
        rules_of=lambda _: Rules(shape_version=2),
        seen_ms=1000,
    )
    assert [(p.change.kind, p.change.reason) for p in prints] == [
        ("exited", TransitionReason.GEOFENCE_MOVED),
        ("entered", TransitionReason.CROSSED),
    ]
    assert after[5].shape_version == 2


def _oracle(  # noqa: C901 - slow and obvious
    stops: list[tuple[int, Sighting]], *, confirm: int, dwells: tuple[int, ...], silence_ms: int
) -> list[tuple[str, int, int]]:
    """Second by second: what a patient clerk with a stopwatch would write down."""
    told: list[tuple[str, int, int]] = []
    inside = False
    votes: list[int] = []
    entered = last = -1
    reported: set[int] = set()
    by_time = dict(stops)
    for now in range(stops[0][0], stops[-1][0] + 1000, 1000):
        silent = last >= 0 and now - last > silence_ms
        if inside and not (votes) and not silent:
            for dwell in dwells:
                if dwell not in reported and now >= entered + dwell * 1000:
                    told.append(("dwelled", entered + dwell * 1000, dwell))
                    reported.add(dwell)
        if silent:
            if inside:
                told.append(("exited", last + silence_ms, 0))
            inside, votes = False, []
        if now not in by_time:
            continue
        sighting = by_time[now]
        last = now
        speaks = OUTSIDE if inside else INSIDE
        if sighting is speaks:
            votes.append(now)
        elif sighting is not UNSURE:
            votes = []
        if len(votes) >= confirm:
            if inside:
                told.append(("exited", now, 0))
            else:
                entered, reported = votes[0], set()
                told.append(("entered", now, 0))
            inside, votes = not inside, []
            if inside:
                for dwell in dwells:
                    if now >= entered + dwell * 1000:
                        told.append(("dwelled", entered + dwell * 1000, dwell))
                        reported.add(dwell)
    return told


@given(
    gaps=st.lists(
        st.tuples(st.integers(1, 90), st.sampled_from(list(Sighting))), min_size=1, max_size=40
    ),
    confirm=st.integers(1, 3),
    dwells=st.sets(st.sampled_from([10, 30, 60, 120])).map(lambda s: tuple(sorted(s))),
    silence_s=st.sampled_from([45, 80, 500]),
)
def test_it_tells_what_a_patient_clerk_would_write_down(
    gaps: list[tuple[int, Sighting]], confirm: int, dwells: tuple[int, ...], silence_s: int
) -> None:
    at, stops = 0, []
    for gap_s, sighting in gaps:
        at += gap_s * 1000
        stops.append((at, sighting))
    rules = Rules(confirm_fixes=confirm, dwell_thresholds=dwells, silence_ms=silence_s * 1000)
    _, prints = walk(
        1,
        [Stop(when, {1: (sighting, sighting)}) for when, sighting in stops],
        {},
        rules_of=lambda _: rules,
        seen_ms=stops[0][0],
    )
    told = [(p.change.kind.value, p.change.occurred_ms, p.change.dwell_s) for p in prints]
    assert told == _oracle(stops, confirm=confirm, dwells=dwells, silence_ms=silence_s * 1000)


@given(
    gaps=st.lists(
        st.tuples(st.integers(1, 90), st.sampled_from(list(Sighting))), min_size=2, max_size=30
    ),
    cut=st.integers(1, 29),
)
def test_it_tells_the_same_story_however_the_batches_are_cut(
    gaps: list[tuple[int, Sighting]], cut: int
) -> None:
    at, stops = 0, []
    for gap_s, sighting in gaps:
        at += gap_s * 1000
        stops.append(Stop(at, {1: (sighting, sighting)}))
    rules = Rules(confirm_fixes=2, dwell_thresholds=(30, 60), silence_ms=80_000)
    whole, prints = walk(1, stops, {}, rules_of=lambda _: rules, seen_ms=stops[0].at_ms)
    cut = min(cut, len(stops) - 1)
    held, first = walk(1, stops[:cut], {}, rules_of=lambda _: rules, seen_ms=stops[0].at_ms)
    rest, second = walk(
        1, stops[cut:], held, rules_of=lambda _: rules, seen_ms=stops[cut - 1].at_ms
    )
    assert rest == whole
    assert [p.change for p in first + second] == [p.change for p in prints]


_places = st.dictionaries(st.integers(1, 4), st.tuples(*[st.sampled_from(list(Sighting))] * 2))


@given(
    stops=st.lists(st.tuples(st.integers(1, 90), _places), min_size=1, max_size=25),
    held=st.dictionaries(
        st.integers(1, 4),
        st.tuples(st.sampled_from(list(PresenceState)[1:]), st.integers(0, 3), st.integers(1, 2)),
    ),
    rules=st.tuples(
        *[
            st.builds(
                Rules,
                confirm_fixes=st.integers(1, 3),
                confirm_ms=st.sampled_from([0, 0, 30_000]),
                dwell_thresholds=st.sampled_from([(), (30,), (10, 60, 120)]),
                silence_ms=st.just(80_000),
                shape_version=st.integers(1, 2),
            )
        ]
        * 4
    ),
    initial=st.frozensets(st.integers(1, 4)),
)
def test_it_moves_rows_as_the_clerk_moves_beliefs(
    stops: list[tuple[int, dict[int, tuple[Sighting, Sighting]]]],
    held: dict[int, tuple[PresenceState, int, int]],
    rules: tuple[Rules, ...],
    initial: frozenset[int],
) -> None:
    """Four geofences at once: who goes before whom, what moved, what had begun before."""
    at, walked = 1_000_000, []
    for gap_s, seen in stops:
        at += gap_s * 1000
        walked.append(Stop(at, seen))
    beliefs = {
        key: Belief(state, key, 900_000 - key, 950_000, agreeing, 0, version)
        for key, (state, agreeing, version) in held.items()
    }
    told = [
        each(
            7,
            walked,
            beliefs,
            rules_of=lambda key: rules[key - 1],
            seen_ms=1_000_000,
            initial=initial,
        )
        for each in (walk, clerk.walk)
    ]
    assert told[0] == told[1]
