"""Support's view of deliveries: found, read, sent again or cancelled; never edited.

`campaigns.admin` registers it, with the moment and the decision behind a delivery.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.timezone import now

from brands.admin import BigListAdmin
from brands.models import Role
from notifications import outbox
from notifications.models import Delivery, DeliveryAction, DeliveryState

# A test is made on its campaign's page.
ACTIONS = (DeliveryAction.RESEND, DeliveryAction.CANCEL)
ON_ITS_WAY = frozenset({DeliveryState.PENDING, DeliveryState.SENDING})


class ActionForm(forms.Form):
    """Why staff does it: kept in the delivery's log."""

    note = forms.CharField(
        required=False,
        max_length=400,
        label="Why?",
        help_text="Kept with your name in the delivery's story.",
        widget=forms.Textarea({"class": "nc-input nc-wide", "rows": 3}),
    )


class DeliveryAdmin(BigListAdmin):
    """Deliveries of the brand: two named actions, both logged, and nothing else to change."""

    row_template = "admin/notifications/delivery/row.html"
    headings = ("Offer", "Device", "State", "Campaign", "When")
    empty_text = "An offer appears here when a campaign has decided to send one."
    action_role = Role.SUPPORT

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path(
                f"<path:object_id>/{action.value}/",
                wrap(self.action_view),
                {"action": action},
                name=f"notifications_delivery_{action.value}",
            )
            for action in ACTIONS
        ] + list(super().get_urls())

    def actions_of(self, request: HttpRequest, delivery: Delivery) -> list[DeliveryAction]:
        """Return what this person may do with the delivery as it stands."""
        if not self.allows(request, self.action_role, delivery):
            return []
        state = DeliveryState(delivery.state)
        return [
            *([DeliveryAction.RESEND] if state not in ON_ITS_WAY else []),
            *([DeliveryAction.CANCEL] if state is DeliveryState.PENDING else []),
        ]

    def action_view(
        self, request: HttpRequest, object_id: str, action: DeliveryAction
    ) -> HttpResponse:
        """Ask, then resend or cancel, in the name of the person who asked."""
        delivery = self.object_or_redirect(request, object_id)
        if isinstance(delivery, HttpResponseRedirect):
            return delivery
        if not self.allows(request, self.action_role, delivery):
            raise PermissionDenied
        back_url = reverse("admin:notifications_delivery_change", args=[delivery.pk])
        form = ActionForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            act = outbox.resend if action is DeliveryAction.RESEND else outbox.cancel
            done = act(
                delivery.pk, actor_id=request.user.pk, note=form.cleaned_data["note"], now=now()
            )
            self._tell(request, action, done=done)
            return redirect(back_url)
        return TemplateResponse(
            request,
            "admin/nearcast/confirm.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "original": delivery,
                "form": form,
                "back_url": back_url,
                **_QUESTIONS[action],
            },
        )

    @staticmethod
    def _tell(request: HttpRequest, action: DeliveryAction, *, done: bool) -> None:
        if done:
            messages.success(request, _DONE[action])
        else:
            messages.warning(request, _TOO_LATE[action])


_DONE = {
    DeliveryAction.RESEND: "It is due again; consent, hours and place still count.",
    DeliveryAction.CANCEL: "Cancelled: it will not be sent.",
}
_TOO_LATE = {
    DeliveryAction.RESEND: "Nothing to do: it is already on its way.",
    DeliveryAction.CANCEL: "Too late: it is on its way, or over.",
}
_QUESTIONS: dict[DeliveryAction, dict[str, Any]] = {
    DeliveryAction.RESEND: {
        "title": "Send this offer again?",
        "text": "It is owed to the phone once more and passes every gate again: consent, quiet "
        "hours, still inside where the campaign asks for it. The phone replaces the earlier "
        "notification if it still shows it.",
        "button": "Send it again",
        "button_class": "nc-go",
    },
    DeliveryAction.CANCEL: {
        "title": "Cancel this offer?",
        "text": "It is withdrawn before it goes out. The person will not hear of it.",
        "button": "Cancel the offer",
    },
}
