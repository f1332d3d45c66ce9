"""Whether a process may get traffic, and what it tells Prometheus."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from config import health, metrics
from geofences.armed import follower
from tests.factories import make_brand, make_device
from tests.figures import Figures, figures_in

pytestmark = pytest.mark.django_db


def figures() -> Figures:
    return figures_in(Client().get("/metrics").content.decode())


def test_it_is_alive_without_a_database(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert Client().get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_it_is_only_read(path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    for method in ("PUT", "POST", "DELETE"):
        answer = client.generic(method, path, "x")
        assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD")
        assert answer.json()["code"] == "method_not_allowed"
    assert client.head(path).status_code == client.get(path).status_code


@pytest.fixture
def by_address(settings: Any) -> Client:
    """Somebody who asks by address, as load balancers and Prometheus do."""
    settings.ALLOWED_HOSTS = ["api.example.com"]
    return Client(headers={"host": "10.0.0.5:8000"})


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_it_answers_who_asks_by_address(by_address: Client, path: str) -> None:
    follower.refresh()
    assert by_address.get(path).status_code == 200
    assert Client(headers={"host": "not a name"}).get(path).status_code == 200
    assert by_address.post(path).status_code == 405


def test_the_api_refuses_a_host_name_in_its_own_shape(by_address: Client) -> None:
    answer = by_address.get("/v1/geofences")
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/json")
    said = {"code": "bad_host", "message": "This host name is not served here.", "fields": {}}
    assert answer.json() == said
    assert by_address.get("/admin/")["Content-Type"].startswith("text/html")
    assert Client(headers={"host": "api.example.com"}).get("/v1/geofences").status_code == 401


def test_it_is_ready_once_the_index_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    follower.forget()
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["index"]) == (503, "not loaded yet")
    assert caplog.records == []  # whoever starts it asks every second
    follower.refresh()
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


def test_it_is_not_ready_where_a_migration_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_settled", set())
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM django_migrations WHERE id ="
            " (SELECT max(id) FROM django_migrations WHERE app = 'notifications')"
        )
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["migrations"]) == (503, "1 not applied")


def test_it_counts_what_came_to_the_doors() -> None:
    before = figures().get(("nearcast_items_total", (("kind", "fix"), ("verdict", "odd"))), 0.0)
    metrics.count_items(Counter({("fix", "odd"): 3}))
    assert figures()["nearcast_items_total", (("kind", "fix"), ("verdict", "odd"))] == before + 3


def test_it_tells_how_much_waits_and_for_how_long() -> None:
    device = make_device(make_brand())
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO devices_event (brand_id, device_id, external_id, key, name, occurred_at,
                                       received_at, properties, parked_reason)
            SELECT %s, %s, '', n, 'x', now(), now() - interval '1 minute', '{}', ''
              FROM generate_series(1, 5) n
            """,
            (device.brand_id, device.pk),
        )
    found = figures()
    assert found["nearcast_queue_depth", (("queue", "events"),)] == 5
    assert found["nearcast_queue_oldest_seconds", (("queue", "events"),)] == pytest.approx(60, 0.1)
    assert found["nearcast_queue_depth", (("queue", "deliveries"),)] == 0
