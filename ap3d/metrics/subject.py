"""An avatar under measurement: its pictures, what was asked of it, and the networks that read it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.checksums import BUILTIN
from ap3d.framing import framing_boxes, full_cameras
from ap3d.metrics.attribute_probe import FILE, AttributeProbe
from ap3d.motion.expressions import ExpressionSampler
from ap3d.perception import load_landmark_detector
from ap3d.perception.protocol import LandmarkDetector
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.raster.splats import Splats, rasterize_splats
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import SH_C0, Group
from ap3d.splats.bundle import Bundle

ELEVATION = 2.0  # degrees, of all cameras


@dataclass(frozen=True)
class Tools:
    """The networks, each loaded when it is first asked for.

    Attributes:
        probe_folder: where the measuring probe's weights lie.
    """

    probe_folder: Path = BUILTIN

    @cached_property
    def probe(self) -> AttributeProbe:
        """The measuring probe."""
        return AttributeProbe.load(self.probe_folder / FILE)

    @cached_property
    def detector(self) -> LandmarkDetector:
        """The shipped landmark detector."""
        return load_landmark_detector()

    def has(self, name: str) -> bool:
        """Whether a network's weights are there; the detector's always are."""
        return name != "probe" or (self.probe_folder / FILE).is_file()

    def fingerprint(self, name: str) -> str:
        """What tells one network's weights from another's."""
        return self.detector.fingerprint if name == "detector" else self._probe_digest

    @cached_property
    def _probe_digest(self) -> str:
        return hashlib.sha256((self.probe_folder / FILE).read_bytes()).hexdigest()


@dataclass(frozen=True)
class Subject:
    """One avatar.

    Attributes:
        bundle: the avatar.
        asked: attribute values that were asked for, by name; what was left open is absent.
        tools: the networks.
    """

    bundle: Bundle
    asked: Mapping[str, object] = field(default_factory=dict)
    tools: Tools = field(default_factory=Tools)

    @cached_property
    def neutral(self) -> Tensor:
        """Vertices ``[V, 3]`` of the neutral head."""
        return self.bundle.rig.vertices(self.bundle.params)[0]

    def cameras(self, azimuths: Sequence[float], size: int) -> Cameras:
        """Full-frame cameras; degrees."""
        return full_cameras(self.bundle.rig, self.neutral, azimuths, [ELEVATION] * len(azimuths), size)

    def face_camera(self, size: int, side: float | None = None) -> Cameras:
        """The framing ``face`` of the neutral head, from the front; ``side`` head heights wide instead of its own."""
        camera = self.cameras([0.0], size)
        pixels, _ = camera.project(self.bundle.rig.landmarks(self.bundle.params)[0])
        return camera.crop(framing_boxes(pixels, "face", size, side), size)

    @cached_property
    def splats(self) -> Splats:
        """The neutral avatar."""
        return self.bundle.pose(self.bundle.params)

    def acted(self, name: str) -> RigParams:
        """The head with one of the combinations in :data:`ap3d.motion.expressions.COMBINATIONS`."""
        return ExpressionSampler(self.bundle.rig).named(self.bundle.params, name)

    @torch.no_grad()
    def pictures(self, cameras: Cameras, splats: Splats | None = None, background: Tensor | None = None) -> Tensor:
        """``[B, 3, H, W]`` of the neutral avatar, or of posed splats."""
        behind = self.bundle.background if background is None else background
        images = rasterize_splats(splats or self.splats, cameras, sh_degree=self.bundle.avatar.sh_degree)
        return images.over(behind).clamp(0, 1)

    @torch.no_grad()
    def shares(self, groups: Sequence[Group], cameras: Cameras, splats: Splats | None = None) -> tuple[Tensor, Tensor]:
        """How much of each pixel up to three groups cover, ``[B, len(groups), H, W]``, and alpha ``[B, 1, H, W]``."""
        shown = splats or self.splats
        member = torch.zeros(len(shown), 3)
        for column, group in enumerate(groups):
            member[:, column] = (self.bundle.avatar.group == group).float()
        flat = Splats(shown.means, shown.quaternions, shown.scales, shown.opacities, ((member - 0.5) / SH_C0)[:, None])
        images = rasterize_splats(flat, cameras, sh_degree=0)
        return images.color[:, : len(groups)], images.alpha

    @torch.no_grad()
    def surface(self, cameras: Cameras, vertices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The rig's face at each pixel (int64 ``[B, H, W]``, -1 outside), and canonical positions ``[B, H, W, 3]``."""
        rig = self.bundle.rig
        points = (self.neutral if vertices is None else vertices).expand(len(cameras), -1, -1)
        clip = torch.cat([points, torch.ones_like(points[..., :1])], -1) @ cameras.clip_matrices().transpose(1, 2)
        rast = rasterize_mesh(clip, rig.faces, (cameras.height, cameras.width))
        return rast[..., 3].long() - 1, interpolate(rig.canonical[None], rast, rig.faces)

    def region(self, faces: Tensor, names: Sequence[str]) -> Tensor:
        """Where ``faces`` of :meth:`surface` belong to one of the rig's regions (bool, the same shape)."""
        rig = self.bundle.rig
        member = torch.zeros(len(rig.faces) + 1, dtype=torch.bool)  # the last stands for -1, outside
        member[torch.cat([rig.regions[name] for name in names])] = True
        return member[faces]
