"""What a draft would do among real places and people: what breaks it, and what may surprise.

`broken` stops publishing, `cautions` only warn. It looks at the places of the campaign and at the
devices registered last; it changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import QuerySet
from django.db.models.fields import TextField
from django.db.models.functions import Cast, Length

from brands import wallclock
from brands.patience import TookTooLongError, patience
from campaigns import content, definition, hours, meaning, past, previews, rules
from campaigns.audience import Audience, Subject, compile_tree
from campaigns.compiling import BrandRules
from campaigns.conditions import AudienceError, without_here
from campaigns.definition import AT_PLACES, Definition, TriggerOn
from campaigns.lacks import Missing
from campaigns.places import Place, known_places
from campaigns.previews import Preview, Stage
from devices.models import Device
from geofences.models import Geofence

SAMPLED_DEVICES = 1_000
SAMPLED_PLACES = 5_000
COMPARED_PLACES = 1_000
TRIED_PLACES = 2  # with the longest names, and as many with the most to tell
AHEAD = timedelta(days=9)
LOOKS_FOR_MS = 2_000  # at what people did; a caution is not worth a longer wait
# Android cuts a title at some 65 characters on one line; iOS shows four lines of text, some 178.
TITLE_SHOWN, BODY_SHOWN = 65, 178
SPOKEN_BY = 0.05  # a language fewer people read than this is not asked for
HOLES = 0.2  # a text that is blank for more people than this is worth a word
ANYWHERE = (ZoneInfo("Etc/GMT+12"), ZoneInfo("UTC"), ZoneInfo("Etc/GMT-14"))

_OVERLAPS = """
    WITH chosen AS (
      SELECT id, name, geometry, coalesce(radius_m, 0) AS radius_m FROM geofences_geofence
       WHERE id = ANY(%s)),
    reach AS (SELECT max(radius_m) AS most_m FROM chosen)
    SELECT a.name, b.name
      FROM chosen a CROSS JOIN reach
      JOIN geofences_geofence b ON b.id = ANY(%s) AND b.id > a.id
       AND b.geometry && ST_Expand(a.geometry, (a.radius_m + reach.most_m) / (
             111320 * greatest(0.02, cos(radians(least(89, abs(ST_YMax(a.geometry))))))))
     WHERE CASE WHEN a.radius_m = 0 AND b.radius_m IS NULL
                THEN ST_Intersects(a.geometry, b.geometry)
                     AND NOT ST_Touches(a.geometry, b.geometry)
                ELSE ST_DWithin(a.geometry::geography, b.geometry::geography,
                                greatest(0, a.radius_m + coalesce(b.radius_m, 0) - 1)) END
     LIMIT 4
"""


@dataclass(frozen=True)
class Look:
    """A draft among the places and people of its brand; each is read once, when it is needed."""

    brand: BrandRules
    wanted: Definition
    name: str
    now: datetime

    @property
    def now_ms(self) -> int:
        return round(self.now.timestamp() * 1000)

    @cached_property
    def chosen(self) -> QuerySet[Geofence]:
        where = previews.whereabouts(self.wanted)
        mine: QuerySet[Geofence] = Geofence.objects.present().filter(brand_id=self.brand.id)
        return mine.none() if where is None else mine.filter(where)

    @cached_property
    def telling(self) -> list[Place]:
        """The places most likely to be too much: the longest names, the most to tell."""
        some = Geofence.objects.filter(pk__in=self.chosen.order_by().values("pk")[:SAMPLED_PLACES])
        sized = some.annotate(
            said=Length("name"), told=Length(Cast("metadata", TextField()))
        ).order_by()
        ids = [
            *sized.order_by("-said", "pk").values_list("pk", flat=True)[:TRIED_PLACES],
            *sized.order_by("-told", "pk").values_list("pk", flat=True)[:TRIED_PLACES],
        ]
        known = known_places(set(ids))
        return [known[pk] for pk in dict.fromkeys(ids) if pk in known]

    @cached_property
    def people(self) -> list[Subject]:
        """The devices registered last, as the rules see them."""
        newest = Device.objects.filter(brand_id=self.brand.id).order_by("-pk")
        ids = list(newest.values_list("pk", flat=True)[:SAMPLED_DEVICES])
        found = previews.people(ids, self.brand.id, now_ms=self.now_ms)
        return list(found.values())

    @cached_property
    def contents(self) -> dict[str, definition.ContentText]:
        return meaning.contents_of(self.wanted)

    def previews(self, who: Subject | None, where: Place | None) -> list[Preview]:
        return previews.previews(
            Stage(
                brand_name=self.brand.name, name=self.name, wanted=self.wanted, who=who, place=where
            )
        )

    @cached_property
    def shown(self) -> list[tuple[Place | None, Preview]]:
        """Every text at every telling place; without any, as the sample has it."""
        spots: list[Place | None] = [*self.telling] or [None]
        return [(where, one) for where in spots for one in self.previews(None, where)]


def broken(look: Look) -> list[Missing]:
    """What stops the draft from being published."""
    found = [] if _opens(look, (_zone(look), *ANYWHERE)) else [_unreachable(look)]
    seen: set[tuple[str, str]] = set()
    for where, one in look.shown:
        if where is None or not one.problem:
            continue
        path = _path(one, one.field_at_fault)
        if (path, one.problem) not in seen:
            seen.add((path, one.problem))
            too_large = "payload_too_big" in one.problem
            found.append(
                Missing(
                    field=path,
                    code="payload_too_large" if too_large else "content_error",
                    message=f"At {where.name}: {one.problem}.",
                )
            )
    return found


def cautions(look: Look) -> list[Missing]:
    """What may surprise whoever publishes this; nothing of it stops them."""
    if look.wanted.trigger is None or look.wanted.content is None:
        return []
    return [
        caution
        for check in (_hours, _nobody, _gone, _overlapping, _languages, _variants, _long, _holes)
        for caution in check(look)
    ]


def _zone(look: Look) -> ZoneInfo:
    return wallclock.zone(look.brand.timezone)


def _opens(look: Look, zones: Sequence[ZoneInfo]) -> bool:
    """Whether the campaign may speak at any instant of its window, in any of these zones."""
    wanted = look.wanted
    start = max(look.now, wanted.starts_at or look.now)
    end = start + AHEAD if wanted.ends_at is None else min(wanted.ends_at, start + AHEAD)
    if end <= start:
        return True  # said elsewhere: it ends before it starts, or has ended
    return any(
        hours.open_spans_ms(
            round(start.timestamp() * 1000),
            round(end.timestamp() * 1000),
            tz,
            dayparts=meaning.dayparts_of(wanted.dayparts),
            quiet=None if wanted.transactional else look.brand.quiet,
        )
        for tz in zones
    )


def _unreachable(look: Look) -> Missing:
    return Missing(
        field="dayparts" if look.wanted.dayparts else "ends_at",
        code="unreachable",
        message="It can never speak: its hours, its dates and the quiet hours leave no time.",
    )


def _hours(look: Look) -> Iterator[Missing]:
    if _opens(look, ANYWHERE) and not _opens(look, (_zone(look),)):
        yield Missing(
            field="dayparts",
            code="unreachable_here",
            message=f"In {look.brand.timezone} its hours, dates and the quiet hours leave no time; "
            "only phones in other time zones would hear of it.",
        )


def _nobody(look: Look) -> Iterator[Missing]:
    people = look.people
    if not people:
        yield Missing(field="audience", code="no_devices", message="No device has registered yet.")
        return
    of = _of(len(people))
    audience = _audience(look)
    if audience is not None and _knows_what_they_did(look, audience):
        people = [one for one in people if audience.miss(one) is None]
        if not people:
            told = (
                f"So far nobody is in the audience: none {of} fits the conditions. Visits count "
                "from when a place is watched."
                if audience.needs
                else f"Nobody is in the audience: none {of} fits the conditions."
            )
            yield Missing(field="audience", code="empty_audience", message=told)
            return
    parts = definition.selectors(look.wanted.trigger)
    at_places = any(one.on in AT_PLACES for _, one in parts)
    if at_places and not any(one.consent_location for one in people):
        yield Missing(
            field="audience",
            code="no_consent",
            message=f"None {of} in the audience has agreed to the use of their location.",
        )
    if not look.wanted.transactional and not any(one.consent_marketing for one in people):
        yield Missing(
            field="audience",
            code="no_consent",
            message=f"None {of} in the audience has agreed to marketing.",
        )


def _audience(look: Look) -> Audience | None:
    """The compiled audience, without what depends on the moment; None where it cannot be read."""
    segments = look.brand.segments
    try:
        compile_tree(look.wanted.audience, segments=segments)
        asked, _ = without_here(look.wanted.audience, segments)
        return compile_tree(asked, segments=segments)
    except AudienceError:
        return None


def _knows_what_they_did(look: Look, audience: Audience) -> bool:
    """Look up what the sampled people did, as far as the audience asks: three queries at most.

    False where that takes too long for somebody who waits for a page.
    """
    if not audience.needs:
        return True
    utc = ZoneInfo("UTC")
    moments = [
        rules.Moment(
            kind="event",
            id=0,
            on=TriggerOn.EVENT,
            occurred_ms=look.now_ms,
            now_ms=look.now_ms,
            subject=one,
            tz=utc,
            local=hours.local(look.now_ms, utc),
        )
        for one in look.people
    ]
    try:
        with patience(LOOKS_FOR_MS):
            past.measure_each([(one, look.brand.id, audience.needs) for one in moments])
    except TookTooLongError:
        return False
    return True


def _of(count: int) -> str:
    return f"of the {count:,} devices registered last" if count > 1 else "of the only device"


def _gone(look: Look) -> Iterator[Missing]:
    start = max(look.now, look.wanted.starts_at or look.now)
    ended = look.chosen.filter(ends_at__lte=start).order_by("name")
    names = list(ended.values_list("name", flat=True)[:4])
    if names:
        yield Missing(
            field="trigger.geofences",
            code="places_ended",
            message=f"These places end before the campaign begins: {_list(names)}.",
        )


def _overlapping(look: Look) -> Iterator[Missing]:
    ids = list(look.chosen.order_by("pk").values_list("pk", flat=True)[:COMPARED_PLACES])
    if len(ids) < 2:
        return
    with connection.cursor() as cursor:
        cursor.execute(_OVERLAPS, (ids, ids))
        pairs = [f"{one} and {other}" for one, other in cursor.fetchall()]
    if pairs:
        yield Missing(
            field="trigger.geofences",
            code="overlapping_geofences",
            message=f"Places overlap: {_list(pairs)}. Who is in both enters twice; at one moment "
            "only one offer is made, at two moments two, unless a cap says otherwise.",
        )


def _list(names: Sequence[str]) -> str:
    return "; ".join(names[:3]) + ("; and more" if len(names) > 3 else "")


def _languages(look: Look) -> Iterator[Missing]:
    spoken = Counter(
        one.locale.replace("_", "-").lower().split("-")[0] for one in look.people if one.locale
    )
    total = sum(spoken.values())
    common = [(tag, count) for tag, count in spoken.most_common() if count >= SPOKEN_BY * total]
    lacking: dict[str, list[str]] = {}
    for variant, told in look.contents.items():
        known = {definition.language_tag(tag).split("-")[0] for tag in told.locales}
        # The text without a language is somebody's: whom it lacks is everybody after the first.
        for tag, _ in [pair for pair in common if pair[0] not in known][1:]:
            lacking.setdefault(tag, []).append(variant)
    for tag, variants in lacking.items():
        where = _in_variants(look, variants)
        yield Missing(
            field="content.locales",
            code="missing_locale",
            message=f"{spoken[tag] / total:.0%} of phones speak “{tag}” and would get the default "
            f"text{where}.",
        )
    halves: dict[tuple[str, str], list[str]] = {}
    for variant, told in look.contents.items():
        for tag, local in told.locales.items():
            above = told.locales.get(definition.language_tag(tag).split("-")[0])
            parts = [
                name
                for name in ("title", "body")
                if getattr(local, name) is None and (above is None or getattr(above, name) is None)
            ]
            if len(parts) == 1:
                halves.setdefault((tag, parts[0]), []).append(variant)
    for (tag, name), variants in halves.items():
        where = _in_variants(look, variants)
        yield Missing(
            field=f"content.locales.{tag}.{name}" if not where else "variants",
            code="half_a_locale",
            message=f"“{tag}” has no {name} of its own and would get the default’s{where}.",
        )


def _in_variants(look: Look, variants: Sequence[str]) -> str:
    """Which variants something is true of, where it is not of all."""
    if len(variants) == len(look.contents):
        return ""
    return f" in variant{'s' if len(variants) > 1 else ''} {', '.join(variants)}"


def _variants(look: Look) -> Iterator[Missing]:
    said = look.wanted.content
    if said is None or not look.wanted.variants:
        return
    for tag, local in said.locales.items():
        same = [
            name
            for name in ("title", "body")
            if getattr(local, name) is not None
            and len({getattr(one.locales[tag], name) for one in look.contents.values()}) == 1
        ]
        if any(
            getattr(one.content, name) is not None for one in look.wanted.variants for name in same
        ):
            yield Missing(
                field=f"content.locales.{tag}",
                code="same_in_every_variant",
                message=f"Readers of “{tag}” see the same {' and '.join(same)} in every variant.",
            )


def _long(look: Look) -> Iterator[Missing]:
    worst: dict[str, tuple[int, str]] = {}
    for where, one in look.shown:
        for name, shown in (("title", TITLE_SHOWN), ("body", BODY_SHOWN)):
            length = len(str(one.made.get(name, "")))
            path = _path(one, name)
            if not one.problem and length > max(shown, worst.get(path, (0, ""))[0]):
                worst[path] = length, "" if where is None else f" at {where.name}"
    for path, (length, at) in worst.items():
        shown = TITLE_SHOWN if path.endswith("title") else BODY_SHOWN
        yield Missing(
            field=path,
            code="cut",
            message=f"{length} characters{at}: phones cut it at some {shown}.",
        )


def _holes(look: Look) -> Iterator[Missing]:
    """Names in texts that would stay blank."""
    asked = {path for said in look.contents.values() for path in content.unguarded(said)}
    for root, kind, name in sorted(path for path in asked if len(path) == 3):
        if (root, kind) == ("device", "attributes") and look.people:
            have = sum(one.attributes.get(name) not in (None, "") for one in look.people)
            total, whose = len(look.people), _of(len(look.people))
        elif (root, kind) == ("place", "metadata") and look.wanted.trigger is not None:
            if look.wanted.trigger.on is TriggerOn.EVENT:
                continue
            some = look.chosen.order_by().values("metadata")[:SAMPLED_PLACES]
            told = [row["metadata"].get(name) for row in some]
            have, total = sum(one not in (None, "") for one in told), len(told)
            whose = "of its places"
        else:
            continue
        if total and total - have > HOLES * total:
            share = "None" if not have else f"Only {have / total:.0%}"
            yield Missing(
                field="content.body",
                code="blank",
                message=f"{share} {whose} {'has' if not have else 'have'} “{name}”: the text has a "
                f"hole there unless it says what else, {{{{ {root}.{kind}.{name} | default: "
                '"…" }}.',
            )


def _path(one: Preview, name: str) -> str:
    local = f"content.locales.{one.locale}.{name}" if one.locale else f"content.{name}"
    return f"variants.{one.variant}: {local}" if one.variant else local
