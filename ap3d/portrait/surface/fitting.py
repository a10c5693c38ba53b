"""Move a raw mesh onto a portrait's views: their normals and, view by view, their silhouettes.

Coarse to fine: a decimated mesh takes the large corrections at a small picture size, they are carried to a finer one,
and the details follow. Each view is compared with its own matte and its own normals; pixels are seen through the
mesh rasteriser, whose antialiasing gives silhouettes a gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.diffusion.conditions import vertex_normals
from ap3d.errors import PortraitError
from ap3d.portrait.protocol import Mesh
from ap3d.portrait.surface.cleaning import clean, decimate, face_neighbours
from ap3d.portrait.surface.preconditioner import SmoothVertices
from ap3d.raster.mesh import MeshTopology, antialias, interpolate, mesh_topology, rasterize_mesh

NEIGHBOURS = 4  # that carry a coarse level's change to a point of the next
SOLID = 0.5  # alpha from which on a pixel's normal counts


@dataclass(frozen=True)
class NormalTargets:
    """What the surface should look like.

    Attributes:
        cameras: ``B`` square cameras.
        alpha: ``[B, 1, S, S]``.
        normals: ``[B, 3, S, S]`` unit vectors in world axes, 0 where nothing is.
    """

    cameras: Cameras
    alpha: Tensor
    normals: Tensor

    def __post_init__(self) -> None:
        if not bool((self.alpha > SOLID).any()):
            raise PortraitError(f"all {len(self.alpha)} views of the portrait are transparent: there is no surface")

    def resized(self, size: int) -> "NormalTargets":
        """Smaller pictures of the same views."""
        if size >= self.cameras.width:
            return self
        shrunk = lambda x: torch.nn.functional.interpolate(x, (size, size), mode="area")  # noqa: E731
        normals = torch.nn.functional.normalize(shrunk(self.normals), dim=1)
        return NormalTargets(self.cameras.resized(size), shrunk(self.alpha), normals)


def world_normals(camera_normals: Tensor, cameras: Cameras) -> Tensor:
    """Normals ``[B, 3, H, W]`` in OpenGL camera axes, as estimators give them, in world axes."""
    axes = cameras.cam2world[:, :3, :3] * camera_normals.new_tensor([1.0, -1.0, -1.0])
    return torch.einsum("bwc,bchx->bwhx", axes.to(camera_normals), camera_normals)


def rays(cameras: Cameras) -> Tensor:
    """Unit directions ``[B, H, W, 3]`` in world axes from the cameras through the centres of their pixels."""
    fx, fy, cx, cy = cameras.intrinsics[:, :, None, None].unbind(1)
    x = ((torch.arange(cameras.width) + 0.5 - cx) / fx).expand(-1, cameras.height, -1)
    y = ((torch.arange(cameras.height)[:, None] + 0.5 - cy) / fy).expand(-1, -1, cameras.width)
    local = torch.nn.functional.normalize(torch.stack([x, y, torch.ones_like(x)], -1), dim=-1)
    return torch.einsum("bwc,bhxc->bhxw", cameras.cam2world[:, :3, :3], local)


@dataclass(frozen=True)
class Level:
    """One pass: triangles, pixels, steps, smoothness of the steps and their length in mean edges."""

    faces: int
    size: int
    steps: int
    smoothness: float
    rate: float


@dataclass(frozen=True)
class SurfaceFit:
    """How a mesh is fitted.

    Attributes:
        levels: the passes.
        views: of each step.
        silhouette: weight of the mattes beside the normals.
        flatness: weight of equal normals of neighbouring triangles, for what no view shows.
        anchor: weight of staying near the raw surface.
        reach: distance from it that counts as one, world units.
    """

    levels: tuple[Level, ...] = (Level(16000, 128, 40, 16.0, 0.25), Level(60000, 256, 60, 1.0, 0.15))
    views: int = 4
    silhouette: float = 2.0
    flatness: float = 0.05
    anchor: float = 0.02
    reach: float = 0.0082

    @staticmethod
    def of(faces: int, size: int, steps: int) -> "SurfaceFit":
        """A coarse and a fine pass that ends with ``faces`` triangles, at ``size`` pixels after ``steps`` steps."""
        coarse = Level(max(faces // 4, 4000), max(size // 2, 64), -(-steps * 2 // 3), 16.0, 0.25)
        return SurfaceFit((coarse, Level(faces, size, steps, 1.0, 0.15)))


def fit_surface(
    mesh: Mesh,
    targets: NormalTargets,
    settings: SurfaceFit,
    generator: torch.Generator,
    report: Callable[[int, int], None] = lambda step, steps: None,
) -> Mesh:
    """Decimate a raw mesh and move it onto the targets.

    Args:
        mesh: wound outward, world units.
        targets: of all views.
        settings: see :class:`SurfaceFit`.
        generator: orders the views.
        report: called with the steps done and all steps.

    Raises:
        PortraitError: no surface, or nothing of it is to be seen in the views.
    """
    mesh = clean(mesh)
    if not len(mesh.faces):
        raise PortraitError("the portrait's density has no surface")
    total, done = sum(level.steps for level in settings.levels), 0
    fitted, change = mesh, torch.zeros_like(mesh.vertices)
    for level in settings.levels:
        start = decimate(mesh, level.faces)
        begun = Mesh(start.vertices + _carried(fitted.vertices - change, change, start.vertices), start.faces)
        moved = _Pass(begun, start.vertices, targets.resized(level.size), settings, level)
        for views in _batches(len(targets.alpha), settings.views, level.steps, generator):
            moved.step(views)
            done += 1
            report(done, total)
        fitted = Mesh(moved.vertices.positions().detach(), start.faces)
        change = fitted.vertices - start.vertices
    return clean(fitted)


def _carried(points: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """Values ``[P, 3]`` at ``points [P, 3]`` as means of the nearest ones at ``places [N, 3]``."""
    distance, index = cKDTree(points.numpy()).query(places.numpy(), k=NEIGHBOURS)
    weight = torch.from_numpy(1 / (distance + 1e-4)).float()
    return (values[torch.from_numpy(index)] * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)


def _batches(count: int, size: int, steps: int, generator: torch.Generator) -> Sequence[Tensor]:
    """Random views such that all are shown before one comes again."""
    rounds = -(-steps * size // count)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])
    return order[: steps * size].reshape(steps, size).unbind()


class _Pass:
    """The state of one level."""

    def __init__(
        self, mesh: Mesh, start: Tensor, targets: NormalTargets, settings: SurfaceFit, level: Level
    ) -> None:  # fmt: skip
        self.targets, self.settings, self.faces, self.start = targets, settings, mesh.faces, start
        corners = mesh.vertices[mesh.faces]
        edge = float((corners - corners.roll(1, 1)).norm(dim=2).mean())
        self.vertices = SmoothVertices(mesh.vertices, mesh.faces, level.smoothness, level.rate * edge)
        self.topology: MeshTopology = mesh_topology(mesh.faces)
        self.pairs, _ = face_neighbours(mesh.faces)

    def step(self, views: Tensor) -> None:
        positions = self.vertices.positions()
        loss = self._seen(positions, views) + self._prior(positions)
        loss.backward()  # type: ignore[no-untyped-call]
        self.vertices.step(positions.grad)

    def _seen(self, positions: Tensor, views: Tensor) -> Tensor:
        """Disagreement with some views' normals and mattes."""
        cameras = self.targets.cameras[views]
        alpha = self.targets.alpha[views].permute(0, 2, 3, 1)
        wanted = self.targets.normals[views].permute(0, 2, 3, 1)
        clip = torch.nn.functional.pad(positions, (0, 1), value=1.0) @ cameras.clip_matrices().transpose(1, 2)
        rast = rasterize_mesh(clip, self.faces, (cameras.height, cameras.width))
        normals = interpolate(vertex_normals(positions[None], self.faces), rast, self.faces)
        covered = (rast[..., 3:] > 0).float()
        seen = antialias(covered, rast, clip, self.faces, topology=self.topology)
        ray = rays(cameras)
        both = covered * (alpha > SOLID) * ((normals.detach() * ray).sum(-1, keepdim=True) < 0)
        cosine = (torch.nn.functional.normalize(normals, dim=-1) * wanted).sum(-1, keepdim=True)
        area = both.sum().clamp_min(1.0)
        silhouette = (seen - alpha).square().sum() / area
        return ((1 - cosine) * both).sum() / area + self.settings.silhouette * silhouette

    def _prior(self, positions: Tensor) -> Tensor:
        a, b, c = positions[self.faces].unbind(1)
        normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
        bend = 1 - (normals[self.pairs[:, 0]] * normals[self.pairs[:, 1]]).sum(1)
        away = (positions - self.start).square().sum(1) / self.settings.reach**2
        return self.settings.flatness * bend.mean() + self.settings.anchor * away.mean()
