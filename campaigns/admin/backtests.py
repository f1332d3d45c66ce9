"""A campaign tried on the past, on a page: asked for, watched, read beside what is live.

The trial itself is `campaigns.backtests`'; a page queues it and reads its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Role
from campaigns import backtests, publishing, words
from campaigns.backtest import Outcome, Report
from campaigns.models import Backtest, BacktestState, Campaign

SPANS = {1: "the last day", 7: "the last 7 days", 30: "the last 30 days", 90: "the last 90 days"}
SHOWN_PLACES = 25
OVERDUE = timedelta(seconds=20)


class SpanForm(forms.Form):
    """Which past."""

    days = forms.TypedChoiceField(
        coerce=int,
        choices=list(SPANS.items()),
        initial=7,
        label="Try it on",
        widget=forms.Select({"class": "nc-input"}),
    )


class BacktestPages:
    """Pages of the campaign admin; `_own` says whose campaign it is, and who may ask."""

    admin_site: Any
    opts: Any
    view_role: Role

    def backtest_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for a trial of the draft, and read the newest one."""
        asks = request.method == "POST"
        campaign: Campaign = self._own(  # type: ignore[attr-defined]
            request, object_id, Role.MARKETER if asks else self.view_role
        )
        form = SpanForm(request.POST if asks else None)
        if asks and form.is_valid():
            return self._ask_for(request, campaign, form.cleaned_data["days"])
        job = campaign.backtests.select_related("asked_by").first()
        lacking = [
            one for one in publishing.missing(campaign, now=now()) if one.code != "in_the_past"
        ]
        return TemplateResponse(
            request,
            "admin/campaigns/campaign/backtest.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": campaign,
                "title": f"{campaign.name}, tried on the past",
                "campaign": campaign,
                "form": form,
                "job": job,
                "lacking": lacking,
                "may_ask": self.allows(request, Role.MARKETER, campaign),  # type: ignore[attr-defined]
                "under_way": job is not None and _under_way(job),
                "found": found(job) if job and job.state == BacktestState.DONE else None,
                "progress_url": reverse(
                    "admin:campaigns_campaign_backtest_progress", args=[campaign.pk]
                ),
            },
        )

    def _ask_for(self, request: HttpRequest, campaign: Campaign, days: int) -> HttpResponse:
        lacking = publishing.missing(campaign, now=now())
        newest = campaign.backtests.first()
        if any(one.code != "in_the_past" for one in lacking):
            messages.error(request, "The draft lacks something; look at the campaign first.")
        elif newest is None or not _under_way(newest):
            until = now()
            actor: Any = request.user
            backtests.ask(campaign, since=until - timedelta(days=days), until=until, actor=actor)
        return redirect("admin:campaigns_campaign_backtest", campaign.pk)

    def backtest_progress_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Answer how far the newest trial is."""
        campaign: Campaign = self._own(request, object_id, self.view_role)  # type: ignore[attr-defined]
        job = campaign.backtests.first()
        if job is None:
            raise PermissionDenied
        waits = job.state == BacktestState.QUEUED
        return JsonResponse(
            {
                "under_way": _under_way(job),
                "progress": job.progress,
                "overdue": waits and now() - job.asked_at > OVERDUE,
            }
        )


def _under_way(job: Backtest) -> bool:
    return job.state in {BacktestState.QUEUED, BacktestState.RUNNING}


def found(job: Backtest) -> dict[str, Any]:
    """What the page shows of a trial that is done."""
    outcome = msgspec.convert(job.report, Outcome)
    draft, live = outcome.draft, outcome.live
    reasons = {**draft.refusals, **(live.refusals if live else {})}
    live_places = {place.id: place for place in live.places} if live else {}
    most = max([*draft.per_day.values(), *(live.per_day.values() if live else ()), 1])
    days = sorted({*draft.per_day, *(live.per_day if live else {})})
    return {
        "outcome": outcome,
        "figures": [
            ("offers", *_pair(draft, live, "offers")),
            ("devices reached", *_pair(draft, live, "devices_reached")),
            ("moments considered", *_pair(draft, live, "considered")),
            *([("spent", *_pair(draft, live, "money"))] if draft.money else []),
        ],
        "days": [
            {
                "day": day,
                "draft": draft.per_day.get(day, 0),
                "live": live.per_day.get(day, 0) if live else None,
                "share": round(100 * draft.per_day.get(day, 0) / most),
                "live_share": round(100 * live.per_day.get(day, 0) / most) if live else 0,
            }
            for day in days
        ],
        "refusals": [
            {
                "label": words.label(reason),
                "draft": draft.refusals.get(reason, 0),
                "live": _of(live.refusals, reason) if live else None,
            }
            for reason in sorted(reasons, key=lambda one: -draft.refusals.get(one, 0))
        ],
        "places": [
            {
                "place": place,
                "live": live_places[place.id].offers if place.id in live_places else 0,
            }
            for place in draft.places[:SHOWN_PLACES]
        ],
        "more": max(0, len(draft.places) - SHOWN_PLACES),
    }


def _of(counts: Mapping[str, int], name: str) -> int:
    return counts.get(name, 0)


def _pair(draft: Report, live: Report | None, name: str) -> tuple[int, int | None, int | None]:
    """The draft's figure, the live version's, and the difference."""
    mine: int = getattr(draft, name)
    theirs: int | None = None if live is None else getattr(live, name)
    return mine, theirs, None if theirs is None else mine - theirs
