"""What an offer says: Liquid templates, in a sandbox, in the reader's locale. No rows, no files.

A template sees `device` (its attributes among them), `place`, `moment`, `event`, `brand` and
`campaign`, nothing else. Loops, output, memory and source length are limited, there is no way to
include another template, and what a template may not do is found before it is published.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
from liquid import Environment, Mode
from liquid.exceptions import LiquidError

from campaigns.definition import ContentText, LocalContent, Missing
from notifications import push

MAX_TEMPLATE_CHARS = 4_000
MAX_TITLE_CHARS = 200  # phones cut titles at some 65, long before this
MAX_BODY_CHARS = 2_000
MAX_VALUE = 20_000  # characters or items that a filter may see or make
MAX_LOOPS = 1_000
CACHED_TEMPLATES = 4_096
CACHED_TEXTS = 16_384

ROOTS = frozenset({"device", "place", "moment", "event", "brand", "campaign", "coupon"})
_FIELDS = ("title", "body", "deep_link", "image_url")
_LINKED = frozenset({"deep_link", "image_url"})
_FORBIDDEN_TAGS = ("include", "render")


class ContentError(ValueError):
    """The offer cannot be made; `field` is the template at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class _Sandbox(Environment):
    loop_iteration_limit = MAX_LOOPS
    local_namespace_limit = 50_000
    output_stream_limit = 16_384
    context_depth_limit = 8
    block_nesting_limit = 12


def _bounded(limited: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that neither takes nor makes more than MAX_VALUE: chains of replace explode."""

    @functools.wraps(limited)
    def call(*values: Any, **named: Any) -> Any:
        for value in (*values, *named.values()):
            _refuse_huge(value)
        made = limited(*values, **named)
        _refuse_huge(made)
        return made

    return call


def _refuse_huge(value: object) -> None:
    if isinstance(value, int):
        too_much = abs(value) > 10**30
    else:
        too_much = isinstance(value, str | bytes | Sequence) and len(value) > MAX_VALUE
    if too_much:
        raise LiquidError("a value grows beyond every screen", token=None)


def _sandbox() -> _Sandbox:
    environment = _Sandbox(tolerance=Mode.STRICT, strict_filters=True)
    for tag in _FORBIDDEN_TAGS:
        environment.tags.pop(tag, None)
    for name, limited in list(environment.filters.items()):
        environment.filters[name] = _bounded(limited)
    return environment


_ENVIRONMENT = _sandbox()


@functools.lru_cache(maxsize=CACHED_TEMPLATES)
def _parsed(source: str) -> Any:
    if len(source) > MAX_TEMPLATE_CHARS:
        raise LiquidError(f"longer than {MAX_TEMPLATE_CHARS} characters", token=None)
    return _ENVIRONMENT.from_string(source)


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
    tags = _fallbacks(locale) if content.locales else []
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
            if root in _parsed(source).analyze().globals:
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
            named = _parsed(source).analyze().globals
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
    plain = [(name, getattr(content, name)) for name in _FIELDS]
    return [(name, source) for name, source in plain if source is not None] + [
        (f"data.{key}", source) for key, source in content.data.items()
    ]


def _problem(source: str) -> str:
    """Why a template must not be published, or nothing."""
    try:
        unknown = sorted(set(_parsed(source).analyze().globals) - ROOTS)
    except (LiquidError, RecursionError) as error:
        return _said(error)
    if unknown:
        return f"{', '.join(unknown)}: a template knows only {', '.join(sorted(ROOTS))}."
    return ""


def _rendered(field: str, source: str, names: Mapping[str, Any]) -> str:
    if "{" not in source:
        return source.strip()
    try:
        text = _text(source, names)
    # Templates are programs of strangers: whatever goes wrong in one is its own fault, named,
    # and never stops the batch it is part of.
    except Exception as error:
        raise ContentError(field, _said(error)) from error
    return text.strip()


def _text(source: str, names: Mapping[str, Any]) -> str:
    """The text; what the same values made before is not made again."""
    paths = _reads(source)
    if paths is not None:
        values = [_value(names, path) for path in paths]
        if all(type(value) in _PLAIN for value in values):
            return _text_of(source, *values)
    text: str = _parsed(source).render(**names)
    return text


class _Unknown:
    """Stands for a name that is not there."""


_UNKNOWN = _Unknown()
# Equal values of one of these types read alike; 0.0 and -0.0 do not.
_PLAIN = frozenset({str, int, bool, type(None), _Unknown})


@functools.lru_cache(maxsize=CACHED_TEMPLATES)
def _reads(source: str) -> tuple[tuple[str, ...], ...] | None:
    """The names whose values make the text of a template; None where more may play a part."""
    found = _parsed(source).analyze()
    # `date` knows what time it is, and tags may loop over what is no plain value.
    if found.tags or "date" in found.filters or not found.globals.keys() <= ROOTS:
        return None
    paths = [tuple(one.segments) for uses in found.globals.values() for one in uses]
    if any(type(name) is not str or name in _COMPUTED for path in paths for name in path):
        return None
    return tuple(dict.fromkeys(paths))


_COMPUTED = frozenset({"size", "first", "last"})  # Liquid answers these of any list


def _value(names: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = names
    for name in path:
        if not isinstance(found, Mapping):
            return ()  # no plain value: Liquid may make something of it
        found = found.get(name, _UNKNOWN)
        if found is _UNKNOWN:
            break
    return found


@functools.lru_cache(maxsize=CACHED_TEXTS, typed=True)
def _text_of(source: str, *values: object) -> str:
    """A template's text from nothing but the values of what it reads, in that order."""
    names: dict[str, Any] = {}
    for path, value in zip(_reads(source) or (), values, strict=True):
        if value is _UNKNOWN:
            continue
        inner = names
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    text: str = _parsed(source).render(**names)
    return text


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
    return next(
        (one for name, one in locales.items() if name.replace("_", "-").lower() == tag), None
    )
