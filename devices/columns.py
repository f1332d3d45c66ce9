"""What the columns of a CRM's file mean as attributes: guessed, then read cell by cell. Pure.

A guess is strict, so that an id such as 007 or a phone number stays text; what a person chose is
read generously, and a cell that may mean two things is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, Self

from devices.attributes import NAME

MAX_TEXT = 4_000
# Column names as they are met, lower case without punctuation, best first.
IDENTITY = (
    *("externalid", "customerid", "userid", "memberid", "personid", "crmid", "contactid", "uid"),
    *("clientid", "customernumber", "kundennummer", "numeroclient", "id"),
)
AS_OF = ("asof", "updatedat", "lastmodified", "lastmodifieddate", "modifiedat", "changedat")
_YES = frozenset({"true", "yes", "y", "oui", "vrai", "1"})
_NO = frozenset({"false", "no", "n", "non", "faux", "0"})
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d+)?")
_GROUPED = re.compile(r"-?\d{1,3}(,\d{3})+")
_ISO_DAY = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")
_SPACES = str.maketrans("", "", " \u00a0\u202f'")


class Kind(StrEnum):
    """How a cell becomes a value; conditions compare numbers with numbers and text with text."""

    AS_IS = "as_is"  # as the file has it: NDJSON and Parquet know their types
    TEXT = "text"
    NUMBER = "number"
    YES_NO = "yes_no"
    DATE = "date"  # kept as ISO 8601 text, which sorts
    DATE_DMY = "date_dmy"
    DATE_MDY = "date_mdy"
    LIST = "list"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: the attribute it becomes, and how."""

    attribute: str
    kind: Kind = Kind.AS_IS


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePlan:
    """How a file of people is to be taken in."""

    external_id: str = ""
    as_of: str = ""  # the column that says when a row was true
    columns: Mapping[str, Column] = field(default_factory=dict)
    source: str = "crm"
    empty_clears: bool = False  # an empty cell takes the attribute away; else it says nothing

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        known = {name: stored[name] for name in cls.__slots__ if name in stored}
        known["columns"] = {
            name: Column(attribute=one["attribute"], kind=Kind(one["kind"]))
            for name, one in stored.get("columns", {}).items()
        }
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def guess(names: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> ProfilePlan:
    """What the names and the first rows suggest."""
    by_key = {"".join(filter(str.isalnum, name.lower())): name for name in reversed(names)}
    first = [next((by_key[key] for key in keys if key in by_key), "") for keys in (IDENTITY, AS_OF)]
    external_id, as_of = first
    return ProfilePlan(
        external_id=external_id,
        as_of=as_of,
        columns={
            name: Column(
                attribute=attribute_of(name), kind=kind_of([row.get(name) for row in sample])
            )
            for name in names
            if name not in first
        },
    )


def attribute_of(name: str) -> str:
    """A column's name as an attribute's: `Loyalty tier` → `loyalty_tier`."""
    made = re.sub(r"[^A-Za-z0-9_.:-]+", "_", name.strip().lower()).strip("_")[:64]
    made = made if not made or NAME.fullmatch(made) else f"_{made}"[:64]
    return made or "column"


def kind_of(values: Sequence[Any]) -> Kind:
    """What all filled cells of a column are."""
    given = [value for value in values if not is_empty(value)]
    if not given or not all(isinstance(value, str) for value in given):
        return Kind.AS_IS if given else Kind.TEXT
    texts = [str(value).strip() for value in given]
    if all(_NUMBER.fullmatch(text) for text in texts):
        return Kind.NUMBER
    if all(text.lower() in (_YES | _NO) - {"0", "1"} for text in texts):
        return Kind.YES_NO
    if all(_ISO_DAY.fullmatch(text) for text in texts):
        return Kind.DATE
    return Kind.TEXT


def attributes_of(row: Mapping[str, Any], plan: ProfilePlan) -> dict[str, Any]:
    """The attributes that a row gives; None takes one away. ValueError names the cell at fault."""
    found: dict[str, Any] = {}
    for name, column in plan.columns.items():
        if column.kind is Kind.SKIP or name not in row:
            continue
        value = row[name]
        if is_empty(value):
            if plan.empty_clears:
                found[column.attribute] = None
            continue
        try:
            found[column.attribute] = _READ[column.kind](value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def instant_of(value: Any, *, not_after: datetime) -> datetime:
    """When a row was true; a time without an offset is UTC. ValueError where it cannot be."""
    try:
        at = datetime.fromisoformat(_text(value))
    except ValueError:
        raise ValueError(f"{_short(value)} is no time: 2026-01-31 or 2026-01-31T12:00Z") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if at > not_after:
        raise ValueError(f"{_short(value)} lies in the future")
    return at


def text_of(value: Any) -> str:
    """An id or a cell as one line of text; a whole number stored as a float stays whole."""
    return "" if is_empty(value) else _text(value)


def is_empty(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # noqa: PLR0124 - NaN


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value).replace("\x00", "").strip()
    if len(text) > MAX_TEXT:
        raise ValueError(f"longer than {MAX_TEXT:,} characters")
    return text


def _as_is(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool | int | float | list | dict):
        return value
    return _text(value)


def _number(value: Any) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) if float(value).is_integer() else value
    text = str(value).translate(_SPACES)
    if _GROUPED.fullmatch(text):
        if text.count(",") == 1:
            whole, _, rest = text.partition(",")
            raise ValueError(f"{_short(value)} may mean {whole}.{rest} or {whole}{rest}")
        text = text.replace(",", "")
    elif "." not in text and text.count(",") == 1:
        text = text.replace(",", ".")
    elif "." in text:
        text = text.replace(",", "")
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{_short(value)} is not a number") from None
    return int(number) if number.is_integer() else number


def _yes_no(value: Any) -> bool:
    text = _text(value).lower()
    if text in _YES or text in _NO:
        return text in _YES
    raise ValueError(f"{_short(value)} is neither yes nor no")


def _date(value: Any) -> str:
    text = value.isoformat() if isinstance(value, date) else _text(value)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{_short(value)} is no date such as 2026-01-31") from None
    return text


def _dated(pattern: str, example: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        text = re.sub(r"[./ ]", "-", _text(value))
        try:
            return datetime.strptime(text, pattern).date().isoformat()  # noqa: DTZ007 - a day
        except ValueError:
            raise ValueError(f"{_short(value)} is no date such as {example}") from None

    return read


def _list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [part for text in re.split(r"[;|,]", _text(value)) if (part := text.strip())]


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:39] + "…")


_READ: dict[Kind, Callable[[Any], Any]] = {
    Kind.AS_IS: _as_is,
    Kind.TEXT: _text,
    Kind.NUMBER: _number,
    Kind.YES_NO: _yes_no,
    Kind.DATE: _date,
    Kind.DATE_DMY: _dated("%d-%m-%Y", "31.01.2026"),
    Kind.DATE_MDY: _dated("%m-%d-%Y", "01/31/2026"),
    Kind.LIST: _list,
}
