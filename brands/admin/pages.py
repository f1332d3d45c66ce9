"""Admin pages of brands, staff and keys."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.crypto import get_random_string
from django.utils.timezone import now
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from brands.admin.scoped import BrandScopedAdmin
from brands.desk import current_brand, rights, work_in
from brands.forms import AppKeyForm, BrandForm, MemberForm, RoleForm
from brands.models import AppKey, Brand, KeyKind, Membership, Role
from brands.templatetags.nearcast import when


def show_once(
    request: HttpRequest, model_admin: ModelAdmin, *, title: str, secret: str, **context: Any
) -> TemplateResponse:
    """Show a secret that is kept nowhere; the page says so and copies it."""
    answer = TemplateResponse(
        request,
        "admin/brands/secret.html",
        {
            **model_admin.admin_site.each_context(request),
            "opts": model_admin.opts,
            "title": title,
            "secret": secret,
            "list_url": reverse(
                f"admin:{model_admin.opts.app_label}_{model_admin.opts.model_name}_changelist"
            ),
            **context,
        },
    )
    answer["Cache-Control"] = "no-store"
    return answer


@admin.register(Brand)
class BrandAdmin(BrandScopedAdmin):
    """The tenant's own settings; only a superuser makes brands, and none is deleted here."""

    brand_field = "id"
    change_role = Role.ADMIN
    add_role = None
    delete_role = None
    form = BrandForm
    list_display = ("name", "slug", "timezone", "made")
    prepopulated_fields = {"slug": ("name",)}

    @display(description="made", ordering="created_at")
    def made(self, brand: Brand) -> str:
        return when(brand.created_at)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # The one list that shows every brand of a person: it is where they choose.
        return rights(request).brands()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return rights(request).everywhere or current_brand(request) is not None

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return rights(request).everywhere or super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return rights(request).everywhere

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return rights(request).everywhere or super().has_change_permission(request, obj)

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, Any]:
        return {} if obj else dict(self.prepopulated_fields)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        # The slug is part of addresses that the brand's systems keep.
        return ("slug",) if obj else ()

    def get_urls(self) -> list[URLPattern]:
        work_in_view = self.admin_site.admin_view(self.work_in_view)
        return [
            path("<int:brand_id>/work-in/", work_in_view, name="brands_brand_work_in"),
            *super().get_urls(),
        ]

    def work_in_view(self, request: HttpRequest, brand_id: int) -> HttpResponse:
        """Choose the brand to work in and start at its dashboard."""
        if work_in(request, brand_id) is None:
            messages.error(request, "There is no such brand among yours.")
        return redirect("admin:index")


@admin.register(AppKey)
class AppKeyAdmin(BrandScopedAdmin):
    """Keys are made, shown once and revoked; nothing else about them changes."""

    view_role = add_role = change_role = Role.ADMIN
    delete_role = None
    form = AppKeyForm
    empty_title = "No key yet"
    empty_text = "With a key your app registers its devices; your back office needs one of its own."
    list_display = ("name", "what_for", "begins_with", "made", "state")
    list_display_links = ("name",)
    list_filter = ("kind",)
    search_fields = ("name", "prefix")
    change_form_template = "admin/brands/appkey/change_form.html"
    list_before_template = "admin/brands/appkey/intro.html"

    @display(description="used for")
    def what_for(self, key: AppKey) -> str:
        return "App (registers devices)" if key.kind == KeyKind.PUBLISHABLE else "Back office"

    @display(description="made", ordering="created_at")
    def made(self, key: AppKey) -> str:
        return when(key.created_at)

    @display(description="begins with")
    def begins_with(self, key: AppKey) -> str:
        return f"{key.prefix}…"

    @display(description="state", label={"live": "success", "revoked": "danger"})
    def state(self, key: AppKey) -> str:
        return "revoked" if key.revoked_at else "live"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("name", "kind", "begins_with", "created_at", "revoked_at") if obj else ()

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.get_readonly_fields(request, obj) or ("name", "kind")

    def get_urls(self) -> list[URLPattern]:
        revoke = self.admin_site.admin_view(self.revoke_view)
        return [
            path("<path:object_id>/revoke/", revoke, name="brands_appkey_revoke"),
            *super().get_urls(),
        ]

    def save_model(
        self, request: HttpRequest, obj: AppKey, form: ModelForm[Any], change: bool
    ) -> None:
        if not change:
            made, request._secret = AppKey.issue(  # type: ignore[attr-defined]
                brand=obj.brand, kind=KeyKind(obj.kind), name=obj.name
            )
            obj.pk = made.pk
            obj.refresh_from_db()

    def response_add(
        self, request: HttpRequest, obj: AppKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        return show_once(
            request,
            self,
            title="Your new key",
            secret=request._secret,  # type: ignore[attr-defined]
            what=f"The key “{obj.name}” of {obj.brand}",
            kind=obj.kind,
        )

    def revoke_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then revoke: every process drops the key at once."""
        key = self.object_or_redirect(request, object_id)
        if isinstance(key, HttpResponseRedirect):
            return key
        if not self.has_change_permission(request, key):
            raise PermissionDenied
        if request.method == "POST":
            # The table's trigger tells every process, which drops the key at once.
            if AppKey.objects.live().filter(pk=key.pk).update(revoked_at=now()):
                self.log_change(request, key, "Revoked the key.")
            messages.success(request, f"“{key.name}” is revoked: nothing accepts it any more.")
            return redirect("admin:brands_appkey_changelist")
        return TemplateResponse(
            request,
            "admin/nearcast/confirm.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": key,
                "title": f"Revoke “{key.name}”?",
                "text": "Every app and system that uses this key is refused from this moment. "
                "Devices that registered with it keep their own tokens. This cannot be undone; "
                "you can make a new key.",
                "button": "Revoke the key",
                "back_url": reverse("admin:brands_appkey_change", args=[key.pk]),
            },
        )


@admin.register(Membership)
class MembershipAdmin(BrandScopedAdmin):
    """Who works for the brand, and in which role."""

    view_role = add_role = change_role = delete_role = Role.ADMIN
    empty_title = "Nobody works here yet"
    empty_text = "Add a colleague and say what they may do."
    list_display = ("person", "email", "role_in_words", "last_login")
    list_filter = ("role",)
    search_fields = ("user__username", "user__email", "user__first_name", "user__last_name")
    list_select_related = ("user",)
    list_before_template = "admin/brands/membership/intro.html"
    change_form_template = "admin/brands/membership/change_form.html"

    @display(description="person", ordering="user__username")
    def person(self, row: Membership) -> str:
        return row.user.get_full_name() or row.user.get_username()

    @display(description="e-mail")
    def email(self, row: Membership) -> str:
        return row.user.email or "–"

    @display(description="role", ordering="role", label={"Admin": "info", "Marketer": "success"})
    def role_in_words(self, row: Membership) -> str:
        return row.get_role_display()

    @display(description="last log-in")
    def last_login(self, row: Membership) -> str:
        return when(row.user.last_login)

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> type[ModelForm[Any]]:
        form = super().get_form(
            request, obj, change=change, form=RoleForm if obj else MemberForm, **kwargs
        )
        form.rights = rights(request)  # type: ignore[attr-defined]
        return form

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        own = ("username", "first_name", "last_name", "email", "role")
        return ("role",) if obj else own

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # Nobody shuts themselves out, or up, by mistake.
        return super().has_change_permission(request, obj) and not self._is_self(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and not self._is_self(request, obj)

    @staticmethod
    def _is_self(request: HttpRequest, row: Membership | None) -> bool:
        return row is not None and row.user_id == request.user.pk

    def save_model(
        self, request: HttpRequest, obj: Membership, form: ModelForm[Any], change: bool
    ) -> None:
        request._secret = ""  # type: ignore[attr-defined]
        if isinstance(form, MemberForm) and form.existing is None:
            request._secret = get_random_string(16)  # type: ignore[attr-defined]
            obj.user = form.make_user(password=request._secret)  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: Membership, post_url_continue: str | None = None
    ) -> HttpResponse:
        if not request._secret:  # type: ignore[attr-defined]
            return super().response_add(request, obj, post_url_continue)  # type: ignore[no-any-return]
        return show_once(
            request,
            self,
            title="First password",
            secret=request._secret,  # type: ignore[attr-defined]
            what=f"{obj.user.get_username()} can log in to {obj.brand} with this password",
        )

    def get_urls(self) -> list[URLPattern]:
        reset = self.admin_site.admin_view(self.password_view)
        return [
            path("<path:object_id>/password/", reset, name="brands_membership_password"),
            *super().get_urls(),
        ]

    def may_reset(self, request: HttpRequest, row: Membership) -> bool:
        """Say whether a new password would give away nothing beyond the brands one administers."""
        mine = rights(request)
        theirs = row.user.memberships.values_list("brand_id", flat=True)
        return (
            self.has_change_permission(request, row)
            and not row.user.is_superuser
            and all(mine.may(Role.ADMIN, brand_id) for brand_id in theirs)
        )

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        row = kwargs.get("obj")
        context["may_reset"] = row is not None and self.may_reset(request, row)
        return super().render_change_form(request, context, *args, **kwargs)  # type: ignore[no-any-return]

    def password_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then give a member of staff a new first password."""
        row = self.object_or_redirect(request, object_id)
        if isinstance(row, HttpResponseRedirect):
            return row
        if not self.may_reset(request, row):
            raise PermissionDenied
        name = row.user.get_username()
        if request.method == "POST":
            secret = get_random_string(16)
            row.user.set_password(secret)
            row.user.save(update_fields=["password"])
            self.log_change(request, row, "Set a new first password.")
            what = f"{name} logs in with this password from now on"
            return show_once(request, self, title="New password", secret=secret, what=what)
        return TemplateResponse(
            request,
            "admin/nearcast/confirm.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": row,
                "title": f"New password for {name}?",
                "text": "The old password stops working and every open session ends.",
                "button": "Make a new password",
                "back_url": reverse("admin:brands_membership_change", args=[row.pk]),
            },
        )


class StaffUserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]
    """Accounts themselves: for superusers, since an account may belong to several brands."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_superuser", "is_active", "last_login")
    list_filter = ("is_superuser", "is_active")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
    )
    filter_horizontal = ()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)

    has_add_permission = has_module_permission
    has_change_permission = has_view_permission
    has_delete_permission = has_view_permission


# Roles take the place of Django's groups and permissions.
admin.site.unregister(Group)
admin.site.unregister(User)
admin.site.register(User, StaffUserAdmin)
