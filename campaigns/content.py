"""What an offer says: Liquid templates, in a sandbox, in the reader's locale. No rows, no files.

A template sees `device` (its attributes among them), `place`, `moment`, `event`, `brand` and
`campaign`, nothing else. Loops, output, memory and source length are limited, there is no way to
include another template, and what a template may not do is found before it is published.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
from liquid.exceptions import LiquidError

from campaigns import templates
from campaigns.definition import ContentText, LocalContent, language_tag
from campaigns.lacks import Missing
from campaigns.templates import ROOTS, parsed
from notifications import push

MAX_TITLE_CHARS = 200  # phones cut titles at some 65, long before this
MAX_BODY_CHARS = 2_000

_FIELDS = ("title", "body", "deep_link", "image_url")
_LINKED = frozenset({"deep_link", "image_url"})


class ContentError(ValueError):
    """The offer cannot be made; `field` is the template at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything a template may speak of."""

    device: Mapping[str, Any]
    place: Mapping[str, Any]
    moment: Mapping[str, Any]
    event: Mapping[str, Any]
    brand: Mapping[str, Any]
    campaign: Mapping[str, Any]
    coupon: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def names(self) -> dict[str, Any]:
        return {root: getattr(self, root) for root in ROOTS}


SAMPLE = Scene(
    device={"platform": "android", "locale": "en", "external_id": "customer-1", "attributes": {}},
    place={"name": "Shop", "external_id": "shop-1", "tags": ["shop"], "metadata": {}},
    moment={"on": "entered", "dwell_s": 600, "distance_m": 40},
    event={"name": "purchase", "properties": {}},
    brand={"name": "Brand"},
    campaign={"name": "Campaign"},
    coupon={"code": "7K3M-2V9D-0QXW-8RTA", "last_day": "2030-12-31"},
)
"""Stands in for a real moment when templates are tried before publishing."""

MEMBERS = {
    "device": frozenset(
        {"platform", "locale", "timezone", "app_version", "external_id", "attributes"}
    ),
    "place": frozenset({"id", "name", "external_id", "tags", "metadata"}),
    "moment": frozenset({"on", "at", "dwell_s", "distance_m"}),
    "event": frozenset({"name", "properties"}),
    "brand": frozenset({"name"}),
    "campaign": frozenset({"name"}),
    "coupon": frozenset({"code", "last_day"}),
}
"""What each root of a scene has (`judging.scene_of`): all else would say nothing to anybody."""


def render(content: ContentText, scene: Scene, *, locale: str = "") -> dict[str, Any]:
    """The offer as `notifications.push.Content` in JSON values; ContentError where it fails."""
    names = scene.names()
    texts = localised(content, locale)
    made: dict[str, Any] = {}
    for field, source in texts.items():
        text = _rendered(field, source, names)
        if text or field in {"title", "body"}:
            made[field] = text
    if content.data:
        made["data"] = {
            key: _rendered(f"data.{key}", source, names) for key, source in content.data.items()
        }
    if content.push is not None:
        made["push"] = msgspec.to_builtins(content.push)
    _refuse_unfit(made, content)
    return made


def localised(content: ContentText, locale: str) -> dict[str, str]:
    """The templates for a reader: fr-CA, else fr, else the default, each field by itself."""
    if not content.locales:
        return dict(_plain_sources(content))
    tags = _fallbacks(locale)
    chain = [one for tag in tags if (one := _find(content.locales, tag)) is not None]
    found: dict[str, str] = {}
    for field in _FIELDS:
        sources = (getattr(one, field) for one in (*chain, content))
        source = next((text for text in sources if text is not None), None)
        if source is not None:
            found[field] = source
    return found


def check(content: ContentText) -> list[Missing]:
    """What must be mended before this content is published: every template in every locale."""
    found: list[Missing] = []
    sources = [(f"content.{name}", source) for name, source in _sources(content)]
    for tag, local in content.locales.items():
        for name in _FIELDS:
            if (source := getattr(local, name)) is not None:
                sources.append((f"content.locales.{tag}.{name}", source))  # noqa: PERF401
    for path, source in sources:
        problem = _problem(source)
        if problem:
            found.append(Missing(field=path, code="template_error", message=problem))
    found += [
        Missing(
            field=f"content.data.{key}",
            code="reserved",
            message="FCM or Nearcast keeps this word for itself.",
        )
        for key in content.data
        if push.is_reserved(key)
    ]
    if not found and content.title.strip() and content.body.strip():
        found += _try_locales(content)
    return found


def speaks_of(content: ContentText, root: str) -> bool:
    """Whether any template names this; one that cannot be read names nothing."""
    sources = [source for _, source in _sources(content)]
    for local in content.locales.values():
        sources += [text for name in _FIELDS if (text := getattr(local, name)) is not None]
    for source in sources:
        try:
            if root in parsed(source).analyze().globals:
                return True
        except (LiquidError, RecursionError):
            continue
    return False


_WITH_DEFAULT = re.compile(r"([\w.]+)\s*\|[^}]*\bdefault\b")


def unguarded(content: ContentText) -> set[tuple[str, ...]]:
    """Paths such as (device, attributes, tier) that the texts name without saying what else."""
    found: set[tuple[str, ...]] = set()
    every: list[ContentText | LocalContent] = [content, *content.locales.values()]
    for source in (text for one in every for text in _texts(one)):
        try:
            named = parsed(source).analyze().globals
        except (LiquidError, RecursionError):
            continue
        guarded = set(_WITH_DEFAULT.findall(source))
        for variable in (one for uses in named.values() for one in uses):
            path = tuple(map(str, variable.segments))
            if ".".join(path) not in guarded:
                found.add(path)
    return found


def _texts(content: ContentText | LocalContent) -> list[str]:
    return [text for name in ("title", "body") if (text := getattr(content, name))]


def _try_locales(content: ContentText) -> list[Missing]:
    """Render every locale once: limits, sizes and addresses show only in the result."""
    found: list[Missing] = []
    for locale in ("", *content.locales):
        try:
            render(content, SAMPLE, locale=locale)
        except ContentError as error:
            path = f"content.locales.{locale}.{error.field}" if locale else f"content.{error.field}"
            found.append(Missing(field=path, code="content_error", message=error.message))
    return found


def _sources(content: ContentText) -> list[tuple[str, str]]:
    return _plain_sources(content) + [
        (f"data.{key}", source) for key, source in content.data.items()
    ]


def _plain_sources(content: ContentText) -> list[tuple[str, str]]:
    plain = [(name, getattr(content, name)) for name in _FIELDS]
    return [(name, source) for name, source in plain if source is not None]


def _problem(source: str) -> str:
    """Why a template must not be published, or nothing."""
    try:
        named = parsed(source).analyze().globals
    except (LiquidError, RecursionError) as error:
        return _said(error)
    unknown = sorted(set(named) - ROOTS)
    if unknown:
        return f"{', '.join(unknown)}: a template knows only {', '.join(sorted(ROOTS))}."
    paths = {tuple(map(str, one.segments[:2])) for uses in named.values() for one in uses}
    for root, *members in sorted(paths):
        if members and members[0] not in MEMBERS[root]:
            known = ", ".join(f"{root}.{name}" for name in sorted(MEMBERS[root]))
            return f"{root}.{members[0]} is nothing that a template knows; {known} are."
    return ""


def _rendered(field: str, source: str, names: Mapping[str, Any]) -> str:
    if "{" not in source:
        return source.strip()
    try:
        said = templates.text(source, names)
    # Templates are programs of strangers: whatever goes wrong in one is its own fault, named,
    # and never stops the batch it is part of.
    except Exception as error:
        raise ContentError(field, _said(error)) from error
    return said.strip()


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200]


def _refuse_unfit(made: Mapping[str, Any], content: ContentText) -> None:
    for field, limit in (("title", MAX_TITLE_CHARS), ("body", MAX_BODY_CHARS)):
        if not made[field]:
            raise ContentError(field, "is empty")
        if len(made[field]) > limit:
            raise ContentError(field, f"is {len(made[field])} characters, {limit} are allowed")
    for field in _LINKED & made.keys():
        parts = urlsplit(made[field])
        if not parts.scheme or (field == "image_url" and parts.scheme != "https"):
            wanted = "an https address" if field == "image_url" else "an address with a scheme"
            raise ContentError(field, f"{made[field][:80]!r} is not {wanted}")
    if not content.data and push.fits_easily(made[field] for field in _FIELDS if field in made):
        return
    refusal = push.refusal(
        push.Push(
            delivery_id=2**62,  # as long as an id may become
            token="",
            title=made["title"],
            body=made["body"],
            ttl_s=0,
            collapse_key="",
            image_url=made.get("image_url"),
            deep_link=made.get("deep_link"),
            data=made.get("data", {}),
            options=content.push or push.PushOptions(),
        )
    )
    if refusal is not None:
        raise ContentError("body", f"{refusal.code.lower()}: {refusal.detail}")


def _fallbacks(locale: str) -> list[str]:
    """`zh_Hant-TW` → zh-hant-tw, zh-hant, zh."""
    parts = [part for part in locale.replace("_", "-").lower().split("-") if part]
    return ["-".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _find(locales: Mapping[str, LocalContent], tag: str) -> LocalContent | None:
    return next((one for name, one in locales.items() if language_tag(name) == tag), None)
