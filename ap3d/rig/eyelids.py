"""Our own eyelids for models without blinking: lids turn about the eyeball's horizontal axis until their edges meet.

The edges are found where planes of constant x cut the skin in front of the eyeball: the largest gap in elevation is
the opening. Their elevations are taken anew for every shape and expression, so that closed lids always meet, and a lid
vertex is kept outside the eyeball on its way. A parameter of 1 closes, negative ones open wider.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ap3d.errors import InputError

COLUMNS = 25
REACH = 46.0  # degrees over the edge until the skin rests: about the brow
LOWER_SHARE = 0.12  # of the opening that the lower lid closes
SIDE_REACH = 0.8  # of the eyeball's radius beyond the corners until the skin rests
SMALLEST_GAP = math.radians(1.0)
OVERLAP = 0.06  # of the opening
CLEARANCE = 1.05  # distance of a closed lid from the eyeball's centre over the eyeball's largest radius


@dataclass(frozen=True)
class _Lids:
    """One eye: edge points as vertex pairs with a blend, and how lid vertices follow them."""

    eye: Tensor  # [E] vertices of the eyeball
    upper: tuple[Tensor, Tensor]  # vertex pairs [K, 2], blends [K, 2]
    lower: tuple[Tensor, Tensor]
    vertices: Tensor  # [N]
    follow_upper: Tensor  # [N, K]
    follow_lower: Tensor  # [N, K]
    weight: Tensor  # [N]
    guard: float  # metres


class Eyelids:
    """Both lids of a template.

    Args:
        template: ``[V, 3]`` metres, face to +z.
        faces: ``[F, 3]`` of the skin.
        eyes: vertex ids of the left and the right eyeball.

    Raises:
        InputError: no opening was found.
    """

    def __init__(self, template: np.ndarray, faces: np.ndarray, eyes: tuple[np.ndarray, np.ndarray]) -> None:
        self._lids = [_find(template, faces, eye) for eye in eyes]

    def close(self, rest: Tensor, amounts: Tensor) -> Tensor:
        """Unposed vertices ``[B, V, 3]`` with the lids (left, right) closed by ``amounts [B, 2]``."""
        if not amounts.requires_grad and not amounts.any():
            return rest
        changed = [self._turned(rest, lid, amounts[:, i : i + 1]) for i, lid in enumerate(self._lids)]
        ids = torch.cat([lid.vertices for lid in self._lids])
        return rest.index_copy(1, ids, torch.cat(changed, 1))

    def _turned(self, rest: Tensor, lid: _Lids, amount: Tensor) -> Tensor:
        centre = rest[:, lid.eye].mean(1, keepdim=True)
        upper, lower = (_elevation(_points(rest, edge) - centre) for edge in (lid.upper, lid.lower))
        opening = (upper - lower).clamp_min(0)
        down = opening * (1 - LOWER_SHARE + OVERLAP)
        up = opening * (LOWER_SHARE + OVERLAP)
        angle = amount * (up @ lid.follow_lower.T - down @ lid.follow_upper.T)
        offset = rest[:, lid.vertices] - centre
        x, y, z = offset.unbind(2)
        sine, cosine = angle.sin(), angle.cos()
        turned = torch.stack([x, y * cosine + z * sine, z * cosine - y * sine], 2)
        radius = offset.square().sum(2).clamp_min(1e-12).sqrt()
        missing = (lid.guard / radius - 1).clamp_min(0) * lid.weight * amount.clamp(0, 1)
        return centre + turned * (1 + missing)[..., None]


def _points(rest: Tensor, edge: tuple[Tensor, Tensor]) -> Tensor:
    pairs, blend = edge
    return (rest[:, pairs] * blend[..., None]).sum(2)


def _elevation(offset: Tensor) -> Tensor:
    return torch.atan2(offset[..., 1], offset[..., 2])


def _find(template: np.ndarray, faces: np.ndarray, eye: np.ndarray) -> _Lids:
    centre = (template[eye].max(0) + template[eye].min(0)) / 2
    offset = template - centre
    radius = float(np.linalg.norm(offset[eye], axis=1).max())
    places, upper, lower = _openings(offset, faces, radius)
    at = lambda part: (offset[part[0]] * part[1][..., None]).sum(1)  # noqa: E731
    top, bottom = (np.arctan2(p[:, 1], p[:, 2]) for p in (at(upper), at(lower)))
    skin = np.unique(faces)
    ids = skin[(np.linalg.norm(offset[skin], axis=1) < 2.6 * radius) & (offset[skin, 2] > 0)]
    hats = _hats(offset[ids, 0], places)
    rise = np.arctan2(offset[ids, 1], offset[ids, 2])
    above = rise > hats @ (top + bottom) / 2
    beyond = np.where(above, rise - hats @ top, hats @ bottom - rise)
    aside = np.maximum(np.abs(offset[ids, 0] - places.mean()) - np.ptp(places) / 2, 0) / (SIDE_REACH * radius)
    weight = _eased(beyond / math.radians(REACH)) * _eased(aside)
    used = weight > 0
    single = lambda a: torch.from_numpy(np.ascontiguousarray(a)).float()  # noqa: E731
    pairs = lambda part: (torch.from_numpy(part[0]), single(part[1]))  # noqa: E731
    follow = lambda chosen: single((hats * (weight * chosen)[:, None])[used])  # noqa: E731
    return _Lids(
        torch.from_numpy(eye), pairs(upper), pairs(lower), torch.from_numpy(ids[used]), follow(above), follow(~above),
        single(weight[used]), CLEARANCE * radius,
    )  # fmt: skip


def _eased(distance: np.ndarray) -> np.ndarray:
    """1 at and below 0, 0 from 1 on, between them nowhere steeper than 1.25: steeper skin would fold over."""
    t = np.clip(1 - distance, 0, 1)
    return (t + t * t * (3 - 2 * t)) / 2


def _hats(x: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Linear interpolation ``[N, K]`` between the columns; beyond the outermost their values hold."""
    clamped = np.clip(x, places[0], places[-1])
    return np.clip(1 - np.abs(clamped[:, None] - places) / (places[1] - places[0]), 0, 1)


_Edge = tuple[np.ndarray, np.ndarray]


def _openings(offset: np.ndarray, faces: np.ndarray, radius: float) -> tuple[np.ndarray, _Edge, _Edge]:
    """Where the skin in front of the eyeball is open: x of the columns ``[K]``, upper and lower edges.

    An edge point is a pair of vertices ``[K, 2]`` and their blend ``[K, 2]``.
    """
    near = (np.linalg.norm(offset, axis=1) < 1.8 * radius) & (offset[:, 2] > 0.05 * radius)
    faces = faces[near[faces].all(1)]
    coarse = np.linspace(-1.25, 1.25, 51) * radius
    sizes = np.array([gap[2] if (gap := _gap(offset, faces, x)) is not None else 0.0 for x in coarse])
    open_at, first = sizes > SMALLEST_GAP, int(sizes[13:38].argmax()) + 13
    last = first
    if not open_at[first]:
        raise InputError("this model's eyes are closed: no opening lies in front of an eyeball")
    while first > 0 and open_at[first - 1]:
        first -= 1
    while last < 50 and open_at[last + 1]:
        last += 1
    places = np.linspace(coarse[first], coarse[last], COLUMNS)
    gaps = [_gap(offset, faces, x) for x in places]
    found = [g for g in gaps if g is not None]
    if len(found) < COLUMNS:
        raise InputError("this model's eyelids cannot be found: the opening in front of an eyeball has no clear edge")
    stacked = lambda edges: (np.stack([e[0] for e in edges]), np.stack([e[1] for e in edges]))  # noqa: E731
    return places, stacked([g[0] for g in found]), stacked([g[1] for g in found])


def _gap(offset: np.ndarray, faces: np.ndarray, x: float) -> tuple[_Edge, _Edge, float] | None:
    """The widest elevation in front of the eye that no face covers in a plane: its upper end, lower end, radians."""
    side = offset[faces, 0] - x
    cut = faces[(side.min(1) < 0) & (side.max(1) > 0)]
    edges = cut[:, [[0, 1], [1, 2], [2, 0]]]  # [N, 3, 2]
    a, b = offset[edges[..., 0], 0] - x, offset[edges[..., 1], 0] - x
    share = b / np.where(a == b, 1, b - a)
    blend = np.stack([share, 1 - share], -1)
    points = (offset[edges] * blend[..., None]).sum(2)
    rise = np.where(a * b <= 0, np.arctan2(points[..., 1], points[..., 2]), np.nan)
    low, high = np.nanargmin(rise, 1), np.nanargmax(rise, 1)
    rows = np.arange(len(cut))
    order = np.argsort(rise[rows, low])
    reach, best, ends = -np.inf, 0.0, None
    holder = -1
    for row in order:
        begin, end = rise[row, low[row]], rise[row, high[row]]
        if holder >= 0 and begin - reach > best and abs(begin + reach) / 2 < 0.8:
            best, ends = float(begin - reach), (row, holder)
        if end > reach:
            reach, holder = end, row
    if ends is None:
        return None
    top, bottom = ends
    upper = edges[top, low[top]], blend[top, low[top]]
    lower = edges[bottom, high[bottom]], blend[bottom, high[bottom]]
    return upper, lower, best
