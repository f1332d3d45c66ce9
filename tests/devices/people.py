"""Files of people for tests, and one imported at once or step by step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.files.base import ContentFile
from django.utils.timezone import now

from brands import filejobs
from brands.filejobs import ImportState
from brands.models import Brand
from devices import profile_files, profile_imports
from devices.models import Profile, ProfileImport

PEOPLE = "customer_id,Plan,points,member\nc-1,gold,12,yes\n007,silver,3.5,no\n"
PAGES = "/admin/devices/profileimport/"


def take(brand: Brand, path: Path, **changes: Any) -> ProfileImport:
    """Import a file with guessed columns."""
    mapping = profile_files.look(path).guess.to_json() | changes
    job = ProfileImport(brand=brand, file_name=path.name, mapping=mapping)
    filejobs.begin(job, now=now())
    for _ in profile_imports.take(job, path):
        pass
    filejobs.finish(job, ImportState.DONE, "", now=now())
    return job


def known(brand: Brand) -> dict[str, dict[str, Any]]:
    rows = Profile.objects.filter(brand=brand)
    return dict(rows.values_list("external_id", "attributes"))


def queued(brand: Brand, text: str) -> ProfileImport:
    job = ProfileImport(brand=brand, file_name="people.csv", state=ImportState.QUEUED)
    job.mapping = {
        "external_id": "id",
        "columns": {"n": {"attribute": "n", "kind": "number"}},
    }
    job.file.save("people.csv", ContentFile(text.encode()), save=False)
    job.save()
    return job


def people(count: int) -> str:
    return "id,n\n" + "".join(f"c-{number},{number}\n" for number in range(count))


def steps_of(job: ProfileImport | None) -> Iterator[int]:
    assert job is not None
    return profile_imports.take(job, Path(job.file.path))


def execute(job: ProfileImport | None) -> None:
    assert job is not None
    filejobs.execute(
        job,
        lambda job, path, stop: profile_imports.take(job, path, stop=stop),
        stop=threading.Event(),
    )
