"""Templates: what they may do, what they say, and that a broken one is found before it goes out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from campaigns.content import MEMBERS, SAMPLE, ContentError, check, render
from campaigns.definition import ContentText, LocalContent
from campaigns.templates import ENVIRONMENT

LOCALES = {
    "fr": LocalContent(title="Bonjour", body="à {{ place.name }}"),
    "fr-CA": LocalContent(title="Salut"),
    "zh-Hant": LocalContent(title="您好"),
}
DOUBLE = "{% assign a = a | append: a %}"
HELLO = ContentText(title="Hello", body="at {{ place.name }}", locales=LOCALES)


@pytest.mark.parametrize(
    ("locale", "title", "body"),
    [
        ("fr-CA", "Salut", "à Shop"),  # what fr-CA leaves out comes from fr
        ("fr_ca", "Salut", "à Shop"),
        ("fr-BE", "Bonjour", "à Shop"),
        ("zh-Hant-TW", "您好", "at Shop"),
        ("sv", "Hello", "at Shop"),
        ("", "Hello", "at Shop"),
    ],
)
def test_it_speaks_the_readers_language(locale: str, title: str, body: str) -> None:
    said = render(HELLO, SAMPLE, locale=locale)
    assert (said["title"], said["body"]) == (title, body)


def test_it_tells_of_the_device_the_place_and_the_event() -> None:
    scene = replace(
        SAMPLE,
        device={"attributes": {"name": "Ann"}},
        place={"name": "Corner", "metadata": {"phone": "12"}},
        event={"properties": {"left": 3}},
    )
    text = (
        "{{ device.attributes.name | default: 'you' }} {{ place.metadata.phone }}"
        " {{ moment.dwell_s | divided_by: 60 }} {{ event.properties.left }} {{ brand.name }}"
    )
    content = ContentText(title=text, body="b", data={"to": "{{ place.name }}"})
    said = render(content, scene)
    assert said["title"] == "Ann 12 10 3 Brand"
    assert said["data"] == {"to": "Corner"}


def test_what_is_not_known_is_empty_or_its_default() -> None:
    text = "Hi {{ device.attributes.name | default: 'you' }}{{ device.attributes.surname }}"
    assert render(ContentText(title=text, body="b"), SAMPLE)["title"] == "Hi you"


@pytest.mark.parametrize(
    ("template", "word"),
    [
        ("{{ person.name }}", "person"),
        ("Come to {{ place.nmae }}", "place.nmae"),
        ("{% if moment.distnce_m > 5 %}far{% endif %}", "moment.distnce_m"),
        ("{{ coupon['cod'] }}", "coupon.cod"),
        ("{% if %}", "expression"),
        ("{{ 'a' | nope }}", "nope"),
        ("{% include 'x' %}", "include"),
        ("{% render 'x' %}", "render"),
        ("{% for i in (1..100000) %}a{% endfor %}", "loop"),
        ("{{ (1..1000000000) | join }}", "grows"),
        ("{{ 'a' " + ("| replace: 'a', '" + "a" * 300 + "'") * 2 + " }}", "grows"),
        ("{% assign a = 'a' %}{% for i in (1..900) %}" + DOUBLE + "{% endfor %}", "grows"),
        ("{{ 7 | times: 1000000000000000 | times: 1000000000000000000 }}", "grows"),
        ("{% if true %}" * 40 + "{% endif %}" * 40, "nesting"),
        ("x" * 5_000, "longer"),
        ("{{ 1 | divided_by: 0 }}", "divide"),
    ],
)
def test_it_finds_a_template_that_must_not_go_out(template: str, word: str) -> None:
    (problem,) = check(ContentText(title=template, body="b"))
    assert problem.field == "content.title"
    assert word in problem.message


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (ContentText(title="t", body="b", image_url="http://a/b.png"), "content.image_url"),
        (ContentText(title="t", body="b", deep_link="nowhere"), "content.deep_link"),
        (ContentText(title="t" * 201, body="b"), "content.title"),
        (ContentText(title="t", body="{% if moment.on == 'x' %}b{% endif %}"), "content.body"),
        (ContentText(title="t", body="b", data={"from": "x"}), "content.data.from"),
        (ContentText(title="t", body="b", data={"k": "é" * 2_050}), "content.body"),  # 4,096 bytes
        (
            ContentText(title="t", body="b", locales={"fr": LocalContent(body="{{ x }}")}),
            "content.locales.fr.body",
        ),
    ],
)
def test_it_finds_what_no_phone_would_get(content: ContentText, field: str) -> None:
    assert [one.field for one in check(content)] == [field]


def test_what_is_fine_has_no_problems() -> None:
    assert check(HELLO) == []


def test_a_failure_names_the_template() -> None:
    scene = replace(SAMPLE, device={"attributes": {"n": 0}})
    content = ContentText(title="{{ 1 | divided_by: device.attributes.n }}", body="b")
    with pytest.raises(ContentError, match=r"title: .*divide"):
        render(content, scene)


@pytest.mark.parametrize("value", [object(), {1: 2}, [[[]]], float("nan")])
def test_strange_values_never_escape_as_another_error(value: Any) -> None:
    scene = replace(SAMPLE, device={"attributes": {"n": value}})
    for filtered in (
        "n",
        "n | plus: 1",
        "n | split: ','",
        "n | date: '%Y'",
        "n | sort",
        "n | map: 'a'",
    ):
        content = ContentText(title="t {{ device.attributes." + filtered + " }}", body="b")
        with suppress(ContentError):
            render(content, scene)


@pytest.mark.parametrize(
    "template",
    [
        "{{ device.attributes.name | default: 'you' }} at {{ place.name }}",
        "{{ device.attributes }}{{ device.attributes.name.first }}",
        "{{ device.attributes.name }}, {{ device.attributes.name.size }}",
        "{{ device.attributes.name }}{{ device.attributes.name.inner }}",
        "{{ place.tags[0] }} {{ place['name'] | upcase }} {{ place.metadata.floor | plus: 1 }}",
        "{% if device.attributes.name %}you{% else %}me{% endif %}",
        "{% for tag in place.tags %}{{ tag }}{% endfor %}",
        "{{ moment.distance_m }} m",
    ],
)
def test_what_was_said_before_is_said_again_only_of_the_same(template: str) -> None:
    names: list[Any] = ["Ada", "", 1, True, 1.0, 0.0, -0.0, None, ["a"], {"inner": "x"}, "1"]
    for _ in range(2):
        for name in names:
            for attributes in ({"name": name}, {}):
                scene = replace(SAMPLE, device={"attributes": attributes})
                said = render(ContentText(title=f"x {template}", body="y"), scene)["title"]
                afresh = ENVIRONMENT.from_string(f"x {template}").render(**scene.names())
                assert said == afresh.strip()


def test_it_knows_every_name_that_a_scene_has() -> None:
    for root, members in SAMPLE.names().items():
        assert set(members) <= MEMBERS[root]
    free = "{{ device.attributes.a }}{{ place.metadata.b }}{{ event.properties.c }}{{ place.id }}"
    assert check(ContentText(title=free + "{{ moment }}t", body="b")) == []
