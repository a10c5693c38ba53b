"""Pictures as file contents."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_uint8(image: Tensor) -> np.ndarray:
    """``[3, H, W]`` in 0 to 1 as ``[H, W, 3]`` bytes."""
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def png_bytes(image: Tensor) -> bytes:
    """``[3, H, W]`` in 0 to 1 as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def contact_sheet(images: Tensor, columns: int = 6) -> Tensor:
    """Pictures ``[B, 3, H, W]`` side by side in rows, the last row filled up with white."""
    count = len(images)
    columns = min(columns, count)
    missing = -count % columns
    padded = torch.cat([images, images.new_ones(missing, *images.shape[1:])])
    rows = [torch.cat(list(padded[i : i + columns]), 2) for i in range(0, len(padded), columns)]
    return torch.cat(rows, 1)
