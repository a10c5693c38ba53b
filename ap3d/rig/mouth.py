"""Teeth, gums, tongue and mouth lining made by formula, sized by the lips and hung on head and jaw.

Fourteen teeth a jaw stand on a half ellipse; each is a rounded box of the usual proportions of incisors, canines,
premolars and molars (widths and heights in millimetres as in anatomy books, for a mouth 50 mm wide). The upper row, its
gums and the roof follow the head, the lower row, its gums and the tongue the jaw; the lining blends between them.
"""

from dataclasses import dataclass

import numpy as np

WIDTHS = (8.5, 6.8, 7.6, 7.0, 6.8, 9.8, 9.4)  # from the middle outwards
HEIGHTS = (10.0, 9.2, 9.8, 8.4, 8.0, 7.2, 6.8)
DEPTHS = (5.0, 5.0, 6.0, 7.6, 8.0, 9.6, 9.6)
LOWER_SIZE = 0.92
BEHIND_LIPS = 0.23  # of the mouth's width
AROUND, ROWS = 8, 4
UPPER_TEETH, LOWER_TEETH, TONGUE, LINING = 3, 4, 5, 6  # as in ``face_parts``


@dataclass(frozen=True)
class MouthParts:
    """A mesh inside the mouth.

    Attributes:
        points: ``[M, 3]`` metres, in the template's frame.
        faces: ``[G, 3]``, counter-clockwise from the side that the mouth's opening shows.
        face_parts: ``[G]`` UPPER_TEETH, LOWER_TEETH, TONGUE or LINING (gums too).
        jaw: ``[M]`` how far a vertex follows the jaw, 0 to 1.
    """

    points: np.ndarray
    faces: np.ndarray
    face_parts: np.ndarray
    jaw: np.ndarray


def make_mouth(mouth: np.ndarray) -> MouthParts:
    """Parts for a mouth.

    Args:
        mouth: right corner, left corner and middle of the line between the lips ``[3, 3]``, metres.
    """
    width = float(np.linalg.norm(mouth[1] - mouth[0]))
    unit = width / 50.0  # metres for a millimetre of the tables
    origin = mouth[2] - np.array([0, 0, BEHIND_LIPS * width])
    pieces: list[tuple[np.ndarray, np.ndarray, int, np.ndarray | float]] = []
    for lower in (False, True):
        size = LOWER_SIZE if lower else 1.0
        side = -1.0 if lower else 1.0
        jaw = float(lower)
        shift = np.array([0, 0.2 if lower else -2.4, -3.2 if lower else 0.0])  # the upper row bites over the lower
        flip = np.array([1, side, 1])
        part = LOWER_TEETH if lower else UPPER_TEETH
        for points, faces in _row(size):
            pieces.append((points * flip + shift, faces[:, :: int(side)], part, jaw))
        points, faces = _gums(size)
        pieces.append((points * flip + shift, faces[:, :: int(side)], LINING, jaw))
    pieces.append((*_tongue(), TONGUE, 1.0))
    points, faces, jaw_share = _lining()
    pieces.append((points, faces, LINING, jaw_share))
    return _joined(pieces, origin, unit)


def _joined(
    pieces: list[tuple[np.ndarray, np.ndarray, int, np.ndarray | float]], origin: np.ndarray, unit: float
) -> MouthParts:
    starts = np.cumsum([0] + [len(p[0]) for p in pieces])
    return MouthParts(
        origin + unit * np.concatenate([p[0] for p in pieces]),
        np.concatenate([p[1] + s for p, s in zip(pieces, starts, strict=False)]),
        np.concatenate([np.full(len(p[1]), p[2]) for p in pieces]),
        np.concatenate([np.broadcast_to(p[3], len(p[0])) for p in pieces]),
    )


def _arch(t: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Points ``[N, 2]`` (x, z) and outward normals of the dental arch at angles from the front, mm."""
    half, depth = 28.0 * size, 42.0 * size
    points = np.stack([half * np.sin(t), depth * (np.cos(t) - 1)], -1)
    normals = np.stack([np.sin(t) / half, np.cos(t) / depth], -1)
    return points, normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def _angles(size: float) -> np.ndarray:
    """Angle on the arch of each tooth of one half, from its widths."""
    fine = np.linspace(0, np.pi / 2, 2000)
    points, _ = _arch(fine, size)
    length = np.append(0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    widths = np.array(WIDTHS) * size
    wanted = np.cumsum(widths) - widths / 2
    return np.interp(wanted * min(1.0, 0.97 * length[-1] / wanted[-1]), length, fine)


def _row(size: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fourteen upper teeth hanging from y = height down to y = 0."""
    teeth = []
    for side in (-1, 1):
        for number, angle in enumerate(_angles(size)):
            (x, z), (nx, nz) = (a[0] for a in _arch(np.array([side * angle]), size))
            local, faces = _tooth(WIDTHS[number] * size, HEIGHTS[number] * size, DEPTHS[number] * size, number < 3)
            across, out = np.array([nz, 0, -nx]), np.array([nx, 0, nz])
            centre = np.array([x, 0, z]) - out * DEPTHS[number] * size / 2
            teeth.append((centre + local[:, :1] * across + local[:, 1:2] * [0, 1, 0] + local[:, 2:] * out, faces))
    return teeth


def _tooth(width: float, height: float, depth: float, front: bool) -> tuple[np.ndarray, np.ndarray]:
    """A closed rounded box with its biting edge at y = 0; front teeth thin out towards it."""
    turn = 2 * np.pi * (np.arange(AROUND) + 0.5) / AROUND
    rounded = lambda v: np.sign(v) * np.abs(v) ** 0.45  # noqa: E731
    rise = np.array([0.03, 0.22, 0.6, 1.1])
    neck = np.array([0.86, 0.98, 0.96, 0.78])
    thin = np.array([0.35, 0.62, 0.92, 0.9]) if front else np.array([0.8, 1.0, 1.0, 0.85])
    x = 0.5 * width * neck[:, None] * rounded(np.sin(turn))
    lean = 0.12 * depth * (1 - thin)[:, None]
    z = 0.5 * depth * thin[:, None] * rounded(np.cos(turn)) + lean
    y = np.broadcast_to(height * rise[:, None], x.shape)
    ring = np.stack([x, y, z], -1).reshape(-1, 3)
    ends = np.array([[0, 0, lean[0, 0]], [0, height * 1.15, 0]])
    return np.concatenate([ring, ends]), _tube(ROWS, AROUND, closed=True, caps=True)


def _gums(size: float) -> tuple[np.ndarray, np.ndarray]:
    """A ridge along the arch round the teeth's necks, open at its root."""
    angles = np.linspace(-1.45, 1.45, 29)
    points, normals = _arch(angles, size)
    # Outward and up: from the root outside, over the ridge, to the root inside.
    profile = np.array([(2.0, 15.0), (1.6, 11.5), (0.5, 8.6), (-4.0, 8.0), (-8.5, 8.6), (-10.5, 12.0), (-11.0, 15.0)])
    out, up = profile[:, 0] * size, profile[:, 1] * size
    sweep = points[:, None] + normals[:, None] * out[None, :, None]
    ring = np.stack([sweep[..., 0], np.broadcast_to(up, sweep.shape[:2]), sweep[..., 1]], -1)
    return ring.reshape(-1, 3), _tube(len(angles), len(profile), closed=False, caps=False)


def _tongue() -> tuple[np.ndarray, np.ndarray]:
    """A flat closed body on the floor of the mouth."""
    turn, along = 2 * np.pi * np.arange(14) / 14, np.array([0.06, 0.25, 0.5, 0.72, 0.9, 0.985])
    radius = np.sqrt(1 - along**4)
    x = 17.0 * radius[:, None] * np.sin(turn)
    y = -9.0 + 5.0 * radius[:, None] * np.cos(turn) - 3.0 * along[:, None] ** 2
    z = np.broadcast_to(-46.0 + 38.0 * along[:, None], x.shape)
    ends = np.array([[0, -9.0, -46.0], [0, -12.0, -7.6]])
    return np.concatenate([np.stack([x, y, z], -1).reshape(-1, 3), ends]), _tube(6, 14, closed=True, caps=True)[:, ::-1]


def _lining() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sack from behind the lips to the throat, seen from within; the share of the jaw grows downwards."""
    turn = 2 * np.pi * np.arange(20) / 20
    depth = np.array([1.0, -4.0, -16.0, -30.0, -44.0, -52.0])
    half = np.array([27.0, 31.0, 33.0, 33.0, 28.0, 12.0])
    tall = np.array([12.0, 16.0, 19.0, 19.0, 15.0, 6.0])
    # The corners of the mouth lie behind its middle: the rim bends with the lips.
    bend = np.array([8.0, 6.0, 3.0, 1.0, 0.0, 0.0])[:, None] * np.abs(np.sin(turn)) ** 2
    x, y = half[:, None] * np.sin(turn), tall[:, None] * np.cos(turn)
    z = depth[:, None] - bend
    points = np.concatenate([np.stack([x, y, z], -1).reshape(-1, 3), [[0, 0, -55.0]]])
    faces = _tube(len(depth), 20, closed=True, caps=False)
    last = (len(depth) - 1) * 20 + np.arange(20)
    end = np.stack([last, np.roll(last, -1), np.full(20, len(points) - 1)], 1)
    share = 0.5 - 0.5 * np.append(np.tile(np.cos(turn), len(depth)), 0.0)
    inward = _towards(points, np.concatenate([faces, end]), np.array([0, 0, -20.0]))
    return points, inward, share


def _tube(rings: int, around: int, *, closed: bool, caps: bool) -> np.ndarray:
    """Triangles between consecutive rings of points; with caps two more points follow, first ring's and last's."""
    ids = np.arange(rings * around).reshape(rings, around)
    following = np.roll(ids, -1, 1) if closed else ids[:, 1:]
    current = ids if closed else ids[:, :-1]
    a, b, c, d = current[:-1], following[:-1], current[1:], following[1:]
    faces = [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)]
    if caps:
        first, last, count = ids[0], ids[-1], rings * around
        faces.append(np.stack([np.full(around, count), np.roll(first, -1), first], 1))
        faces.append(np.stack([np.full(around, count + 1), last, np.roll(last, -1)], 1))
    return np.concatenate(faces)


def _towards(points: np.ndarray, faces: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Faces wound so that they are seen counter-clockwise from ``target``."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    away = (np.cross(b - a, c - a) * (target - a)).sum(1) < 0
    return np.where(away[:, None], faces[:, ::-1], faces)
