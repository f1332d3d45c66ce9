"""Segments in the admin: a list in words, and a form with the conditions of a campaign."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from unfold.decorators import display

from brands.admin import OwnPageAdmin
from brands.models import Brand
from brands.templatetags.nearcast import when
from campaigns import sentences, shared_forms
from campaigns.conditions import segments_in
from campaigns.models import Campaign, Segment


@admin.register(Segment)
class SegmentAdmin(OwnPageAdmin):
    """Named audiences that several campaigns share."""

    list_display = ("name", "in_words", "changed")
    search_fields = ("name",)
    empty_title = "No segment yet"
    empty_text = "A segment is an audience with a name, which several campaigns can use."

    @display(description="last change", ordering="updated_at")
    def changed(self, row: Segment) -> str:
        return when(row.updated_at)

    @display(description="who belongs to it")
    def in_words(self, row: Segment) -> str:
        return sentences.condition(row.tree)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj and self.users_of(obj))

    def users_of(self, segment: Segment) -> list[str]:
        """Return what would break without it: campaigns and segments by name."""
        found = [
            row.name
            for row in Segment.objects.filter(brand=segment.brand).exclude(pk=segment.pk)
            if segment.slug in segments_in(row.tree)
        ]
        for row in Campaign.objects.filter(brand=segment.brand).select_related("live_version"):
            trees = [row.draft.get("audience")]
            trees += [row.live_version.definition.get("audience")] if row.live_version else []
            if any(segment.slug in segments_in(tree) for tree in trees):
                found.append(row.name)
        return found

    def own_page(
        self, request: HttpRequest, segment: Segment | None, brand: Brand, *, may_edit: bool
    ) -> HttpResponse:
        form = shared_forms.SegmentForm(
            request.POST or None, instance=segment or Segment(), brand=brand
        )
        saved = form.save_if_valid()
        if saved is not None:
            messages.success(request, f"Segment “{saved.name}” saved; campaigns use it at once.")
            return redirect("admin:campaigns_segment_changelist")
        return TemplateResponse(
            request,
            "admin/campaigns/segment/form.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": segment,
                "title": segment.name if segment else "New segment",
                "form": form,
                "may_edit": may_edit,
                "users": self.users_of(segment) if segment else [],
                "deletable": segment is not None and self.has_delete_permission(request, segment),
            },
        )
