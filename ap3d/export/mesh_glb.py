"""The avatar's rig as a glTF mesh: morph targets, skin, baked textures, and a motion as its animation.

Lengths are metres, axes those of glTF (y up, face to +z). Materials are unlit, since the colours hold their light.
Morph targets add up linearly, as in every program; the rig's own lids and eyeballs are exact only at 0 and 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.export.bake import Texels, jpeg_bytes, surface_colors, usable_uv
from ap3d.export.gaussians import notes_of
from ap3d.export.glb import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, GlbWriter
from ap3d.export.projection import seen_colors
from ap3d.export.shell import only, shell_vertices
from ap3d.motion import Motion
from ap3d.motion.expressions import action_names
from ap3d.raster.splats import Splats
from ap3d.rig.protocol import Rig, RigParams
from ap3d.rig.skeleton import Skeleton, Skinned
from ap3d.splats.bundle import Bundle

# At this pose lips and lids lie apart, so that each texel sees its own Gaussians.
BAKE_POSE = {"jaw": [[0.2, 0.0, 0.0]], "eyelids": [[0.5, 0.5]]}
VIEW_SHARE = 0.75  # side of the views that colours are taken from, of the texture's
HIDDEN_WEIGHT = 0.05  # of what lies there against what is seen
SMALL_TEXTURE = 4  # eyes and teeth have a texture of this part of the head's side
LIDS = ("eyelid_left", "eyelid_right")  # further targets of rigs without ARKit's basis
_ROTATIONS = {
    "neck": ("neck", 0),
    "head": ("head", 0),
    "jaw": ("jaw", 0),
    "left_eye": ("eyes", 0),
    "right_eye": ("eyes", 3),
}


@dataclass(frozen=True)
class Part:
    """Faces that share a texture: ``ids [F]`` and their texture coordinates ``uv [F, 3, 2]``."""

    name: str
    ids: Tensor
    uv: Tensor
    texture_size: int


@torch.no_grad()
def export_mesh(bundle: Bundle, params: RigParams, motion: Motion | None = None, texture_size: int = 1024) -> bytes:
    """The rigged mesh of an avatar as binary glTF.

    Args:
        bundle: the avatar.
        params: the pose that the file shows at first (a batch of one).
        motion: frames of this rig's basis that become the file's animation.
        texture_size: side of the head's texture in texels.

    Raises:
        InputError: the rig's pose is no linear blend skinning.
    """
    rig = bundle.rig
    if not isinstance(rig, Skinned):
        raise InputError(f"rig {rig.name} says nothing about its skeleton, so it cannot become a skinned mesh")
    still = _still(params)
    scale = float(params.scale[0, 0])
    neutral = rig.vertices(still)[0]
    vertices = shell_vertices(rig, neutral, vertex_normals(neutral, rig.faces), bundle.avatar, bundle.pose(still))
    targets = {name: (posed - neutral) / scale for name, posed in _targets(rig, still).items()}
    skeleton = rig.skeleton(still)
    glb = GlbWriter(notes_of(bundle.facts))
    primitives = []
    for part in _parts(rig, texture_size):
        material = _material(glb, part.name, jpeg_bytes(_texture(bundle, still, vertices, part)))
        normals = vertex_normals(vertices, rig.faces)
        primitives.append(_primitive(glb, rig, part, vertices / scale, normals, targets, skeleton, material))
    _scene(glb, rig, params, primitives, list(targets), skeleton, scale)
    if motion is not None:
        _animate(glb, rig, params, motion, skeleton)
    return glb.finish()


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals ``[V, 3]``, faces weighted by their area."""
    a, b, c = vertices[faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices).index_add(0, faces.reshape(-1), area.repeat_interleave(3, 0))
    length = total.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-12, total / length.clamp(min=1e-12), torch.tensor([0.0, 0.0, 1.0]))


def _still(params: RigParams) -> RigParams:
    zero = {
        name: torch.zeros_like(getattr(params, name))
        for name in ("expression", "neck", "head", "jaw", "eyes", "eyelids")
    }
    return params.replace(**zero)


def target_names(rig: Rig) -> list[str]:
    """ARKit's 52 actions; rigs of another basis add their own coefficients and lids."""
    return [*action_names(rig), *(own := _own_names(rig)), *(LIDS if own else ())]


def _own_names(rig: Rig) -> list[str]:
    return [] if rig.expression_basis == "arkit52" else list(rig.expression_names)


def _targets(rig: Rig, still: RigParams) -> dict[str, Tensor]:
    """Vertices ``[V, 3]`` at 1 of each target."""
    actions, own = action_names(rig), _own_names(rig)
    count = len(actions) + len(own) + (2 if own else 0)
    params = still.expand(len(actions))
    angles = params.neck, params.head, params.jaw, params.eyes, params.eyelids
    motion = Motion(torch.eye(len(actions)), *angles, 1.0, "arkit52", actions).to(rig)
    found = rig.vertices(params.replace(**motion.tensors()))
    if own:
        changed = {"expression": (len(actions), len(own)), "eyelids": (len(actions) + len(own), 2)}
        rows = {name: torch.eye(count)[len(actions) :, start : start + n] for name, (start, n) in changed.items()}
        found = torch.cat([found, rig.vertices(still.expand(count - len(actions)).replace(**rows))])
    return dict(zip(target_names(rig), found, strict=True))


def _parts(rig: Rig, size: int) -> list[Part]:
    regions = rig.regions
    eyes, mouth = (torch.cat([regions[n] for n in names if n in regions]) for names in (("eyes",), ("teeth", "tongue")))
    rest = torch.ones(len(rig.faces), dtype=torch.bool)
    rest[torch.cat([eyes, mouth])] = False
    skin = torch.nonzero(rest)[:, 0]
    small = max(size // SMALL_TEXTURE, 64)
    parts = [Part("skin", skin, usable_uv(rig.uv[skin], size), size)]
    for name, ids in (("eyes", eyes), ("teeth", mouth)):
        if len(ids):
            # Rigs give these a few texels of their layout; alone they fill a texture.
            uv = rig.uv[ids]
            low, high = uv.amin((0, 1)), uv.amax((0, 1))
            uv = 0.03 + 0.94 * (uv - low) / (high - low).clamp(min=1e-6)
            parts.append(Part(name, ids, usable_uv(uv, small), small))
    return parts


def _texture(bundle: Bundle, still: RigParams, vertices: Tensor, part: Part) -> np.ndarray:
    """Colours as they are seen; where none are seen, and for eyes and teeth, those of the Gaussians that lie there."""
    faces = bundle.rig.faces
    corners = faces[part.ids]
    texels = Texels.of(part.uv, part.texture_size)
    colors, weight = torch.zeros(len(texels.face), 3), torch.zeros(len(texels.face))
    if part.name == "skin":
        places, normals = (texels.interpolate(t[corners]) for t in (vertices, vertex_normals(vertices, faces)))
        size = round(VIEW_SHARE * part.texture_size)
        colors, weight = seen_colors(places, normals, vertices, faces, bundle.pose(still), size)
    open_face = still.replace(**{name: torch.tensor(value) for name, value in BAKE_POSE.items()})
    opened = bundle.rig.vertices(open_face)[0] + vertices - bundle.rig.vertices(still)[0]
    dim = weight < 10 * HIDDEN_WEIGHT
    share = (weight / (weight + HIDDEN_WEIGHT))[dim, None]
    hidden = surface_colors(texels.interpolate(opened[corners])[dim], _own(bundle, open_face, part))
    colors[dim] = share * colors[dim] + (1 - share) * hidden
    return texels.picture(colors)


def _own(bundle: Bundle, params: RigParams, part: Part) -> Splats:
    """The Gaussians of a part, or all where it has next to none."""
    splats = bundle.pose(params)
    strongest = bundle.avatar.binding.reshape(len(bundle.avatar), -1)[:, 0]
    own = torch.isin(strongest, part.ids) & (splats.opacities > 0.05)
    return only(splats, own if int(own.sum()) > 100 else torch.ones_like(own))


def _material(glb: GlbWriter, name: str, picture: bytes) -> int:
    document = glb.document
    textures, materials = document.setdefault("textures", []), document.setdefault("materials", [])
    document.setdefault("samplers", [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}])
    textures.append({"source": glb.image(picture, "image/jpeg", name), "sampler": 0})
    materials.append(
        {
            "name": name,
            "pbrMetallicRoughness": {
                "baseColorTexture": {"index": len(textures) - 1}, "metallicFactor": 0.0, "roughnessFactor": 0.9,
            },
            "doubleSided": True,
            "extensions": {"KHR_materials_unlit": {}},
        }
    )  # fmt: skip
    return len(materials) - 1


def _primitive(
    glb: GlbWriter, rig: Rig, part: Part, vertices: Tensor, normals: Tensor, targets: dict[str, Tensor],
    skeleton: Skeleton, material: int,
) -> dict[str, Any]:  # fmt: skip
    """One part with vertices of its own: one for every corner that differs in place or texture coordinates."""
    corners = rig.faces[part.ids].reshape(-1, 1).double()
    table, indices = np.unique(torch.cat([corners, part.uv.reshape(-1, 2)], 1).numpy(), axis=0, return_inverse=True)
    ids = torch.from_numpy(table[:, 0].astype(np.int64))
    array = lambda t: np.ascontiguousarray(t.numpy(), "<f4")  # noqa: E731
    joints, weights = _influences(skeleton.weights[ids])
    add = lambda values, **more: glb.accessor(values, target=ARRAY_BUFFER, **more)  # noqa: E731
    return {
        "attributes": {
            "POSITION": add(array(vertices[ids]), bounds=True),
            "NORMAL": add(array(normals[ids])),
            "TEXCOORD_0": add(table[:, 1:].astype("<f4")),
            "JOINTS_0": add(joints),
            "WEIGHTS_0": add(weights),
        },
        "indices": glb.accessor(indices.reshape(-1).astype("<u4"), target=ELEMENT_ARRAY_BUFFER),
        "targets": [{"POSITION": glb.sparse_accessor(_significant(array(offset[ids])))} for offset in targets.values()],
        "material": material,
    }


def _significant(offsets: np.ndarray) -> np.ndarray:
    """Offsets below a hundredth of a millimetre are zero, so that sparse accessors can leave them out."""
    return np.where(np.abs(offsets).max(1, keepdims=True) > 1e-5, offsets, np.float32(0))


def _influences(weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The four strongest joints of each vertex (uint8) and their weights, which sum to 1."""
    values, joints = weights.topk(min(4, weights.shape[1]), dim=1)
    values = values / values.sum(1, keepdim=True)
    pad = lambda a: np.pad(a, ((0, 0), (0, 4 - a.shape[1])))  # noqa: E731
    indices = torch.where(values > 0, joints, torch.zeros_like(joints))
    return pad(indices.numpy().astype("u1")), pad(values.numpy().astype("<f4"))


def _scene(
    glb: GlbWriter, rig: Rig, params: RigParams, primitives: list[dict[str, Any]], names: list[str],
    skeleton: Skeleton, scale: float,
) -> None:  # fmt: skip
    """Node 0 shows the mesh; the joints follow."""
    places = skeleton.positions / scale
    turns = _joint_turns(rig, params, skeleton)
    nodes: list[dict[str, Any]] = [{"name": "avatar", "mesh": 0, "skin": 0}]
    for joint, name in enumerate(skeleton.names):
        parent = skeleton.parents[joint]
        offset = places[joint] - (places[parent] if parent >= 0 else 0)
        node = {"name": name, "translation": offset.tolist()}
        if name in turns and bool(turns[name].any()):
            node["rotation"] = _gltf_quaternions(turns[name])[0].tolist()
        if children := [1 + child for child, above in enumerate(skeleton.parents) if above == joint]:
            node["children"] = children
        nodes.append(node)
    inverse = np.tile(np.eye(4, dtype="<f4"), (len(places), 1, 1))
    inverse[:, 3, :3] = -places.numpy()  # column-major
    skin = {
        "joints": list(range(1, len(nodes))), "skeleton": 1,
        "inverseBindMatrices": glb.accessor(inverse.reshape(-1, 16)),
    }  # fmt: skip
    mesh = {
        "name": "avatar", "primitives": primitives, "weights": _target_weights(rig, params)[0].tolist(),
        "extras": {"targetNames": names},
    }  # fmt: skip
    glb.document |= {
        "extensionsUsed": ["KHR_materials_unlit"], "meshes": [mesh], "skins": [skin], "nodes": nodes,
        "scenes": [{"nodes": [0, 1]}], "scene": 0,
    }  # fmt: skip


def _animate(glb: GlbWriter, rig: Rig, base: RigParams, motion: Motion, skeleton: Skeleton) -> None:
    """The motion as weights of the morph targets and rotations of the joints."""
    params = base.expand(len(motion)).replace(**motion.tensors())
    times = glb.accessor((np.arange(len(motion)) / motion.fps).astype("<f4"), bounds=True)
    weights = _target_weights(rig, params).numpy().astype("<f4").reshape(-1)
    samplers = [{"input": times, "output": glb.accessor(weights)}]
    channels: list[dict[str, Any]] = [{"sampler": 0, "target": {"node": 0, "path": "weights"}}]
    for name, turn in _joint_turns(rig, params, skeleton).items():
        if bool(turn.any()):
            samplers.append({"input": times, "output": glb.accessor(_gltf_quaternions(turn))})
            node = 1 + skeleton.names.index(name)
            channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": "rotation"}})
    glb.document["animations"] = [{"name": "motion", "samplers": samplers, "channels": channels}]


def _target_weights(rig: Rig, params: RigParams) -> Tensor:
    """Weights of the morph targets ``[B, E]``; jaw, lids and gaze of an ``arkit52`` rig are among them."""
    if rig.expression_basis == "arkit52":
        controls = getattr(rig, "controls", None)
        weights: Tensor = params.expression if controls is None else controls(params)[0]
        return weights
    actions = torch.zeros(len(params), len(action_names(rig)))
    return torch.cat([actions, params.expression, params.eyelids], 1)


def _joint_turns(rig: Rig, params: RigParams, skeleton: Skeleton) -> dict[str, Tensor]:
    """Axis-angle ``[B, 3]`` by joint. The gaze of an ``arkit52`` rig lies in its morph targets, not in the joints."""
    gaze = rig.expression_basis != "arkit52"
    found = {name: spec for name, spec in _ROTATIONS.items() if name in skeleton.names and (gaze or spec[0] != "eyes")}
    return {name: getattr(params, field)[:, start : start + 3] for name, (field, start) in found.items()}


def _gltf_quaternions(turns: Tensor) -> np.ndarray:
    """Unit quaternions ``[B, 4]`` x y z w of axis-angle vectors ``[B, 3]``, float32."""
    vectors = turns.double().numpy()
    angle = np.linalg.norm(vectors, axis=1, keepdims=True)
    parts = [vectors * 0.5 * np.sinc(angle / (2 * np.pi)), np.cos(angle / 2)]
    return np.concatenate(parts, 1).astype("<f4")
