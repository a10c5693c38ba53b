"""Synthetic motion files in the layouts that the tools write."""

import json
from pathlib import Path

import numpy as np

from ap3d.motion.arkit import ARKIT_NAMES

PASCAL = [n[0].upper() + n[1:] for n in ARKIT_NAMES]
ANGLES = [f"{part}{a}" for part in ("Head", "LeftEye", "RightEye") for a in ("Yaw", "Pitch", "Roll")]


def wave(frames: int, columns: int, size: float = 1.0, seed: int = 0) -> np.ndarray:
    """Smooth float32 columns in ``-size`` to ``size``."""
    phase = np.random.default_rng(seed).uniform(0, 6, columns)
    return (size * np.sin(np.linspace(0, 5, frames)[:, None] + phase)).astype(np.float32)


def live_link_face(path: Path, weights: np.ndarray, angles: np.ndarray, rate: int = 60) -> Path:
    """Columns of Live Link Face; rows whose weights are NaN are written as the app writes a lost face."""
    lines = ["Timecode,BlendShapeCount," + ",".join(PASCAL + ANGLES)]
    for i, (w, a) in enumerate(zip(weights, angles, strict=True)):
        code = f"14:03:{i // rate:02d}:{i % rate:02d}.{i % 7}00"
        lost = np.isnan(w).any()
        lines.append(f"{code},0" if lost else f"{code},61," + ",".join(f"{v:.8f}" for v in (*w, *a)))
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    return path


def audio2face(path: Path, weights: np.ndarray, fps: float = 30.0) -> Path:
    table = {
        "exportFps": fps, "trackPath": "a.wav", "numPoses": 52, "numFrames": len(weights),
        "facsNames": list(ARKIT_NAMES), "weightMat": weights.tolist(),
    }  # fmt: skip
    path.write_text(json.dumps(table))
    return path


def lam(path: Path, weights: np.ndarray, fps: float = 30.0, metadata: bool = True) -> Path:
    frames = [{"weights": w.tolist(), "time": i / fps, "rotation": []} for i, w in enumerate(weights)]
    facts = {"fps": fps, "frame_count": len(weights), "blendshape_names": list(ARKIT_NAMES)} if metadata else {}
    path.write_text(json.dumps({"names": list(ARKIT_NAMES), "metadata": facts, "frames": frames}))
    return path


def flame(frames: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Parameters under VHAP's names."""
    jaw = np.abs(wave(frames, 3, 0.3, seed)) * [1, 0, 0]
    return {
        "expr": wave(frames, 100, 1.0, seed), "rotation": wave(frames, 3, 0.2, seed + 1),
        "neck_pose": wave(frames, 3, 0.1, seed + 2), "jaw_pose": jaw.astype(np.float32),
        "eyes_pose": wave(frames, 6, 0.2, seed + 3), "translation": wave(frames, 3, 0.1, seed),
    }  # fmt: skip


def vhap_export(folder: Path, parts: dict[str, np.ndarray], cameras: int = 2) -> Path:
    """A file a timestep, and a frame of ``transforms.json`` for each camera, in no order of time."""
    (folder / "flame_param").mkdir(parents=True)
    frames = []
    for i in reversed(range(len(parts["expr"]))):
        one = {k: v[i : i + 1] for k, v in parts.items()}
        np.savez(folder / "flame_param" / f"{i:05d}.npz", shape=np.zeros(300, np.float32), **one)
        for camera in range(cameras):
            frames.append(
                {
                    "timestep_index": i, "timestep_id": f"{i:05d}", "camera_index": camera, "fl_x": 1.0, "w": 8, "h": 8,
                    "transform_matrix": np.eye(4).tolist(), "file_path": f"images/{i:05d}_{camera:02d}.png",
                    "flame_param_path": f"flame_param/{i:05d}.npz",
                }
            )  # fmt: skip
    (folder / "transforms.json").write_text(json.dumps({"frames": frames}))
    return folder


def vhap_tracked(path: Path, parts: dict[str, np.ndarray]) -> Path:
    count = len(parts["expr"])
    more = {"shape": np.zeros(300, np.float32), "timestep_id": np.array([f"{i:05d}" for i in range(count)])}
    np.savez(path, n_processed_frames=count, static_offset=np.zeros((1, 5143, 3), np.float32), **more, **parts)
    return path


def animportrait3d(folder: Path, parts: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "expressions.npy", parts["expr"])
    poses = [parts[k] for k in ("rotation", "neck_pose", "jaw_pose", "eyes_pose")]
    np.save(folder / "poses.npy", np.concatenate(poses, 1))
    return folder


def smplx_poses(parts: dict[str, np.ndarray]) -> np.ndarray:
    """``(T, 165)`` with our head in the SMPL-X joints, and a body that stands somewhere."""
    poses = wave(len(parts["expr"]), 165, 1.0, 9)
    poses[:, 36:39], poses[:, 45:48] = parts["rotation"], parts["neck_pose"]
    poses[:, 66:69], poses[:, 69:75] = parts["jaw_pose"], parts["eyes_pose"]
    return poses


def amass(path: Path, parts: dict[str, np.ndarray], fps: float = 120.0) -> Path:
    poses = smplx_poses(parts)
    np.savez(
        path, poses=poses, root_orient=poses[:, :3], pose_body=poses[:, 3:66], pose_hand=poses[:, 75:],
        pose_jaw=poses[:, 66:69], pose_eye=poses[:, 69:75], trans=parts["translation"], betas=np.zeros(16),
        gender="neutral", surface_model_type="smplx", mocap_frame_rate=fps, mocap_time_length=len(poses) / fps,
    )  # fmt: skip
    return path


def beat2(path: Path, parts: dict[str, np.ndarray]) -> Path:
    np.savez(
        path, poses=smplx_poses(parts), expressions=parts["expr"], betas=np.zeros(300), trans=parts["translation"],
        model="smplx2020", gender="neutral", mocap_frame_rate=30,
    )  # fmt: skip
    return path


def smplx_arguments(path: Path, parts: dict[str, np.ndarray]) -> Path:
    poses = smplx_poses(parts)
    np.savez(
        path, global_orient=poses[:, :3], body_pose=poses[:, 3:66].reshape(-1, 21, 3), jaw_pose=parts["jaw_pose"],
        leye_pose=parts["eyes_pose"][:, None, :3], reye_pose=parts["eyes_pose"][:, 3:], betas=np.zeros((1, 10)),
        expression=parts["expr"][:, :50],
    )  # fmt: skip
    return path
