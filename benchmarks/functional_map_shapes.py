r"""Near-isometric surfaces with known correspondence, their eigenfunctions, descriptors, and point-to-point maps.

Each surface has its own random vertices. A place in the parameters of its family has three numbers: a direction of the
sphere, or (u, v, 1). A triangle holds c where c = w_1 c_1 + w_2 c_2 + w_3 c_3 with w >= 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import eigsh
from scipy.spatial import ConvexHull, Delaunay, cKDTree

Array = np.ndarray
WIDTH = 0.25  # of a wave kernel, in log eigenvalues
MOST = 60  # eigenfunctions kept, for ZoomOut
LIMBS = np.array([[0, 0, 1], [0.9, 0, -0.44], [-0.5, 0.8, -0.33], [-0.4, -0.85, 0.34], [0.3, 0.5, 0.81]])


def blob(c: Array) -> Array:
    r"""An ellipsoid with waves, of directions (n, 3)."""
    x, y, z = c.T
    radius = 1 + 0.25 * x + 0.2 * np.sin(3 * y + 0.5) + 0.15 * np.cos(2 * z + x)
    return radius[:, None] * c * (1.2, 1.0, 0.8)


def limbs(c: Array) -> Array:
    r"""A ball with five limbs of different lengths, of directions (n, 3)."""
    far = np.exp(6 * (c @ (LIMBS / np.linalg.norm(LIMBS, axis=1, keepdims=True)).T - 1))
    return (0.6 + far @ np.array([1.0, 0.8, 0.65, 0.5, 0.3]))[:, None] * c


def torus(c: Array) -> Array:
    r"""A torus of uneven thickness, of (u, v, 1) with period 1."""
    u, v = 2 * np.pi * c[:, 0], 2 * np.pi * c[:, 1]
    thick = 0.38 + 0.1 * np.sin(u + 0.4) + 0.06 * np.cos(2 * u) + 0.05 * np.sin(v + u)
    around = 1 + thick * np.cos(v)
    return np.stack([around * np.cos(u), 1.2 * around * np.sin(u), thick * np.sin(v)], 1)


def sheet(c: Array) -> Array:
    r"""A rectangle with hills, of (u, v, 1) in the unit square."""
    u, v = c[:, 0], c[:, 1]
    hills = [(0.3, 0.3, 0.3, 30), (0.7, 0.6, 0.2, 40), (0.3, 0.8, -0.2, 60)]
    z = sum(height * np.exp(-sharp * ((u - a) ** 2 + (v - b) ** 2)) for a, b, height, sharp in hills)
    return np.stack([1.5 * u + 0.2 * v, v + 0.1 * np.sin(3 * u), z], 1)


FAMILIES: dict[str, Callable[[Array], Array]] = {"blob": blob, "limbs": limbs, "torus": torus, "sheet": sheet}


@dataclass
class Shape:
    r"""A surface of area 1.

    Args:
        xyz: vertices (n, 3). faces: (F, 3). values: eigenvalues (MOST,). vectors: eigenfunctions (n, MOST).
        mass: areas of the vertices (n,).
        places: parameters (m, 3), m >= n where the family is periodic. corners: triangles of these (F', 3).
    """

    xyz: Array
    faces: Array
    values: Array
    vectors: Array
    mass: Array
    places: Array
    corners: Array

    @cached_property
    def _inverse(self) -> Array:
        return np.linalg.inv(self.places[self.corners].transpose(0, 2, 1))

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.places)

    @cached_property
    def _around(self) -> Array:
        r"""Triangles at each place; the last one is repeated where others have more."""
        order = np.argsort(self.corners.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(self.corners.ravel(), minlength=len(self.places)))
        starts = np.concatenate([[0], ends[:-1]])
        slots = starts[:, None] + np.arange((ends - starts).max())
        return order[np.minimum(slots, (ends - 1)[:, None])] // 3

    def interpolation(self, c: Array) -> csr_matrix:
        r"""P (len(c), n): P @ f is f, known at the vertices, at places c; a row is largest at the nearest vertex."""
        faces = self._around[self._tree.query(c, 3)[1]].reshape(len(c), -1)
        found = np.einsum("nfij,nj->nfi", self._inverse[faces], c)
        best = found.min(2).argmax(1)
        rows = np.arange(len(c))
        weights = found[rows, best].clip(0)
        weights /= weights.sum(1, keepdims=True)
        columns = self.corners[faces[rows, best]] % len(self.xyz)
        return csr_matrix((weights.ravel(), (rows.repeat(3), columns.ravel())), shape=(len(c), len(self.xyz)))

    def distances(self) -> Array:
        r"""Lengths (n, n) of the shortest paths along edges."""
        a, b = np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]]).T
        edges = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(self.xyz),) * 2).tocsr()  # an edge of two faces, once
        edges.data = np.linalg.norm(self.xyz[edges.nonzero()[0]] - self.xyz[edges.nonzero()[1]], axis=1)
        return dijkstra(edges, directed=False)


def surface(xyz: Array, faces: Array, places: Array, corners: Array) -> Shape:
    r"""Its cotangent Laplacian with lumped masses, solved for the lowest MOST eigenvalues."""
    area = (
        np.linalg.norm(np.cross(xyz[faces[:, 1]] - xyz[faces[:, 0]], xyz[faces[:, 2]] - xyz[faces[:, 0]]), axis=1) / 2
    )
    xyz = (xyz - xyz.mean(0)) / np.sqrt(area.sum())
    mass = np.bincount(faces.ravel(), np.repeat(area / area.sum() / 3, 3), len(xyz))
    rows, columns, weights = [], [], []
    for k in range(3):
        i, j, o = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        a, b = xyz[i] - xyz[o], xyz[j] - xyz[o]
        cotangent = (a * b).sum(1) / np.linalg.norm(np.cross(a, b), axis=1) / 2
        rows, columns, weights = [*rows, i, j], [*columns, j, i], [*weights, cotangent, cotangent]
    edges = coo_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(len(xyz),) * 2
    )
    stiffness = diags(np.asarray(edges.sum(1)).ravel()) - edges
    values, vectors = eigsh(stiffness.tocsc(), MOST, diags(mass).tocsc(), sigma=-0.01, v0=np.ones(len(xyz)))
    vectors[:, 0] = np.abs(vectors[:, 0])
    return Shape(xyz, faces, values.clip(0), vectors, mass, places, corners)


def draw(family: str, n: int, stretch: float, g: np.random.Generator) -> Shape:
    r"""A surface of a family: n random vertices, and a smooth deformation of space with strains of about `stretch`."""
    if family in ("blob", "limbs"):
        k = np.arange(n) + 0.5
        height, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
        flat = np.sqrt(1 - height**2)
        places = (
            np.stack([flat * np.cos(turn), flat * np.sin(turn), height], 1) @ np.linalg.qr(g.normal(size=(3, 3)))[0]
        )
        places += 0.3 / np.sqrt(n) * g.normal(size=places.shape)
        places /= np.linalg.norm(places, axis=1, keepdims=True)
        corners = ConvexHull(places).simplices
        outside = np.linalg.det(places[corners]) < 0
        corners[outside] = corners[outside][:, ::-1]
        faces = corners
    else:
        side = (round(np.sqrt(n * 2.5)), round(np.sqrt(n / 2.5))) if family == "torus" else (round(np.sqrt(n * 1.5)), 0)
        side = (side[0], side[1] or round(n / side[0]))
        grid = np.stack(np.meshgrid(*(np.arange(k) for k in side), indexing="ij"), -1).reshape(-1, 2).astype(float)
        edge = (grid == 0) | (grid == np.array(side) - 1) if family == "sheet" else np.zeros(grid.shape, dtype=bool)
        grid += np.where(edge, 0, g.uniform(-0.35, 0.35, grid.shape))
        if family == "torus":
            places = np.concatenate([((grid + 0.5) / side) % 1 + (i, j) for i in (0, 1, -1) for j in (0, 1, -1)])
            corners = Delaunay(places * side).simplices
            where = places[corners].mean(1)
            faces = corners[((where >= 0) & (where < 1)).all(1)] % len(grid)
        else:
            places = grid / (np.array(side) - 1)
            corners = faces = Delaunay(places * side).simplices
        places = np.concatenate([places, np.ones((len(places), 1))], 1)
    count = len(grid) if family in ("torus", "sheet") else n
    xyz = FAMILIES[family](places[:count])
    waves = g.normal(size=(3, 3)) * 1.5
    shifts = g.normal(size=(3, 3)) * stretch / np.linalg.norm(waves, axis=1, keepdims=True)
    return surface(xyz + np.sin(xyz @ waves.T + g.uniform(0, 2 * np.pi, 3)) @ shifts, faces, places, corners)


def truth(m: Shape, n: Shape, size: int) -> tuple[Array, Array]:
    r"""C (size, size) from functions of m to those of n, and for each vertex of n the nearest one of m."""
    at = m.interpolation(n.places[: len(n.xyz)])
    c = n.vectors[:, :size].T @ (n.mass[:, None] * (at @ m.vectors[:, :size]))
    return c, np.asarray(at.argmax(1)).ravel()


def descriptors(shape: Shape, size: int) -> Array:
    r"""Coefficients (size, 17): twelve wave and four heat kernel signatures of length 1, mean 0; the constant 1."""
    values, squares = shape.values[1:size], shape.vectors[:, 1:size] ** 2
    levels = np.linspace(np.log(15), np.log(250), 12)  # of shapes of area 1, by Weyl's law 4 pi k
    wave = np.exp(-((levels[:, None] - np.log(values)) ** 2) / (2 * WIDTH**2))
    heat = np.exp(-np.array([0.005, 0.01, 0.02, 0.04])[:, None] * values)
    found = squares @ (np.concatenate([wave, heat]) / np.concatenate([wave, heat]).sum(1, keepdims=True)).T
    coefficients = shape.vectors[:, :size].T @ (shape.mass[:, None] * found)
    coefficients[0] = 0
    return np.concatenate([coefficients / np.linalg.norm(coefficients, axis=0), np.eye(size)[:, :1]], 1)


def points(m: Shape, n: Shape, c: Array) -> Array:
    r"""For each vertex of n the vertex of m whose eigenfunctions are nearest to those that C gives it."""
    found = torch.from_numpy(n.vectors[:, : c.shape[0]] @ c)
    return torch.cdist(found, torch.from_numpy(m.vectors[:, : c.shape[1]])).argmin(1).numpy()


def zoom_out(m: Shape, n: Shape, c: Array, first: int, last: int = MOST, step: int = 4) -> Array:
    r"""ZoomOut (Melzi et al., 2019, arXiv 1904.07865) of the first block of C: points and C in turn, ever larger."""
    c = c[:first, :first]
    for size in range(first + step, last + 1, step):
        c = n.vectors[:, :size].T @ (n.mass[:, None] * m.vectors[points(m, n, c), :size])
    return c
