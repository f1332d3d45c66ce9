"""A CRM's file becomes profiles, row by row, each with its verdict."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pandas
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.utils.timezone import now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brands import filejobs
from brands.filejobs import ImportState, Stopped, Verdict
from brands.models import Brand, Role
from campaigns import catalogue
from campaigns.subjects import Subjects
from devices import profile_files, profile_imports, profiles
from devices.columns import ProfilePlan
from devices.models import Profile, ProfileImport
from devices.profiles import ProfileIn
from tests.devices.people import PAGES, PEOPLE, execute, known, people, queued, steps_of, take
from tests.factories import make_brand, make_device
from tests.staff import logged_in, make_member

pytestmark = pytest.mark.django_db


@pytest.fixture
def brand() -> Brand:
    return make_brand()


@pytest.fixture(autouse=True)
def media(tmp_path: Path, settings: Any) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


WANTED = {
    "c-1": {"plan": "gold", "points": 12, "member": True},
    "007": {"plan": "silver", "points": 3.5, "member": False},
}


def test_it_takes_people_in_with_types_source_and_time(
    brand: Brand, table: Callable[..., Path]
) -> None:
    job = take(brand, table(PEOPLE), source="loyalty")

    assert job.counts == {"created": 2}
    assert known(brand) == WANTED
    fact = Profile.objects.get(external_id="c-1").attribute_facts["points"]
    assert job.started_at is not None
    assert fact == {"source": "loyalty", "at": job.started_at.isoformat()}


@pytest.mark.parametrize("ending", ["xlsx", "parquet", "ndjson"])
def test_it_reads_other_kinds_of_tables_alike(brand: Brand, tmp_path: Path, ending: str) -> None:
    frame = pandas.DataFrame(
        [{"customer_id": key, **attributes} for key, attributes in WANTED.items()]
    )
    path = tmp_path / f"people.{ending}"
    if ending == "xlsx":
        import pyogrio  # not before geofences.files, which tells GDAL what it may open

        pyogrio.write_dataframe(frame, path, driver="XLSX")
    elif ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)

    take(brand, path)

    assert known(brand) == WANTED


def test_it_reads_lines_as_the_gateway_takes_them(brand: Brand, table: Callable[..., Path]) -> None:
    path = table(
        '{"external_id": "c-1", "attributes": {"plan": "gold", "tags": ["a", "b"]}}\n'
        "\n"
        '{"external_id": "c-2", "attributes": {"plan": null}}\n'
        "nonsense\n"
        "[1]\n",
        "people.ndjson",
    )
    job = take(brand, path)

    assert known(brand) == {"c-1": {"plan": "gold", "tags": ["a", "b"]}, "c-2": {}}
    assert job.counts == {"created": 2, "refused": 2}


def test_it_gives_each_row_its_verdict_and_says_why(
    brand: Brand, table: Callable[..., Path]
) -> None:
    take(brand, table(PEOPLE))
    job = take(
        brand,
        table(
            "customer_id,Plan,points\nc-1,gold,12\n007,gold,\n,gold,1\nc-3,gold,many\n"
            + ("x" * 200 + ",a,1\n")
        ),
        columns={
            "Plan": {"attribute": "plan", "kind": "text"},
            "points": {"attribute": "points", "kind": "number"},
        },
    )

    assert job.counts == {"unchanged": 1, "updated": 1, "refused": 3}
    assert known(brand)["007"] == {"plan": "gold", "points": 3.5, "member": False}
    remarks = dict(job.rows.values_list("row", "remark"))
    assert remarks == {
        3: "no customer_id",
        4: "points: 'many' is not a number",
        5: "external_id: 1 to 128 characters.",
    }


def test_it_lets_the_last_row_of_a_person_speak(brand: Brand, table: Callable[..., Path]) -> None:
    job = take(brand, table("id,a,b\nc-1,1,\nc-1,2,3\nc-1,2,\n"))

    assert job.counts == {"created": 1, "updated": 1, "unchanged": 1}
    assert known(brand) == {"c-1": {"a": 2, "b": 3}}


def test_it_keeps_what_is_known_of_a_later_time(brand: Brand, table: Callable[..., Path]) -> None:
    take(brand, table("id,plan,updated_at\nc-1,gold,2026-03-02\n"))
    job = take(brand, table("id,plan,city,updated_at\nc-1,silver,Oulu,2026-03-01\n"))

    assert known(brand) == {"c-1": {"plan": "gold", "city": "Oulu"}}
    assert job.rows.get().remark == "newer values are known of plan"


def test_it_confirms_what_is_unchanged(brand: Brand, table: Callable[..., Path]) -> None:
    take(brand, table("id,plan,updated_at\nc-1,gold,2026-03-01\n"))
    job = take(brand, table("id,plan,updated_at\nc-1,gold,2026-03-02\n"))

    assert job.counts == {"unchanged": 1}
    fact = Profile.objects.get().attribute_facts["plan"]
    assert fact["at"] == "2026-03-02T00:00:00+00:00"


def test_it_refuses_what_a_profile_cannot_hold(brand: Brand, table: Callable[..., Path]) -> None:
    full = {f"a{number}": number for number in range(200)}
    profiles.upsert(brand.pk, [ProfileIn("c-1", full)], source="crm", now=now())

    job = take(brand, table("id,more\nc-1,1\n"))

    assert job.counts == {"refused": 1}
    assert "At most 200 names" in job.rows.get().remark
    assert known(brand) == {"c-1": full}


def test_it_waits_with_a_profile_for_the_device(brand: Brand, table: Callable[..., Path]) -> None:
    take(brand, table(PEOPLE))

    device = make_device(brand, external_id="c-1")

    subjects = Subjects(catalogue.load_brands(brand.pk), 0)
    subjects.load({device.pk})
    assert subjects.known[device.pk].subject.attributes == WANTED["c-1"]


def test_it_tries_rows_and_keeps_nothing(brand: Brand) -> None:
    plan = ProfilePlan.from_json(
        {"external_id": "id", "columns": {"a": {"attribute": "a", "kind": "number"}}}
    )
    rows: list[profile_files.Row] = [({"id": "c-1", "a": "1"}, ""), ({"id": "c-2", "a": "x"}, "")]

    told = profile_imports.trial(brand.pk, rows, plan, now=now())

    assert [one.verdict for one in told] == [Verdict.CREATED, Verdict.REFUSED]
    assert not Profile.objects.exists()


uploads = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.dictionaries(st.sampled_from("xyz"), st.none() | st.integers(0, 2), max_size=3),
        st.integers(0, 3),
    ),
    max_size=8,
)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batches=st.lists(uploads, max_size=3))
def test_it_merges_as_a_plain_dictionary_would(
    brand: Brand, batches: list[list[tuple[str, dict[str, Any], int]]]
) -> None:
    Profile.objects.all().delete()
    began = now() - timedelta(days=10)
    plain: dict[str, dict[str, tuple[Any, int]]] = {}
    for batch in batches:
        items = [
            ProfileIn(person, change, began + timedelta(days=day)) for person, change, day in batch
        ]
        told = profiles.upsert(brand.pk, items, source="crm", now=now())
        for (person, change, day), one in zip(batch, told, strict=True):
            is_new = person not in plain
            mine = plain.setdefault(person, {})
            before = {name: value for name, (value, _) in mine.items()}
            for name, value in change.items():
                if name in mine and mine[name][1] > day:
                    continue
                mine.pop(name, None)
                if value is not None:
                    mine[name] = (value, day)
            after = {name: value for name, (value, _) in mine.items()}
            wanted = Verdict.UNCHANGED if before == after else Verdict.UPDATED
            assert one.verdict is (Verdict.CREATED if is_new else wanted)
    assert known(brand) == {
        person: {name: value for name, (value, _) in mine.items()} for person, mine in plain.items()
    }


@pytest.mark.usefixtures("small_chunks")
def test_it_takes_up_the_job_of_a_dead_worker_where_it_was(brand: Brand) -> None:
    job = queued(brand, people(5))
    steps = steps_of(filejobs.claim(ProfileImport, now=now()))
    assert next(steps) == 2
    del steps  # killed here

    assert filejobs.claim(ProfileImport, now=now()) is None
    execute(filejobs.claim(ProfileImport, now=now() + timedelta(minutes=5)))

    job.refresh_from_db()
    assert (job.state, job.rows_total, job.counts) == (ImportState.DONE, 5, {"created": 5})
    assert len(known(brand)) == 5


@pytest.mark.usefixtures("small_chunks")
def test_it_stops_when_somebody_cancels(brand: Brand) -> None:
    queued(brand, people(5))
    job = filejobs.claim(ProfileImport, now=now())
    steps = steps_of(job)
    next(steps)
    assert job is not None
    assert filejobs.cancel(job, now=now())
    with pytest.raises(Stopped):
        next(steps)
    assert len(known(brand)) == 2


def test_it_is_a_command(brand: Brand, table: Callable[..., Path], tmp_path: Path) -> None:
    path, refused, said = table(PEOPLE + ",,1,\n"), tmp_path / "refused.csv", StringIO()
    call_command(
        "import_profiles",
        path,
        brand=brand.slug,
        column=["points=score:number"],
        only=True,
        refused=refused,
        verbosity=0,
        stdout=said,
    )
    assert known(brand) == {"c-1": {"score": 12}, "007": {"score": 3.5}}
    assert "2 created, 1 refused" in said.getvalue()
    assert "no customer_id" in refused.read_text()


def test_the_command_only_tries_where_asked(brand: Brand, table: Callable[..., Path]) -> None:
    said = StringIO()
    call_command("import_profiles", table(PEOPLE), brand=brand.slug, trial=True, stdout=said)
    assert "2 created. Nothing was kept." in said.getvalue()
    assert not Profile.objects.exists()


def test_the_command_says_what_is_wrong(brand: Brand, table: Callable[..., Path]) -> None:
    with pytest.raises(CommandError, match="which column is the person's id"):
        call_command("import_profiles", table("a,b\n1,2\n"), brand=brand.slug, verbosity=0)
    with pytest.raises(CommandError, match="no column 'c'"):
        call_command("import_profiles", table(PEOPLE), brand=brand.slug, column=["c=c:text"])


def test_it_is_uploaded_confirmed_and_watched_in_the_admin(brand: Brand) -> None:
    client = logged_in(make_member(brand, Role.MARKETER))
    client.post(f"{PAGES}add/", {"file": SimpleUploadedFile("people.csv", PEOPLE.encode())})
    job = ProfileImport.objects.get()
    at = f"{PAGES}{job.pk}/change/"

    page = client.get(at).content.decode()
    assert "silver" in page
    assert "Of the first 2 rows" in page
    assert not Profile.objects.exists()

    given = {
        "external_id": "customer_id",
        "source": "crm",
        "attribute_1": "plan",
        "kind_1": "text",
        "attribute_2": "points",
        "kind_2": "number",
        "attribute_3": "",
        "kind_3": "skip",
        "kind_0": "skip",
    }
    wrong = client.post(at, given | {"attribute_2": "plan", "start": ""}).content.decode()
    assert "Plan is plan already" in wrong
    client.post(at, given | {"start": ""})
    execute(filejobs.claim(ProfileImport, now=now() + timedelta(seconds=1)))

    assert known(brand)["c-1"] == {"plan": "gold", "points": 12}
    assert ">2</b><span>created" in client.get(at).content.decode()
    listed = client.get("/admin/devices/profile/?q=c-").content.decode()
    assert "c-1" in listed
    assert "007" not in listed
    person = Profile.objects.get(external_id="007")
    assert "None yet." in client.get(f"/admin/devices/profile/{person.pk}/change/").content.decode()


def test_a_file_that_cannot_be_read_says_so(brand: Brand) -> None:
    client = logged_in(make_member(brand, Role.MARKETER))
    client.post(f"{PAGES}add/", {"file": SimpleUploadedFile("people.parquet", b"nonsense")})
    job = ProfileImport.objects.get()
    client.get(f"{PAGES}{job.pk}/change/")
    job.refresh_from_db()
    assert (job.state, "cannot be read" in job.message) == (ImportState.FAILED, True)


def test_a_file_without_rows_says_so(brand: Brand) -> None:
    client = logged_in(make_member(brand, Role.MARKETER))
    client.post(f"{PAGES}add/", {"file": SimpleUploadedFile("people.csv", b"external_id,tier\n")})
    job = ProfileImport.objects.get()
    client.get(f"{PAGES}{job.pk}/change/")
    job.refresh_from_db()
    assert (job.state, job.message) == (ImportState.FAILED, "The file has no rows.")


def test_it_is_for_marketers_and_for_ones_own_brand(brand: Brand) -> None:
    job = queued(make_brand(), people(1))
    marketer = logged_in(make_member(brand, Role.MARKETER))
    assert marketer.get(f"{PAGES}{job.pk}/progress.json").status_code == 403
    supporter = logged_in(make_member(brand, Role.SUPPORT))
    assert supporter.get(f"{PAGES}add/").status_code == 403
