"""Who a campaign is for: a checked condition tree, compiled once to one closure. No rows."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from campaigns.behaviour import Measure, Need, need_of, typed
from campaigns.conditions import (
    TEXT_LEAVES,
    AudienceError,
    Op,
    Problem,
    Tree,
    problems,
    version_key,
)

REMEMBERED = 1_000  # answers of a leaf, for as many values that it saw


@dataclass(slots=True, kw_only=True)
class Subject:
    """What is known of a device and its person when a campaign is judged."""

    device_id: int
    person: str = ""
    external_id: str | None = None
    platform: str = ""
    locale: str = ""
    timezone: str = ""
    app_version: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # {attribute: {"source", "at_ms"}}
    consent_marketing: bool = True
    consent_location: bool = True
    has_push: bool = True
    now_ms: int = 0
    measures: dict[Need, float | None] = field(default_factory=dict)


class Miss(NamedTuple):
    """The leaf that failed, and the value it saw."""

    leaf: int  # index into Audience.leaves
    seen: Any


Test = Callable[[Subject], Miss | None]


class Leaf(NamedTuple):
    path: str
    condition: Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """A compiled tree. `miss` answers None for those it is for, else the first leaf that fails."""

    miss: Test
    leaves: tuple[Leaf, ...]
    needs: frozenset[Need]
    # What is said of those who miss it, by leaf and value: see campaigns.rules.
    told: dict[tuple[int, type, Any], dict[str, Any]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )


_ORDER: dict[Op, Callable[[Any, Any], bool]] = {
    Op.GT: operator.gt,
    Op.GTE: operator.ge,
    Op.LT: operator.lt,
    Op.LTE: operator.le,
}


def compile_tree(
    tree: Tree | None, *, segments: Mapping[str, Tree] | None = None, path: str = "audience"
) -> Audience:
    """Turn a tree into one closure; AudienceError where it is broken or a segment loops."""
    segments = segments or {}
    found = problems({} if tree is None else tree, path=path, known_segments=segments)
    if found:
        raise AudienceError(found)
    leaves: list[Leaf] = []
    needs: set[Need] = set()
    test = _compile(tree or {}, path, segments, (), leaves, needs)
    return Audience(miss=test, leaves=tuple(leaves), needs=frozenset(needs))


def _compile(
    tree: Tree,
    path: str,
    segments: Mapping[str, Tree],
    inside: tuple[str, ...],
    leaves: list[Leaf],
    needs: set[Need],
) -> Test:
    if not tree:
        return _everybody
    if "all" in tree or "any" in tree:
        branch = "all" if "all" in tree else "any"
        tests = tuple(
            _compile(part, f"{path}.{branch}[{number}]", segments, inside, leaves, needs)
            for number, part in enumerate(tree[branch])
        )
        return _all_of(tests) if branch == "all" else _any_of(tests)
    if "segment" in tree:
        slug = tree["segment"]
        if slug in inside:
            loop = " → ".join((*inside, slug))
            raise AudienceError([Problem(path, f"The segments go in a circle: {loop}.")])
        found = problems(segments[slug], path=f"segment {slug}", known_segments=segments)
        if found:
            raise AudienceError(found)
        return _compile(segments[slug], f"{path}.{slug}", segments, (*inside, slug), leaves, needs)
    index = len(leaves)
    leaves.append(Leaf(path, tree))
    if "not" in tree:
        return _not(_compile(tree["not"], f"{path}.not", segments, inside, leaves, needs), index)
    return _leaf(tree, index, needs)


def _everybody(_subject: Subject) -> Miss | None:
    return None


def _all_of(tests: tuple[Test, ...]) -> Test:
    def test(subject: Subject) -> Miss | None:
        for part in tests:
            miss = part(subject)
            if miss is not None:
                return miss
        return None

    return tests[0] if len(tests) == 1 else test


def _any_of(tests: tuple[Test, ...]) -> Test:
    def test(subject: Subject) -> Miss | None:
        first: Miss | None = None
        for part in tests:
            miss = part(subject)
            if miss is None:
                return None
            first = first or miss
        return first

    return test


def _not(inner: Test, index: int) -> Test:
    def test(subject: Subject) -> Miss | None:
        return Miss(index, True) if inner(subject) is None else None

    return test


def _leaf(leaf: Tree, index: int, needs: set[Need]) -> Test:
    if "attribute" in leaf:
        return _attribute(leaf, index)
    if "area" in leaf:
        return _area(leaf, index, needs)
    if "event" in leaf or "visits" in leaf:
        return _behaviour(leaf, index, needs)
    if "app_version" in leaf:
        return _version(leaf, index)
    if "bucket" in leaf:
        return _bucket(leaf, index)
    if "consent" in leaf:
        marketing = leaf["consent"] == "marketing"
        return lambda s: (
            None
            if (s.consent_marketing if marketing else s.consent_location)
            else Miss(index, False)
        )
    return _text(leaf, index)


def _text(leaf: Tree, index: int) -> Test:
    kind = next(name for name in TEXT_LEAVES if name in leaf)
    wanted = leaf[kind]
    texts = frozenset(
        text.lower().replace("_", "-") if kind == "locale" else text
        for text in (wanted if isinstance(wanted, list) else [wanted])
    )
    negated = leaf.get("op", "in") in {"ne", "not_in"}
    read = operator.attrgetter(kind)
    met: dict[str, Miss | None] = {}  # a thousand devices speak few languages

    def look(seen: str) -> Miss | None:
        if kind == "locale":
            tag = seen.lower().replace("_", "-")
            found = tag in texts or tag.partition("-")[0] in texts
        else:
            found = seen in texts
        return None if found is not negated else Miss(index, seen)

    def test(subject: Subject) -> Miss | None:
        seen = read(subject)
        try:
            return met[seen]
        except KeyError:
            found = look(seen)
        if len(met) >= REMEMBERED:
            met.clear()
        met[seen] = found
        return found

    return test


def _attribute(leaf: Tree, index: int) -> Test:
    name = leaf["attribute"]
    holds = comparison(Op(leaf.get("op", Op.EQ)), leaf.get("value"))
    max_age_s, source = leaf.get("max_age_s"), leaf.get("source")

    def plain(subject: Subject) -> Miss | None:
        seen = subject.attributes.get(name)
        return None if holds(seen) else Miss(index, seen)

    def guarded(subject: Subject) -> Miss | None:
        fact = subject.facts.get(name) or {}
        seen = subject.attributes.get(name)
        if source is not None and fact.get("source") != source:
            return (
                None if holds(None) else Miss(index, {"value": seen, "source": fact.get("source")})
            )
        if max_age_s is not None:
            at_ms = fact.get("at_ms")
            if at_ms is None or subject.now_ms - at_ms > max_age_s * 1000:
                age_s = None if at_ms is None else (subject.now_ms - at_ms) // 1000
                return None if holds(None) else Miss(index, {"value": seen, "age_s": age_s})
        return None if holds(seen) else Miss(index, seen)

    return plain if max_age_s is None and source is None else guarded


def comparison(op: Op, value: Any) -> Callable[[Any], bool]:
    """A predicate over what is known; None stands for unknown."""
    if op in _ORDER:
        compare, kind = _ORDER[op], str if isinstance(value, str) else (int, float)
        return lambda seen: (
            isinstance(seen, kind) and not isinstance(seen, bool) and compare(seen, value)
        )
    if op is Op.CONTAINS:
        return lambda seen: (
            (isinstance(seen, list) and value in seen)
            or (isinstance(seen, str) and isinstance(value, str) and value in seen)
        )
    if op is Op.STARTS_WITH:
        return lambda seen: isinstance(seen, str) and seen.startswith(str(value))
    if op is Op.EXISTS:
        return lambda seen: seen is not None
    if op is Op.MISSING:
        return lambda seen: seen is None
    if op in {Op.IN, Op.NOT_IN}:
        wanted = [typed(one) for one in value]
        return lambda seen: (typed(seen) in wanted) is (op is Op.IN)
    one = typed(value)
    return lambda seen: (typed(seen) == one) is (op is Op.EQ)


def _version(leaf: Tree, index: int) -> Test:
    wanted = version_key(leaf["app_version"])
    op = Op(leaf.get("op", Op.EQ))

    def test(subject: Subject) -> Miss | None:
        seen = version_key(subject.app_version)
        if not seen:
            return None if op is Op.NE else Miss(index, subject.app_version)
        holds = _ORDER[op](seen, wanted) if op in _ORDER else (seen == wanted) is (op is Op.EQ)
        return None if holds else Miss(index, subject.app_version)

    return test


def bucket_of(person: str, *, salt: str, of: int) -> int:
    """A person's stable place among `of` buckets; another salt shuffles everyone anew."""
    digest = hashlib.blake2b(f"{salt}\x00{person}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * of >> 64


def _bucket(leaf: Tree, index: int) -> Test:
    (low, high), of, salt = leaf["bucket"], leaf.get("of", 100), leaf.get("salt", "")

    def test(subject: Subject) -> Miss | None:
        seen = bucket_of(subject.person, salt=salt, of=of)
        return None if low <= seen < high else Miss(index, seen)

    return test


def _area(leaf: Tree, index: int, needs: set[Need]) -> Test:
    need = need_of(leaf)
    needs.add(need)

    def test(subject: Subject) -> Miss | None:
        return Miss(index, None) if subject.measures.get(need) is None else None

    return test


def _behaviour(leaf: Tree, index: int, needs: set[Need]) -> Test:
    need = need_of(leaf)
    needs.add(need)
    holds = comparison(Op(leaf.get("op", Op.GTE)), leaf.get("value"))
    empty = None if need.measure is Measure.RECENCY_S else 0

    def test(subject: Subject) -> Miss | None:
        seen = subject.measures.get(need, empty)
        return None if holds(seen) else Miss(index, seen)

    return test
