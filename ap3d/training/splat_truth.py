"""Truth for the measuring probe as avatars show it: Gaussians fitted to people whose attributes are known."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.cameras import Cameras
from ap3d.config_sections import GaussiansConfig, PortraitConfig
from ap3d.framing import framing_boxes, full_cameras, head_camera_target
from ap3d.portrait.hull import carve_hull
from ap3d.raster.splats import rasterize_splats
from ap3d.rig.builtin import BuiltinRig
from ap3d.splats.avatar import GaussianAvatar, Group
from ap3d.splats.fitting import FitSettings, TargetViews, fit
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import Seeds, hull_seeds, seeds_avatar, surface_avatar
from ap3d.splats.optimizer import AvatarOptimizer
from ap3d.stages.initialise import HULL_CLEARANCE
from ap3d.stages.portrait import HULL_EXTENT
from ap3d.training.attributes import BACKGROUND_COLOUR
from ap3d.training.portraits import Portraitist, sample_person
from ap3d.training.portraits.people import Person
from ap3d.training.portraits.render import SUPERSAMPLE
from ap3d.training.readers import Labelled, codes_of

AZIMUTHS = (0.0, -30.0, 30.0)  # of the pictures that are read, as the metric of finished avatars has them
ELEVATION = 5.0
COUNTS = GaussiansConfig(skin_count=8000, hair_count=4500, clothes_count=1300)


def splat_truth(
    rig: BuiltinRig, people: int, seed: int, *, size: int = 128, iterations: int = 160, counts: GaussiansConfig = COUNTS
) -> Labelled:
    """Three pictures, drawn by the splat rasteriser, of each of ``people``; class maps are the mesh's own.

    Each person is fitted as stage `initialise` fits a portrait of the `text` start, but to true views.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    images, classes, codes = [], [], []
    for _ in range(people):
        person = sample_person(rng, rig)
        portraitist = Portraitist(person, rig)
        cameras = full_cameras(rig, portraitist.mesh.neutral, AZIMUTHS, [ELEVATION], size)
        avatar, vertices = fitted_avatar(portraitist, rig, size, iterations, counts, generator)
        frames = triangle_frames(vertices, rig.faces)
        with torch.no_grad():
            drawn = rasterize_splats(avatar.pose(frames, frames), cameras, sh_degree=0)
        pictures = drawn.over(torch.tensor(BACKGROUND_COLOUR)).clamp(0, 1)
        images.append((pictures * 255).round().byte().permute(0, 2, 3, 1).numpy())
        classes.append(portraitist.render_classes(cameras).byte().numpy())
        codes.append(np.tile(codes_of(person.attributes), (len(cameras), 1)))
    return Labelled(
        np.concatenate(images), np.concatenate(classes), np.concatenate(codes), np.ones(len(AZIMUTHS) * people, bool)
    )


def fitted_avatar(
    portraitist: Portraitist, rig: BuiltinRig, size: int, iterations: int, counts: GaussiansConfig,
    generator: torch.Generator,
) -> tuple[GaussianAvatar, Tensor]:  # fmt: skip
    """Gaussians fitted to true pictures, and the posed vertices ``[V, 3]`` that carry them."""
    vertices = rig.vertices(portraitist.person.params)[0]
    full, face = _cameras(portraitist.person, rig, vertices, size)
    background = torch.tensor(BACKGROUND_COLOUR)
    cameras = Cameras.concatenate([full, face])
    alpha = true_alpha(portraitist, cameras)
    centre, _ = head_camera_target(rig, vertices)
    hull = carve_hull(alpha[: len(full)], full, centre, HULL_EXTENT, 96, 0.88)
    frames = triangle_frames(vertices, rig.faces)
    avatar = surface_avatar(rig, vertices, counts.skin_count, generator)
    skin = avatar.pose(frames).means
    seeds = hull_seeds(rig, vertices, hull.shell(), skin, avatar.binding, HULL_CLEARANCE)
    wanted = {Group.HAIR: counts.hair_count, Group.CLOTHES: counts.clothes_count}
    parts = [avatar] + [
        seeds_avatar(rig, vertices, Seeds(points, hull.voxel), wanted[group], group, 1, generator)
        for group, points in seeds.items()
        if len(points)
    ]
    optimizer = AvatarOptimizer(GaussianAvatar.concatenate(parts))
    target = TargetViews(frames, cameras, portraitist.render(cameras), alpha, torch.ones(len(cameras)))
    settings = FitSettings(iterations, 2, background)
    fit(optimizer, [target], frames, counts, settings, generator, lambda done, total: None)
    return optimizer.detached(), vertices


def true_alpha(portraitist: Portraitist, cameras: Cameras) -> Tensor:
    """Coverage ``[B, 1, H, W]`` of a drawn person, with the outline's fractions."""
    size = (cameras.height * SUPERSAMPLE, cameras.width * SUPERSAMPLE)
    hits = [portraitist.rasterize(cameras[i], size)[1].float() for i in range(len(cameras))]
    return F.avg_pool2d(torch.stack(hits)[:, None], SUPERSAMPLE)


def _cameras(person: Person, rig: BuiltinRig, vertices: Tensor, size: int) -> tuple[Cameras, Cameras]:
    """The built-in preset's full frames and faces."""
    views = PortraitConfig()
    full = full_cameras(rig, vertices, views.full_azimuths, [views.elevation], size)
    wide = full_cameras(rig, vertices, views.face_azimuths, [views.elevation], size)
    pixels, _ = wide.project(rig.landmarks(person.params)[0])
    return full, wide.crop(framing_boxes(pixels, "face", size), size)
