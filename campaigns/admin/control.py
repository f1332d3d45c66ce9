"""The brand's control group in the admin: one share, and when it is drawn anew."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from unfold.decorators import display

from brands.admin import OwnPageAdmin
from brands.desk import current_brand
from brands.models import Brand, Role
from brands.overtaking import MarkedForm
from campaigns.models import ControlGroup


class ControlGroupForm(MarkedForm):
    """A share in percent."""

    percent = forms.FloatField(
        min_value=0,
        max_value=50,
        label="Percent of people",
        widget=forms.NumberInput(
            {"class": "nc-input nc-number", "min": 0, "max": 50, "step": "any"}
        ),
        help_text="They get nothing but service messages; what they do shows what campaigns are "
        "worth together. A larger share keeps everybody who is in the group already.",
    )

    class Meta:
        model = ControlGroup
        fields = ("salt",)
        labels = {"salt": "Drawn by the word"}
        help_texts = {
            "salt": "Another word draws the group anew, from everybody: results before and after "
            "cannot be compared. Leave it as it is otherwise."
        }
        widgets = {"salt": forms.TextInput({"class": "nc-input", "size": 12})}

    def __init__(self, *args: Any, brand: Brand, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.brand = brand
        self.initial.setdefault("percent", round(self.instance.share * 100, 6) or None)

    def save(self, commit: bool = True) -> ControlGroup:
        self.instance.share = self.cleaned_data["percent"] / 100
        saved: ControlGroup = super().save(commit)
        return saved


@admin.register(ControlGroup)
class ControlGroupAdmin(OwnPageAdmin):
    """One row for a brand, for its admins."""

    list_display = ("percent", "drawn_by")
    add_role = change_role = delete_role = Role.ADMIN
    empty_title = "Nobody is left out"
    empty_text = (
        "A control group gets nothing from any campaign, so that you see what campaigns are worth "
        "together. One person in twenty is a good size."
    )

    @display(description="left out")
    def percent(self, row: ControlGroup) -> str:
        return f"{row.share:.1%} of people"

    @display(description="drawn by the word")
    def drawn_by(self, row: ControlGroup) -> str:
        return row.salt

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def own_page(
        self, request: HttpRequest, group: ControlGroup | None, brand: Brand, *, may_edit: bool
    ) -> HttpResponse:
        if group is None and request.method == "POST" and "mark" in request.POST:
            # Somebody may have made it since this page was opened.
            group = ControlGroup.objects.filter(brand=brand).first()
        if group is None and not self.has_add_permission(request):
            raise PermissionDenied
        form = ControlGroupForm(request.POST or None, instance=group or ControlGroup(), brand=brand)
        try:
            saved = form.save_if_valid()
        except IntegrityError:  # or makes it at this very moment
            made = ControlGroup.objects.get(brand=brand)
            return self.own_page(request, made, brand, may_edit=may_edit)
        if saved is not None:
            messages.success(request, f"{saved.share:.1%} of people are left out from now on.")
            return redirect("admin:campaigns_controlgroup_changelist")
        return TemplateResponse(
            request,
            "admin/campaigns/controlgroup/form.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": group,
                "title": "Control group",
                "form": form,
                "may_edit": may_edit,
                "deletable": group is not None and self.has_delete_permission(request, group),
            },
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        if not super().has_add_permission(request):
            return False
        brand = current_brand(request)
        return brand is not None and not ControlGroup.objects.filter(brand=brand).exists()
