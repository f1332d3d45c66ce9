"""App keys: remembered for speed, forgotten at once when revoked."""

from __future__ import annotations

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from brands import keys
from brands.keys import KeyRing
from brands.models import AppKey, KeyKind
from tests.factories import make_brand, make_key
from tests.live_server import database_url


@pytest.mark.django_db
def test_it_tells_brand_and_kind_of_a_key() -> None:
    brand = make_brand()
    identity = KeyRing().authenticate(make_key(brand, KeyKind.PUBLISHABLE))
    assert identity is not None
    assert (identity.brand_id, identity.kind) == (brand.pk, KeyKind.PUBLISHABLE)


@pytest.mark.django_db
def test_it_asks_the_database_once() -> None:
    ring, secret = KeyRing(), make_key(make_brand())
    ring.authenticate(secret)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        ring.authenticate(secret)
    assert len(queries) == 0


@pytest.mark.django_db
def test_it_does_not_know_a_revoked_key_once_told_to_forget() -> None:
    ring, secret = KeyRing(), make_key(make_brand())
    assert ring.authenticate(secret) is not None
    AppKey.objects.update(revoked_at=now())
    ring.forget(AppKey.digest_of(secret))
    assert ring.authenticate(secret) is None


@pytest.mark.django_db
def test_it_asks_again_after_a_while_though_no_notice_came(monkeypatch: pytest.MonkeyPatch) -> None:
    ring, secret = KeyRing(), make_key(make_brand())
    monkeypatch.setattr(keys, "REMEMBERED_S", -1.0)
    assert ring.authenticate(secret) is not None
    AppKey.objects.update(revoked_at=now())
    assert ring.authenticate(secret) is None


@pytest.mark.django_db
def test_it_remembers_no_more_unknown_keys_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing()
    monkeypatch.setattr(keys, "MAX_REMEMBERED", 5)
    for number in range(20):
        assert ring.authenticate(f"nobody's {number}") is None
    assert len(ring._known) <= 5


@pytest.mark.django_db(transaction=True)
def test_it_announces_a_revocation() -> None:
    secret = make_key(make_brand())
    with psycopg.connect(
        database_url().replace("postgis", "postgresql", 1), autocommit=True
    ) as raw:
        raw.execute(f"LISTEN {keys.CHANNEL}")
        AppKey.objects.update(revoked_at=now())
        heard = [notify.payload for notify in raw.notifies(timeout=60, stop_after=1)]
    assert heard == [f"key:{AppKey.digest_of(secret)}"]
