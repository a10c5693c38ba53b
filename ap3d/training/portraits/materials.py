"""Albedo and gloss of every point of a dressed head, as functions of the template position."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.regions import (
    IRIS_RADIUS,
    PUPIL_RADIUS,
    beard_weight,
    hairline_distance,
    label_fields,
    neckline_distance,
)  # fmt: skip
from ap3d.training.attributes import PortraitAttributes

Colour = tuple[float, float, float]
SKIN: dict[str, Colour] = {
    "pale": (0.97, 0.81, 0.73),
    "tan": (0.82, 0.58, 0.40),
    "brown": (0.55, 0.34, 0.22),
    "dark": (0.28, 0.175, 0.125),
}
HAIR: dict[str, Colour] = {
    "black": (0.06, 0.05, 0.055), "brown": (0.36, 0.20, 0.10), "blonde": (0.92, 0.76, 0.36), "red": (0.76, 0.21, 0.05),
    "gray": (0.64, 0.64, 0.65), "blue": (0.12, 0.26, 0.78), "pink": (0.94, 0.42, 0.64),
}  # fmt: skip
EYES: dict[str, Colour] = {"brown": (0.33, 0.17, 0.07), "blue": (0.22, 0.48, 0.86), "green": (0.24, 0.60, 0.30)}
SHIRT: dict[str, Colour] = {
    "white": (0.94, 0.94, 0.94), "black": (0.08, 0.08, 0.09), "red": (0.80, 0.10, 0.10), "blue": (0.12, 0.23, 0.74),
    "green": (0.12, 0.52, 0.20), "yellow": (0.95, 0.82, 0.14), "purple": (0.47, 0.15, 0.63),
}  # fmt: skip
# The left brow's middle line: |x|, height over the eye's centre, half thickness; metres.
BROW = (
    (0.0115, 0.0208, 0.0036),
    (0.0210, 0.0238, 0.0038),
    (0.0330, 0.0256, 0.0033),
    (0.0440, 0.0236, 0.0022),
    (0.0535, 0.0178, 0.0010),
)


@dataclass(frozen=True)
class Surface:
    """Visible points: ``[P]`` or ``[P, 3]`` each. ``part`` is the rig's part id, or -1 for hair."""

    part: Tensor
    template: Tensor
    masks: Tensor
    strands: Tensor


@dataclass(frozen=True)
class Material:
    """Albedo ``[P, 3]``, gloss ``[P]`` and ambient visibility ``[P]``."""

    albedo: Tensor
    gloss: Tensor
    openness: Tensor


def _colour(values: Colour) -> Tensor:
    return torch.tensor(values)


def _mix(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return a + (b - a) * weight[:, None]


def _step(x: Tensor, edge: float, width: float) -> Tensor:
    """0 below ``edge``, 1 above, linear over ``width``."""
    return ((x - edge) / width + 0.5).clamp(0, 1)


def _table(x: Tensor, rows: tuple[tuple[float, ...], ...], column: int) -> Tensor:
    knots, values = torch.tensor(rows).T[[0, column]].contiguous()
    index = torch.searchsorted(knots, x.contiguous()).clamp(1, len(knots) - 1)
    t = ((x - knots[index - 1]) / (knots[index] - knots[index - 1])).clamp(0, 1)
    return values[index - 1] * (1 - t) + values[index] * t


def paint(surface: Surface, attributes: PortraitAttributes, rig: BuiltinRig, seed: int) -> Material:
    """Albedo, gloss and openness of visible points; ``seed`` varies tone and strands."""
    generator = torch.Generator().manual_seed(seed)
    tone = 1 + 0.04 * torch.randn(1, generator=generator).clamp(-2, 2)
    phases = torch.rand(16, generator=generator) * 6.2832
    count = len(surface.part)
    albedo, gloss, openness = torch.zeros(count, 3), torch.full((count,), 0.10), torch.ones(count)
    for selected, painter in (
        (surface.part == 0, _paint_body), ((surface.part == 1) | (surface.part == 2), _paint_eyes),
        (surface.part >= 3, _paint_mouth), (surface.part < 0, _paint_hair),
    ):  # fmt: skip
        index = torch.nonzero(selected)[:, 0]
        if len(index):
            part = Surface(surface.part[index], surface.template[index], surface.masks[index], surface.strands[index])
            albedo[index], gloss[index], openness[index] = painter(part, attributes, rig, tone, phases)
    return Material(albedo, gloss, openness)


Painted = tuple[Tensor, Tensor, Tensor]


def hair_colour(colour: str, azimuth: Tensor, way: Tensor, phases: Tensor, curly: bool) -> Tensor:
    """Strands: brightness varies across the azimuth (radians) and slowly along the way from the crown."""
    wave = torch.zeros_like(azimuth)
    for k, (frequency, drift) in enumerate(((23, 1.5), (41, -2.5), (67, 3.5))):
        wave = wave + torch.sin(frequency * azimuth + drift * way + phases[k])
    if curly:
        wave = 1.6 * torch.sin(19 * azimuth + 9 * torch.sin(9 * way) + phases[3]) + torch.sin(
            26 * way + 7 * torch.sin(13 * azimuth) + phases[4]
        )
    base = _colour(HAIR[colour])
    return (base * (1 + 0.075 * wave[:, None]) + 0.008 * wave[:, None]).clamp(0, 1)


def _paint_hair(s: Surface, a: PortraitAttributes, rig: Any, tone: Tensor, phases: Tensor) -> Painted:
    azimuth, way = torch.atan2(s.strands[:, 1], s.strands[:, 0]), s.strands[:, 2]
    albedo = hair_colour(a.hair_colour, azimuth, way, phases, a.hair_style == "curly")
    return albedo, torch.full_like(way, 0.05 if a.hair_style == "curly" else 0.16), torch.ones_like(way)


def _paint_mouth(s: Surface, a: PortraitAttributes, rig: Any, tone: Tensor, phases: Tensor) -> Painted:
    tongue = (s.part == 5).float()
    albedo = _mix(_colour((0.96, 0.94, 0.88)).expand(len(s.part), 3), _colour((0.80, 0.34, 0.36)), tongue)
    depth = _step(s.template[:, 2], 0.055, 0.03)
    corner = _step(s.template[:, 0].abs(), 0.0175, 0.006) * (1 - tongue)
    return albedo, 0.25 - 0.15 * tongue, (0.35 + 0.65 * depth) * (1 - 0.75 * corner)


def _paint_eyes(s: Surface, a: PortraitAttributes, rig: BuiltinRig, tone: Tensor, phases: Tensor) -> Painted:
    centres = label_fields(rig)["eye_centres"]
    offset = s.template - centres[s.part - 1]
    radius = offset[:, :2].norm(dim=1)
    front = (offset[:, 2] > 0).float()
    angle = torch.atan2(offset[:, 1], offset[:, 0])
    iris = (
        _colour(EYES[a.eye_colour])
        * (0.85 + 0.45 * (1 - radius / IRIS_RADIUS).clamp(0, 1) + 0.10 * torch.sin(14 * angle))[:, None]
    )
    white = _colour((0.97, 0.965, 0.955)).expand_as(iris)
    albedo = _mix(white, iris, front * (1 - _step(radius, IRIS_RADIUS, 0.0006)))
    ring = front * (1 - (radius - IRIS_RADIUS).abs() / 0.0009).clamp(0, 1)
    albedo = albedo * (1 - 0.55 * ring)[:, None]
    albedo = _mix(albedo, _colour((0.02, 0.02, 0.025)), front * (1 - _step(radius, PUPIL_RADIUS, 0.0006)))
    shade = 1 - 0.35 * _step(offset[:, 1], 0.0045, 0.004)  # the upper lid's shadow
    return albedo, torch.full_like(radius, 0.9), shade


def _paint_body(s: Surface, a: PortraitAttributes, rig: BuiltinRig, tone: Tensor, phases: Tensor) -> Painted:
    skin = (_colour(SKIN[a.skin]) * tone).clamp(0, 1)
    albedo = skin.expand(len(s.part), 3)
    gloss, openness = torch.full((len(s.part),), 0.10), _skin_openness(s)
    albedo = _complexion(albedo, skin, s, a)
    lips = _step(s.masks[:, 0], 0.45, 0.3)
    albedo = _mix(albedo, _lip_colour(skin, a), lips)
    gloss = gloss + 0.10 * lips
    albedo = _brows_and_lashes(albedo, s, a, rig)
    albedo = _mix(albedo, _colour((0.30, 0.05, 0.06)), _step(s.masks[:, 2], 0.6, 0.3))
    azimuth = torch.atan2(s.template[:, 0], s.template[:, 2])
    if a.beard:
        beard = _step(beard_weight(s.template), 0.35, 0.5) * (1 - lips)
        fibre = (
            1
            + 0.07 * torch.sin(95 * azimuth + 60 * s.template[:, 1] + phases[5])
            + 0.05 * torch.sin(151 * azimuth - 90 * s.template[:, 1])
        )
        albedo = _mix(albedo, (_colour(HAIR[a.hair_colour]) * 0.92) * fibre[:, None], beard)
        gloss = gloss * (1 - 0.6 * beard)
    if a.hair_style != "bald":
        jag = 0.0018 * torch.sin(90 * azimuth + phases[6]) + 0.0012 * torch.sin(223 * azimuth + phases[7])
        scalp = _step(hairline_distance(s.template) + jag, 0.0, 0.006) * (1 - _step(s.masks[:, 1], 0.4, 0.2))
        albedo = _mix(
            albedo, hair_colour(a.hair_colour, azimuth, torch.full_like(azimuth, 0.9), phases, False) * 0.92, scalp
        )
    return _shirt(albedo, gloss, openness, s, a)


def _skin_openness(s: Surface) -> Tensor:
    """Less light under the chin, in the mouth and behind the ears."""
    x, y, z = s.template.unbind(1)
    throat = _step(-y, 0.112, 0.02) * _step(-y, 0.150, -0.05) * _step(0.085 - z, 0.0, 0.02) * _step(z, -0.02, 0.05)
    nostril = (1 - ((x.abs() - 0.0075) / 0.0045).square() - ((y + 0.0405) / 0.0028).square()).clamp(0, 1) * _step(
        z, 0.08, 0.005
    )
    inside = _step(s.masks[:, 2], 0.5, 0.5) * (0.25 + 0.75 * _step(0.07 - z, 0.0, 0.05))
    return (1 - 0.30 * throat) * (1 - 0.6 * nostril) * (1 - 0.75 * inside)


def _lip_colour(skin: Tensor, a: PortraitAttributes) -> Tensor:
    if a.gender == "woman" and a.age != "child":
        return (skin * torch.tensor([0.82, 0.40, 0.42]) + torch.tensor([0.14, 0.0, 0.03])).clamp(0, 1)
    return (skin * torch.tensor([0.86, 0.62, 0.60]) + torch.tensor([0.03, 0.0, 0.0])).clamp(0, 1)


def _complexion(albedo: Tensor, skin: Tensor, s: Surface, a: PortraitAttributes) -> Tensor:
    x, y, z = s.template.unbind(1)
    side = x.abs()
    blush = torch.exp(-((side - 0.043) / 0.017).square() - ((y + 0.030) / 0.016).square()) * (z > 0.03)
    strength = 0.30 if a.gender == "woman" or a.age == "child" else 0.14
    albedo = _mix(albedo, skin * torch.tensor([1.0, 0.66, 0.63]), strength * blush)
    ears = _step(s.masks[:, 1], 0.5, 0.4)
    albedo = _mix(albedo, skin * torch.tensor([1.0, 0.82, 0.80]), 0.5 * ears)
    if a.age in ("old", "middle-aged"):
        strength = 0.24 if a.age == "old" else 0.10
        forehead = (
            (0.5 + 0.5 * torch.sin(y * 900 + 0.6 * torch.cos(side * 60))).square()
            * torch.exp(-((y - 0.050) / 0.012).square() - (side / 0.032).square())
            * 0.7
        )
        fold = torch.exp(-((side - 0.0225 - 0.40 * (-0.045 - y)) / 0.0018).square()) * (y < -0.038) * (y > -0.072)
        wrinkles = torch.maximum(forehead, fold) * (z > 0.04)
        albedo = albedo * (1 - strength * wrinkles)[:, None]
    return albedo


def _brows_and_lashes(albedo: Tensor, s: Surface, a: PortraitAttributes, rig: BuiltinRig) -> Tensor:
    """Brows in the hair's colour, and a dark line on the edge of the upper lid."""
    near = torch.nonzero(
        (s.template[:, 2] > 0.03)
        & (s.template[:, 1] > 0.012)
        & (s.template[:, 1] < 0.036)
        & (s.template[:, 0].abs() < 0.06)
    )[:, 0]
    point = s.template[near]
    side, height = point[:, 0].abs(), point[:, 1] - float(label_fields(rig)["eye_centres"][0, 1])
    thick = _table(side, BROW, 2) * (0.80 if a.gender == "woman" else 1.15)
    lift = 0.0010 if a.gender == "woman" else 0.0
    brow = (1 - (height - lift - _table(side, BROW, 1)).abs() / thick).clamp(0, 0.5) * 2
    brow = brow * _step(side, 0.0105, 0.003) * (1 - _step(side, 0.0535, 0.003))
    hair = _colour(HAIR[a.hair_colour])
    painted = _mix(albedo[near], hair * (0.45 if float(hair.mean()) > 0.15 else 0.8) + 0.02, 0.9 * brow)
    out = albedo.clone()
    out[near] = painted
    return _lashes(out, s, a, rig)


def _lashes(albedo: Tensor, s: Surface, a: PortraitAttributes, rig: BuiltinRig) -> Tensor:
    edge = rig.lid_edge()
    side, height = s.template[:, 0].abs(), s.template[:, 1]
    box = (
        (side > 0.012)
        & (side < 0.054)
        & (height > -0.012)
        & (height < float(edge[:, 1].max()) + 0.004)
        & (s.template[:, 2] > 0.03)
    )
    near = torch.nonzero(box)[:, 0]
    distance, above = _distance_to_line(torch.stack([side[near], height[near]], 1), edge)
    width = 0.0017 if a.gender == "woman" else 0.0011
    lash = (1 - (distance - width * 0.4).clamp_min(0) / width).clamp(0, 1) * above * _step(side[near], 0.0185, 0.005)
    rim = (1 - distance / 0.0012).clamp(0, 1) * (1 - above)
    albedo[near] = _mix(albedo[near], _colour((0.05, 0.035, 0.03)), torch.maximum(0.92 * lash, 0.7 * rim))
    return albedo


def _distance_to_line(points: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """Distance ``[P]`` of ``[P, 2]`` to a polyline ``[K, 2]`` running along x, and 1 where the point is above it."""
    a, b = line[:-1], line[1:]
    d = b - a
    t = ((points[:, None] - a) * d).sum(-1) / d.square().sum(-1)
    nearest = a + t.clamp(0, 1)[..., None] * d
    distance = (points[:, None] - nearest).norm(dim=-1)
    best = distance.argmin(1)
    chosen = nearest[torch.arange(len(points)), best]
    return distance[torch.arange(len(points)), best], (points[:, 1] >= chosen[:, 1]).float()


def _shirt(albedo: Tensor, gloss: Tensor, openness: Tensor, s: Surface, a: PortraitAttributes) -> Painted:
    depth = -neckline_distance(s.template)
    cloth = _step(depth, 0.0, 0.0012) * (s.template[:, 1] < -0.1)
    shirt = _colour(SHIRT[a.shirt])
    band = 1 - _step(depth, 0.009, 0.001)
    ridge = ((depth - 0.009).abs() < 0.0009).float()
    colour = shirt * (1 - 0.10 * band - 0.22 * ridge)[:, None] + 0.02 * band[:, None]
    shadow = (1 - (-depth / 0.008).clamp(0, 1)) * (1 - cloth) * (s.template[:, 1] < -0.1)
    return _mix(albedo, colour, cloth), gloss * (1 - 0.8 * cloth), openness * (1 - 0.18 * shadow)
