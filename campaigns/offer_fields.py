"""The builder's fields for money, coupons and experiments: between people's words and CONTRACT's.

Amounts are typed in euros and kept in cents; shares are typed in percent. What a definition says
beyond these fields stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
from django import forms
from django.core.exceptions import ValidationError

from brands import wallclock
from brands.fields import INPUT, NUMBER, JsonField, SpanField, listed
from brands.models import Brand
from campaigns import budgets, coupons
from campaigns.budgets import BudgetText, Whole
from campaigns.definition import Definition, Goal
from campaigns.models import CouponPool

AMOUNT = NUMBER | {"min": 0}
WHOLES = {
    Whole.TOTAL: "In all",
    Whole.DAY: "A day",
    Whole.PLACE: "Each place, in all",
    Whole.PLACE_AND_DAY: "Each place, a day",
}
GOALS = [
    ("", "– none –"),
    ("event", "do something in the app or at the till"),
    ("visit", "come to a place"),
    ("feedback", "react to the offer"),
]
FEEDBACKS = [("opened", "open it"), ("redeemed", "redeem it"), ("received", "receive it")]
MOST_MONEY = Decimal(budgets.MOST)


class BudgetWidget(forms.MultiWidget):
    """Two columns of amounts, then what they are counted in."""

    template_name = "admin/campaigns/campaign/budget.html"

    def __init__(self) -> None:
        amounts = [
            forms.NumberInput(
                {**AMOUNT, "step": "any" if money else 1, "aria-label": f"{label}, {unit}"}
            )
            for label in WHOLES.values()
            for money, unit in ((False, "offers"), (True, "money"))
        ]
        super().__init__(
            [
                *amounts,
                forms.NumberInput({**AMOUNT, "step": "any", "aria-label": "one offer costs"}),
                forms.TextInput(
                    INPUT
                    | {"size": 4, "maxlength": 3, "placeholder": "EUR", "aria-label": "currency"}
                ),
                forms.TextInput(
                    INPUT
                    | {
                        "size": 18,
                        "placeholder": "the brand's",
                        "list": "known-zones",
                        "aria-label": "time zone of its days",
                    }
                ),
                forms.CheckboxInput(),
            ]
        )

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        parts = context["widget"]["subwidgets"]
        rows = [
            {"label": label, "sends": parts[2 * number], "money": parts[2 * number + 1]}
            for number, label in enumerate(WHOLES.values())
        ]
        cost, currency, timezone, even = parts[2 * len(WHOLES) :]
        return context | {
            "rows": rows,
            "cost": cost,
            "currency": currency,
            "timezone": timezone,
            "even": even,
        }

    def decompress(self, value: Any) -> list[Any]:
        if not value:
            return [None] * (2 * len(WHOLES) + 4)
        text = msgspec.convert(value, BudgetText)
        shown: list[Any] = []
        for whole in WHOLES:
            amount: budgets.Amount = getattr(text, whole.value)
            shown += [amount.sends, _shown(amount.money, text.currency)]
        cost = _shown(text.cost or None, text.currency)
        return [*shown, cost, text.currency, text.timezone, text.even]


class BudgetField(forms.MultiValueField):
    """A budget in CONTRACT's shape; nothing where no amount is given."""

    def __init__(self, **kwargs: Any) -> None:
        amounts: list[forms.Field] = []
        for _ in WHOLES:
            amounts += [
                forms.IntegerField(min_value=0, max_value=budgets.MOST, required=False),
                forms.DecimalField(min_value=0, max_value=MOST_MONEY, required=False),
            ]
        super().__init__(
            fields=(
                *amounts,
                forms.DecimalField(min_value=0, max_value=MOST_MONEY, required=False),
                forms.RegexField(
                    r"^[A-Za-z]{3}$",
                    required=False,
                    error_messages={"invalid": "A currency has three letters: EUR."},
                ),
                forms.CharField(max_length=64, required=False),
                forms.BooleanField(required=False),
            ),
            widget=BudgetWidget(),
            require_all_fields=False,
            **{"required": False} | kwargs,
        )

    def compress(self, values: list[Any]) -> dict[str, Any]:
        if not values:
            return {}
        *amounts, cost, currency, timezone, even = values
        currency = (currency or "").upper()
        found: dict[str, Any] = {}
        for number, whole in enumerate(WHOLES):
            sends, money = amounts[2 * number], amounts[2 * number + 1]
            said = {
                **({} if sends is None else {"sends": sends}),
                **({} if money is None else {"money": _minor(money, currency)}),
            }
            if said:
                found[whole.value] = said
        if not found and not even and not cost:
            return {}
        if timezone and timezone not in wallclock.zones():
            raise ValidationError("There is no such time zone; one is Europe/Helsinki.")
        return found | {
            **({"cost": _minor(cost, currency)} if cost else {}),
            **({"currency": currency} if currency else {}),
            **({"timezone": timezone} if timezone else {}),
            **({"even": True} if even else {}),
        }


def _minor(amount: Decimal, currency: str) -> int:
    """12.5 EUR → 1250 cents; refused where the currency has no such part."""
    scaled = amount.scaleb(budgets.digits(currency))
    if scaled != scaled.to_integral_value():
        raise ValidationError(f"{amount} has more decimals than {currency or 'money'} has.")
    return int(scaled)


def _shown(minor: int | None, currency: str) -> str | None:
    if minor is None:
        return None
    digits = budgets.digits(currency)
    return f"{Decimal(minor).scaleb(-digits):.{digits}f}"


class GoalWidget(forms.MultiWidget):
    """What kind of goal, then what that kind needs; a script shows only that."""

    template_name = "admin/campaigns/campaign/goal.html"

    def __init__(self, span: forms.Widget) -> None:
        super().__init__(
            [
                forms.Select({**INPUT, "aria-label": "What for"}, choices=GOALS),
                forms.TextInput(
                    INPUT | {"list": "known-events", "placeholder": "e.g. purchase", "size": 20}
                ),
                forms.TextInput(INPUT | {"placeholder": "tags, with commas between", "size": 24}),
                forms.Select(INPUT, choices=FEEDBACKS),
                span,
            ]
        )

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        names = ("kind", "event", "tags", "feedback", "within")
        return context | dict(zip(names, context["widget"]["subwidgets"], strict=True))

    def decompress(self, value: Any) -> list[Any]:
        if not value:
            return ["", "", "", "opened", 7 * 86_400]
        goal = msgspec.convert(value, Goal)
        kind = "event" if goal.event else "feedback" if goal.feedback else "visit"
        return [kind, goal.event or "", ", ".join(goal.tags), goal.feedback, goal.within_s]


class GoalField(forms.MultiValueField):
    """A goal in CONTRACT's shape, or nothing."""

    def __init__(self, **kwargs: Any) -> None:
        span = SpanField(units={86_400: "days", 3_600: "hours", 60: "minutes"})
        super().__init__(
            fields=(
                forms.ChoiceField(choices=GOALS, required=False),
                forms.CharField(max_length=128, required=False),
                forms.CharField(max_length=10_000, required=False),
                forms.ChoiceField(choices=FEEDBACKS, required=False),
                span,
            ),
            widget=GoalWidget(span.widget),
            require_all_fields=False,
            **{"required": False} | kwargs,
        )

    def compress(self, values: list[Any]) -> dict[str, Any]:
        if not values or not values[0]:
            return {}
        kind, event, tags, feedback, within_s = values
        within = {"within_s": within_s} if within_s else {}
        if kind == "event":
            if not event:
                raise ValidationError("Name the event that the offer is for.")
            return {"event": event, **within}
        if kind == "feedback":
            return {"feedback": feedback or "opened", **within}
        named = listed(tags)
        return {**({"tags": named} if named else {}), **within}


class OfferFields(forms.Form):
    """What an offer may cost, and how its worth is found out."""

    budget = BudgetField(label="Budget")
    coupon_pool = forms.ChoiceField(
        required=False,
        label="Coupons from",
        widget=forms.Select(INPUT),
        help_text="Each offer carries a code of its own: put {{ coupon.code }} into it.",
    )
    variants = JsonField("variants", empty=[], label="Variants")
    holdout = forms.FloatField(
        required=False,
        min_value=0,
        max_value=90,
        label="Leave out, to compare",
        widget=forms.NumberInput({**AMOUNT, "step": "any", "max": 90}),
        help_text="Percent of people who get nothing on purpose; they stay the same people.",
    )
    goal = GoalField(label="The offer is for them to")
    optimise = forms.BooleanField(
        required=False,
        label="Let the variant that reaches the goal best get more",
        help_text="Needs two variants and a goal. Every variant keeps a share until one is "
        "surely the best.",
    )

    def offer_groups(self) -> dict[str, bool]:
        """Which groups of fields are shown open: those that say something, or are wrong."""
        groups = {
            "budget": ("budget",),
            "coupons": ("coupon_pool",),
            "variants": ("variants", "optimise"),
            "worth": ("holdout", "goal"),
        }
        return {
            group: any(self._says_something(name) for name in names)
            for group, names in groups.items()
        }

    def _says_something(self, name: str) -> bool:
        if self.is_bound:
            return bool(self[name].errors or self.cleaned_data.get(name))
        return bool(self.initial.get(name))

    def choose_pools(self, brand: Brand, chosen: str) -> None:
        """Offer the brand's pools with what they have left, and the one chosen, even if gone."""
        pools = list(CouponPool.objects.filter(brand=brand))
        stock = coupons.stock_of(pools) if pools else {}
        choices = [("", "– no coupons –")]
        for pool in pools:
            left = stock[pool.pk].left
            says = "no end" if left is None else f"{left:,} left"
            low = ", running low" if stock[pool.pk].is_low else ""
            choices.append((pool.slug, f"{pool.name} ({says}{low})"))
        if chosen and chosen not in dict(choices):
            choices.append((chosen, f"{chosen} (gone)"))
        field = self.fields["coupon_pool"]
        assert isinstance(field, forms.ChoiceField), "one of several"
        field.choices = choices


def initial_of(definition: Definition) -> dict[str, Any]:
    """The fields' initial values for a definition."""
    return {
        "budget": msgspec.to_builtins(definition.budget) if definition.budget else {},
        "coupon_pool": definition.coupon_pool,
        "variants": [msgspec.to_builtins(variant) for variant in definition.variants],
        "holdout": f"{definition.holdout * 100:g}" if definition.holdout else None,
        "goal": msgspec.to_builtins(definition.goal) if definition.goal else {},
        "optimise": definition.optimise is not None,
    }


def raw_of(said: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields say in CONTRACT's shape; details that they do not show stay."""
    found: dict[str, Any] = {
        name: said[name] for name in ("budget", "coupon_pool", "variants") if said[name]
    }
    if said["holdout"]:
        found["holdout"] = said["holdout"] / 100
    if said["goal"]:
        found["goal"] = _goal(said["goal"], base.get("goal") or {})
    if said["optimise"]:
        found["optimise"] = base.get("optimise") or {}
    return found


def _goal(said: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    goal = dict(said)
    if goal.get("event") and goal["event"] == before.get("event") and before.get("where"):
        goal["where"] = before["where"]
    if not goal.get("event") and not goal.get("feedback") and before.get("geofences"):
        goal["geofences"] = before["geofences"]
    return goal
