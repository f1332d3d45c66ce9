"""Schedules: when they come round, by a clock read every minute; then from rows to offers."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db.models import Count
from django.test import Client
from django.utils.timezone import now
from hypothesis import given, settings
from hypothesis import strategies as st

from brands.models import Brand
from campaigns import evaluation, judging, publishing, scheduling, sentences
from campaigns.definition import DefinitionError, decode
from campaigns.lacks import missing
from campaigns.models import Campaign, CampaignLog, Decision, Occurrence
from campaigns.schedules import ClockOf, Schedule, occurrences, wall_of
from devices.models import Device, Presence
from geofences.models import Geofence
from notifications.models import Delivery
from tests.campaigns.racing import together
from tests.campaigns.rows import COFFEE, a_definition, make_campaign, make_transition
from tests.factories import make_brand, make_circle, make_device, make_key

ZONES = ["Europe/Helsinki", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]
HOUR_MS = 3_600_000
MINUTE_MS = 60_000


def at_ms(text: str) -> int:
    return round(datetime.fromisoformat(f"{text}:00+00:00").timestamp() * 1000)


JUMPS = ["2026-03-07", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2011-12-29"]


@settings(max_examples=60)
@given(
    day=st.sampled_from(JUMPS),
    start_h=st.integers(0, 24),
    hours_long=st.integers(1, 48),
    times=st.lists(st.integers(0, 1439), min_size=1, max_size=3, unique=True).map(tuple),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    tz=st.sampled_from(ZONES),
)
def test_it_agrees_with_a_clock_read_every_minute(
    day: str,
    start_h: int,
    hours_long: int,
    times: tuple[int, ...],
    days: frozenset[int],
    tz: str,
) -> None:
    after = at_ms(f"{day}T00:00") + start_h * HOUR_MS
    until = after + hours_long * HOUR_MS
    place = ZoneInfo(tz)
    walls = [
        (at, datetime.fromtimestamp(at / 1000, place).replace(tzinfo=None))
        for at in range(after - 40 * HOUR_MS, until + 40 * HOUR_MS, MINUTE_MS)
    ]
    oracle = set()
    first = walls[0][1].date()
    for number in range(1, (walls[-1][1].date() - first).days):
        date = first + timedelta(days=number)
        for minute in times:
            wanted = datetime.combine(date, time()) + timedelta(minutes=minute)
            shown = [at for at, wall in walls if wall == wanted]
            due = min(shown) if shown else min(at for at, wall in walls if wall > wanted)
            if date.weekday() in days and after < due <= until:
                oracle.add((due, wanted))
    schedule = Schedule(times_min=times, days=days)
    found = occurrences(schedule, after_ms=after, until_ms=until, brand_zone="UTC", zones=[tz])
    assert {(one.due_ms, wall_of(one.key)) for one in found} == oracle


def test_one_wall_time_is_many_instants_with_one_key() -> None:
    schedule = Schedule(times_min=(540,))
    found = occurrences(
        schedule,
        after_ms=at_ms("2026-06-10T00:00"),
        until_ms=at_ms("2026-06-10T12:00"),
        brand_zone="UTC",
        zones=["Europe/Paris", "Europe/Berlin", "Europe/Helsinki"],
    )
    assert [(one.due_ms, one.zones) for one in found] == [
        (at_ms("2026-06-10T06:00"), ("Europe/Helsinki",)),
        (at_ms("2026-06-10T07:00"), ("Europe/Berlin", "Europe/Paris")),
    ]
    assert len({one.key for one in found}) == 1


def test_on_the_brands_clock_it_is_one_instant_for_all() -> None:
    schedule = Schedule(times_min=(540,), clock=ClockOf.BRAND)
    [one] = occurrences(
        schedule,
        after_ms=at_ms("2026-06-10T00:00"),
        until_ms=at_ms("2026-06-10T12:00"),
        brand_zone="Europe/Paris",
        zones=ZONES,
    )
    assert (one.due_ms, one.zones) == (at_ms("2026-06-10T07:00"), ())


@pytest.mark.parametrize(
    ("trigger", "path"),
    [
        ({"times": ["09:00"], "at": "2030-01-01T09:00:00Z", "tags": ["x"]}, "trigger.at"),
        ({"tags": ["x"]}, "trigger.times"),
        ({"times": ["09:00"]}, "trigger.geofences"),
        ({"at": "2020-01-01T09:00:00Z", "tags": ["x"]}, "trigger.at"),
        (
            {"times": ["09:00"], "tags": ["x"], "within_s": 60, "since": "2026-01-01T00:00:00Z"},
            "trigger.since",
        ),
    ],
)
def test_it_says_what_a_schedule_lacks(trigger: dict[str, Any], path: str) -> None:
    wanted = decode({"trigger": {"on": "schedule", **trigger}, "content": COFFEE})
    assert [one.field for one in missing(wanted, now=now())] == [path]


def test_it_names_what_is_no_time() -> None:
    with pytest.raises(DefinitionError) as error:
        decode({"trigger": {"on": "schedule", "times": ["25:00"]}})
    assert list(error.value.fields) == ["trigger.times[0]"]
    with pytest.raises(DefinitionError) as error:
        decode({"trigger": {"on": "schedule", "days": ["someday"]}})
    assert list(error.value.fields) == ["trigger.days"]


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (
            {"times": ["09:00", "17:30"], "days": ["mon", "tue", "wed", "thu", "fri"]},
            (
                "When it is 09:00 or 17:30 on weekdays on the device’s clock and a device is in "
                "any place tagged “shop”"
            ),
        ),
        (
            {"at": 1_790_000_000_000, "within_s": 86_400},
            (
                "When it is 21 September 2026 14:13 UTC and a device has been in any place tagged "
                "“shop” in the last 1 day"
            ),
        ),
        (
            {"times": ["09:00"], "zone": "brand", "since": "2026-05-01T00:00:00"},
            (
                "When it is 09:00 daily on the brand’s clock and a device has been in any place "
                "tagged “shop” since 01 May 2026 00:00 UTC"
            ),
        ),
    ],
)
def test_it_reads_as_a_sentence(trigger: dict[str, Any], said: str) -> None:
    wanted = decode({"trigger": {"on": "schedule", "tags": ["shop"], **trigger}})
    assert sentences.sentence(wanted).startswith(said + ", ")


WEDNESDAY = datetime(2030, 6, 12, tzinfo=UTC)
NINE = {"on": "schedule", "times": ["09:00"], "tags": ["stadium"]}


@pytest.fixture
def brand() -> Brand:
    return make_brand(timezone="Europe/Paris")


@pytest.fixture
def stadium(brand: Brand) -> Geofence:
    return make_circle(brand, name="Stadium", tags=["stadium"])


def be_inside(device: Device, place: Geofence, **fields: Any) -> Presence:
    entered_at = fields.pop("entered_at", WEDNESDAY - timedelta(hours=1))
    return Presence.objects.create(
        **{
            "device_id": device.pk,
            "geofence_id": place.pk,
            "brand_id": device.brand_id,
            "state": "inside",
            "visit_id": device.pk,
            "entered_at": entered_at,
            "since_at": entered_at,
            "due_at": entered_at + timedelta(days=9),
        }
        | fields
    )


def a_schedule(brand: Brand, trigger: dict[str, Any] = NINE, **fields: Any) -> Campaign:
    """Published long before."""
    campaign = make_campaign(brand, trigger=trigger, **fields)
    CampaignLog.objects.filter(campaign=campaign).update(at=WEDNESDAY - timedelta(days=30))
    return campaign


def run_until(at: datetime, **options: Any) -> None:
    scheduling.plan(now=at)
    while scheduling.run_due(now=at, **options):
        pass


def reasons() -> list[str]:
    return sorted(Decision.objects.values_list("reason", flat=True))


@pytest.mark.django_db
def test_it_speaks_to_who_is_inside_at_their_own_nine_o_clock(
    brand: Brand, stadium: Geofence
) -> None:
    a_schedule(brand)
    elsewhere = make_circle(brand)
    zones = ["Europe/Helsinki", "Europe/Paris", "America/New_York", "", "Mars/Base"]
    devices = [make_device(brand, timezone=zone) for zone in zones]
    for device in devices:
        be_inside(device, stadium)
    be_inside(make_device(brand), elsewhere)
    be_inside(make_device(brand), stadium, state="entering")
    be_inside(make_device(brand), stadium, entered_at=WEDNESDAY + timedelta(days=1))
    seen = []
    for hour, minute in ((5, 59), (6, 0), (6, 59), (7, 0), (12, 0), (13, 0), (14, 0)):
        run_until(WEDNESDAY + timedelta(hours=hour, minutes=minute))
        seen.append(Delivery.objects.count())
    # Helsinki at six UTC; Paris, and who has not said where, at seven; New York at one.
    assert seen == [0, 1, 1, 4, 4, 5, 5]
    assert set(Decision.objects.values_list("reason", flat=True)) == {"matched"}
    delivery = Delivery.objects.get(device_id=devices[0].pk)
    assert delivery.moment_kind == "schedule"
    assert wall_of(delivery.moment_id or 0) == datetime.fromisoformat("2030-06-12T09:00")
    assert (delivery.geofence_id, delivery.content["body"]) == (
        stadium.pk,
        "One for you at Stadium",
    )
    assert not Occurrence.objects.exclude(after_id=0).exists()


@pytest.mark.django_db
def test_who_travels_into_another_zone_has_had_it(brand: Brand, stadium: Geofence) -> None:
    a_schedule(brand)
    device = make_device(brand, timezone="Europe/Helsinki")
    be_inside(device, stadium)
    run_until(WEDNESDAY + timedelta(hours=6))
    Device.objects.update(timezone="Europe/Paris")
    run_until(WEDNESDAY + timedelta(hours=7))
    assert Delivery.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("span", "left_ago_h", "spoken"),
    [
        ({"within_s": 7_200}, 1, True),
        ({"within_s": 7_200}, 3, False),
        ({"since": "2030-06-12T03:00:00Z"}, 3, True),
        ({"since": "2030-06-12T05:00:00Z"}, 3, False),
        ({}, 1, False),
    ],
)
def test_it_speaks_to_who_was_there(
    brand: Brand, stadium: Geofence, span: dict[str, Any], left_ago_h: int, spoken: bool
) -> None:
    a_schedule(brand, NINE | span)
    at = WEDNESDAY + timedelta(hours=7)
    left_at = at - timedelta(hours=left_ago_h)
    device = make_device(brand, timezone="Europe/Paris")
    make_transition(
        device,
        stadium,
        kind="exited",
        entered_at=left_at - timedelta(hours=1),
        occurred_at=left_at,
        processed_at=left_at,
    )
    inside = make_device(brand, timezone="Europe/Paris")
    be_inside(inside, stadium)
    run_until(at)
    told = set(Delivery.objects.values_list("device_id", flat=True))
    assert told == ({inside.pk, device.pk} if spoken else {inside.pk})


@pytest.mark.django_db
def test_it_gives_its_reasons_as_at_any_moment(brand: Brand, stadium: Geofence) -> None:
    a_schedule(
        brand,
        NINE | {"zone": "brand"},
        audience={"platform": "ios"},
        caps=[{"limit": 1, "window_s": 60, "scope": "person"}],
    )
    for fields in (
        {"platform": "ios", "external_id": "ann"},
        {"platform": "ios", "external_id": "ann"},
        {"platform": "android"},
        {"platform": "ios", "consent_marketing": False},
    ):
        be_inside(make_device(brand, **fields), stadium)
    run_until(WEDNESDAY + timedelta(hours=7))
    assert reasons() == ["cap_reached", "matched", "no_marketing_consent", "not_in_audience"]


@pytest.mark.django_db
def test_one_campaign_speaks_at_one_time(brand: Brand, stadium: Geofence) -> None:
    a_schedule(brand, name="Later", priority=1)
    a_schedule(brand, name="First", priority=5)
    for _ in range(5):
        be_inside(make_device(brand, timezone="Europe/Paris"), stadium)
    run_until(WEDNESDAY + timedelta(hours=7), limit=2)
    assert reasons() == ["lost_to_priority"] * 5 + ["matched"] * 5
    assert set(Delivery.objects.values_list("campaign_name", flat=True)) == {"First"}
    assert Decision.objects.filter(reason="lost_to_priority")[0].trace["winner"] == "First"


@pytest.mark.django_db
def test_a_crash_between_batches_repeats_nothing_and_loses_nothing(
    brand: Brand, stadium: Geofence, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_schedule(brand)
    for _ in range(7):
        be_inside(make_device(brand, timezone="Europe/Paris"), stadium)
    at = WEDNESDAY + timedelta(hours=7)
    scheduling.plan(now=at)
    assert scheduling.run_due(now=at, limit=3) == 1
    settle = evaluation.settle

    def die(*args: Any) -> None:
        settle(*args)
        raise KeyboardInterrupt  # no `except Exception` sees it: as a kill would

    monkeypatch.setattr(evaluation, "settle", die)
    with pytest.raises(KeyboardInterrupt):
        scheduling.run_due(now=at, limit=3)
    assert Decision.objects.count() == 3
    monkeypatch.setattr(evaluation, "settle", settle)
    run_until(at, limit=3)
    run_until(at + timedelta(minutes=5), limit=3)
    assert Decision.objects.count() == Delivery.objects.count() == 7


@pytest.mark.django_db
def test_one_device_that_breaks_everything_is_passed_over(
    brand: Brand, stadium: Geofence, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_schedule(brand)
    devices = [make_device(brand, timezone="Europe/Paris") for _ in range(5)]
    for device in devices:
        be_inside(device, stadium)
    judge = judging.judge

    def breaks(happenings: Any, *rest: Any) -> Any:
        if any(one.moment.subject.device_id == devices[2].pk for one in happenings):
            raise ValueError("poison")
        return judge(happenings, *rest)

    monkeypatch.setattr(scheduling, "judge", breaks)
    run_until(WEDNESDAY + timedelta(hours=7))
    told = set(Delivery.objects.values_list("device_id", flat=True))
    assert told == {device.pk for device in devices} - {devices[2].pk}


@pytest.mark.django_db(transaction=True)
def test_many_loops_at_once_speak_once_to_each() -> None:
    brand = make_brand(timezone="Europe/Paris")
    stadium = make_circle(brand, tags=["stadium"])
    a_schedule(brand)
    a_schedule(brand, name="Second")
    for _ in range(30):
        be_inside(make_device(brand, timezone="Europe/Paris"), stadium)
    at = WEDNESDAY + timedelta(hours=7)

    def loop() -> None:
        scheduling.plan(now=at)
        while Occurrence.objects.filter(finished_at=None, due_at__lte=at).exists():
            scheduling.run_due(now=at, limit=4)

    together(8, loop)
    assert Delivery.objects.count() == 30
    assert Decision.objects.count() == 60
    assert (
        not Decision.objects.values("device_id", "campaign_id")
        .annotate(n=Count("id"))
        .filter(n__gt=1)
    )


@pytest.mark.django_db
def test_what_a_server_slept_through_is_written_as_missed(brand: Brand, stadium: Geofence) -> None:
    a_schedule(brand, NINE | {"zone": "brand"}, max_age_s=900)
    be_inside(make_device(brand), stadium)
    run_until(WEDNESDAY + timedelta(hours=9))
    assert Occurrence.objects.get(due_at=WEDNESDAY + timedelta(hours=7)).missed
    assert not Decision.objects.exists()


@pytest.mark.django_db
def test_a_late_loop_still_speaks_while_the_moment_is_fresh(
    brand: Brand, stadium: Geofence
) -> None:
    a_schedule(brand, NINE | {"zone": "brand"})
    be_inside(make_device(brand), stadium)
    run_until(WEDNESDAY + timedelta(hours=7, minutes=14))
    assert reasons() == ["matched"]


@pytest.mark.django_db
def test_what_is_paused_or_moved_before_its_time_does_not_speak(
    brand: Brand, stadium: Geofence
) -> None:
    paused = a_schedule(brand, NINE | {"zone": "brand"})
    moved = a_schedule(brand, NINE | {"zone": "brand"})
    be_inside(make_device(brand), stadium)
    nine = WEDNESDAY + timedelta(hours=7)
    scheduling.plan(now=nine - timedelta(seconds=30))
    publishing.pause(paused, actor=None)
    later = a_definition(None, trigger=NINE | {"zone": "brand", "times": ["10:00"]})
    publishing.edit(moved, raw=later, actor=None)
    publishing.publish(moved, actor=None, now=nine - timedelta(seconds=5))
    CampaignLog.objects.update(at=nine - timedelta(seconds=5))
    run_until(nine)
    assert not Decision.objects.exists()
    publishing.resume(paused, actor=None, now=nine + timedelta(minutes=1))
    run_until(nine + timedelta(minutes=1))
    assert not Decision.objects.exists()
    run_until(nine + timedelta(hours=1))
    assert Decision.objects.get().campaign_id == moved.pk


@pytest.mark.django_db
def test_what_is_published_after_nine_waits_for_tomorrow(brand: Brand, stadium: Geofence) -> None:
    campaign = a_schedule(brand, NINE | {"zone": "brand"})
    nine = WEDNESDAY + timedelta(hours=7)
    CampaignLog.objects.filter(campaign=campaign).update(at=nine + timedelta(minutes=1))
    be_inside(make_device(brand), stadium)
    run_until(nine + timedelta(minutes=2))
    assert not Decision.objects.exists()
    run_until(nine + timedelta(days=1))
    assert reasons() == ["matched"]


@pytest.mark.django_db
def test_it_arms_the_places_it_asks_about(brand: Brand, stadium: Geofence) -> None:
    make_campaign(brand, trigger=NINE)
    stadium.refresh_from_db()
    assert stadium.armed_until is not None


@pytest.mark.django_db
def test_only_while_inside_goes_with_who_is_inside(brand: Brand, stadium: Geofence) -> None:
    raw = a_definition(None, trigger=NINE, only_while_inside=True)
    assert publishing.check(brand.pk, raw, now=now()) == []
    raw["trigger"] = NINE | {"within_s": 60}
    assert [one.field for one in publishing.check(brand.pk, raw, now=now())] == [
        "only_while_inside"
    ]


@pytest.mark.django_db
def test_a_back_office_sets_one_over_the_api(client: Client, brand: Brand) -> None:
    make_circle(brand, tags=["stadium"])
    auth: Any = {"headers": {"Authorization": f"Bearer {make_key(brand)}"}}
    body = {"name": "Half-time", "trigger": NINE, "content": COFFEE}
    made = client.post("/v1/campaigns", body, content_type="application/json", **auth)
    assert made.status_code == 201, made.content
    assert made.json()["trigger"] == NINE
    assert client.post(f"/v1/campaigns/{made.json()['id']}/publish", **auth).status_code == 200
