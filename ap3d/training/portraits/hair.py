"""Hair as closed shells: a dome over the scalp, a long curtain that grows out of it, a bun, a fringe.

Shells are grids in azimuth and polar angle round the head. Their points are bound to the template by rays once, and
follow every person's shape from there; noise and thickness come from the person's seed.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.regions import hairline_distance
from ap3d.training.rig_landmarks import cast_ray

COLUMNS, ROWS = 96, 22
CENTRE = np.array([0.0, 0.018, -0.006])  # where rays start, template metres
CURTAIN_ROWS = 14
FRINGE_COLUMNS, FRINGE_ROWS = 49, 14
FRINGE_REACH, FRINGE_END = 58.0, 0.030  # degrees to both sides; template height of its tips, just over the brows


@dataclass(frozen=True)
class HairMesh:
    """Hair in the head's neutral frame.

    Attributes:
        vertices: ``[N, 3]`` world units.
        faces: ``[F, 3]``.
        strands: ``[N, 3]`` cosine and sine of the azimuth, and the way along the strand (0 at the crown).
    """

    vertices: Tensor
    faces: Tensor
    strands: Tensor

    @staticmethod
    def join(parts: "list[HairMesh]") -> "HairMesh":
        offsets = np.cumsum([0] + [len(p.vertices) for p in parts])
        faces = [p.faces + int(o) for p, o in zip(parts, offsets, strict=False)]
        return HairMesh(torch.cat([p.vertices for p in parts]), torch.cat(faces), torch.cat([p.strands for p in parts]))


@dataclass(frozen=True)
class _Binding:
    faces: Tensor  # [R, C]
    weights: Tensor  # [R, C, 3]
    azimuth: Tensor  # [C] radians, 0 at the front, round to 2 pi
    way: Tensor  # [R] 0 at the crown, 1 at the hairline


@lru_cache(maxsize=2)
def _scalp_binding(rig: BuiltinRig) -> _Binding:
    """Grid over the scalp: every column runs from the crown to the hairline."""
    azimuths = np.linspace(0, 2 * np.pi, COLUMNS, endpoint=False)
    way = np.linspace(0, 1, ROWS)
    ids, weights = np.zeros((ROWS, COLUMNS), int), np.zeros((ROWS, COLUMNS, 3))
    template, keep = rig.template.numpy(), _castable(rig)
    faces = rig.faces.numpy()[keep]
    offset = template[faces].mean(1) - CENTRE
    around, upper = (
        np.arctan2(offset[:, 0], offset[:, 2]),
        np.arccos(offset[:, 1] / np.linalg.norm(offset, axis=1)) < 0.8,
    )
    for column, azimuth in enumerate(azimuths):
        near = np.flatnonzero(upper | (np.abs(np.angle(np.exp(1j * (around - azimuth)))) < 0.4))
        last = _hairline_angle(template, faces[near], azimuth)
        for row, t in enumerate(way):
            face, w = cast_ray(template, faces[near], *_ray(azimuth, max(t * last, 1e-3)))
            ids[row, column], weights[row, column] = keep[near[face]], w
    return _Binding(
        torch.from_numpy(ids),
        torch.from_numpy(weights).float(),
        torch.from_numpy(azimuths).float(),
        torch.from_numpy(way).float(),
    )


def _castable(rig: BuiltinRig) -> np.ndarray:
    """Faces of the head's skin without ears and neck, with room under the hairline."""
    centre = rig.template[rig.faces].mean(1)
    ears = rig.masks["ears"][rig.faces].amax(1) > 0.3
    keep = (
        (rig.face_parts == 0)
        & ~ears
        & (centre[:, 1] > -0.13)
        & ((centre - torch.tensor([0, 0.0, 0.02])).norm(dim=1) > 0.06)
    )
    return torch.nonzero(keep)[:, 0].numpy()


def _ray(azimuth: float, polar: float) -> tuple[np.ndarray, np.ndarray]:
    """A ray from outside to the centre."""
    direction = np.array([np.sin(azimuth) * np.sin(polar), np.cos(polar), np.cos(azimuth) * np.sin(polar)])
    return CENTRE + 0.5 * direction, -direction


def _hairline_angle(template: np.ndarray, faces: np.ndarray, azimuth: float) -> float:
    """Polar angle at which a column leaves the scalp."""
    last = 0.6
    for polar in np.linspace(0.6, 2.4, 61):
        try:
            face, w = cast_ray(template, faces, *_ray(azimuth, polar))
        except ValueError:  # the root of an ear
            break
        point = torch.from_numpy(w @ template[faces[face]]).float()[None]
        if float(hairline_distance(point)) < 0:
            break
        last = float(polar)
    return last


def build_hair(
    style: str, rig: BuiltinRig, neutral: Tensor, normals: Tensor, rng: np.random.Generator
) -> HairMesh | None:
    """Hair of a style on a neutral head.

    Args:
        style: one of ``HAIR_STYLES``; bald heads have none.
        rig: the head's rig.
        neutral: ``[V, 3]`` vertices without expression and pose, world units.
        normals: ``[V, 3]`` their unit normals.
        rng: of thickness and waves.
    """
    if style == "bald":
        return None
    size = _head_size(rig, neutral)
    if style == "short":
        return _dome(rig, neutral, normals, _short_thickness(rng) * size, size, rng, bumps=0.05)
    if style == "curly":
        thickness = rng.uniform(0.021, 0.029) * np.array([1.0, 1.0, 0.9, 0.7])
        return _dome(rig, neutral, normals, thickness * size, size, rng, bumps=0.42)
    if style == "bun":
        cap = _dome(rig, neutral, normals, np.full(4, rng.uniform(0.006, 0.010)) * size, size, rng, bumps=0.03)
        return HairMesh.join([cap, _bun(rig, neutral, size, rng)])
    if style == "fringe":
        thickness = rng.uniform(0.013, 0.018) * np.array([1.0, 1.0, 0.8, 0.7])
        cap = _dome(rig, neutral, normals, thickness * size, size, rng, bumps=0.04)
        return HairMesh.join([cap, _fringe(rig, neutral, normals, float(thickness[0]) * size, rng)])
    cap = _dome(rig, neutral, normals, np.full(4, rng.uniform(0.011, 0.015)) * size, size, rng, bumps=0.04)
    return HairMesh.join([cap, _curtain(rig, neutral, normals, size, rng)])


def _head_size(rig: BuiltinRig, neutral: Tensor) -> float:
    """World units a template metre takes on this head."""
    head = neutral[rig.head_vertices]
    mean = rig.template[rig.head_vertices]
    return float((head.amax(0) - head.amin(0)).norm() / (mean.amax(0) - mean.amin(0)).norm())


def _short_thickness(rng: np.random.Generator) -> np.ndarray:
    """Metres at the top front, top back, sides and nape."""
    sides = rng.uniform(0.005, 0.011)
    return np.array([rng.uniform(0.016, 0.026), rng.uniform(0.012, 0.018), sides, sides])


def _bound(binding: _Binding, rig: BuiltinRig, values: Tensor) -> Tensor:
    """Interpolate ``[V, 3]`` at the grid: ``[R, C, 3]``."""
    return (values[rig.faces[binding.faces]] * binding.weights[..., None]).sum(2)


def _dome(
    rig: BuiltinRig,
    neutral: Tensor,
    normals: Tensor,
    thickness: np.ndarray,
    size: float,
    rng: np.random.Generator,
    bumps: float,
) -> HairMesh:
    binding = _scalp_binding(rig)
    base = _bound(binding, rig, neutral)
    out = torch.nn.functional.normalize(_bound(binding, rig, normals), dim=-1)
    front, back, side, nape = (float(t) for t in thickness)
    azimuth, way = binding.azimuth[None, :], binding.way[:, None]
    facing = azimuth.cos()
    top = (1 - (way / 0.75).square()).clamp_min(0)
    low = torch.where(facing < -0.3, torch.tensor(nape), torch.tensor(side))
    high = back + (front - back) * (facing.clamp_min(0) * way.clamp(0, 1)).clamp(0, 1)
    level = low + (high - low) * torch.maximum(top, (facing.clamp_min(0) ** 2) * (1 - way).clamp(0, 1).sqrt())
    rim = 1 - ((way - 0.82) / 0.18).clamp(0, 1) ** 2
    wave = _lumps(base / size, rng, 55.0) if bumps < 0.2 else _curls(base / size, rng)
    offset = level * (0.12 + 0.88 * rim) * (1 + bumps * 2 * wave)
    vertices = base + out * offset[..., None]
    strands = torch.stack([azimuth.cos().expand_as(offset), azimuth.sin().expand_as(offset), way.expand_as(offset)], -1)
    return HairMesh(vertices.reshape(-1, 3), _grid_faces(ROWS, COLUMNS, closed=True), strands.reshape(-1, 3))


def _lumps(points: Tensor, rng: np.random.Generator, frequency: float) -> Tensor:
    """Smooth noise about -1 to 1 at points in metres."""
    total = torch.zeros(points.shape[:-1])
    for octave in range(4):
        direction = torch.from_numpy(rng.normal(size=3)).float() * frequency * 1.5**octave
        total = total + torch.sin(points @ direction + float(rng.uniform(0, 2 * np.pi))) / 1.25**octave
    return total / 2


def _curls(points: Tensor, rng: np.random.Generator) -> Tensor:
    """Round bulges with creases between them, about -1 to 1, at points in metres."""
    total = torch.zeros(points.shape[:-1])
    for frequency in (62.0, 88.0, 125.0):
        wave = torch.ones(points.shape[:-1])
        frame = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        for axis in frame[:2]:
            direction = torch.from_numpy(axis).float() * frequency
            wave = wave * torch.sin(points @ direction + float(rng.uniform(0, 2 * np.pi))).abs()
        total = total + wave.sqrt()
    return total * (2 / 3) - 1.1


def _curtain(rig: BuiltinRig, neutral: Tensor, normals: Tensor, size: float, rng: np.random.Generator) -> HairMesh:
    """A sheet from high on the dome over ears and neck to the shoulders, open in front of the face."""
    binding = _scalp_binding(rig)
    base = _bound(binding, rig, neutral)
    out = torch.nn.functional.normalize(_bound(binding, rig, normals), dim=-1)
    head = neutral[rig.head_vertices]
    low, high = head.amin(0), head.amax(0)
    middle = (low + high) / 2
    columns = 61
    opening = float(rng.uniform(50, 60))
    span = torch.linspace(-1, 1, columns)
    rows = []
    start, stop = ROWS * 2 // 5, ROWS - ROWS // 4
    for row in range(start, stop):  # over the dome
        t = (row - start) / (stop - 1 - start)
        azimuth = np.pi + span * np.deg2rad(180 - opening * (0.45 + 0.55 * t))
        point, normal = _column_sample(base[row], azimuth), _column_sample(out[row], azimuth)
        edge = (1 - span.abs()).mul(9).clamp(0, 1)
        thick = (0.009 + 0.010 * t) * (0.55 + 0.45 * edge) * size
        rows.append((point + torch.nn.functional.normalize(normal, dim=-1) * thick[:, None], azimuth))
    return _hang(rows, span, opening, middle, low, size, rng)


def _hang(
    rows: list[tuple[Tensor, Tensor]],
    span: Tensor,
    opening: float,
    middle: Tensor,
    low: Tensor,
    size: float,
    rng: np.random.Generator,
) -> HairMesh:
    """Let the lowest row fall: down to the tips, keeping clear of ears and neck, with soft waves."""
    last, azimuth = rows[-1]
    tip = float(low[1]) - float(rng.uniform(0.055, 0.085)) * size
    flare, waves = float(rng.uniform(0.0, 0.12)), float(rng.uniform(0.003, 0.009)) * size
    phase, number = float(rng.uniform(0, 2 * np.pi)), int(rng.integers(7, 12))
    side, depth = 0.092 * size, 0.098 * size
    points = [p for p, _ in rows]
    angles = [a for _, a in rows]
    for step in range(1, CURTAIN_ROWS + 1):
        t = step / CURTAIN_ROWS
        settle = min(1.0, t * 2.6)
        settle = settle * settle * (3 - 2 * settle)
        ring_x = middle[0] + torch.sin(azimuth) * side * (1 + flare * t)
        ring_z = (
            middle[2]
            - 0.012 * size
            + torch.cos(azimuth)
            * depth
            * (1 + 0.6 * flare * t)
            * torch.where(azimuth.cos() < 0, 0.95 + 0.38 * t * t, 0.75)
        )
        wave = waves * t * torch.sin(number * azimuth + phase + 2.5 * t)
        ring_x, ring_z = ring_x + torch.sin(azimuth) * wave, ring_z + torch.cos(azimuth) * wave
        height = last[:, 1] + (tip - last[:, 1]) * t + 0.006 * size * t * torch.sin(3 * number * azimuth + phase)
        x = last[:, 0] * (1 - settle) + ring_x * settle
        z = last[:, 2] * (1 - settle) + ring_z * settle
        points.append(torch.stack([x, height, z], -1))
        angles.append(azimuth)
    grid, angle = torch.stack(points), torch.stack(angles)
    way = torch.linspace(0.4, 2.2, len(points))[:, None].expand_as(angle)
    strands = torch.stack([angle.cos(), angle.sin(), way], -1)
    return HairMesh(grid.reshape(-1, 3), _grid_faces(len(points), grid.shape[1], closed=False), strands.reshape(-1, 3))


@lru_cache(maxsize=2)
def _fringe_binding(rig: BuiltinRig) -> _Binding:
    """Grid over the front of the scalp and the forehead, from high on the dome to the brows."""
    azimuths = np.deg2rad(np.linspace(-FRINGE_REACH, FRINGE_REACH, FRINGE_COLUMNS))
    ids, weights = np.zeros((FRINGE_ROWS, FRINGE_COLUMNS), int), np.zeros((FRINGE_ROWS, FRINGE_COLUMNS, 3))
    template, keep = rig.template.numpy(), _castable(rig)
    faces = rig.faces.numpy()[keep]
    for column, azimuth in enumerate(azimuths):
        first = 0.5 * _hairline_angle(template, faces, azimuth)
        last = np.arccos((FRINGE_END - CENTRE[1]) / 0.1)  # the head is about 0.1 wide there
        for row, t in enumerate(np.linspace(0, 1, FRINGE_ROWS)):
            face, w = cast_ray(template, faces, *_ray(azimuth, first + t * (last - first)))
            ids[row, column], weights[row, column] = keep[face], w
    way = torch.linspace(0.5, 1.5, FRINGE_ROWS)
    return _Binding(torch.from_numpy(ids), torch.from_numpy(weights).float(), torch.from_numpy(azimuths).float(), way)


def _fringe(rig: BuiltinRig, neutral: Tensor, normals: Tensor, thickness: float, rng: np.random.Generator) -> HairMesh:
    """A sheet that leaves the dome over the forehead and ends in uneven locks above the brows."""
    binding = _fringe_binding(rig)
    base = _bound(binding, rig, neutral)
    out = torch.nn.functional.normalize(_bound(binding, rig, normals), dim=-1)
    t = torch.linspace(0, 1, FRINGE_ROWS)[:, None]
    surface = base + out * thickness * (0.75 + 0.45 * (np.pi * t).sin() - 0.25 * t)[..., None]
    angle, phase = binding.azimuth[None, :], rng.uniform(0, 2 * np.pi, 3)
    locks = 0.5 * torch.sin(23 * angle + phase[0]) + 0.3 * torch.sin(41 * angle + phase[1])
    sweep = 0.5 + 0.5 * torch.sin(1.2 * angle + phase[2])  # one side may be longer than the other
    length = (float(rng.uniform(0.84, 0.98)) - 0.07 * sweep + 0.05 * locks).clamp(0.6, 1.0)
    position = t * length * (FRINGE_ROWS - 1)
    low = position.floor().long().clamp(max=FRINGE_ROWS - 2)
    rest = (position - low)[..., None]
    gather = lambda rows: torch.gather(surface, 0, rows[..., None].expand(*rows.shape, 3))  # noqa: E731
    vertices = gather(low) * (1 - rest) + gather(low + 1) * rest
    wave = angle.expand_as(position)
    strands = torch.stack([wave.cos(), wave.sin(), (0.5 + 1.0 * t * length).expand_as(wave)], -1)
    faces = _grid_faces(FRINGE_ROWS, FRINGE_COLUMNS, closed=False)
    return HairMesh(vertices.reshape(-1, 3), faces, strands.reshape(-1, 3))


def _column_sample(row: Tensor, azimuth: Tensor) -> Tensor:
    """Values ``[K, 3]`` of a closed row ``[C, 3]`` at azimuths in radians."""
    position = (azimuth / (2 * np.pi) * len(row)) % len(row)
    index = position.floor().long()
    t = (position - index)[:, None]
    return row[index % len(row)] * (1 - t) + row[(index + 1) % len(row)] * t


def _bun(rig: BuiltinRig, neutral: Tensor, size: float, rng: np.random.Generator) -> HairMesh:
    """A knot high at the back of the head."""
    binding = _scalp_binding(rig)
    anchor = _column_sample(_bound(binding, rig, neutral)[int(rng.integers(5, 7))], torch.tensor([np.pi]))[0]
    head = neutral[rig.head_vertices]
    axis = torch.nn.functional.normalize(anchor - (head.amin(0) + head.amax(0)) / 2, dim=0)
    rows, columns = 14, 24
    radius = float(rng.uniform(0.034, 0.039)) * size
    polar, azimuth = (
        torch.linspace(0.02, np.pi - 0.02, rows)[:, None],
        torch.linspace(0, 2 * np.pi, columns + 1)[None, :-1],
    )
    twist = azimuth + 1.6 * polar
    bulge = radius * (1 + 0.06 * torch.sin(5 * twist))
    local = torch.stack(
        [polar.sin() * azimuth.cos(), 0.82 * polar.cos().expand(rows, columns), polar.sin() * azimuth.sin()], -1
    )
    side = torch.nn.functional.normalize(torch.linalg.cross(axis, torch.tensor([1.0, 0, 0])), dim=0)
    frame = torch.stack([torch.linalg.cross(side, axis), axis, side], 1)
    vertices = anchor + axis * radius * 0.72 + (local * bulge[..., None]) @ frame.T
    strands = torch.stack([twist.cos(), twist.sin(), (polar / np.pi * 2).expand(rows, columns)], -1)
    faces = _grid_faces(rows, columns, closed=True)
    return HairMesh(vertices.reshape(-1, 3), faces, strands.reshape(-1, 3))


@lru_cache(maxsize=8)
def _grid_faces(rows: int, columns: int, closed: bool) -> Tensor:
    """Triangles of a grid; columns wrap round when closed."""
    index = torch.arange(rows * columns).reshape(rows, columns)
    right = torch.roll(index, -1, 1) if closed else index[:, 1:]
    left = index if closed else index[:, :-1]
    a, b, c, d = left[:-1], left[1:], right[1:], right[:-1]
    return torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
