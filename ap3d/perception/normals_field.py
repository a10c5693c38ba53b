"""The offline default for normals: what the portrait itself knows, its own normals or the slope of its depth."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.cameras import Cameras
from ap3d.errors import InputError
from ap3d.perception.field import FieldModel
from ap3d.portrait.protocol import PortraitViews


@dataclass(frozen=True)
class FieldNormals(FieldModel):
    """Normals of the portrait's field, turned into each camera."""

    kind = "normal estimator"

    def normals(self, views: PortraitViews) -> Tensor:
        """See :class:`ap3d.perception.protocol.NormalEstimator`; world normals are preferred to depth.

        Raises:
            InputError: the portrait knows neither.
        """
        if views.normals is not None:
            world_to_camera = views.cameras.cam2world[:, :3, :3].transpose(1, 2).to(views.normals)
            normals = torch.einsum("bij,bjhw->bihw", world_to_camera, views.normals)
            normals = normals * normals.new_tensor([1.0, -1.0, -1.0])[:, None, None]
        elif views.depth is not None:
            normals = depth_normals(views.depth, views.cameras)
        else:
            raise InputError("this portrait has neither normals nor depth; choose another perception.normals")
        return F.normalize(normals, dim=1) * (views.alpha >= 0.5)


def depth_normals(depth: Tensor, cameras: Cameras) -> Tensor:
    """OpenGL camera-space normals ``[B, 3, H, W]`` of depth maps ``[B, 1, H, W]`` (distance along the optical axis)."""
    height, width = depth.shape[-2:]
    fx, fy, cx, cy = cameras.intrinsics.to(depth)[:, :, None, None].unbind(1)
    x = (torch.arange(width).to(depth) + 0.5 - cx) / fx
    y = (torch.arange(height).to(depth)[:, None] + 0.5 - cy) / fy
    points = torch.stack([x.expand(-1, height, -1), -y.expand(-1, -1, width), torch.full_like(depth[:, 0], -1.0)], 1)
    padded = F.pad(points * depth, (1, 1, 1, 1), mode="replicate")
    right = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    up = padded[:, :, :-2, 1:-1] - padded[:, :, 2:, 1:-1]
    return F.normalize(torch.linalg.cross(right, up, dim=1), dim=1)
