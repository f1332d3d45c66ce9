"""What campaigns hold about a device: for its export and its erasure."""

from __future__ import annotations

from devices.holdings import Holding

HOLDINGS = (
    Holding(
        name="decisions",
        rows="""
            SELECT d.id, d.device_id, d.verdict, d.reason, d.trace, d.decided_at, d.geofence_id,
                   jsonb_build_object('id', d.campaign_id, 'name', c.name) AS campaign,
                   jsonb_build_object('kind', d.moment_kind, 'id', d.moment_id) AS moment
              FROM campaigns_decision d LEFT JOIN campaigns_campaign c ON c.id = d.campaign_id
             WHERE d.device_id = %(device_id)s ORDER BY d.id
        """,
        erase=("DELETE FROM campaigns_decision WHERE device_id = %(device_id)s",),
    ),
    Holding(
        name="completions",
        rows="""
            SELECT c.id, c.campaign_id, c.first_at, c.completed_at, c.due_at, c.called_off
              FROM campaigns_completion c WHERE c.device_id = %(device_id)s ORDER BY c.id
        """,
        erase=("DELETE FROM campaigns_completion WHERE device_id = %(device_id)s",),
        forget=(
            """
            DELETE FROM campaigns_completion
             WHERE brand_id = %(brand_id)s AND person = %(external_id)s
            """,
            # The device is somebody else's by now: what it was sent counts as the device's own.
            """
            UPDATE notifications_delivery SET person = 'device:' || device_id
             WHERE brand_id = %(brand_id)s AND person = %(external_id)s
            """,
        ),
    ),
)
