"""Coupons on real rows: each drawn once, given back where nobody saw it, redeemed once."""

from __future__ import annotations

import threading
from datetime import date, datetime, timedelta
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils.timezone import now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brands.models import Brand
from campaigns import codes, coupon_imports, coupons, publishing
from campaigns.evaluation import evaluate_once
from campaigns.experiments import is_held_out
from campaigns.models import Coupon, CouponImport, CouponPool, Decision
from devices.models import Device
from geofences.models import Geofence
from notifications import outbox
from notifications.courier import Courier
from notifications.delivering import deliver_once
from notifications.models import Delivery, Feedback
from notifications.offers import current_offers
from notifications.push import PushErrorKind
from tests.campaigns.racing import EVALUATORS, evaluate_all, together
from tests.campaigns.rows import a_definition, make_campaign, make_transition
from tests.campaigns.test_api import caller
from tests.factories import make_brand, make_circle, make_device, make_key
from tests.notifications.rows import FakeSender, failing

WITH_CODE = {"title": "For you", "body": "Show {{ coupon.code }} at the till"}
SUMMER: dict[str, Any] = {"coupon_pool": "summer", "content": WITH_CODE}


@pytest.fixture
def brand(db: None) -> Brand:
    return make_brand(timezone="Europe/Helsinki")


@pytest.fixture
def shop(brand: Brand) -> Geofence:
    return make_circle(brand)


def make_pool(brand: Brand, *given: str, **fields: Any) -> CouponPool:
    pool = coupons.new_pool(brand, **{"name": "Summer", "slug": "summer"} | fields)
    if given:
        assert coupon_imports.take(pool, list(enumerate(given, 1))) == []
    return pool


def visit(shop: Geofence, count: int = 1, **fields: Any) -> list[Device]:
    devices = [make_device(shop.brand, **fields) for _ in range(count)]
    for device in devices:
        make_transition(device, shop)
    evaluate_once(now=now())
    return devices


def states() -> dict[str, str]:
    return dict(Coupon.objects.order_by("id").values_list("code", "state"))


def test_each_offer_carries_a_code_of_its_own_until_none_is_left(
    brand: Brand, shop: Geofence
) -> None:
    make_pool(brand, "AAA", "BBB")
    make_campaign(brand, shop, **SUMMER)
    visit(shop, 3)
    bodies = sorted(Delivery.objects.values_list("content__body", flat=True))
    assert bodies == ["Show AAA at the till", "Show BBB at the till"]
    refused = Decision.objects.get(verdict="refuse")
    assert (refused.reason, refused.trace) == ("coupons_gone", {"pool": "summer"})
    for coupon in Coupon.objects.all():
        assert coupon.code in Delivery.objects.get(pk=coupon.delivery_id or 0).content["body"]
        assert (coupon.state, coupon.drawn_at is not None) == ("drawn", True)


def test_signed_codes_are_made_as_they_are_drawn(brand: Brand, shop: Geofence) -> None:
    last_day = codes.LAST_DAY
    pool = make_pool(brand, kind="signed", size=3, last_day=last_day)
    make_campaign(brand, shop, **SUMMER)
    visit(shop, 2)
    visit(shop, 2)
    assert Decision.objects.get(verdict="refuse").reason == "coupons_gone"
    for number, coupon in enumerate(Coupon.objects.order_by("number"), 1):
        assert codes.read(bytes.fromhex(pool.key), coupon.code) == (number, last_day)
    assert Coupon.objects.count() == 3


def test_what_makes_no_offer_draws_no_code(brand: Brand, shop: Geofence) -> None:
    make_pool(brand, "AAA", "BBB")
    body = "{{ coupon.code }}{% if device.platform == 'ios' %}{{ 1 | divided_by: 0 }}{% endif %}"
    campaign = make_campaign(
        brand,
        shop,
        coupon_pool="summer",
        holdout=0.5,
        content={"title": "Hi", "body": body},
    )
    names = [f"person {number}" for number in range(99)]
    held = next(n for n in names if is_held_out(n, campaign_id=campaign.pk, share=0.5))
    free = next(n for n in names if not is_held_out(n, campaign_id=campaign.pk, share=0.5))
    visit(shop, external_id=held)
    visit(shop, external_id=free, platform="ios")
    assert sorted(Decision.objects.values_list("reason", flat=True)) == [
        "content_error", "held_out",
    ]  # fmt: skip
    assert states() == {"AAA": "free", "BBB": "free"}


def test_a_pool_past_its_last_day_gives_nothing(brand: Brand, shop: Geofence) -> None:
    pool = make_pool(brand, "AAA")
    make_campaign(brand, shop, **SUMMER)
    CouponPool.objects.filter(pk=pool.pk).update(last_day=now().date() - timedelta(days=2))
    visit(shop)
    assert Decision.objects.get().reason == "coupons_gone"


def test_two_campaigns_share_a_pool_in_one_batch(brand: Brand, shop: Geofence) -> None:
    make_pool(brand, "AAA", "BBB", "CCC")
    make_campaign(brand, shop, name="One", group="a", **SUMMER)
    make_campaign(brand, shop, name="Two", group="b", **SUMMER)
    visit(shop, 2)
    assert Delivery.objects.count() == 3
    assert len(set(Delivery.objects.values_list("content__body", flat=True))) == 3


def test_nobody_sees_a_code_before_its_offer_is_sent(
    brand: Brand, shop: Geofence, courier: Courier
) -> None:
    make_pool(brand, "AAA")
    make_campaign(brand, shop, **SUMMER)
    (device,) = visit(shop)
    assert current_offers([device.pk], now=now()) == {}
    deliver_once(courier, now=now())
    [offer] = current_offers([device.pk], now=now())[device.pk]
    assert "AAA" in offer.body


def test_a_code_that_nobody_saw_goes_to_somebody_else(
    brand: Brand, shop: Geofence, sender: FakeSender, courier: Courier
) -> None:
    make_pool(brand, "AAA")
    make_campaign(brand, shop, **SUMMER)
    visit(shop, push_token="bad")
    sender.answers["bad"] = failing(PushErrorKind.REJECTED)
    deliver_once(courier, now=now())
    assert states() == {"AAA": "free"}
    visit(shop)
    assert Delivery.objects.get(state="pending").content["body"] == "Show AAA at the till"


def test_a_code_in_the_inbox_of_a_phone_without_push_is_not_given_again(
    brand: Brand, shop: Geofence, sender: FakeSender, courier: Courier
) -> None:
    make_pool(brand, "AAA")
    make_campaign(brand, shop, **SUMMER)
    (device,) = visit(shop, push_token="gone")
    sender.answers["gone"] = failing(PushErrorKind.TOKEN_GONE)
    deliver_once(courier, now=now())
    [offer] = current_offers([device.pk], now=now())[device.pk]
    assert "AAA" in offer.body
    assert states() == {"AAA": "drawn"}


def test_a_code_that_may_have_arrived_is_not_given_again(
    brand: Brand, shop: Geofence, sender: FakeSender, courier: Courier
) -> None:
    make_pool(brand, "AAA")
    make_campaign(brand, shop, **SUMMER)
    visit(shop, push_token="busy")
    sender.answers["busy"] = failing(PushErrorKind.TRANSIENT)
    deliver_once(courier, now=now())
    Delivery.objects.update(due_at=now(), expires_at=now())
    deliver_once(courier, now=now())
    assert Delivery.objects.get().state == "expired"
    assert states() == {"AAA": "spoilt"}
    coupon, repeated = coupons.redeem(brand, "AAA", at=now(), now=now())
    assert (coupon.state, repeated) == ("redeemed", False)


def test_a_repeat_gets_its_code_again_or_is_stopped(
    brand: Brand, shop: Geofence, courier: Courier
) -> None:
    make_pool(brand, "AAA")
    make_campaign(brand, shop, **SUMMER)
    visit(shop)
    first = Delivery.objects.get()
    outbox.cancel(first.pk, actor_id=None, note="", now=now())
    assert states() == {"AAA": "free"}
    outbox.resend(first.pk, actor_id=None, note="", now=now())
    deliver_once(courier, now=now())
    assert states() == {"AAA": "drawn"}
    first.refresh_from_db()
    assert first.state == "sent"

    Coupon.objects.update(state="free")
    visit(shop)  # somebody else draws it
    outbox.resend(first.pk, actor_id=None, note="", now=now())
    deliver_once(courier, now=now())
    first.refresh_from_db()
    assert (first.state, first.reason) == ("suppressed", "coupon_given_to_another")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["imported", "signed"])
def test_forty_evaluators_draw_each_code_once(kind: str) -> None:
    brand = make_brand()
    shop = make_circle(brand)
    listed = [f"C{number}" for number in range(50)] if kind == "imported" else []
    make_pool(brand, *listed, kind=kind, size=50)
    make_campaign(brand, shop, **SUMMER)
    for _ in range(EVALUATORS * 2):
        make_transition(make_device(brand), shop)
    together(EVALUATORS, evaluate_all)
    evaluate_all()
    assert Delivery.objects.count() == 50
    assert len(set(Delivery.objects.values_list("content__body", flat=True))) == 50
    assert Coupon.objects.filter(state="drawn").count() == 50
    assert Decision.objects.filter(reason="coupons_gone").count() == EVALUATORS * 2 - 50


@pytest.mark.django_db(transaction=True)
def test_many_tills_redeem_a_code_once() -> None:
    brand = make_brand()
    make_pool(brand, "AAA")
    Coupon.objects.update(state="drawn")
    taken: list[str] = []

    def redeem() -> None:
        try:
            coupons.redeem(brand, "AAA", at=now(), now=now())
            taken.append("once")
        except coupons.RedeemError as error:
            taken.append(error.problem.value)

    together(20, redeem)
    assert sorted(taken) == ["already_redeemed"] * 19 + ["once"]


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(["come", "come", "cancel", "send", "redeem"]), max_size=14))
@pytest.mark.django_db
def test_draws_are_what_a_list_of_codes_would_give(steps: list[str]) -> None:
    """The oracle: a list of free codes, lowest first, and who has which."""
    Delivery.objects.all().delete()
    Coupon.objects.all().delete()
    sender = FakeSender()
    brand = make_brand()
    shop = make_circle(brand)
    make_pool(brand, "A", "B", "C")
    make_campaign(brand, shop, **SUMMER)
    free, pending, sent = ["A", "B", "C"], list[str](), list[str]()
    redeemed: set[str] = set()
    with Courier(lambda: sender) as courier:
        for step in steps:
            if step == "come":
                visit(shop)
                if free:
                    pending.append(free.pop(0))
            elif step == "cancel" and pending:
                code = pending.pop()
                one = Coupon.objects.get(code=code)
                assert one.delivery_id is not None
                outbox.cancel(one.delivery_id, actor_id=None, note="", now=now())
                free = sorted([*free, code])
            elif step == "send":
                deliver_once(courier, now=now())
                sent, pending = sent + pending, []
            elif step == "redeem" and sent:
                coupons.redeem(brand, sent[0], at=now(), now=now())
                redeemed.add(sent.pop(0))
            wanted = dict.fromkeys(free, "free") | dict.fromkeys(pending + sent, "drawn")
            assert states() == wanted | dict.fromkeys(redeemed, "redeemed")


def test_the_till_redeems_once_and_the_offer_hears_of_it(
    brand: Brand, shop: Geofence, courier: Courier
) -> None:
    make_pool(brand, kind="signed")
    campaign = make_campaign(brand, shop, **SUMMER)
    visit(shop)
    deliver_once(courier, now=now())
    till = caller(make_key(brand))
    coupon = Coupon.objects.get()
    typed = coupon.code.lower().replace("-", " ")
    answer = till("POST", "coupons/redeem", {"code": typed, "reference": "receipt 7"})
    assert answer.status_code == 200, answer.content
    said = answer.json()
    assert (said["code"], said["repeated"], said["campaign"]["id"]) == (
        coupon.code, False, campaign.pk,
    )  # fmt: skip
    assert Feedback.objects.get().event == "redeemed"
    again = till("POST", "coupons/redeem", {"code": typed, "reference": "receipt 7"})
    assert (again.status_code, again.json()["repeated"]) == (200, True)
    assert again.json()["redeemed_at"] == said["redeemed_at"]
    other = till("POST", "coupons/redeem", {"code": typed, "reference": "receipt 8"})
    assert (other.status_code, other.json()["code"]) == (409, "already_redeemed")
    assert other.json()["redeemed_at"] == said["redeemed_at"]
    assert Feedback.objects.count() == 1


def test_the_till_is_told_why_not(brand: Brand, shop: Geofence) -> None:
    pool = make_pool(brand, "AAA", "BBB")
    till, stranger = caller(make_key(brand)), caller(make_key(make_brand()))
    Coupon.objects.filter(code="AAA").update(state="drawn")
    assert stranger("POST", "coupons/redeem", {"code": "AAA"}).json()["code"] == "unknown_coupon"
    assert till("POST", "coupons/redeem", {"code": "ZZZ"}).status_code == 404
    answer = till("POST", "coupons/redeem", {"code": "BBB"})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_given_out")
    CouponPool.objects.filter(pk=pool.pk).update(last_day=now().date() - timedelta(days=2))
    answer = till("POST", "coupons/redeem", {"code": "AAA"})
    assert (answer.status_code, answer.json()["code"]) == (410, "expired")
    then = (now() - timedelta(days=3)).isoformat()
    answer = till("POST", "coupons/redeem", {"code": "AAA", "occurred_at": then})
    assert answer.status_code == 200  # the till was offline, and the code still good
    assert answer.json()["redeemed_at"][:19] == then[:19]
    assert till("POST", "coupons/redeem", {}).status_code == 422


def test_no_till_takes_a_code_before_it_was_given_out(brand: Brand) -> None:
    pool = make_pool(brand, "AAA")
    Coupon.objects.update(state="drawn", drawn_at=now() - timedelta(hours=1))
    till = caller(make_key(brand))
    early = {"code": "AAA", "occurred_at": "1970-01-01T00:00:00Z"}
    CouponPool.objects.filter(pk=pool.pk).update(last_day=now().date() - timedelta(days=2))
    answer = till("POST", "coupons/redeem", early)
    assert (answer.status_code, answer.json()["code"]) == (410, "expired")
    CouponPool.objects.filter(pk=pool.pk).update(last_day=None)
    answer = till("POST", "coupons/redeem", early)
    assert answer.status_code == 200
    assert datetime.fromisoformat(answer.json()["redeemed_at"]) > now() - timedelta(minutes=1)


def test_pools_over_the_api(brand: Brand) -> None:
    office, stranger = caller(make_key(brand)), caller(make_key(make_brand()))
    made = office("POST", "coupon-pools", {"name": "Summer", "slug": "summer"})
    assert made.status_code == 201, made.content
    at = f"coupon-pools/{made.json()['id']}"
    again = office("POST", "coupon-pools", {"name": "Summer", "slug": "summer"})
    assert again.status_code == 422
    answer = office("POST", f"{at}/codes", {"codes": ["A1", "A2", "A1", " ", "x y"]}).json()
    assert answer["accepted"] == 2
    assert [(one["index"], one["code"], one["message"][:5]) for one in answer["rejected"]] == [
        (2, "repeated", "twice"),
        (3, "invalid", "empty"),
        (4, "invalid", "has b"),
    ]
    for day, said in (("2019-12-31", "past"), ("2020-01-01", "past"), ("2100-01-01", "reaches")):
        late = {"name": "Late", "slug": "late", "last_day": day}
        assert said in office("POST", "coupon-pools", late).json()["fields"]["last_day"][0]
    answer = office("POST", f"{at}/codes", {"codes": ["A2", "A3"]}).json()
    assert answer == {
        "accepted": 1,
        "rejected": [{"index": 0, "code": "duplicate", "message": "already there", "coupon": "A2"}],
    }
    assert office("GET", at).json()["stock"] == {
        "left": 3, "drawn": 0, "redeemed": 0, "spoilt": 0, "is_low": True,
    }  # fmt: skip
    assert len(office("GET", f"{at}/key").json()["key"]) == 64
    assert stranger("GET", at).status_code == 404
    assert stranger("GET", f"{at}/key").status_code == 404


def test_a_file_is_taken_in_with_a_verdict_for_every_line(
    brand: Brand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(brand, "C5")
    monkeypatch.setattr(coupon_imports, "AT_ONCE", 7)
    file = tmp_path / "codes.csv"
    lines = ["Code,Note", *(f"C{number},x" for number in range(30)), "", "C3", "bad one", "ok"]
    file.write_text("\n".join(lines))
    told = StringIO()
    call_command("import_coupons", file, pool=f"{brand.slug}/summer", stdout=told, verbosity=0)
    assert "30 of 33" in told.getvalue()
    job = CouponImport.objects.get()
    assert (job.state, job.taken, job.lines_done) == ("done", 30, 33)
    assert job.refused == {
        "already there": 2, "has blanks or characters that nobody can type": 1,
    }  # fmt: skip
    assert [remark[0] for remark in job.remarks] == [7, 33, 34]
    assert Coupon.objects.filter(pool=pool).count() == 31


def test_a_file_that_is_no_text_says_so(brand: Brand, tmp_path: Path) -> None:
    make_pool(brand)
    file = tmp_path / "codes.xlsx"
    file.write_bytes(b"PK\x03\x04\xff\xfe\xfa")
    with pytest.raises(CommandError, match="UTF-8"):
        call_command("import_coupons", file, pool=f"{brand.slug}/summer", verbosity=0)
    assert CouponImport.objects.get().state == "failed"
    with pytest.raises(CommandError, match="no pool"):
        call_command("import_coupons", file, pool="nobody/nothing", verbosity=0)


def test_an_upload_is_taken_up_and_goes_on_after_a_crash(
    brand: Brand, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MEDIA_ROOT = str(tmp_path)
    pool = make_pool(brand)
    monkeypatch.setattr(coupon_imports, "AT_ONCE", 10)
    job = CouponImport(pool=pool, file_name="x.csv", state="queued")
    job.file.save("x.csv", ContentFile("\n".join(f"C{n}" for n in range(35)) + "\n"))
    first = coupon_imports.claim(now=now())
    assert first is not None
    assert coupon_imports.claim(now=now()) is None
    progress = coupon_imports.execute(first, Path(first.file.path))
    next(progress)  # and here its worker dies
    del progress
    later = now() + timedelta(minutes=5)
    second = coupon_imports.claim(now=later)
    assert second is not None
    for _ in coupon_imports.execute(second, Path(second.file.path), stop=threading.Event()):
        pass
    coupon_imports.finish(second, now=later)
    assert Coupon.objects.count() == 35
    assert (second.taken, second.refused, second.state) == (35, {}, "done")


def test_a_piece_that_is_rolled_back_is_not_counted(
    brand: Brand, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MEDIA_ROOT = str(tmp_path)
    monkeypatch.setattr(coupon_imports, "close_old_connections", lambda: None)
    monkeypatch.setattr(coupon_imports, "AT_ONCE", 10)
    job = CouponImport(pool=make_pool(brand), file_name="x.csv", state="queued")
    job.file.save("x.csv", ContentFile("\n".join(f"C{n}" for n in range(15)) + "\n"))
    writes = count(1)

    def losing_the_third(execute: Any, sql: str, *rest: Any) -> Any:
        """The first is the claim's, the second the first piece's."""
        if sql.startswith('UPDATE "campaigns_couponimport"') and next(writes) == 3:
            raise OperationalError("the connection is lost")
        return execute(sql, *rest)

    with connection.execute_wrapper(losing_the_third):
        coupon_imports.run(OneRound())
    job.refresh_from_db()
    assert (job.state, job.lines_done, job.taken) == ("failed", 10, 10)
    assert Coupon.objects.count() == 10


class OneRound(threading.Event):
    """Stops a loop as soon as it has nothing to do."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - as Event
        self.set()
        return True


def test_the_worker_takes_files_in_and_keeps_none(
    brand: Brand, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MEDIA_ROOT = str(tmp_path)
    monkeypatch.setattr(coupon_imports, "close_old_connections", lambda: None)
    pool = make_pool(brand)
    for content in (b"A1\nA2\n", b"\xff\xfe"):
        job = CouponImport(pool=pool, file_name="x.csv", state="queued")
        job.file.save("x.csv", ContentFile(content))
    coupon_imports.run(OneRound())
    good, bad = CouponImport.objects.order_by("id")
    assert (good.state, good.taken, bad.state) == ("done", 2, "failed")
    assert "UTF-8" in bad.problem
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"coupon_pool": "none", "content": WITH_CODE}, "unknown"),
        ({"coupon_pool": "summer", "content": WITH_CODE}, "empty"),
        ({"coupon_pool": "full", "content": {"title": "Hi", "body": "There"}}, "coupon_not_shown"),
        ({"coupon_pool": "over", "content": WITH_CODE}, "in_the_past"),
        ({"content": WITH_CODE}, "missing"),
        ({"coupon_pool": "full", "content": WITH_CODE}, None),
        ({"coupon_pool": "signed", "content": WITH_CODE}, None),
    ],
)
def test_it_says_what_is_wrong_with_a_campaigns_coupons(
    brand: Brand, shop: Geofence, fields: dict[str, Any], code: str | None
) -> None:
    make_pool(brand)
    make_pool(brand, "AAA", slug="full")
    make_pool(brand, slug="signed", kind="signed")
    make_pool(brand, "BBB", slug="over", last_day=date(2024, 1, 1))
    found = publishing.check(brand.pk, a_definition(shop, **fields), now=now())
    assert [one.code for one in found] == ([] if code is None else [code])
