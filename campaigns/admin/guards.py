"""The rules of relevance that every campaign of a brand keeps: a list in words, and a form."""

from __future__ import annotations

from typing import Any

import msgspec
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from unfold.decorators import display

from brands.admin import OwnPageAdmin
from brands.models import Brand
from brands.templatetags.nearcast import when
from campaigns import sentences
from campaigns.guards import GuardText
from campaigns.models import BrandGuard
from campaigns.shared_forms import BrandGuardForm


@admin.register(BrandGuard)
class BrandGuardAdmin(OwnPageAdmin):
    """What no campaign of a brand may say to whom."""

    list_display = ("name", "in_words", "changed")
    search_fields = ("name",)
    empty_title = "No rule for all campaigns yet"
    empty_text = (
        "A rule of relevance keeps every campaign from contradicting what is known: "
        "no offer to somebody who complained an hour ago, none of shoes to who has just bought "
        "some. Service messages are exempt."
    )

    @display(description="last change", ordering="updated_at")
    def changed(self, row: BrandGuard) -> str:
        return when(row.updated_at)

    @display(description="no offer where")
    def in_words(self, row: BrandGuard) -> str:
        try:
            return sentences.guard(msgspec.convert(row.rule, GuardText))
        except msgspec.ValidationError as error:
            return f"It cannot be read: {error}"

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def own_page(
        self, request: HttpRequest, guard: BrandGuard | None, brand: Brand, *, may_edit: bool
    ) -> HttpResponse:
        form = BrandGuardForm(request.POST or None, instance=guard or BrandGuard(), brand=brand)
        saved = form.save_if_valid()
        if saved is not None:
            messages.success(request, f"“{saved.name}” saved; every campaign keeps it at once.")
            return redirect("admin:campaigns_brandguard_changelist")
        return TemplateResponse(
            request,
            "admin/campaigns/brandguard/form.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": guard,
                "title": guard.name if guard else "New rule",
                "form": form,
                "may_edit": may_edit,
                "deletable": guard is not None and self.has_delete_permission(request, guard),
            },
        )
