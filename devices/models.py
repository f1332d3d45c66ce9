"""Devices, where they are and what they did: rows only, every rule is elsewhere."""

from __future__ import annotations

from django.contrib.gis.db import models
from django.db.models import Q
from django.utils.timezone import now

from brands.filejobs import FileJob, FileJobChange, FileJobRow
from devices.areas import AreaKind
from devices.fixes import FixVerdict
from devices.presence import PresenceState, TransitionKind


class Platform(models.TextChoices):
    IOS = "ios", "iOS"
    ANDROID = "android"
    WEB = "web"


class Device(models.Model):
    """One app installation: who it is, what it told us and what its person agreed to."""

    brand = models.ForeignKey("brands.Brand", on_delete=models.CASCADE, related_name="devices")
    installation_id = models.CharField(max_length=128)
    platform = models.CharField(max_length=8, choices=Platform.choices)
    external_id = models.CharField(max_length=128, null=True, blank=True)
    push_token = models.CharField(max_length=4096, null=True, blank=True)
    push_token_at = models.DateTimeField(null=True, blank=True)
    push_token_gone_at = models.DateTimeField(null=True, blank=True)
    locale = models.CharField(max_length=35, blank=True)
    timezone = models.CharField(max_length=64, blank=True)
    app_version = models.CharField(max_length=32, blank=True)
    attributes = models.JSONField(default=dict, blank=True)
    # {attribute: {"source": "app"|"crm"|…, "at": ISO time}}: freshness for the relevance guard.
    attribute_facts = models.JSONField(default=dict, blank=True, editable=False)
    consent_location = models.BooleanField(default=False)
    consent_marketing = models.BooleanField(default=False)
    consent_version = models.CharField(max_length=32, blank=True)
    consent_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("brand", "installation_id"), name="one_device_per_installation"
            ),
            # Who holds the phone gets the push: a token belongs to one device of a brand. Not of
            # all brands (promise 7): whoever heard of another's token would silence its device.
            models.UniqueConstraint(
                fields=("brand", "push_token"),
                condition=Q(push_token__isnull=False),
                name="one_push_token_per_brand",
            ),
        )
        indexes = (
            models.Index(
                fields=("brand", "external_id"),
                condition=Q(external_id__isnull=False),
                name="devices_by_external_id",  # gateway look-ups, support search
            ),
        )

    def __str__(self) -> str:
        return self.external_id or f"device {self.pk}"


class Profile(models.Model):
    """What a brand's back office knows of a person, by its own id; devices share it."""

    brand = models.ForeignKey("brands.Brand", on_delete=models.CASCADE, related_name="profiles")
    external_id = models.CharField(max_length=128)
    attributes = models.JSONField(default=dict, blank=True)
    attribute_facts = models.JSONField(default=dict, blank=True, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = "person"
        verbose_name_plural = "people"
        constraints = (
            models.UniqueConstraint(
                fields=("brand", "external_id"), name="one_profile_per_external_id"
            ),
        )

    def __str__(self) -> str:
        return self.external_id


class ProfileImport(FileJob):
    """One file of a CRM on its way into profiles: written by `devices.profile_imports`."""

    class Meta(FileJob.Meta):
        indexes = (
            models.Index(
                fields=("created_at",),
                condition=Q(state__in=("queued", "running")),
                name="profile_imports_to_do",
            ),
        )


class ProfileImportRow(FileJobRow):
    """A row of a file of people that somebody should look at."""

    job = models.ForeignKey(ProfileImport, on_delete=models.CASCADE, related_name="rows")

    class Meta(FileJobRow.Meta):
        constraints = (
            models.UniqueConstraint(
                fields=("job", "row"), name="one_verdict_per_profile_import_row"
            ),
        )


class ProfileImportChange(FileJobChange):
    """What an import changed of one person.

    `before` and `after` are `{name: [value, fact]}`, null where the attribute was not known.
    """

    job = models.ForeignKey(ProfileImport, on_delete=models.CASCADE, related_name="changes")
    external_id = models.CharField(max_length=128)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("job", "external_id"), name="one_change_per_import_and_person"
            ),
        )

    def __str__(self) -> str:
        return f"{self.external_id}: {', '.join(self.after)}"


class DeviceState(models.Model):
    """The hot row: where a device was last, and what ingest must know of it under its lock.

    No index beside the primary key, so that every update stays on its page (HOT, fillfactor 70).
    `serial` and `consent_location` repeat Device so that ingest joins nothing;
    `devices.registration` writes both in one transaction.
    """

    device = models.OneToOneField(
        Device, on_delete=models.CASCADE, primary_key=True, related_name="state"
    )
    version = models.BigIntegerField(default=0)  # counts the writes: ingest's memory relies on it
    brand_id = models.BigIntegerField()
    serial = models.IntegerField(default=1)  # tokens with another serial are revoked
    consent_location = models.BooleanField(default=False)
    presences = models.IntegerField(default=0)  # rows in Presence: zero spares the look-up
    recorded_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField(null=True)
    lat = models.FloatField(null=True)
    lng = models.FloatField(null=True)
    accuracy_m = models.FloatField(null=True)
    speed_mps = models.FloatField(null=True)
    # A place that was too far to be believed: a second fix near it is.
    jump_lat = models.FloatField(null=True)
    jump_lng = models.FloatField(null=True)

    def __str__(self) -> str:
        return f"state of device {self.device_id}"


class Fix(models.Model):
    """History: one reported position. Partitioned by day of `received_at`, dropped by retention.

    `key` is the 63-bit hash of the fix's own id, or of its time and place: a repeat has the same.
    Table, partitions and indexes are made in migration 0002 (Django does not know partitions).
    """

    pk = models.CompositePrimaryKey("device_id", "key", "received_at")
    device_id = models.BigIntegerField()
    key = models.BigIntegerField()
    received_at = models.DateTimeField()
    recorded_at = models.DateTimeField()
    lat = models.FloatField()
    lng = models.FloatField()
    accuracy_m = models.FloatField(null=True)
    speed_mps = models.FloatField(null=True)
    heading_deg = models.FloatField(null=True)
    altitude_m = models.FloatField(null=True)
    battery = models.FloatField(null=True)
    verdict = models.SmallIntegerField(choices=[(v.value, v.name.lower()) for v in FixVerdict])

    class Meta:
        managed = False
        db_table = "devices_fix"

    def __str__(self) -> str:
        return f"fix of device {self.device_id} at {self.recorded_at}"


class Presence(models.Model):
    """What we believe about a device and a geofence. No row: outside."""

    pk = models.CompositePrimaryKey("device_id", "geofence_id")
    device_id = models.BigIntegerField()
    geofence_id = models.BigIntegerField(db_index=True)  # who is inside now; geofence ends or moves
    brand_id = models.BigIntegerField()
    state = models.CharField(max_length=8, choices=[(s.value, s.value) for s in PresenceState])
    visit_id = models.BigIntegerField()
    entered_at = models.DateTimeField()  # event time; while entering: the first fix inside
    since_at = models.DateTimeField()  # event time at which `state` began
    agreeing = models.SmallIntegerField(default=1)  # fixes in a row that speak for a change
    dwelled_s = models.IntegerField(default=0)  # the longest dwell threshold already reported
    shape_version = models.IntegerField(default=1)
    due_at = models.DateTimeField()  # when the clock must look: next dwell, or silence

    class Meta:
        indexes = (models.Index(fields=("due_at",), name="presence_by_due"),)  # the clock

    def __str__(self) -> str:
        return f"device {self.device_id} {self.state} geofence {self.geofence_id}"


class Transition(models.Model):
    """A presence that changed. Written by ingest and the clock; evaluation claims it once."""

    id = models.BigAutoField(primary_key=True)
    brand_id = models.BigIntegerField()
    device_id = models.BigIntegerField()
    geofence_id = models.BigIntegerField()
    kind = models.CharField(max_length=8, choices=[(k.value, k.value) for k in TransitionKind])
    visit_id = models.BigIntegerField()
    dwell_s = models.IntegerField(default=0)  # of a dwell: the threshold it passed
    entered_at = models.DateTimeField()  # start of the visit
    occurred_at = models.DateTimeField()  # event time
    recorded_at = models.DateTimeField()  # when we wrote it
    reason = models.CharField(max_length=24, blank=True)
    lat = models.FloatField(null=True)  # the fix that told us; null where a timer did
    lng = models.FloatField(null=True)
    accuracy_m = models.FloatField(null=True)
    processed_at = models.DateTimeField(null=True)  # set at once where no campaign is armed
    parked_reason = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = (
            # Promise 2: per visit a trigger fires once.
            models.UniqueConstraint(
                fields=("device_id", "visit_id", "kind", "dwell_s"), name="one_transition_per_visit"
            ),
        )
        indexes = (
            models.Index(
                fields=("id",), condition=Q(processed_at__isnull=True), name="transitions_to_claim"
            ),
            models.Index(fields=("device_id", "occurred_at"), name="transitions_by_device"),
            models.Index(fields=("geofence_id", "occurred_at"), name="transitions_by_geofence"),
        )

    def __str__(self) -> str:
        return f"device {self.device_id} {self.kind} geofence {self.geofence_id}"


class Area(models.Model):
    """Where a device is at home or usually is: an H3 cell of about 5 km². By `devices.homes`."""

    id = models.BigAutoField(primary_key=True)
    device_id = models.BigIntegerField()
    kind = models.CharField(max_length=8, choices=[(k.value, k.value) for k in AreaKind])
    cell = models.BigIntegerField()
    lat = models.FloatField()  # of the cell's middle
    lng = models.FloatField()
    days = models.IntegerField()  # on so many nights (home) or days (usual)
    last_at = models.DateTimeField()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("device_id", "kind", "cell"), name="one_area_per_kind_and_cell"
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} of device {self.device_id}"


class AreaScan(models.Model):
    """When a device's areas were last derived."""

    device_id = models.BigIntegerField(primary_key=True)
    derived_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"areas of device {self.device_id} at {self.derived_at}"


class Event(models.Model):
    """Something the app or the back office reports: purchase, balance_low."""

    id = models.BigAutoField(primary_key=True)
    brand_id = models.BigIntegerField()
    device_id = models.BigIntegerField(null=True)  # null: about a person, by external_id
    external_id = models.CharField(max_length=128, blank=True)
    key = models.BigIntegerField()  # hash of the event's id, or of name, time and properties
    name = models.CharField(max_length=64)
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField()
    properties = models.JSONField(default=dict, blank=True)
    processed_at = models.DateTimeField(null=True)
    parked_reason = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=("brand_id", "device_id", "external_id", "key"),
                name="one_event_per_key",
                nulls_distinct=False,
            ),
        )
        indexes = (
            models.Index(
                fields=("id",), condition=Q(processed_at__isnull=True), name="events_to_claim"
            ),
            models.Index(fields=("device_id", "occurred_at"), name="events_by_device"),
            models.Index(
                fields=("brand_id", "external_id", "occurred_at"), name="events_by_person"
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} at {self.occurred_at}"
