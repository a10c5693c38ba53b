"""The head model that the package ships: linear shape, ARKit-52 expressions, linear blend skinning."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ap3d.errors import DataFileError
from ap3d.rig.protocol import RigParams
from ap3d.rig.skeleton import Skeleton
from ap3d.rig.skinning import axis_angle_matrix, blend_skin, joint_transforms
from ap3d.training.attributes import AGES, BUILDS, GENDERS

PATH = Path(__file__).resolve().parent.parent / "builtin" / "rig.npz"
SCALE = 2.78
TRANSLATION = (0.0, 0.25, 0.0)

# Published gains: the angle, in radians, that one unit of an ARKit control stands for.
JAW_OPEN_ANGLE = 0.36
GAZE_SIDE_ANGLE = 0.42
GAZE_UP_ANGLE = 0.32
GAZE_DOWN_ANGLE = 0.36
PARTS = ("skin", "left_eye", "right_eye", "upper_teeth", "lower_teeth", "tongue")
_REQUIRED = (
    "template", "faces", "uv", "parts", "face_parts", "shape_basis", "expression_basis", "expression_names", "joints",
    "joint_basis", "lbs_weights", "landmark_faces", "landmark_weights", "head_vertices", "prior_mean", "prior_factor",
    "lips", "ears", "lids", "mouth", "lid_pairs", "lid_shares",
)  # fmt: skip


class BuiltinRig:
    """The built-in morphable head; ``ap3d.rig.protocol.Rig`` has the interface, ``builtin/rig.md`` the origin.

    Jaw x-angle, eyelids and eye angles of ``RigParams`` are added to jawOpen, eyeBlink* and eyeLook* through the gains
    of this module, each control is clamped to [0, 1], and the eyeballs turn by the sum. A closing lid outweighs gaze,
    squint and wide-open offsets, so that closed lids always meet. Other jaw angles have no effect.
    """

    name = "builtin"
    licence = "CC0-1.0"
    expression_basis = "arkit52"
    default_scale = SCALE

    def __init__(self, arrays: Mapping[str, np.ndarray], sha256: str) -> None:
        def tensor(key: str, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(arrays[key])).to(dtype)

        self.sha256 = sha256
        self.default_translation = torch.tensor(TRANSLATION)
        self.template = tensor("template")
        self.canonical = self.template
        self.faces = tensor("faces", torch.int64)
        self.uv = tensor("uv")
        self.parts = tensor("parts", torch.int64)  # [V], index into PARTS
        self.face_parts = tensor("face_parts", torch.int64)  # [F]
        self.masks = {k: tensor(k) for k in ("lips", "ears", "lids", "mouth")}  # [V] each, soft
        self.head_vertices = tensor("head_vertices", torch.int64)
        self.expression_names = tuple(str(n) for n in arrays["expression_names"])
        self._index = {n: i for i, n in enumerate(self.expression_names)}
        self.n_shape, self.n_expression = len(arrays["shape_basis"]), len(self.expression_names)
        self.topology_sha256 = hashlib.sha256(self.faces.numpy().tobytes()).hexdigest()
        vertices = len(self.template)
        self._basis = torch.cat([tensor("shape_basis"), tensor("expression_basis")]).reshape(-1, 3 * vertices)
        self._joints, self._joint_basis = tensor("joints"), tensor("joint_basis").flatten(1)
        self._weights = tensor("lbs_weights")
        self._weights = self._weights / self._weights.sum(1, keepdim=True)
        self._init_lids(tensor("lid_pairs", torch.int64).flatten(0, 1), tensor("lid_shares"))
        self._landmarks = self.faces[tensor("landmark_faces", torch.int64)], tensor("landmark_weights")
        self._eyes = [torch.nonzero(self.parts == p)[:, 0] for p in (2, 1)]  # right first, as landmark 68
        self.prior_mean, self.prior_factor = tensor("prior_mean"), tensor("prior_factor")

    @classmethod
    def load(cls, path: Path = PATH) -> "BuiltinRig":
        """Read the rig's npz.

        Raises:
            DataFileError: missing, truncated, or not a rig.
        """
        try:
            data = path.read_bytes()
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {k: file[k] for k in _REQUIRED}
        except FileNotFoundError:
            raise DataFileError(f"rig file {path} is missing; reinstall ap3d or pass the right path") from None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataFileError(f"rig file {path} is damaged or not a rig ({reason}); reinstall ap3d") from None
        return cls(arrays, hashlib.sha256(data).hexdigest())

    def _init_lids(self, pairs: Tensor, shares: Tensor) -> None:
        """What a shape adds to the distance between the lids, per pair of edge vertices, and who shares it."""
        self._lid_pairs = pairs
        basis = self._basis[: self.n_shape].reshape(self.n_shape, -1, 3)
        self._lid_basis = (basis[:, pairs[:, 1]] - basis[:, pairs[:, 0]]).flatten(1)
        self._lid_vertices = torch.nonzero(shares.abs().sum(1) > 1e-4)[:, 0]
        self._lid_shares = shares[self._lid_vertices]
        self._blinks = [self.expression_names.index(f"eyeBlink{s}") for s in ("Left", "Right")]

    def linear_basis(self) -> tuple[Tensor, Tensor]:
        """Offsets of the unposed vertices in metres: of shape ``[S, V, 3]`` and of expression ``[E, V, 3]``."""
        basis = self._basis.reshape(len(self._basis), -1, 3)
        return basis[: self.n_shape], basis[self.n_shape :]

    def lid_edge(self) -> Tensor:
        """Edge of the left upper lid on the template, inner to outer corner: ``[K, 2]`` x, y in metres."""
        corners = self._landmarks[0][[42, 45]][:, :1][:, 0]
        ids = torch.cat([corners[:1], self._lid_pairs[: len(self._lid_pairs) // 2, 0], corners[1:]])
        points = self.template[ids, :2]
        return points[points[:, 0].argsort()]

    def _close_lids(self, rest: Tensor, shape: Tensor, controls: Tensor) -> Tensor:
        """Let the lids of every shape meet: add the shape's part of their distance, by how far they are closed."""
        missing = (shape @ self._lid_basis).reshape(len(shape), -1, 3)
        blink = controls[:, self._blinks].repeat_interleave(missing.shape[1] // 2, 1)
        extra = torch.einsum("vk,bkc->bvc", self._lid_shares, missing * blink[..., None])
        return rest.index_add(1, self._lid_vertices, extra)

    @cached_property
    def regions(self) -> dict[str, Tensor]:
        """Face ids by region name; see ``ap3d.rig.regions``."""
        from ap3d.rig.regions import face_regions

        return face_regions(self)

    def expression_axes(self) -> Tensor:
        """Displacements ``[52, V, 3]`` of the actions at full strength, metres."""
        return self._basis[self.n_shape :].reshape(self.n_expression, -1, 3)

    def vertices(self, params: RigParams) -> Tensor:
        """Posed vertices ``[B, V, 3]`` in world units."""
        controls, gaze = self.controls(params)
        coefficients = torch.cat([params.shape, controls], 1)
        rest = self.template + (coefficients @ self._basis).reshape(len(coefficients), -1, 3)
        rest = self._close_lids(rest, params.shape, controls)
        joints = (self._joints.flatten() + params.shape @ self._joint_basis).reshape(len(rest), -1, 3)
        joints = joints[:, [0, 0, 1, 3, 4]]  # a resting root, then neck, head, eyes; the jaw is an expression
        angles = torch.cat([torch.zeros_like(gaze[:, :1]), params.neck[:, None], params.head[:, None], gaze], 1)
        transforms = joint_transforms(axis_angle_matrix(angles), joints, (-1, 0, 1, 2, 2))
        return blend_skin(rest, self._weights, transforms, params.scale, params.translation)

    def controls(self, params: RigParams) -> tuple[Tensor, Tensor]:
        """ARKit controls after the jaw, lids and eyes of ``params`` were added.

        Returns:
            Controls ``[B, 52]`` and the eyeballs' axis-angle ``[B, 2, 3]`` (left, right), radians.
        """
        at = lambda name: params.expression[:, self._index[name]]  # noqa: E731
        changed: dict[str, Tensor] = {
            "jawOpen": (at("jawOpen") + params.jaw[:, 0] / JAW_OPEN_ANGLE).clamp(0, 1),
        }
        gaze = []
        for side, name in enumerate(("Left", "Right")):
            blink = (at(f"eyeBlink{name}") + params.eyelids[:, side]).clamp(0, 1)
            changed[f"eyeBlink{name}"] = blink
            pitch, down = _signed(
                at(f"eyeLookDown{name}"),
                at(f"eyeLookUp{name}"),
                params.eyes[:, 3 * side],
                GAZE_DOWN_ANGLE,
                GAZE_UP_ANGLE,
            )
            outward = "Out" if side == 0 else "In"
            inward = "In" if side == 0 else "Out"
            yaw, left = _signed(
                at(f"eyeLook{outward}{name}"),
                at(f"eyeLook{inward}{name}"),
                params.eyes[:, 3 * side + 1],
                GAZE_SIDE_ANGLE,
                GAZE_SIDE_ANGLE,
            )
            open_lid = 1 - blink
            changed[f"eyeLookDown{name}"], changed[f"eyeLookUp{name}"] = (
                down.clamp_min(0) * open_lid,
                (-down).clamp_min(0) * open_lid,
            )
            changed[f"eyeLook{outward}{name}"], changed[f"eyeLook{inward}{name}"] = (
                left.clamp_min(0) * open_lid,
                (-left).clamp_min(0) * open_lid,
            )
            for lid in ("eyeSquint", "eyeWide"):
                changed[lid + name] = at(lid + name) * open_lid
            gaze.append(torch.stack([pitch, yaw, params.eyes[:, 3 * side + 2]], 1))
        columns = [changed.get(n, params.expression[:, i]) for i, n in enumerate(self.expression_names)]
        return torch.stack(columns, 1), torch.stack(gaze, 1)

    def skeleton(self, params: RigParams) -> Skeleton:
        """Root, neck, head and eyes of a shape (a batch of one); the jaw is an expression of this rig."""
        joints = (self._joints.flatten() + params.shape @ self._joint_basis).reshape(-1, 3)[[0, 0, 1, 3, 4]]
        return Skeleton(
            names=("root", "neck", "head", "left_eye", "right_eye"),
            parents=(-1, 0, 1, 2, 2),
            positions=joints * params.scale + params.translation,
            weights=self._weights,
        )

    def landmarks(self, params: RigParams) -> Tensor:
        """The 68 iBUG landmarks and the two eye centres (68: subject's right, 69: left), ``[B, 70, 3]``."""
        return self.landmarks_of(self.vertices(params))

    def landmarks_of(self, vertices: Tensor) -> Tensor:
        """Landmarks ``[B, 70, 3]`` of posed vertices ``[B, V, 3]``."""
        corners, weights = self._landmarks
        surface = (vertices[:, corners] * weights[:, :, None]).sum(2)
        centres = torch.stack([vertices[:, eye].mean(1) for eye in self._eyes], 1)
        return torch.cat([surface, centres], 1)

    def sample_shape(self, gender: str, age: str, build: str, noise: Tensor, spread: float = 0.8) -> Tensor:
        """Shape coefficients ``[n_shape]`` of a person of a group, from standard normal ``noise [n_shape]``."""
        group = GENDERS.index(gender), AGES.index(age), BUILDS.index(build)
        return self.prior_mean[group] + spread * self.prior_factor[group] @ noise


def _signed(plus: Tensor, minus: Tensor, angle: Tensor, gain_plus: float, gain_minus: float) -> tuple[Tensor, Tensor]:
    """Add an angle to a pair of opposed controls: the clamped angle, and the signed control in [-1, 1]."""
    total = plus * gain_plus - minus * gain_minus + angle
    total = total.clamp(-gain_minus, gain_plus)
    return total, torch.where(total >= 0, total / gain_plus, total / gain_minus)
