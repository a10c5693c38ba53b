"""Contact sheets of training pictures."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def save_sheet(path: Path, rows: Sequence[Tensor], *, enlarge: int = 1) -> None:
    """Write rows of pictures ``[N, 3, H, W]`` in 0..1, one above the other, as a PNG."""
    lines = [torch.cat(list(row), 2) for row in rows]
    width = max(line.shape[2] for line in lines)
    padded = [torch.nn.functional.pad(line, (0, width - line.shape[2])) for line in lines]
    array = (torch.cat(padded, 1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    if enlarge > 1:
        image = image.resize((image.width * enlarge, image.height * enlarge), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
