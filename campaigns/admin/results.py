"""The page of a campaign's results: what it was worth, how it went, and both as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.timezone import now

from brands.desk import zone_of
from brands.models import Brand, Role
from brands.patience import TookTooLongError, patience
from brands.tables import csv_answer
from campaigns import words
from campaigns.admin.worth import percent, shown_results
from campaigns.course import Came, Period, by_day_and_place, course, of_each
from campaigns.models import Campaign

SPANS = {7: "the last 7 days", 30: "the last 30 days", 90: "the last 90 days", 365: "a year"}
USUAL = 30
LIMIT_MS = 5_000  # a page that counts millions of offers must come, too
LIST_LIMIT_MS = 1_000
COLUMNS = (
    *("day", "geofence_id", "geofence", "variant"),
    *("offers", "sent", "received", "opened", "redeemed"),
)


class PeriodForm(forms.Form):
    """How far back the page looks."""

    days = forms.TypedChoiceField(
        coerce=int,
        choices=list(SPANS.items()),
        label="Look at",
        widget=forms.Select({"class": "nc-input", "onchange": "this.form.submit()"}),
    )


class ResultPages:
    """Pages of the campaign admin; `_own` says whose campaign it is, and who may look."""

    admin_site: Any
    opts: Any
    view_role: Role

    def results_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What the campaign was worth, and how it went of late."""
        campaign, period, form = self._asked(request, object_id)
        return TemplateResponse(
            request,
            "admin/campaigns/campaign/results.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": campaign,
                "title": f"Results of {campaign.name}",
                **shown_results(campaign),
                **_shown_course(campaign, period),
                "form": form,
            },
        )

    def results_csv_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The same by day, place and variant, for a spreadsheet."""
        campaign, period, _ = self._asked(request, object_id)
        name = f"results-{campaign.pk}-{period.first}-{period.last}"
        return csv_answer(name, COLUMNS, by_day_and_place(campaign, period))

    def _asked(self, request: HttpRequest, object_id: str) -> tuple[Campaign, Period, PeriodForm]:
        campaign: Campaign = self._own(request, object_id, self.view_role)  # type: ignore[attr-defined]
        form = PeriodForm({"days": request.GET.get("days", str(USUAL))})
        days = form.cleaned_data["days"] if form.is_valid() else USUAL
        return campaign, Period.of_late(days, zone_of(campaign.brand), now=now()), form


def lately(campaign_ids: Sequence[int], brand: Brand) -> dict[int, str]:
    """What came of campaigns in the usual time, in words, for a list of them."""
    period = Period.of_late(USUAL, zone_of(brand), now=now())
    try:
        with patience(LIST_LIMIT_MS):
            found = of_each(campaign_ids, period)
    except TookTooLongError:
        return {}
    return {
        campaign_id: f"{came.sent:,} sent, {percent(came.opened, came.sent)} opened"
        for campaign_id, came in found.items()
        if came.sent
    }


def _shown_course(campaign: Campaign, period: Period) -> dict[str, Any]:
    try:
        with patience(LIMIT_MS):
            found = course(campaign, period)
    except TookTooLongError:
        return {"too_much": True}
    return {
        "period": period,
        "funnel": _funnel(found.whole),
        "days": [came.sent for came in found.days.values()],
        "day_labels": [
            f"{day:%a %d %b}, opened {came.opened:,}, redeemed {came.redeemed:,}, sent"
            for day, came in found.days.items()
        ],
        "went_by_place": [
            {"id": key, "name": name, "came": came, "opened": percent(came.opened, came.sent)}
            for key, name, came in found.places
        ],
        "more_places": found.more_places,
        "silences": [
            {"reason": reason, "label": words.label(reason), "times": times}
            for reason, times in found.silences
        ],
    }


def _funnel(whole: Came) -> list[dict[str, Any]]:
    """Each step with its share of what was sent."""
    return [
        {"name": "Sent", "count": whole.sent, "share": f"of {whole.offers:,} made"},
        *(
            {"name": name, "count": count, "share": f"{percent(count, whole.sent)} of those sent"}
            for name, count in (
                ("Received", whole.received),
                ("Opened", whole.opened),
                ("Redeemed", whole.redeemed),
            )
        ),
    ]
