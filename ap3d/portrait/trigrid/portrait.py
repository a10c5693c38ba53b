"""A portrait of Portrait3D behind the :class:`~ap3d.portrait.protocol.Portrait` protocol."""

from functools import cached_property

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.portrait.trigrid.background import background_features
from ap3d.portrait.trigrid.baked import BakedField, bake, cropped_values, march_baked
from ap3d.portrait.trigrid.field import BOX, TriGridField
from ap3d.portrait.trigrid.marching import SAMPLES, Marched, camera_rays, join, march_exact
from ap3d.portrait.trigrid.tensors import RenderNetworks, TriGrid

SURFACE = 15.0  # raw density of the surface
MARGIN = 15 / 256  # of the grid's side, emptied before the surface is drawn


class TriGridPortrait:
    """A tri-grid with its decoder, in world units.

    Attributes:
        grid: its tensors, prompt and id.
        field: raw density and colour at points in SMPL metres.
        scale: world units in a SMPL metre.
        samples: coarse samples of an exact ray, and as many fine ones.
    """

    def __init__(
        self, grid: TriGrid, networks: RenderNetworks, *, scale: float = 3.0, resolution: int = 256,
        exact: bool = False, samples: int = SAMPLES, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        self.grid, self.networks, self.scale = grid, networks, scale
        self.field = TriGridField.of(grid, networks)
        self.resolution, self.exact, self.samples, self.generator = resolution, exact, samples, generator

    @property
    def prompt(self) -> str:
        """The words of the portrait."""
        return self.grid.prompt

    @cached_property
    def baked(self) -> BakedField:
        """The field on a dense grid, made at the first use."""
        return bake(self.field, self.resolution)

    @torch.no_grad()
    def density(self, points: Tensor) -> Tensor:
        """Raw density ``[N]`` at world points ``[N, 3]``: the surface lies where it is ``SURFACE``, more is inside."""
        return self.field(points / self.scale)[:, 0]

    @torch.no_grad()
    def colour(self, points: Tensor) -> Tensor:
        """Colour ``[N, 3]`` in 0..1 at world points ``[N, 3]``."""
        return (self.field(points / self.scale)[:, 1:] / 2 + 0.5).clamp(0, 1)

    def render(self, cameras: Cameras, framing: str = "full") -> PortraitViews:
        """Pictures of the field from any cameras; ``framing`` changes nothing here.

        Depth is along the view axis (OpenCV z) and 0 where nothing was hit; normals are unit vectors in the WORLD
        frame, zero where nothing was hit; labels are None. The background is the colour of empty space.
        """
        origins, directions, cosines = camera_rays(cameras)
        views = [self._march(origins[i], directions[i]) for i in range(len(cameras))]
        seen = join(views)
        shaped = lambda x: x.reshape(len(cameras), cameras.height, cameras.width, -1).permute(0, 3, 1, 2)  # noqa: E731
        alpha = shaped(seen.alpha.clamp(0, 1))
        colour = torch.minimum(shaped(seen.colour).clamp(min=0), alpha)
        depth = shaped(seen.depth * cosines.reshape(-1))
        return PortraitViews(
            cameras, colour, alpha, self.field.decoder.background.clamp(0, 1), depth, shaped(seen.normals)
        )

    @torch.no_grad()
    def background_picture(self, size: int) -> Tensor | None:
        """The GAN's backdrop ``[3, size, size]``, not clamped, 0 to 1; None where its network is not known.

        The original's pictures are ``color + (1 - alpha) * background_picture``.
        """
        if not self.networks.background:
            return None
        features = background_features(self.networks.background, self.grid.ws)[None]
        features = torch.nn.functional.interpolate(features, (size, size), mode="bilinear", align_corners=False)[0]
        decoder = self.field.decoder
        picture = torch.einsum("oc,chw->ohw", decoder.colour, features) + decoder.offset[:, None, None]
        return picture / 2 + 0.5

    def _march(self, origin: Tensor, directions: Tensor) -> Marched:
        if self.exact:
            with torch.no_grad():
                return march_exact(
                    self.field, origin, directions, self.scale, generator=self.generator, samples=self.samples
                )
        return march_baked(self.baked, origin, directions, self.scale)

    def density_mesh(self) -> Mesh | None:
        """The surface at raw density 15 in world units, faces outward; None where the field is empty."""
        raw = cropped_values(self.baked.values, max(1, round(MARGIN * self.resolution)))
        return surface_mesh(raw, self.scale)


def surface_mesh(raw: Tensor, scale: float) -> Mesh | None:
    """Marching cubes at ``SURFACE`` through nodes ``[R, R, R]`` (z, y, x) that span the box."""
    from skimage.measure import marching_cubes

    if not bool((raw > SURFACE).any()):
        return None
    vertices, faces, _, _ = marching_cubes(
        raw.permute(2, 1, 0).numpy(), SURFACE, gradient_direction="ascent", allow_degenerate=False
    )
    world = (torch.from_numpy(vertices.copy()) / (len(raw) - 1) - 0.5) * (BOX * scale)
    return Mesh(world.float(), torch.from_numpy(faces.astype("int64")))
