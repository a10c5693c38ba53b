"""Condition images: camera-space normals and a region map of the posed rig, drawn without hair or clothes.

One builder serves training data, guidance and production models; a ``condition.json`` beside a ControlNet says which
kind it was trained with.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.errors import DataFileError
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.rig.protocol import Rig
from ap3d.rig.regions import Label, label_fields, labels_from_fields

BUILTIN_CODES: dict[str, tuple[float, ...]] = {
    "SKIN": (1.0, 0.6, 0.4), "SCALP": (0.0, 0.6, 0.2), "EARS": (0.8, 0.9, 0.1), "LIPS": (1.0, 0.0, 0.3),
    "SCLERA": (0.0, 0.8, 1.0), "IRIS": (0.0, 0.1, 1.0), "PUPIL": (0.0, 0.0, 0.5), "TEETH": (1.0, 1.0, 1.0),
    "TONGUE": (0.5, 0.2, 0.6), "MOUTH": (0.3, 0.0, 0.6), "NECK": (1.0, 0.85, 0.7), "CLOTHES": (0.6, 0.3, 0.1),
    "BEARD": (0.8, 0.35, 0.65), "BROW": (0.4, 0.9, 0.7),
}  # fmt: skip
PRODUCTION_CODES: dict[str, tuple[float, ...]] = {
    "SCLERA": (1.0,), "IRIS": (1 / 3,), "PUPIL": (1 / 3,), "TEETH": (0.490,),
}  # fmt: skip


@dataclass(frozen=True)
class ConditionSpec:
    """What a condition image shows.

    Attributes:
        submesh: faces that the normals cover: ``head`` (all) or ``face`` (facial skin and lips alone).
        background: of the normals, ``white`` or ``black``; region channels are 0 there.
        codes: region name (of ``Label``) to its value in each region channel; regions left out are 0, but brows that
            have no code of their own are skin.
    """

    submesh: str = "head"
    background: str = "black"
    codes: dict[str, tuple[float, ...]] = field(default_factory=lambda: dict(BUILTIN_CODES))

    def __post_init__(self) -> None:
        widths = {len(c) for c in self.codes.values()}
        unknown = set(self.codes) - {label.name for label in Label}
        if self.submesh not in ("head", "face") or self.background not in ("white", "black"):
            raise DataFileError(
                f"condition: no submesh {self.submesh!r} (head, face) or background {self.background!r} (white, black)"
            )
        if unknown or len(widths) != 1:
            raise DataFileError(
                f"condition: region codes must be of one length and name known regions, got {sorted(self.codes)}"
            )

    @property
    def region_channels(self) -> int:
        return len(next(iter(self.codes.values())))

    @property
    def channels(self) -> int:
        """Channels of the whole condition image: three of normals, then the region's."""
        return 3 + self.region_channels

    @staticmethod
    def production() -> "ConditionSpec":
        """The spec of the published AnimPortrait3D ControlNet: face normals on white and one region channel."""
        return ConditionSpec("face", "white", dict(PRODUCTION_CODES))

    @staticmethod
    def read(path: Path) -> "ConditionSpec":
        """Read ``condition.json``, or one that lies in the folder ``path``."""
        file = path / "condition.json" if path.is_dir() else path
        try:
            return ConditionSpec.from_values(json.loads(file.read_text(encoding="utf-8")), str(file))
        except (OSError, ValueError) as error:
            raise DataFileError(f"{file} is no readable condition.json ({type(error).__name__}: {error})") from None

    @staticmethod
    def from_values(values: dict[str, Any], name: str) -> "ConditionSpec":
        """From the parsed content of a ``condition.json``; ``name`` is for the message."""
        try:
            codes = {str(k): tuple(float(x) for x in v) for k, v in values["codes"].items()}
            return ConditionSpec(str(values["submesh"]), str(values["background"]), codes)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataFileError(f"{name} has no usable condition.json ({type(error).__name__}: {error})") from None

    def write(self, path: Path) -> None:
        """Write ``condition.json``."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


class ConditionBuilder:
    """Draws the condition images of one rig under one spec; 2x supersampled, without gradients."""

    def __init__(self, rig: Rig, spec: ConditionSpec = ConditionSpec(), supersample: int = 2) -> None:
        self.rig, self.spec, self.supersample = rig, spec, supersample
        self._table = torch.zeros(len(Label), spec.region_channels)
        for name, code in spec.codes.items():
            self._table[Label[name]] = torch.tensor(code)
        if "BROW" not in spec.codes:
            self._table[Label.BROW] = self._table[Label.SKIN]
        self._static = torch.cat([rig.canonical, label_fields(rig)["masks"]], 1)
        self._face_only = torch.cat([rig.regions["face"], rig.regions["lips"]]).sort().values
        self._white = 1.0 if spec.background == "white" else 0.0

    @torch.no_grad()
    def render(self, vertices: Tensor, cameras: Cameras) -> Tensor:
        """Condition images ``[B, C, H, W]`` in [0, 1] of posed vertices ``[B or 1, V, 3]`` in world units."""
        vertices = vertices.detach().float()
        normals = vertex_normals(vertices, self.rig.faces)
        vertices = vertices.expand(len(cameras), -1, -1)
        normals = normals @ cameras.cam2world[:, :3, :3].float()
        normals = normals * torch.tensor([1.0, -1.0, -1.0])
        homogeneous = torch.cat([vertices, torch.ones_like(vertices[..., :1])], -1)
        clip = homogeneous @ cameras.clip_matrices().float().transpose(1, 2)
        size = (cameras.height * self.supersample, cameras.width * self.supersample)
        images = [self._draw(c[None], n[None], size) for c, n in zip(clip, normals, strict=True)]
        image = torch.cat(images).permute(0, 3, 1, 2)
        return torch.nn.functional.avg_pool2d(image, self.supersample) if self.supersample > 1 else image

    def _draw(self, clip: Tensor, normals: Tensor, size: tuple[int, int]) -> Tensor:
        rast = rasterize_mesh(clip, self.rig.faces, size)
        attributes = torch.cat([normals, self._static[None]], -1)
        values = interpolate(attributes, rast, self.rig.faces)
        hit = rast[..., 3] > 0
        ids, values = rast[hit][:, 3].long() - 1, values[hit]
        out = torch.zeros(*hit.shape, self.spec.channels)
        out[..., :3] = self._white
        if self.spec.submesh == "head":
            regions = self._table[labels_from_fields(self.rig, ids, values[:, 3:6], values[:, 6:])]
            out[hit] = torch.cat([_encode(values[:, :3]), regions], 1)
            return out
        out[..., 3:][hit] = self._table[labels_from_fields(self.rig, ids, values[:, 3:6], values[:, 6:])]
        faces = self.rig.faces[self._face_only]
        rast = rasterize_mesh(clip, faces, size)
        hit = rast[..., 3] > 0
        out[..., :3][hit] = _encode(interpolate(normals, rast, faces)[hit])
        return out


def _encode(normals: Tensor) -> Tensor:
    return torch.nn.functional.normalize(normals, dim=1) * 0.5 + 0.5


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals ``[B, V, 3]`` of vertices ``[B, V, 3]``."""
    a, b, c = (vertices[:, faces[:, k]] for k in range(3))
    face = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for k in range(3):
        total.index_add_(1, faces[:, k], face)
    return torch.nn.functional.normalize(total, dim=-1)
