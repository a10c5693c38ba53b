"""A small avatar with view-dependent colours, made without any model, and measures."""

import io
from dataclasses import replace

import numpy as np
import torch
from plyfile import PlyData

from ap3d.motion import Motion
from ap3d.raster.reference import rotation_matrices
from ap3d.raster.splats import Splats
from ap3d.rig.protocol import RigParams
from ap3d.rig.regions import point_labels
from ap3d.splats.bundle import Bundle
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import surface_avatar

MADE_UP = {"schema_version": 1, "rig": "builtin", "prompt": "a <test>", "metrics": {}, "groups": {}, "seed": 3}


def painted_bundle(rig, count: int, degree: int) -> Bundle:  # type: ignore[no-untyped-def]
    """The rig's surface in ``count`` Gaussians, coloured by what they lie on."""
    generator = torch.Generator().manual_seed(0)
    params = RigParams.neutral(rig)
    vertices = rig.vertices(params)[0]
    avatar = surface_avatar(rig, vertices, count, generator).with_sh_degree(degree)
    palette = torch.rand(16, 3, generator=generator) * 2 - 1
    labels = point_labels(rig, avatar.binding, rig.template[rig.faces[avatar.binding]].mean(1))
    noise = 0.25 * torch.randn(avatar.f_rest.shape, generator=generator)
    avatar = replace(avatar, f_dc=palette[labels] + 0.2 * torch.randn(count, 3, generator=generator), f_rest=noise)
    facts = MADE_UP | {"rig": rig.name, "topology_sha256": rig.topology_sha256, "sh_degree": degree}
    return Bundle(facts, avatar, params, rig, triangle_frames(vertices, rig.faces))


def nodding_motion(bundle: Bundle, frames: int, fps: float) -> Motion:
    """The jaw opens while the head nods."""
    names = tuple(bundle.rig.expression_names)
    still = Motion.still(frames, fps, "arkit52", names)
    ramp = torch.linspace(0, 1, frames)
    expression = still.expression.clone()
    expression[:, names.index("jawOpen")] = ramp
    return replace(still, expression=expression, head=torch.outer(ramp, torch.tensor([0.3, 0.0, 0.0])))


def ply_columns(data: bytes, *names: str) -> np.ndarray:
    """Properties ``[N, len(names)]`` of a PLY as plyfile, an independent reader, sees them."""
    vertex = PlyData.read(io.BytesIO(data))["vertex"]
    return np.stack([np.asarray(vertex[n], float) for n in names], 1)


def psnr(first: torch.Tensor, second: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0..1."""
    return float(-10 * torch.log10((first - second).square().mean().clamp(min=1e-14)))


def covariances(splats: Splats) -> torch.Tensor:
    """``[N, 3, 3]``."""
    axes = rotation_matrices(splats.quaternions) * splats.scales[:, None, :]
    return axes @ axes.transpose(1, 2)
