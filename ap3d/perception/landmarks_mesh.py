"""The shipped face-landmark detector: BlazeFace and the Attention Mesh of MediaPipe, run by torch.

Bazarevsky et al., BlazeFace (2019); Grishchenko et al., Attention Mesh (2020). ``builtin/landmarks/README.md`` has the
origin, licence and checksums of the weights.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ap3d.perception import face_boxes
from ap3d.perception.mesh_topology import EYE_CONTOUR, IBUG, LEFT_EYE, LEFT_IRIS, POINTS, REFINED, RIGHT_EYE, RIGHT_IRIS
from ap3d.perception.network_file import Network
from ap3d.perception.protocol import FaceLandmarks

FOLDER = Path(__file__).resolve().parent.parent / "builtin" / "landmarks"
CROP = 192
CHUNK = 16  # pictures a pass of the networks


@dataclass(frozen=True)
class FaceMeshDetector:
    """Largest face, its 478 mesh points with refined lips, eyes and irises, and the rigs' 70 landmarks.

    Attributes:
        passes: how often the mesh network looks; the second time at the square round its own first answer.
    """

    detector: Network
    mesh: Network
    fingerprint: str
    passes: int = 2
    name: str = "builtin"
    licence: str = "Apache-2.0"

    @classmethod
    def load(cls, path: str | Path | None = None, device: str = "cpu", passes: int = 2) -> "FaceMeshDetector":
        """Read both networks from a folder, the package's where None; they run on the CPU, whatever ``device``.

        Raises:
            DataFileError: a file is missing or damaged.
        """
        folder = Path(path or FOLDER)
        paths = [folder / "detector.safetensors", folder / "mesh.safetensors"]
        detector, mesh = (Network.load(path) for path in paths)
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
        return cls(detector, mesh, digest, passes)

    @torch.inference_mode()
    def detect(self, images: Tensor) -> FaceLandmarks:
        """Landmarks of pictures ``[B, 3, H, W]`` in 0 to 1; see :class:`FaceLandmarks`."""
        if not len(images):
            return FaceLandmarks(
                torch.zeros(0, 70, 2), torch.zeros(0, POINTS, 3), torch.zeros(0), torch.zeros(0).long()
            )
        parts = [self._chunk(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
        mesh, score, faces = (torch.cat(column) for column in zip(*parts, strict=True))
        return FaceLandmarks(mesh[:, IBUG, :2], mesh, score, faces)

    def _chunk(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        squares, scores, faces = self.find(images)
        mesh = torch.full((len(images), POINTS, 3), float("nan"))
        found = torch.nonzero(faces > 0)[:, 0]
        if len(found):
            there, now = images if len(found) == len(images) else images[found], squares[found]
            for _ in range(self.passes):
                points, flag = self.mesh_points(there, now)
                now = face_boxes.square_round(points)
            mesh[found] = points
            scores[found] = torch.minimum(scores[found], flag)
        return mesh, scores, faces

    def find(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turned squares ``[B, 4]``, scores ``[B]`` and the number of faces ``[B]``; the largest face counts."""
        height, width = images.shape[-2:]
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        whole = torch.tensor([[side / 2 - left, side / 2 - top, float(side), 0.0]]).expand(len(images), 4)
        small = crop_pictures(images, face_boxes.square_maps(whole, face_boxes.SIZE), face_boxes.SIZE)
        regressors, logits = self.detector(2 * small - 1)
        corners, points = face_boxes.decode(regressors, face_boxes.anchors())
        squares = torch.zeros(len(images), 4)
        scores, counts = torch.zeros(len(images)), torch.zeros(len(images), dtype=torch.int64)
        for index, score in enumerate(logits[..., 0].sigmoid()):
            found = face_boxes.distinct_faces(corners[index], points[index], score)
            if found:
                box, key, best = max(found, key=lambda face: float((face[0][2:] - face[0][:2]).prod()))
                squares[index] = face_boxes.square(box[None, :2], box[None, 2:], key[None, 0], key[None, 1])[0]
                scores[index], counts[index] = best, len(found)
        squares[:, :3] *= side / face_boxes.SIZE
        squares[:, :2] -= torch.tensor([float(left), float(top)])
        return squares, scores, counts

    def mesh_points(self, images: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Mesh points ``[B, 478, 3]`` inside turned squares, and the probability ``[B]`` that there is a face."""
        maps = face_boxes.square_maps(squares, CROP)
        outputs = self.mesh(crop_pictures(images, maps, CROP))
        points = refine_mesh([o.reshape(len(images), -1) for o in outputs[:6]])
        flat = points[..., :2] @ maps[..., :2].transpose(1, 2) + maps[:, None, :, 2]
        depth = points[..., 2] * (squares[:, 2:3] / CROP)
        return torch.cat([flat, depth[..., None]], 2), outputs[6].reshape(-1).sigmoid()


def crop_pictures(images: Tensor, maps: Tensor, size: int) -> Tensor:
    """Samples ``[B, 3, size, size]`` of pictures at affine maps from crop to picture pixels; black outside."""
    shrink = max(int(float(maps[:, :, :2].square().sum(1).sqrt().median())), 1)
    if shrink > 1:  # a square mean first, or fine texture would alias
        images, maps = F.avg_pool2d(images, shrink, ceil_mode=True), maps / shrink
    height, width = images.shape[-2:]
    scale = maps.new_tensor([2 / width, 2 / height])[:, None]
    linear, shift = maps[..., :2] * scale, maps[..., 2:] * scale - 1
    # affine_grid runs over -1 to 1 where the maps run over 0 to size
    theta = torch.cat([linear * (size / 2), shift + linear.sum(2, keepdim=True) * (size / 2)], 2)
    grid = F.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False)


def refine_mesh(outputs: list[Tensor]) -> Tensor:
    """The 478 points ``[B, 478, 3]`` of the network's six outputs: mesh, lips, right and left eye, both irises."""
    mesh = outputs[0].unflatten(1, (468, 3))
    points = torch.cat([mesh, mesh.new_zeros(len(mesh), POINTS - 468, 3)], 1)
    for numbers, refined in zip(REFINED, outputs[1:], strict=True):
        points[:, numbers, :2] = refined.unflatten(1, (len(numbers), 2))
    for iris, eye in ((RIGHT_IRIS, RIGHT_EYE), (LEFT_IRIS, LEFT_EYE)):
        points[:, iris, 2] = points[:, eye[:EYE_CONTOUR], 2].mean(1, keepdim=True)
    return points
