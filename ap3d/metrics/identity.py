"""Are several seeds of one prompt several people? Distances between faces that were laid over each other."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from ap3d.metrics.protocol import Figure, Measured, Summary, Values
from ap3d.metrics.subject import Subject

SIZE = 24


class IdentityMetric:
    """Two lists that are compared between avatars: ``shape``, the 68 landmarks of the rig after a similarity that
    takes the eye corners to (-1/2, 0) and (1/2, 0), and ``picture``, the face at ``SIZE`` pixels over the same frame.

    Shape distances are mean distances of landmarks over the inter-ocular distance, picture distances root mean
    squares of colour in 0..1.
    """

    name, version, needs = "identity", 1, ()

    def evaluate(self, subject: Subject) -> Values:
        """See the class."""
        camera = subject.face_camera(8 * SIZE)
        points, _ = camera.project(subject.bundle.rig.landmarks(subject.bundle.params)[0])
        flat = points[0, :68]
        middle, across = (flat[36] + flat[45]) / 2, flat[45] - flat[36]
        unit = float(across.norm())
        turned = torch.stack([across, torch.stack([-across[1], across[0]])]) / unit**2
        shape = (flat - middle) @ turned.T
        box = torch.tensor([[float(middle[0]) - unit, float(middle[1]) - 0.75 * unit, 2 * unit]])
        picture = subject.pictures(camera.crop(box, 4 * SIZE))
        small = torch.nn.functional.avg_pool2d(picture, 4)[0]
        return {"shape": _rounded(shape), "picture": _rounded(small)}

    def summarise(self, measured: Sequence[Measured]) -> Summary:
        """Mean and smallest distance between seeds of one prompt, and the mean between prompts for comparison."""
        figures: list[Figure] = []
        for key, distance in (("shape", _landmark_distance), ("picture", _colour_distance)):
            same, other = _pairs(measured)
            near = [distance(_array(a, key), _array(b, key)) for a, b in same]
            far = [distance(_array(a, key), _array(b, key)) for a, b in other]
            if near:
                figures.append(Figure(f"{key}: seeds of one prompt, mean", float(np.mean(near)), len(near)))
                figures.append(Figure(f"{key}: seeds of one prompt, smallest", min(near), len(near)))
            if far:
                figures.append(Figure(f"{key}: between prompts, mean", float(np.mean(far)), len(far)))
        return Summary(figures)


def _pairs(measured: Iterable[Measured]) -> tuple[list[tuple[Measured, Measured]], list[tuple[Measured, Measured]]]:
    """Pairs of one prompt with different seeds, and pairs of each prompt's first avatars."""
    by_prompt: dict[str, list[Measured]] = defaultdict(list)
    for m in measured:
        by_prompt[m.prompt].append(m)
    same = [(a, b) for group in by_prompt.values() for a, b in combinations(group, 2) if a.seed != b.seed]
    return same, list(combinations([group[0] for group in by_prompt.values()], 2))


def _landmark_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.linalg.norm((a - b).reshape(-1, 2), axis=1).mean())


def _colour_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def _array(m: Measured, key: str) -> NDArray[np.float64]:
    return np.asarray(m.values[key], np.float64)


def _rounded(values: torch.Tensor) -> list[float]:
    return [round(float(v), 4) for v in values.reshape(-1)]
