"""An import undone: as a worker does it, and on its page."""

from __future__ import annotations

import threading
from typing import Any

from django.utils.timezone import now

from brands import filejobs, undoing
from brands.filejobs import FileJob, ImportState
from brands.models import Role
from tests.factories import make_brand
from tests.staff import logged_in, make_member


def undone(job: FileJob, do: filejobs.Take[Any]) -> Any:
    """Undo an import as a worker does."""
    queued = undoing.undo(job, by=None, now=now())
    assert queued is not None
    while claimed := filejobs.claim(type(job), now=now()):
        filejobs.execute(claimed, do, stop=threading.Event())
    queued.refresh_from_db()
    return queued


def assert_undone_on_its_page(job: FileJob, pages: str, says: str) -> None:
    """Who may, asks and is told; who may not, cannot; and once is enough."""
    jobs: Any = type(job)._default_manager
    marketer = logged_in(make_member(job.brand, Role.MARKETER))
    support = logged_in(make_member(job.brand, Role.SUPPORT))
    stranger = logged_in(make_member(make_brand(), Role.ADMIN))
    page, at = f"{pages}{job.pk}/change/", f"{pages}{job.pk}/undo/"

    assert at in marketer.get(page).content.decode()
    assert at not in support.get(page).content.decode()
    assert support.post(at).status_code == 403
    assert stranger.post(at).status_code == 403
    assert says in marketer.get(at).content.decode()
    assert not jobs.filter(undoes=job).exists(), "asking changes nothing"

    answer = marketer.post(at)

    queued = jobs.get(undoes=job)
    assert answer["Location"] == f"{pages}{queued.pk}/change/"
    assert queued.state == ImportState.QUEUED
    assert f"{pages}{queued.pk}/change/" in marketer.get(page).content.decode()
    assert marketer.post(at)["Location"] == page
