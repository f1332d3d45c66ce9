"""The campaign builder: one page from the idea to being live, and back by versions.

Rules and words are those of `campaigns.definition`, `publishing` and `sentences`; this shows them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList as DjangoChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.timezone import now
from unfold.decorators import display
from unfold.views import ChangeList

from brands.admin import BrandScopedAdmin
from brands.desk import current_brand, rights, zone_of
from brands.models import Brand, Role
from brands.overtaking import in_words
from brands.templatetags.nearcast import when
from campaigns import estimates, forms, lacks, publishing, sentences, suggesting, trials
from campaigns.admin.backtests import BacktestPages
from campaigns.admin.life import LifePages, actor_of, steps_of
from campaigns.admin.naming import names_of, places_in
from campaigns.admin.phones import shown_phones
from campaigns.admin.results import ResultPages, lately
from campaigns.conditions import AudienceError
from campaigns.definition import Definition, DefinitionError, readable
from campaigns.models import Campaign, CampaignState, CampaignVersion
from geofences.models import Geofence

STATE_TONES = {"Live": "success", "Paused": "warning", "Ended": "", "Draft": "info"}
MOST_PLACES = 30  # shown for one search
MOST_SHAPES = 500  # drawn on the builder's map


class _List(ChangeList):
    """The list with each campaign in words; one query names every place."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        brand = current_brand(request)
        if brand is None:
            return
        drafts = {row.pk: readable(row.draft) for row in self.result_list}
        names = names_of(brand, drafts.values())
        came = lately(list(drafts), brand)
        for row in self.result_list:
            row.sentence = sentences.sentence(drafts[row.pk], names)
            row.lately = came.get(row.pk, "–")


@admin.register(Campaign)
class CampaignAdmin(LifePages, BacktestPages, ResultPages, BrandScopedAdmin):
    """Campaigns: a list in words, and the builder."""

    list_display = ("name", "state_in_words", "in_words", "came", "changed")
    list_filter = ("state",)
    search_fields = ("name",)
    list_per_page = 50
    ordering = ("-updated_at",)
    empty_title = "No campaign yet"
    empty_text = (
        "A campaign says who gets what, and where: “When anybody enters a shop, send …”. "
        "It stays a draft until you publish it."
    )

    @display(description="state", ordering="state", label=STATE_TONES)
    def state_in_words(self, row: Campaign) -> str:
        return row.get_state_display()

    @display(description="last change", ordering="updated_at")
    def changed(self, row: Campaign) -> str:
        return when(row.updated_at)

    @display(description="what it does")
    def in_words(self, row: Campaign) -> str:
        return getattr(row, "sentence", "")

    @display(description="last 30 days")
    def came(self, row: Campaign) -> str:
        return getattr(row, "lately", "–")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[DjangoChangeList]:
        return _List

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # What was ever live has decisions and deliveries that speak of it: it is ended instead.
        was_live = obj is not None and obj.live_version_id is not None
        return super().has_delete_permission(request, obj) and not was_live

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        steps: dict[str, Callable[..., HttpResponse]] = {
            "pause": self.pause_view,
            "resume": self.resume_view,
            "end": self.end_view,
            "duplicate": self.duplicate_view,
            "versions": self.versions_view,
            "test": self.test_view,
            "results": self.results_view,
            "results.csv": self.results_csv_view,
            "backtest": self.backtest_view,
            "backtest_progress": self.backtest_progress_view,
        }
        return [
            path("preview/", wrap(self.preview_view), name="campaigns_campaign_preview"),
            path("places/", wrap(self.places_view), name="campaigns_campaign_places"),
            path("shapes/", wrap(self.shapes_view), name="campaigns_campaign_shapes"),
            *(
                path(
                    f"<path:object_id>/{name}" + ("" if "." in name else "/"),
                    wrap(view),
                    name=f"campaigns_campaign_{name.replace('.', '_')}",
                )
                for name, view in steps.items()
            ),
            path(
                "<path:object_id>/roll-back/<int:number>/",
                wrap(self.roll_back_view),
                name="campaigns_campaign_roll_back",
            ),
            *super().get_urls(),
        ]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        campaign: Campaign | None = None
        if object_id is not None:
            found = self.object_or_redirect(request, object_id)
            if isinstance(found, HttpResponseRedirect):
                return found
            campaign = found
            if not self.has_view_permission(request, campaign):
                raise PermissionDenied
        brand = campaign.brand if campaign else self._brand_to_add(request)
        may_edit = self.allows(request, Role.MARKETER, campaign)
        draft = campaign.draft if campaign else {}
        if request.method != "POST":
            initial = forms.initial_of(readable(draft), name=campaign.name if campaign else "")
            form = forms.CampaignForm(brand=brand, base=draft, initial=initial)
            mark = publishing.mark_of(campaign) if campaign else ""
            return self._page(request, brand, campaign, form, may_edit=may_edit, mark=mark)
        if not may_edit:
            raise PermissionDenied
        form = forms.CampaignForm(request.POST, brand=brand, base=draft)
        saved, mark = self._save(request, brand, campaign, form)
        if saved is None:
            return self._page(request, brand, campaign, form, may_edit=True, mark=mark)
        if "publish" not in request.POST:
            messages.success(request, self._saved(saved))
            return redirect("admin:campaigns_campaign_change", saved.pk)
        try:
            version = publishing.publish(saved, actor=actor_of(request), now=now())
        except publishing.NotPublishableError as error:
            form.blame(_by_field(error.missing))
            messages.warning(request, "Saved as a draft. Before it goes live, look at the marks.")
            return self._page(request, brand, saved, form, may_edit=True, mark=mark)
        except publishing.WrongStateError as error:
            messages.error(request, str(error))
            return redirect("admin:campaigns_campaign_change", saved.pk)
        messages.success(request, f"“{version.name}” is live, as version {version.number}.")
        return redirect("admin:campaigns_campaign_change", saved.pk)

    def _brand_to_add(self, request: HttpRequest) -> Brand:
        """The brand the page was opened for, though another tab has moved to another since."""
        brand = current_brand(request)
        if request.method == "POST":
            named = request.POST.get("brand", "")
            brand = (
                rights(request).brands(Role.MARKETER).filter(pk=int(named)).first()
                if named.isdecimal() and len(named) < 19
                else None
            )
        if brand is None or not rights(request).may(Role.MARKETER, brand.pk):
            raise PermissionDenied
        return brand

    @staticmethod
    def _saved(campaign: Campaign) -> str:
        if campaign.state in {CampaignState.LIVE, CampaignState.PAUSED}:
            return "Draft saved. What is live has not changed: publish to replace it."
        return "Draft saved."

    def _save(
        self,
        request: HttpRequest,
        brand: Brand,
        campaign: Campaign | None,
        form: forms.CampaignForm,
    ) -> tuple[Campaign | None, str]:
        """Keep the draft, and answer the mark of the one that whoever saves has seen last.

        None, with the form saying why, where it is malformed.
        """
        opened = request.POST.get("mark", "")
        if not form.is_valid():
            return None, opened
        name, raw = form.cleaned_data["name"], form.raw()
        try:
            if campaign is None:
                saved = publishing.create(brand=brand, name=name, raw=raw, actor=actor_of(request))
            else:
                saved = publishing.edit(
                    campaign, name=name, raw=raw, actor=actor_of(request), mark=opened or None
                )
        except DefinitionError as error:
            form.blame(error.fields)
            return None, opened
        except publishing.ChangedMeanwhileError:
            assert campaign is not None
            campaign.refresh_from_db()
            form.add_error(None, _overtaken(campaign))
            return None, publishing.mark_of(campaign)
        return saved, publishing.mark_of(saved)

    def _page(
        self,
        request: HttpRequest,
        brand: Brand,
        campaign: Campaign | None,
        form: forms.CampaignForm,
        *,
        may_edit: bool,
        mark: str,
    ) -> HttpResponse:
        raw = form.raw() if form.is_bound and form.is_valid() else None
        draft = raw if raw is not None else (campaign.draft if campaign else {})
        wanted = readable(draft)
        live = campaign.live_version if campaign else None
        shown = [_json_of(form[name]) for name in ("places", "steps", "unless")]
        checklist = _checklist(brand, draft)
        if not may_edit:
            for field in form.fields.values():
                field.disabled = True
        return TemplateResponse(
            request,
            "admin/campaigns/campaign/builder.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": campaign,
                "title": campaign.name if campaign else "New campaign",
                "brand": brand,
                "zone": zone_of(brand),
                "campaign": campaign,
                "mark": mark,
                "form": form,
                "may_edit": may_edit,
                "sentence": sentences.sentence(wanted, names_of(brand, [wanted])),
                "audience_size": _size(brand, wanted),
                "checklist": checklist,
                "ready": not any(one["level"] == "error" for one in checklist),
                "phones": shown_phones(brand, wanted, form["name"].value() or "", request.POST),
                "variants": [one.name for one in wanted.variants],
                "live": live,
                "changed": live is not None and campaign is not None and _differs(live, campaign),
                "steps": steps_of(campaign) if campaign and may_edit else [],
                "deletable": campaign is not None and self.has_delete_permission(request, campaign),
                "data": {
                    "preview": reverse("admin:campaigns_campaign_preview")
                    + (f"?campaign={campaign.pk}" if campaign else ""),
                    "places": reverse("admin:campaigns_campaign_places") + f"?brand={brand.pk}",
                    "shapes": reverse("admin:campaigns_campaign_shapes") + f"?brand={brand.pk}",
                    "named": _named(brand, shown),
                    "readonly": not may_edit,
                    "fresh": campaign is None,
                    "test": reverse("admin:campaigns_campaign_test", args=[campaign.pk])
                    if campaign
                    else "",
                },
            },
        )

    def _brand_asked(self, request: HttpRequest, given: Mapping[str, Any]) -> Brand:
        """The brand that a script of the builder asks for; 404 where it is not one's own."""
        named = str(given.get("brand", ""))
        brand = (
            rights(request).brands(self.view_role).filter(pk=int(named)).first()
            if named.isdecimal() and len(named) < 19
            else None
        )
        if brand is None:
            raise Http404
        return brand

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Answer what the form, as it stands, would be: in words, and on phones."""
        if request.method != "POST":
            raise Http404
        brand = self._brand_asked(request, request.POST)
        named = request.GET.get("campaign", "")
        campaign = (
            Campaign.objects.filter(brand=brand, pk=int(named)).first()
            if named.isdecimal() and len(named) < 19
            else None
        )
        form = forms.CampaignForm(
            request.POST, brand=brand, base=campaign.draft if campaign else None
        )
        form.fields["name"].required = False
        problems: list[dict[str, str]] = []
        raw: dict[str, Any] = {}
        if form.is_valid():
            raw = form.raw()
            problems = _checklist(brand, raw)
        else:
            problems = [
                {"field": name, "text": str(text), "level": "error"}
                for name, texts in form.errors.items()
                for text in texts
            ]
        wanted = readable(raw)
        phones = shown_phones(brand, wanted, form.data.get("name", ""), request.POST)
        return JsonResponse(
            {
                "sentence": sentences.sentence(wanted, names_of(brand, [wanted])) if raw else "",
                "checklist": problems,
                "phones": render_to_string("admin/campaigns/campaign/phones.html", phones),
                "audience": _size(brand, wanted),
            }
        )

    def places_view(self, request: HttpRequest) -> HttpResponse:
        """Answer geofences and tags that fit what is typed."""
        brand = self._brand_asked(request, request.GET)
        text = request.GET.get("q", "").strip()[:100]
        rows = Geofence.objects.present().filter(brand=brand)
        if text:
            rows = rows.filter(name__icontains=text) | rows.filter(external_id=text)
        found = rows.order_by("name").only("pk", "name", "tags", "external_id")[:MOST_PLACES]
        return JsonResponse(
            {
                "places": [
                    {"key": row.pk, "name": row.name, "tags": row.tags, "id": row.pk}
                    for row in found
                ],
                "tags": suggesting.tags_of(brand, text, 12),
            }
        )

    def shapes_view(self, request: HttpRequest) -> HttpResponse:
        """Answer the chosen places as GeoJSON, for the map."""
        brand = self._brand_asked(request, request.GET)
        ids = [int(one) for one in request.GET.getlist("id") if one.isdecimal() and len(one) < 19]
        mine = Geofence.objects.present().filter(brand=brand)
        rows = mine.filter(pk__in=ids) | mine.filter(tags__overlap=request.GET.getlist("tag"))
        return JsonResponse(
            {
                "type": "FeatureCollection",
                "features": [
                    {
                        "type": "Feature",
                        "id": row.pk,
                        "geometry": _geojson(row),
                        "properties": {"name": row.name, "radius_m": row.radius_m},
                    }
                    for row in rows.order_by("pk")[:MOST_SHAPES]
                ],
            }
        )

    def test_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send the form, as it stands, to one device; answer where to watch it."""
        campaign = self._own(request, object_id, Role.MARKETER)
        if request.method != "POST":
            raise Http404
        form = forms.CampaignForm(request.POST, brand=campaign.brand, base=campaign.draft)
        if not form.is_valid():
            return JsonResponse({"problem": "Some things need another look first."}, status=422)
        try:
            sent = trials.send(
                campaign,
                form.raw(),
                device=request.POST.get("preview_device", ""),
                place=request.POST.get("preview_place", ""),
                variant=request.POST.get("preview_variant", ""),
                actor=actor_of(request),
                now=now(),
            )
        except trials.TrialError as error:
            return JsonResponse({"problem": str(error)}, status=422)
        return JsonResponse({"url": reverse("admin:notifications_delivery_change", args=[sent])})


def _overtaken(campaign: Campaign) -> SafeString:
    last = campaign.log.select_related("actor").first()
    who = last.actor.get_username() if last and last.actor else "The back office"
    return in_words(campaign, who=who)


def _size(brand: Brand, wanted: Definition) -> str:
    """How many the audience holds, in words; nothing where that cannot be said."""
    try:
        return str(estimates.estimate(brand.pk, wanted.audience, now=now()))
    except AudienceError:
        return ""


def _by_field(missing: Iterable[lacks.Missing]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in missing:
        found.setdefault(one.field, []).append(one.message)
    return found


def _checklist(brand: Brand, raw: Mapping[str, Any]) -> list[dict[str, str]]:
    """What stops a draft from going live, then what may surprise whoever publishes it."""
    at = now()
    errors = forms.checklist(publishing.check(brand.pk, raw, now=at))
    warnings = forms.checklist(publishing.warnings(brand.pk, raw, name="", now=at))
    return [
        *({**one, "level": "error"} for one in errors),
        *({**one, "level": "warning"} for one in warnings),
    ]


def _json_of(bound: Any) -> Any:
    """The value of a JSON field as it was sent; nothing where it cannot be read."""
    try:
        return bound.field.to_python(bound.value())
    except ValidationError:
        return None


def _named(brand: Brand, shown: Any) -> list[dict[str, Any]]:
    """Names of the places chosen anywhere in the form, for the chips; the gone say so."""
    keys = list(dict.fromkeys(places_in(shown)))
    known = suggesting.places_named(brand, keys)
    return [
        {
            "key": key,
            "name": known[key].name if key in known else f"{key} (gone)",
            "id": known[key].pk if key in known else None,
        }
        for key in keys
    ]


def _differs(live: CampaignVersion, campaign: Campaign) -> bool:
    # As values: what spells out a default says the same as what leaves it out.
    return (readable(live.definition), live.name) != (readable(campaign.draft), campaign.name)


def _geojson(place: Geofence) -> Any:
    return json.loads(place.geometry.json)
