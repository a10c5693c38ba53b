"""Is the avatar whole? Finite numbers, a body without holes, nothing afloat, lids that cover the eyes."""

from collections.abc import Sequence

import torch
from scipy import ndimage
from torch import Tensor

from ap3d.metrics.protocol import Measured, Summary, Values, mean_figure
from ap3d.metrics.subject import Subject
from ap3d.splats.avatar import Group
from ap3d.splats.floaters import MINIMUM_OPACITY, attached_mask

SIZE = 192
AZIMUTHS = (0.0, 90.0, 180.0, 270.0)
_SOLID = 0.5  # alpha below which the background shows through
_RIM = 3  # pixels of the outline that may be soft
_HEAD = ("scalp", "face", "ears", "neck", "lips")


class IntegrityMetric:
    """``finite`` (share of Gaussians), ``gaussians``, ``faint`` (share that is too transparent to be seen),
    ``holes`` (share of the head's pixels, without a rim, that let the background through), ``afloat`` (share of
    Gaussians away from the body), ``lids`` (share of the open eyes' pixels that closed lids cover)."""

    name, version, needs = "integrity", 1, ()

    def evaluate(self, subject: Subject) -> Values:
        """See the class; with values that are not finite nothing else can be measured."""
        avatar = subject.bundle.avatar
        finite = torch.stack([p.reshape(len(avatar), -1).isfinite().all(1) for p in avatar.parameters().values()])
        values = {"gaussians": float(len(avatar)), "finite": float(finite.all(0).float().mean())}
        if values["finite"] < 1:
            return values
        attached = attached_mask(avatar, subject.bundle.neutral)
        values["faint"] = float((avatar.opacity.sigmoid() < MINIMUM_OPACITY).float().mean())
        return values | {
            "holes": hole_share(subject),
            "afloat": float((~attached).float().mean()),
            "lids": lid_cover(subject),
        }

    def summarise(self, measured: Sequence[Measured]) -> Summary:
        """Means over all avatars."""
        return Summary(
            mean_figure("Gaussians finite", measured, "finite", 1.0)
            + mean_figure("holes", measured, "holes", 0.005, at_least=False)
            + mean_figure("afloat", measured, "afloat", 0.01, at_least=False)
            + mean_figure("faint", measured, "faint")
            + mean_figure("closed lids cover", measured, "lids", 0.9)
            + mean_figure("number of Gaussians", measured, "gaussians")
        )


def hole_share(subject: Subject) -> float:
    """Share of the head's pixels with alpha below one half, from four sides."""
    cameras = subject.cameras(AZIMUTHS, SIZE)
    faces, _ = subject.surface(cameras)
    _, alpha = subject.shares((), cameras)
    inside = torch.stack([_without_rim(view >= 0) for view in faces]) & subject.region(faces, _HEAD)
    return float((alpha[:, 0] < _SOLID)[inside].float().mean())


def lid_cover(subject: Subject) -> float:
    """One minus the eyes' part of the pixels where the rig's open eyes show, after the lids have closed."""
    camera = subject.face_camera(SIZE)
    faces, _ = subject.surface(camera)
    closed = subject.bundle.pose(subject.acted("blink"))
    share, _ = subject.shares((Group.EYES,), camera, closed)
    return 1 - float(share[:, 0][subject.region(faces, ("eyes",))].mean())


def _without_rim(mask: Tensor) -> Tensor:
    return torch.from_numpy(ndimage.binary_erosion(mask.numpy(), iterations=_RIM))
