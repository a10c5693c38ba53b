"""Vertex positions under a smoothing change of variables, with a step of one length for all.

Nicolet et al. 2021, "Large Steps in Inverse Rendering of Geometry": ``x = (I + lambda L)^-1 u`` with the graph
Laplacian L, and Adam with one second moment for all coordinates. Gradients that touch a few vertices move their
surroundings along, so that silhouettes do not fold the mesh.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from ap3d.portrait.surface.cleaning import unique_edges

BETA1, BETA2 = 0.9, 0.999


class SmoothVertices:
    """Vertices ``x [V, 3]`` stored as ``u = (I + smoothness L) x``; ``u`` is what steps change."""

    def __init__(self, vertices: Tensor, faces: Tensor, smoothness: float, rate: float) -> None:
        """``rate``: length of a step of ``u``, world units."""
        edges = unique_edges(faces)[0].numpy()
        count = len(vertices)
        one = np.ones(len(edges))
        adjacent = sparse.coo_matrix((one, (edges[:, 0], edges[:, 1])), (count, count))
        adjacent = adjacent + adjacent.T
        laplacian = sparse.diags(np.asarray(adjacent.sum(1)).ravel()) - adjacent
        matrix = sparse.csc_matrix(sparse.identity(count) + smoothness * laplacian)
        self._factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        self._u = matrix @ vertices.double().numpy()
        self._first, self._second, self._steps, self._rate = np.zeros_like(self._u), 0.0, 0, rate

    def positions(self) -> Tensor:
        """A leaf ``[V, 3]`` whose gradient :meth:`step` takes."""
        return torch.from_numpy(self._factor.solve(self._u)).float().requires_grad_()

    def step(self, gradient: Tensor | None) -> None:
        """One step of uniform Adam (section 4 of the paper) against the gradient of :meth:`positions`."""
        if gradient is None or not bool(gradient.any()):
            return
        g: np.ndarray[Any, Any] = self._factor.solve(gradient.double().numpy())
        self._steps += 1
        self._first = BETA1 * self._first + (1 - BETA1) * g
        self._second = BETA2 * self._second + (1 - BETA2) * float(np.square(g).max())
        mean = self._first / (1 - BETA1**self._steps)
        root = float(np.sqrt(self._second / (1 - BETA2**self._steps)))
        self._u -= self._rate * mean / max(root, 1e-20)
