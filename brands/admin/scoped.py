"""The base of every admin page: roles decide what a person may do, brands what there is for them.

Rows of a brand in which one has no role do not exist: not in lists, choices, filters or by id.
"""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import ForeignKey, Model, QuerySet
from django.forms import ModelChoiceField, ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.text import capfirst
from unfold.admin import ModelAdmin

from brands.desk import current_brand, rights, work_in
from brands.models import Brand, Role


def has_brand(model: type[Model]) -> bool:
    """Say whether a model's rows belong to a brand by a foreign key."""
    return any(field.name == "brand" for field in model._meta.get_fields())


class BrandScopedAdmin(ModelAdmin):
    """Rows of the brands one has a role in; lists show the brand worked in.

    `brand_field` is the column that names the brand. Each right is the least role that has it;
    None: nobody. A form never shows the brand: a new row belongs to the brand worked in, and a
    row does not change brands.
    """

    brand_field = "brand_id"
    view_role: Role = Role.SUPPORT
    add_role: Role | None = Role.MARKETER
    change_role: Role | None = Role.MARKETER
    delete_role: Role | None = Role.MARKETER

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        mine = rights(request)
        if not mine.everywhere:
            rows = rows.filter(**{f"{self.brand_field}__in": mine.brands(self.view_role)})
        match = request.resolver_match
        if match and str(match.url_name).endswith(("_changelist", "autocomplete")):
            brand = current_brand(request)
            rows = rows.filter(**{self.brand_field: brand.pk}) if brand else rows.none()
        return rows

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        found = super().get_object(request, object_id, from_field)
        if found is not None:
            work_in(request, self.brand_of(found))
        return found

    def brand_of(self, row: Any) -> int:
        """Return the id of the brand a row belongs to."""
        brand_id: int = getattr(row, self.brand_field)
        return brand_id

    def allows(self, request: HttpRequest, role: Role | None, row: Any = None) -> bool:
        """Say whether the person has a role in the row's brand, or in the one worked in."""
        if role is None:
            return False
        if row is not None:
            return rights(request).may(role, self.brand_of(row))
        brand = current_brand(request)
        return brand is not None and rights(request).may(role, brand.pk)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        title = {"title": capfirst(str(self.opts.verbose_name_plural))}
        answer: HttpResponse = super().changelist_view(request, title | (extra_context or {}))
        return answer

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        found: ChangeList = super().get_changelist_instance(request)
        if not found.query and not found.has_active_filters:
            # Else the theme offers to show all where all is shown.
            found.full_result_count = found.result_count
        return found

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, self.view_role)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, self.view_role, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.allows(request, self.add_role)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, self.change_role, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.allows(request, self.delete_role, obj)

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> list[str]:
        excluded = list(super().get_exclude(request, obj) or ())
        return [*excluded, "brand"] if has_brand(self.model) else excluded

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> type[ModelForm[Any]]:
        base = super().get_form(request, obj, change=change, **kwargs)
        if not has_brand(self.model):
            return base  # type: ignore[no-any-return]
        brand = current_brand(request)

        class OfBrand(base):  # type: ignore[misc, valid-type]
            """Sets the brand before validation, so that "unique in the brand" is checked."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                if self.instance.brand_id is None:
                    self.instance.brand = brand

            def _get_validation_exclusions(self) -> set[str]:
                found: set[str] = super()._get_validation_exclusions()
                return found - {"brand"}

        return OfBrand

    def formfield_for_foreignkey(
        self, db_field: ForeignKey[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> ModelChoiceField[Any] | None:
        related = db_field.remote_field.model
        if "queryset" not in kwargs and has_brand(related):
            kwargs["queryset"] = related._default_manager.filter(brand=current_brand(request))
        field: ModelChoiceField[Any] | None = super().formfield_for_foreignkey(
            db_field, request, **kwargs
        )
        return field

    def object_or_redirect(self, request: HttpRequest, object_id: str) -> Any:
        """Return the row, or Django's own answer for a row that does not exist."""
        row = self.get_object(request, object_id)
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        return row


class OwnPageAdmin(BrandScopedAdmin):
    """A model whose rows are made and changed on a page of its own instead of Django's form."""

    def own_page(
        self, request: HttpRequest, row: Any, brand: Brand, *, may_edit: bool
    ) -> HttpResponse:
        """Answer for a row of the brand, or a new one (None); who may not see it never comes."""
        raise NotImplementedError

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        row: Any = None
        if object_id is not None:
            row = self.object_or_redirect(request, object_id)
            if isinstance(row, HttpResponseRedirect):
                return row
        brand, may_edit = self._to_edit(request, row)
        return self.own_page(request, row, brand, may_edit=may_edit)

    def _to_edit(self, request: HttpRequest, row: Any) -> tuple[Brand, bool]:
        """Return the brand of a row, or of a new one, and whether the person may change it.

        Raises PermissionDenied for who may not see it, or asks to change what they may not.
        """
        brand = row.brand if row is not None else current_brand(request)
        may_edit = self.allows(request, self.change_role, row)
        if brand is None or not self.has_view_permission(request, row):
            raise PermissionDenied
        if not may_edit and (row is None or request.method == "POST"):
            raise PermissionDenied
        return brand, may_edit
