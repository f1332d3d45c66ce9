"""The service account of the emulator: it hands out its key and exchanges assertions for tokens."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

PROJECT = "demo-nearcast"
CLIENT_EMAIL = f"firebase-adminsdk@{PROJECT}.iam.gserviceaccount.com"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# google-auth names Google's endpoint as audience, wherever `token_uri` points.
AUDIENCE = "https://oauth2.googleapis.com/token"
SCOPES = frozenset(
    {
        "https://www.googleapis.com/auth/cloud-platform",
        "https://www.googleapis.com/auth/firebase.messaging",
    }
)
TOKEN_LIFE_S = 3_600


class InvalidGrant(Exception):  # noqa: N818 - OAuth's own word
    """The assertion is not one of ours; the message says why, as Google's would."""


class ServiceAccount:
    """A key that signs assertions, and the tokens given for them."""

    def __init__(self, private_key_pem: str) -> None:
        self._private_key_pem = private_key_pem
        key = serialization.load_pem_private_key(private_key_pem.encode(), password=None)
        self._public_key_pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        # Another secret at every start: a token of the last run is refused, as an expired one is.
        self._secret = secrets.token_bytes(32)

    @classmethod
    def create(cls) -> ServiceAccount:
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return cls(pem.decode())

    @classmethod
    def kept_at(cls, path: Path) -> ServiceAccount:
        """Read the account from a file, or make one and write it there for the owner alone."""
        if path.exists():
            return cls(json.loads(path.read_text())["private_key"])
        account = cls.create()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(account.document("http://127.0.0.1"), file)
        return account

    def document(self, base_url: str) -> dict[str, str]:
        """Return the JSON that Firebase's console would let you download."""
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": hashlib.sha256(self._public_key_pem).hexdigest()[:40],
            "private_key": self._private_key_pem,
            "client_email": CLIENT_EMAIL,
            "client_id": "100000000000000000000",
            "token_uri": f"{base_url}/token",
        }

    def exchange(self, form: dict[str, str], *, now_s: float) -> dict[str, Any]:
        """Return an access token for a signed assertion. Raises InvalidGrant."""
        if form.get("grant_type") != GRANT_TYPE:
            raise InvalidGrant(f"Invalid grant_type: {form.get('grant_type', '')}")
        try:
            claims = jwt.decode(  # type: ignore[no-untyped-call]
                form.get("assertion", ""), certs=self._public_key_pem, audience=AUDIENCE
            )
        except ValueError as error:  # google.auth's errors here all are
            raise InvalidGrant(f"Invalid JWT: {error}") from error
        if claims.get("iss") != CLIENT_EMAIL:
            raise InvalidGrant("Invalid JWT: iss is not the service account")
        if not SCOPES & set(str(claims.get("scope", "")).split()):
            raise InvalidGrant("Invalid scope: firebase.messaging or cloud-platform is needed")
        expires_at = int(now_s) + TOKEN_LIFE_S
        return {
            "access_token": f"ya29.{expires_at}.{self._signature(expires_at)}",
            "expires_in": TOKEN_LIFE_S,
            "token_type": "Bearer",
        }

    def accepts(self, authorization: str, *, now_s: float) -> bool:
        """Say whether a header carries a token that we gave and that is still good."""
        scheme, _, token = authorization.partition(" ")
        prefix, _, rest = token.partition(".")
        expires, _, signature = rest.partition(".")
        return (
            scheme == "Bearer"
            and prefix == "ya29"
            and expires.isdecimal()
            and int(expires) > now_s
            and hmac.compare_digest(signature, self._signature(int(expires)))
        )

    def _signature(self, expires_at: int) -> str:
        return hmac.new(self._secret, str(expires_at).encode(), hashlib.sha256).hexdigest()
