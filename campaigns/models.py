"""Campaigns, their published versions and every decision they led to: rows only."""

from __future__ import annotations

from enum import StrEnum

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.timezone import now


class CampaignState(StrEnum):
    DRAFT = "draft"
    LIVE = "live"
    PAUSED = "paused"
    ENDED = "ended"


class Verdict(StrEnum):
    SEND = "send"
    REFUSE = "refuse"


class CampaignAction(StrEnum):
    """What staff or a back office did to a campaign."""

    CREATED = "created"
    EDITED = "edited"
    PUBLISHED = "published"
    PAUSED = "paused"
    RESUMED = "resumed"
    ENDED = "ended"
    ROLLED_BACK = "rolled_back"
    TESTED = "tested"


class Segment(models.Model):
    """A named audience: a condition tree (see campaigns.audience), used by reference."""

    brand = models.ForeignKey("brands.Brand", on_delete=models.CASCADE, related_name="segments")
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=64)
    tree = models.JSONField(default=dict)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name",)
        constraints = (
            models.UniqueConstraint(fields=("brand", "slug"), name="one_segment_per_slug"),
        )

    def __str__(self) -> str:
        return self.name


class Campaign(models.Model):
    """Who gets what, where and when: `draft` is edited, what is live is a version."""

    brand = models.ForeignKey("brands.Brand", on_delete=models.CASCADE, related_name="campaigns")
    name = models.CharField(max_length=200)
    state = models.CharField(
        max_length=8,
        choices=[(s.value, s.value.title()) for s in CampaignState],
        default=CampaignState.DRAFT.value,
    )
    # A definition in CONTRACT's shape (campaigns.definition.Definition), without the name.
    draft = models.JSONField(default=dict)
    live_version = models.ForeignKey(
        "CampaignVersion", on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(default=now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-updated_at",)

    def __str__(self) -> str:
        return self.name


class CampaignVersion(models.Model):
    """What was published: immutable."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="versions")
    number = models.IntegerField()
    name = models.CharField(max_length=200)
    definition = models.JSONField()
    published_at = models.DateTimeField(default=now)
    published_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )

    class Meta:
        ordering = ("-number",)
        constraints = (
            models.UniqueConstraint(fields=("campaign", "number"), name="one_version_per_number"),
        )

    def __str__(self) -> str:
        return f"{self.name} v{self.number}"


class CampaignLog(models.Model):
    """Who did what to a campaign, and when."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="log")
    # None: the brand's back office, by its server key.
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True)
    action = models.CharField(max_length=12, choices=[(a.value, a.value) for a in CampaignAction])
    version = models.IntegerField(null=True)
    at = models.DateTimeField(default=now)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.action} at {self.at}"


class Decision(models.Model):
    """A campaign's verdict on one moment, with its reason and the values seen."""

    id = models.BigAutoField(primary_key=True)
    brand_id = models.BigIntegerField()
    device_id = models.BigIntegerField()
    campaign_id = models.BigIntegerField()
    campaign_version = models.IntegerField()
    moment_kind = models.CharField(max_length=16)  # transition, event, schedule
    moment_id = models.BigIntegerField()
    geofence_id = models.BigIntegerField(null=True)
    verdict = models.CharField(max_length=8, choices=[(v.value, v.value) for v in Verdict])
    reason = models.CharField(max_length=40)
    trace = models.JSONField(default=dict)
    decided_at = models.DateTimeField(default=now)

    class Meta:
        ordering = ("-id",)
        constraints = (
            # Promise 2: a campaign decides once on a moment. Moments come in their order, so that
            # what a batch decides goes to the last pages of the index.
            models.UniqueConstraint(
                fields=("moment_id", "campaign_id", "moment_kind", "device_id"),
                name="decided_once",
            ),
        )
        indexes = (
            models.Index(fields=("device_id", "decided_at"), name="decisions_by_device"),
            models.Index(fields=("campaign_id", "decided_at"), name="decisions_by_campaign"),
            models.Index(
                fields=("device_id", "decided_at"),
                condition=models.Q(reason="held_out"),
                name="ghosts_by_device",  # caps count what was held out as if it had been offered
            ),
        )

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


class Completion(models.Model):
    """A sequence that a person completed: it fires once, at once or when its wait is over."""

    id = models.BigAutoField(primary_key=True)
    brand_id = models.BigIntegerField()
    person = models.CharField(max_length=160)
    device_id = models.BigIntegerField()  # of the last step
    campaign_id = models.BigIntegerField()
    last_kind = models.CharField(max_length=16)
    last_id = models.BigIntegerField()
    key = models.CharField(max_length=128, blank=True)
    first_at = models.DateTimeField()
    completed_at = models.DateTimeField()
    due_at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True)
    called_off = models.BooleanField(default=False)  # then it does not count as having fired

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("person", "campaign_id", "last_kind", "last_id", "key", "brand_id"),
                name="one_completion_per_last_step",
            ),
        )
        indexes = (
            models.Index(
                fields=("due_at",),
                condition=models.Q(settled_at__isnull=True),
                name="completions_due",  # evaluation's clock
            ),
            models.Index(fields=("device_id",), name="completions_by_device"),  # erasure
        )

    def __str__(self) -> str:
        return f"completion of campaign {self.campaign_id} at {self.completed_at}"


class Occurrence(models.Model):
    """One time that a scheduled campaign comes round, for the zones that it comes to then."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="occurrences")
    brand_id = models.BigIntegerField()
    key = models.BigIntegerField()  # what the wall shows: campaigns.schedules.Occurrence
    due_at = models.DateTimeField()
    zones = ArrayField(models.CharField(max_length=64), default=list)  # none: all
    after_id = models.BigIntegerField(default=0)  # how far through the devices it is
    members = models.IntegerField(default=0)
    missed = models.BooleanField(default=False)  # nobody was asked: too late, or stopped before
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-due_at", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=("campaign", "key", "due_at"), name="one_occurrence_per_time"
            ),
        )
        indexes = (
            models.Index(
                fields=("due_at",),
                condition=models.Q(finished_at__isnull=True),
                name="occurrences_due",  # the schedule's clock
            ),
        )

    def __str__(self) -> str:
        return f"campaign {self.campaign_id} at {self.due_at}"


class BacktestState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Backtest(models.Model):
    """A trial of a campaign on what was recorded, asked for by somebody, done in its own time."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="backtests")
    since = models.DateTimeField()
    until = models.DateTimeField()
    state = models.CharField(
        max_length=8,
        choices=[(s.value, s.value.title()) for s in BacktestState],
        default=BacktestState.QUEUED.value,
    )
    progress = models.FloatField(default=0.0)  # 0 to 1
    report = models.JSONField(default=dict, blank=True)  # campaigns.backtest.Outcome
    problem = models.CharField(max_length=400, blank=True)
    asked_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True)
    asked_at = models.DateTimeField(default=now)
    seen_at = models.DateTimeField(null=True)  # sign of life of whoever runs it
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        indexes = (
            models.Index(
                fields=("id",),
                condition=models.Q(state__in=("queued", "running")),
                name="backtests_to_run",
            ),
        )

    def __str__(self) -> str:
        return f"backtest of {self.campaign_id}: {self.state}"


class ControlGroup(models.Model):
    """The share of a brand's people whom no campaign reaches, to know what campaigns are worth."""

    brand = models.OneToOneField("brands.Brand", on_delete=models.CASCADE, related_name="control")
    share = models.FloatField(default=0.0, help_text="0.05 is one person in twenty.")
    salt = models.CharField(max_length=40, default="1", help_text="Another one draws anew.")

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=models.Q(share__gte=0, share__lte=0.5), name="control_at_most_half"
            ),
        )

    def __str__(self) -> str:
        return f"{self.share:.1%} of people"


class BrandGuard(models.Model):
    """A rule that every campaign of a brand keeps, service messages apart (campaigns.guards)."""

    brand = models.ForeignKey("brands.Brand", on_delete=models.CASCADE, related_name="guards")
    name = models.CharField(max_length=80)
    rule = models.JSONField(default=dict)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("id",)
        verbose_name = "relevance rule"

    def __str__(self) -> str:
        return self.name


class Allocation(models.Model):
    """The shares of a campaign's variants as learnt at one time: immutable, with what from."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="allocations")
    version = models.IntegerField()
    step = models.IntegerField()  # and so the seed: the same counts give the same shares
    weights = models.JSONField()
    chances = models.JSONField()  # of being the best
    arms = models.JSONField()  # {variant: [shown, converted]}
    best = models.CharField(max_length=40, blank=True)  # decided for good
    at = models.DateTimeField()

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("campaign", "version", "step"), name="one_allocation_per_step"
            ),
        )

    def __str__(self) -> str:
        return f"step {self.step} of campaign {self.campaign_id}"


class Spend(models.Model):
    """What a campaign has given away: in all, on a day, at a place, or at a place on a day."""

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="spends")
    day = models.DateField(null=True)  # on the budget's calendar; null: ever
    geofence_id = models.BigIntegerField(null=True)  # null: everywhere
    sends = models.BigIntegerField(default=0)
    money = models.BigIntegerField(default=0)  # minor units

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("campaign", "day", "geofence_id"),
                name="one_sum_of_each_spend",
                nulls_distinct=False,
            ),
            models.CheckConstraint(
                condition=models.Q(sends__gte=0, money__gte=0), name="spend_is_not_negative"
            ),
        )

    def __str__(self) -> str:
        return f"{self.sends} of campaign {self.campaign_id}"


class Charge(models.Model):
    """What one delivery took from its campaign's budget; given back where it is never sent."""

    delivery_id = models.BigIntegerField(primary_key=True)
    campaign_id = models.BigIntegerField()
    geofence_id = models.BigIntegerField(null=True)
    day = models.DateField()
    money = models.BigIntegerField()
    returned = models.BooleanField(default=False)

    class Meta:
        ordering = ("delivery_id",)

    def __str__(self) -> str:
        return f"charge of delivery {self.delivery_id}"


class PoolKind(StrEnum):
    """Where the codes of a pool come from."""

    IMPORTED = "imported"  # the brand's own list
    SIGNED = "signed"  # made here, checked by any till that has the key


class CouponState(StrEnum):
    """free → drawn → redeemed; back to free where nobody can have seen it, else spoilt."""

    FREE = "free"
    DRAWN = "drawn"
    REDEEMED = "redeemed"
    SPOILT = "spoilt"  # its offer may have arrived though it counts as not sent: not given again


class CouponPool(models.Model):
    """Codes of which each is given to one offer; campaigns name it by its slug."""

    brand = models.ForeignKey("brands.Brand", on_delete=models.CASCADE, related_name="coupon_pools")
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=64)
    kind = models.CharField(
        max_length=8,
        choices=[(kind.value, kind.value.title()) for kind in PoolKind],
        default=PoolKind.IMPORTED.value,
    )
    size = models.PositiveIntegerField(null=True, blank=True)  # of signed codes, at most
    key = models.CharField(max_length=64, editable=False)  # hex; what a till checks codes with
    last_day = models.DateField(null=True, blank=True)  # in the brand's zone; null: for ever
    warn_below = models.PositiveIntegerField(default=100)
    created_at = models.DateTimeField(default=now, editable=False)

    class Meta:
        ordering = ("name",)
        constraints = (models.UniqueConstraint(fields=("brand", "slug"), name="one_pool_per_slug"),)

    def __str__(self) -> str:
        return self.name


class Coupon(models.Model):
    """One code. `delivery_id` is who has it, or had it last; it names no device."""

    id = models.BigAutoField(primary_key=True)
    pool = models.ForeignKey(CouponPool, on_delete=models.CASCADE, related_name="coupons")
    brand_id = models.BigIntegerField()
    code = models.CharField(max_length=64)
    number = models.BigIntegerField(null=True)  # of a signed code
    state = models.CharField(
        max_length=8, choices=[(s.value, s.value.title()) for s in CouponState], default="free"
    )
    delivery_id = models.BigIntegerField(null=True)
    drawn_at = models.DateTimeField(null=True)
    redeemed_at = models.DateTimeField(null=True)
    reference = models.CharField(max_length=80, blank=True)  # the till's, of the redemption

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(fields=("brand_id", "code"), name="one_coupon_per_code"),
            models.UniqueConstraint(
                fields=("pool", "number"),
                condition=models.Q(number__isnull=False),
                name="one_coupon_per_number",
            ),
            # Drawn exactly once: a delivery has one code, and a code one delivery.
            models.UniqueConstraint(
                fields=("delivery_id",),
                condition=models.Q(delivery_id__isnull=False),
                name="one_coupon_per_delivery",
            ),
        )
        indexes = (
            models.Index(fields=("pool", "state", "id"), name="coupons_to_draw"),  # and to count
        )

    def __str__(self) -> str:
        return f"{self.code}: {self.state}"


class CouponImport(models.Model):
    """A file of codes on its way into a pool, and what became of its lines."""

    pool = models.ForeignKey(CouponPool, on_delete=models.CASCADE, related_name="imports")
    file = models.FileField(upload_to="coupons/%Y/%m/", max_length=300, blank=True)
    file_name = models.CharField(max_length=200)
    state = models.CharField(
        max_length=8, choices=[(s.value, s.value.title()) for s in BacktestState]
    )
    lines_total = models.PositiveIntegerField(null=True)
    lines_done = models.PositiveIntegerField(default=0)
    taken = models.PositiveIntegerField(default=0)
    refused = models.JSONField(default=dict)  # how many, by reason
    # [[line, code, reason], …]: the first so many, to look at
    remarks = models.JSONField(default=list)
    problem = models.CharField(max_length=400, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+"
    )
    created_at = models.DateTimeField(default=now)
    seen_at = models.DateTimeField(null=True)  # sign of life of whoever runs it
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.file_name
