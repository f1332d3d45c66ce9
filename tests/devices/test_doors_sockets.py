"""The stream, over real sockets into real rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
import yaml
from django.conf import settings
from django.utils.timezone import now
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from brands.models import Brand
from devices import auth, registration
from devices.models import DeviceState, Event, Fix
from notifications import outbox
from notifications.models import Delivery, Feedback
from notifications.outbox import NewDelivery
from tests.devices.conftest import Phone, a_fix, make_phone
from tests.devices.test_doors_http import an_event
from tests.factories import make_brand, make_key
from tests.live_server import ROOT, LiveWeb, start_web, stop_web

SOON_S = 30.0  # the server looks at rows when told to, not by itself (tests/live_server.py)


def said_in_the_docs() -> dict[str, Any]:
    """The messages of docs/asyncapi.md: name → JSON Schema."""
    page = (ROOT / "docs" / "asyncapi.md").read_text()
    document = yaml.safe_load(page.partition("```yaml")[2].partition("```")[0])
    messages = document["components"]["messages"]
    return {name: message["payload"] for name, message in messages.items()}


SHAPES = said_in_the_docs()


class Stream:
    """One open connection, speaking JSON."""

    def __init__(self, raw: ClientConnection) -> None:
        self.raw = raw

    def say(self, frame: Any) -> None:
        self.raw.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame))

    def hear(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self.raw.recv(SOON_S))
        jsonschema.validate(heard, SHAPES[heard["type"]])
        return heard

    def ask(self, frame: Any) -> dict[str, Any]:
        self.say(frame)
        return self.hear()

    def hears_nothing(self) -> bool:
        """Nothing but the answer to a ping comes."""
        return self.ask({"type": "ping"}) == {"type": "pong"}

    def hear_on(self) -> None:
        while True:
            self.raw.recv(SOON_S)

    def closes_with(self) -> int:
        with pytest.raises(ConnectionClosed) as closed:
            self.hear_on()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code


@contextmanager
def streaming(web: LiveWeb, token: str, query: str = "") -> Iterator[Stream]:
    headers = {"Authorization": f"Bearer {token}"}
    with connect(f"{web.ws_url}/v1/stream{query}", additional_headers=headers) as raw:
        yield Stream(raw)


@pytest.fixture
def stream(live_web: LiveWeb, phone: Phone) -> Iterator[Stream]:
    with streaming(live_web, phone.token) as opened:
        yield opened


def owe(phone: Phone, key: str = "k", **fields: Any) -> int:
    """An offer owed to the phone's device; its delivery id."""
    told: dict[str, Any] = {
        "brand_id": phone.device.brand_id,
        "device_id": phone.device.pk,
        "person": "c-1",
        "campaign_id": 7,
        "campaign_name": "Spring",
        "campaign_version": 1,
        "moment_kind": "transition",
        "key": key,
        "content": {"title": "Hello", "body": "Coffee?", "deep_link": "app://coffee"},
        "due_at": now(),
        "expires_at": now() + timedelta(hours=1),
    }
    (delivery_id,) = outbox.enqueue([NewDelivery(**told | fields)])
    assert delivery_id is not None
    return delivery_id


def test_it_opens_to_a_token_offered_as_subprotocol(live_web: LiveWeb, phone: Phone) -> None:
    offered = Subprotocol(f"bearer.{phone.token}")
    with connect(f"{live_web.ws_url}/v1/stream", subprotocols=[offered]) as raw:
        assert raw.subprotocol == offered
        assert Stream(raw).hears_nothing()


@pytest.mark.parametrize("token", ["", "x", "a key", "forged", "revoked", "erased"])
def test_it_stays_shut_to_anybody_else(
    live_web: LiveWeb, brand: Brand, phone: Phone, token: str
) -> None:
    bearer = {
        "a key": make_key(brand),
        "forged": auth.issue(phone.device.pk, make_brand().pk, 1),
        "revoked": phone.token,
        "erased": phone.token,
    }.get(token, token)
    if token == "revoked":
        registration.revoke(phone.device.pk)
    if token == "erased":
        registration.erase(phone.device.pk)
    with pytest.raises(InvalidStatus) as refused, streaming(live_web, bearer):
        pass
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("order", [registration.revoke, registration.erase])
def test_it_closes_at_once_when_the_token_is_revoked(
    stream: Stream, phone: Phone, order: Any
) -> None:
    order(phone.device.pk)
    assert stream.closes_with() == 4401


def test_it_closes_the_oldest_of_too_many_of_one_device(live_web: LiveWeb, phone: Phone) -> None:
    with ExitStack() as sockets:
        first, second, *_ = [
            sockets.enter_context(streaming(live_web, phone.token)) for _ in range(4)
        ]
        assert first.closes_with() == 4409
        assert second.hears_nothing()


def test_it_acknowledges_fixes_once_they_are_durable(stream: Stream, phone: Phone) -> None:
    fixes = [a_fix(id=n) for n in range(3)]
    answer = stream.ask({"type": "locations", "seq": 17, "locations": fixes})
    assert answer == {"type": "ack", "seq": 17, "accepted": 3, "rejected": []}
    assert Fix.objects.filter(device_id=phone.device.pk).count() == 3


def test_it_acknowledges_events(stream: Stream, phone: Phone) -> None:
    answer = stream.ask({"type": "events", "seq": "e-1", "events": [an_event(), an_event()]})
    assert answer == {"type": "ack", "seq": "e-1", "accepted": 2, "rejected": []}
    assert Event.objects.filter(device_id=phone.device.pk).exists()


def test_it_rejects_a_malformed_item_alone(stream: Stream) -> None:
    items = [a_fix(), {"lat": 1}, a_fix(lat=99)]
    answer = stream.ask({"type": "locations", "seq": 1, "locations": items})
    assert answer["accepted"] == 1
    assert [(each["index"], each["code"]) for each in answer["rejected"]] == [
        (1, "invalid"),
        (2, "lat_out_of_range"),
    ]


def test_it_takes_frames_as_bytes_too(stream: Stream) -> None:
    frame = json.dumps({"type": "locations", "locations": [a_fix()]}).encode()
    assert stream.ask(frame) == {"type": "ack", "seq": None, "accepted": 1, "rejected": []}


def test_it_answers_frames_in_their_order(stream: Stream) -> None:
    for seq in range(20):
        stream.say({"type": "locations", "seq": seq, "locations": [a_fix(id=seq)]})
    assert [stream.hear()["seq"] for _ in range(20)] == list(range(20))


@pytest.mark.parametrize("form", ["one", "list"])
def test_it_takes_feedback_of_own_deliveries_only(stream: Stream, phone: Phone, form: str) -> None:
    own = owe(phone)
    stream.hear()
    for delivery_id, accepted in ((own, 1), (own, 1), (own + 1, 0)):
        said = {"delivery_id": delivery_id, "event": "opened"}
        frame = said if form == "one" else {"feedback": [said]}
        answer = stream.ask({"type": "feedback", "seq": 1} | frame)
        assert answer["accepted"] == accepted
    assert Feedback.objects.get().event == "opened"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "not_json"),
        ("[]", "not_json"),
        ("null", "not_json"),
        (b"\xff", "not_json"),
        (b'{"type": "ping", "seq": "\xff"}', "not_json"),
        (b'{"type": "locations", "seq": "\xc3(", "locations": []}', "not_json"),
        ("{}", "not_json"),
        ("[" * 50_000, "not_json"),
        ({"type": "dance"}, "unknown_type"),
        ({"type": "locations"}, "invalid"),
        ({"type": "locations", "locations": 7}, "invalid"),
        ({"type": "locations", "locations": "x"}, "invalid"),
        ({"type": "events", "locations": []}, "invalid"),
        ({"type": "feedback"}, "invalid"),
        ({"type": "feedback", "delivery_id": 1, "event": "loved"}, "invalid"),
        ({"type": "ping", "seq": "x" * 100}, "invalid"),
    ],
)
def test_it_answers_a_wrong_frame_and_stays_open(stream: Stream, frame: Any, code: str) -> None:
    answer = stream.ask(frame)
    assert (answer["type"], answer["code"]) == ("error", code)
    assert answer["message"]
    assert stream.hears_nothing()


@pytest.mark.parametrize("letter", ["x", "é"])
def test_it_closes_on_a_frame_of_too_many_bytes(stream: Stream, letter: str) -> None:
    stream.say('"' + letter * (settings.MAX_FRAME_BYTES // len(letter.encode())) + '"')

    assert stream.closes_with() == 1009


def test_it_slows_down_a_device_that_says_too_much(stream: Stream) -> None:
    answers = (stream.ask({"type": "events", "seq": 5, "events": []}) for _ in range(400))
    answer = next(answer for answer in answers if answer["type"] == "error")
    assert (answer["code"], answer["seq"]) == ("rate_limited", 5)
    assert answer["retry_after_s"] > 0


def test_it_says_when_the_person_has_not_agreed(live_web: LiveWeb, http: Any, brand: Brand) -> None:
    phone = make_phone(http, brand, consent_location=False)
    with streaming(live_web, phone.token) as stream:
        answer = stream.ask({"type": "locations", "seq": 1, "locations": [a_fix()]})
    assert answer["rejected"][0]["code"] == "consent_withdrawn"
    assert DeviceState.objects.get(device_id=phone.device.pk).lat is None


def test_it_pushes_an_offer_as_soon_as_it_is_owed(stream: Stream, phone: Phone) -> None:
    delivery_id = owe(phone)
    offer = stream.hear()
    assert (offer["type"], offer["delivery_id"]) == ("offer", delivery_id)
    assert (offer["title"], offer["deep_link"]) == ("Hello", "app://coffee")
    assert offer["campaign"] == {"id": 7, "name": "Spring"}
    assert {"created_at", "expires_at"} <= set(offer)


def test_it_pushes_an_offer_to_its_device_only(
    live_web: LiveWeb, stream: Stream, phone: Phone
) -> None:
    other = make_phone(phone.client, phone.device.brand)
    with streaming(live_web, other.token) as others:
        owe(other)
        assert others.hear()["type"] == "offer"
    assert stream.hears_nothing()


def test_it_tells_a_returning_phone_what_it_missed(live_web: LiveWeb, phone: Phone) -> None:
    missed = [owe(phone, key=f"k{n}") for n in range(3)]
    with streaming(live_web, phone.token) as stream:
        assert [stream.hear()["delivery_id"] for _ in missed] == missed
        stream.ask(
            {"type": "feedback", "feedback": [{"delivery_id": missed[0], "event": "received"}]}
        )
    with streaming(live_web, phone.token) as stream:
        assert [stream.hear()["delivery_id"] for _ in missed[1:]] == missed[1:]
        assert stream.hears_nothing()
    with streaming(live_web, phone.token, f"?since={missed[1]}") as stream:
        assert stream.hear()["delivery_id"] == missed[2]


@pytest.mark.parametrize("since", ["-1", "x", "", "9" * 30, "%00"])
def test_it_stays_calm_about_strange_resume_points(
    live_web: LiveWeb, phone: Phone, since: str
) -> None:
    delivery_id = owe(phone)
    with streaming(live_web, phone.token, f"?since={since}") as stream:
        assert stream.hear()["delivery_id"] == delivery_id


def test_it_tells_nothing_that_is_over_or_not_yet(live_web: LiveWeb, phone: Phone) -> None:
    owe(phone, key="over", expires_at=now() - timedelta(seconds=1))
    owe(phone, key="later", due_at=now() + timedelta(hours=1), expires_at=now() + timedelta(days=1))
    owe(phone, key="stopped")
    Delivery.objects.filter(key="stopped").update(state="suppressed")
    with streaming(live_web, phone.token) as stream:
        assert stream.hears_nothing()


def test_it_tells_every_socket_of_a_device(live_web: LiveWeb, phone: Phone) -> None:
    with streaming(live_web, phone.token) as one, streaming(live_web, phone.token) as two:
        delivery_id = owe(phone)
        assert one.hear()["delivery_id"] == two.hear()["delivery_id"] == delivery_id


def test_it_tells_an_offer_whose_notice_was_lost(http: Any, brand: Brand) -> None:
    phone = make_phone(http, brand)
    web = start_web(environment={"NEARCAST_LOOK_AGAIN_S": "1"})
    try:
        with streaming(web, phone.token) as stream:
            Delivery.objects.create(
                brand_id=brand.pk,
                device_id=phone.device.pk,
                person="c-1",
                campaign_id=7,
                campaign_name="Spring",
                moment_kind="transition",
                key="silent",
                content={"title": "Hello"},
                state="pending",
                due_at=now(),
                expires_at=now() + timedelta(hours=1),
            )
            assert json.loads(stream.raw.recv(SOON_S))["type"] == "offer"
    finally:
        stop_web(web)
