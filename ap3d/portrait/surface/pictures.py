"""Pictures of a portrait's meshes."""

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.diffusion.conditions import vertex_normals
from ap3d.portrait.protocol import Mesh
from ap3d.raster.mesh import interpolate, rasterize_mesh

SUPERSAMPLE = 2


@torch.no_grad()
def shaded(mesh: Mesh, cameras: Cameras, colours: Tensor | None = None, *, lit: bool = True) -> Tensor:
    """Pictures ``[B, 3, H, W]`` over white, lit from each camera.

    Args:
        mesh: world units.
        cameras: ``B`` square cameras.
        colours: ``[V, 3]`` of vertices or ``[F, 3]`` of triangles; grey by default.
        lit: whether slopes darken the colours.
    """
    base = torch.full((1, 3), 0.8).expand(len(mesh.vertices), 3) if colours is None else colours
    normals = vertex_normals(mesh.vertices[None], mesh.faces)[0]
    pictures = []
    for index in range(len(cameras)):
        rast = _rasterize(mesh, cameras[index])
        hit, face = rast[..., 3] > 0, rast[0, ..., 3].long() - 1
        if len(base) == len(mesh.faces) and len(base) != len(mesh.vertices):
            colour = base[face][None]
        else:
            colour = interpolate(base[None], rast, mesh.faces)
        normal = torch.nn.functional.normalize(interpolate(normals[None], rast, mesh.faces), dim=-1)
        light = (normal @ -cameras.cam2world[index, :3, 2]).clamp_min(0)[..., None]
        picture = colour * (0.25 + 0.75 * light) if lit else colour
        pictures.append(torch.where(hit[..., None], picture, torch.ones(())))
    return torch.nn.functional.avg_pool2d(torch.cat(pictures).permute(0, 3, 1, 2), SUPERSAMPLE)


@torch.no_grad()
def camera_normals(mesh: Mesh, cameras: Cameras) -> Tensor:
    """Smooth normals ``[B, 3, H, W]`` in OpenGL camera axes, 0 where nothing is."""
    normals = vertex_normals(mesh.vertices[None], mesh.faces)[0]
    out = []
    for index in range(len(cameras)):
        clip = _clip(mesh, cameras[index])
        rast = rasterize_mesh(clip, mesh.faces, (cameras.height, cameras.width))
        seen = torch.nn.functional.normalize(interpolate(normals[None], rast, mesh.faces)[0], dim=-1)
        axes = cameras.cam2world[index, :3, :3] * torch.tensor([1.0, -1.0, -1.0])
        out.append((seen @ axes).permute(2, 0, 1))
    return torch.stack(out)


def _rasterize(mesh: Mesh, camera: Cameras) -> Tensor:
    return rasterize_mesh(_clip(mesh, camera), mesh.faces, (SUPERSAMPLE * camera.height, SUPERSAMPLE * camera.width))


def _clip(mesh: Mesh, camera: Cameras) -> Tensor:
    return (torch.nn.functional.pad(mesh.vertices, (0, 1), value=1.0) @ camera.clip_matrices()[0].T)[None]
