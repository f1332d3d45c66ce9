"""Which brand and kind an app key stands for, remembered for a while; it grants nothing itself."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from brands.models import AppKey, KeyKind

CHANNEL = "nearcast_keys"  # payload "key:<digest>" from the trigger of migration 0002
REMEMBERED_S = 30.0  # a revocation whose NOTIFY is lost takes hold after this at the latest
UNKNOWN_REMEMBERED_S = 5.0  # spares the database a flood of one wrong key
MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyIdentity:
    """The bearer of an app key; stands as `request.user` where DRF asks for one."""

    key_id: int
    brand_id: int
    kind: KeyKind

    is_authenticated = True
    is_active = True


class KeyRing:
    """App keys by digest, read through; a process has one."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[KeyIdentity | None, float]] = {}
        self._generation = 0  # a look-up that overlaps a revocation is not remembered
        self._guard = threading.Lock()

    def remembered(self, secret: str) -> tuple[KeyIdentity | None, bool]:
        """The identity and whether that is known without asking the database."""
        found = self._known.get(AppKey.digest_of(secret))
        if found is None or found[1] < time.monotonic():
            return None, False
        return found[0], True

    def authenticate(self, secret: str) -> KeyIdentity | None:
        """Who bears this key, or None where it is unknown or revoked. May ask the database."""
        identity, known = self.remembered(secret)
        if known:
            return identity
        digest, generation = AppKey.digest_of(secret), self._generation
        row = AppKey.objects.live().filter(digest=digest).values_list("id", "brand_id", "kind")
        identity = next(
            (KeyIdentity(key_id=i, brand_id=b, kind=KeyKind(k)) for i, b, k in row), None
        )
        keep_s = UNKNOWN_REMEMBERED_S if identity is None else REMEMBERED_S
        with self._guard:
            if generation == self._generation:
                if len(self._known) >= MAX_REMEMBERED:
                    self._known.clear()
                self._known[digest] = (identity, time.monotonic() + keep_s)
        return identity

    def forget(self, digest: str | None = None) -> None:
        """Drop one key, or all of them where a NOTIFY may have been missed."""
        with self._guard:
            self._generation += 1
            if digest is None:
                self._known.clear()
            else:
                self._known.pop(digest, None)


keys = KeyRing()


def authenticate_key(secret: str) -> KeyIdentity | None:
    """As `KeyRing.authenticate`, on this process's ring."""
    return keys.authenticate(secret)
