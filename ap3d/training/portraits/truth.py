"""A procedural person as a starting 3D portrait whose surface, parts and rig parameters are known exactly."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.perception.parsing import CLASSES
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.raster.mesh import interpolate
from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.protocol import RigParams
from ap3d.training.attributes import BACKGROUND_COLOUR, PortraitAttributes
from ap3d.training.portraits.people import build_person
from ap3d.training.portraits.render import Portraitist
from ap3d.training.portraits.solid import OuterSurface, outer_surface, signed_distance_grid, surface_mesh


@dataclass
class TruthPortrait:
    """A dressed person behind the interface of a portrait.

    Attributes:
        portraitist: the person, drawn by the mesh rasteriser.
    """

    portraitist: Portraitist

    @staticmethod
    def of(attributes: PortraitAttributes, rig: BuiltinRig, seed: int, expression: str = "neutral") -> "TruthPortrait":
        """The person whom ``seed`` draws for given words."""
        return TruthPortrait(Portraitist(build_person(attributes, expression, np.random.default_rng(seed), rig), rig))

    @property
    def params(self) -> RigParams:
        """Of the rig under skin, beard and shirt, a batch of one."""
        return self.portraitist.person.params

    @property
    def mesh(self) -> Mesh:
        """Every triangle, hidden ones too: the rig's first, then hair (open sheets among it)."""
        return Mesh(self.portraitist.mesh.vertices, self.portraitist.mesh.faces)

    @cached_property
    def face_classes(self) -> Tensor:
        """What each triangle of ``mesh`` shows (int64 ``[F]``): an index into the face parser's ``CLASSES``."""
        mesh = self.portraitist.mesh
        fields = mesh.attributes[mesh.faces, 3:9].mean(1)
        return self.portraitist.classes_of(torch.arange(len(mesh.faces)), fields)

    @cached_property
    def surface(self) -> OuterSurface:
        """Points of all that can be seen from outside."""
        return outer_surface(self.mesh, self.face_classes, CLASSES.index("hair"), CLASSES.index("mouth"))

    @torch.no_grad()
    def render(self, cameras: Cameras, framing: str = "full") -> PortraitViews:
        """Exact pictures; labels are ``ap3d.perception.protocol.Part``."""
        background = torch.tensor(BACKGROUND_COLOUR)
        layers = [self._layers(cameras[i]) for i in range(len(cameras))]
        alpha, depth, normals = (torch.stack(layer) for layer in zip(*layers, strict=True))
        color = self.portraitist.render(cameras) - (1 - alpha) * background[:, None, None]
        labels = self.portraitist.render_classes(cameras)
        return PortraitViews(cameras, color.clamp(0, 1), alpha, background, depth, normals, labels)

    @cached_property
    def _density_mesh(self) -> Mesh:
        return surface_mesh(*signed_distance_grid(self.surface))

    def density_mesh(self) -> Mesh:
        """The outer surface by marching cubes on a grid like Portrait3D's: 256 samples along 2.1 world units."""
        return self._density_mesh

    def _layers(self, camera: Cameras) -> tuple[Tensor, Tensor, Tensor]:
        """Alpha, depth and normals of one view, ``[1 or 3, H, W]``."""
        mesh, size = self.portraitist.mesh, (camera.height, camera.width)
        fine, _ = self.portraitist.rasterize(camera, (2 * size[0], 2 * size[1]))
        alpha = torch.nn.functional.avg_pool2d((fine[..., 3] > 0).float(), 2)
        rast, hit = self.portraitist.rasterize(camera, size)
        values = interpolate(torch.cat([mesh.attributes[:, :3], mesh.vertices], 1)[None], rast, mesh.faces)[0]
        towards = camera.positions[0] - values[..., 3:]
        normals = torch.nn.functional.normalize(values[..., :3], dim=-1)
        normals = torch.where((normals * towards).sum(-1, keepdim=True) < 0, -normals, normals) * hit[..., None]
        depth = -(towards @ camera.cam2world[0, :3, 2]) * hit
        return alpha, depth[None], normals.permute(2, 0, 1)


# Six people for benchmarks: every hair style, both genders, beard and none, several ages and expressions.
BENCHMARK_PEOPLE: dict[str, tuple[PortraitAttributes, str]] = {
    "long": (PortraitAttributes("woman", "young", "average", "pale", "long", "brown", "blue", "red", False), "neutral"),
    "curly": (
        PortraitAttributes("man", "young", "average", "dark", "curly", "black", "brown", "white", False), "smiling",
    ),
    "bun": (PortraitAttributes("woman", "old", "thin", "tan", "bun", "gray", "green", "purple", False), "neutral"),
    "short": (
        PortraitAttributes("man", "middle-aged", "chubby", "pale", "short", "blonde", "blue", "blue", True), "neutral",
    ),
    "fringe": (
        PortraitAttributes("woman", "child", "average", "brown", "fringe", "red", "brown", "green", False), "smiling",
    ),
    "bald": (PortraitAttributes("man", "old", "average", "brown", "bald", "gray", "brown", "yellow", True), "neutral"),
}  # fmt: skip


def benchmark_portrait(name: str, rig: BuiltinRig) -> TruthPortrait:
    """One of ``BENCHMARK_PEOPLE``."""
    attributes, expression = BENCHMARK_PEOPLE[name]
    return TruthPortrait.of(attributes, rig, 11 + list(BENCHMARK_PEOPLE).index(name), expression)
