"""What the pages of campaigns offer to choose from: the names that a brand's own rows have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import connection

from brands.models import Brand
from campaigns.models import Segment
from geofences.models import Geofence

SUGGESTED_ROWS = 2_000  # of devices and events looked at for names to suggest


def suggestions(brand: Brand) -> dict[str, dict[str, Any]]:
    """Names that a brand's devices, events, places and segments have, to choose from."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT jsonb_object_keys(attributes) FROM (SELECT attributes FROM"
            " devices_device WHERE brand_id = %s ORDER BY id DESC LIMIT %s) seen ORDER BY 1",
            [brand.pk, SUGGESTED_ROWS],
        )
        attributes = [row[0] for row in cursor.fetchall()][:200]
        cursor.execute(
            "SELECT DISTINCT name FROM (SELECT name FROM devices_event WHERE brand_id = %s"
            " LIMIT %s) seen ORDER BY 1",
            [brand.pk, SUGGESTED_ROWS],
        )
        events = [row[0] for row in cursor.fetchall()][:200]
    segments = list(Segment.objects.filter(brand=brand).values_list("slug", "name"))
    return {
        "audience": {
            "attributes": attributes,
            "events": events,
            "segments": [list(one) for one in segments],
            "tags": tags_of(brand),
        },
        "dayparts": {},
        "guards": {"attributes": attributes, "events": events},
        "score_by": {"attributes": attributes},
    }


def tags_of(brand: Brand, text: str = "", limit: int = 40) -> list[str]:
    """Return the tags of a brand's geofences, the commonest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tag FROM (SELECT unnest(tags) AS tag FROM geofences_geofence"
            " WHERE brand_id = %s AND retired_at IS NULL LIMIT 200000) used"
            " WHERE strpos(lower(tag), lower(%s)) > 0 GROUP BY tag ORDER BY count(*) DESC, tag"
            " LIMIT %s",
            [brand.pk, text, limit],
        )
        return [row[0] for row in cursor.fetchall()]


def places_named(brand: Brand, keys: Iterable[int | str]) -> dict[int | str, Geofence]:
    """Return the geofences that a trigger names, by what it calls them."""
    wanted = list(keys)
    mine = Geofence.objects.filter(brand=brand).only("pk", "external_id", "name", "tags")
    by_id = mine.in_bulk([key for key in wanted if isinstance(key, int)])
    texts = [key for key in wanted if isinstance(key, str)]
    by_external = {place.external_id: place for place in mine.filter(external_id__in=texts)}
    found: dict[int | str, Geofence] = dict(by_id)
    return found | {key: place for key, place in by_external.items() if key is not None}
