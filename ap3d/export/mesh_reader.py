"""Reads a rigged mesh GLB and poses it as glTF 2.0 prescribes: morph targets first, then skinning."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ap3d.errors import DataFileError
from ap3d.export.glb import GlbReader


@dataclass(frozen=True)
class MeshPart:
    """One primitive.

    Attributes:
        positions: ``[V, 3]`` metres.
        uv: ``[V, 2]``, v = 0 is the texture's first row.
        indices: ``[F, 3]``.
        targets: ``[E, V, 3]`` offsets.
        joints: ``[V, 4]`` indices into the skin's joints.
        weights: ``[V, 4]``.
        texture: ``[H, W, 3]`` uint8.
    """

    positions: np.ndarray
    uv: np.ndarray
    indices: np.ndarray
    targets: np.ndarray
    joints: np.ndarray
    weights: np.ndarray
    texture: np.ndarray


@dataclass(frozen=True)
class RiggedMesh:
    """A rigged mesh.

    Attributes:
        parts: primitives of the first mesh.
        target_names: of the morph targets.
        joint_names: of the skin's joints.
        parents: index of each joint's parent, -1 for the first.
        translations: ``[J, 3]`` of each joint in its parent.
        inverse_bind: ``[J, 4, 4]`` acting on column vectors.
        default_weights: ``[E]`` of the mesh.
        default_rotations: by joint, quaternion x y z w, where one is set.
    """

    parts: list[MeshPart]
    target_names: list[str]
    joint_names: list[str]
    parents: list[int]
    translations: np.ndarray
    inverse_bind: np.ndarray
    default_weights: np.ndarray
    default_rotations: dict[str, np.ndarray]

    def vertices(self, weights: np.ndarray, rotations: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Posed vertices ``[V, 3]`` of each part, metres.

        Args:
            weights: ``[E]`` of the morph targets.
            rotations: ``[3, 3]`` by joint; joints left out keep their rest.
        """
        world: list[np.ndarray] = []
        for index, name in enumerate(self.joint_names):
            local = np.eye(4)
            local[:3, :3], local[:3, 3] = rotations.get(name, np.eye(3)), self.translations[index]
            world.append(local if self.parents[index] < 0 else world[self.parents[index]] @ local)
        matrices = np.stack(world) @ self.inverse_bind
        return [_skinned(part, weights, matrices) for part in self.parts]


def _skinned(part: MeshPart, weights: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    rest = part.positions + np.tensordot(weights, part.targets, 1)
    blended = (matrices[part.joints.astype(int)] * part.weights[..., None, None]).sum(1)
    return np.einsum("vij,vj->vi", blended[:, :3, :3], rest) + blended[:, :3, 3]


def read_mesh(data: bytes) -> RiggedMesh:
    """The first mesh of a file with its first skin.

    Raises:
        DataFileError: damaged, or without mesh, skin or textures.
    """
    glb = GlbReader(data)
    try:
        return _read(glb, glb.document)
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise DataFileError(f"this glTF file holds no whole rigged mesh: {error}") from None


def _read(glb: GlbReader, document: dict[str, Any]) -> RiggedMesh:
    mesh, skin, nodes = document["meshes"][0], document["skins"][0], document["nodes"]
    joints = skin["joints"]
    above = {child: node for node in joints for child in nodes[node].get("children", [])}
    names = [nodes[j]["name"] for j in joints]
    return RiggedMesh(
        parts=[_part(glb, document, primitive) for primitive in mesh["primitives"]],
        target_names=mesh["extras"]["targetNames"],
        joint_names=names,
        parents=[joints.index(above[j]) if j in above else -1 for j in joints],
        translations=np.array([nodes[j].get("translation", [0, 0, 0]) for j in joints]),
        inverse_bind=glb.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1),
        default_weights=np.array(mesh["weights"]),
        default_rotations={
            n: np.array(nodes[j]["rotation"]) for n, j in zip(names, joints, strict=True) if "rotation" in nodes[j]
        },
    )


def _part(glb: GlbReader, document: dict[str, Any], primitive: dict[str, Any]) -> MeshPart:
    attributes = primitive["attributes"]
    texture = document["materials"][primitive["material"]]["pbrMetallicRoughness"]["baseColorTexture"]["index"]
    picture = document["images"][document["textures"][texture]["source"]]
    with Image.open(io.BytesIO(glb.bytes_of_view(picture["bufferView"]))) as image:
        pixels = np.asarray(image.convert("RGB"))
    return MeshPart(
        positions=glb.accessor(attributes["POSITION"]),
        uv=glb.accessor(attributes["TEXCOORD_0"]),
        indices=glb.accessor(primitive["indices"]).reshape(-1, 3),
        targets=np.stack([glb.accessor(target["POSITION"]) for target in primitive["targets"]]),
        joints=glb.accessor(attributes["JOINTS_0"]),
        weights=glb.accessor(attributes["WEIGHTS_0"]),
        texture=pixels,
    )
