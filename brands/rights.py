"""Who of the staff may do what in which brand; it stores nothing and knows no pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db.models import QuerySet

from brands.models import Brand, Membership, Role

_RANK = {role: rank for rank, role in enumerate(Role)}  # each role includes the ones before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The roles of one person; a superuser has every role in every brand."""

    everywhere: bool
    roles: Mapping[int, Role]  # by brand id

    def may(self, role: Role, brand_id: int) -> bool:
        """Say whether this person has at least `role` in that brand."""
        held = self.roles.get(brand_id)
        return self.everywhere or (held is not None and _RANK[held] >= _RANK[role])

    def brands(self, role: Role = Role.SUPPORT) -> QuerySet[Brand]:
        """Return the brands in which this person has at least `role`."""
        if self.everywhere:
            return Brand.objects.all()
        return Brand.objects.filter(pk__in=[pk for pk in self.roles if self.may(role, pk)])


NOBODY = Rights(everywhere=False, roles={})


def rights_of(user: AbstractBaseUser | AnonymousUser) -> Rights:
    """Read a person's roles (one query)."""
    if not user.is_authenticated or not user.is_active:
        return NOBODY
    rows = Membership.objects.filter(user_id=user.pk).values_list("brand_id", "role")
    return Rights(
        everywhere=getattr(user, "is_superuser", False),
        roles={brand_id: Role(role) for brand_id, role in rows},
    )
