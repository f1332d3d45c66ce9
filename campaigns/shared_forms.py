"""The forms of what a brand's campaigns share: segments, and rules of relevance.

What a condition or a rule may say, `campaigns.conditions` and `campaigns.guards` know.
"""

from __future__ import annotations

from typing import Any

import msgspec
from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction

from brands.fields import WIDE, JsonField, RowsWidget
from brands.models import Brand
from brands.overtaking import MarkedForm
from campaigns import conditions, guards, locks, publishing, slugs
from campaigns.forms import detail
from campaigns.models import BrandGuard, Segment
from campaigns.suggesting import suggestions


class SegmentForm(MarkedForm):
    """A named audience, with the same conditions as a campaign's."""

    tree = JsonField("conditions", empty={}, label="Who belongs to it")

    class Meta:
        model = Segment
        fields = ("name", "tree")
        widgets = {"name": forms.TextInput(WIDE | {"placeholder": "e.g. Gold members"})}

    def __init__(self, *args: Any, brand: Brand, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.brand = brand
        widget = self.fields["tree"].widget
        assert isinstance(widget, RowsWidget), "the tree is edited as rows"
        options = suggestions(brand)["audience"]
        # A segment cannot be part of itself.
        options["segments"] = [one for one in options["segments"] if one[0] != self.instance.slug]
        widget.options = widget.options | options

    def save_if_valid(self) -> Any:
        """As any, while nobody else writes a segment of the brand: they refer to each other."""
        if not self.is_bound:
            return None
        with transaction.atomic():
            locks.take("segments", [self.instance.brand_id])
            return super().save_if_valid()

    def clean_tree(self) -> dict[str, Any]:
        """Refuse what the rules could not run."""
        tree: dict[str, Any] = self.cleaned_data["tree"]
        others = Segment.objects.filter(brand=self.instance.brand).exclude(pk=self.instance.pk)
        trees = dict(others.values_list("slug", "tree"))
        slug = self.instance.slug  # empty, and no other's, until it is first saved
        known = [*trees, *filter(None, [slug])]
        found = conditions.problems(tree, path="audience", known_segments=known)
        if found:
            raise ValidationError([detail(path, "audience") + text for path, text in found])
        try:
            publishing.compile_segment(slug, trees | {slug: tree})
        except conditions.AudienceError as error:
            raise ValidationError([_said(one) for one in error.problems]) from error
        return tree

    def save(self, commit: bool = True) -> Segment:
        if not self.instance.slug:
            self.instance.slug = slugs.free(Segment, self.instance.brand, self.cleaned_data["name"])
        saved: Segment = super().save(commit)
        return saved


class BrandGuardForm(MarkedForm):
    """A rule that all of a brand's campaigns keep."""

    rule = JsonField("guards", empty=[], label="Never where")

    class Meta:
        model = BrandGuard
        fields = ("name", "rule")
        widgets = {"name": forms.TextInput(WIDE | {"placeholder": "e.g. Not after a complaint"})}

    def __init__(self, *args: Any, brand: Brand, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instance.brand = brand
        # The widget shows a list of rules; here it is one.
        self.initial["rule"] = [self.instance.rule] if self.instance.rule else []
        widget = self.fields["rule"].widget
        assert isinstance(widget, RowsWidget), "a rule is edited as a row"
        widget.options = widget.options | suggestions(brand)["guards"] | {"single": True}

    def clean_rule(self) -> dict[str, Any]:
        """Refuse what no campaign could keep."""
        try:
            texts = msgspec.convert(self.cleaned_data["rule"], tuple[guards.GuardText, ...])
        except msgspec.ValidationError as error:
            raise ValidationError(str(error)) from error
        found = guards.problems(texts, path="")
        if found or len(texts) != 1:
            raise ValidationError([text for _, text in found] or "Say what the rule is.")
        rule: dict[str, Any] = msgspec.to_builtins(texts[0])
        return rule


def _said(problem: conditions.Problem) -> str:
    """What is wrong, and with which other segment where it is one."""
    path, text = problem
    return f"{path}: {text}" if path.startswith("segment ") else text
