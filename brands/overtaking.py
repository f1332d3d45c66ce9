"""Two people who change one row at a time: whoever saves second is told, and replaces nothing.

A page carries the mark of the row as it was opened. It says nothing of who was faster.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar

from django import forms
from django.db import transaction
from django.db.models import Model
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime


def mark_of(row: Model, columns: Sequence[str] = ()) -> str:
    """What tells a row from what it was before; empty for one that is not stored yet.

    Of every column but the time of the last save, so that to save without a change tells nobody
    anything; or of the columns named.
    """
    if row._state.adding:
        return ""
    told = [
        field.value_from_object(row)
        for field in row._meta.concrete_fields
        if (field.name in columns if columns else not getattr(field, "auto_now", False))
    ]
    said = json.dumps(told, sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def in_words(saved: Model, *, who: str = "Somebody", done: str = "typed") -> SafeString:
    """Who was faster, and what becomes of what is on this page."""
    at = getattr(saved, "updated_at", None)
    return format_html(
        "{} saved this {}{}, after you had opened it. Nothing is saved yet, and all you {} is "
        "still here: saving once more replaces what they said. "
        '<a class="nc-link" href="{}" target="_blank" rel="noopener">See what is saved</a>',
        who,
        saved._meta.verbose_name,
        f" at {localtime(at):%H:%M:%S} ({localtime(at).tzinfo})" if at else "",
        done,
        reverse(f"admin:{saved._meta.label_lower.replace('.', '_')}_change", args=[saved.pk]),
    )


class MarkedForm(forms.ModelForm):  # type: ignore[type-arg]
    """A form that replaces no colleague's change which whoever saves has not seen.

    It is validated and saved in one transaction: the row is locked in between.
    """

    marked: ClassVar[Sequence[str]] = ()  # the columns that make the mark; none named: all
    done = "typed"  # what people do on the page
    mark = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Now: validating writes onto the instance what was typed.
        self.initial["mark"] = mark_of(self.instance, self.marked)

    def save_if_valid(self) -> Any:
        """The row as saved; None where nothing was sent, or the form says why it cannot be."""
        if not self.is_bound:
            return None
        with transaction.atomic():
            return self.save() if self.is_valid() else None

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        opened = str(given.pop("mark", ""))  # it is nothing of the row
        if not self.instance._state.adding:
            # Who sends no mark (a script) has seen no page on which something could be out of date.
            self._refuse_if_overtaken(opened if self.add_prefix("mark") in self.data else None)
        return given

    def _refuse_if_overtaken(self, opened: str | None) -> None:
        model = type(self.instance)
        name = self.instance._meta.verbose_name
        # No key changes, and rows that refer to this one need not wait.
        rows = model._default_manager.select_for_update(of=("self",), no_key=True)
        saved = rows.filter(pk=self.instance.pk).first()
        if saved is None:
            self.add_error(None, f"Somebody deleted this {name} after you had opened it.")
            return
        mark = mark_of(saved, self.marked)
        if opened is not None and opened != mark:
            self.add_error(None, in_words(saved, done=self.done))
            # From here on they know: what they send next is meant to replace it.
            sent: Any = self.data  # what a request sent is not written to
            self.data = sent = sent.copy()
            sent[self.add_prefix("mark")] = mark
