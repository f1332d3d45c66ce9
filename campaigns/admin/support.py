"""The support desk: why did this phone get, or not get, this offer? One page answers it.

Devices, deliveries and decisions with everything that led to them; it changes nothing beyond the
named actions of `notifications.admin` and `devices.admin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import lazy
from django.utils.timezone import get_current_timezone_name, now

from brands.admin import BigListAdmin, Page
from brands.desk import current_brand
from brands.models import Brand
from campaigns import entries, lookup, reading, story, timeline, whynot, words
from campaigns.models import Campaign, Completion, Decision, Verdict
from campaigns.reasons import SENDS, Reason
from devices.admin import DeviceAdmin, map_of, place_of, trail_of
from devices.models import Device, Event, Transition
from devices.sketch import Mark
from geofences.models import Geofence
from notifications.admin import DeliveryAdmin
from notifications.models import Delivery, DeliveryState

INPUT = {"class": "nc-input"}
SPANS = {
    "hour": ("Last hour", timedelta(hours=1)),
    "day": ("Last 24 hours", timedelta(days=1)),
    "week": ("Last 7 days", timedelta(days=7)),
    "month": ("Last 30 days", timedelta(days=30)),
}
MOST_CAMPAIGNS = 500  # in a list to choose from


class SpanField(forms.ChoiceField):
    """How far back to look."""

    def __init__(self) -> None:
        super().__init__(
            required=False,
            label="When",
            choices=[("", "Any time"), *((key, title) for key, (title, _) in SPANS.items())],
            widget=forms.Select(INPUT),
        )

    def clean(self, value: str) -> datetime | None:
        chosen = super().clean(value)
        return now() - SPANS[chosen][1] if chosen else None


def _before() -> str:
    return f"Before, in {get_current_timezone_name()}"


class UntilField(forms.DateTimeField):
    """Looks at what was before an instant, in the brand's zone."""

    widget = forms.DateTimeInput(
        INPUT | {"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"
    )

    def __init__(self) -> None:
        super().__init__(required=False, label=lazy(_before, str)())


class CampaignFilters(forms.Form):
    """Filters of a list that belongs to campaigns."""

    campaign = forms.TypedChoiceField(
        required=False, coerce=int, empty_value=None, widget=forms.Select(INPUT)
    )

    def of_brand(self, brand: Brand) -> None:
        """Offer the brand's campaigns."""
        mine = Campaign.objects.filter(brand=brand).values_list("pk", "name")[:MOST_CAMPAIGNS]
        self.fields["campaign"].choices = [("", "All"), *mine]  # type: ignore[attr-defined]


class DeviceFilter(forms.Form):
    """Asks whose rows are wanted."""

    q = forms.CharField(
        required=False,
        label="Device, external id or number",
        widget=forms.TextInput(INPUT | {"placeholder": "e.g. customer-42"}),
    )


class DeliveryFilters(CampaignFilters, DeviceFilter):
    """What deliveries are looked for by."""

    state = forms.ChoiceField(
        required=False,
        choices=[("", "All"), *((s.value, s.value.title()) for s in DeliveryState)],
        widget=forms.Select(INPUT),
    )
    when = SpanField()
    until = UntilField()


class DecisionFilters(CampaignFilters, DeviceFilter):
    """What decisions are looked for by."""

    verdict = forms.ChoiceField(
        required=False,
        choices=[("", "All"), (Verdict.SEND.value, "Offer"), (Verdict.REFUSE.value, "No offer")],
        widget=forms.Select(INPUT),
    )
    reason = forms.ChoiceField(
        required=False,
        choices=[("", "All"), *((r.value, words.label(r)) for r in Reason)],
        widget=forms.Select(INPUT),
    )
    when = SpanField()
    until = UntilField()


class TimelineFilters(CampaignFilters):
    """What of a device's history to show."""

    kind = forms.ChoiceField(
        required=False,
        label="Show",
        choices=[
            ("", "Everything"),
            ("transition", "Visits"),
            ("event", "Events"),
            ("decision", "Decisions"),
            ("delivery", "Deliveries"),
        ],
        widget=forms.Select(INPUT),
    )
    verdict = forms.ChoiceField(
        required=False,
        choices=[("", "All"), (Verdict.SEND.value, "Offer"), (Verdict.REFUSE.value, "No offer")],
        widget=forms.Select(INPUT),
    )
    until = UntilField()


def _page(rows: Sequence[Any], found: lookup.Found[Any]) -> Page:
    return Page(rows=rows, older=str(found.older) if found.older else None, since=found.since)


def _equal(asked: dict[str, Any], *columns: str) -> dict[str, str]:
    return {column: asked[column] for column in columns if asked.get(column)}


@admin.register(Delivery)
class DeliveryDesk(DeliveryAdmin):
    """Deliveries, each with its whole story."""

    filter_form = DeliveryFilters
    page_template = "admin/campaigns/delivery/page.html"

    def find(
        self, request: HttpRequest, brand: Brand, asked: dict[str, Any], *, older: str | None
    ) -> Page:
        query = (asked.get("q") or "").strip()
        found: lookup.Found[Delivery] = lookup.find(
            Delivery,
            brand_id=brand.pk,
            campaign_id=asked.get("campaign"),
            device_ids=lookup.devices_named(brand.pk, query) if query else None,
            since=asked.get("when"),
            until=asked.get("until"),
            equal=_equal(asked, "state"),
            older=lookup.Place.read(older) if older else None,
            limit=self.per_page,
            now=now(),
        )
        rows = found.rows
        if query.isdecimal() and len(query) < 19 and not older:
            named = Delivery.objects.filter(pk=int(query), brand_id=brand.pk)
            rows = [*named, *(row for row in rows if row.pk != int(query))]
        for row in rows:
            row.tone = entries.STATE_TONES.get(DeliveryState(row.state), "")  # type: ignore[attr-defined]
        return _page(rows, found)

    def page(self, request: HttpRequest, delivery: Delivery) -> dict[str, Any]:
        told = story.of_one_delivery(delivery, reading.language_of(request))
        return {
            "title": f"Delivery {delivery.pk}",
            "delivery": delivery,
            "tone": entries.STATE_TONES.get(DeliveryState(delivery.state), ""),
            "state_words": entries.STATE_WORDS[DeliveryState(delivery.state)],
            "device": Device.objects.filter(pk=delivery.device_id).first(),
            "brand": current_brand(request),
            "story": told,
            "map": _map_of(told, delivery),
            "actions": self.actions_of(request, delivery),
            "reading": reading.switch(request),
        }


def _map_of(told: story.DeliveryStory, delivery: Delivery) -> dict[str, Any] | None:
    """The geofence, the trail around the visit, and where each transition was told."""
    times = [row.occurred_at for row in told.visit] or [delivery.created_at]
    marks = trail_of(
        delivery.device_id,
        since=min(times) - timedelta(minutes=30),
        until=max(times) + timedelta(minutes=30),
    )
    marks += [
        Mark(
            lat=row.lat,
            lng=row.lng,
            accuracy_m=row.accuracy_m,
            label=f"{row.kind.capitalize()}, {row.occurred_at:%H:%M:%S} UTC",
            kind=row.kind,
        )
        for row in told.visit
        if row.lat is not None and row.lng is not None
    ]
    return map_of([place_of(told.geofence)] if told.geofence else [], marks)


@admin.register(Decision)
class DecisionDesk(BigListAdmin):
    """Every verdict, in words, with the values that were seen."""

    filter_form = DecisionFilters
    list_template = "admin/campaigns/decision/list.html"
    row_template = "admin/campaigns/decision/row.html"
    page_template = "admin/campaigns/decision/page.html"
    headings = ("Verdict", "Why", "Campaign", "Device", "When")
    intro = (
        "Every campaign considered at a moment leaves a decision, the ones that stay silent too."
    )
    empty_text = "A decision appears here when a device enters, stays in or leaves a geofence."

    def find(
        self, request: HttpRequest, brand: Brand, asked: dict[str, Any], *, older: str | None
    ) -> Page:
        query = (asked.get("q") or "").strip()
        found: lookup.Found[Decision] = lookup.find(
            Decision,
            brand_id=brand.pk,
            campaign_id=asked.get("campaign"),
            device_ids=lookup.devices_named(brand.pk, query) if query else None,
            since=asked.get("when"),
            until=asked.get("until"),
            equal=_equal(asked, "verdict", "reason"),
            older=lookup.Place.read(older) if older else None,
            limit=self.per_page,
            now=now(),
        )
        names = entries.names_of(brand.pk, found.rows)
        language = reading.language_of(request)
        rows = [
            {
                "decision": row,
                "campaign": names.campaign(row.campaign_id),
                "place": names.place(row.geofence_id) if row.geofence_id else "",
                "label": words.label(row.reason),
                "message": entries.said(row, language, names.zones),
                "sends": row.reason in SENDS,
            }
            for row in found.rows
        ]
        return _page(rows, found)

    def get_urls(self) -> list[URLPattern]:
        choose = self.admin_site.admin_view(self.choose_view)
        return [path("reading/", choose, name="campaigns_reading"), *super().get_urls()]

    def choose_view(self, request: HttpRequest) -> HttpResponse:
        """Read reasons in another language from now on."""
        listed = reverse("admin:campaigns_decision_changelist")
        return reading.choose(request, request.POST.get("language", ""), fallback=listed)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        switch = {"reading": reading.switch(request)}
        return super().changelist_view(request, switch | (extra_context or {}))

    def page(self, request: HttpRequest, row: Decision) -> dict[str, Any]:
        names = entries.names_of(row.brand_id, [row])
        moment = _moment_of(row, names)
        places = Geofence.objects.filter(brand_id=row.brand_id)
        return {
            "title": f"Decision {row.pk}",
            "decision": row,
            "sends": row.reason in SENDS,
            "message": entries.said(row, reading.language_of(request), names.zones),
            "reading": reading.switch(request),
            "facts": entries.facts_of(row.trace),
            "campaign": names.campaign(row.campaign_id),
            "device": Device.objects.filter(pk=row.device_id).first(),
            "place": places.filter(pk=row.geofence_id).first() if row.geofence_id else None,
            "moment": moment,
            "delivery": Delivery.objects.filter(
                device_id=row.device_id, decision_id=row.pk, brand_id=row.brand_id
            ).first(),
        }


def _moment_of(row: Decision, names: entries.Names) -> entries.Entry | None:
    if row.moment_kind == "transition":
        transition = Transition.objects.filter(pk=row.moment_id, brand_id=row.brand_id).first()
        return entries.of_transition(transition, names) if transition else None
    if row.moment_kind == "schedule":
        return entries.of_round(row)
    if row.moment_kind == "timer":
        waited = Completion.objects.filter(pk=row.moment_id, brand_id=row.brand_id).first()
        return entries.of_wait(waited) if waited else None
    if row.moment_kind != "event":
        return None
    event = Event.objects.filter(pk=row.moment_id, brand_id=row.brand_id).first()
    return entries.of_event(event) if event else None


@admin.register(Device)
class DeviceDesk(DeviceAdmin):
    """A device with its whole history, and the answer to "why, or why not?"."""

    page_template = "admin/campaigns/device/page.html"
    timeline_entries = 40

    def page(self, request: HttpRequest, device: Device) -> dict[str, Any]:
        form = TimelineFilters(request.GET or None)
        form.of_brand(device.brand)
        asked = form.cleaned_data if form.is_bound and form.is_valid() else {}
        try:
            older = timeline.Spot.read(request.GET["older"]) if request.GET.get("older") else None
        except ValueError:
            older = None
        shown, next_spot = timeline.of_device(
            device,
            timeline.Wanted(
                kinds=frozenset({asked["kind"]}) if asked.get("kind") else frozenset(),
                campaign_id=asked.get("campaign"),
                verdict=asked.get("verdict") or "",
                until=asked.get("until"),
                older=older,
            ),
            limit=self.timeline_entries,
            language=reading.language_of(request),
        )
        query = request.GET.copy()
        query.pop("older", None)
        filtered = bool(query)
        if next_spot:
            query["older"] = str(next_spot)
        return super().page(request, device) | {
            "form": form,
            "entries": shown,
            "filtered": filtered,
            "older_url": f"?{query.urlencode()}" if next_spot else None,
            "why": self._why(request, device),
            "reading": reading.switch(request, "#why" if request.GET.get("why") else ""),
            "campaigns": list(
                Campaign.objects.filter(brand=device.brand).values("pk", "name", "state")[
                    :MOST_CAMPAIGNS
                ]
            ),
        }

    def _why(self, request: HttpRequest, device: Device) -> dict[str, Any] | None:
        """Answer "why, or why not" for the campaign asked about."""
        asked = request.GET.get("why", "")
        if not asked.isdecimal() or len(asked) > 18:
            return None
        campaign = (
            Campaign.objects.filter(pk=int(asked), brand=device.brand)
            .select_related("live_version")
            .first()
        )
        if campaign is None:
            return None
        decisions = Decision.objects.filter(
            device_id=device.pk, campaign_id=campaign.pk, brand_id=device.brand_id
        ).order_by("-decided_at", "-id")
        rows = list(decisions[:10])
        names = entries.names_of(device.brand_id, rows)
        language = reading.language_of(request)
        return {
            "campaign": campaign,
            "decisions": [
                {
                    "entry": entries.of_decision(row, names, language),
                    "sends": row.verdict == Verdict.SEND,
                    "place": names.place(row.geofence_id) if row.geofence_id else "",
                }
                for row in rows
            ],
            "causes": []
            if rows
            else whynot.in_words_of(device, campaign, now=now(), language=language),
        }
