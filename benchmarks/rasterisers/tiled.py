"""The torch reference, a tile at a time, so that whole pictures fit: a candidate in float32, the truth in float64."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.raster import reference
from ap3d.raster.reference import TILE
from ap3d.raster.splats import GSPLAT, INRIA, SplatRule, Splats
from benchmarks.rasterisers.measure import gradients, leaves
from benchmarks.rasterisers.places import CACHE
from benchmarks.rasterisers.scenes import Scene


def project(splats: Splats, cameras: Cameras, rule: SplatRule) -> tuple[Tensor, ...]:
    """One camera: centres, covariances, colours, depths, and tile boxes, as the reference computes them."""
    dtype = splats.means.dtype
    view, intrinsics = cameras.world2cam.to(dtype), cameras.intrinsics.to(dtype)
    camera = splats.means @ view[:, :3, :3].transpose(1, 2) + view[:, None, :3, 3]
    means2d = camera[..., :2] / camera[..., 2:] * intrinsics[:, None, :2] + intrinsics[:, None, 2:]
    covariances = reference.project_covariances(splats, camera, view, intrinsics, cameras, rule)
    ahead = camera[..., 2] >= rule.near
    boxes, _ = reference.tile_boxes(means2d, covariances, splats.opacities, ahead, cameras, rule)
    colors = reference.sh_colors(splats, cameras.positions.to(dtype), splats.sh_degree)
    return means2d[0], covariances[0], colors[0], camera[0, :, 2], boxes[0]


def render(splats: Splats, cameras: Cameras, rule: SplatRule) -> Tensor:
    """Colour ``[3, H, W]``."""
    means2d, covariances, colors, depths, boxes = project(splats, cameras, rule)
    lists = tile_lists(boxes, -(-cameras.width // TILE), -(-cameras.height // TILE))
    items = torch.cat(lists)
    lengths = [len(part) for part in lists]
    parts = zip(
        *(t[items].split(lengths) for t in (means2d, covariances, colors, depths, splats.opacities)), strict=True
    )
    columns = -(-cameras.width // TILE)
    tiles = [_tile(part, TILE * (i % columns), TILE * (i // columns), rule) for i, part in enumerate(parts)]
    rows = [torch.cat(tiles[i : i + columns], 2) for i in range(0, len(tiles), columns)]
    return torch.cat(rows, 1)[:, : cameras.height, : cameras.width]


def _tile(part: tuple[Tensor, ...], left: int, top: int, rule: SplatRule) -> Tensor:
    means2d, covariances, colors, depths, opacities = part
    if not len(means2d):
        return means2d.new_zeros(3, TILE, TILE)
    boxes = means2d.new_tensor([[0.0, 0.0], [1.0, 1.0]]).expand(len(means2d), 2, 2)
    shifted = means2d - means2d.new_tensor([left, top])
    return reference.composite(shifted, covariances, colors, depths, boxes, opacities, TILE, TILE, rule)[0]


def tile_lists(boxes: Tensor, columns: int, rows: int) -> list[Tensor]:
    """Indices of the Gaussians in each tile, row after row."""
    lists = []
    first, end = boxes[:, 0].long(), boxes[:, 1].long()
    for row in range(rows):
        in_row = ((first[:, 1] <= row) & (row < end[:, 1])).nonzero()[:, 0]
        x0, x1 = first[in_row, 0], end[in_row, 0]
        lists += [in_row[(x0 <= column) & (column < x1)] for column in range(columns)]
    return lists


def truth(scene: Scene, rule: SplatRule) -> tuple[Tensor, dict[str, Tensor]]:
    """Picture and gradients in float64; kept on disk, since they take longer than everything that is measured."""
    assert rule in (GSPLAT, INRIA)
    files = (Path(reference.__file__), Path(__file__), Path(__file__).with_name("scenes.py"))
    sources = b"".join(file.read_bytes() for file in files)
    key = hashlib.sha256(sources + repr((scene.name, rule)).encode()).hexdigest()[:16]
    path = CACHE / f"{key}.pt"
    if path.exists():
        kept = torch.load(path, weights_only=True)
        return kept["picture"], kept["gradients"]
    picture, found = differentiate(scene, rule)
    CACHE.mkdir(parents=True, exist_ok=True)
    torch.save({"picture": picture, "gradients": found}, path)
    return picture, found


def differentiate(scene: Scene, rule: SplatRule) -> tuple[Tensor, dict[str, Tensor]]:
    """The same in as little memory as one tile takes: each is drawn and differentiated before the next."""
    splats, tiles = leaves(scene.splats, torch.float64), scene.size // TILE
    *tensors, boxes = project(splats, scene.camera, rule)
    tensors.append(splats.opacities)
    lists, weights = tile_lists(boxes, tiles, tiles), scene.weights.double()
    picture, sums = torch.zeros_like(weights), [torch.zeros_like(t) for t in tensors]
    for i, items in enumerate(lists):
        left, top = TILE * (i % tiles), TILE * (i // tiles)
        window = (slice(None), slice(top, top + TILE), slice(left, left + TILE))
        parts = tuple(t.detach()[items].requires_grad_() for t in tensors)
        drawn = _tile(parts, left, top, rule)
        picture[window] = drawn.detach()
        if len(items):
            incoming = torch.autograd.grad((drawn * weights[window]).sum(), parts, allow_unused=True)
            for total, gradient in zip(sums, incoming, strict=True):
                if gradient is not None:
                    total.index_add_(0, items, gradient)
    torch.autograd.backward(tensors, sums)
    return picture, gradients(splats)
