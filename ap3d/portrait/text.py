"""The `text` start: a portrait known only through what the text-to-image model paints of it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.diffusion.prompts import framed_prompt, view_word
from ap3d.diffusion.sampling import sample_images
from ap3d.perception.matte import border_colour, flat_background_matte
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.portrait.silhouettes import rig_silhouettes
from ap3d.resources import Resources

_SAMPLES_A_CALL = 8


@dataclass
class TextPortrait:
    """Views of one person sampled under the rig's condition images, all from the same noise.

    Attributes:
        resources: resident models.
        prompt: completed prompt.
        vertices: ``[1, V, 3]`` posed rig that the conditions show.
        steps: sampling steps.
        guidance_scale: classifier-free guidance.
        generator: draws the shared noise.
    """

    resources: Resources
    prompt: str
    vertices: Tensor
    steps: int
    guidance_scale: float
    generator: torch.Generator
    background: Tensor | None = None
    _noise: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._noise = torch.randn(self.resources.models.latent_shape, generator=self.generator)[None]

    def render(self, cameras: Cameras, framing: str = "full") -> PortraitViews:
        """Sample a picture for each camera; the first call must show whole heads, to learn the background."""
        images = torch.cat([self._sample(cameras[list(part)], framing) for part in _parts(len(cameras))])
        if self.background is None:
            flat = self.resources.models.flat_background
            self.background = border_colour(images) if flat is None else flat
        solid = rig_silhouettes(self.resources.rig, self.vertices, cameras)
        alpha = flat_background_matte(images, self.background, solid)
        return PortraitViews(cameras, images - (1 - alpha) * self.background[:, None, None], alpha, self.background)

    def density_mesh(self) -> Mesh | None:
        """None: pictures have no density."""
        return None

    def _sample(self, cameras: Cameras, framing: str) -> Tensor:
        prompts = [framed_prompt(self.prompt, framing, view_word(azimuth_of(c))) for c in cameras.cam2world]
        return sample_images(
            self.resources.models,
            prompts,
            self.resources.conditions.render(self.vertices.expand(len(cameras), -1, -1), cameras),
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            generator=self.generator,
            noise=self._noise.expand(len(cameras), -1, -1, -1),
        ).cpu()


def azimuth_of(cam2world: Tensor) -> float:
    """Azimuth in degrees from which a camera ``[4, 4]`` looks: 0 front, 90 the subject's left."""
    forward = cam2world[:3, 2]
    return float(torch.rad2deg(torch.atan2(-forward[0], -forward[2])))


def _parts(count: int) -> list[range]:
    return [range(i, min(i + _SAMPLES_A_CALL, count)) for i in range(0, count, _SAMPLES_A_CALL)]
