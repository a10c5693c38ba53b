"""Draw portraits from any camera, and training samples: picture, condition and the words of its caption."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ap3d.cameras import Cameras, orbit
from ap3d.diffusion.conditions import ConditionBuilder
from ap3d.diffusion.prompts import view_word
from ap3d.framing import FOV_DEGREES, framing_boxes, full_radius, head_camera_target
from ap3d.perception.parsing import CLASSES
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.regions import Label, label_fields, labels_from_fields
from ap3d.training.attributes import BACKGROUND_COLOUR, FRAMINGS, PortraitAttributes
from ap3d.training.portraits.dress import DressedMesh, dress
from ap3d.training.portraits.materials import paint
from ap3d.training.portraits.people import Person, sample_person
from ap3d.training.portraits.shading import Light, shade
from ap3d.training.portraits.skin import brow_cover
from ap3d.training.portraits.surface import Surface

SUPERSAMPLE = 2
VIEWS_PER_PERSON = 6
FRAMING_SHARES = (0.36, 0.20, 0.15, 0.15, 0.14)
EYE_LIMIT, MOUTH_LIMIT = (-35.0, 62.0), 65.0  # azimuths, towards the eye's own side positive


@dataclass(frozen=True)
class PortraitSample:
    """One training picture with its condition and the words of its caption."""

    image: NDArray[np.uint8]  # [H, W, 3]
    condition: NDArray[np.uint8]  # [H, W, C]
    attributes: PortraitAttributes
    expression: str
    framing: str
    view: str
    classes: NDArray[np.uint8] | None = None  # [H, W], only where asked for


class Portraitist:
    """A dressed person whose geometry is built once and drawn from many cameras."""

    def __init__(self, person: Person, rig: BuiltinRig) -> None:
        self.person, self.rig = person, rig
        self.mesh: DressedMesh = dress(person, rig)
        self.light = Light.sample(np.random.default_rng(person.seed + 1))
        hair = len(self.mesh.faces) - len(rig.faces)
        self._part = torch.cat([rig.face_parts, torch.full((hair,), -1)])

    @torch.no_grad()
    def render(self, cameras: Cameras) -> Tensor:
        """Pictures ``[B, 3, H, W]`` in [0, 1]; the background is ``BACKGROUND_COLOUR`` exactly."""
        pictures = [self._draw(cameras[i]) for i in range(len(cameras))]
        return torch.nn.functional.avg_pool2d(torch.stack(pictures).permute(0, 3, 1, 2), SUPERSAMPLE).clamp(0, 1)

    @torch.no_grad()
    def render_classes(self, cameras: Cameras) -> Tensor:
        """What each pixel's centre shows (int64 ``[B, H, W]``): an index into the face parser's ``CLASSES``."""
        return torch.stack([self._classify(cameras[i]) for i in range(len(cameras))])

    def _classify(self, camera: Cameras) -> Tensor:
        rast, hit = self.rasterize(camera, (camera.height, camera.width))
        values = interpolate(self.mesh.attributes[None, :, 3:9], rast, self.mesh.faces)[0][hit]
        classes = torch.zeros(hit.shape, dtype=torch.long)
        classes[hit] = self.classes_of(rast[0, ..., 3][hit].long() - 1, values)
        return classes

    def classes_of(self, face: Tensor, fields: Tensor) -> Tensor:
        """Classes ``[N]`` of points of triangles ``[N]`` with template positions and masks ``[N, 6]``."""
        own = face < len(self.rig.faces)
        labels = torch.full_like(face, int(Label.SCALP))
        known = labels_from_fields(self.rig, face[own], fields[own, :3], fields[own, 3:])
        labels[own] = self._own_brows(known, fields[own, :3])
        table = torch.tensor([CLASSES.index(_class_of(label, self.person.attributes)) for label in Label])
        return torch.where(own, table[labels], torch.tensor(CLASSES.index("hair")))

    def _own_brows(self, labels: Tensor, template: Tensor) -> Tensor:
        """Labels ``[P]`` with brows as thick as this person's, in place of the rig's middling ones."""
        eye_height = float(label_fields(self.rig)["eye_centres"][0, 1])
        brow = brow_cover(template, self.person.attributes, eye_height) > 0.5
        labels = torch.where(labels == Label.BROW, torch.tensor(int(Label.SKIN)), labels)
        return torch.where(brow & (labels == Label.SKIN), torch.tensor(int(Label.BROW)), labels)

    def rasterize(self, camera: Cameras, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """As :func:`rasterize_mesh` gives it, and where something was hit ``[H, W]``."""
        homogeneous = torch.cat([self.mesh.vertices, torch.ones(len(self.mesh.vertices), 1)], 1)
        rast = rasterize_mesh((homogeneous @ camera.clip_matrices()[0].T)[None], self.mesh.faces, size)
        return rast, rast[0, ..., 3] > 0

    def _draw(self, camera: Cameras) -> Tensor:
        mesh = self.mesh
        size = (camera.height * SUPERSAMPLE, camera.width * SUPERSAMPLE)
        rast, hit = self.rasterize(camera, size)
        picture = torch.tensor(BACKGROUND_COLOUR).expand(*size, 3).clone()
        values = interpolate(mesh.attributes[None], rast, mesh.faces)[0][hit]
        part = self._part[rast[0, ..., 3][hit].long() - 1]
        axes = camera.cam2world[0, :3, :3] * torch.tensor([1.0, -1.0, -1.0])  # OpenGL camera axes in the world
        normals = torch.nn.functional.normalize(values[:, :3] @ axes, dim=1)
        behind = normals[:, 2] < 0
        inside = (behind & (part < 0)).float()
        normals = torch.where((behind & (part != 0))[:, None], -normals, normals)
        material = paint(
            Surface(part, values[:, 3:6], values[:, 6:9], values[:, 9:12]),
            self.person.attributes,
            self.rig,
            self.person.seed,
        )
        material.openness.mul_(1 - 0.5 * inside)
        share = torch.tensor([1.0, 0.0, 0.0, 0.55, 0.55, 0.55, 1.0])[part]  # eyes and teeth are too coarse for it
        occlusion = 1 - share * (1 - values[:, 12])
        picture[hit] = shade(material, normals, occlusion, axes[1], self.light)
        return picture


def _class_of(label: Label, a: PortraitAttributes) -> str:
    """The parser's class of a labelled point of the rig, given what grows there."""
    if label == Label.SCALP:
        return "skin" if a.hair_style == "bald" else "hair"
    if label == Label.BEARD:
        return "beard" if a.beard else "skin"
    names = {
        Label.BACKGROUND: "background", Label.EARS: "ears", Label.BROW: "brows", Label.SCLERA: "eyes",
        Label.IRIS: "eyes", Label.PUPIL: "eyes", Label.LIPS: "mouth", Label.TEETH: "mouth", Label.TONGUE: "mouth",
        Label.MOUTH: "mouth", Label.NECK: "neck", Label.CLOTHES: "clothes",
    }  # fmt: skip
    return names.get(label, "skin")


def render_portrait(person: Person, cameras: Cameras, rig: BuiltinRig) -> Tensor:
    """Pictures ``[B, 3, H, W]`` of one person; see :class:`Portraitist` for many calls."""
    return Portraitist(person, rig).render(cameras)


def sample_views(
    neutral: Tensor, rig: BuiltinRig, rng: np.random.Generator, count: int, size: int
) -> tuple[Cameras, NDArray[np.float64]]:
    """Full-frame cameras round a head with a little play in aim and distance, and their azimuths in degrees.

    Args:
        neutral: ``[V, 3]`` vertices without expression and pose.
        rig: their rig.
        rng: of the draw.
        count: number of cameras.
        size: pixels.
    """
    target, height = head_camera_target(rig, neutral)
    cameras, azimuths = [], np.zeros(count)
    for i in range(count):
        kind = rng.random()
        side = rng.choice([-1, 1]) * rng.uniform(25, 120)
        azimuth = rng.normal(0, 15) if kind < 0.45 else side if kind < 0.80 else 180 + rng.uniform(-60, 60)
        azimuths[i] = (azimuth + 180) % 360 - 180
        aim = target + torch.from_numpy(rng.normal(0, 0.015 * height, 3)).float()
        radius = full_radius(height) * rng.uniform(0.95, 1.08)
        cameras.append(orbit([azimuths[i]], [rng.uniform(-12, 22)], aim, radius, FOV_DEGREES, size))
    return Cameras.concatenate(cameras), azimuths


def visible_framings(azimuth: float) -> list[str]:
    """Framings that show their part at an azimuth in degrees."""
    low, high = EYE_LIMIT
    shown = {
        "full": True, "face": True, "left_eye": low < azimuth < high, "right_eye": low < -azimuth < high,
        "mouth": abs(azimuth) < MOUTH_LIMIT,
    }  # fmt: skip
    return [f for f in FRAMINGS if shown[f]]


def render_samples(
    rig: BuiltinRig,
    rng: np.random.Generator,
    count_views: int,
    size: int = 128,
    accept: Callable[[PortraitAttributes], bool] = lambda _: True,
) -> list[PortraitSample]:
    """Draw people and render ``count_views`` samples of them, a few of each person; seeded by ``rng`` alone.

    People whom ``accept`` refuses are drawn anew.
    """
    builder = ConditionBuilder(rig)
    samples: list[PortraitSample] = []
    while len(samples) < count_views:
        person = sample_person(rng, rig, accept)
        samples += person_samples(person, rig, rng, min(VIEWS_PER_PERSON, count_views - len(samples)), size, builder)
    return samples


def person_samples(
    person: Person,
    rig: BuiltinRig,
    rng: np.random.Generator,
    count: int,
    size: int = 128,
    builder: ConditionBuilder | None = None,
    with_classes: bool = False,
) -> list[PortraitSample]:
    """Samples of one person from several cameras and framings; with the parser's class maps where asked."""
    builder = builder or ConditionBuilder(rig)
    portraitist = Portraitist(person, rig)
    cameras, azimuths = sample_views(portraitist.mesh.neutral, rig, rng, count, size)
    pixels, _ = cameras.project(rig.landmarks_of(portraitist.mesh.bare[None])[0])
    framings = [_draw_framing(float(a), rng) for a in azimuths]
    boxes = torch.cat([framing_boxes(pixels[[i]], f, size) for i, f in enumerate(framings)])
    cropped = cameras.crop(boxes, size)
    images = _bytes(portraitist.render(cropped))
    conditions = _bytes(builder.render(portraitist.mesh.bare[None], cropped))
    classes = portraitist.render_classes(cropped).byte().numpy() if with_classes else None
    return [
        PortraitSample(
            images[i],
            conditions[i],
            person.attributes,
            person.expression,
            framings[i],
            view_word(float(azimuths[i])),
            None if classes is None else classes[i],
        )  # fmt: skip
        for i in range(count)
    ]


def _draw_framing(azimuth: float, rng: np.random.Generator) -> str:
    allowed = visible_framings(azimuth)
    shares = np.array([FRAMING_SHARES[FRAMINGS.index(f)] for f in allowed])
    return str(rng.choice(allowed, p=shares / shares.sum()))


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    """``[B, C, H, W]`` in [0, 1] to ``[B, H, W, C]`` bytes."""
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
