"""Which brands a request may touch: server keys and staff sessions, for every management path.

It decides by brand and role only; what a path does with the rows is the view's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Model, Q, QuerySet
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import (
    BaseAuthentication,
    SessionAuthentication,
    get_authorization_header,
)
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied, ValidationError
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from brands import storable
from brands.keys import KeyIdentity, authenticate_key
from brands.models import Brand, KeyKind, Role
from brands.rights import NOBODY, Rights, rights_of

AnyModel = TypeVar("AnyModel", bound=Model)


def bearer_of(request: Request) -> str | None:
    """The bearer credential of a request, or None where it carries none."""
    scheme, _, secret = get_authorization_header(request).partition(b" ")
    if scheme.lower() != b"bearer":
        return None
    return secret.strip().decode("latin-1")


class _KeyAuthentication(BaseAuthentication):
    kind: ClassVar[KeyKind]

    def authenticate(self, request: Request) -> tuple[Any, KeyIdentity] | None:
        secret = bearer_of(request)
        if secret is None:
            return None
        identity = authenticate_key(secret)
        if identity is None:
            raise AuthenticationFailed("The key is unknown or revoked.")
        if identity.kind is not self.kind:
            raise PermissionDenied(f"This path needs a {self.kind} key.")
        return identity, identity

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002 - DRF's signature
        return "Bearer"


class ServerKeyAuthentication(_KeyAuthentication):
    """A brand's back office."""

    kind = KeyKind.SERVER


class PublishableKeyAuthentication(_KeyAuthentication):
    """An app that registers its device; nothing else."""

    kind = KeyKind.PUBLISHABLE


class _ServerKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = ServerKeyAuthentication
    name = "serverKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer", "description": "A brand's server key."}


class _PublishableKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = PublishableKeyAuthentication
    name = "publishableKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer", "description": "The key inside an app."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the bearer of a request may touch; a server key has every role in its own brand."""

    rights: Rights
    key_brand_id: int | None = None

    def may(self, role: Role, brand_id: int) -> bool:
        return brand_id == self.key_brand_id or self.rights.may(role, brand_id)

    def brands(self, role: Role = Role.SUPPORT) -> QuerySet[Brand]:
        if self.key_brand_id is not None:
            return Brand.objects.filter(pk=self.key_brand_id)
        return self.rights.brands(role)


def access_of(request: Request) -> Access:
    """The access of an authenticated request; read once per request."""
    known: Access | None = getattr(request, "_brand_access", None)
    if known is None:
        if isinstance(request.auth, KeyIdentity):
            known = Access(rights=NOBODY, key_brand_id=request.auth.brand_id)
        else:
            user: User | AnonymousUser | None = request.user  # None where nobody was authenticated
            known = Access(rights=NOBODY if user is None else rights_of(user))
        request._brand_access = known  # type: ignore[attr-defined]
    return known


class HasBrandRole(BasePermission):
    """Some brand must grant the role that the method needs (`read_role`, `write_role`)."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        return access_of(request).brands(role_needed(request, view)).exists()

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        return access_of(request).may(role_needed(request, view), obj.brand_id)


def role_needed(request: Request, view: APIView) -> Role:
    """Reading needs `view.read_role` (support), anything else `view.write_role` (marketer)."""
    if request.method in SAFE_METHODS:
        return getattr(view, "read_role", Role.SUPPORT)
    return getattr(view, "write_role", Role.MARKETER)


class BrandScoped:
    """Mixin for DRF views of rows with a `brand_id`: others' rows do not exist (404).

    `scoped(queryset)` narrows to the brands allowed for this method, and to `?brand=` where given;
    `brand_for_writing()` is the brand of a new row, `brand_for_reading()` the one asked about.
    """

    authentication_classes: Sequence[type[BaseAuthentication]] = (
        ServerKeyAuthentication,
        SessionAuthentication,
    )
    permission_classes: Sequence[Any] = (HasBrandRole,)
    read_role: ClassVar[Role] = Role.SUPPORT
    write_role: ClassVar[Role] = Role.MARKETER
    request: Any  # DRF's, for which the stubs of Django say HttpRequest

    def get_queryset(self) -> QuerySet[Any]:
        return self.scoped(super().get_queryset())  # type: ignore[misc]

    def scoped(self, rows: QuerySet[AnyModel]) -> QuerySet[AnyModel]:
        """The rows of the brands that may be read; writing to one is a matter of role (403)."""
        return rows.filter(brand_id__in=self.brands_asked().values("pk"))

    def brands_asked(self) -> QuerySet[Brand]:
        """The brands that may be read, or the one of them that `brand` names."""
        brands = access_of(self.request).brands(self.read_role).order_by()
        asked = self.request.query_params.get("brand")
        return brands.filter(_named(asked)) if asked else brands

    def brand_for_writing(self) -> Brand:
        """The key's brand, the only one of the staff member, or the one that `brand` names."""
        return self._brand(self.write_role)

    def brand_for_reading(self) -> Brand:
        """The same, of what has one row in each brand, for who may read it."""
        return self._brand(self.read_role)

    def _brand(self, role: Role) -> Brand:
        allowed = access_of(self.request).brands(role)
        asked = self.request.query_params.get("brand")
        if not asked and isinstance(self.request.data, dict):
            asked = self.request.data.get("brand")
        if asked:
            allowed = allowed.filter(_named(str(asked)))
        found = list(allowed.order_by("pk")[:2])
        if not found and asked:
            raise ValidationError({"brand": ["No such brand."]})
        if not found:
            raise PermissionDenied
        if len(found) > 1:
            raise ValidationError({"brand": ["Say which brand: its slug or id."]})
        return found[0]


def _named(asked: str) -> Q:
    """A brand by its id or slug."""
    is_id = asked.isascii() and asked.isdigit() and len(asked) < 18
    if is_id:
        return Q(pk=int(asked))
    return Q(slug=asked) if storable.is_storable(asked) else Q(pk=None)
