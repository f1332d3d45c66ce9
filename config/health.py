"""Whether this process may get traffic, whoever asks, by whatever name. It mends nothing."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse

from config import metrics
from config.errors import only_read
from geofences.armed import follower

View = Callable[[HttpRequest], HttpResponse]

ALIVE = b"ok\n"
_settled: set[str] = set()  # what cannot become untrue again is asked once


def ask_no_name(get_response: View) -> View:
    """Middleware: load balancers and Prometheus ask by address, which is no host name of ours."""

    def answer(request: HttpRequest) -> HttpResponse:
        view = _BY_PATH.get(request.path)
        return get_response(request) if view is None else view(request)

    return answer


@only_read
def healthz(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """The process answers; it says nothing of anything else."""
    return HttpResponse(ALIVE, content_type="text/plain")


@only_read
def readyz(request: HttpRequest) -> JsonResponse:  # noqa: ARG001 - Django's signature
    """200 where the database answers and is migrated, and the index is loaded; else 503."""
    found = {name: _tried(check) for name, check in _CHECKS.items()}
    ready = all(answer == "ok" for answer in found.values())
    return JsonResponse(
        {"ready": ready, **found},
        status=HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
    )


@only_read
def figures(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """The figures in Prometheus' text format; those from rows are left out where none answer."""
    return HttpResponse(metrics.scraped(), content_type=metrics.CONTENT_TYPE)


def _tried(check: Callable[[], str]) -> str:
    try:
        return check()
    except DatabaseError as error:
        return str(error).strip().splitlines()[0][:200] or "unreachable"


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "ok"


def _migrations() -> str:
    if "migrations" not in _settled:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if missing:
            return f"{len(missing)} not applied"
        _settled.add("migrations")
    return "ok"


def _index() -> str:
    return "ok" if follower.is_loaded else "not loaded yet"


_CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "migrations": _migrations,
    "index": _index,
}
_BY_PATH: dict[str, View] = {"/healthz": healthz, "/readyz": readyz, "/metrics": figures}
