"""The brand's control group in the admin: one share, and when it is drawn anew."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from brands.admin import BrandScopedAdmin
from brands.desk import current_brand
from brands.models import Role
from campaigns.models import ControlGroup


class ControlGroupForm(forms.ModelForm):  # type: ignore[type-arg]
    """A share in percent."""

    percent = forms.FloatField(
        min_value=0,
        max_value=50,
        label="Percent of people",
        help_text="They get nothing but service messages; what they do shows what campaigns are "
        "worth together. A larger share keeps everybody who is in the group already.",
    )

    class Meta:
        model = ControlGroup
        fields = ("salt",)
        labels = {"salt": "Draw"}
        help_texts = {"salt": "Another word here draws the group anew, from everybody."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("percent", round(self.instance.share * 100, 6))

    def save(self, commit: bool = True) -> ControlGroup:
        self.instance.share = self.cleaned_data["percent"] / 100
        saved: ControlGroup = super().save(commit)
        return saved


@admin.register(ControlGroup)
class ControlGroupAdmin(BrandScopedAdmin):
    """One row for a brand, for its admins."""

    form = ControlGroupForm
    fields = ("percent", "salt")
    list_display = ("percent", "salt")
    add_role = change_role = delete_role = Role.ADMIN
    empty_title = "Nobody is left out"
    empty_text = (
        "A control group gets nothing from any campaign, so that you see what campaigns are worth "
        "together. One person in twenty is a good size."
    )

    def percent(self, row: ControlGroup) -> str:
        return f"{row.share:.1%} of people"

    def has_add_permission(self, request: HttpRequest) -> bool:
        if not super().has_add_permission(request):
            return False
        brand = current_brand(request)
        return brand is not None and not ControlGroup.objects.filter(brand=brand).exists()
