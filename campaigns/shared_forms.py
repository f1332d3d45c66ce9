"""The forms of what a brand's campaigns share: segments, and rules of relevance.

What a condition or a rule may say, `campaigns.conditions` and `campaigns.guards` know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from django import forms
from django.core.exceptions import ValidationError

from brands.fields import WIDE, JsonField, RowsWidget
from brands.models import Brand
from brands.overtaking import MarkedForm
from campaigns import conditions, guards, slugs
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

    def clean_tree(self) -> dict[str, Any]:
        """Refuse what the rules could not run."""
        tree: dict[str, Any] = self.cleaned_data["tree"]
        slugs = Segment.objects.filter(brand=self.instance.brand).values_list("slug", "tree")
        found = conditions.problems(tree, path="audience", known_segments=[s for s, _ in slugs])
        if found:
            raise ValidationError([detail(path, "audience") + text for path, text in found])
        trees = dict(slugs) | ({self.instance.slug: tree} if self.instance.slug else {})
        if self.instance.slug and _reaches(self.instance.slug, tree, trees):
            raise ValidationError("The segment would be part of itself.")
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


def _reaches(slug: str, tree: Any, trees: Mapping[str, Any]) -> bool:
    """Say whether following a tree's segments leads to `slug`."""
    ahead, seen = conditions.segments_in(tree), set[str]()
    while ahead:
        one = ahead.pop()
        if one == slug:
            return True
        if one not in seen:
            seen.add(one)
            ahead |= conditions.segments_in(trees.get(one))
    return False
