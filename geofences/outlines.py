"""A shape as bytes that can be tested in bulk. It knows no cells and no ids."""

from __future__ import annotations

from geofences.geometry import Shape


def pack(shape: Shape) -> bytes:
    """What is stored of a normalised shape (`GeofenceCover.shape`) for the index to read."""
    raise NotImplementedError


def unpack(packed: bytes) -> Shape:
    """The very shape that was packed, to the last bit."""
    raise NotImplementedError
