"""What a condition of an audience may say, and everything that is wrong with one. Pure.

A tree is JSON. Branches: `{"all": [tree, …]}`, `{"any": [tree, …]}`, `{"not": tree}`; an empty
tree is everybody. Leaves:

- `{"attribute": "plan", "op": "eq", "value": "prepaid"}`, optionally `"max_age_s"` (a value older
  than that counts as unknown) and `"source"` (only a value from there counts);
- `{"platform": "ios"}`, `{"locale": "fr"}` (fr-CA too), `{"timezone": "Europe/Helsinki"}`,
  `{"external_id": "42"}`: one value or a list;
- `{"app_version": "2.3", "op": "gte"}`; `{"consent": "marketing"}`;
- `{"segment": "slug"}`: another tree of the brand, by name;
- `{"bucket": [0, 50], "of": 100, "salt": "test-a"}`: a stable share of all persons;
- `{"event": "purchase", "op": "gte", "value": 1, "within_s": 86400}`, with `"measure"`: count
  (default), sum (of `"property"`) or recency_s (seconds since the last), and `"where"`:
  `{"category": "shoes"}` (properties that must be equal);
- `{"area": "home", "places": {"tags": ["centre"]}, "max_age_s": 2592000}`: the part of town where
  the person lives, or for `usual` one where they often are, touches one of these places;
  `"places": "here"` is the place of the moment;
- `{"visits": {"tags": ["shop"], "geofences": [7, "ext"]}, "measure": "count", "op", "value",
  "within_s"}`, with `"measure"`: count, recency_s or dwell_s (seconds inside, added up);
  `"visits": "here"` is the place of the moment: a count of 1 is the first time here.

Operators: eq, ne, in, not_in, gt, gte, lt, lte, contains, starts_with, exists, missing. A value
that is unknown or of another type satisfies only ne, not_in and missing; the recency of what
never happened is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any, NamedTuple

from campaigns.behaviour import MAX_WITHIN_S

Tree = Mapping[str, Any]

MAX_DEPTH = 12  # deeper trees are mistakes, and nested segments must end somewhere
MAX_LEAVES = 200


class Op(StrEnum):
    EQ = "eq"
    NE = "ne"
    IN = "in"
    NOT_IN = "not_in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    EXISTS = "exists"
    MISSING = "missing"


class Problem(NamedTuple):
    """What is wrong with a tree, and where: `audience.all[1].op`."""

    path: str
    message: str


class AudienceError(ValueError):
    """The tree cannot be used; every problem found is in `problems`."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{path}: {message}" for path, message in problems))
        self.problems = list(problems)


_BRANCHES = ("all", "any", "not")
TEXT_LEAVES = ("platform", "locale", "timezone", "external_id")
_LEAF_KEYS: dict[str, frozenset[str]] = {
    "attribute": frozenset({"op", "value", "max_age_s", "source"}),
    "platform": frozenset({"op"}),
    "locale": frozenset({"op"}),
    "timezone": frozenset({"op"}),
    "external_id": frozenset({"op"}),
    "app_version": frozenset({"op"}),
    "consent": frozenset(),
    "segment": frozenset(),
    "bucket": frozenset({"of", "salt"}),
    "event": frozenset({"op", "value", "within_s", "measure", "property", "where"}),
    "area": frozenset({"places", "max_age_s"}),
    "visits": frozenset({"op", "value", "within_s", "measure"}),
}
MAX_ID = 2**63 - 1  # of rows
ORDERED = frozenset({Op.GT, Op.GTE, Op.LT, Op.LTE})


def problems(
    tree: Any, *, path: str = "audience", known_segments: Iterable[str] = ()
) -> list[Problem]:
    """Everything that is wrong with a tree; an empty list when it can be compiled."""
    found: list[Problem] = []
    leaves = _inspect(tree, path, 0, frozenset(known_segments), found)
    if leaves > MAX_LEAVES:
        found.append(
            Problem(path, f"A tree may have {MAX_LEAVES} conditions, this one has {leaves}.")
        )
    return found


def segments_in(tree: Any) -> set[str]:
    """The slugs a tree refers to, directly."""
    if not isinstance(tree, Mapping):
        return set()
    if isinstance(tree.get("segment"), str):
        return {tree["segment"]}
    inner: list[Any] = [tree["not"]] if "not" in tree else []
    for branch in ("all", "any"):
        if isinstance(tree.get(branch), list):
            inner += tree[branch]
    return {slug for part in inner for slug in segments_in(part)}


def without_here(tree: Tree, segments: Mapping[str, Tree]) -> tuple[Tree, bool]:
    """The tree for whoever asks of a person without a moment, and whether something is left out.

    What is asked about "here" may hold or not: it is taken to hold wherever that lets more people
    in, so that nobody is missing who may be meant. The tree must be one that compiles.
    """
    if not _asks_here(tree, segments):
        return tree, False
    found = _bound(tree, segments, upper=True)
    if isinstance(found, bool):
        return ({} if found else {"not": {}}), True
    return found, True


def _is_here(leaf: Tree) -> bool:
    return any(leaf.get(name) == "here" for name in ("visits", "places"))


def _asks_here(tree: Tree, segments: Mapping[str, Tree]) -> bool:
    if "segment" in tree:
        return _asks_here(segments[tree["segment"]], segments)
    inner = [tree["not"]] if "not" in tree else [*tree.get("all", ()), *tree.get("any", ())]
    return _is_here(tree) or any(_asks_here(part, segments) for part in inner)


def _bound(tree: Tree, segments: Mapping[str, Tree], *, upper: bool) -> Tree | bool:
    """The tree without what asks about here; True or False where that decides it."""
    if "segment" in tree:
        return _bound(segments[tree["segment"]], segments, upper=upper)
    if _is_here(tree):
        return upper
    if "not" in tree:
        found = _bound(tree["not"], segments, upper=not upper)
        return not found if isinstance(found, bool) else {"not": found}
    for branch, decides in (("all", False), ("any", True)):
        if branch in tree:
            parts = [_bound(part, segments, upper=upper) for part in tree[branch]]
            if any(part is decides for part in parts):
                return decides
            left = [part for part in parts if not isinstance(part, bool)]
            return {branch: left} if left else not decides
    return tree


def _inspect(
    tree: Any, path: str, depth: int, segments: frozenset[str], found: list[Problem]
) -> int:
    """Add what is wrong below `path` to `found`; answers how many leaves there are."""
    if not isinstance(tree, Mapping):
        found.append(Problem(path, "A condition must be an object."))
        return 0
    if depth > MAX_DEPTH:
        found.append(Problem(path, f"Conditions may be nested {MAX_DEPTH} deep."))
        return 0
    if not tree:
        return 0
    branch = next((name for name in _BRANCHES if name in tree), None)
    if branch is None:
        _inspect_leaf(tree, path, segments, found)
        return 1
    if len(tree) > 1:
        extra = ", ".join(sorted(set(map(str, tree)) - {branch}))
        found.append(Problem(path, f"`{branch}` stands alone; put {extra} inside it."))
    if branch == "not":
        return _inspect(tree["not"], f"{path}.not", depth + 1, segments, found)
    if not isinstance(tree[branch], list):
        found.append(Problem(f"{path}.{branch}", "Must be a list of conditions."))
        return 0
    if branch == "any" and not tree["any"]:
        found.append(Problem(f"{path}.any", "An empty `any` would match nobody."))
    return sum(
        _inspect(part, f"{path}.{branch}[{number}]", depth + 1, segments, found)
        for number, part in enumerate(tree[branch])
    )


def _inspect_leaf(leaf: Tree, path: str, segments: frozenset[str], found: list[Problem]) -> None:
    kind = next((name for name in _LEAF_KEYS if name in leaf), None)
    if kind is None:
        known = ", ".join((*_BRANCHES, *_LEAF_KEYS))
        found.append(Problem(path, f"Says nothing we know; it needs one of {known}."))
        return
    unknown = sorted(set(map(str, leaf)) - {kind} - _LEAF_KEYS[kind])
    found += [Problem(f"{path}.{key}", f"Unknown beside `{kind}`.") for key in unknown]
    if "op" in leaf and not _is_one_of(leaf["op"], set(Op)):
        found.append(Problem(f"{path}.op", f"Must be one of {', '.join(Op)}."))
        return
    _INSPECTORS[kind](leaf, path, segments, found)


def _inspect_attribute(leaf: Tree, path: str, _known: frozenset[str], found: list[Problem]) -> None:
    if not isinstance(leaf["attribute"], str) or not leaf["attribute"]:
        found.append(Problem(f"{path}.attribute", "Must be the attribute's name."))
    _inspect_value(leaf, path, found)
    _inspect_span(leaf, path, "max_age_s", found)
    if "source" in leaf and not isinstance(leaf["source"], str):
        found.append(Problem(f"{path}.source", "Must be a text."))


def _inspect_text(leaf: Tree, path: str, _known: frozenset[str], found: list[Problem]) -> None:
    kind = next(name for name in TEXT_LEAVES if name in leaf)
    wanted = leaf[kind]
    texts = wanted if isinstance(wanted, list) else [wanted]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        found.append(Problem(f"{path}.{kind}", "Must be a text or a list of texts."))
    if not _is_one_of(leaf.get("op", "in"), {"eq", "in", "ne", "not_in"}):
        found.append(Problem(f"{path}.op", "Must be eq, in, ne or not_in."))
    if kind == "platform" and not set(map(str, texts)) <= {"ios", "android", "web"}:
        found.append(Problem(f"{path}.platform", "Must be ios, android or web."))


def _inspect_version(leaf: Tree, path: str, _known: frozenset[str], found: list[Problem]) -> None:
    wanted = leaf["app_version"]
    if not isinstance(wanted, str) or not version_key(wanted):
        found.append(Problem(f"{path}.app_version", "Must be a version such as 2.3.1."))
    if not _is_one_of(leaf.get("op", "eq"), {"eq", "ne", "gt", "gte", "lt", "lte"}):
        found.append(Problem(f"{path}.op", "Must be eq, ne, gt, gte, lt or lte."))


def _inspect_consent(leaf: Tree, path: str, _known: frozenset[str], found: list[Problem]) -> None:
    if not _is_one_of(leaf["consent"], {"marketing", "location"}):
        found.append(Problem(f"{path}.consent", "Must be marketing or location."))


def _inspect_segment(leaf: Tree, path: str, segments: frozenset[str], found: list[Problem]) -> None:
    if not isinstance(leaf["segment"], str) or leaf["segment"] not in segments:
        found.append(Problem(f"{path}.segment", f"There is no segment {leaf['segment']!r}."))


def _inspect_bucket(leaf: Tree, path: str, _known: frozenset[str], found: list[Problem]) -> None:
    span, of = leaf["bucket"], leaf.get("of", 100)
    if not _is_whole(of) or not 2 <= of <= 10_000:
        found.append(Problem(f"{path}.of", "Must be a whole number from 2 to 10,000."))
        return
    if (
        not isinstance(span, list)
        or len(span) != 2
        or not all(map(_is_whole, span))
        or not 0 <= span[0] < span[1] <= of
    ):
        found.append(Problem(f"{path}.bucket", f"Must be [from, to) within 0 and {of}."))
    if not isinstance(leaf.get("salt", ""), str):
        found.append(Problem(f"{path}.salt", "Must be a text."))


def _inspect_event(leaf: Tree, path: str, _known: frozenset[str], found: list[Problem]) -> None:
    if not isinstance(leaf["event"], str) or not leaf["event"]:
        found.append(Problem(f"{path}.event", "Must be the event's name."))
    _inspect_behaviour(leaf, path, {"count", "sum", "recency_s"}, found)
    if leaf.get("measure") == "sum" and "property" not in leaf:
        found.append(Problem(f"{path}.property", "A sum needs the property it adds up."))
    if not isinstance(leaf.get("property", ""), str):
        found.append(Problem(f"{path}.property", "Must be the property's name."))
    where = leaf.get("where", {})
    if not isinstance(where, Mapping) or not all(map(_is_scalar, where.values())):
        found.append(Problem(f"{path}.where", "Must be an object of properties and plain values."))


def _inspect_visits(leaf: Tree, path: str, _known: frozenset[str], found: list[Problem]) -> None:
    _inspect_places(leaf["visits"], f"{path}.visits", found)
    _inspect_behaviour(leaf, path, {"count", "recency_s", "dwell_s"}, found)


def _inspect_area(leaf: Tree, path: str, _known: frozenset[str], found: list[Problem]) -> None:
    if not _is_one_of(leaf["area"], {"home", "usual"}):
        found.append(Problem(f"{path}.area", "Must be home or usual."))
    _inspect_places(leaf.get("places"), f"{path}.places", found)
    _inspect_span(leaf, path, "max_age_s", found)


def _inspect_places(places: Any, path: str, found: list[Problem]) -> None:
    if places == "here":
        return
    if not isinstance(places, Mapping) or not (places.get("tags") or places.get("geofences")):
        found.append(Problem(path, "Must name geofences or tags, or say here."))
        return
    for key, means in (("tags", _is_text), ("geofences", _is_geofence)):
        named = places.get(key, [])
        if not isinstance(named, list) or not all(map(means, named)):
            found.append(Problem(f"{path}.{key}", "Must be a list."))


def _inspect_behaviour(leaf: Tree, path: str, measures: set[str], found: list[Problem]) -> None:
    if not _is_one_of(leaf.get("measure", "count"), measures):
        found.append(Problem(f"{path}.measure", f"Must be one of {', '.join(sorted(measures))}."))
    _inspect_span(leaf, path, "within_s", found)
    _inspect_value(leaf, path, found, default=Op.GTE)
    value = leaf.get("value")
    if value is not None and not is_number(value):
        found.append(Problem(f"{path}.value", "Must be a number."))


def _inspect_span(leaf: Tree, path: str, key: str, found: list[Problem]) -> None:
    if key in leaf and not (_is_whole(leaf[key]) and 0 < leaf[key] <= MAX_WITHIN_S):
        found.append(Problem(f"{path}.{key}", f"Must be seconds, from 1 to {MAX_WITHIN_S}."))


def _inspect_value(leaf: Tree, path: str, found: list[Problem], default: Op = Op.EQ) -> None:
    op = Op(leaf.get("op", default))
    if op in {Op.EXISTS, Op.MISSING}:
        if "value" in leaf:
            found.append(Problem(f"{path}.value", f"`{op}` takes no value."))
        return
    if "value" not in leaf:
        found.append(Problem(f"{path}.value", f"`{op}` needs a value."))
        return
    value = leaf["value"]
    if op in {Op.IN, Op.NOT_IN}:
        if not isinstance(value, list) or not all(map(_is_scalar, value)):
            found.append(Problem(f"{path}.value", f"`{op}` needs a list of plain values."))
    elif op in ORDERED and not (is_number(value) or isinstance(value, str)):
        found.append(Problem(f"{path}.value", f"`{op}` needs a number or a text."))
    elif not _is_scalar(value):
        found.append(Problem(f"{path}.value", "Must be a plain value."))


_INSPECTORS: dict[str, Callable[[Tree, str, frozenset[str], list[Problem]], None]] = {
    "attribute": _inspect_attribute,
    "platform": _inspect_text,
    "locale": _inspect_text,
    "timezone": _inspect_text,
    "external_id": _inspect_text,
    "app_version": _inspect_version,
    "consent": _inspect_consent,
    "segment": _inspect_segment,
    "bucket": _inspect_bucket,
    "event": _inspect_event,
    "area": _inspect_area,
    "visits": _inspect_visits,
}


def version_key(version: str) -> tuple[int, ...]:
    """`2.10.0-beta` → (2, 10): numbers compare as numbers, trailing zeros do not count."""
    numbers = re.match(r"v?(\d{1,9}(?:\.\d{1,9})*)", version.strip())
    if numbers is None:
        return ()
    parts = [int(part) for part in numbers[1].split(".")]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_geofence(value: Any) -> bool:
    """Its own id, or an external one."""
    return _is_text(value) or (_is_whole(value) and 0 < value <= MAX_ID)


def _is_one_of(value: Any, known: AbstractSet[str]) -> bool:
    return isinstance(value, str) and value in known


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
