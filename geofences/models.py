"""Geofences, their H3 covers and who needs them armed. It decides nothing about devices."""

from __future__ import annotations

from datetime import UTC, datetime
from math import cos, radians

import numpy as np
from django.contrib.gis.db import models
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db.models import Q
from django.db.models.expressions import RawSQL
from django.utils.timezone import now
from numpy.typing import NDArray

from brands.filejobs import FileJob, FileJobChange, FileJobRow
from geofences.blocks import unfolded
from geofences.geometry import MAX_RADIUS_M

FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
"""Stands for "no end": PostgreSQL's `infinity` does not fit a Python datetime."""


class GeofenceQuerySet(models.QuerySet["Geofence"]):
    def present(self) -> GeofenceQuerySet:
        return self.filter(retired_at__isnull=True)

    def armed(self, now: datetime) -> GeofenceQuerySet:
        """Those a live campaign or visit tracking needs at `now`, ended or future ones left out."""
        return (
            self.present()
            .filter(Q(track_visits=True) | Q(armed_until__gt=now))
            .filter(Q(starts_at__isnull=True) | Q(starts_at__lte=now))
            .filter(Q(ends_at__isnull=True) | Q(ends_at__gt=now))
        )

    def overlapping(
        self, *, west: float, south: float, east: float, north: float
    ) -> GeofenceQuerySet:
        """Those whose bounds, or whose circle, share a point with a box of degrees.

        `west > east` is a box across the antimeridian, as in GeoJSON.
        """
        if west > east:
            left = self.overlapping(west=west, south=south, east=180, north=north)
            right = self.overlapping(west=-180, south=south, east=east, north=north)
            return left | right
        box = [west, south, east, north]
        # A circle is stored by its centre: first all within reach of the index, then exactly.
        reach_lat = MAX_RADIUS_M / 110_574  # metres in the shortest degree of latitude
        reach_lng = min(180, reach_lat / max(0.01, cos(radians(max(abs(south), abs(north))))))
        near = [west - reach_lng, south - reach_lat, east + reach_lng, north + reach_lat]
        touches = RawSQL(
            "radius_m IS NULL AND geometry && ST_MakeEnvelope(%s, %s, %s, %s, 4326)"
            " OR radius_m IS NOT NULL AND geometry && ST_MakeEnvelope(%s, %s, %s, %s, 4326)"
            " AND ST_DWithin(geometry::geography,"
            " ST_Segmentize(ST_MakeEnvelope(%s, %s, %s, %s, 4326), 1)::geography, radius_m)",
            [*box, *near, *box],
            output_field=models.BooleanField(),
        )
        return self.filter(touches)


class Geofence(models.Model):
    """A place with an edge: a polygon, several, or a circle (a Point with `radius_m`)."""

    brand = models.ForeignKey("brands.Brand", on_delete=models.CASCADE, related_name="geofences")
    external_id = models.CharField(max_length=128, null=True, blank=True)
    name = models.CharField(max_length=200)
    geometry = models.GeometryField(srid=4326)
    radius_m = models.FloatField(null=True, blank=True)
    tags = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    track_visits = models.BooleanField(
        default=False, help_text="Record visits even when no campaign needs this geofence."
    )
    dwell_s = models.PositiveIntegerField(
        null=True, blank=True, help_text="Report a dwell after this many seconds inside."
    )
    exit_buffer_m = models.FloatField(
        default=20.0,
        validators=[MinValueValidator(0), MaxValueValidator(10_000)],
        help_text="A device leaves only when it is this far outside the edge.",
    )
    confirm_fixes = models.PositiveSmallIntegerField(
        default=1, help_text="This many fixes in a row must agree before a visit starts or ends."
    )
    confirm_s = models.PositiveIntegerField(
        default=0, help_text="The fixes must agree for this long before a visit starts or ends."
    )
    starts_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)
    # Both computed by the trigger of migration 0002 from Arming, so that no writer can forget.
    armed_until = models.DateTimeField(null=True, blank=True, editable=False)
    dwell_thresholds = ArrayField(models.IntegerField(), default=list, editable=False)
    # Since when it is armed in this shape (same trigger): tells arriving from being there already.
    armed_at = models.DateTimeField(null=True, blank=True, editable=False)
    # The transaction that wrote the row last (same trigger): a reader that has seen everything
    # below some snapshot's xmin asks for the rows at or above it and misses none.
    changed_xid = models.BigIntegerField(default=0, editable=False)
    # Bumped by the same trigger when the place itself (geometry, radius) changes.
    shape_version = models.IntegerField(default=1, editable=False)
    retired_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects = GeofenceQuerySet.as_manager()

    class Meta:
        ordering = ("name", "id")
        constraints = (
            models.UniqueConstraint(
                fields=("brand", "external_id"), name="one_geofence_per_external_id"
            ),
            models.CheckConstraint(
                condition=Q(radius_m__isnull=True) | Q(radius_m__gt=0, radius_m__lte=100_000),
                name="circle_radius_within_100_km",
            ),
            models.CheckConstraint(
                condition=Q(exit_buffer_m__gte=0, exit_buffer_m__lte=10_000),
                name="exit_buffer_within_10_km",
            ),
            models.CheckConstraint(
                condition=Q(ends_at__isnull=True)
                | Q(starts_at__isnull=True)
                | Q(ends_at__gt=models.F("starts_at")),
                name="geofence_ends_after_it_starts",
            ),
        )
        indexes = (
            GinIndex(fields=("tags",), name="geofences_by_tag"),  # arming and lists by tag
            # The index refresh: what was written, and what the clock arms or disarms.
            models.Index(fields=("changed_xid",), name="geofences_by_change"),
            models.Index(
                fields=("starts_at",),
                condition=Q(starts_at__isnull=False),
                name="geofences_by_start",
            ),
            models.Index(
                fields=("ends_at",), condition=Q(ends_at__isnull=False), name="geofences_by_end"
            ),
            models.Index(
                fields=("armed_until",),
                condition=Q(armed_until__isnull=False),
                name="geofences_by_armed_until",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def is_circle(self) -> bool:
        return self.radius_m is not None


class GeofenceCover(models.Model):
    """The stored H3 cover of a geofence: what the matching index is built from.

    As the index holds it, so that a cold start reads and copies but computes nothing, and within
    the row: 300,000 geofences are 300,000 rows to read, and few of them have parts elsewhere.
    """

    geofence = models.OneToOneField(
        Geofence, on_delete=models.CASCADE, primary_key=True, related_name="cover"
    )
    resolution = models.PositiveSmallIntegerField()
    blocks = models.BinaryField(help_text="The cells, folded by `geofences.blocks`.")
    shape = models.BinaryField(
        help_text="Outline and grid, packed by `geofences.packing` from the normalised shape."
    )

    def __str__(self) -> str:
        return f"{self.geofence_id}: resolution {self.resolution}"

    def cells(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """H3 cells: interior and boundary."""
        return unfolded(self.resolution, bytes(self.blocks))


class Arming(models.Model):
    """One reason why geofences are armed: a campaign names one geofence or all with a tag.

    Written by `campaigns.publishing` only; the trigger of migration 0002 folds the rows into
    `Geofence.armed_until` and `Geofence.dwell_thresholds`.
    """

    brand = models.ForeignKey("brands.Brand", on_delete=models.CASCADE)
    campaign_id = models.BigIntegerField()
    geofence = models.ForeignKey(Geofence, on_delete=models.CASCADE, null=True)
    tag = models.CharField(max_length=64, null=True)
    dwell_s = models.PositiveIntegerField(null=True)
    until = models.DateTimeField(default=FOREVER)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(geofence__isnull=True) ^ Q(tag__isnull=True),
                name="arming_names_a_geofence_or_a_tag",
            ),
        )
        indexes = (
            models.Index(fields=("campaign_id",), name="arming_by_campaign"),  # republish, pause
            models.Index(fields=("brand", "tag"), name="arming_by_tag"),  # the trigger
        )

    def __str__(self) -> str:
        return f"campaign {self.campaign_id} arms {self.tag or self.geofence_id}"


class GeofenceImport(FileJob):
    """One file on its way into geofences: written by `geofences.imports`, watched in the admin."""

    class Meta(FileJob.Meta):
        indexes = (
            models.Index(
                fields=("created_at",),
                condition=Q(state__in=("queued", "running")),
                name="imports_to_do",
            ),
        )


class GeofenceImportRow(FileJobRow):
    """A row of a file of places that somebody should look at."""

    job = models.ForeignKey(GeofenceImport, on_delete=models.CASCADE, related_name="rows")
    name = models.CharField(max_length=200, blank=True)

    class Meta(FileJobRow.Meta):
        constraints = (
            models.UniqueConstraint(fields=("job", "row"), name="one_verdict_per_import_row"),
        )


class GeofenceImportChange(FileJobChange):
    """What an import changed of one geofence, as `geofences.changes` has it."""

    job = models.ForeignKey(GeofenceImport, on_delete=models.CASCADE, related_name="changes")
    geofence_id = models.BigIntegerField()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("job", "geofence_id"), name="one_change_per_import_and_geofence"
            ),
        )

    def __str__(self) -> str:
        return f"geofence {self.geofence_id}: {', '.join(self.after)}"
