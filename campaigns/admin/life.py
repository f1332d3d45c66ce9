"""The life of a campaign on its pages: paused, resumed, ended, copied, and back by versions.

What a step means is `campaigns.publishing`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.timezone import now

from brands.models import Role
from campaigns import publishing, sentences
from campaigns.admin.naming import names_of
from campaigns.definition import readable
from campaigns.differences import differences
from campaigns.models import Campaign, CampaignState


def actor_of(request: HttpRequest) -> User:
    user = request.user
    assert isinstance(user, User), "the admin lets nobody else in"
    return user


class LifePages:
    """Pages of the campaign admin that lead from one state to the next."""

    admin_site: Any
    opts: Any
    view_role: Role
    get_object: Callable[..., Any]
    allows: Callable[..., bool]

    def _own(self, request: HttpRequest, object_id: str, role: Role) -> Campaign:
        campaign = self.get_object(request, object_id)
        if campaign is None:
            raise Http404
        if not self.allows(request, role, campaign):
            raise PermissionDenied
        return campaign  # type: ignore[no-any-return]

    def _try(
        self, request: HttpRequest, campaign: Campaign, step: Callable[[], Any], done: str
    ) -> HttpResponse:
        """Take one step in a campaign's life and say how it went."""
        try:
            step()
            messages.success(request, done)
        except (publishing.WrongStateError, publishing.NotPublishableError) as error:
            messages.error(request, str(error))
        return redirect("admin:campaigns_campaign_change", campaign.pk)

    def _ask(
        self, request: HttpRequest, campaign: Campaign, *, title: str, text: str, button: str
    ) -> HttpResponse:
        return TemplateResponse(
            request,
            "admin/nearcast/confirm.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": campaign,
                "title": title,
                "text": text,
                "button": button,
                "back_url": reverse("admin:campaigns_campaign_change", args=[campaign.pk]),
            },
        )

    def pause_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Stop at once."""
        campaign = self._own(request, object_id, Role.MARKETER)
        if request.method != "POST":
            return redirect("admin:campaigns_campaign_change", campaign.pk)
        return self._try(
            request,
            campaign,
            lambda: publishing.pause(campaign, actor=actor_of(request)),
            "Paused: it sends nothing until you resume it.",
        )

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Go on with the live version."""
        campaign = self._own(request, object_id, Role.MARKETER)
        if request.method != "POST":
            return redirect("admin:campaigns_campaign_change", campaign.pk)
        return self._try(
            request,
            campaign,
            lambda: publishing.resume(campaign, actor=actor_of(request), now=now()),
            "It runs again.",
        )

    def end_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then stop for good."""
        campaign = self._own(request, object_id, Role.MARKETER)
        if request.method != "POST":
            return self._ask(
                request,
                campaign,
                title=f"End “{campaign.name}”?",
                text="It stops at once and for good. Its decisions and deliveries stay, and you "
                "can duplicate it into a new campaign. To stop for a while, pause it instead.",
                button="End the campaign",
            )
        return self._try(
            request,
            campaign,
            lambda: publishing.end(campaign, actor=actor_of(request)),
            "Ended. Duplicate it to run it again.",
        )

    def duplicate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make a new draft of the same content."""
        campaign = self._own(request, object_id, Role.MARKETER)
        if request.method != "POST":
            return redirect("admin:campaigns_campaign_change", campaign.pk)
        copy = publishing.create(
            brand=campaign.brand,
            name=f"{campaign.name[:190]} (copy)",
            raw=campaign.draft,
            actor=actor_of(request),
        )
        messages.success(request, "This is the copy: a draft of its own.")
        return redirect("admin:campaigns_campaign_change", copy.pk)

    def versions_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Every version, what each changed, and who did what when."""
        campaign = self._own(request, object_id, self.view_role)
        versions = list(campaign.versions.select_related("published_by"))
        stored = [readable(campaign.draft), *(readable(version.definition) for version in versions)]
        names = names_of(campaign.brand, stored)
        return TemplateResponse(
            request,
            "admin/campaigns/campaign/versions.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": campaign,
                "title": f"Versions of {campaign.name}",
                "campaign": campaign,
                "may_edit": self.allows(request, Role.MARKETER, campaign),
                "draft_changes": differences(stored[1], stored[0], names) if versions else [],
                "versions": [
                    {
                        "version": version,
                        "is_live": version.pk == campaign.live_version_id,
                        "changes": differences(stored[number + 2], stored[number + 1], names)
                        if number + 1 < len(versions)
                        else [],
                        "first": number + 1 == len(versions),
                        "sentence": sentences.sentence(stored[number + 1], names),
                    }
                    for number, version in enumerate(versions)
                ],
                "log": list(campaign.log.select_related("actor")[:50]),
            },
        )

    def roll_back_view(self, request: HttpRequest, object_id: str, number: int) -> HttpResponse:
        """Ask, then make a former version live again."""
        campaign = self._own(request, object_id, Role.MARKETER)
        version = campaign.versions.filter(number=number).first()
        if version is None:
            raise Http404
        if request.method != "POST":
            return self._ask(
                request,
                campaign,
                title=f"Make version {number} live again?",
                text=f"It goes live at once as a new version, and your draft becomes what it said: "
                f"“{version.name}”. The version that is live now stays in the list.",
                button=f"Make version {number} live",
            )
        return self._try(
            request,
            campaign,
            lambda: publishing.roll_back(
                campaign, number=number, actor=actor_of(request), now=now()
            ),
            f"Version {number} is live again.",
        )


def steps_of(campaign: Campaign) -> list[dict[str, str]]:
    """The buttons that a campaign's state has; `method` is how they are pressed."""
    steps = {
        CampaignState.LIVE: [("pause", "Pause", "post"), ("end", "End…", "get")],
        CampaignState.PAUSED: [("resume", "Resume", "post"), ("end", "End…", "get")],
    }.get(CampaignState(campaign.state), [])
    return [
        {
            "name": name,
            "title": title,
            "method": method,
            "url": reverse(f"admin:campaigns_campaign_{name}", args=[campaign.pk]),
        }
        for name, title, method in [*steps, ("duplicate", "Duplicate", "post")]
    ]
