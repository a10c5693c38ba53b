"""Tokenizer and text encoder of the built-in model: CLIP architecture, pretrained to read attributes out of captions.

Without this the denoiser's text stays at chance for hours (reference/builtin-diffusion.md, part 2); with it colours
follow the text after minutes. The encoder is frozen afterwards: the denoiser and the shape prior share it.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ap3d.training.captions import LABELS, Caption, CaptionWriter, caption_words, random_caption

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class TextConfig:
    """Size and schedule of the text encoder."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    feedforward: int = 384
    max_length: int = 56
    steps: int = 1200
    batch: int = 64
    learning_rate: float = 3e-3
    noise: float = 0.15  # share of captions with a made-up word
    seed: int = 0


def build_tokenizer(folder: Path, max_length: int) -> Any:
    """A CLIP tokenizer in which every caption word is one token; files in CLIP's own order and format.

    Words that it does not know fall apart into letters, as in any byte-pair encoding.
    """
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = _byte_letters()
    merges = _merges(caption_words())
    vocabulary = [*letters, *(f"{c}</w>" for c in letters), *("".join(m) for m in merges), START, END]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": max_length, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder)
    return tokenizer


def _byte_letters() -> list[str]:
    """The printable stand-ins of the 256 bytes, as in GPT-2 and CLIP."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def _merges(vocabulary: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make every word of ``vocabulary`` one token: the most frequent pair first."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in vocabulary]
    merges: list[tuple[str, str]] = []
    while True:
        counts: dict[tuple[str, str], int] = {}
        for piece in pieces:
            for pair in zip(piece, piece[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            return merges
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        pieces = [_merge(piece, best) for piece in pieces]


def _merge(piece: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in piece:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


class AttributeHeads(nn.Module):
    """Linear readers of every attribute from the token mean and from the last token ``[B, L, D]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mean = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in LABELS.items()})
        self.last = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in LABELS.items()})

    def forward(self, tokens: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        normed = self.norm(tokens)
        mean, last = normed.mean(1), normed[:, -1]
        return {n: h(mean) for n, h in self.mean.items()}, {n: h(last) for n, h in self.last.items()}


def pretrain_text_encoder(
    folder: Path, config: TextConfig, report: Callable[[dict[str, float]], None] = lambda row: None
) -> dict[str, float]:
    """Train tokenizer and encoder into ``folder/tokenizer`` and ``folder/text_encoder``.

    Returns:
        Held-out accuracy of every attribute, read from the token mean.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer(folder / "tokenizer", config.max_length)
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=config.width, intermediate_size=config.feedforward,
            num_hidden_layers=config.layers, num_attention_heads=config.heads, projection_dim=config.width,
            max_position_embeddings=config.max_length, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    heads = AttributeHeads(config.width)
    writer = CaptionWriter(np.random.default_rng(config.seed), config.noise)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.1
    )
    started = time.monotonic()
    for step in range(config.steps):
        captions = [random_caption(writer) for _ in range(config.batch)]
        predictions = heads(encoder(token_ids(tokenizer, [c.text for c in captions])).last_hidden_state)
        loss = sum(_loss(p, _targets(captions)) for p in predictions) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == config.steps - 1:
            report({"step": step, "loss": float(loss.detach()), "seconds": time.monotonic() - started})
    accuracy = _accuracy(encoder, heads, tokenizer, CaptionWriter(np.random.default_rng(config.seed + 1)))
    encoder.eval().half().save_pretrained(folder / "text_encoder", safe_serialization=True)
    return accuracy


def token_ids(tokenizer: Any, texts: list[str]) -> Tensor:
    """Padded, truncated ids ``[B, L]`` with L the tokenizer's own maximum."""
    length = tokenizer.model_max_length
    return tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


def _targets(captions: list[Caption]) -> dict[str, Tensor]:
    return {name: torch.tensor([c.labels[name] for c in captions]) for name in LABELS}


def _loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    stated = {name: target for name, target in targets.items() if bool((target >= 0).any())}
    return torch.stack([F.cross_entropy(logits[name], target) for name, target in stated.items()]).mean()


@torch.no_grad()
def _accuracy(encoder: Any, heads: AttributeHeads, tokenizer: Any, writer: CaptionWriter) -> dict[str, float]:
    captions = [random_caption(writer) for _ in range(512)]
    logits, _ = heads(encoder(token_ids(tokenizer, [c.text for c in captions])).last_hidden_state)
    targets = _targets(captions)
    return {
        name: float((logits[name].argmax(1) == target)[target >= 0].float().mean()) for name, target in targets.items()
    }
