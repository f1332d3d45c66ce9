"""Whether an offer that is due still has a live campaign behind it; the outbox asks before sending.

Caps need no second look: an offer counts from the moment it is decided, at the time it is due.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from campaigns.models import Campaign, CampaignState
from notifications.gates import Hold, Stop, Subject

TEST = "test"  # sent by hand, whatever state its campaign is in
_STOPPED = {
    CampaignState.PAUSED: Stop(reason="campaign_paused"),
    CampaignState.ENDED: Stop(reason="campaign_ended"),
}


def still_live(deliveries: Sequence[Subject], *, now: datetime) -> Mapping[int, Hold | Stop]:  # noqa: ARG001 - the Gate protocol
    """Stop what belongs to a campaign that was paused or ended since (one query)."""
    stopped = dict(
        Campaign.objects.filter(
            pk__in={one.campaign_id for one in deliveries if one.moment_kind != TEST},
            state__in=list(_STOPPED),
        ).values_list("pk", "state")
    )
    return {
        one.id: _STOPPED[CampaignState(stopped[one.campaign_id])]
        for one in deliveries
        if one.campaign_id in stopped and one.moment_kind != TEST
    }
