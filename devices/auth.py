"""Device tokens: signed, so that checking one asks no database. It issues none on its own accord.

A token is `nc_dt_` and base64url of (version, device, brand, serial, issued at, salt) and the first
16 bytes of their HMAC-SHA256. Whether the serial still stands is asked where the device's row is
read anyway: by ingest under its lock, by the other paths in their query.
"""

from __future__ import annotations

import hmac
import secrets
import struct
import time
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from brands.access import bearer_of
from brands.keys import KeyIdentity, authenticate_key
from devices.models import DeviceState

__all__ = [
    "DeviceIdentity",
    "DeviceTokenAuthentication",
    "KeyIdentity",
    "TokenMemory",
    "authenticate_key",
    "issue",
    "verify",
]

PREFIX = "nc_dt_"
_PAYLOAD = struct.Struct(">BQIIIH")  # 23 bytes; with the signature 39, 52 characters of base64
_VERSION = 1
_SIGNATURE_BYTES = 16
_TOKEN_LENGTH = len(PREFIX) + (_PAYLOAD.size + _SIGNATURE_BYTES) // 3 * 4
# Into the letters that binascii reads. The two of the other alphabet become letters of neither, or
# a token with `/` where `_` was issued would be the same one in another spelling.
_STANDARD = bytes.maketrans(b"-_+/", b"+/**")
_PURPOSE = b"nearcast device token 1"


class DeviceIdentity(NamedTuple):
    """The bearer of a device token; stands as `request.user` where DRF asks for one."""

    device_id: int
    brand_id: int
    serial: int

    @property
    def is_authenticated(self) -> bool:
        return True


@lru_cache(maxsize=8)
def _signer(secret: str) -> hmac.HMAC:
    """A keyed hash to copy from: half the cost of keying one for every token."""
    return hmac.new(hmac.digest(secret.encode(), _PURPOSE, "sha256"), digestmod="sha256")


def _signature(secret: str, payload: bytes) -> bytes:
    keyed = _signer(secret).copy()
    keyed.update(payload)
    return keyed.digest()[:_SIGNATURE_BYTES]


def issue(device_id: int, brand_id: int, serial: int) -> str:
    """Return a new token of the device; earlier ones of the same serial stay good."""
    issued_at_s = int(time.time()) & 0xFFFFFFFF
    payload = _PAYLOAD.pack(
        _VERSION, device_id, brand_id, serial, issued_at_s, secrets.randbits(16)
    )
    return PREFIX + urlsafe_b64encode(payload + _signature(settings.SECRET_KEY, payload)).decode()


def verify(token: str) -> DeviceIdentity | None:
    """Who a token names, or None where nobody signed it; its serial may be revoked since."""
    if len(token) != _TOKEN_LENGTH or not token.startswith(PREFIX):
        return None
    try:
        signed = a2b_base64(token[len(PREFIX) :].encode("ascii").translate(_STANDARD))
    except ValueError:
        return None
    payload, signature = signed[: _PAYLOAD.size], signed[_PAYLOAD.size :]
    if len(signature) != _SIGNATURE_BYTES:
        return None
    if not hmac.compare_digest(signature, _signature(settings.SECRET_KEY, payload)) and not any(
        hmac.compare_digest(signature, _signature(secret, payload))
        for secret in settings.SECRET_KEY_FALLBACKS
    ):
        return None
    version, device_id, brand_id, serial, _, _ = _PAYLOAD.unpack(payload)
    return DeviceIdentity(device_id, brand_id, serial) if version == _VERSION else None


class TokenMemory:
    """Authorization headers already verified, by their bytes; bounded, dropped when half is full.

    Two generations: what was asked for recently survives the drop of the older one.
    """

    __slots__ = ("_limit", "_older", "_recent")

    def __init__(self, limit: int = 200_000) -> None:
        self._limit = limit // 2
        self._recent: dict[bytes, DeviceIdentity] = {}
        self._older: dict[bytes, DeviceIdentity] = {}

    def identify(self, authorization: bytes) -> DeviceIdentity | None:
        """Who `Bearer <device token>` names, or None."""
        known = self._recent.get(authorization)
        return known if known is not None else self._look_again(authorization)

    def _look_again(self, authorization: bytes) -> DeviceIdentity | None:
        identity = self._older.get(authorization)
        if identity is None:
            scheme, _, token = authorization.partition(b" ")
            if scheme.lower() != b"bearer":
                return None
            identity = verify(token.strip().decode("latin-1"))
            if identity is None:
                return None
        if len(self._recent) >= self._limit:
            self._older, self._recent = self._recent, {}
        self._recent[authorization] = identity
        return identity


class DeviceTokenAuthentication(BaseAuthentication):
    """One device, on its own paths; the row is asked whether the token was revoked."""

    def authenticate(self, request: Request) -> tuple[DeviceIdentity, DeviceIdentity] | None:
        token = bearer_of(request)
        if token is None:
            return None
        identity = verify(token)
        if (
            identity is None
            or not DeviceState.objects.filter(
                device_id=identity.device_id, brand_id=identity.brand_id, serial=identity.serial
            ).exists()
        ):
            raise AuthenticationFailed("The device token is unknown or revoked.")
        return identity, identity

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - DRF's signature
        return "Bearer"


class _DeviceTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = DeviceTokenAuthentication
    name = "deviceToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer", "description": "Answered by registration."}
