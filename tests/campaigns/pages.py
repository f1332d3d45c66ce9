"""What a browser sends of a page's fields when nobody touches them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from django import forms
from django.http import QueryDict

_UNSENT = {"submit", "button", "reset", "image", "file"}


class _Controls(HTMLParser):
    """Controls of HTML with what they hold, after a browser's own rules for each kind."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.sent: list[tuple[str, str]] = []
        self._select = self._textarea = ""
        self._options: list[tuple[str, bool]] = []
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        name, value = said.get("name") or "", said.get("value")
        if tag == "input" and name and said.get("type") not in _UNSENT:
            if said.get("type") in {"checkbox", "radio"}:
                if "checked" in said:
                    self.sent.append((name, "on" if value is None else value))
            elif said.get("type") == "hidden":
                self.sent.append((name, value or ""))
            else:  # a line: no line breaks stay in it
                self.sent.append((name, re.sub(r"[\r\n]", "", value or "")))
        elif tag == "select":
            self._select, self._options = name, []
        elif tag == "option" and self._select:
            self._options.append((value or "", "selected" in said))
        elif tag == "textarea":
            self._textarea, self._text = name, ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "select" and self._select:
            chosen = [value for value, is_chosen in self._options if is_chosen]
            self.sent += [(self._select, one) for one in chosen or [self._options[0][0]]]
            self._select = ""
        elif tag == "textarea" and self._textarea:
            lines = re.sub(r"\r\n?|\n", "\n", self._text).removeprefix("\n")
            self.sent.append((self._textarea, lines.replace("\n", "\r\n")))
            self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self._text += data


def untouched(form: forms.Form) -> QueryDict:
    """The fields of a form as a browser sends them back."""
    page = _Controls()
    page.feed("".join(str(form[name]) for name in form.fields))
    page.close()
    sent = QueryDict(mutable=True)
    for name, value in page.sent:
        sent.appendlist(name, value)
    return sent
