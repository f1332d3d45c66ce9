"""Who speaks at a moment: priority, then score, then age; losers know what beat them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from django.utils.timezone import now
from hypothesis import given, settings
from hypothesis import strategies as st

from brands.models import Brand
from campaigns import rules, scores, sentences, words
from campaigns.definition import DefinitionError, decode
from campaigns.differences import differences
from campaigns.evaluation import evaluate_once
from campaigns.judging import _in_turn
from campaigns.models import Decision
from campaigns.moments import Happening
from tests.campaigns.rows import make_campaign, make_transition
from tests.campaigns.values import a_campaign, a_moment, a_subject
from tests.factories import make_brand, make_circle, make_device


@pytest.mark.parametrize(
    ("weights", "score"),
    [
        ({}, 5),
        ({"dwell_s": 0.5}, 65),
        ({"distance_m": -0.01}, 2),
        ({"attribute.affinity": 10}, 12),
        ({"attribute.name": 10}, 5),  # a text adds nothing
        ({"attribute.vip": 10}, 5),  # nor does a yes
        ({"attribute.unknown": 10}, 5),
        ({"dwell_s": 1, "attribute.affinity": -100}, 55),
    ],
)
def test_it_adds_what_is_known(weights: dict[str, float], score: float) -> None:
    known = {"affinity": 0.7, "name": "Ann", "vip": True}
    assert scores.score(5, weights, dwell_s=120, distance_m=300, attributes=known) == score


def test_it_names_what_stands_for_nothing() -> None:
    with pytest.raises(DefinitionError) as error:
        decode({"score_by": {"weather": 1, "attribute.": 1, "dwell_s": 1}})
    assert list(error.value.fields) == ["score_by.weather", "score_by.attribute."]


def test_it_is_said_in_words() -> None:
    wanted = decode({"score": 2, "score_by": {"dwell_s": 0.5}})
    assert "with the score 2 + 0.5 × dwell_s" in sentences.sentence(wanted)
    assert [one.title for one in differences(decode({}), wanted, {})] == ["Score"]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=8))
def test_the_order_of_turns_is_that_of_comparing_each_with_each(
    plans: list[tuple[int, int, bool]],
) -> None:
    moment = a_moment(subject=a_subject(attributes={"n": 1}))
    campaigns = [
        a_campaign(id=number, priority=priority, score=score, score_by={"attribute.n": 1.5 * more})
        for number, (priority, score, more) in enumerate(plans, 1)
    ]

    def beats(one: rules.Campaign, other: rules.Campaign) -> bool:
        mine, theirs = plans[one.id - 1], plans[other.id - 1]
        if mine[0] != theirs[0]:
            return mine[0] > theirs[0]
        worth, its = mine[1] + 1.5 * mine[2], theirs[1] + 1.5 * theirs[2]
        return worth > its if worth != its else one.id < other.id

    happening: Any = Happening(moment=moment, brand=None, candidates=())  # type: ignore[arg-type]
    pairs = [(happening, one) for one in campaigns]
    random.Random(len(plans)).shuffle(pairs)
    turns = [campaign for group in _in_turn(pairs) for _, campaign in group]
    for place, one in enumerate(turns):
        assert all(beats(one, other) for other in turns[place + 1 :])


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "by"),
    [
        ({"priority": 1}, "priority"),
        ({"score": 0.5}, "score"),
        ({"score_by": {"attribute.affinity": 1}}, "score"),
        ({"score_by": {"distance_m": 1}}, "score"),
        ({"score": -1}, None),
        ({}, None),
    ],
)
def test_losers_are_recorded_with_what_beat_them(
    brand: Brand, fields: dict[str, Any], by: str | None
) -> None:
    shop = make_circle(brand)
    make_campaign(brand, shop, name="Older")
    make_campaign(brand, shop, name="Newer", **fields)
    make_transition(make_device(brand, attributes={"affinity": 3}), shop, lat=60.18)
    evaluate_once(now=now())
    lost = Decision.objects.get(reason="lost_to_priority")
    assert lost.trace["winner"] == ("Newer" if by else "Older")
    assert lost.trace["by"] == (by or "order" if fields.get("score") != -1 else "score")
    assert lost.trace["winner"] in words.message(lost.reason, lost.trace)
    assert lost.trace["winner"] in words.message(lost.reason, lost.trace, "fr")


@pytest.mark.django_db
def test_groups_do_not_compete_with_each_other(brand: Brand) -> None:
    shop = make_circle(brand)
    for name, group in (("a", "food"), ("b", "food"), ("c", "news"), ("d", "")):
        make_campaign(brand, shop, name=name, group=group)
    make_transition(make_device(brand), shop)
    evaluate_once(now=now())
    sent = Decision.objects.filter(verdict="send")
    assert sent.count() == 3
    assert Decision.objects.get(reason="lost_to_priority").trace["winner"] == "a"
