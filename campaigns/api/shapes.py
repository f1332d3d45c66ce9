"""Bodies of the campaign paths, for the OpenAPI document; `campaigns.definition` checks them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from campaigns.caps import CapScope, Period
from campaigns.conditions import Op
from campaigns.definition import HoursPolicy, InitialState, TriggerOn
from campaigns.models import Backtest, BrandGuard, CampaignState, CampaignVersion
from campaigns.schedules import ClockOf

_HOLD_OR_DROP = f"{', '.join(HoursPolicy)}: what becomes of an offer then."


class SelectorShape(serializers.Serializer[Any]):
    geofences = serializers.ListField(
        child=serializers.JSONField(), required=False, help_text="External ids (text) or ids."
    )
    tags = serializers.ListField(child=serializers.CharField(), required=False)
    dwell_s = serializers.IntegerField(required=False, min_value=1)
    event = serializers.CharField(required=False)
    where = serializers.DictField(required=False)


class StepShape(SelectorShape):
    on = serializers.CharField(help_text="entered, dwelled, exited or event.")
    days = serializers.ListField(child=serializers.JSONField(), required=False)
    times = serializers.IntegerField(required=False, min_value=1)


class TriggerShape(SelectorShape):
    on = serializers.ChoiceField(choices=[one.value for one in TriggerOn])
    steps = StepShape(many=True, required=False, help_text="Of a sequence: one after the other.")
    within_s = serializers.IntegerField(
        required=False, help_text="From the first to the last; of a schedule: see `since`."
    )
    unless = StepShape(required=False, help_text="What calls it off …")
    for_s = serializers.IntegerField(required=False, help_text="… within so long.")
    key = serializers.CharField(required=False, help_text="A property all its events share.")
    nth = serializers.IntegerField(required=False, min_value=1)
    every = serializers.BooleanField(required=False, help_text="Every n-th time.")
    absent_s = serializers.IntegerField(required=False, help_text="First time in so long.")
    once = serializers.BooleanField(required=False)
    again_after_s = serializers.IntegerField(required=False)
    at = serializers.DateTimeField(required=False, help_text="Of a schedule: one instant, or …")
    times = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="… times of day, as 09:00 …"
    )
    days = serializers.ListField(
        child=serializers.JSONField(), required=False, help_text="… on these days: mon … sun."
    )
    zone = serializers.ChoiceField(
        choices=[one.value for one in ClockOf], required=False, help_text="By whose clock."
    )
    since = serializers.DateTimeField(
        required=False, help_text="Who was inside since; or in `within_s`; neither: who is."
    )


class DaypartShape(serializers.Serializer[Any]):
    days = serializers.ListField(
        child=serializers.JSONField(), required=False, help_text="mon … sun, or 1 … 7."
    )
    to = serializers.CharField(required=False)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `from` is no name that Python allows in a class body.
        return {**super().get_fields(), "from": serializers.CharField(required=False)}


class CapShape(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=0)
    window_s = serializers.IntegerField(required=False, min_value=1)
    per = serializers.ChoiceField(choices=[one.value for one in Period], required=False)
    scope = serializers.ChoiceField(choices=[one.value for one in CapScope], required=False)
    tag = serializers.CharField(required=False, help_text="With the scope tag.")
    channel = serializers.CharField(
        required=False, help_text="push or inbox, with the scope channel."
    )


class GuardOfferShape(serializers.Serializer[Any]):
    campaign = serializers.IntegerField(required=False)
    group = serializers.CharField(required=False)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `label` is a property of every serializer.
        return {**super().get_fields(), "label": serializers.CharField(required=False)}


class GuardShape(serializers.Serializer[Any]):
    """A rule of relevance: about an attribute, an event or an offer (campaigns.guards)."""

    name = serializers.CharField(required=False, help_text="As decisions call it.")
    attribute = serializers.CharField(required=False, help_text="The offer supposes this of it:")
    op = serializers.ChoiceField(choices=[one.value for one in Op], required=False)
    value = serializers.JSONField(required=False)
    against = serializers.CharField(
        required=False, help_text="Instead of `value`: place.metadata.city, offer.city, …"
    )
    max_age_s = serializers.IntegerField(required=False, help_text="What is older is not known.")
    event = serializers.CharField(required=False, help_text="Not where this happened …")
    where = serializers.DictField(required=False)
    same = serializers.DictField(
        child=serializers.CharField(), required=False, help_text="{property: reference}"
    )
    times = serializers.IntegerField(required=False, min_value=1)
    offer = GuardOfferShape(required=False, help_text="Not where such an offer was made …")
    within_s = serializers.IntegerField(required=False, help_text="… within so long.")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `source` is a property of every serializer.
        said_by = serializers.CharField(required=False, help_text="Only what this source said.")
        return {**super().get_fields(), "source": said_by}


class BrandGuardShape(serializers.ModelSerializer[BrandGuard]):
    rule = GuardShape()

    class Meta:
        model = BrandGuard
        fields = ("id", "brand", "name", "rule", "updated_at")
        read_only_fields = ("id", "brand", "updated_at")


class ContentShape(serializers.Serializer[Any]):
    title = serializers.CharField(required=False)
    body = serializers.CharField(required=False)
    deep_link = serializers.CharField(required=False)
    image_url = serializers.CharField(required=False)
    locales = serializers.DictField(required=False)
    push = serializers.DictField(required=False)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `data` is a property of every serializer.
        texts = serializers.DictField(child=serializers.CharField(), required=False)
        return {**super().get_fields(), "data": texts}


class LocalContentShape(serializers.Serializer[Any]):
    title = serializers.CharField(required=False)
    body = serializers.CharField(required=False)
    deep_link = serializers.CharField(required=False)
    image_url = serializers.CharField(required=False)


class VariantContentShape(LocalContentShape):
    locales = serializers.DictField(
        child=LocalContentShape(),
        required=False,
        help_text="By language; what it leaves out, the campaign's text in that language says.",
    )


class VariantShape(serializers.Serializer[Any]):
    name = serializers.CharField()
    weight = serializers.FloatField(required=False)
    content = VariantContentShape(required=False)


class GoalShape(serializers.Serializer[Any]):
    event = serializers.CharField(required=False)
    where = serializers.DictField(required=False)
    geofences = serializers.ListField(child=serializers.JSONField(), required=False)
    tags = serializers.ListField(child=serializers.CharField(), required=False)
    feedback = serializers.CharField(required=False, help_text="received, opened or redeemed.")
    within_s = serializers.IntegerField(required=False)


class OptimiseShape(serializers.Serializer[Any]):
    burn_in = serializers.IntegerField(required=False)
    floor = serializers.FloatField(required=False)
    freeze_at = serializers.FloatField(required=False)


class AmountShape(serializers.Serializer[Any]):
    sends = serializers.IntegerField(required=False, min_value=0)
    money = serializers.IntegerField(required=False, min_value=0, help_text="Minor units: cents.")


class BudgetShape(serializers.Serializer[Any]):
    """Never exceeded; what is decided is reserved, what is never sent is given back."""

    total = AmountShape(required=False)
    per_day = AmountShape(required=False)
    per_place = AmountShape(required=False)
    per_place_and_day = AmountShape(required=False)
    cost = serializers.IntegerField(required=False, help_text="Of one offer, in minor units.")
    currency = serializers.CharField(required=False, help_text="ISO 4217: EUR.")
    timezone = serializers.CharField(required=False, help_text="Of its days; the brand's.")
    even = serializers.BooleanField(
        required=False,
        help_text="Spread amounts per day over the open hours of the day, the others from the"
        " campaign's start to its end.",
    )


class DefinitionShape(serializers.Serializer[Any]):
    """CONTRACT's campaign, without its name."""

    trigger = TriggerShape(required=False)
    starts_at = serializers.DateTimeField(required=False, allow_null=True)
    ends_at = serializers.DateTimeField(required=False, allow_null=True)
    dayparts = DaypartShape(many=True, required=False)
    outside_dayparts = serializers.CharField(required=False, help_text=_HOLD_OR_DROP)
    quiet_hours = serializers.CharField(required=False, help_text=_HOLD_OR_DROP)
    audience = serializers.DictField(required=False, help_text="A condition tree.")
    caps = CapShape(many=True, required=False)
    guards = GuardShape(many=True, required=False)
    labels = serializers.ListField(
        child=serializers.CharField(), required=False, help_text="Kinds that `guards` may name."
    )
    priority = serializers.IntegerField(required=False)
    score = serializers.FloatField(required=False, help_text="Among those of one priority.")
    score_by = serializers.DictField(
        child=serializers.FloatField(),
        required=False,
        help_text="Added for each unit of dwell_s, distance_m, attribute.<name>.",
    )
    group = serializers.CharField(required=False, help_text="One campaign wins in each group.")
    content = ContentShape(required=False)
    expires_after_s = serializers.IntegerField(required=False, min_value=1)
    max_age_s = serializers.IntegerField(required=False, min_value=1)
    only_while_inside = serializers.BooleanField(required=False)
    initial_state = serializers.ChoiceField(
        choices=[one.value for one in InitialState], required=False
    )
    transactional = serializers.BooleanField(required=False)
    variants = VariantShape(many=True, required=False)
    holdout = serializers.FloatField(required=False, help_text="0.1 leaves one in ten out.")
    goal = GoalShape(required=False)
    optimise = OptimiseShape(required=False)
    budget = BudgetShape(required=False)
    coupon_pool = serializers.CharField(
        required=False, help_text="Slug of a coupon pool; `{{ coupon.code }}` is one of its codes."
    )


class CampaignIn(DefinitionShape):
    name = serializers.CharField(max_length=200)


class LackOut(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {"field": serializers.CharField(), **super().get_fields()}


class MissingOut(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()
    missing = LackOut(many=True, required=False, help_text="Where it lacks something.")

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `fields` is a property of every serializer.
        by_field = serializers.DictField(child=serializers.ListField(child=serializers.CharField()))
        return {**super().get_fields(), "fields": by_field}


class CampaignDetail(CampaignIn):
    id = serializers.IntegerField()
    brand = serializers.IntegerField()
    state = serializers.ChoiceField(choices=[one.value for one in CampaignState])
    version = serializers.IntegerField(allow_null=True, help_text="What is live; null: nothing.")
    differs = serializers.BooleanField(help_text="The draft is not what is live.")
    sentence = serializers.CharField()
    missing = LackOut(many=True, required=False, help_text="Not in lists.")
    warnings = LackOut(
        many=True, required=False, help_text="What may surprise; it stops nothing. Not in lists."
    )
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class VersionOut(serializers.ModelSerializer[CampaignVersion]):
    published_by = serializers.StringRelatedField[Any](allow_null=True)
    definition = serializers.DictField()

    class Meta:
        model = CampaignVersion
        fields = ("number", "name", "definition", "published_at", "published_by")


class BacktestIn(serializers.Serializer[Any]):
    since = serializers.DateTimeField(required=False, help_text="A week before `until`.")
    until = serializers.DateTimeField(required=False, help_text="Now.")


class BacktestOut(serializers.ModelSerializer[Backtest]):
    state = serializers.CharField(help_text="queued, running, done or failed.")
    report = serializers.DictField(
        help_text="Offers, devices reached, refusals by reason, per day and place; and of the"
        " live version, with the difference."
    )

    class Meta:
        model = Backtest
        fields = (
            "id",
            "since",
            "until",
            "state",
            "progress",
            "report",
            "problem",
            "asked_at",
            "finished_at",
        )
        read_only_fields = fields


class AudienceOut(serializers.Serializer[Any]):
    matching = serializers.IntegerField()
    of = serializers.IntegerField(help_text="All devices of the brand.")
    low = serializers.IntegerField(help_text="Nineteen samples in twenty lie between these.")
    high = serializers.IntegerField()
    asked = serializers.IntegerField(help_text="As many as `of`: everybody was asked.")
    without_here = serializers.BooleanField(
        help_text="Conditions about the place of the moment are left out: at most so many."
    )


class LiftOut(serializers.Serializer[Any]):
    treated = serializers.ListField(
        child=serializers.IntegerField(), help_text="[shown, converted]"
    )
    control = serializers.ListField(child=serializers.IntegerField())
    treated_share = serializers.FloatField()
    control_share = serializers.FloatField()
    difference = serializers.FloatField()
    low = serializers.FloatField(help_text="Of the difference's interval.")
    high = serializers.FloatField()
    relative = serializers.FloatField(allow_null=True)


class PlaceLiftOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    lift = LiftOut(allow_null=True)


class VariantOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    sent = serializers.IntegerField()
    received = serializers.IntegerField()
    opened = serializers.IntegerField()
    redeemed = serializers.IntegerField()
    persons = serializers.IntegerField()
    converted = serializers.IntegerField()
    share = serializers.ListField(
        child=serializers.FloatField(), help_text="[low, high] of those who reached the goal."
    )
    lift = LiftOut(allow_null=True)


class ResultsOut(serializers.Serializer[Any]):
    goal = serializers.DictField(allow_null=True)
    arms = serializers.DictField(
        help_text="Persons and conversions of each variant, and of ghost:holdout, ghost:control."
    )
    variants = VariantOut(many=True)
    lift = LiftOut(allow_null=True)
    places = PlaceLiftOut(many=True)
    level = serializers.FloatField()
    method = serializers.CharField()
