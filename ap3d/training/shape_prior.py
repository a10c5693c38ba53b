"""The text-conditioned shape prior: pooled text to a Gaussian over a rig's shape coefficients.

A small network reads the frozen text encoder of the built-in model and gives the mean and the Cholesky factor of the
precision matrix, so that coefficients which vary together in people also vary together here. No word is looked up.
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ap3d.checksums import BUILTIN
from ap3d.diffusion.loading import check_safetensors, load_component
from ap3d.errors import DataFileError
from ap3d.training.attributes import PortraitAttributes
from ap3d.training.captions import CaptionWriter
from ap3d.training.text_pretraining import token_ids

FILE = "shape_prior.safetensors"
SPREAD_LIMIT = 2.0  # draws stay within this many standard deviations: nobody is a one-in-a-million head

People = Callable[[np.random.Generator, int], tuple[Sequence[PortraitAttributes], Tensor]]


class ShapeNetwork(nn.Module):
    """Pooled text ``[B, D]`` to mean ``[B, n]`` and lower triangular precision factor ``[B, n, n]``, at unit spread."""

    def __init__(self, text_width: int, n_shape: int, hidden: int = 96) -> None:
        super().__init__()
        self.n_shape = n_shape
        self.body = nn.Sequential(
            nn.LayerNorm(text_width), nn.Linear(text_width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.mean = nn.Linear(hidden, n_shape)
        self.factor = nn.Parameter(torch.zeros(n_shape, n_shape))  # below the diagonal, shared by all texts
        self.log_scale = nn.Linear(hidden, n_shape)
        nn.init.zeros_(self.log_scale.weight)
        nn.init.zeros_(self.log_scale.bias)

    @torch.no_grad()
    def start_from(self, shapes: Tensor) -> None:
        """Begin at one Gaussian for everybody, fitted to ``shapes [N, n]``."""
        covariance = torch.cov(shapes.T) + 1e-4 * torch.eye(self.n_shape)
        factor = torch.linalg.inv(torch.linalg.cholesky(covariance))
        self.factor.copy_(factor / factor.diagonal()[:, None])
        self.log_scale.bias.copy_(factor.diagonal().log())

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(pooled)
        unit = self.factor.tril(-1) + torch.eye(self.n_shape)
        scale = self.log_scale(features).clamp(-6, 6).exp()
        return self.mean(features), scale[:, :, None] * unit

    def negative_log_likelihood(self, pooled: Tensor, shapes: Tensor) -> Tensor:
        """Mean over the batch, per coefficient."""
        mean, factor = self(pooled)
        residual = (factor @ (shapes - mean)[..., None])[..., 0]
        log_determinant = factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return (0.5 * residual.square().sum(1) - log_determinant).mean() / self.n_shape + 0.5 * math.log(2 * math.pi)


class TextFeatures:
    """Frozen tokenizer and text encoder from a model folder."""

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPTextModel, CLIPTokenizer

        self.encoder = load_component(CLIPTextModel, folder / "text_encoder", "cpu", torch.float32)
        self.tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token means ``[B, D]``."""
        pooled: Tensor = self.encoder(token_ids(self.tokenizer, list(texts))).last_hidden_state.mean(1)
        return pooled


class ShapePrior:
    """Draws head shapes for prompts; build it with :meth:`load`.

    Attributes:
        rig_sha256: the rig file whose coefficients it draws.
        fingerprint: sha256 of its file.
    """

    def __init__(
        self,
        network: ShapeNetwork,
        features: TextFeatures,
        centre: Tensor,
        spread: Tensor,
        rig_sha256: str,
        fingerprint: str,
    ) -> None:
        self.network, self.features = network.eval().requires_grad_(False), features
        self.centre, self.spread = centre, spread
        self.rig_sha256, self.fingerprint = rig_sha256, fingerprint

    @staticmethod
    def load(spec: str | Path = "builtin") -> "ShapePrior":
        """Read a prior; the text encoder lies in ``diffusion/`` beside it.

        Raises:
            DataFileError: a file is missing, truncated, or of another kind.
        """
        path = BUILTIN / FILE if spec == "builtin" else Path(spec)
        if not path.exists():
            raise DataFileError(f"shape prior {path} is missing; python -m jobs.train_builtin shape remakes it")
        check_safetensors(path)
        with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
            notes = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        try:
            centre, spread = tensors.pop("centre"), tensors.pop("spread")
            hidden, width = tensors["body.1.weight"].shape
            network = ShapeNetwork(width, len(centre), hidden)
            network.load_state_dict(tensors)
        except (KeyError, RuntimeError) as error:
            raise DataFileError(f"{path} is not a shape prior") from error
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return ShapePrior(
            network, TextFeatures(path.parent / "diffusion"), centre, spread, notes.get("rig_sha256", ""), digest
        )

    @torch.no_grad()
    def sample(
        self, text: str | Sequence[str] | Tensor, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Shape coefficients ``[B, n_shape]``.

        Args:
            text: one prompt, B prompts, or pooled features ``[B, D]``.
            generator: draws the person; None gives the mean.
            temperature: of the draw; 0 is the mean.
        """
        pooled = text if isinstance(text, Tensor) else self.features([text] if isinstance(text, str) else text)
        mean, factor = self.network(pooled)
        noise = torch.zeros_like(mean) if generator is None else torch.randn(mean.shape, generator=generator)
        noise = noise.clamp(-SPREAD_LIMIT, SPREAD_LIMIT) * temperature
        offset = torch.linalg.solve_triangular(factor, noise[..., None], upper=False)[..., 0]
        return self.centre + self.spread * (mean + offset)


@dataclass(frozen=True)
class ShapePriorConfig:
    """Schedule of the prior's training."""

    people: int = 8000
    steps: int = 2500
    batch: int = 128
    wordings: int = 4  # captions of each person
    learning_rate: float = 3e-3
    seed: int = 0


def train_shape_prior(
    path: Path, draw: People, rig_sha256: str, config: ShapePriorConfig,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> dict[str, float]:  # fmt: skip
    """Fit the prior on drawn people and write it to ``path``; the text encoder is ``diffusion/`` beside it.

    Args:
        path: of the safetensors file.
        draw: ``(rng, n) -> (attributes of n people, shapes [n, n_shape])``.
        rig_sha256: recorded in the file.
        config: schedule.
        report: called with progress.

    Returns:
        Held-out negative log-likelihood per coefficient, and what one Gaussian for everybody would reach.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    people, shapes = draw(rng, config.people)
    centre, spread = shapes.mean(0), shapes.std(0).clamp(min=1e-6)
    unit = (shapes - centre) / spread
    features = TextFeatures(path.parent / "diffusion")
    writer = CaptionWriter(rng, noise=0.1)
    pooled = torch.stack([_embed(features, writer, people) for _ in range(config.wordings)])
    held_out = max(1, len(people) // 10)
    network = ShapeNetwork(pooled.shape[-1], shapes.shape[1])
    network.start_from(unit[:-held_out])
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.1
    )
    generator, started = torch.Generator().manual_seed(config.seed), time.monotonic()
    for step in range(config.steps):
        rows = torch.randint(len(people) - held_out, (config.batch,), generator=generator)
        wordings = torch.randint(config.wordings, (config.batch,), generator=generator)
        loss = network.negative_log_likelihood(pooled[wordings, rows], unit[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == config.steps - 1:
            report({"step": step, "loss": float(loss.detach()), "seconds": time.monotonic() - started})
    result = _evaluate(network.eval(), pooled[0], unit, held_out)
    _save(path, network, centre, spread, rig_sha256)
    return result


def _embed(features: TextFeatures, writer: CaptionWriter, people: Sequence[PortraitAttributes]) -> Tensor:
    """Pooled captions of all people, mostly without a view as the prior is asked at run time."""
    texts = [writer.write(person).text.removeprefix("front view, ") for person in people]
    return torch.cat([features(texts[i : i + 128]) for i in range(0, len(texts), 128)])


@torch.no_grad()
def _evaluate(network: ShapeNetwork, pooled: Tensor, unit: Tensor, held_out: int) -> dict[str, float]:
    test, rest = unit[-held_out:], unit[:-held_out]
    everybody = torch.distributions.MultivariateNormal(
        rest.mean(0), torch.cov(rest.T) + 1e-4 * torch.eye(rest.shape[1])
    )
    mean, _ = network(pooled[-held_out:])
    return {
        "nll": float(network.negative_log_likelihood(pooled[-held_out:], test)),
        "nll_without_text": float(-everybody.log_prob(test).mean() / unit.shape[1]),
        "explained_variance": float(1 - F.mse_loss(mean, test) / test.var()),
    }


def _save(path: Path, network: ShapeNetwork, centre: Tensor, spread: Tensor, rig_sha256: str) -> None:
    tensors: dict[str, Any] = {**network.state_dict(), "centre": centre, "spread": spread}
    partial = path.with_name(f"{path.name}.partial")
    save_file({k: v.contiguous().half() for k, v in tensors.items()}, partial, {"rig_sha256": rig_sha256})
    partial.replace(path)
