"""What notifications hold about a device: for its export and its erasure."""

from __future__ import annotations

from devices.holdings import Holding
from notifications import outbox

HOLDINGS = (
    Holding(
        name="deliveries",
        rows="""
            SELECT d.id, d.device_id, d.state, d.reason, d.channel, d.content, d.created_at,
                   d.due_at, d.expires_at, d.sent_at, d.geofence_id, d.variant,
                   jsonb_build_object('id', d.campaign_id, 'name', d.campaign_name) AS campaign,
                   (SELECT coalesce(
                             jsonb_agg(jsonb_build_object(
                               'at', a.at, 'outcome', a.outcome, 'error', a.error
                             ) ORDER BY a.id), '[]')
                      FROM notifications_attempt a WHERE a.delivery_id = d.id) AS attempts
              FROM notifications_delivery d WHERE d.device_id = %(device_id)s ORDER BY d.id
        """,
        # In this order: what hangs on a delivery goes before it.
        erase=(
            *(
                f"DELETE FROM notifications_{table} WHERE delivery_id IN"  # noqa: S608 - constants
                " (SELECT id FROM notifications_delivery WHERE device_id = %(device_id)s)"
                for table in ("attempt", "feedback", "deliveryactionlog")
            ),
            "DELETE FROM notifications_delivery WHERE device_id = %(device_id)s",
        ),
        settle=outbox.withdraw_all,
    ),
    Holding(
        name="feedback",
        rows="""
            SELECT f.delivery_id, f.event, f.occurred_at, f.received_at
              FROM notifications_feedback f JOIN notifications_delivery d ON d.id = f.delivery_id
             WHERE d.device_id = %(device_id)s ORDER BY f.id
        """,
        erase=(),
    ),
)
