"""SMPL-X sequences in npz: AMASS's and BEAT2's (``poses (T, 165)``, ``pose_jaw``, ``expressions``), or the arguments of
an SMPL-X model (``global_orient``, ``body_pose``, ``jaw_pose``, ``leye_pose``, ``reye_pose``, ``expression``).

The 55 joints of ``poses``: pelvis, 21 of the body (neck 12, head 15), jaw 22, left eye 23, right eye 24, hands.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ap3d.array_files import rows
from ap3d.errors import DataFileError
from ap3d.motion.flame_frames import flame_motion
from ap3d.motion.schema import Motion
from ap3d.motion.source import Source

BASIS = "flame2020"  # SMPL-X 2020 took its expression space from FLAME 2020
_NECK, _HEAD, _JAW, _LEFT_EYE, _RIGHT_EYE = 12, 15, 22, 23, 24
_RATES = ("mocap_frame_rate", "mocap_framerate", "fps", "frame_rate")
_NAMES = {
    "expression": ("expression", "expressions", "exp"),
    "poses": ("poses", "fullpose", "full_pose"),
    "body": ("body_pose", "pose_body"),
    "root": ("global_orient", "root_orient"),
    "jaw": ("jaw_pose", "pose_jaw"),
    "left": ("leye_pose",),
    "right": ("reye_pose",),
    "eyes": ("pose_eye", "eye_pose"),
}
_WIDTHS = {"jaw": 3, "left": 3, "right": 3, "eyes": 6, "root": 3}


def matches(source: Source) -> bool:
    """Whether the archive holds poses of the body or of its face."""
    return any(name in source.arrays for part in ("poses", "body", "root", "jaw") for name in _NAMES[part])


def read_smplx_npz(source: Source) -> Motion:
    """Neck, head, jaw, eyes and expression of a sequence; the body's other joints are left out with a note.

    Raises:
        DataFileError: wrong column counts, or different numbers of frames.
    """
    parts = _parts(source)
    frames = max(len(p) for p in parts.values())
    parts = {k: p.expand(frames, -1) if len(p) == 1 else p for k, p in parts.items()}  # one pose for all frames
    joint = _joints(parts)
    expression = parts.get("expression")
    fps, note = source.rate(_rate(source.arrays))
    headless = joint["neck"] is None and joint["head"] is None
    eyes = [e if e is not None else torch.zeros(frames, 3) for e in (joint["left"], joint["right"])]
    motion = flame_motion(
        frames, fps, source.basis or BASIS, expression=expression,
        neck=parts.get("root") if headless else joint["neck"], head=joint["head"], jaw=joint["jaw"],
        eyes=torch.cat(eyes, 1),
    )  # fmt: skip
    return motion.with_notes(
        note,
        "" if headless else "of the body, neck and head are used; its other joints and its place are not",
        "without body joints the global orientation turns the neck" if headless and "root" in parts else "",
        "the file holds no expression; it stays at rest" if expression is None else "",
    )


def _parts(source: Source) -> dict[str, Tensor]:
    parts: dict[str, Tensor] = {}
    for part, names in _NAMES.items():
        key = next((n for n in names if n in source.arrays), None)
        if key is None:
            continue
        value = torch.from_numpy(rows(source.arrays[key], f"{key} of {source.name}"))
        if not len(value):
            raise DataFileError(f"{key} of {source.name} holds 0 frames")
        if value.shape[1] != _WIDTHS.get(part, value.shape[1]):
            raise DataFileError(f"{key} has {value.shape[1]} columns, it takes {_WIDTHS[part]} (axis-angle)")
        parts[part] = value
    return parts


def _joints(parts: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """Joints by name from whichever arrays hold them; None where no array does."""
    found: dict[str, Tensor | None] = dict.fromkeys(("neck", "head", "jaw", "left", "right"))
    if "poses" in parts:
        width = parts["poses"].shape[1]
        if width not in (165, 156, 72, 66):  # SMPL-X, SMPL-H, SMPL, body only
            raise DataFileError(f"poses has {width} columns; SMPL-X has 165 (55 joints), SMPL-H 156")
        joints = parts["poses"].reshape(len(parts["poses"]), -1, 3)
        found.update(neck=joints[:, _NECK], head=joints[:, _HEAD])
        if width == 165:
            found.update(jaw=joints[:, _JAW], left=joints[:, _LEFT_EYE], right=joints[:, _RIGHT_EYE])
    if "body" in parts:
        if parts["body"].shape[1] not in (63, 69):
            raise DataFileError(f"the body pose has {parts['body'].shape[1]} columns; 21 joints have 63")
        joints = parts["body"].reshape(len(parts["body"]), -1, 3)  # without the pelvis
        found.update(neck=joints[:, _NECK - 1], head=joints[:, _HEAD - 1])
    if "eyes" in parts:
        found.update(left=parts["eyes"][:, :3], right=parts["eyes"][:, 3:])
    found.update({name: parts[name] for name in ("jaw", "left", "right") if name in parts})
    return found


def _rate(arrays: Mapping[str, np.ndarray]) -> float | None:
    key = next((n for n in _RATES if n in arrays and arrays[n].size == 1 and arrays[n].dtype.kind in "fiu"), None)
    return None if key is None else float(arrays[key].reshape(-1)[0])
