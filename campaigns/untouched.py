"""Says which fields of a posted form say just what the page showed, as a browser sends it back.

A page shows some values more coarsely than they are kept: an instant to the minute, a line without
its line breaks. What nobody touched must stay as it was kept, not as it was shown.
"""

from __future__ import annotations

import json
import re
from typing import Any

from django import forms
from django.utils.datastructures import MultiValueDict

from brands.fields import RowsWidget


def is_untouched(form: forms.Form, name: str, kept: Any) -> bool:
    """Whether a field of a bound form was sent as it is shown for the value `kept`."""
    field = form.fields[name]
    shown = field.prepare_value(kept)
    return _is_same(field.widget, form.add_prefix(name), shown, form.data)


def _is_same(widget: forms.Widget, name: str, shown: Any, sent: Any) -> bool:
    if isinstance(widget, forms.MultiWidget):
        parts = shown if isinstance(shown, list | tuple) else widget.decompress(shown)
        return all(
            _is_same(part, f"{name}_{number}", one, sent)
            for number, (part, one) in enumerate(zip(widget.widgets, parts or (), strict=True))
        )
    said = widget.value_from_datadict(sent, MultiValueDict(), name)
    if isinstance(widget, RowsWidget):
        return bool(_parsed(shown) == _parsed(said))
    if isinstance(widget, forms.CheckboxInput):
        return bool(shown) is bool(said)
    return _texts(widget, _preset(widget, shown)) == _texts(widget, said)


def _preset(widget: forms.Widget, shown: Any) -> Any:
    """What a control holds when the page comes; a list of one choice always has one chosen."""
    value = widget.format_value(shown)
    if isinstance(widget, forms.Select) and not widget.allow_multiple_selected:
        choices = [str(choice) for choice, _ in widget.choices]
        return value if set(value or ()) & set(choices) else choices[:1]
    return value


def _parsed(text: Any) -> Any:
    """JSON in one spelling, so that true is not 1."""
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except (TypeError, ValueError):
        return text


def _texts(widget: forms.Widget, value: Any) -> list[str]:
    """One or several values as texts; a line has no line breaks, and a text has short ones."""
    values = value if isinstance(value, list | tuple | set) else [value]
    mark = "\n" if isinstance(widget, forms.Textarea) else ""
    # A choice that was said twice is one box that is ticked.
    return sorted({re.sub(r"\r\n?|\n", mark, "" if one is None else str(one)) for one in values})
