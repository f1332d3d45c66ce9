"""The twenty faces onto which H3 projects the earth. It knows no cells.

H3 projects a point onto the nearest face of an icosahedron (gnomonic,
https://h3geo.org/docs/core-library/geoToH3desc). Where the icosahedron lies is read out of h3
itself: its twelve corners are the twelve pentagons.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import h3.api.basic_int as h3
import numpy as np
from numpy.typing import NDArray

from geofences.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def unit_vectors(lat: Floats, lng: Floats) -> Floats:
    """Degrees to points on the unit sphere, shape (3, n)."""
    phi, theta = np.radians(lat), np.radians(lng)
    cos_phi = np.cos(phi)
    return np.stack((cos_phi * np.cos(theta), cos_phi * np.sin(theta), np.sin(phi)))


@dataclass(frozen=True, slots=True)
class Icosahedron:
    """Its faces, numbered in no order of H3's."""

    unit: float  # length of a lattice step on the plane that touches the sphere
    centers: Floats  # (20, 3) unit vectors
    axes: Floats  # (20, 3, 3): rows are the i axis, its normal and the centre of a face
    face: Ints  # (180 * 360) the face of a square degree; -1 where three or more meet
    border: Ints  # (180 * 360) the border of two faces that may cross it, or -1
    border_normals: Floats  # (3, 30) pointing to the second face of a border
    border_faces: Ints  # (60) first and second face of each

    def places(self, lat: Floats, lng: Floats) -> tuple[Ints, Floats, Floats]:
        """The face nearest to each point, and where on it. lng in [-180, 180].

        On a face neighbouring base cells are one unit apart.
        """
        lat, lng = np.ascontiguousarray(lat), np.ascontiguousarray(lng)
        face, x, y = np.empty(len(lat), np.int64), np.empty(len(lat)), np.empty(len(lat))
        _place(
            *(lat, lng, self.centers, self.axes, self.face, self.border),
            *(self.border_normals, self.border_faces, face, x, y),
        )
        return face, x, y


@compiled
def _place(
    lat: Floats,
    lng: Floats,
    centers: Floats,
    axes: Floats,
    face_of: Ints,
    border_of: Ints,
    normals: Floats,
    sides: Ints,
    face: Ints,
    along_i: Floats,
    along_j: Floats,
) -> None:
    """`Icosahedron.places`; the last three are filled."""
    for at in range(len(lat)):
        phi, theta = np.radians(lat[at]), np.radians(lng[at])
        x, y, z = np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)
        degree = min(int(lat[at] + 90), 179) * 360 + min(int(lng[at] + 180), 359)
        near, border = face_of[degree], border_of[degree]
        if near < 0:
            best = -2.0
            for number in range(20):
                center = centers[number]
                nearness = center[0] * x + center[1] * y + center[2] * z
                if nearness > best:
                    near, best = number, nearness
        elif border >= 0:
            beyond = normals[0, border] * x + normals[1, border] * y + normals[2, border] * z > 0
            near = sides[2 * border + beyond]
        i_axis, j_axis, center = axes[near, 0], axes[near, 1], axes[near, 2]
        depth = 1 / (center[0] * x + center[1] * y + center[2] * z)
        along_i[at] = (i_axis[0] * x + i_axis[1] * y + i_axis[2] * z) * depth
        along_j[at] = (j_axis[0] * x + j_axis[1] * y + j_axis[2] * z) * depth
        face[at] = near


@cache
def icosahedron() -> Icosahedron:
    """H3's icosahedron; takes 20 ms once."""
    centers, axes = _faces_from_corners()
    border_normals, border_faces = _borders(centers)
    face, border = _faces_of_degrees(centers, border_faces)
    return Icosahedron(
        unit=float(1 / np.linalg.norm(axes[0, 0])),
        centers=centers,
        axes=axes,
        face=face,
        border=border,
        border_normals=border_normals,
        border_faces=border_faces,
    )


NEXT = 0.4  # neighbouring corners are 63.4° apart, cos 63.4° = 0.447; others 116.6°


def corners() -> tuple[Floats, Bools]:
    """The corners of the icosahedron, where H3's pentagons are, and which are neighbours."""
    places = np.array([h3.cell_to_latlng(cell) for cell in h3.get_pentagons(0)])
    found = unit_vectors(*places.T).T
    return found, (found @ found.T > NEXT) & ~np.eye(12, dtype=np.bool_)


def _faces_from_corners() -> tuple[Floats, Floats]:
    """Centres and axes of the faces."""
    tips, near = corners()
    axes = np.zeros((20, 3, 3))
    found = 0
    for a in range(12):
        for b in range(a + 1, 12):
            for c in range(b + 1, 12):
                if near[a, b] and near[b, c] and near[a, c]:
                    center = tips[[a, b, c]].sum(axis=0)
                    center /= np.linalg.norm(center)
                    # The corner lies 2 units along the i axis of the tangent plane.
                    i_axis = (tips[a] / (tips[a] @ center) - center) / 2
                    unit = i_axis @ i_axis
                    axes[found] = i_axis / unit, np.cross(center, i_axis) / unit, center
                    found += 1
    return axes[:, 2], axes


def _borders(centers: Floats) -> tuple[Floats, Ints]:
    """The 30 edges of the icosahedron: normals of their planes, and the faces on both sides."""
    pairs = np.argwhere(np.triu(centers @ centers.T > 0.7, k=1))  # cos 41.8° = 0.745
    return (centers[pairs[:, 1]] - centers[pairs[:, 0]]).T.copy(), pairs.ravel()


def _faces_of_degrees(centers: Floats, border_faces: Ints) -> tuple[Ints, Ints]:
    """The face of each square degree, and the border to another that may cross it."""
    lat, lng = np.meshgrid(np.arange(-89.5, 90), np.arange(-179.5, 180), indexing="ij")
    nearness = centers @ unit_vectors(lat.ravel(), lng.ravel())
    order = np.argpartition(-nearness, (0, 1, 2), axis=0)[:3]
    best, second, third = np.take_along_axis(nearness, order, axis=0)
    number = np.full(400, -1)
    for border, (first, other) in enumerate(border_faces.reshape(-1, 2)):
        number[[first * 20 + other, other * 20 + first]] = border
    # The difference of two of these cosines changes by at most |c1 - c2| = 0.714 per radian; a
    # square's corner is at most 0.0124 from its middle.
    face = np.where(best - third > 0.01, order[0], -1)
    return face, np.where(best - second > 0.01, -1, number[order[0] * 20 + order[1]])
