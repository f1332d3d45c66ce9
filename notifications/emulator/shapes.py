"""The shape of a send request, as FCM's discovery document has it. Judges JSON, keeps nothing.

A name is accepted in camelCase and in snake_case, as in every protocol buffer's JSON; a name
that FCM does not know, a number where it wants a string, a reserved word: each is refused in FCM's
words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

MAX_MESSAGE_BYTES = 4_096
MAX_TTL_S = 2_419_200
_DURATION = re.compile(r"(\d{1,12})(\.\d{1,9})?s")
_TOPIC = re.compile(r"[a-zA-Z0-9-_.~%]{1,900}")
_LABEL = re.compile(r"[a-zA-Z0-9-_.~%]{1,50}")
_RESERVED = re.compile(r"from|message_type|google\..*|gcm\.notification\..*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing wrong with a request, where, and whether it is not even JSON of the right types."""

    field: str
    description: str
    malformed: bool = False


Check = Callable[[Any, str], Iterator[Violation]]
Shape = Mapping[str, Check]


def _mistyped(path: str, kind: str, value: object) -> Violation:
    shown = msgspec.json.encode(value).decode()
    return Violation(
        field=path, description=f"Invalid value at '{path}' ({kind}), {shown}", malformed=True
    )


def string(value: Any, path: str) -> Iterator[Violation]:
    if not isinstance(value, str):
        yield _mistyped(path, "TYPE_STRING", value)


def boolean(value: Any, path: str) -> Iterator[Violation]:
    if not isinstance(value, bool):
        yield _mistyped(path, "TYPE_BOOL", value)


def integer(value: Any, path: str) -> Iterator[Violation]:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**31:
        yield _mistyped(path, "TYPE_INT32", value)


def number(value: Any, path: str) -> Iterator[Violation]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        yield _mistyped(path, "TYPE_FLOAT", value)


def duration(value: Any, path: str) -> Iterator[Violation]:
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        shown = msgspec.json.encode(value).decode()
        yield Violation(
            field=path,
            description=f"Invalid value at '{path}' (type.googleapis.com/google.protobuf.Duration),"
            f" Field '{path}', Illegal duration format; duration must end with 's': {shown}",
            malformed=True,
        )


def ttl(value: Any, path: str) -> Iterator[Violation]:
    malformed = list(duration(value, path))
    yield from malformed
    if not malformed and float(value[:-1]) > MAX_TTL_S:
        yield Violation(
            field=path, description=f"Invalid TTL duration: {value}; at most {MAX_TTL_S}s"
        )


def strings(value: Any, path: str) -> Iterator[Violation]:
    yield from list_of(string)(value, path)


def list_of(check: Check) -> Check:
    def each(value: Any, path: str) -> Iterator[Violation]:
        if not isinstance(value, list):
            yield _mistyped(path, "TYPE_ARRAY", value)
            return
        for place, item in enumerate(value):
            yield from check(item, f"{path}[{place}]")

    return each


def string_map(value: Any, path: str) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield _mistyped(path, "TYPE_MESSAGE", value)
        return
    for place, item in enumerate(value.values()):
        yield from string(item, f"{path}[{place}].value")


def app_data(value: Any, path: str) -> Iterator[Violation]:
    yield from string_map(value, path)
    for key in value if isinstance(value, dict) else ():
        if _RESERVED.fullmatch(key):
            yield Violation(field=path, description=f"Invalid data payload key: {key}")


def anything(value: Any, path: str) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield _mistyped(path, "TYPE_MESSAGE", value)


def label(value: Any, path: str) -> Iterator[Violation]:
    yield from string(value, path)
    if isinstance(value, str) and not _LABEL.fullmatch(value):
        yield Violation(field=path, description=f"Malformed analytics label: {value}")


def one_of(*names: str) -> Check:
    """Check an enum: FCM takes its values in either case (`high` and `HIGH`)."""

    def chosen(value: Any, path: str) -> Iterator[Violation]:
        if not isinstance(value, str) or value.upper() not in names:
            yield _mistyped(path, "TYPE_ENUM", value)

    return chosen


def https(value: Any, path: str) -> Iterator[Violation]:
    yield from string(value, path)
    if isinstance(value, str) and not value.startswith("https://"):
        yield Violation(field=path, description=f"Invalid link, HTTPS is required: {value}")


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


def message_of(shape: Shape) -> Check:
    """Check an object whose fields are named."""
    either_case = {_snake(name): check for name, check in shape.items()} | dict(shape)

    def fields(value: Any, path: str) -> Iterator[Violation]:
        if not isinstance(value, dict):
            yield _mistyped(path, "TYPE_MESSAGE", value)
            return
        for name, item in value.items():
            check = either_case.get(name)
            if check is None:
                where = f" at '{path}'" if path else ""
                yield Violation(
                    field=path,
                    description=f'Invalid JSON payload received. Unknown name "{name}"{where}: '
                    "Cannot find field.",
                    malformed=True,
                )
            elif item is not None:  # null is a field left out
                yield from check(item, f"{path}.{_snake(name)}" if path else _snake(name))

    return fields


COLOR: Shape = {"red": number, "green": number, "blue": number, "alpha": number}
LIGHT_SETTINGS: Shape = {
    "color": message_of(COLOR),
    "lightOnDuration": duration,
    "lightOffDuration": duration,
}
FCM_OPTIONS: Shape = {"analyticsLabel": label}
NOTIFICATION: Shape = {"title": string, "body": string, "image": string}
ANDROID_NOTIFICATION: Shape = {
    "title": string,
    "body": string,
    "icon": string,
    "color": string,
    "sound": string,
    "tag": string,
    "clickAction": string,
    "bodyLocKey": string,
    "bodyLocArgs": strings,
    "titleLocKey": string,
    "titleLocArgs": strings,
    "channelId": string,
    "ticker": string,
    "sticky": boolean,
    "eventTime": string,
    "localOnly": boolean,
    "notificationPriority": one_of(
        "PRIORITY_UNSPECIFIED",
        "PRIORITY_MIN",
        "PRIORITY_LOW",
        "PRIORITY_DEFAULT",
        "PRIORITY_HIGH",
        "PRIORITY_MAX",
    ),
    "defaultSound": boolean,
    "defaultVibrateTimings": boolean,
    "defaultLightSettings": boolean,
    "vibrateTimings": list_of(duration),
    "visibility": one_of("VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET"),
    "notificationCount": integer,
    "lightSettings": message_of(LIGHT_SETTINGS),
    "image": string,
    "bypassProxyNotification": boolean,
    "proxy": one_of("PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
}
ANDROID: Shape = {
    "collapseKey": string,
    "priority": one_of("NORMAL", "HIGH"),
    "ttl": ttl,
    "restrictedPackageName": string,
    "data": app_data,
    "notification": message_of(ANDROID_NOTIFICATION),
    "fcmOptions": message_of(FCM_OPTIONS),
    "directBootOk": boolean,
    "bandwidthConstrainedOk": boolean,
    "restrictedSatelliteOk": boolean,
}
APNS: Shape = {
    "headers": string_map,
    "payload": anything,
    "fcmOptions": message_of({"analyticsLabel": label, "image": string}),
    "liveActivityToken": string,
}
WEBPUSH: Shape = {
    "headers": string_map,
    "data": string_map,
    "notification": anything,
    "fcmOptions": message_of({"link": https, "analyticsLabel": label}),
}
MESSAGE: Shape = {
    "name": string,
    "data": app_data,
    "notification": message_of(NOTIFICATION),
    "android": message_of(ANDROID),
    "androidV2": anything,
    "webpush": message_of(WEBPUSH),
    "apns": message_of(APNS),
    "fcmOptions": message_of(FCM_OPTIONS),
    "token": string,
    "fid": string,
    "topic": string,
    "condition": string,
}
REQUEST: Shape = {"message": message_of(MESSAGE), "validateOnly": boolean}
TARGETS = ("token", "fid", "topic", "condition")

_check_request = message_of(REQUEST)


def violations(request: Any) -> list[Violation]:
    """Return everything FCM would refuse in a decoded request body, worst first."""
    found = sorted(_check_request(request, ""), key=lambda violation: not violation.malformed)
    if found:
        return found
    message = request.get("message")
    if not message:
        return [Violation(field="message", description="Message is missing.")]
    return list(_meaning(message))


def _meaning(message: dict[str, Any]) -> Iterator[Violation]:
    targets = [name for name in TARGETS if message.get(name)]
    if len(targets) != 1:
        found = "Recipient of the message is not set." if not targets else "Several recipients set."
        yield Violation(field="message", description=found)
    if (topic := message.get("topic")) and not _TOPIC.fullmatch(topic):
        yield Violation(field="message.topic", description="Malformed topic name")
    if payload_size(message) > MAX_MESSAGE_BYTES:
        yield Violation(field="message", description="Message is too big")


def payload_size(message: dict[str, Any]) -> int:
    """Return what counts towards the limit: notification and data, keys and values, in UTF-8."""
    counted = {name: message[name] for name in ("notification", "data") if message.get(name)}
    return len(msgspec.json.encode(counted))
