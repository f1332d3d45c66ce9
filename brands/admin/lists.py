"""Tables too big to count, as lists and rows to read; what is found is the subclass's business."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from brands.admin.scoped import BrandScopedAdmin
from brands.desk import current_brand
from brands.models import Brand
from brands.patience import TookTooLongError, patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some rows of a big table, newest first, and where the older ones begin (None: nowhere)."""

    rows: Sequence[Any]
    older: str | None = None
    since: datetime | None = None  # looking further back than this took too long


class BigListAdmin(BrandScopedAdmin):
    """Lists a table too big to count: a bar of filters, newest first, one page after the other.

    Subclasses give the form of the filters and `find`, which answers one page by an index. A
    question that no index answers in time is given up, and the page says what to narrow. A row has
    a page to read: what it shows is the subclass's `page`.
    """

    add_role = change_role = delete_role = None
    filter_form: type[forms.Form]
    list_template = "admin/nearcast/big_list.html"
    row_template: str
    page_template: str
    headings: tuple[str, ...]
    intro = ""
    empty_text = "Nothing fits these filters."
    per_page = 50
    limit_ms = 5_000

    def find(
        self, request: HttpRequest, brand: Brand, asked: dict[str, Any], *, older: str | None
    ) -> Page:
        """Return one page of what was asked for; ValueError where `older` is not a place."""
        raise NotImplementedError

    def page(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return what the page of one row shows."""
        raise NotImplementedError

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        brand = current_brand(request)
        if brand is None or not self.has_view_permission(request):
            raise PermissionDenied
        form = self.filter_form(request.GET or None)
        if hasattr(form, "of_brand"):
            form.of_brand(brand)
        asked = form.cleaned_data if form.is_bound and form.is_valid() else {}
        try:
            found = self._find_in_time(request, brand, asked, request.GET.get("older"))
        except ValueError:
            messages.warning(request, "That page is not there; these are the newest.")
            found = self._find_in_time(request, brand, asked, None)
        page = Page(rows=()) if found is None else found
        query = request.GET.copy()
        query.pop("older", None)
        newest = query.urlencode()
        if page.older:
            query["older"] = page.older
        return TemplateResponse(
            request,
            self.list_template,
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "title": str(self.opts.verbose_name_plural).capitalize(),
                "form": form,
                "rows": page.rows,
                "older_url": f"?{query.urlencode()}" if page.older else None,
                "newest_url": f"?{newest}" if "older" in request.GET else None,
                "filtered": bool(newest),
                "too_much": found is None,
                "since": page.since,
                "row_template": self.row_template,
                "headings": self.headings,
                "intro": self.intro,
                "empty_text": self.empty_text,
                **(extra_context or {}),
            },
        )

    def _find_in_time(
        self, request: HttpRequest, brand: Brand, asked: dict[str, Any], older: str | None
    ) -> Page | None:
        """Return the page; None where it takes too long to find."""
        try:
            with patience(self.limit_ms):
                return self.find(request, brand, asked, older=older)
        except TookTooLongError:
            return None

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if object_id is None:
            raise PermissionDenied
        row = self.object_or_redirect(request, object_id)
        if isinstance(row, HttpResponseRedirect):
            return row
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        return TemplateResponse(
            request,
            self.page_template,
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": row,
                **self.page(request, row),
            },
        )
