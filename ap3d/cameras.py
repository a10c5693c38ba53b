"""Pinhole cameras in the world frame: right-handed, y up, face towards +z, subject's left at +x.

Camera axes follow OpenCV: x right, y down, z forward. Pixel centres lie at half-integer coordinates and
row 0 is the top of the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NEAR, FAR = 0.01, 100.0


@dataclass(frozen=True)
class Cameras:
    """A batch of cameras that share one image size.

    Attributes:
        cam2world: ``[B, 4, 4]`` rigid transforms, OpenCV axes, world units.
        intrinsics: ``[B, 4]`` fx, fy, cx, cy in pixels.
        width: image width in pixels.
        height: image height in pixels.
    """

    cam2world: Tensor
    intrinsics: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.cam2world.ndim != 3 or self.cam2world.shape[1:] != (4, 4):
            raise ValueError(f"cam2world must be [B, 4, 4], got {tuple(self.cam2world.shape)}")
        if self.intrinsics.shape != (len(self.cam2world), 4):
            raise ValueError(f"intrinsics must be [{len(self.cam2world)}, 4], got {tuple(self.intrinsics.shape)}")

    def __len__(self) -> int:
        return len(self.cam2world)

    def to(self, device: str | torch.device) -> "Cameras":
        """The same cameras on another device."""
        return Cameras(self.cam2world.to(device), self.intrinsics.to(device), self.width, self.height)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> "Cameras":
        """Select cameras; an integer gives a batch of one."""
        if isinstance(index, int):
            index = [index]
        return Cameras(self.cam2world[index], self.intrinsics[index], self.width, self.height)

    @staticmethod
    def concatenate(parts: Sequence["Cameras"]) -> "Cameras":
        """Join batches of the same image size."""
        if len({(p.width, p.height) for p in parts}) != 1:
            raise ValueError("cameras of different image sizes cannot share a batch")
        return Cameras(
            torch.cat([p.cam2world for p in parts]),
            torch.cat([p.intrinsics for p in parts]),
            parts[0].width,
            parts[0].height,
        )

    @property
    def positions(self) -> Tensor:
        """Camera centres ``[B, 3]`` in world units."""
        return self.cam2world[:, :3, 3]

    @property
    def world2cam(self) -> Tensor:
        """Inverse rigid transforms ``[B, 4, 4]``."""
        rotation = self.cam2world[:, :3, :3].transpose(1, 2)
        out = torch.zeros_like(self.cam2world)
        out[:, :3, :3] = rotation
        out[:, :3, 3] = -(rotation @ self.positions[..., None])[..., 0]
        out[:, 3, 3] = 1
        return out

    def clip_matrices(self) -> Tensor:
        """World to clip space ``[B, 4, 4]``; clip y = -1 is the top image row, z/w runs -1 (near) to 1 (far)."""
        fx, fy, cx, cy = self.intrinsics.unbind(1)
        projection = torch.zeros_like(self.cam2world)
        projection[:, 0, 0] = 2 * fx / self.width
        projection[:, 0, 2] = 2 * cx / self.width - 1
        projection[:, 1, 1] = 2 * fy / self.height
        projection[:, 1, 2] = 2 * cy / self.height - 1
        projection[:, 2, 2] = (FAR + NEAR) / (FAR - NEAR)
        projection[:, 2, 3] = -2 * FAR * NEAR / (FAR - NEAR)
        projection[:, 3, 2] = 1
        return projection @ self.world2cam

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Project world points ``[N, 3]`` or ``[B, N, 3]`` to pixels ``[B, N, 2]`` and depth ``[B, N]``."""
        view = self.world2cam.to(points)
        camera = points @ view[:, :3, :3].transpose(1, 2) + view[:, None, :3, 3]
        depth = camera[..., 2]
        focal, centre = self.intrinsics[:, None, :2].to(points), self.intrinsics[:, None, 2:].to(points)
        return camera[..., :2] / depth[..., None] * focal + centre, depth

    def crop(self, boxes: Tensor, size: int) -> "Cameras":
        """The same cameras seeing only square pixel boxes.

        Args:
            boxes: ``[B, 3]`` left, top and side length in pixels of these cameras.
            size: side of the new square image.
        """
        factor = size / boxes[:, 2]
        fx, fy, cx, cy = self.intrinsics.unbind(1)
        intrinsics = torch.stack(
            [fx * factor, fy * factor, (cx - boxes[:, 0]) * factor, (cy - boxes[:, 1]) * factor], 1
        )
        return Cameras(self.cam2world, intrinsics, size, size)

    def resized(self, size: int) -> "Cameras":
        """The same field of view on a square image of another size."""
        factor = torch.tensor([size / self.width, size / self.height] * 2).to(self.intrinsics)
        return Cameras(self.cam2world, self.intrinsics * factor, size, size)


def look_at(positions: Tensor, targets: Tensor, fov_degrees: float | Tensor, size: int) -> Cameras:
    """Square cameras at ``positions [B, 3]`` looking at ``targets`` (``[3]`` or ``[B, 3]``), world y up."""
    targets = targets.expand_as(positions)
    forward = torch.nn.functional.normalize(targets - positions, dim=1)
    up = torch.tensor([0.0, 1.0, 0.0]).to(positions).expand_as(positions)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=1)
    down = torch.linalg.cross(forward, right)
    cam2world = torch.zeros(len(positions), 4, 4).to(positions)
    cam2world[:, :3, 0], cam2world[:, :3, 1], cam2world[:, :3, 2] = right, down, forward
    cam2world[:, :3, 3] = positions
    cam2world[:, 3, 3] = 1
    fov = torch.as_tensor(fov_degrees, dtype=positions.dtype).expand(len(positions))
    focal = 0.5 * size / torch.tan(torch.deg2rad(fov) / 2)
    half = torch.full_like(focal, size / 2)
    return Cameras(cam2world, torch.stack([focal, focal, half, half], 1), size, size)


def orbit(
    azimuths: Sequence[float] | Tensor,
    elevations: Sequence[float] | Tensor,
    target: Tensor,
    radius: float | Tensor,
    fov_degrees: float | Tensor,
    size: int,
) -> Cameras:
    """Cameras on a sphere round ``target [3]``, degrees: azimuth 0 is the front, 90 the subject's left."""
    azimuth = torch.deg2rad(torch.as_tensor(azimuths, dtype=target.dtype))
    elevation = torch.deg2rad(torch.as_tensor(elevations, dtype=target.dtype)).expand_as(azimuth)
    direction = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()], 1)
    radii = torch.as_tensor(radius, dtype=target.dtype).expand(len(azimuth))[:, None]
    return look_at(target + radii * direction, target, fov_degrees, size)


def portrait3d_camera(
    yaw_degrees: float, pitch_degrees: float, *, radius: float = 2.65, fov_degrees: float = 30.0, size: int = 512
) -> Cameras:
    """The camera of Portrait3D and AnimPortrait3D: yaw 90, pitch 90 is the front.

    The pitch passes through arccos (it is no polar angle), the sphere is centred on the world origin and the
    camera looks at (0, 0.228, 0).
    """
    yaw = math.radians(yaw_degrees)
    v = min(max(math.radians(pitch_degrees), 1e-5), math.pi - 1e-5) / math.pi
    phi = math.acos(1 - 2 * v)
    position = radius * torch.tensor(
        [math.sin(phi) * math.cos(math.pi - yaw), math.cos(phi), math.sin(phi) * math.sin(math.pi - yaw)]
    )
    return look_at(position[None], torch.tensor([0.0, 0.228, 0.0]), fov_degrees, size)
