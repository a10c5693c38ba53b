"""Files of the layouts that GaussianAvatars and AnimPortrait3D leave, and what they mean by the published formulas."""

from pathlib import Path

import numpy as np
import torch

MASKS = ("hair_points_mask", "clothes_points_mask", "smplx_points_mask", "teeth_points_mask", "eye_region_points_mask")


def write_ply(
    path: Path, binding: np.ndarray, *, normals: bool, masks: dict[str, np.ndarray] | None = None
) -> np.ndarray:
    """A trainer's PLY, written by plyfile, with random Gaussians of degree 3; returns the table."""
    from plyfile import PlyData, PlyElement

    names = ["x", "y", "z", *(("nx", "ny", "nz") if normals else ()), *(f"f_dc_{i}" for i in range(3))]
    names += [f"f_rest_{i}" for i in range(45)]
    names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4)), "binding_0"]
    names += list(masks or {})
    generator = np.random.default_rng(0)
    table = np.zeros(len(binding), [(n, "f4") for n in names])
    for name in names:
        table[name] = 0.3 * generator.standard_normal(len(binding))
    for i in range(3):
        table[f"scale_{i}"] -= 1.5
    table["binding_0"] = binding
    for name, values in (masks or {}).items():
        table[name] = values
    path.parent.mkdir(parents=True, exist_ok=True)
    PlyData([PlyElement.describe(table, "vertex")]).write(str(path))
    return table


def fitted_params(seed: int = 0) -> dict[str, np.ndarray]:
    """What AnimPortrait3D fits, small."""
    generator = np.random.default_rng(seed)
    sizes = {
        "shape": 300,
        "expr": 100,
        "neck_pose": 3,
        "head_pose": 3,
        "jaw_pose": 3,
        "eyes_pose": 6,
        "eyelid_params": 2,
    }
    values = {f"fitted_{n}": 0.05 * generator.standard_normal((1, k)).astype(np.float32) for n, k in sizes.items()}
    values["fitted_global_scale"] = np.array([[2.7]], np.float32)
    values["fitted_global_translation"] = np.array([[0.0, 0.3, 0.1]], np.float32)
    return values


def local_to_world(table: np.ndarray, corners: torch.Tensor, historic: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and covariances by the published formulas, in float64 with scipy's rotations; corners ``[N, 3, 3]``."""
    from scipy.spatial.transform import Rotation

    v0, v1, v2 = (corners[:, i].double().numpy() for i in range(3))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    a0 = unit(v1 - v0)
    a1 = unit(np.cross(a0, v2 - v0))
    a2 = -unit(np.cross(a1, a0))
    frame = np.stack([a0, a1, a2], 2)
    scale = (np.linalg.norm(v1 - v0, axis=1) + np.abs((a2 * (v2 - v0)).sum(1))) / 2
    stack = lambda *n: np.stack([table[k] for k in n], 1).astype(float)  # noqa: E731
    means = scale[:, None] * (frame @ stack("x", "y", "z")[..., None])[..., 0] + (v0 + v1 + v2) / 3
    local = Rotation.from_quat(stack("rot_0", "rot_1", "rot_2", "rot_3"), scalar_first=True)
    triangle = Rotation.from_matrix(frame)
    turn = (local * triangle if historic else triangle * local).as_matrix()
    axes = turn * (scale[:, None] * np.exp(stack("scale_0", "scale_1", "scale_2")))[:, None, :]
    return torch.from_numpy(means).float(), torch.from_numpy(axes @ axes.transpose(0, 2, 1)).float()
