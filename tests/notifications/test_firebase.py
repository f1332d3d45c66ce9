"""The real firebase-admin over real HTTP/2 against the emulator: what arrives, what comes back."""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from firebase_admin import credentials

from notifications.firebase import (
    EMULATOR_PROJECT,
    OPERATOR_DELAY_S,
    QUOTA_DELAY_S,
    EmulatorCredential,
    FirebaseSender,
    sender_for,
)
from notifications.push import (
    MAX_PAYLOAD_BYTES,
    Outcome,
    Push,
    PushErrorKind,
    PushOptions,
    Urgency,
    payload_bytes,
)
from tests.notifications.conftest import RunningEmulator

PUSH = Push(
    delivery_id=7,
    token="token-1",
    title="Coffee",
    body="Half price until noon",
    ttl_s=300,
    collapse_key="nc7",
)
EVERYTHING = Push(
    delivery_id=8,
    token="token-8",
    title="Café ☕",
    body="Deux pour un\njusqu’à midi",
    ttl_s=0,
    collapse_key="nc8",
    image_url="https://example.org/coffee.png",
    deep_link="https://example.org/offers/8",
    data={"sku": "42"},
    options=PushOptions(
        urgency=Urgency.NORMAL,
        android_channel_id="offers",
        android_sound="bell",
        android_icon="cup",
        android_color="#aa5500",
        apns_sound="bell.caf",
        apns_badge=3,
        apns_category="offer",
        apns_thread_id="offers",
        web_icon="https://example.org/cup.png",
        web_require_interaction=True,
    ),
)


@asynccontextmanager
async def sender(running: RunningEmulator, **options: Any) -> AsyncIterator[FirebaseSender]:
    made = FirebaseSender(
        EmulatorCredential(running.url),
        origin=running.url,
        **{"project": EMULATOR_PROJECT} | options,
    )
    try:
        yield made
    finally:
        await made.close()


async def send(running: RunningEmulator, *pushes: Push) -> list[Outcome]:
    async with sender(running) as made:
        return await made.send(pushes)


async def test_it_delivers_a_push_and_keeps_the_message_id(emulator: RunningEmulator) -> None:
    [outcome] = await send(emulator, PUSH)

    [message] = emulator.messages()
    assert outcome.error is None
    assert outcome.message_id == message["name"]
    assert outcome.latency_ms >= 5
    assert message["token"] == "token-1"
    assert message["message"]["notification"] == {
        "title": "Coffee",
        "body": "Half price until noon",
    }
    assert message["message"]["data"] == {"delivery_id": "7"}


async def test_it_collapses_repeats_on_every_platform(emulator: RunningEmulator) -> None:
    await send(emulator, PUSH)

    message = emulator.messages()[0]["message"]
    assert message["android"]["collapse_key"] == "nc7"
    assert message["android"]["notification"]["tag"] == "nc7"
    assert message["apns"]["headers"]["apns-collapse-id"] == "nc7"
    assert message["webpush"]["headers"]["Topic"] == "nc7"


async def test_it_lets_no_platform_keep_a_push_beyond_its_life(emulator: RunningEmulator) -> None:
    before = datetime.now(UTC).timestamp()
    await send(emulator, PUSH)

    message = emulator.messages()[0]["message"]
    assert message["android"]["ttl"] == "300s"
    assert message["webpush"]["headers"]["TTL"] == "300"
    assert 299 <= int(message["apns"]["headers"]["apns-expiration"]) - before <= 310


def schema_of(discovery: dict[str, Any]) -> dict[str, Any]:
    """The discovery document as a strict JSON schema; names in camelCase or snake_case."""

    def strict(node: Any) -> Any:
        if isinstance(node, list):
            return [strict(item) for item in node]
        if not isinstance(node, dict):
            return node
        kept = {key: strict(value) for key, value in node.items() if key in KEPT}
        if "$ref" in node:
            return {"$ref": f"#/$defs/{node['$ref']}"}
        if node.get("type") == "any":
            return {}
        if "properties" in node:
            named = {name: strict(value) for name, value in node["properties"].items()}
            snake = {re.sub(r"([A-Z])", r"_\1", n).lower(): v for n, v in named.items()}
            kept["properties"] = named | snake
            kept["additionalProperties"] = False
        if "enum" in node:
            # "Can take normal and high values", says the document of an enum NORMAL, HIGH.
            kept["enum"] = [*node["enum"], *[value.lower() for value in node["enum"]]]
        if node.get("format") == "google-duration":
            kept["pattern"] = r"^\d+(\.\d{1,9})?s$"
        return kept

    return {
        "$ref": "#/$defs/SendMessageRequest",
        "$defs": {name: strict(shape) for name, shape in discovery["schemas"].items()},
    }


KEPT = {"type", "items", "additionalProperties", "enum"}


@pytest.mark.shared_data
@pytest.mark.parametrize("push", [PUSH, EVERYTHING])
async def test_it_sends_what_the_discovery_document_describes(
    emulator: RunningEmulator, shared_data: Path, push: Push
) -> None:
    discovery = msgspec.json.decode((shared_data / "payloads" / "fcm.v1.json").read_bytes())
    validator = jsonschema.Draft202012Validator(schema_of(discovery))
    assert not validator.is_valid({"message": {"token": "x", "colour": "red"}})
    assert not validator.is_valid({"message": {"token": "x", "android": {"ttl": "soon"}}})

    [outcome] = await send(emulator, push)

    [arrived] = emulator.messages()
    validator.validate({"message": arrived["message"]})
    assert outcome.error is None


async def test_it_says_everything_the_options_ask_for(emulator: RunningEmulator) -> None:
    await send(emulator, EVERYTHING)

    message = emulator.messages()[0]["message"]
    assert message["notification"]["image"] == "https://example.org/coffee.png"
    assert message["data"] == {
        "sku": "42",
        "deep_link": "https://example.org/offers/8",
        "delivery_id": "8",
    }
    assert message["android"]["priority"] == "normal"
    assert message["android"]["ttl"] == "0s"
    assert message["android"]["notification"] == {
        "channel_id": "offers",
        "sound": "bell",
        "icon": "cup",
        "color": "#aa5500",
        "tag": "nc8",
    }
    assert message["apns"]["headers"]["apns-priority"] == "5"
    assert message["apns"]["payload"]["aps"] == {
        "sound": "bell.caf",
        "badge": 3,
        "category": "offer",
        "thread-id": "offers",
        "mutable-content": 1,
    }
    assert message["webpush"]["fcm_options"] == {"link": "https://example.org/offers/8"}
    assert message["webpush"]["notification"]["requireInteraction"] is True


@pytest.mark.parametrize(
    ("token", "kind", "code", "retry_after_s", "needs_operator"),
    [
        ("unregistered-1", PushErrorKind.TOKEN_GONE, "UNREGISTERED", None, False),
        ("invalid-1", PushErrorKind.TOKEN_GONE, "INVALID_TOKEN", None, False),
        ("mismatch-1", PushErrorKind.TOKEN_GONE, "SENDER_ID_MISMATCH", None, False),
        ("quota-1", PushErrorKind.TRANSIENT, "QUOTA_EXCEEDED", QUOTA_DELAY_S, False),
        ("unavailable-1", PushErrorKind.TRANSIENT, "UNAVAILABLE", 7, False),
        ("internal-1", PushErrorKind.TRANSIENT, "INTERNAL", None, False),
        (
            "thirdparty-1",
            PushErrorKind.TRANSIENT,
            "THIRD_PARTY_AUTH_ERROR",
            OPERATOR_DELAY_S,
            True,
        ),
    ],
)
async def test_it_understands_every_error_of_fcm(
    emulator: RunningEmulator,
    token: str,
    kind: PushErrorKind,
    code: str,
    retry_after_s: float | None,
    needs_operator: bool,
) -> None:
    [outcome] = await send(emulator, replace(PUSH, token=token))

    assert outcome.error is not None
    assert outcome.message_id == ""
    assert (outcome.error.kind, outcome.error.code) == (kind, code)
    assert outcome.error.retry_after_s == retry_after_s
    assert outcome.error.needs_operator is needs_operator


async def test_it_tries_once_and_leaves_repeating_to_the_outbox(emulator: RunningEmulator) -> None:
    await send(emulator, replace(PUSH, token="unavailable-1"), replace(PUSH, token="internal-1"))

    assert len(emulator.messages()) == 2


async def test_it_waits_for_a_slow_answer(emulator: RunningEmulator) -> None:
    [outcome] = await send(emulator, replace(PUSH, token="slow-1"))

    assert outcome.error is None
    assert outcome.latency_ms >= 400


async def test_it_calls_a_send_without_answer_transient(emulator: RunningEmulator) -> None:
    emulator.configure(slow_ms=3_000)
    async with sender(emulator, timeout_s=1) as made:
        slow, quick = await made.send([replace(PUSH, token="slow-1"), PUSH])

    assert slow.error is not None
    assert (slow.error.kind, slow.error.code) == (PushErrorKind.TRANSIENT, "DEADLINE_EXCEEDED")
    assert quick.error is None


async def test_it_sends_where_the_settings_point(emulator: RunningEmulator, tmp_path: Path) -> None:
    path = tmp_path / "account.json"
    path.write_bytes(emulator.call("GET", "/service-account.json").content)
    to_emulator = sender_for(emulator_url=emulator.url, credentials_path="")
    to_google = sender_for(emulator_url="", credentials_path=str(path))

    assert (await to_emulator.send([PUSH]))[0].error is None
    assert to_google._channel._http.authority == "fcm.googleapis.com"

    await to_emulator.close()
    await to_google.close()


async def test_it_calls_a_provider_that_is_away_transient() -> None:
    made = sender_for(emulator_url="http://127.0.0.1:9", credentials_path="")
    [outcome] = await made.send([PUSH])
    await made.close()

    assert outcome.error is not None
    assert outcome.error.kind is PushErrorKind.TRANSIENT


async def test_it_answers_in_order_whatever_each_push_meets(emulator: RunningEmulator) -> None:
    pushes = [
        replace(PUSH, delivery_id=number, token=token)
        for number, token in enumerate(["slow-1", "unregistered-1", "token-1", "quota-1", "ok"])
    ]

    outcomes = await send(emulator, *pushes)

    assert [outcome.error.code if outcome.error else "" for outcome in outcomes] == [
        "",
        "UNREGISTERED",
        "",
        "QUOTA_EXCEEDED",
        "",
    ]


async def test_it_refuses_a_hopeless_push_without_asking_and_sends_the_rest(
    emulator: RunningEmulator,
) -> None:
    outcomes = await send(
        emulator,
        replace(PUSH, body="x" * 5_000),
        replace(PUSH, options=PushOptions(android_color="brown")),
        PUSH,
    )

    errors = [outcome.error for outcome in outcomes]
    assert [error.code if error else "" for error in errors] == [
        "PAYLOAD_TOO_BIG",
        "INVALID_MESSAGE",
        "",
    ]
    assert {error.kind for error in errors if error} == {PushErrorKind.REJECTED}
    assert len(emulator.messages()) == 1


async def test_it_fills_the_payload_to_the_last_byte_that_fcm_takes(
    emulator: RunningEmulator,
) -> None:
    room = MAX_PAYLOAD_BYTES - payload_bytes(replace(PUSH, body=""))
    full = replace(PUSH, body="x" * room)

    [outcome] = await send(emulator, full)

    assert payload_bytes(full) == MAX_PAYLOAD_BYTES
    assert outcome.error is None


async def test_it_sends_500_on_one_connection_without_a_thread_for_each(
    emulator: RunningEmulator,
) -> None:
    emulator.configure(latency_ms=50)
    pushes = [replace(PUSH, delivery_id=number, token=f"token-{number}") for number in range(500)]
    most = threads_before = threading.active_count()
    async with sender(emulator) as made:
        sending = asyncio.ensure_future(made.send(pushes))
        while not sending.done():
            most = max(most, threading.active_count())
            await asyncio.sleep(0.005)
        outcomes = await sending

    stats = emulator.stats()
    assert [outcome.error for outcome in outcomes] == [None] * 500
    assert most - threads_before <= 2  # the renewal of the access token, off the loop
    assert stats["answered"] == {"OK": 500}
    assert stats["connections"] == 1
    assert stats["http_versions"] == {"2": 500}
    assert 50 < stats["peak_in_flight"] <= 100


async def test_it_keeps_to_its_concurrency(emulator: RunningEmulator) -> None:
    emulator.configure(latency_ms=30)  # more than seven take to arrive
    pushes = [replace(PUSH, delivery_id=number) for number in range(60)]
    async with sender(emulator, concurrency=7) as made:
        await made.send(pushes)

    assert emulator.stats()["peak_in_flight"] == 7


async def test_it_keeps_to_its_concurrency_over_several_batches_at_once(
    emulator: RunningEmulator,
) -> None:
    emulator.configure(latency_ms=30)
    pushes = [replace(PUSH, delivery_id=number) for number in range(30)]
    async with sender(emulator, concurrency=7) as made:
        await asyncio.gather(*[made.send(pushes) for _ in range(4)])

    assert emulator.stats()["answered"] == {"OK": 120}
    assert emulator.stats()["peak_in_flight"] == 7


async def test_it_keeps_its_connection_between_batches(emulator: RunningEmulator) -> None:
    async with sender(emulator) as made:
        for _ in range(3):
            await made.send([PUSH])

    assert emulator.stats()["connections"] == 1


async def test_it_negotiates_http2_over_tls(tls_emulator: RunningEmulator) -> None:
    service_account = tls_emulator.call("GET", "/service-account.json").json()
    account = credentials.Certificate(service_account)
    token = account.get_credential()
    made = FirebaseSender(
        account,
        origin=tls_emulator.url,
        tls=ssl.create_default_context(cafile=str(tls_emulator.ca)),
    )
    # google-auth trusts the machine's authorities only, so this token comes by another client.
    grant = tls_emulator.call(
        "POST",
        "/token",
        data={
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": token._make_authorization_grant_assertion().decode(),
        },
    ).json()
    token.token = grant["access_token"]
    token.expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)

    outcomes = await made.send([replace(PUSH, delivery_id=number) for number in range(100)])
    await made.close()

    assert [outcome.error for outcome in outcomes] == [None] * 100
    assert tls_emulator.stats()["http_versions"] == {"2": 100}
    assert tls_emulator.stats()["connections"] == 1


async def test_it_renews_a_token_that_the_provider_no_longer_takes(
    emulator: RunningEmulator,
) -> None:
    async with sender(emulator) as made:
        await made.send([PUSH])
        made._channel._credential.token = "ya29.9999999999.stale"
        outcomes = await made.send([replace(PUSH, delivery_id=number) for number in range(20)])

    assert [outcome.error for outcome in outcomes] == [None] * 20
    assert emulator.stats()["answered"]["UNAUTHENTICATED"] <= 20


async def test_it_calls_for_an_operator_where_the_project_is_not_ours(
    emulator: RunningEmulator,
) -> None:
    async with sender(emulator, project="somebody-elses") as made:
        [outcome] = await made.send([PUSH])

    assert outcome.error is not None
    assert outcome.error.kind is PushErrorKind.TRANSIENT
    assert outcome.error.needs_operator


async def test_it_signs_in_with_a_service_account_file(
    emulator: RunningEmulator, tmp_path: Path
) -> None:
    path = tmp_path / "account.json"
    path.write_bytes(emulator.call("GET", "/service-account.json").content)
    made = FirebaseSender(credentials.Certificate(str(path)), origin=emulator.url)
    [outcome] = await made.send([PUSH])
    await made.close()

    assert outcome.error is None
