"""Materials of every point of a dressed head, as functions of the template position."""

from typing import Any

import torch
from torch import Tensor

from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.regions import IRIS_RADIUS, PUPIL_RADIUS, label_fields, neckline_distance
from ap3d.training.attributes import PortraitAttributes
from ap3d.training.portraits.skin import paint_skin
from ap3d.training.portraits.strands import paint_hair
from ap3d.training.portraits.surface import EYES, SHIRT, Material, Surface, colour, mix, step

CATCH_LIGHT = (0.0023, 0.00145)  # height over the pupil's centre and radius, metres; above it, so that mirrors agree


def paint(surface: Surface, attributes: PortraitAttributes, rig: BuiltinRig, seed: int) -> Material:
    """Materials of visible points; ``seed`` varies tone and strands."""
    generator = torch.Generator().manual_seed(seed)
    tone = 1 + 0.035 * torch.randn(1, generator=generator).clamp(-2, 2)
    phases = torch.rand(16, generator=generator) * 6.2832
    out = Material.plain(len(surface.part))
    for selected, painter in (
        (surface.part == 0, _paint_body), ((surface.part == 1) | (surface.part == 2), _paint_eyes),
        (surface.part >= 3, _paint_mouth), (surface.part < 0, _paint_hair),
    ):  # fmt: skip
        index = torch.nonzero(selected)[:, 0]
        if len(index):
            out.put(index, painter(surface[index], attributes, rig, tone, phases))
    return out


def _paint_hair(s: Surface, a: PortraitAttributes, rig: Any, tone: Tensor, phases: Tensor) -> Material:
    azimuth, way = torch.atan2(s.strands[:, 1], s.strands[:, 0]), s.strands[:, 2]
    return paint_hair(a, azimuth, way, phases)


def _paint_body(s: Surface, a: PortraitAttributes, rig: BuiltinRig, tone: Tensor, phases: Tensor) -> Material:
    return _shirt(paint_skin(s, a, rig, tone, phases), s, a)


def _paint_mouth(s: Surface, a: PortraitAttributes, rig: Any, tone: Tensor, phases: Tensor) -> Material:
    """Teeth with soft gaps between them, and the tongue with its furrow."""
    out = Material.plain(len(s.part), gloss=0.22)
    tongue = (s.part == 5).float()
    gap = (1 - (torch.sin(s.template[:, 0] * (torch.pi / 0.0078)).abs() / 0.22)).clamp(0, 1) * (1 - tongue)
    furrow = torch.exp(-(s.template[:, 0] / 0.0025).square()) * tongue
    teeth = colour((0.97, 0.95, 0.90)).expand(len(s.part), 3)
    out.albedo = mix(teeth, colour((0.82, 0.38, 0.40)), tongue) * (1 - 0.22 * gap - 0.18 * furrow)[:, None]
    depth = step(s.template[:, 2], 0.055, 0.03)
    corner = step(s.template[:, 0].abs(), 0.0185, 0.006) * (1 - tongue)
    out.openness = (0.45 + 0.55 * depth) * (1 - 0.6 * corner)
    return out


def _paint_eyes(s: Surface, a: PortraitAttributes, rig: BuiltinRig, tone: Tensor, phases: Tensor) -> Material:
    """White, iris with a dark border and light from below, pupil, and one catch-light at the top of the pupil."""
    out = Material.plain(len(s.part), gloss=0.04)
    offset = s.template - label_fields(rig)["eye_centres"][s.part - 1]
    radius, front = offset[:, :2].norm(dim=1), (offset[:, 2] > 0).float()
    angle = torch.atan2(offset[:, 1], offset[:, 0])
    inner = (1 - (radius - PUPIL_RADIUS) / (IRIS_RADIUS - PUPIL_RADIUS)).clamp(0, 1)
    below = (-offset[:, 1] / IRIS_RADIUS).clamp(-1, 1)
    fibres = 0.07 * torch.sin(17 * angle) + 0.05 * torch.sin(29 * angle + 2)
    iris = colour(EYES[a.eye_colour]) * (0.92 + 0.30 * inner + 0.28 * below + fibres)[:, None] + 0.03
    white = colour((0.95, 0.945, 0.94)) * (1 - 0.16 * step(offset[:, 0].abs(), 0.0085, 0.006))[:, None]
    out.albedo = mix(white, iris, front * (1 - step(radius, IRIS_RADIUS, 0.0007)))
    ring = front * (1 - (radius - IRIS_RADIUS + 0.0003).abs() / 0.0010).clamp(0, 1)
    out.albedo = out.albedo * (1 - 0.62 * ring)[:, None]
    out.albedo = mix(out.albedo, colour((0.015, 0.015, 0.02)), front * (1 - step(radius, PUPIL_RADIUS, 0.0006)))
    height, size = CATCH_LIGHT
    from_light = (offset[:, :2] - torch.tensor([0.0, height])).norm(dim=1)
    out.glow = front * (1 - step(from_light, size, 0.0006))
    out.openness = 1.12 - 0.42 * step(offset[:, 1], 0.0045, 0.005)  # the upper lid's shadow
    return out


def _shirt(out: Material, s: Surface, a: PortraitAttributes) -> Material:
    """Cloth below the neckline with a collar band, and its shadow on the skin above."""
    depth = -neckline_distance(s.template)
    body = (s.template[:, 1] < -0.1).float()
    cloth = step(depth, 0.0, 0.0012) * body
    band = 1 - step(depth, 0.010, 0.001)
    ridge = ((depth - 0.010).abs() < 0.0010).float()
    knit = 0.05 * torch.sin(torch.atan2(s.template[:, 0], s.template[:, 2]) * 90) * band
    shade = 1 - 0.10 * band - 0.25 * ridge + knit
    out.albedo = mix(out.albedo, colour(SHIRT[a.shirt]) * shade[:, None] + 0.02 * band[:, None], cloth)
    shadow = (1 - (-depth / 0.008).clamp(0, 1)) * (1 - cloth) * body
    out.gloss, out.scatter = out.gloss * (1 - 0.85 * cloth), out.scatter * (1 - cloth)
    out.openness = out.openness * (1 - 0.18 * shadow)
    return out
