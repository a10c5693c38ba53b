"""Train the two networks that read pictures: the face parser and the measuring probe.

Their people come from a seed of their own, so that the probe has not seen what the text-to-image model was trained on.
Random backgrounds, blur, noise and exposure make them read avatars and drawings of the model as well as clean renders.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ap3d.cameras import Cameras, orbit
from ap3d.framing import FOV_DEGREES, framing_boxes, full_radius, head_camera_target
from ap3d.metrics.attribute_probe import READ, AttributeProbe
from ap3d.metrics.attribute_probe import SIZE as PROBE_SIZE
from ap3d.perception.parsing import CLASSES, SIZE, FaceParser
from ap3d.rig.builtin import BuiltinRig
from ap3d.training.attributes import PortraitAttributes
from ap3d.training.portraits import Portraitist, sample_person
from ap3d.training.portraits.people import Person

SEED = 2_000_003
VIEWS = ("full", "full", "face", "any")  # of each person: a whole head from the front side, its face, any direction
FULL_VIEWS = ("full", "full", "full")  # of people whom only the probe sees
RATE = 4e-3  # highest learning rate from nothing
Network = TypeVar("Network", bound=nn.Module)
Report = Callable[[dict[str, Any]], None]


@dataclass
class Labelled:
    """Pictures ``[N, S, S, 3]``, class maps ``[N, S, S]`` (uint8), attribute codes ``[N, A]`` in the order of
    ``READ``, and whether the whole head is shown from the front side ``[N]``."""

    images: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    codes: NDArray[np.int64]
    frontal: NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write an npz."""
        np.savez(path, **vars(self))

    @staticmethod
    def load(path: Path) -> "Labelled":
        """The inverse of :meth:`save`."""
        with np.load(path, allow_pickle=False) as file:
            return Labelled(**{name: file[name] for name in ("images", "classes", "codes", "frontal")})


def render_labelled(
    rig: BuiltinRig, people: int, seed: int = SEED, size: int = SIZE, views: tuple[str, ...] = VIEWS
) -> Labelled:
    """Some views of each of ``people``, seeded by ``seed`` alone."""
    rng = np.random.default_rng(seed)
    rows = [row for _ in range(people) for row in _person_rows(sample_person(rng, rig), rig, rng, size, views)]
    images, classes, codes, frontal = (np.stack(column) for column in zip(*rows, strict=True))
    return Labelled(images, classes, codes, frontal)


def joined(parts: Sequence[Labelled]) -> Labelled:
    """All pictures of some sets of one size."""
    return Labelled(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Labelled)))


def whole_heads(data: Labelled, size: int = PROBE_SIZE) -> Labelled:
    """The pictures that the probe reads, at its size."""
    rows = np.flatnonzero(data.frontal)
    small = [
        F.interpolate(_pictures(data, part), (size, size), mode="bilinear", antialias=True)
        for part in np.array_split(rows, len(rows) // 64 + 1)
    ]
    images = (torch.cat(small) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    nearest = ((np.arange(size) + 0.5) * (data.classes.shape[1] / size)).astype(int)
    return Labelled(images, data.classes[rows][:, nearest][:, :, nearest], data.codes[rows], data.frontal[rows])


def codes_of(attributes: PortraitAttributes) -> NDArray[np.int64]:
    """Indices ``[A]`` of a person's values, in the order of ``READ``."""
    return np.array([values.index(getattr(attributes, name)) for name, values in READ.items()])


def _person_rows(
    person: Person, rig: BuiltinRig, rng: np.random.Generator, size: int, views: tuple[str, ...]
) -> Iterator[tuple[Any, ...]]:
    portraitist = Portraitist(person, rig)
    target, height = head_camera_target(rig, portraitist.mesh.neutral)
    cameras, frontal = [], []
    for view in views:
        azimuth = rng.uniform(-180, 180) if view == "any" else rng.uniform(-45, 45)
        radius = full_radius(height) * rng.uniform(0.92, 1.1)
        aim = target + torch.from_numpy(rng.normal(0, 0.02 * height, 3)).float()
        camera = orbit([azimuth], [rng.uniform(-12, 20)], aim, radius, FOV_DEGREES, size)
        close = view == "face" or (view == "any" and abs(azimuth) < 90 and rng.random() < 0.5)
        if close:
            pixels, _ = camera.project(rig.landmarks_of(portraitist.mesh.bare[None])[0])
            camera = camera.crop(framing_boxes(pixels, "face", size), size)
        cameras.append(camera)
        frontal.append(not close and abs(azimuth) <= 45)
    together = Cameras.concatenate(cameras)
    images = (portraitist.render(together) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    classes = portraitist.render_classes(together).byte().numpy()
    for k in range(len(views)):
        yield images[k], classes[k], codes_of(person.attributes), frontal[k]


def augment(pictures: Tensor, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirrored copies with other backgrounds, exposure, colour, blur and noise.

    Args:
        pictures: ``[B, 3, S, S]`` in 0..1.
        classes: ``[B, S, S]``.
        generator: of every draw.
    """
    draw = lambda *shape: torch.rand(len(pictures), *shape, generator=generator)  # noqa: E731
    flip = (draw() < 0.5)[:, None, None]
    classes = torch.where(flip, classes.flip(-1), classes)
    pictures = torch.where(flip[:, None], pictures.flip(-1), pictures)
    behind = (classes == 0)[:, None] & (draw(1, 1, 1) < 0.7)
    ramp = torch.linspace(0, 1, pictures.shape[-2])[:, None]
    pictures = torch.where(behind, draw(3, 1, 1) * (1 - ramp) + draw(3, 1, 1) * ramp, pictures)
    pictures = pictures * (0.85 + 0.3 * draw(1, 1, 1)) * (0.95 + 0.1 * draw(3, 1, 1))
    coarse = F.interpolate(F.avg_pool2d(pictures, 2), scale_factor=2.0, mode="bilinear")
    pictures = torch.lerp(pictures, coarse, (draw(1, 1, 1) * 1.6 - 0.6).clamp_min(0))
    noise = torch.randn(pictures.shape, generator=generator)
    return (pictures + 0.05 * draw(1, 1, 1) * noise).clamp(0, 1), classes


def _moved(pictures: Tensor, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures and class maps shifted by up to 5 % and scaled by up to 8 %."""
    draw = (torch.rand(len(pictures), 3, generator=generator) * 2 - 1) * torch.tensor([0.1, 0.1, 0.08])
    affine = torch.eye(2) * (1 + draw[:, 2, None, None])
    grid = F.affine_grid(torch.cat([affine, draw[:, :2, None]], 2), list(pictures.shape), align_corners=False)
    there = F.grid_sample(classes[:, None].float(), grid, "nearest", "border", align_corners=False)[:, 0]
    return F.grid_sample(pictures, grid, "bilinear", "border", align_corners=False), there.long()


def train_parser(
    data: Labelled,
    steps: int,
    report: Report,
    batch: int = 8,
    seed: int = 0,
    start: FaceParser | None = None,
    rate: float = RATE,
) -> FaceParser:
    """Cross entropy and soft Dice overlap (arXiv 1606.04797), so that small classes count; goes on from ``start``."""
    torch.manual_seed(seed)
    network = _going_on(FaceParser(), start)

    def loss(rows: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        pictures, classes = augment(_pictures(data, rows), torch.from_numpy(data.classes[rows]).long(), generator)
        logits = network(pictures)
        share, truth = logits.softmax(1), F.one_hot(classes, len(CLASSES)).permute(0, 3, 1, 2).float()
        both, each = (share * truth).sum((0, 2, 3)), (share + truth).sum((0, 2, 3))
        return F.cross_entropy(logits, classes) + 1 - (2 * both / each.clamp_min(1e-3))[truth.sum((0, 2, 3)) > 0].mean()

    return _fit(network, loss, np.arange(len(data.images)), steps, batch, seed, report, rate)


def train_probe(
    data: Labelled,
    steps: int,
    report: Report,
    batch: int = 32,
    seed: int = 0,
    start: AttributeProbe | None = None,
    rate: float = RATE,
) -> AttributeProbe:
    """Cross entropy of every attribute on whole heads seen from the front side; bald heads have no hair colour."""
    torch.manual_seed(seed)
    network = _going_on(AttributeProbe(), start)

    def loss(rows: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        moved = _moved(_pictures(data, rows), torch.from_numpy(data.classes[rows]), generator)
        pictures, _ = augment(*moved, generator)
        logits, targets = network(pictures), torch.from_numpy(probe_targets(data, rows))
        return torch.stack(
            [F.cross_entropy(logits[n], targets[:, k], ignore_index=-100) for k, n in enumerate(READ)]
        ).sum()

    return _fit(network, loss, np.flatnonzero(data.frontal), steps, batch, seed, report, rate)


def _going_on(network: Network, start: Network | None) -> Network:
    if start is not None:
        network.load_state_dict(start.state_dict())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def probe_targets(data: Labelled, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Codes ``[N, A]`` with -100 where a picture cannot show the attribute."""
    targets, names = data.codes[rows].copy(), list(READ)
    bald = targets[:, names.index("hair_style")] == READ["hair_style"].index("bald")
    targets[bald, names.index("hair_colour")] = -100
    return targets


def _fit(
    network: Network, loss: Callable[[NDArray[np.int64], torch.Generator], Tensor], rows: NDArray[np.int64], steps: int,
    batch: int, seed: int, report: Report, rate: float,
) -> Network:  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    started = time.monotonic()
    for number in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(rng.choice(rows, batch), generator)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if number % 100 == 0 or number == steps - 1:
            report({"step": number, "loss": float(value.detach()), "seconds": time.monotonic() - started})
    return network.eval().requires_grad_(False)


@torch.no_grad()
def parser_overlap(network: FaceParser, data: Labelled, batch: int = 32) -> dict[str, float]:
    """Intersection over union of every class over all pixels of ``data``."""
    both, either = torch.zeros(len(CLASSES)), torch.zeros(len(CLASSES))
    for start in range(0, len(data.images), batch):
        rows = np.arange(start, min(start + batch, len(data.images)))
        found, truth = network.parse(_pictures(data, rows)), torch.from_numpy(data.classes[rows]).long()
        for k in range(len(CLASSES)):
            both[k] += ((found == k) & (truth == k)).sum()
            either[k] += ((found == k) | (truth == k)).sum()
    return {name: float(both[k] / either[k].clamp_min(1)) for k, name in enumerate(CLASSES)}


@torch.no_grad()
def probe_accuracy(network: AttributeProbe, data: Labelled) -> dict[str, float]:
    """Share of right readings of every attribute, on whole heads from the front side."""
    rows = np.flatnonzero(data.frontal)
    logits, targets = network(_pictures(data, rows)), torch.from_numpy(probe_targets(data, rows))
    return {
        name: float((logits[name].argmax(1) == targets[:, k])[targets[:, k] >= 0].float().mean())
        for k, name in enumerate(READ)
    }


def _pictures(data: Labelled, rows: NDArray[np.int64]) -> Tensor:
    """``[B, 3, S, S]`` in 0..1, channels last in memory."""
    return torch.from_numpy(data.images[rows]).permute(0, 3, 1, 2).float() / 255
