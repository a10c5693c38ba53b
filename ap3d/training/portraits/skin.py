"""Skin with its complexion, lips, brows, lashes, beard and the hair's edge on the scalp."""

import torch
from torch import Tensor

from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.regions import beard_weight, brow_weight, hairline_distance, label_fields
from ap3d.training.attributes import PortraitAttributes
from ap3d.training.portraits.strands import hair_albedo, strand_noise
from ap3d.training.portraits.surface import HAIR, SKIN, Material, Surface, bell, colour, mix, step


def paint_skin(s: Surface, a: PortraitAttributes, rig: BuiltinRig, tone: Tensor, phases: Tensor) -> Material:
    """Everything that grows on or shows through the skin; the shirt comes later."""
    out = Material.plain(len(s.part), gloss=0.13)
    skin = (colour(SKIN[a.skin]) * tone).clamp(0, 1)
    out.scatter, out.openness = torch.ones(len(s.part)), _openness(s)
    eyes = label_fields(rig)["eye_centres"]
    out.albedo = _wrinkles(_complexion(skin, s, a, eyes[0]), s, a)
    if a.gender == "man" and a.age != "child" and not a.beard:
        stubble = (beard_weight(s.template) * (0.16 if a.skin in ("pale", "tan") else 0.10)).clamp(0, 1)
        out.albedo = mix(out.albedo, out.albedo * torch.tensor([0.62, 0.66, 0.70]), stubble)
    lips = step(s.masks[:, 0], 0.45, 0.3)
    out.albedo = mix(out.albedo, _lip_colour(skin, a), lips)
    out.gloss = out.gloss + 0.16 * lips * step(-s.template[:, 1], 0.058, 0.006)
    out.albedo = _brows(out.albedo, s, a, float(eyes[0, 1]))
    out.albedo = _lashes(out.albedo, s, a, rig)
    out.albedo = mix(out.albedo, colour((0.34, 0.07, 0.08)), step(s.masks[:, 2], 0.6, 0.3))
    return _hair_on_skin(out, s, a, lips, phases)


def _openness(s: Surface) -> Tensor:
    """Painted shade that geometry is too coarse for: nostrils and the inside of the mouth."""
    x, y, z = s.template.unbind(1)
    ellipse = 1 - ((x.abs() - 0.0075) / 0.0045).square() - ((y + 0.0405) / 0.0028).square()
    inside = step(s.masks[:, 2], 0.5, 0.5) * (0.25 + 0.75 * step(0.07 - z, 0.0, 0.05))
    return (1 - 0.6 * ellipse.clamp(0, 1) * step(z, 0.08, 0.005)) * (1 - 0.7 * inside)


def _complexion(skin: Tensor, s: Surface, a: PortraitAttributes, eye: Tensor) -> Tensor:
    """Redder cheeks, nose and ears, a lighter forehead and nose ridge, darker lids and hollows under the eyes."""
    x, y, z = s.template.unbind(1)
    side, front = x.abs(), step(z, 0.03, 0.03)
    albedo = skin.expand(len(s.part), 3)
    soft = a.gender == "woman" or a.age == "child"
    blush = bell(side, 0.043, 0.018) * bell(y, -0.028, 0.018) * front
    nose = bell(side, 0.0, 0.013) * bell(y, -0.030, 0.012) * step(z, 0.085, 0.02)
    chin = bell(side, 0.0, 0.016) * bell(y, -0.098, 0.010) * front
    red = (0.42 if soft else 0.26) * blush + 0.30 * nose + 0.12 * chin + 0.45 * step(s.masks[:, 1], 0.5, 0.4)
    albedo = mix(albedo, skin * torch.tensor([1.0, 0.66, 0.62]), red.clamp(0, 0.6))
    light = 0.5 * bell(side, 0.0, 0.035) * bell(y, 0.048, 0.020) + 0.6 * bell(side, 0.0, 0.006) * bell(y, 0.0, 0.020)
    albedo = albedo * (1 + 0.07 * light * front)[:, None]
    across, over = side - float(eye[0].abs()), y - float(eye[1])
    lid = bell(across, 0.0, 0.020) * bell(over, 0.008, 0.008)
    hollow = bell(across, -0.004, 0.017) * bell(over, -0.013, 0.006)
    albedo = mix(albedo, skin * torch.tensor([0.86, 0.70, 0.70]), (0.55 * lid + 0.35 * hollow) * front)
    if a.gender == "woman" and a.age != "child":  # a little eye shadow
        albedo = mix(albedo, skin * torch.tensor([0.74, 0.55, 0.58]), 0.45 * lid * front)
    return albedo


def _wrinkles(albedo: Tensor, s: Surface, a: PortraitAttributes) -> Tensor:
    """Lines of the forehead, beside the nose, under and beside the eyes of older people."""
    if a.age not in ("old", "middle-aged"):
        return albedo
    x, y, z = s.template.unbind(1)
    side, strength = x.abs(), 0.30 if a.age == "old" else 0.12
    lines = (0.5 + 0.5 * torch.sin(y * 900 + 0.6 * torch.cos(side * 60))).square()
    forehead = 0.75 * lines * bell(y, 0.050, 0.012) * bell(side, 0.0, 0.032)
    fold = bell(side - 0.40 * (-0.045 - y), 0.0225, 0.0019) * (y < -0.038) * (y > -0.072)
    feet = (0.5 + 0.5 * torch.sin(1300 * (y - 0.3 * side))).square() * bell(side, 0.060, 0.006) * bell(y, 0.012, 0.008)
    bag = 0.6 * bell(y + 0.004 * torch.cos((side - 0.031) * 70), -0.004, 0.0016) * bell(side, 0.031, 0.012)
    wrinkles = torch.stack([forehead, fold, 0.8 * feet, bag]).amax(0) * (z > 0.03)
    return albedo * (1 - strength * wrinkles[:, None] * torch.tensor([0.8, 1.0, 1.0]))


def _lip_colour(skin: Tensor, a: PortraitAttributes) -> Tensor:
    if a.gender == "woman" and a.age != "child":
        return (skin * torch.tensor([0.80, 0.44, 0.46]) + torch.tensor([0.12, 0.01, 0.03])).clamp(0, 1)
    return (skin * torch.tensor([0.88, 0.66, 0.64]) + torch.tensor([0.03, 0.0, 0.0])).clamp(0, 1)


def _brows(albedo: Tensor, s: Surface, a: PortraitAttributes, eye_height: float) -> Tensor:
    """Brows of slanting hairs in the hair's colour, darker, with a soft edge."""
    side, height = s.template[:, 0].abs(), s.template[:, 1] - eye_height
    hairs = torch.sin(2400 * (0.55 * side - height) + 1.2 * torch.sin(500 * side))
    weight = brow_cover(s.template, a, eye_height, hairs)
    hair = colour(HAIR[a.hair_colour])
    dark = hair * 0.45 if float(hair.mean()) > 0.15 else hair * 0.8
    warm = torch.tensor([0.20, 0.115, 0.06]) if a.hair_colour in ("blonde", "red", "brown") else dark
    return mix(albedo, 0.55 * dark + 0.45 * warm + 0.01, 0.92 * weight)


def brow_cover(template: Tensor, a: PortraitAttributes, eye_height: float, hairs: Tensor | float = 0.0) -> Tensor:
    """How much of a brow covers template points ``[P, 3]``, 0 to 1; its outline is where half is covered."""
    thickness = 0.85 if a.gender == "woman" else 0.95 if a.age == "child" else 1.2
    side, near = template[:, 0].abs(), brow_weight(template, eye_height, thickness)
    weight = (1.9 * near + 0.30 * hairs * step(near, 0.1, 0.2)).clamp(0, 1)
    return weight * step(side, 0.0120, 0.005) * (1 - step(side, 0.0515, 0.006))


def _lashes(albedo: Tensor, s: Surface, a: PortraitAttributes, rig: BuiltinRig) -> Tensor:
    """A dark line on the edge of the upper lid, thicker towards the outer corner, a fine rim on the lower."""
    edge = rig.lid_edge()
    side, height = s.template[:, 0].abs(), s.template[:, 1]
    top = float(edge[:, 1].max()) + 0.004
    box = (side > 0.012) & (side < 0.054) & (height > -0.012) & (height < top) & (s.template[:, 2] > 0.03)
    near = torch.nonzero(box)[:, 0]
    distance, above = _distance_to_line(torch.stack([side[near], height[near]], 1), edge)
    outer = step(side[near], 0.034, 0.024)
    width = (0.0013 + 0.0010 * outer) if a.gender == "woman" else (0.0009 + 0.0004 * outer)
    lash = (1 - (distance - width * 0.4).clamp_min(0) / width).clamp(0, 1) * above * step(side[near], 0.0185, 0.005)
    rim = (1 - distance / 0.0011).clamp(0, 1) * (1 - above)
    albedo[near] = mix(albedo[near], colour((0.06, 0.04, 0.035)), torch.maximum(0.92 * lash, 0.55 * rim))
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


def _hair_on_skin(out: Material, s: Surface, a: PortraitAttributes, lips: Tensor, phases: Tensor) -> Material:
    """Beard, and the scalp under and at the edge of the hair."""
    azimuth = torch.atan2(s.template[:, 0], s.template[:, 2])
    if a.beard:
        beard = step(beard_weight(s.template), 0.35, 0.5) * (1 - lips)
        height = s.template[:, 1]
        fibre = 0.5 * torch.sin(95 * azimuth + 60 * height + phases[5]) + 0.4 * torch.sin(151 * azimuth - 90 * height)
        out.albedo = mix(out.albedo, hair_albedo(a.hair_colour, fibre, torch.zeros_like(fibre)) * 0.95, beard)
        out.gloss, out.scatter = out.gloss * (1 - 0.7 * beard), out.scatter * (1 - beard)
    if a.hair_style != "bald":
        jag = 0.0016 * torch.sin(61 * azimuth + phases[6]) + 0.0016 * torch.sin(103 * azimuth + phases[7])
        scalp = step(hairline_distance(s.template) + jag, 0.001, 0.010) * (1 - step(s.masks[:, 1], 0.4, 0.2))
        noise = strand_noise(azimuth, torch.full_like(azimuth, 0.9), phases)
        out.albedo = mix(out.albedo, hair_albedo(a.hair_colour, noise, torch.zeros_like(noise)) * 0.9, scalp)
        out.gloss, out.scatter = out.gloss * (1 - scalp), out.scatter * (1 - scalp)
    return out
