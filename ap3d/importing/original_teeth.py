"""Gaussians on AnimPortrait3D's teeth, from the user's copy of its two meshes, onto the teeth of our rig.

The original puts the meshes by the lips: 1.2 lip widths wide, behind and above or below the lips' middle. They are put
the same way on the fitted head, and each Gaussian moves to the nearest triangle of our teeth, gums and lining.
"""

from dataclasses import replace
from pathlib import Path

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.errors import DataFileError
from ap3d.importing.source import read_file
from ap3d.rig.protocol import Rig, RigParams
from ap3d.splats.avatar import GaussianAvatar
from ap3d.splats.frames import (
    TriangleFrames,
    quaternion_conjugate,
    quaternion_product,
    quaternions_from_matrices,
    triangle_frames,
)

WIDTH = 1.2  # lip widths between the ends of the upper arch
# In lip widths from the middle of the lip: how far behind it and over it the foremost tooth stands.
OFFSETS = {"upper_teeth.obj": (0.38, 0.45), "lower_teeth.obj": (0.35, -0.45)}
ENDS, FRONT = (97, 0), {"upper_teeth.obj": 1188, "lower_teeth.obj": 1490}  # vertices of the meshes
LIPS = {"upper_teeth.obj": range(48, 55), "lower_teeth.obj": (48, *range(54, 60))}  # outer landmarks
MAXIMUM_LINES = 1_000_000


def rebind_teeth(avatar: GaussianAvatar, folder: Path, rig: Rig, params: RigParams, historic: bool) -> GaussianAvatar:
    """Teeth as Gaussians of our rig.

    Args:
        avatar: bound to triangles of the upper, then of the lower mesh; the strip that follows is left out.
        folder: holds ``upper_teeth.obj`` and ``lower_teeth.obj``.
        rig: ours.
        params: fitted to the avatar.
        historic: its quaternions are local before triangle, and stay so.

    Raises:
        DataFileError: a mesh is missing or another one.
    """
    landmarks, ours = rig.landmarks(params)[0], rig.vertices(params)[0]
    width = float((landmarks[54] - landmarks[48]).norm())
    meshes = {name: read_obj(folder / name) for name in OFFSETS}
    ends = meshes["upper_teeth.obj"][0][list(ENDS)]
    scale = WIDTH * width / float((ends[0] - ends[1]).norm())
    points: list[Tensor] = []
    faces: list[Tensor] = []
    for name, (behind, over) in OFFSETS.items():
        vertices, triangles = meshes[name]
        lip = landmarks[list(LIPS[name])].mean(0) + width * torch.tensor([0.0, over, -behind])
        faces.append(triangles + sum(len(p) for p in points))
        points.append(scale * (vertices - vertices[FRONT[name]]) + lip)
    # The original exchanges the second and third corner of all its triangles.
    source = triangle_frames(torch.cat(points), torch.cat(faces)[:, [0, 2, 1]])
    kept = avatar.select(avatar.binding < len(source.scale))
    return _moved(kept, source, triangle_frames(ours, rig.faces[:, [0, 2, 1]]), rig, historic)


def read_obj(path: Path) -> tuple[Tensor, Tensor]:
    """Vertices ``[V, 3]`` and triangles ``[F, 3]`` of a Wavefront OBJ; polygons become fans in their order.

    Raises:
        DataFileError: missing, damaged, or not one of the teeth.
    """
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    lines = read_file(path).decode("utf-8", "replace").splitlines()
    try:
        for line in lines[:MAXIMUM_LINES]:
            kind, *rest = line.split() or ["#"]
            if kind == "v":
                vertices.append([float(x) for x in rest[:3]])
            elif kind == "f":
                corners = [int(word.split("/")[0]) - 1 for word in rest]
                faces += [[corners[0], corners[i], corners[i + 1]] for i in range(1, len(corners) - 1)]
        points, triangles = torch.tensor(vertices), torch.tensor(faces)
        needed = max(*ENDS, FRONT[path.name]) if path.name == "upper_teeth.obj" else FRONT[path.name]
        if points.shape[1:] != (3,) or len(points) <= needed or not bool(torch.isfinite(points).all()):
            raise ValueError(f"{len(points)} vertices")
        if triangles.shape[1:] != (3,) or int(triangles.min()) < 0 or int(triangles.max()) >= len(points):
            raise ValueError(f"{len(triangles)} triangles")
    except (ValueError, IndexError, RuntimeError) as error:
        raise DataFileError(f"{path} is not AnimPortrait3D's teeth: {' '.join(str(error).split())}") from error
    return points, triangles


def _moved(
    avatar: GaussianAvatar, source: TriangleFrames, target: TriangleFrames, rig: Rig, historic: bool
) -> GaussianAvatar:
    """The Gaussians where they are, in the frames of the nearest triangles of the rig's mouth."""
    mouth = torch.cat([rig.regions["teeth"], rig.regions["mouth"]])
    posed = avatar.pose(source, historic_rotation=historic)
    binding = mouth[torch.from_numpy(cKDTree(target.origin[mouth].numpy()).query(posed.means.numpy())[1])]
    inverse = target.rotation[binding].transpose(1, 2)
    scale = target.scale[binding][:, None]
    xyz = (inverse @ (posed.means - target.origin[binding])[..., None])[..., 0] / scale
    scaling = (posed.scales / scale).log()
    back = quaternion_conjugate(quaternions_from_matrices(target.rotation)[binding])
    order = (posed.quaternions, back) if historic else (back, posed.quaternions)
    local = quaternion_product(*order)
    return replace(
        avatar, xyz=xyz, initial_xyz=xyz, scaling=scaling, initial_scaling=scaling, rotation=local, binding=binding
    )
