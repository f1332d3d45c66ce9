"""Folds the cells of every stored cover into blocks, as `geofences.blocks` of this version does.

Written out here, as that module may change. Rows that were folded already are left alone, so an
interrupted run goes on where it stopped.
"""

from __future__ import annotations

import struct
from typing import Any

from django.db import migrations

AT_ONCE = 1_000
# A value that is the same stays where it is stored: only a new one moves into the row.
FOLD = """
    UPDATE geofences_geofencecover cover SET blocks = folded.blocks, shape = cover.shape || ''
    FROM unnest(%s::bigint[], %s::bytea[]) AS folded (geofence_id, blocks)
    WHERE cover.geofence_id = folded.geofence_id
"""


def folded(resolution: int, interior: bytes, boundary: bytes) -> bytes:
    """For each block its place, the children touched and those of them that are interior."""
    depth = min(resolution, 2)
    level = resolution - depth
    blocks: dict[int, list[int]] = {}
    for cells, inside in ((boundary, 0), (interior, 1)):
        for (cell,) in struct.iter_unpack("<Q", cells):
            place = cell >> 45 - 3 * level & (1 << 7 + 3 * level) - 1
            child = cell >> 45 - 3 * resolution & (1 << 3 * depth) - 1
            # A cell that is coarser than a block's children stands for all of them.
            bits = (1 << child, 0x7F << 8 * child, 0x7F7F7F7F7F7F7F)[2 - depth]
            masks = blocks.setdefault(place, [0, 0])
            masks[0] |= bits
            masks[1] |= bits * inside
    return b"".join(struct.pack("<3Q", place, *masks) for place, masks in sorted(blocks.items()))


def fold(apps: Any, schema_editor: Any) -> None:
    covers = apps.get_model("geofences", "GeofenceCover").objects.order_by("pk")
    last = 0
    while rows := list(
        covers.filter(pk__gt=last).values_list(
            "pk", "resolution", "interior", "boundary", "blocks"
        )[:AT_ONCE]
    ):
        last = rows[-1][0]
        new = {
            pk: folded(resolution, bytes(interior), bytes(boundary))
            for pk, resolution, interior, boundary, blocks in rows
            if blocks is None
        }
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(FOLD, [list(new), list(new.values())])


class Migration(migrations.Migration):
    atomic = False  # a portion of rows at a time
    dependencies = [("geofences", "0007_covers_as_blocks")]
    operations = [migrations.RunPython(fold, migrations.RunPython.noop)]
