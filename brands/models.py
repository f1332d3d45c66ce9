"""The tenant: a brand, its staff and its keys. It knows nothing of places or devices."""

from __future__ import annotations

import hashlib
import secrets
from enum import StrEnum

from django.conf import settings
from django.db import models
from django.utils.timezone import now


class Role(StrEnum):
    """What a member of staff may do in a brand; each role includes the ones before it."""

    SUPPORT = "support"
    MARKETER = "marketer"
    ADMIN = "admin"


class KeyKind(StrEnum):
    """`publishable` ships inside an app and may only register; `server` is the back office."""

    PUBLISHABLE = "publishable"
    SERVER = "server"


class Brand(models.Model):
    """One tenant: everything else belongs to exactly one brand."""

    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=60, unique=True)
    timezone = models.CharField(
        max_length=64,
        default="UTC",
        help_text="Used where a device has not told its own time zone.",
    )
    quiet_hours = models.JSONField(
        default=dict,
        blank=True,
        help_text="Hours without offers in the device's time zone: "
        '{"from": "21:00", "to": "08:00"}.',
    )
    caps = models.JSONField(
        default=list,
        blank=True,
        help_text='Caps over all campaigns: [{"limit": 3, "window_s": 86400, "scope": "device"}].',
    )
    derive_areas = models.BooleanField(
        default=True,
        help_text="Learn where devices are at home and usually are: cells of about 5 km², from "
        "the positions kept. Off: nothing is learnt, and what was learnt is deleted.",
    )
    created_at = models.DateTimeField(default=now, editable=False)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A member of staff's role in one brand."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    brand = models.ForeignKey(Brand, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=[(r.value, r.value.title()) for r in Role])

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("user", "brand"), name="one_role_per_user_and_brand"),
        )

    def __str__(self) -> str:
        return f"{self.user} · {self.brand} · {self.role}"


class AppKeyQuerySet(models.QuerySet["AppKey"]):
    def live(self) -> AppKeyQuerySet:
        return self.filter(revoked_at__isnull=True)


class AppKey(models.Model):
    """A key of an app or a back office: only its digest is kept, the secret is shown once."""

    brand = models.ForeignKey(Brand, on_delete=models.CASCADE, related_name="app_keys")
    name = models.CharField(max_length=80)
    kind = models.CharField(max_length=16, choices=[(k.value, k.value.title()) for k in KeyKind])
    prefix = models.CharField(max_length=16, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=now, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = AppKeyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @staticmethod
    def digest_of(secret: str) -> str:
        """SHA-256, hex. The secret has 256 bits of entropy, so a slow hash would add nothing."""
        return hashlib.sha256(secret.encode()).hexdigest()

    @classmethod
    def issue(
        cls, *, brand: Brand, kind: KeyKind, name: str, secret: str | None = None
    ) -> tuple[AppKey, str]:
        """Make a key; answers the row and the secret, which is not kept anywhere."""
        head = "pk" if kind is KeyKind.PUBLISHABLE else "sk"
        secret = secret or f"nc_{head}_{secrets.token_urlsafe(32)}"
        key = cls.objects.create(
            brand=brand, kind=kind, name=name, prefix=secret[:12], digest=cls.digest_of(secret)
        )
        return key, secret
