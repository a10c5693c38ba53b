"""Does a sample show what its text asked for? Two readers that learn from real renders only.

Colours: nearest neighbours on region medians. Style, beard and the rest: a small convolutional network. Both see
pictures of held-out conditions whose attributes were shuffled, so that only the text can have decided them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.diffusion.models import GuidanceModels
from ap3d.diffusion.sampling import sample_images
from ap3d.training.attributes import EYE_COLOURS, HAIR_COLOURS, HAIR_STYLES, SHIRT_COLOURS, SKINS
from ap3d.training.captions import LABELS, plain_caption
from ap3d.training.portrait_pool import PortraitPool, Scene

COLOURS = {"shirt": "CLOTHES", "hair_colour": "SCALP", "skin": "SKIN", "eye_colour": "IRIS"}
READ = ("hair_style", "beard", "gender", "age", "skin", "hair_colour", "shirt")
NEIGHBOURS = 15


@dataclass(frozen=True)
class Example:
    """A condition, the picture that was rendered with it, and what it shows."""

    picture: NDArray[np.uint8]  # [S, S, 3]
    condition: NDArray[np.uint8]  # [S, S, 6]
    scene: Scene


def examples(pool: PortraitPool, framings: tuple[str, ...], limit: int) -> list[Example]:
    """The first ``limit`` rows of a pool in some framings."""
    rows = (i for i in range(len(pool)) if pool.scene(i).framing in framings)
    chosen = [i for i, _ in zip(rows, range(limit), strict=False)]
    return [Example(pool.images[i], pool.conditions[i], pool.scene(i)) for i in chosen]


def shuffled(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with all that the condition does not fix drawn anew; half of all grown men get a beard."""
    pick = lambda options: str(rng.choice(options))  # noqa: E731
    person = scene.person
    beard = person.gender == "man" and person.age != "child" and bool(rng.random() < 0.5)
    new = replace(
        person, skin=pick(SKINS), hair_style=pick(HAIR_STYLES), hair_colour=pick(HAIR_COLOURS), beard=beard,
        shirt=pick(SHIRT_COLOURS), eye_colour=pick(EYE_COLOURS),
    )  # fmt: skip
    return replace(scene, person=new)


def applies(name: str, scene: Scene) -> bool:
    """Whether an attribute can be seen in a scene."""
    if name == "eye_colour":
        return scene.framing.endswith("eye") and scene.expression != "eyes closed"
    if scene.framing != "full":
        return False
    if name in ("skin", "gender", "age"):
        return scene.view == "front view"
    if name == "shirt":  # long hair hides it from behind and beside
        return scene.view == "front view" or scene.person.hair_style != "long"
    if name == "beard":
        return scene.view == "front view" and scene.person.gender == "man" and scene.person.age != "child"
    return name != "hair_colour" or scene.person.hair_style != "bald"


class ColourReader:
    """Nearest neighbours of region medians among real renders."""

    def __init__(self, references: list[Example], spec: ConditionSpec) -> None:
        self.spec = spec
        self.features: dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
        for name in COLOURS:
            rows = [(self._median(e.picture / 255, e, name), e.scene) for e in references if applies(name, e.scene)]
            found = [(m, LABELS[name].index(getattr(s.person, name))) for m, s in rows if m is not None]
            self.features[name] = (np.array([m for m, _ in found]), np.array([label for _, label in found]))

    def read(self, picture: NDArray[np.floating], example: Example, name: str) -> int | None:
        """The label index that a picture ``[S, S, 3]`` in 0..1 shows, None where the region is too small."""
        median = self._median(picture, example, name)
        known, labels = self.features[name]
        if median is None or len(known) == 0:
            return None
        nearest = np.argsort(((known - median) ** 2).sum(1))[:NEIGHBOURS]
        return int(np.bincount(labels[nearest]).argmax())

    def _median(self, picture: NDArray[np.floating], example: Example, name: str) -> NDArray[np.float64] | None:
        mask = self._mask(example, name)
        return np.median(picture[mask], 0) if mask.sum() >= 12 else None

    def _mask(self, example: Example, name: str) -> NDArray[np.bool_]:
        code = np.array(self.spec.codes[COLOURS[name]]) * 255
        mask = np.abs(example.condition[..., 3:] - code).max(-1) < 8
        rows = np.arange(len(mask))[:, None]
        if name == "shirt":  # long hair falls over the shoulders, not over the lower edge
            return mask & (rows >= len(mask) * 0.9)
        if name == "hair_colour":  # the crown: temples show skin
            filled = np.nonzero(mask.any(1))[0]
            return mask & (rows < filled[0] + 0.5 * (filled[-1] - filled[0])) if len(filled) else mask
        return mask


class AttributeNet(nn.Module):
    """Pictures ``[B, 3, 64, 64]`` in -1..1 to logits of every attribute of ``READ``."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = [3, 16, 32, 64, 96, 96], []
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            layers += [nn.Conv2d(a, b, 3, 2 if i else 1, 1), nn.BatchNorm2d(b), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.heads = nn.ModuleDict({name: nn.Linear(96 * 16, len(LABELS[name])) for name in READ})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = self.body(pictures)
        return {name: head(features) for name, head in self.heads.items()}


def train_attribute_net(references: list[Example], steps: int, batch: int = 48, seed: int = 0) -> AttributeNet:
    """Fit the network on real renders, with mirrored, blurred and noisy copies."""
    torch.manual_seed(seed)
    net = AttributeNet()
    pictures = small_pictures(np.stack([e.picture for e in references]))
    targets = {n: torch.tensor([LABELS[n].index(getattr(e.scene.person, n)) for e in references]) for n in READ}
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(pictures), (batch,))
        x = pictures[rows].flip(-1) if step % 2 else pictures[rows]
        if step % 5 == 0:
            x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0)
        x = x + 0.06 * torch.randn_like(x) * torch.rand(len(x), 1, 1, 1)
        logits = net(x)
        loss = torch.stack([F.cross_entropy(logits[n], targets[n][rows]) for n in READ]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def small_pictures(pictures: NDArray[np.uint8]) -> Tensor:
    """``[N, S, S, 3]`` to ``[N, 3, 64, 64]`` in -1..1."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.avg_pool2d(x, x.shape[-1] // 64)


class Probe:
    """Scores samples on held-out conditions.

    Args:
        references: real renders to learn from, full and eye framings.
        held_out: conditions to sample at.
        spec: what the conditions show.
        net_steps: training steps of the attribute network.
        seed: of shuffling and sampling.
    """

    def __init__(
        self,
        references: list[Example],
        held_out: list[Example],
        spec: ConditionSpec,
        net_steps: int = 500,
        seed: int = 7,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.held_out, self.seed = held_out, seed
        self.asked = [shuffled(e.scene, rng) for e in held_out]
        self.colours = ColourReader(references, spec)
        self.net = train_attribute_net([e for e in references if e.scene.framing == "full"], net_steps)

    def score_real(self) -> dict[str, float]:
        """The readers' own accuracy on held-out renders: what a perfect model would score."""
        return self._score([e.picture / 255 for e in self.held_out], [e.scene for e in self.held_out])

    def score(
        self, models: GuidanceModels, *, steps: int = 12, guidance_scale: float = 2.0
    ) -> tuple[dict[str, float], Tensor]:
        """Accuracy of every attribute and the samples ``[N, 3, S, S]``; one step and scale 1 is the quick probe."""
        prompts = [plain_caption(s.person, s.framing, s.view) for s in self.asked]
        conditions = torch.from_numpy(np.stack([e.condition for e in self.held_out])).permute(0, 3, 1, 2).float() / 255
        generator = torch.Generator().manual_seed(self.seed)
        samples = sample_images(
            models, prompts, conditions, steps=steps, guidance_scale=guidance_scale, generator=generator
        )
        return self._score(list(samples.permute(0, 2, 3, 1).numpy()), self.asked), samples

    @torch.no_grad()
    def _score(self, pictures: list[NDArray[np.floating]], scenes: list[Scene]) -> dict[str, float]:
        logits = self.net(small_pictures((np.stack(pictures) * 255).round().astype(np.uint8)))
        out: dict[str, float] = {}
        for name in COLOURS:
            read = lambda i, name=name: self.colours.read(pictures[i], self.held_out[i], name)  # noqa: E731
            out[name] = _accuracy(read, name, scenes)
        for name in READ:
            labels = logits[name].argmax(1)
            out[f"net_{name}"] = _accuracy(labels.tolist().__getitem__, name, scenes)
        style = logits["hair_style"].argmax(1)
        for k, value in enumerate(HAIR_STYLES):
            rows = [i for i, s in enumerate(scenes) if s.framing == "full" and s.person.hair_style == value]
            out[f"style_{value}"] = float((style[rows] == k).float().mean()) if rows else float("nan")
        return out


def _accuracy(read: Callable[[int], int | None], name: str, scenes: list[Scene]) -> float:
    """Share of scenes whose reading equals the label, over those that show the attribute."""
    hits = []
    for i, scene in enumerate(scenes):
        if applies(name, scene) and (found := read(i)) is not None:
            hits.append(found == LABELS[name].index(getattr(scene.person, name)))
    return float(np.mean(hits)) if hits else float("nan")
