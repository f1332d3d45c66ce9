"""The emulator against FCM's own description: what it takes, what it refuses and in which words."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from firebase_admin import messaging
from google.oauth2 import service_account
from hypothesis import given, settings
from hypothesis import strategies as st

from notifications.emulator import shapes
from notifications.emulator.app import Emulator, Settings
from notifications.emulator.oauth import (
    GRANT_TYPE,
    PROJECT,
    TOKEN_LIFE_S,
    InvalidGrant,
    ServiceAccount,
)
from notifications.emulator.shapes import MAX_MESSAGE_BYTES, payload_size, violations
from notifications.firebase import SCOPES, message
from notifications.push import Push, payload_bytes, refusal
from tests.notifications.conftest import RunningEmulator

SEND = f"/v1/projects/{PROJECT}/messages:send"
PLAIN = {"token": "token-1", "notification": {"title": "Coffee", "body": "Now"}}


def assertion(account: ServiceAccount, *scopes: str, subject: str | None = None) -> str:
    signer = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        account.document("http://127.0.0.1"), scopes=scopes or SCOPES, subject=subject
    )
    signed: bytes = signer._make_authorization_grant_assertion()
    return signed.decode()


def granted(account: ServiceAccount, *, now_s: float) -> str:
    grant = account.exchange(
        {"grant_type": GRANT_TYPE, "assertion": assertion(account)}, now_s=now_s
    )
    return f"{grant['token_type']} {grant['access_token']}"


def test_it_gives_a_token_for_its_own_signature_and_takes_it_for_an_hour() -> None:
    account, now_s = ServiceAccount.create(), time.time()

    bearer = granted(account, now_s=now_s)

    assert account.accepts(bearer, now_s=now_s + TOKEN_LIFE_S - 1)
    assert not account.accepts(bearer, now_s=now_s + TOKEN_LIFE_S)


def test_it_refuses_an_assertion_that_another_key_signed() -> None:
    with pytest.raises(InvalidGrant, match="Invalid JWT"):
        ServiceAccount.create().exchange(
            {"grant_type": GRANT_TYPE, "assertion": assertion(ServiceAccount.create())},
            now_s=time.time(),
        )


def test_it_refuses_a_scope_that_may_not_send() -> None:
    account = ServiceAccount.create()

    with pytest.raises(InvalidGrant, match="Invalid scope"):
        account.exchange(
            {"grant_type": GRANT_TYPE, "assertion": assertion(account, "openid")},
            now_s=time.time(),
        )


@pytest.mark.parametrize(
    "form", [{}, {"grant_type": "password"}, {"grant_type": GRANT_TYPE, "assertion": "a.b.c"}]
)
def test_it_refuses_a_form_that_is_no_grant(form: dict[str, str]) -> None:
    with pytest.raises(InvalidGrant):
        ServiceAccount.create().exchange(form, now_s=time.time())


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer owner", "Basic abc", "Bearer ya29.99999999999.forged"]
)
def test_it_refuses_a_header_without_its_token(header: str) -> None:
    assert not ServiceAccount.create().accepts(header, now_s=time.time())


def test_it_refuses_a_token_of_its_last_run(tmp_path: Path) -> None:
    before = ServiceAccount.kept_at(tmp_path / "account.json")
    bearer = granted(before, now_s=time.time())
    after = ServiceAccount.kept_at(tmp_path / "account.json")

    assert not after.accepts(bearer, now_s=time.time())


def test_it_keeps_its_key_in_a_file_of_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "account.json"
    first = ServiceAccount.kept_at(path)
    second = ServiceAccount.kept_at(path)

    assert path.stat().st_mode & 0o777 == 0o600
    assert first.document("http://x") == second.document("http://x")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"data": {"k": "v"}},
        {"android": {"ttl": "300s", "priority": "high", "collapse_key": "k"}},
        {"android": {"ttl": "3.5s", "priority": "HIGH", "collapseKey": "k"}},
        {"android": {"notification": {"channel_id": "c", "vibrate_timings": ["0.5s"]}}},
        {"apns": {"headers": {"apns-priority": "10"}, "payload": {"aps": {"badge": 1}}}},
        {"webpush": {"notification": {"actions": []}, "fcm_options": {"link": "https://x.org"}}},
        {"fcm_options": {"analytics_label": "spring"}},
        {"notification": None},
    ],
)
def test_it_takes_what_fcm_takes(fields: dict[str, Any]) -> None:
    assert violations({"message": PLAIN | fields}) == []


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        # not of the right types: refused by the front, before FCM
        ([], "", "TYPE_MESSAGE"),
        ({"message": []}, "message", "TYPE_MESSAGE"),
        ({"mesage": {}}, "", 'Unknown name "mesage": Cannot find field'),
        (
            {"message": PLAIN | {"colour": "red"}},
            "message",
            "Unknown name \"colour\" at 'message': Cannot find field",
        ),
        (
            {"message": PLAIN | {"android": {"notification": {"size": 1}}}},
            "message.android.notification",
            'Unknown name "size"',
        ),
        (
            {"message": PLAIN | {"data": {"n": 12}}},
            "message.data[0].value",
            "Invalid value at 'message.data[0].value' (TYPE_STRING), 12",
        ),
        ({"message": PLAIN | {"android": {"ttl": 300}}}, "message.android.ttl", "Duration"),
        ({"message": PLAIN | {"android": {"ttl": "5m"}}}, "message.android.ttl", "end with 's'"),
        (
            {"message": PLAIN | {"android": {"priority": "urgent"}}},
            "message.android.priority",
            "TYPE_ENUM",
        ),
        (
            {"message": PLAIN | {"android": {"notification": {"sticky": "yes"}}}},
            "message.android.notification.sticky",
            "TYPE_BOOL",
        ),
        (
            {"message": PLAIN | {"android": {"notification": {"notification_count": 1.5}}}},
            "message.android.notification.notification_count",
            "TYPE_INT32",
        ),
        ({"message": PLAIN | {"apns": {"payload": []}}}, "message.apns.payload", "TYPE_MESSAGE"),
        # right types, wrong meaning
        ({}, "message", "missing"),
        ({"message": {"data": {"k": "v"}}}, "message", "Recipient of the message is not set"),
        ({"message": PLAIN | {"topic": "news"}}, "message", "Several recipients"),
        ({"message": {"topic": "a b"}}, "message.topic", "Malformed topic"),
        ({"message": PLAIN | {"data": {"from": "x"}}}, "message.data", "payload key: from"),
        (
            {"message": PLAIN | {"data": {"google.x": "x"}}},
            "message.data",
            "payload key: google.x",
        ),
        (
            {"message": PLAIN | {"data": {"gcm.notification.x": "x"}}},
            "message.data",
            "payload key: gcm.notification.x",
        ),
        (
            {"message": PLAIN | {"android": {"ttl": "2419201s"}}},
            "message.android.ttl",
            "Invalid TTL",
        ),
        (
            {"message": PLAIN | {"webpush": {"fcm_options": {"link": "http://x.org"}}}},
            "message.webpush.fcm_options.link",
            "HTTPS",
        ),
        (
            {"message": PLAIN | {"fcm_options": {"analytics_label": "a b"}}},
            "message.fcm_options.analytics_label",
            "Malformed",
        ),
        ({"message": PLAIN | {"data": {"k": "x" * 4_096}}}, "message", "too big"),
    ],
)
def test_it_refuses_what_fcm_refuses(request_: Any, field: str, words: str) -> None:
    found = violations(request_)

    assert found[0].field == field
    assert words in found[0].description


def test_it_draws_the_line_at_4096_bytes() -> None:
    room = MAX_MESSAGE_BYTES - payload_size({"data": {"k": ""}})

    assert violations({"message": {"token": "t", "data": {"k": "x" * room}}}) == []
    assert violations({"message": {"token": "t", "data": {"k": "x" * (room + 1)}}})


@settings(max_examples=60)
@given(
    title=st.text(max_size=60),
    body=st.text(max_size=60),
    value=st.text(min_size=1_200, max_size=1_500).map(lambda text: text * 2),
    key=st.sampled_from(["k", "from", "google.x", "message_type", "sku"]),
)
def test_it_agrees_with_our_own_check_on_what_is_sent(
    title: str, body: str, value: str, key: str
) -> None:
    push = Push(
        delivery_id=1,
        token="token-1",
        title=title,
        body=body,
        ttl_s=300,
        collapse_key="nc1",
        data={key: value},
    )
    sent = messaging._MessagingService.encode_message(message(push))

    assert bool(violations({"message": sent})) == (refusal(push) is not None)
    assert payload_size(sent) <= payload_bytes(push)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("shape", "name"),
    [
        (shapes.REQUEST, "SendMessageRequest"),
        (shapes.MESSAGE, "Message"),
        (shapes.NOTIFICATION, "Notification"),
        (shapes.ANDROID, "AndroidConfig"),
        (shapes.ANDROID_NOTIFICATION, "AndroidNotification"),
        (shapes.LIGHT_SETTINGS, "LightSettings"),
        (shapes.COLOR, "Color"),
        (shapes.APNS, "ApnsConfig"),
        (shapes.WEBPUSH, "WebpushConfig"),
        (shapes.FCM_OPTIONS, "FcmOptions"),
    ],
)
def test_it_knows_the_very_fields_of_the_discovery_document(
    shared_data: Path, shape: shapes.Shape, name: str
) -> None:
    discovery = msgspec.json.decode((shared_data / "payloads" / "fcm.v1.json").read_bytes())

    assert set(shape) == set(discovery["schemas"][name]["properties"])


@pytest.fixture
def post(emulator: RunningEmulator) -> Callable[..., Any]:
    """Post a message as a client would that signed in properly."""
    account = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        emulator.call("GET", "/service-account.json").json(), scopes=SCOPES
    )
    signed = account._make_authorization_grant_assertion().decode()
    grant = emulator.call("POST", "/token", data={"grant_type": GRANT_TYPE, "assertion": signed})
    bearer = {"authorization": f"Bearer {grant.json()['access_token']}"}

    def send(request_: Any, path: str = SEND) -> Any:
        return emulator.call("POST", path, json=request_, headers=bearer)

    return send


def test_it_answers_with_the_name_of_the_message(post: Callable[..., Any]) -> None:
    answer = post({"message": PLAIN})

    assert answer.status_code == 200
    assert answer.json()["name"].startswith(f"projects/{PROJECT}/messages/")


def test_it_takes_a_dry_run(post: Callable[..., Any]) -> None:
    assert post({"message": PLAIN, "validate_only": True}).status_code == 200


def test_it_answers_an_unregistered_token_in_the_words_of_fcm(post: Callable[..., Any]) -> None:
    answer = post({"message": PLAIN | {"token": "unregistered-1"}})

    assert answer.status_code == 404
    assert answer.json() == {
        "error": {
            "code": 404,
            "message": "Requested entity was not found.",
            "status": "NOT_FOUND",
            "details": [
                {
                    "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
                    "errorCode": "UNREGISTERED",
                }
            ],
        }
    }


def test_it_says_when_to_come_back(post: Callable[..., Any]) -> None:
    answer = post({"message": PLAIN | {"token": "unavailable-1"}})

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "7"


def test_it_takes_a_word_without_a_dash_for_an_ordinary_token(post: Callable[..., Any]) -> None:
    assert post({"message": PLAIN | {"token": "quotation"}}).status_code == 200


def test_it_names_the_field_it_refuses(post: Callable[..., Any]) -> None:
    answer = post({"message": PLAIN | {"data": {"from": "x"}}})

    [fcm, bad_request] = answer.json()["error"]["details"]
    assert answer.status_code == 400
    assert fcm["errorCode"] == "INVALID_ARGUMENT"
    assert bad_request["fieldViolations"][0]["field"] == "message.data"


def test_it_gives_no_fcm_code_to_what_never_reached_fcm(post: Callable[..., Any]) -> None:
    answer = post({"message": PLAIN | {"colour": "red"}})

    assert [detail["@type"] for detail in answer.json()["error"]["details"]] == [
        "type.googleapis.com/google.rpc.BadRequest"
    ]


@pytest.mark.parametrize(
    ("content", "status"), [(b"{", 400), (b"null", 400), (b"\xff", 400), (b"x" * 70_000, 413)]
)
def test_it_refuses_a_body_that_is_no_request(
    emulator: RunningEmulator, post: Callable[..., Any], content: bytes, status: int
) -> None:
    bearer = post({"message": PLAIN}).request.headers["authorization"]

    answer = emulator.call("POST", SEND, content=content, headers={"authorization": bearer})

    assert answer.status_code == status


def test_it_lets_nobody_send_without_a_token(emulator: RunningEmulator) -> None:
    answer = emulator.call("POST", SEND, json={"message": PLAIN})

    assert answer.status_code == 401
    assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
    assert emulator.messages() == []


def test_it_lets_nobody_send_for_another_project(post: Callable[..., Any]) -> None:
    answer = post({"message": PLAIN}, "/v1/projects/other/messages:send")

    assert answer.status_code == 403
    assert answer.json()["error"]["status"] == "PERMISSION_DENIED"


def test_it_shows_what_arrived_newest_first_and_by_token(
    emulator: RunningEmulator, post: Callable[..., Any]
) -> None:
    for token in ("a", "b", "a", "unregistered-1"):
        post({"message": PLAIN | {"token": token}})

    assert [shown["token"] for shown in emulator.messages()] == ["unregistered-1", "a", "b", "a"]
    assert emulator.messages()[0]["answer"] == "UNREGISTERED"
    assert [shown["token"] for shown in emulator.messages("a")] == ["a", "a"]
    assert emulator.messages("a")[0]["message"] == PLAIN | {"token": "a"}
    assert emulator.messages("c") == []


def test_it_forgets_on_request(emulator: RunningEmulator, post: Callable[..., Any]) -> None:
    post({"message": PLAIN})
    emulator.forget()

    assert emulator.messages() == []
    assert emulator.stats()["answered"] == {}


def test_it_shows_a_page_to_browsers_that_needs_nothing_from_elsewhere(
    emulator: RunningEmulator,
) -> None:
    answer = emulator.call("GET", "/messages", headers={"accept": "text/html,*/*;q=0.8"})

    assert answer.headers["content-type"].startswith("text/html")
    assert "<title>FCM emulator</title>" in answer.text
    assert "http://" not in answer.text
    assert "https://" not in answer.text


def test_it_refuses_settings_it_does_not_know(emulator: RunningEmulator) -> None:
    assert emulator.call("PUT", "/settings", json={"latency": 3}).status_code == 400
    assert emulator.call("PUT", "/settings", json={"latency_ms": 3}).json()["latency_ms"] == 3


def test_it_answers_404_elsewhere(emulator: RunningEmulator) -> None:
    assert emulator.call("GET", "/v2").status_code == 404


async def test_it_remembers_only_so_many() -> None:
    account = ServiceAccount.create()
    emulator = Emulator(account, Settings(latency_ms=0), keep=3)
    bearer = granted(account, now_s=time.time())

    async def call(method: str, path: str, body: bytes = b"") -> Any:
        said: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(event: Any) -> None:
            said.append(event)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(b"authorization", bearer.encode())],
        }
        await emulator(scope, receive, send)
        return msgspec.json.decode(said[1]["body"])

    for number in range(10):
        await call("POST", SEND, msgspec.json.encode({"message": {"token": f"t{number}"}}))

    answer = await call("GET", "/messages")
    assert [shown["token"] for shown in answer["results"]] == ["t9", "t8", "t7"]
    assert answer["stats"]["answered"] == {"OK": 10}
