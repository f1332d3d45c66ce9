"""What the places are called that definitions speak of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from brands.models import Brand
from campaigns import definition, suggesting
from campaigns.definition import Definition


def names_of(brand: Brand, definitions: Iterable[Definition]) -> dict[int | str, str]:
    """Return the names of all places that some definitions speak of."""
    keys = {key for one in definitions for key in places_in(definition.encode(one))}
    return {key: place.name for key, place in suggesting.places_named(brand, keys).items()}


def places_in(raw: Any) -> Iterator[int | str]:
    """What a definition calls geofences by, wherever in it."""
    if isinstance(raw, Mapping):
        chosen = raw.get("geofences")
        if isinstance(chosen, list | tuple):
            yield from (key for key in chosen if isinstance(key, int | str))
        for part in raw.values():
            yield from places_in(part)
    elif isinstance(raw, list | tuple):
        for part in raw:
            yield from places_in(part)
