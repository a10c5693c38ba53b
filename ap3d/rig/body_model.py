"""SMPL-X 2020, FLAME 2020 and FLAME 2023 as rigs: the user's file, cropped, with our mouth, eyelids and regions."""

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ap3d.rig.anatomy import Anatomy, Roles, find_anatomy
from ap3d.rig.arkit_axes import fit_arkit_axes
from ap3d.rig.atlas import HeadShape, Registration, atlas, closest_on_faces, register
from ap3d.rig.companions import Companions
from ap3d.rig.crop import crop_head, merged_weights
from ap3d.rig.eyelids import Eyelids
from ap3d.rig.joints import MOVING_JOINTS
from ap3d.rig.model_file import EXPRESSION_COUNT, SHAPE_COUNT, BodyModel, read_body_model
from ap3d.rig.mouth import LINING, MouthParts, make_mouth
from ap3d.rig.protocol import RigParams
from ap3d.rig.skeleton import Skeleton
from ap3d.rig.skinning import axis_angle_matrix, blend_skin, joint_transforms

PARTS_VERSION = 1  # raised when mouth, lids or crop change, and with them what bundles refer to
SCALE, HEAD_CENTRE = 2.78, (0.0, 0.25, 0.0)
LICENCES = {
    "smplx2020": "SMPL-X model licence (non-commercial)",
    "flame2020": "FLAME 2020 model licence (non-commercial)",
    "flame2023": "FLAME 2023 model licence, of the edition that the file came with",
}


class BodyModelRig:
    """A user's body model behind ``ap3d.rig.protocol.Rig``.

    FLAME's global rotation is ``neck`` and its neck joint ``head``; SMPL-X stands with the arms at 60 degrees, its
    neck, head, jaw and eyes move. Eyelids are :class:`ap3d.rig.eyelids.Eyelids`, before skinning; teeth, gums, tongue
    and lining are :mod:`ap3d.rig.mouth`, which follow the shape of the mouth but no expression.
    """

    def __init__(self, model: BodyModel, companions: Companions | None = None) -> None:
        companions = companions or Companions()
        self._remembered: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        self.name = model.name
        self.sha256 = _digest(model.sha256, companions.sha256, PARTS_VERSION)
        self.licence = LICENCES[model.name]
        self.expression_basis = "flame2020" if model.name == "smplx2020" else model.name
        self.n_shape, self.n_expression = SHAPE_COUNT, EXPRESSION_COUNT
        self.expression_names = tuple(f"expression_{i:03d}" for i in range(EXPRESSION_COUNT))
        self.joints = MOVING_JOINTS[model.name[:5]]
        self.crop = crop_head(model, self.joints)
        template, faces = model.template[self.crop.vertices], self.crop.faces
        roles = Roles(
            *(model.weights[self.crop.vertices, self.joints.source(n)] for n in ("jaw", "left_eye", "right_eye"))
        )
        landmarks = _inner_landmarks(model, companions)
        anatomy = find_anatomy(template, roles, landmarks)
        skin_faces = faces[~np.isin(faces, np.concatenate(anatomy.eyes)).any(1)]
        head = HeadShape(template, skin_faces, np.unique(skin_faces), anatomy.centres, anatomy.mouth, landmarks)
        registration = register(head)
        mouth = make_mouth(anatomy.mouth)
        self._init_mesh(template, faces, anatomy, mouth, model)
        self._init_fields(model, registration, anatomy, companions)
        self._init_landmarks(model, companions, skin_faces, registration)
        self._init_motion(model, mouth, anatomy.mouth[:2])
        self._eyelids = Eyelids(template, skin_faces, anatomy.eyes)

    @classmethod
    def load(cls, path: Path, expected: str | None = None) -> "BodyModelRig":
        """Read a model file and what lies beside it (landmark embedding, masks, vertex correspondences).

        Raises:
            InputError: another model, year or gender than a rig can use.
            DataFileError: missing, damaged or hostile.
        """
        model = read_body_model(path, expected)
        return cls(model, Companions.beside(path, model))

    @cached_property
    def regions(self) -> dict[str, Tensor]:
        """Face ids by region name; see ``ap3d.rig.regions``."""
        from ap3d.rig.regions import face_regions

        return face_regions(self)

    def vertices(self, params: RigParams) -> Tensor:
        """Posed vertices ``[B, V, 3]`` in world units."""
        shaped, pivots = self._shaped(params.shape)
        rest = shaped + (params.expression @ self._expression_basis).unflatten(1, (-1, 3))
        pivots = pivots + (params.expression @ self._expression_pivots).unflatten(1, (-1, 3))
        rest = self._eyelids.close(rest, params.eyelids)
        rotations = self._rotations(params)
        bent = rotations[:, self._bending] - torch.eye(3).to(rotations)
        rest = rest + (bent.flatten(1) @ self._pose_basis).unflatten(1, (-1, 3))
        transforms = joint_transforms(rotations, pivots, self.joints.parents)
        return blend_skin(rest, self._weights, transforms, params.scale, params.translation)

    def landmarks(self, params: RigParams) -> Tensor:
        """The 68 iBUG landmarks and the two eye centres (68: subject's right, 69: left), ``[B, 70, 3]``."""
        return self.landmarks_of(self.vertices(params))

    def landmarks_of(self, vertices: Tensor) -> Tensor:
        """Landmarks ``[B, 70, 3]`` of posed vertices ``[B, V, 3]``."""
        corners, weights = self._landmarks
        surface = (vertices[:, corners] * weights[:, :, None]).sum(2)
        centres = torch.stack([vertices[:, self.parts == part].mean(1) for part in (2, 1)], 1)
        return torch.cat([surface, centres], 1)

    def skeleton(self, params: RigParams) -> Skeleton:
        """Root (the shoulders with it), neck, head, jaw and eyes of a shape (a batch of one)."""
        pivots = self._shaped(params.shape)[1] + (params.expression @ self._expression_pivots).unflatten(1, (-1, 3))
        weights = self._weights[:, :6].clone()
        weights[:, 0] += self._weights[:, 6:].sum(1)
        return Skeleton(
            names=("root", *self.joints.names[:5]),
            parents=self.joints.parents[:6],
            positions=pivots[0, :6] * params.scale + params.translation,
            weights=weights,
        )

    def _rotations(self, params: RigParams) -> Tensor:
        """Rotations ``[B, J, 3, 3]`` of the moving joints."""
        batch = len(params)
        angles = torch.stack([params.neck, params.head, params.jaw, params.eyes[:, :3], params.eyes[:, 3:]], 1)
        resting = self._resting.expand(batch, -1, -1, -1)
        return torch.cat([resting[:, :1], axis_angle_matrix(angles), resting[:, 6:]], 1)

    def _shaped(self, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Vertices ``[B, V, 3]`` and joints ``[B, J, 3]`` of a shape; one shape is remembered, for motions keep it."""
        if shape.requires_grad or len(shape) > 1:
            return self._shape_of(shape)
        if self._remembered is None or not torch.equal(self._remembered[0], shape):
            self._remembered = (shape.clone(), self._shape_of(shape))
        return self._remembered[1]

    def _shape_of(self, shape: Tensor) -> tuple[Tensor, Tensor]:
        rest = self._base + (shape @ self._shape_basis).unflatten(1, (-1, 3))
        return rest, self._pivots + (shape @ self._shape_pivots).unflatten(1, (-1, 3))

    # --- construction -----------------------------------------------------------------------------------------------

    def _init_mesh(
        self, template: np.ndarray, faces: np.ndarray, anatomy: Anatomy, mouth: MouthParts, model: BodyModel
    ) -> None:
        count = len(template)
        parts, added = np.zeros(count, np.int64), np.zeros(len(mouth.points), np.int64)
        for part, eye in enumerate(anatomy.eyes, 1):
            parts[eye] = part
        added[mouth.faces] = mouth.face_parts[:, None]
        self.parts = torch.from_numpy(np.concatenate([parts, added]))
        self.face_parts = torch.from_numpy(np.concatenate([parts[faces].max(1), mouth.face_parts]))
        self.template = torch.from_numpy(np.concatenate([template, mouth.points])).float()
        self.faces = torch.from_numpy(np.concatenate([faces, mouth.faces + count]))
        self.topology_sha256 = hashlib.sha256(self.faces.numpy().tobytes()).hexdigest()
        self._uv = None if model.uv is None else model.uv[self.crop.face_ids]

    def _init_fields(
        self, model: BodyModel, registration: Registration, anatomy: Anatomy, companions: Companions
    ) -> None:
        """Canonical positions and soft masks of all vertices, place in the world, ARKit's actions."""
        base, count = atlas(), len(self.crop.vertices)
        canonical = np.zeros((len(self.template), 3))
        canonical[:count] = registration.canonical
        template = self.template.numpy().astype(float)
        ratio = np.linalg.norm(base.shape.mouth[0] - base.shape.mouth[1]) / np.linalg.norm(
            anatomy.mouth[0] - anatomy.mouth[1]
        )
        canonical[count:] = (template[count:] - anatomy.mouth[2]) * ratio + base.shape.mouth[2]
        for part, eye in enumerate(anatomy.eyes):
            built_in = base.rig.template[base.rig.parts == part + 1].numpy()
            radius = (built_in[:, 0].max() - built_in[:, 0].min()) / 2
            centre = (built_in.max(0) + built_in.min(0)) / 2
            canonical[eye] = (template[eye] - anatomy.centres[part]) * (radius / anatomy.radii[part]) + centre
        self.canonical = torch.from_numpy(canonical).float()
        self.masks = {name: self._mask(registration, base.rig.masks[name].numpy()) for name in base.rig.masks}
        self.masks["mouth"][self.parts == LINING] = 1
        for name, ids in (("lips", companions.lips), ("ears", companions.ears)):
            if ids is not None:
                self.masks[name][:count] = _softened(np.isin(self.crop.vertices, ids), self.crop.faces)
        linear, *_ = np.linalg.lstsq(
            np.concatenate([registration.canonical, np.ones((count, 1))], 1), template[:count], rcond=None
        )
        # Coefficients of ARKit's actions [A, E], for motions and expressions that are given by their names.
        self.arkit_names, arkit = fit_arkit_axes(
            registration, model.expression_axes[self.crop.vertices], _sizes(linear)
        )
        self.arkit_axes = torch.from_numpy(arkit).float()
        self.default_scale = SCALE
        self.default_translation = torch.tensor(HEAD_CENTRE) - SCALE * torch.from_numpy(linear[3]).float()
        if self._uv is None:
            self.uv = _cylinder(self.canonical)[self.faces]
        else:
            self.uv = torch.zeros(len(self.faces), 3, 2)
            self.uv[: len(self._uv)] = torch.from_numpy(self._uv).float()

    def _mask(self, registration: Registration, field: np.ndarray) -> Tensor:
        mask = torch.zeros(len(self.template))
        mask[: len(self.crop.vertices)] = torch.from_numpy(registration.transfer(field)).float()
        return torch.where(self.parts == 0, mask, torch.zeros_like(mask))

    def _init_landmarks(
        self, model: BodyModel, companions: Companions, skin_faces: np.ndarray, registration: Registration
    ) -> None:
        """The model's own 51 inner landmarks where it has them, the others at the built-in head's places."""
        base = atlas().rig
        wanted = base.landmarks_of(base.template[None])[0, :68].numpy().astype(float)
        ids, weights = closest_on_faces(wanted, registration.canonical, skin_faces)
        corners = skin_faces[ids]
        if (embedding := model.landmarks or companions.landmarks) is not None:
            new = np.full(len(model.template), -1)
            new[self.crop.vertices] = np.arange(len(self.crop.vertices))
            corners[17:], weights[17:] = new[model.faces[embedding[0]]], embedding[1]
        self._landmarks = torch.from_numpy(corners), torch.from_numpy(weights).float()

    def _init_motion(self, model: BodyModel, mouth: MouthParts, corners: np.ndarray) -> None:
        """Bases, joints and weights, in float32, of the cropped vertices and the mouth's parts."""
        keep, moving, extra = self.crop.vertices, self.joints, len(mouth.points)
        joints = [0, *moving.sources]
        regress = model.regressor[joints]
        follow = _mouth_axes(model.template, model.shape_axes, mouth.points, corners)
        single = lambda a: torch.from_numpy(np.ascontiguousarray(a, np.float32))  # noqa: E731
        rows = lambda axes, more: single(  # noqa: E731
            np.concatenate([axes[keep], more]).transpose(2, 0, 1).reshape(axes.shape[2], -1)
        )
        pivots = lambda axes: single(np.einsum("jv,vck->kjc", regress, axes).reshape(axes.shape[2], -1))  # noqa: E731
        still = lambda count: np.zeros((extra, 3, count), np.float32)  # noqa: E731
        self._shape_basis, self._shape_pivots = rows(model.shape_axes, follow), pivots(model.shape_axes)
        self._expression_basis = rows(model.expression_axes, still(EXPRESSION_COUNT))
        self._expression_pivots = pivots(model.expression_axes)
        self._pivots = single(regress @ model.template)
        angles = torch.tensor([(0.0, 0.0, 0.0), *moving.resting_angles()])
        self._resting = axis_angle_matrix(angles)
        features = lambda joint: slice(9 * (joint - 1), 9 * joint)  # noqa: E731
        bending = [i for i, j in enumerate(joints) if j > 0 and i < 6 and i > 0]
        axes = np.concatenate([model.pose_axes[:, :, features(joints[i])] for i in bending], 2)
        self._bending, self._pose_basis = bending, rows(axes, still(axes.shape[2]))
        # Shoulders never move: their correctives belong to the template.
        base = model.template.copy()
        for i in range(6, len(joints)):
            feature = (self._resting[i] - torch.eye(3)).flatten().numpy().astype(float)
            base += model.pose_axes[:, :, features(joints[i])].astype(float) @ feature
        self._base = torch.cat([single(base[keep]), single(mouth.points)])
        weights = np.zeros((len(keep) + extra, len(joints)))
        weights[: len(keep)] = merged_weights(model, moving)[keep]
        weights[len(keep) :, 2], weights[len(keep) :, 3] = 1 - mouth.jaw, mouth.jaw
        self._weights = single(weights)


def _inner_landmarks(model: BodyModel, companions: Companions) -> np.ndarray | None:
    """Positions ``[51, 3]`` of the landmarks that the model or a file beside it names."""
    if (embedding := model.landmarks or companions.landmarks) is None:
        return None
    return (model.template[model.faces[embedding[0]]] * embedding[1][..., None]).sum(1)


def _mouth_axes(template: np.ndarray, axes: np.ndarray, points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """How mouth parts ``[M, 3]`` follow shape axes ``[V, 3, K]``: with the lips' mean and width; ``[M, 3, K]``."""
    right, left = (((template - c) ** 2).sum(1).argsort()[:6] for c in corners)
    moved_right, moved_left = axes[right].mean(0), axes[left].mean(0)  # [3, K]
    middle = (moved_right + moved_left) / 2
    width = corners[1, 0] - corners[0, 0]
    wider = (moved_left[0] - moved_right[0]) / width  # [K]
    offset = points - corners.mean(0)
    return middle[None] + offset[:, :, None] * wider


def _softened(chosen: np.ndarray, faces: np.ndarray) -> Tensor:
    """A vertex list (bool ``[V]``) as a field whose half-way line does not zigzag with the triangles."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
    field, degree = chosen.astype(float), np.bincount(edges.reshape(-1), minlength=len(chosen)).clip(1)
    for _ in range(2):
        total = np.bincount(edges[:, 0], field[edges[:, 1]], len(field))
        total += np.bincount(edges[:, 1], field[edges[:, 0]], len(field))
        field = 0.5 * field + 0.5 * total / degree
    return torch.from_numpy(field).float()


def _sizes(linear: np.ndarray) -> np.ndarray:
    """Lengths ``[3]`` of this head for one of the built-in head, from the affine map ``[4, 3]`` between them."""
    return np.linalg.norm(linear[:3], axis=1)


def _cylinder(canonical: Tensor) -> Tensor:
    """Texture coordinates ``[V, 2]`` of vertices by azimuth and height."""
    x, y, z = canonical.unbind(1)
    return torch.stack([torch.atan2(x, z) / (2 * torch.pi) + 0.5, (y + 0.35) / 0.5], 1).clamp(0, 1)


def _digest(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()
