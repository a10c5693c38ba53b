"""Marigold normals (Ke et al., arXiv 2505.09358), a diffusers pipeline that looks at one picture at a time.

Weights: ``prs-eth/marigold-normals-v1-1`` on the hub or any such folder (2.6 GB at half precision; CreativeML
OpenRAIL++-M). Stands in for Unique3D's normal network, whose attention no pipeline of a library has.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.perception.hub_folder import HubFolder
from ap3d.portrait.protocol import PortraitViews

FOLDER = HubFolder("perception.normals=marigold", "prs-eth/marigold-normals-v1-1", "OpenRAIL++-M", "Marigold normals")
STEPS, SEED = 4, 0


@dataclass(frozen=True)
class MarigoldNormals:
    """Pictures on white, the same noise for every view; x right, y up, z to the viewer, as the pipeline gives them.

    Attributes:
        pipeline: of class ``MarigoldNormalsPipeline``.
        resolution: pixels of the longer side that it works at; None for the weights' own.
    """

    pipeline: Any
    fingerprint: str
    resolution: int | None = None
    steps: int = STEPS
    name: str = "marigold"
    licence: str = "CreativeML OpenRAIL++-M"

    @classmethod
    def load(cls, path: str | Path | None = None, device: str = "cpu") -> "MarigoldNormals":
        """Read a pipeline folder, or a hub id that was fetched before.

        Raises:
            InputError: nothing is there, or the device is absent.
            DataFileError: it holds no such pipeline.
        """
        from diffusers import MarigoldNormalsPipeline

        folder = FOLDER.find(path, device)
        dtype = torch.float32 if device == "cpu" else torch.float16
        pipeline, digest = FOLDER.read(MarigoldNormalsPipeline, folder, dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), digest)

    @torch.inference_mode()
    def normals(self, views: PortraitViews) -> Tensor:
        """See :class:`ap3d.perception.protocol.NormalEstimator`."""
        white = (views.color + (1 - views.alpha)).clamp(0, 1)
        found = [self._one(picture) for picture in white.split(1) if len(picture)]
        if not found:
            return torch.zeros_like(views.color)
        return F.normalize(torch.cat(found).to(views.color), dim=1) * (views.alpha >= 0.5)

    def _one(self, picture: Tensor) -> Tensor:
        generator = torch.Generator(self.pipeline.device).manual_seed(SEED)
        resolution = {} if self.resolution is None else {"processing_resolution": self.resolution}
        return self.pipeline(
            picture, num_inference_steps=self.steps, generator=generator, output_type="pt", **resolution
        ).prediction.float()
