"""Template tags of the admin: times with their UTC, charts, numbers. They read no rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from django import template
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

register = template.Library()


@register.filter
def when(at: datetime | None) -> str | SafeString:
    """A time in the brand's zone, to the second; UTC appears on hover."""
    if at is None:
        return "–"
    here = localtime(at)
    same_day = here.date() == localtime(timezone.now()).date()
    # Digits, not words: support compares times more often than it reads them.
    shown = f"{here:%H:%M:%S}" if same_day else f"{here:%d %b %Y %H:%M:%S}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        at.astimezone(UTC).isoformat(),
        f"{at.astimezone(UTC):%d %b %Y %H:%M:%S} UTC",
        shown,
    )


@register.filter
def clock(at: datetime) -> SafeString:
    """The time of day in the brand's zone; the whole of it, in UTC, on hover."""
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        at.astimezone(UTC).isoformat(),
        f"{at.astimezone(UTC):%d %b %Y %H:%M:%S.%f}"[:-3] + " UTC",
        f"{localtime(at):%H:%M:%S}",
    )


@register.simple_tag
def as_list(one: object) -> list[object]:
    """A list of one, for templates that show lists."""
    return [one]


@register.filter
def day(at: datetime) -> str:
    """The date in the brand's zone, as a heading."""
    here = localtime(at).date()
    days = (localtime(timezone.now()).date() - here).days
    named = {0: "Today", 1: "Yesterday"}.get(days)
    return f"{named}, {here:%d %B}" if named else f"{here:%A, %d %B %Y}"


@register.filter
def seconds(number: float | None) -> str:
    """A span in words: 90 → 1 min 30 s."""
    if number is None:
        return "–"
    left = round(number)
    parts = []
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, unit_s)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


@register.filter
def much(number: int | None) -> str:
    """A count, short: 12,345 → 12.3 k; None is a dash."""
    if number is None:
        return "–"
    for size, unit in ((1_000_000_000, "bn"), (1_000_000, "M"), (10_000, "k")):
        if number >= size:
            return f"{number / (1000 if unit == 'k' else size):.1f} {unit}"
    return f"{number:,}"


@register.filter
def exactly(number: int) -> str:
    """A count of which every one matters: 12345 → 12,345."""
    return f"{number:,}"


@register.simple_tag
def bars(values: Sequence[float], labels: Sequence[str], title: str = "") -> SafeString:
    """Draw a small bar chart as inline SVG: one bar per value, its label on hover."""
    top = max([*values, 1])
    width, gap, height = 10, 2, 48
    drawn = format_html_join(
        "",
        '<rect x="{}" y="{}" width="{}" height="{}" rx="1.5"><title>{}</title></rect>',
        (
            (
                at * (width + gap),
                f"{height - max(1.0, value / top * height):.1f}",
                width,
                f"{max(1.0, value / top * height):.1f}",
                f"{label}: {value:,.0f}",
            )
            for at, (value, label) in enumerate(zip(values, labels, strict=True))
        ),
    )
    return format_html(
        '<svg class="nc-bars" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg>',
        max(1, len(values)) * (width + gap) - gap,
        height,
        title,
        drawn,
    )
