"""Variants that say it otherwise in each language: what readers get, and what is checked before."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.utils.timezone import now

from brands.models import Brand
from campaigns import previews, publishing
from campaigns.content import SAMPLE, render
from campaigns.definition import decode
from campaigns.differences import differences
from campaigns.evaluation import evaluate_once
from campaigns.meaning import contents_of
from campaigns.previews import Stage
from geofences.models import Geofence
from notifications.models import Delivery
from tests.campaigns.rows import a_definition, make_campaign, make_transition
from tests.factories import make_brand, make_circle, make_device, make_key

CONTENT = {
    "title": "Coffee",
    "body": "One for you",
    "locales": {"fr": {"title": "Café", "body": "Un pour vous"}, "de": {"title": "Kaffee"}},
}
VARIANTS: list[dict[str, Any]] = [
    {"name": "plain"},
    {
        "name": "warm",
        "content": {
            "title": "Warm up",
            "locales": {
                "FR": {"title": "Au chaud"},
                "fr-CA": {"body": "Un pour toi"},
                "es": {"title": "Entra en calor", "body": "Uno para ti"},
            },
        },
    },
]


@pytest.mark.parametrize(
    ("variant", "locale", "title", "body"),
    [
        ("plain", "fr", "Café", "Un pour vous"),
        ("plain", "es", "Coffee", "One for you"),
        ("warm", "en", "Warm up", "One for you"),
        ("warm", "fr", "Au chaud", "Un pour vous"),  # the rest as the campaign says it in French
        ("warm", "fr_CA", "Au chaud", "Un pour toi"),
        ("warm", "fr-BE", "Au chaud", "Un pour vous"),
        ("warm", "de", "Kaffee", "One for you"),
        ("warm", "es-MX", "Entra en calor", "Uno para ti"),
    ],
)
def test_a_reader_gets_their_variant_in_their_language(
    variant: str, locale: str, title: str, body: str
) -> None:
    wanted = decode({"content": CONTENT, "variants": VARIANTS})
    said = render(contents_of(wanted)[variant], SAMPLE, locale=locale)
    assert (said["title"], said["body"]) == (title, body)


def test_the_difference_of_a_draft_names_the_language() -> None:
    raw = {"content": CONTENT, "variants": VARIANTS}
    before = decode(raw | {"variants": [{"name": "plain"}, {"name": "warm"}]})
    assert "Variant warm, es" in {one.title for one in differences(before, decode(raw), {})}


@pytest.fixture
def brand(db: None) -> Brand:
    return make_brand()


@pytest.fixture
def shop(brand: Brand) -> Geofence:
    return make_circle(brand, name="Kiosk")


def test_phones_get_it_and_every_variant_in_every_language_is_previewed(
    brand: Brand, shop: Geofence
) -> None:
    only_warm = [VARIANTS[0] | {"weight": 0}, VARIANTS[1]]
    make_campaign(brand, shop, content=CONTENT, variants=only_warm)
    for locale in ("fr-FR", "es", "en"):
        make_transition(make_device(brand, locale=locale), shop)
    evaluate_once(now=now())
    titles = Delivery.objects.order_by("id").values_list("content__title", flat=True)
    assert list(titles) == ["Au chaud", "Entra en calor", "Warm up"]
    wanted = decode(a_definition(shop, content=CONTENT, variants=VARIANTS))
    shown = previews.previews(Stage(brand_name="B", name="C", wanted=wanted))
    assert {(one.variant, one.locale) for one in shown} == {
        ("plain", ""), ("plain", "fr"), ("plain", "de"),
        ("warm", ""), ("warm", "fr"), ("warm", "de"), ("warm", "fr-CA"), ("warm", "es"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "field", "code"),
    [
        ({"title": "{{ nobody }}"}, "variants.warm: content.locales.es.title", "template_error"),
        ({"body": "x" * 2_500}, "variants.warm: content.locales.es.body", "content_error"),
        ({"body": "{{ place.metadata.menu }}!"}, "variants.warm: content.locales.es.body",
         "payload_too_large"),
    ],
)  # fmt: skip
def test_each_is_checked_before_it_goes_live(
    brand: Brand, said: dict[str, str], field: str, code: str
) -> None:
    shop = make_circle(brand, metadata={"menu": "ä" * 1_990})
    large = {"data": {"more": "y" * 600}} if code == "payload_too_large" else {}
    content = {"locales": {"es": {"title": "Hola", "body": "Hola"} | said}}
    raw = a_definition(
        shop,
        content=CONTENT | large,
        variants=[{"name": "plain"}, {"name": "warm", "content": content}],
    )
    found = [(one.field, one.code) for one in publishing.check(brand.pk, raw, now=now())]
    assert (field, code) in found
    assert not [one for one in found if one[0].startswith("variants.plain")]


def test_it_warns_of_a_language_that_only_some_variants_speak(brand: Brand, shop: Geofence) -> None:
    for locale in ("en", "en", "es"):
        make_device(brand, locale=locale)
    raw = a_definition(shop, content=CONTENT, variants=VARIANTS)
    found = {
        one.code: one.message
        for one in publishing.warnings(brand.pk, raw, name="Coffee", now=now())
    }
    assert found["missing_locale"] == (
        "33% of phones speak “es” and would get the default text in variant plain."
    )
    assert "“de”" in found["same_in_every_variant"]  # in French they differ
    assert "“de”" in found["half_a_locale"]  # what fr-CA leaves out, it takes from French


def test_a_wrong_language_is_refused_by_its_path(client: Client, brand: Brand) -> None:
    key = {"Authorization": f"Bearer {make_key(brand)}"}
    wrong = {"name": "a", "content": {"locales": {"fr": {"headline": "x"}}}}
    raw = {"name": "x", "content": CONTENT, "variants": [wrong]}
    answer = client.post("/v1/campaigns", raw, content_type="application/json", headers=key)
    assert answer.status_code == 422
    assert any(path.startswith("variants[0].content.locales") for path in answer.json()["fields"])
    right = client.post(
        "/v1/campaigns", raw | {"variants": VARIANTS}, content_type="application/json", headers=key
    )
    assert right.status_code == 201
    assert right.json()["variants"][1]["content"]["locales"]["FR"] == {"title": "Au chaud"}
