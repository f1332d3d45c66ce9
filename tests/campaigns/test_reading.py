"""In which language reasons are read; everything else is English."""

from __future__ import annotations

import pytest
from django.test import Client

from brands.models import AppKey, KeyKind
from campaigns import reading
from tests.factories import make_brand


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("fr", "fr"),
        ("fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        ("en-GB,fr;q=0.9", "en"),
        ("de-DE, fr;q=0.5", "fr"),
        ("de", "en"),
        ("*", "en"),
        ("fr;q=0, en", "en"),
        ("fr;q=0", "en"),
        ("frr", "en"),  # North Frisian
        ("\x00;;q=x", "en"),
    ],
)
def test_it_takes_the_language_liked_best(accepted: str, language: str) -> None:
    assert reading.asked(accepted) == language


@pytest.mark.django_db
def test_the_api_says_what_is_wrong_in_one_language() -> None:
    """Django's and DRF's own messages stand beside ours."""
    _, secret = AppKey.issue(brand=make_brand(), kind=KeyKind.SERVER, name="back office")
    answer = Client().post(
        "/v1/geofences",
        data={},
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}", "Accept-Language": "fr"},
    )
    assert answer.status_code == 422
    assert "obligatoire" not in answer.content.decode()
    assert "required" in answer.content.decode()
