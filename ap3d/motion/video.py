"""A video of a face to a motion: landmarks a frame, then pose, expression, lids and gaze with smoothing over time."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.motion.face_eyes import closure, gaze, interpolate_rows, lid_distance
from ap3d.motion.face_fit import SMOOTHNESS, Camera, Identity, Pose, fit_identity, initial_pose, step
from ap3d.motion.face_model import FaceModel
from ap3d.motion.rotations import axis_angles, continuous, inverse, mean, product, quaternions
from ap3d.motion.schema import Motion
from ap3d.motion.timing import gaussian_filtered
from ap3d.motion.video_frames import LONGEST_SECONDS, open_video
from ap3d.perception.embedding import Embedding
from ap3d.perception.face_measures import eye_whiteness
from ap3d.perception.protocol import LandmarkDetector
from ap3d.rig.builtin import BuiltinRig

BATCH = 16  # frames in memory at once
LEAST_SCORE = 0.5
LEAST_FRAMES, LEAST_SHARE = 3, 0.1  # with a face
IDENTITY_FRAMES = 48
ROUNDS = 4
NECK_SHARE = 0.4  # of the head's turn
FOV_DEGREES = 37.0  # along the longer side: between a phone and a portrait lens
LARGEST_OFFSET_DEGREES = 12.0
SMOOTH_SECONDS = 0.03  # standard deviation of the filter on pose and gaze


@dataclass(frozen=True)
class Track:
    """What was seen in each frame.

    Attributes:
        mesh: ``[T, 478, 3]`` pixels; NaN where no face was found.
        white: ``[T, 2]`` of :func:`eye_whiteness`.
        faces: ``[T]`` number of faces.
        size: width and height of the frames in pixels.
        fps: frames per second.
    """

    mesh: Tensor
    white: Tensor
    faces: Tensor
    size: tuple[int, int]
    fps: float

    @property
    def found(self) -> Tensor:
        """Numbers of the frames with a face."""
        return torch.nonzero(self.mesh[:, 0, 0].isfinite())[:, 0]


def track_video(
    path: str | Path,
    detector: LandmarkDetector,
    longest_seconds: float = LONGEST_SECONDS,
    progress: Callable[[int], None] | None = None,
) -> Track:
    """Landmarks of every frame of a video file; ``progress`` is told how many frames were read.

    Raises:
        InputError: unreadable, empty, too long, or (nearly) no frame shows a face.
    """
    video = open_video(path, longest_seconds)
    parts, size, done = [], (0, 0), 0
    for images in video.batches(BATCH, longest_seconds):
        found = detector.detect(images)
        mesh = torch.where((found.score >= LEAST_SCORE)[:, None, None], found.mesh, float("nan"))
        parts.append((mesh, eye_whiteness(images, mesh), found.faces))
        size, done = (images.shape[3], images.shape[2]), done + len(images)
        if progress is not None:
            progress(done)
    mesh, white, faces = (torch.cat(column) for column in zip(*parts, strict=True))
    track = Track(mesh, white, faces, size, video.fps)
    if len(track.found) < max(min(LEAST_FRAMES, len(mesh)), LEAST_SHARE * len(mesh)):
        where = "none" if not len(track.found) else f"only {len(track.found)}"
        raise InputError(f"{where} of the {len(mesh)} frames of {path} shows a face; film it from the front and larger")
    return track


@torch.inference_mode()
def motion_from_track(
    track: Track,
    rig: BuiltinRig,
    *,
    fov_degrees: float = FOV_DEGREES,
    smooth_seconds: float = SMOOTH_SECONDS,
    level: bool = True,
) -> Motion:
    """Fit the built-in rig to a track; the motion's notes say what was interpolated or left out.

    Args:
        track: of :func:`track_video`.
        rig: the built-in rig.
        fov_degrees: the camera's field of view along the longer side; turns of a face far from the middle depend on it.
        smooth_seconds: standard deviation of the filter on head and gaze; 0 leaves them as they are.
        level: a mean turn of the head up to :data:`LARGEST_OFFSET_DEGREES` counts as straight ahead.
    """
    model = FaceModel.of(rig, Embedding.load())
    found = track.found
    mesh = track.mesh[found]
    seen = mesh[:, model.numbers]
    focal = max(track.size) / 2 / math.tan(math.radians(fov_degrees) / 2)
    camera = Camera(focal, torch.tensor(track.size) / 2)
    few = torch.linspace(0, len(found) - 1, min(IDENTITY_FRAMES, len(found))).round().long()
    person = fit_identity(model, seen[few], camera)
    pose, weights = fit_frames(model, person, seen, track.fps)
    metres = pose_depth(person, pose) / focal
    shut = closure(lid_distance(mesh) * metres[:, None], track.white[found])
    look = gaze(model, person.shape, mesh, camera, pose, shut)
    count, sigma = len(track.mesh), smooth_seconds * track.fps
    fill = lambda values: interpolate_rows(values, found, count)  # noqa: E731
    turn, straight = levelled(head_turn(pose)) if level else (head_turn(pose), "")
    turn = gaussian_filtered(fill(turn), sigma)
    look = gaussian_filtered(fill(look), sigma)
    expression = torch.zeros(count, rig.n_expression)
    expression[:, model.columns] = fill(weights)
    for side, name in enumerate(("Right", "Left")):
        expression[:, rig.expression_names.index(f"eyeBlink{name}")] = fill(shut)[:, side]
    still = Motion.still(count, track.fps, "arkit52", tuple(rig.expression_names))
    eye = torch.cat([look, torch.zeros(count, 1)], 1)
    tensors = {
        "expression": expression, "neck": NECK_SHARE * turn, "head": (1 - NECK_SHARE) * turn,
        "eyes": torch.cat([eye, eye], 1),
    }  # fmt: skip
    return still.with_tensors(tensors).with_notes(*_notes(track), straight)


def fit_frames(model: FaceModel, person: Identity, seen: Tensor, fps: float) -> tuple[Pose, Tensor]:
    """Poses and action weights ``[T, A]`` of all frames together, smooth over time at any frame rate."""
    pose = initial_pose(model, seen, person.camera)
    weights = torch.zeros(len(seen), len(model.columns))
    for _ in range(ROUNDS):
        smoothness = SMOOTHNESS * (fps / 25) ** 2
        pose, weights = step(model, person.rest, seen, person.camera, pose, weights, smoothness)
    return pose, weights


def pose_depth(person: Identity, pose: Pose) -> Tensor:
    """Distance ``[T]`` of the face's middle from the camera, metres."""
    middle = person.rest.mean(0)
    return pose.translation[:, 2] - (pose.rotation @ middle)[:, 2]


def head_turn(pose: Pose) -> Tensor:
    """Axis-angle vectors ``[T, 3]`` of rotation matrices, without jumps."""
    from scipy.spatial.transform import Rotation

    xyzw = torch.from_numpy(Rotation.from_matrix(pose.rotation.double().numpy()).as_quat()).float()
    return axis_angles(continuous(xyzw[:, [3, 0, 1, 2]]))


def levelled(turn: Tensor) -> tuple[Tensor, str]:
    """Turns ``[T, 3]`` relative to their mean where that is small, and the sentence that says so.

    It holds the camera's height and how the detector sees this face: a few degrees of pitch for some.
    """
    unit = quaternions(turn)
    centre = mean(unit)
    degrees = float(torch.rad2deg(axis_angles(centre).norm()))
    if degrees > LARGEST_OFFSET_DEGREES:
        return turn, f"the head faces {degrees:.0f} degrees away from the camera on average; it stays so"
    straight = axis_angles(continuous(product(inverse(centre)[None], unit)))
    return straight, f"the head's mean turn of {degrees:.0f} degrees from the camera counts as straight ahead"


def _notes(track: Track) -> list[str]:
    frames, missing, several = len(track.mesh), len(track.mesh) - len(track.found), int((track.faces > 1).sum())
    notes = []
    if missing:
        notes.append(f"no face in {missing} of {frames} frames; they are interpolated")
    if several:
        notes.append(f"several faces in {several} of {frames} frames; the largest was followed")
    return notes
