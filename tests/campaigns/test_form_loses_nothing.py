"""Whatever a campaign says, its page keeps: what is sent back untouched is what was stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from django.utils import timezone
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from brands.models import Brand
from campaigns import definition
from campaigns.definition import Definition, DefinitionError
from campaigns.differences import differences
from campaigns.forms import CampaignForm, initial_of
from tests.campaigns.pages import untouched
from tests.factories import make_brand

pytestmark = pytest.mark.django_db

HELSINKI = ZoneInfo("Europe/Helsinki")
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
# A name of nothing but white space names nothing.
names = st.text(letters, min_size=1, max_size=12).filter(str.strip)
texts = st.one_of(names, st.text(letters, max_size=30), st.just("Two\nlines,\r\n or three\r"))
seconds = st.one_of(st.integers(1, 366 * 86_400), st.sampled_from([60, 5_400, 86_400]))
numbers = st.floats(-1e6, 1e6, allow_nan=False)
scalars = st.one_of(names, st.integers(-(10**9), 10**9), numbers, st.booleans(), st.none())
wheres = st.dictionaries(names, scalars, max_size=3)
days = st.lists(st.sampled_from(["mon", "Sunday", 3, 7, "FRI"]), max_size=3)
clocks = st.sampled_from(["9:00", "09:30", "17:05", "23:59", "24:00"])
instants = st.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - of the zone below
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
# Both walks through the hour that comes twice in Helsinki, and the edges of the one left out.
turns = st.sampled_from(["2026-10-25T00:30:10Z", "2026-10-25T01:30:20Z", "2026-03-29T01:00:00Z"])
instants_said = st.one_of(instants.map(datetime.isoformat), turns)
keys = st.lists(st.one_of(st.integers(1, 2**40), names), max_size=3)
tags = st.lists(names, max_size=3)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these keys, or none."""
    return st.fixed_dictionaries({}, optional=fields)


def with_on(on: st.SearchStrategy[str], said: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda kind, rest: {"on": kind, **rest}, on, said)


steps = with_on(
    st.sampled_from(["entered", "dwelled", "exited", "event"]),
    some(
        geofences=keys, tags=tags, dwell_s=seconds, event=names, where=wheres, days=days,
        times=st.integers(1, 20),
    ),
)  # fmt: skip
triggers = with_on(
    st.sampled_from([one.value for one in definition.TriggerOn]),
    some(
        geofences=keys, tags=tags, dwell_s=seconds, event=names, where=wheres,
        steps=st.lists(steps, max_size=3), within_s=seconds, unless=steps, for_s=seconds,
        key=texts.map(lambda text: text[:64]), nth=st.integers(1, 1_000), every=st.booleans(),
        absent_s=seconds, once=st.booleans(), again_after_s=seconds,
        at=instants_said, times=st.lists(clocks, max_size=3), days=days,
        zone=st.sampled_from(["device", "brand"]), since=instants_said,
    ),
)  # fmt: skip
guards = st.one_of(
    st.builds(
        lambda attribute, value, more: {"attribute": attribute, "value": value, **more},
        names,
        st.one_of(names, st.integers(), st.booleans()),
        some(name=names, source=names, max_age_s=seconds, op=st.sampled_from(["eq", "ne"])),
    ),
    st.builds(
        lambda event, more: {"event": event, **more},
        names,
        some(
            name=names, where=wheres, times=st.integers(1, 1_000), within_s=seconds,
            same=st.dictionaries(
                names, st.sampled_from(["offer.sku", "place.name", "event.sku"]), max_size=2
            ),
        ),
    ),
    st.builds(lambda label, within_s: {"offer": {"label": label}, "within_s": within_s}, names,
              seconds),
)  # fmt: skip
score_by = st.dictionaries(
    st.one_of(
        st.sampled_from(["dwell_s", "distance_m"]), names.map(lambda one: f"attribute.{one}")
    ),
    numbers,
    max_size=3,
)
caps = st.builds(
    lambda limit, window, scope: {"limit": limit, **window, **scope},
    st.integers(0, 10**9),
    st.one_of(some(window_s=seconds), some(per=st.sampled_from(["hour", "month"]))),
    st.sampled_from(
        [{}, {"scope": "person"}, {"scope": "tag", "tag": "a"},
         {"scope": "channel", "channel": "inbox"}]
    ),
)  # fmt: skip
local = some(title=texts, body=texts, deep_link=texts, image_url=texts)
contents = some(
    title=texts, body=texts, deep_link=texts, image_url=texts,
    data=st.dictionaries(names, texts, max_size=2),
    locales=st.dictionaries(st.sampled_from(["fr", "de-AT"]), local, max_size=2),
    push=some(
        urgency=st.just("normal"), collapse_key=texts, ttl_s=seconds, android_channel_id=texts,
        android_color=st.just("#0f766e"), apns_sound=st.one_of(st.none(), names),
        apns_badge=st.integers(0, 99_999), web_require_interaction=st.booleans(),
    ),
)  # fmt: skip
amounts = some(sends=st.integers(0, 10**15), money=st.integers(0, 10**15))
budgets = some(
    total=amounts, per_day=amounts, per_place=amounts, per_place_and_day=amounts,
    cost=st.integers(0, 10**6), currency=st.sampled_from(["EUR", "JPY", "KWD", ""]),
    timezone=st.sampled_from(["", "Europe/Helsinki"]), even=st.booleans(),
)  # fmt: skip
goals = st.builds(
    lambda what, within: what | within,
    st.one_of(
        st.builds(lambda event, where: {"event": event, "where": where}, names, wheres),
        st.builds(lambda one, two: {"geofences": one, "tags": two}, keys, tags),
        st.sampled_from([{"feedback": "opened"}, {"feedback": "redeemed"}]),
    ),
    some(within_s=seconds),
)
audiences = st.sampled_from(
    [
        {},
        {"all": [{"attribute": "tier", "op": "in", "value": ["gold", 3, True]}]},
        {"any": [{"platform": ["ios"]}, {"not": {"consent": "marketing"}}]},
        {"visits": {"tags": ["own"]}, "measure": "dwell_s", "value": 600, "within_s": 86_401},
    ]
)
policies = st.sampled_from(["hold", "while_good", "drop"])
variants = st.lists(
    st.builds(
        lambda name, more: {"name": name, **more},
        st.sampled_from(["a", "b", "c"]),
        some(weight=st.floats(0, 1_000), content=local),
    ),
    max_size=3,
    unique_by=lambda one: one["name"],
)
definitions = some(
    trigger=triggers, starts_at=instants_said, ends_at=instants_said,
    dayparts=st.lists(some(days=days, **{"from": clocks}), max_size=2),
    outside_dayparts=policies, quiet_hours=policies, audience=audiences,
    caps=st.lists(caps, max_size=3), guards=st.lists(guards, max_size=3),
    labels=st.lists(names, max_size=3), priority=st.integers(-32_768, 32_767), score=numbers,
    score_by=score_by, group=texts, content=contents, expires_after_s=st.integers(1, 28 * 86_400),
    max_age_s=st.integers(1, 30 * 86_400), only_while_inside=st.booleans(),
    initial_state=st.sampled_from(["fire", "suppress", "require_exit"]),
    transactional=st.booleans(), variants=variants, holdout=st.floats(0, 0.9), goal=goals,
    optimise=some(burn_in=st.integers(10, 1_000)), budget=budgets, coupon_pool=texts,
)  # fmt: skip


@pytest.fixture
def brand() -> Brand:
    return make_brand()


def resent(brand: Brand, before: Definition, **touched: Any) -> CampaignForm:
    """The page of a stored campaign, sent back with some fields changed."""
    kept = definition.encode(before)
    page = CampaignForm(brand=brand, base=kept, initial=initial_of(before, name="N"))
    sent = untouched(page)
    for name, value in touched.items():
        sent[name] = value
    again = CampaignForm(sent, brand=brand, base=kept)
    assert again.is_valid(), again.errors
    return again


@given(raw=definitions, priority=st.integers(-32_768, 32_767))
@example(raw={"trigger": {"on": "schedule", "days": ["mon", "mon", 1]}}, priority=1)
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_it_keeps_all_of_a_campaign_whose_priority_was_changed(
    brand: Brand, raw: dict[str, Any], priority: int
) -> None:
    try:
        before = definition.decode(raw)
    except DefinitionError:
        assume(False)
    with timezone.override(HELSINKI):
        after = definition.decode(resent(brand, before, priority=str(priority)).raw())
    # A page always shows one kind of trigger chosen.
    trigger = before.trigger or definition.Trigger(on=definition.TriggerOn.ENTERED)
    wanted = msgspec.structs.replace(before, priority=priority, trigger=trigger)
    assert differences(wanted, after, {}) == []
    assert after == wanted
