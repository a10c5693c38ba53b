"""Teach a frozen text encoder words that joined the vocabulary after its training.

Each new word is one added token whose embedding alone is trained: a caption with the word must be encoded as the same
caption with the first wording of what it means (textual inversion, arXiv 2208.01618, towards a known encoding instead
of pictures). The denoiser and the shape prior, which learned from the old encoding, need no training.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.training.captions import CaptionWriter, caption_words, random_caption
from ap3d.training.checkpoints import export_folder
from ap3d.training.text_pretraining import token_ids

_TWIN = re.compile(r"\{([^|{}]*)\|([^|{}]*)\}")


class TwinWriter(CaptionWriter):
    """Writes pairs of captions that differ in new words alone.

    Args:
        rng: the only source of randomness.
        new: words that the encoder does not know.
        share: how often a value with a new wording is said by one.
    """

    def __init__(self, rng: np.random.Generator, new: frozenset[str], share: float = 0.6) -> None:
        super().__init__(rng)
        self.new, self.share = new, share

    def pair(self) -> tuple[str, str] | None:
        """A caption with new words and the same one with known words; None where no new word was drawn."""
        text = random_caption(self).text
        if not _TWIN.search(text):
            return None
        return _TWIN.sub(r"\1", text), _TWIN.sub(r"\2", text)

    def _pick(self, options: tuple[str, ...]) -> str:
        fresh = [o for o in options if o in self.new]
        if not fresh:
            return super()._pick(options)
        known = tuple(o for o in options if o not in self.new)
        if not self._chance(self.share):
            return super()._pick(known)
        return f"{{{super()._pick(tuple(fresh))}|{known[0]}}}"


def teach_new_words(
    folder: Path, *, steps: int = 600, batch: int = 64, seed: int = 0, report: Callable[[dict[str, Any]], None] = print
) -> dict[str, float]:
    """Add every caption word that the tokenizer in ``folder`` splits, and train its embedding.

    Args:
        folder: of ``tokenizer/`` and ``text_encoder/``; both are rewritten.
        steps: batches of ``batch`` pairs of captions.
        batch: pairs.
        seed: of captions and starting values.
        report: called with rows of progress.

    Returns:
        ``words`` added, and ``error`` on pairs that were not trained on: mean squared difference of the encodings
        over that of unrelated captions (0: the same, 1: as far apart as any two).
    """
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    model = CLIPTextModel.from_pretrained(str(folder / "text_encoder"), local_files_only=True).float().eval()
    new = unknown_to(tokenizer)
    if not new:
        return {"words": 0, "error": 0.0}
    first = _add_tokens(tokenizer, model, new)
    table = model.get_input_embeddings().weight
    model.requires_grad_(False)
    rows = table[first:].clone().requires_grad_(True)
    writer = TwinWriter(np.random.default_rng(seed), frozenset(new))
    optimizer = torch.optim.Adam([rows], 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        ids, known = _batch(writer, tokenizer, batch)
        loss = F.mse_loss(_encode(model, rows, first, ids), _encode(model, rows, first, known).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            report({"step": step, "loss": float(loss.detach())})
    with torch.no_grad():
        table[first:] = rows
        ids, known = _batch(TwinWriter(np.random.default_rng(seed + 1), frozenset(new)), tokenizer, 256)
        a, b = (_encode(model, rows, first, i) for i in (ids, known))
        error = float((a - b).square().mean() / (b - b.roll(1, 0)).square().mean())
    _save(model, tokenizer, folder)
    return {"words": len(new), "error": error}


def unknown_to(tokenizer: Any) -> list[str]:
    """Caption words that a tokenizer splits into several tokens, sorted."""
    count = lambda word: len(tokenizer(word, add_special_tokens=False).input_ids)  # noqa: E731
    return [word for word in caption_words() if count(word) > 1]


def _add_tokens(tokenizer: Any, model: Any, words: list[str]) -> int:
    """Grow tokenizer and embedding by whole words; returns the first new id."""
    from tokenizers import AddedToken

    first = len(tokenizer)
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in words])
    table = model.get_input_embeddings().weight
    mean, spread = table.mean(0), table.std(0)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        fresh = torch.randn(len(words), len(mean), generator=torch.Generator().manual_seed(0))
        model.get_input_embeddings().weight[first:] = mean + 0.1 * spread * fresh
    return first


def _batch(writer: TwinWriter, tokenizer: Any, count: int) -> tuple[Tensor, Tensor]:
    """Token ids ``[count, L]`` of captions with new words, and of their twins; both of equal lengths."""
    pairs: list[tuple[Tensor, Tensor]] = []
    while len(pairs) < count:
        drawn = [p for p in (writer.pair() for _ in range(4 * count)) if p is not None]
        if not drawn:
            continue
        ids, known = (token_ids(tokenizer, [pair[k] for pair in drawn]) for k in (0, 1))
        end = tokenizer.eos_token_id
        aligned = (ids == end).sum(1) == (known == end).sum(1)
        pairs += zip(ids[aligned], known[aligned], strict=True)
    return torch.stack([p[0] for p in pairs[:count]]), torch.stack([p[1] for p in pairs[:count]])


def _encode(model: Any, rows: Tensor, first: int, ids: Tensor) -> Tensor:
    """Encodings ``[B, L, D]`` with ``rows`` in place of the table's rows from ``first`` on."""
    embedding = model.get_input_embeddings()
    table = torch.cat([embedding.weight[:first].detach(), rows])
    hook = embedding.register_forward_hook(lambda module, args, output: F.embedding(args[0], table))
    try:
        encoded: Tensor = model(ids).last_hidden_state
    finally:
        hook.remove()
    return encoded


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    export_folder(folder / "tokenizer", tokenizer.save_pretrained)
    export_folder(folder / "text_encoder", lambda path: model.half().save_pretrained(path, safe_serialization=True))
