"""Segments in the admin: a list in words, and a form with the conditions of a campaign."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from unfold.decorators import display

from brands.admin import OwnPageAdmin
from brands.models import Brand
from brands.templatetags.nearcast import when
from campaigns import locks, publishing, sentences, shared_forms
from campaigns.models import Segment


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
        allowed = super().has_delete_permission(request, obj)
        return allowed and not (obj and publishing.users_of_segment(obj))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Delete while nobody else writes a segment of the brand: it may be about to refer here."""
        with transaction.atomic():
            segment = self.get_object(request, object_id)
            if segment is not None and request.method == "POST":
                locks.take("segments", [segment.brand_id])
            answer: HttpResponse = super().delete_view(request, object_id, extra_context)
        return answer

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
                "users": publishing.users_of_segment(segment) if segment else [],
                "deletable": segment is not None and self.has_delete_permission(request, segment),
            },
        )
