"""Coupon pools in the admin: how they stand, files of codes, and what became of their lines."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from unfold.decorators import display
from unfold.views import ChangeList

from brands.admin import OwnPageAdmin
from brands.models import Brand, Role
from brands.overtaking import MarkedForm
from campaigns import codes, coupons, slugs
from campaigns.coupons import Stock
from campaigns.models import BacktestState, CouponImport, CouponPool, PoolKind

INPUT = {"class": "nc-input"}
SHOWN_IMPORTS = 10
SHOWN_REMARKS = 50
UNDER_WAY = {BacktestState.QUEUED, BacktestState.RUNNING}


class PoolForm(MarkedForm):
    """A pool: where its codes come from, and how long they are good."""

    kind = forms.ChoiceField(
        label="Where do the codes come from?",
        choices=[
            (PoolKind.IMPORTED.value, "From a list of ours, which the tills know"),
            (PoolKind.SIGNED.value, "Made here and signed: a till checks them without asking"),
        ],
        initial=PoolKind.IMPORTED.value,
        widget=forms.RadioSelect,
    )

    class Meta:
        model = CouponPool
        fields = ("name", "kind", "size", "last_day", "warn_below")
        labels = {"size": "How many at most", "last_day": "Good until", "warn_below": "Warn below"}
        help_texts = {
            "size": "Of signed codes. Empty: as many as are needed.",
            "last_day": "The last day on which tills take them. Empty: for ever.",
            "warn_below": "The pool is marked when it has fewer codes left.",
        }
        widgets = {
            "name": forms.TextInput({"class": "nc-input nc-wide", "placeholder": "e.g. Coffee"}),
            "size": forms.NumberInput(INPUT | {"min": 1}),
            "last_day": forms.DateInput(INPUT | {"type": "date"}, format="%Y-%m-%d"),
            "warn_below": forms.NumberInput(INPUT | {"min": 0}),
        }

    def __init__(self, *args: Any, brand: Brand, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.brand = brand
        if self.instance.pk:
            # Codes that were given away say when they end and who signed them.
            self.fields["kind"].disabled = True
            if self.instance.kind == PoolKind.SIGNED and self.instance.coupons.exists():
                self.fields["last_day"].disabled = True

    def clean_last_day(self) -> Any:
        day = self.cleaned_data["last_day"]
        if day is not None and (flaw := codes.flaw_of_last_day(day)):
            raise forms.ValidationError(flaw)
        return day

    def save(self, commit: bool = True) -> CouponPool:
        said = self.cleaned_data
        if self.instance.pk:
            kept: CouponPool = super().save()
            return kept
        return coupons.new_pool(
            self.brand, slug=slugs.free(CouponPool, self.brand, said["name"]), **said
        )


class CodesForm(forms.Form):
    """A file of codes."""

    file = forms.FileField(
        label="A list of codes",
        widget=forms.FileInput(INPUT | {"accept": ".csv,.txt,text/plain,text/csv"}),
        help_text="CSV or plain text, one code a line, as many as you like. Those that the brand "
        "has already are refused.",
    )


class _List(ChangeList):
    """The list with each pool's stock; one query counts all."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        stock = coupons.stock_of(list(self.result_list))
        for row in self.result_list:
            row.stock = stock[row.pk]


@admin.register(CouponPool)
class CouponPoolAdmin(OwnPageAdmin):
    """Pools of codes: a list that warns, and a page for each."""

    delete_role = None
    list_display = ("name", "slug", "left", "drawn", "redeemed", "last_day")
    search_fields = ("name", "slug")
    ordering = ("name",)
    empty_title = "No coupons yet"
    empty_text = (
        "A pool holds codes of which each offer gets one of its own: a list that you upload, or "
        "codes that Nearcast signs and a till can check without asking anybody."
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _List

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    @display(description="left", label={"low": "warning", "empty": "danger", "fine": "success"})
    def left(self, row: CouponPool) -> tuple[str, str]:
        return tone_of(_stock(row)), in_words(_stock(row))

    @display(description="given out")
    def drawn(self, row: CouponPool) -> str:
        stock = _stock(row)
        return f"{stock.drawn + stock.redeemed + stock.spoilt:,}"

    @display(description="redeemed")
    def redeemed(self, row: CouponPool) -> str:
        return f"{_stock(row).redeemed:,}"

    def own_page(
        self, request: HttpRequest, pool: CouponPool | None, brand: Brand, *, may_edit: bool
    ) -> HttpResponse:
        uploads = request.method == "POST" and "upload" in request.POST
        posted = request.POST if request.method == "POST" and not uploads else None
        form = PoolForm(posted, instance=pool or CouponPool(brand=brand), brand=brand)
        upload = CodesForm(request.POST, request.FILES) if uploads else CodesForm()
        if pool is not None and uploads and upload.is_valid():
            return self._queue(request, pool, upload.cleaned_data["file"])
        saved = form.save_if_valid()
        if saved is not None:
            messages.success(request, f"“{saved.name}” saved.")
            return redirect("admin:campaigns_couponpool_change", saved.pk)
        return self._page(request, pool, form, upload, may_edit=may_edit)

    def _queue(self, request: HttpRequest, pool: CouponPool, file: Any) -> HttpResponse:
        if pool.kind != PoolKind.IMPORTED:
            raise PermissionDenied
        job = CouponImport(
            pool=pool,
            file_name=file.name[-200:],
            state=BacktestState.QUEUED,
            created_by_id=request.user.pk,
        )
        job.file.save(file.name, file, save=False)
        job.save()
        messages.success(request, "The file waits for its turn; you may close this page.")
        return redirect("admin:campaigns_couponpool_change", pool.pk)

    def _page(
        self,
        request: HttpRequest,
        pool: CouponPool | None,
        form: PoolForm,
        upload: CodesForm,
        *,
        may_edit: bool,
    ) -> HttpResponse:
        imports = list(pool.imports.all()[:SHOWN_IMPORTS]) if pool else []
        stock = coupons.stock_of([pool])[pool.pk] if pool else None
        return TemplateResponse(
            request,
            "admin/campaigns/couponpool/page.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": pool,
                "title": pool.name if pool else "New pool of coupons",
                "pool": pool,
                "form": form,
                "upload": upload,
                "may_edit": may_edit,
                "may_see_key": pool is not None
                and pool.kind == PoolKind.SIGNED
                and self.allows(request, Role.ADMIN, pool),
                "takes_files": pool is not None and pool.kind == PoolKind.IMPORTED and may_edit,
                "stock": stock,
                "left": "" if stock is None else in_words(stock),
                "tone": "" if stock is None else tone_of(stock),
                "imports": imports,
                "under_way": any(job.state in UNDER_WAY for job in imports),
                "remarks": imports[0].remarks[:SHOWN_REMARKS] if imports else [],
            },
        )


def _stock(row: CouponPool) -> Stock:
    found: Stock = row.stock  # type: ignore[attr-defined] # put there by the list
    return found


def tone_of(stock: Stock) -> str:
    return "empty" if stock.left == 0 else "low" if stock.is_low else "fine"


def in_words(stock: Stock) -> str:
    if stock.left is None:
        return "as many as needed"
    return "none left" if stock.left == 0 else f"{stock.left:,} left"
