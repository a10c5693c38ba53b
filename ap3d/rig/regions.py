"""Where hair, skin, lips, eyes and clothes lie on a head: face regions, and labels of single points of the surface.

Borders are functions of the template's position or of smooth vertex fields, so that a point's label does not depend
on the triangles: hairline, neckline, iris and lips stay round at any resolution.
"""

from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ap3d.rig.protocol import Rig

IRIS_RADIUS, PUPIL_RADIUS = 0.0062, 0.0026  # metres, on the template


class Label(IntEnum):
    """What a point of the surface shows; SKIN is the face without its named parts, BEARD the skin where beards grow,
    BROW the skin under an eyebrow of middling thickness."""

    BACKGROUND = 0
    SKIN = 1
    SCALP = 2
    EARS = 3
    LIPS = 4
    SCLERA = 5
    IRIS = 6
    PUPIL = 7
    TEETH = 8
    TONGUE = 9
    MOUTH = 10
    NECK = 11
    CLOTHES = 12
    BEARD = 13
    BROW = 14


# Borders as height over the head's centre (metres) at azimuths from the front (0) to the nape (180), degrees.
HAIRLINE = (
    (0, 0.0700), (20, 0.0690), (34, 0.0630), (46, 0.0500), (57, 0.0280), (66, 0.0050), (74, -0.0180), (82, -0.0200),
    (90, 0.0060), (98, 0.0130), (108, 0.0020), (116, -0.0250), (126, -0.0520), (145, -0.0720), (180, -0.0780),
)  # fmt: skip
BEARD_TOP = (
    (0, -0.0440), (12, -0.0450), (20, -0.0510), (28, -0.0600), (40, -0.0590), (54, -0.0470), (65, -0.0300),
    (73, -0.0120), (79, -0.0050), (86, -0.0400), (94, -0.0700), (110, -0.2000),
)  # fmt: skip
BEARD_BOTTOM = ((0, -0.1370), (28, -0.1320), (50, -0.1150), (66, -0.0920), (80, -0.0680), (94, -0.0600))
# An eyebrow's middle line: |x|, height over the eye's centre, half thickness; metres.
BROW = (
    (0.0115, 0.0208, 0.0036), (0.0210, 0.0238, 0.0038), (0.0330, 0.0256, 0.0033), (0.0440, 0.0236, 0.0022),
    (0.0535, 0.0178, 0.0010),
)  # fmt: skip
AXIS_DEPTH = 0.012  # z of the vertical axis that azimuths are measured around


def azimuth_degrees(points: Tensor) -> Tensor:
    """Angle ``[N]`` from straight ahead (0) to straight back (180) of template points, equal on both sides."""
    return torch.rad2deg(torch.atan2(points[:, 0].abs(), points[:, 2] - AXIS_DEPTH))


def hairline_distance(points: Tensor) -> Tensor:
    """Signed height over the hairline ``[N]`` of template points ``[N, 3]``, metres; positive on the scalp."""
    return points[:, 1] - _interpolate(azimuth_degrees(points), HAIRLINE)


def neckline_distance(points: Tensor) -> Tensor:
    """Signed height over the round neckline of a shirt ``[N]``, metres; negative under the cloth."""
    x, y, z = points.unbind(1)
    front = torch.sigmoid((z + 0.030) / 0.010)
    return y + 0.126 + front * 0.034 * (1 - (x / 0.075).square()).clamp_min(0)


def beard_weight(points: Tensor) -> Tensor:
    """How much of a full beard grows at template points ``[N, 3]``, 0 to 1; lips are not cut out."""
    azimuth = azimuth_degrees(points)
    top = _interpolate(azimuth, BEARD_TOP) - points[:, 1]
    bottom = points[:, 1] - _interpolate(azimuth, BEARD_BOTTOM)
    return (torch.minimum(top, bottom) / 0.009).clamp(0, 1)


def brow_weight(points: Tensor, eye_height: float, thickness: float = 1.0) -> Tensor:
    """How near template points ``[N, 3]`` lie to the middle of an eyebrow: 1 there, 0 at its edge, down to -1
    outside.

    Args:
        points: template positions, metres.
        eye_height: y of the eyes' centres.
        thickness: factor on the brow's half thickness.
    """
    side, height = points[:, 0].abs(), points[:, 1] - eye_height
    out = torch.full_like(side, -1.0)
    near = torch.nonzero(
        (side > BROW[0][0] - 0.0015) & (side < BROW[-1][0]) & ((height - 0.02).abs() < 0.015) & (points[:, 2] > 0.03)
    )[:, 0]
    middle, half = (_between_knots(side[near], BROW, column) for column in (1, 2))
    out[near] = (1 - (height[near] - middle).abs() / (half * thickness)).clamp_min(-1)
    return out


def _between_knots(x: Tensor, rows: tuple[tuple[float, ...], ...], column: int) -> Tensor:
    """A column of a table ``[N]``, linear between the knots of its first column and constant outside."""
    knots, values = torch.tensor(rows).T[[0, column]].contiguous()
    index = torch.searchsorted(knots, x.contiguous()).clamp(1, len(knots) - 1)
    t = ((x - knots[index - 1]) / (knots[index] - knots[index - 1])).clamp(0, 1)
    return values[index - 1] * (1 - t) + values[index] * t


def below_chin(points: Tensor) -> Tensor:
    """Whether template points ``[N, 3]`` lie under the edge of the jaw (bool ``[N]``)."""
    return points[:, 1] < -0.118 + 1.1 * (0.075 - points[:, 2]).clamp(0, 0.055)


@lru_cache(maxsize=8)
def _dense(table: tuple[tuple[float, float], ...]) -> Tensor:
    """The table at every degree from 0 to 181, eased between its knots."""
    knots, values = np.array(table).T
    degrees = np.clip(np.arange(182.0), knots[0], knots[-1])
    index = np.clip(np.searchsorted(knots, degrees), 1, len(knots) - 1)
    t = (degrees - knots[index - 1]) / (knots[index] - knots[index - 1])
    t = t * t * (3 - 2 * t)
    return torch.from_numpy(values[index - 1] * (1 - t) + values[index] * t).float()


def _interpolate(degrees: Tensor, table: tuple[tuple[float, float], ...]) -> Tensor:
    """Height of a border ``[N]`` at azimuths ``[N]``."""
    dense, low = _dense(table).to(degrees), degrees.long()
    below = dense[low]
    return below + (dense[low + 1] - below) * (degrees - low)


def barycentrics(rig: "Rig", face_ids: Tensor, points: Tensor) -> Tensor:
    """Weights ``[N, 3]`` of template points ``[N, 3]`` on the planes of their faces."""
    a, b, c = rig.template[rig.faces[face_ids]].unbind(1)
    u, v, w = b - a, c - a, points - a
    uu, uv, vv, wu, wv = ((p * q).sum(1) for p, q in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    determinant = (uu * vv - uv * uv).clamp_min(1e-20)
    second, third = (vv * wu - uv * wv) / determinant, (uu * wv - uv * wu) / determinant
    return torch.stack([1 - second - third, second, third], 1)


def point_labels(rig: "Rig", face_ids: Tensor, template_points: Tensor) -> Tensor:
    """Labels (int64 ``[N]``, see :class:`Label`) of points of the surface.

    Args:
        rig: its canonical positions and soft masks are read.
        face_ids: ``[N]`` the faces that the points lie on.
        template_points: ``[N, 3]`` their positions on ``rig.template``.
    """
    fields = label_fields(rig)
    weights = barycentrics(rig, face_ids, template_points)
    at = lambda field: (field[rig.faces[face_ids]] * weights[..., None]).sum(1)  # noqa: E731
    return labels_from_fields(rig, face_ids, at(rig.canonical), at(fields["masks"]))


def labels_from_fields(rig: "Rig", face_ids: Tensor, points: Tensor, masks: Tensor) -> Tensor:
    """As :func:`point_labels`, with canonical points and masks (lips, ears, mouth; ``[N, 3]``) already interpolated."""
    fields = label_fields(rig)
    lips, ears, mouth = masks.unbind(1)
    part = fields["face_parts"][face_ids]
    label = torch.full_like(part, Label.SKIN)
    y = points[:, 1]
    label[below_chin(points)] = Label.NECK
    label[beard_weight(points) > 0.4] = Label.BEARD
    label[brow_weight(points, float(fields["eye_centres"][0, 1])) > 0] = Label.BROW
    label[(hairline_distance(points) > 0)] = Label.SCALP
    label[ears > 0.5] = Label.EARS
    label[lips > 0.5] = Label.LIPS
    label[mouth > 0.5] = Label.MOUTH
    label[(y < -0.1) & (neckline_distance(points) < 0)] = Label.CLOTHES
    for eye in (1, 2):
        chosen = part == eye
        if chosen.any():
            label[chosen] = _eye_labels(points[chosen], fields["eye_centres"][eye - 1])
    label[(part == 3) | (part == 4)] = Label.TEETH
    label[part == 5] = Label.TONGUE
    label[part == 6] = Label.MOUTH
    return label


def _eye_labels(points: Tensor, centre: Tensor) -> Tensor:
    offset = points - centre
    radius = torch.linalg.norm(offset[:, :2], dim=1)
    label = torch.full((len(points),), int(Label.SCLERA))
    front = offset[:, 2] > 0
    label[front & (radius < IRIS_RADIUS)] = Label.IRIS
    label[front & (radius < PUPIL_RADIUS)] = Label.PUPIL
    return label


def label_fields(rig: "Rig") -> dict[str, Tensor]:
    """Vertex fields that labels are read from: masks ``[V, 3]`` (lips, ears, mouth), parts, centres of the eyes."""
    return _label_fields(rig)  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def _label_fields(rig: Any) -> dict[str, Tensor]:
    return {
        "masks": torch.stack([rig.masks["lips"], rig.masks["ears"], rig.masks["mouth"]], 1),
        "face_parts": rig.face_parts,
        "eye_centres": torch.stack([rig.canonical[rig.parts == p].mean(0) for p in (1, 2)]),
    }


def scalp_weight(rig: "Rig") -> Tensor:
    """How much hair grows at each vertex ``[V]``, 0 to 1: a ramp of 18 mm over the hairline, without the ears."""
    fields = label_fields(rig)
    weight = (hairline_distance(rig.canonical) / 0.018).clamp(0, 1) * (1 - fields["masks"][:, 1] * 3).clamp(0, 1)
    return torch.where(rig.parts == 0, weight * (fields["masks"][:, 2] < 0.2), torch.zeros_like(weight))


def beard_zone(rig: "Rig") -> Tensor:
    """How much beard grows at each vertex ``[V]``, 0 to 1, without lips and mouth."""
    masks = label_fields(rig)["masks"]
    weight = beard_weight(rig.canonical) * (1 - 2 * masks[:, 0]).clamp(0, 1) * (masks[:, 2] < 0.2)
    return torch.where(rig.parts == 0, weight, torch.zeros_like(weight))


def face_regions(rig: "Rig") -> dict[str, Tensor]:
    """Face ids by name: scalp, face, ears, left_eye, right_eye, eyes, lids, lips, teeth, tongue, mouth, neck, torso,
    sockets (the lids' inner side, around the eyeballs).

    Each face is in exactly one of them by its centre, but ``eyes`` joins both eyes and ``lids`` is part of ``face``.
    """
    ids = torch.arange(len(rig.faces))
    centres = rig.canonical[rig.faces].mean(1)
    labels = labels_from_fields(rig, ids, centres, label_fields(rig)["masks"][rig.faces].mean(1))
    labels[(labels == Label.BEARD) & below_chin(centres)] = Label.NECK
    socket = _sockets(rig, centres)
    labels[socket] = Label.BACKGROUND
    lids = rig.masks["lids"][rig.faces].mean(1) > 0.4
    part = rig.face_parts
    is_in = lambda *names: torch.from_numpy(np.isin(labels.numpy(), names))  # noqa: E731
    masks = {
        "scalp": is_in(Label.SCALP), "face": is_in(Label.SKIN, Label.BEARD, Label.BROW), "ears": is_in(Label.EARS),
        "left_eye": part == 1, "right_eye": part == 2, "eyes": (part == 1) | (part == 2),
        "lids": lids & is_in(Label.SKIN, Label.BROW), "lips": is_in(Label.LIPS), "teeth": is_in(Label.TEETH),
        "tongue": is_in(Label.TONGUE), "mouth": is_in(Label.MOUTH), "neck": is_in(Label.NECK),
        "torso": is_in(Label.CLOTHES), "sockets": socket,
    }  # fmt: skip
    return {k: ids[m] for k, m in masks.items()}


def _sockets(rig: "Rig", centres: Tensor) -> Tensor:
    """Skin behind the lids' edges (bool ``[F]``)."""
    inside = torch.zeros(len(centres), dtype=torch.bool)
    for eye in label_fields(rig)["eye_centres"]:
        offset = centres - eye
        inside |= (torch.linalg.norm(offset, dim=1) < 0.0205) & (offset[:, 2] < 0.0092)
    return inside & (rig.face_parts == 0)
