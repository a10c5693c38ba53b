"""Pictures and videos as file contents."""

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path

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


def mp4_bytes(frames: Iterable[Tensor], fps: int) -> bytes:
    """Pictures ``[3, H, W]`` of even size as an H.264 file that browsers play while it loads."""
    import imageio.v2 as imageio

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        writer = imageio.get_writer(
            path, fps=fps, codec="libx264", quality=7, macro_block_size=2,
            ffmpeg_log_level="error", output_params=["-movflags", "+faststart", "-threads", "1"],
        )  # fmt: skip
        with writer:
            for frame in frames:
                writer.append_data(to_uint8(frame))
        return path.read_bytes()
