"""Does the drawn face follow the rig? Jaw, lids and mouth corners as the landmark detector sees them move."""

from collections.abc import Sequence

import torch

from ap3d.metrics.protocol import Measured, Summary, Values, mean_figure
from ap3d.metrics.subject import Subject
from ap3d.perception.face_measures import eye_opening, eye_whiteness, mouth_opening, mouth_width
from ap3d.raster.splats import Splats

SIZE = 384
# Head heights in view. The detector's landmarks of a drawn mouth hang on the framing (a chin that leaves the picture as
# the jaw opens misleads it most), so several framings are read, and their mean counts.
SIDES = (1.1, 1.25, 1.4)
ACTIONS = ("neutral", "open", "blink", "smile")
# A face that does not move at all changes by 0; these are a few times the detector's noise between equal views.
LEAST = {"jaw": 0.03, "smile": 0.02, "lids": 0.02, "white": 0.06}


class ArticulationMetric:
    """Changes against the neutral face, means of several framings, over the inter-ocular distance.

    ``jaw`` (opening of the inner lips), ``smile`` (mouth's width), ``lids`` (closing of the lids, both eyes' mean),
    ``white`` (how much eye white goes, as a logarithm), and ``jaw.right``, ``smile.right``, ``blink.right`` (1 or 0).

    Landmarks often miss closed lids of rendered heads, so that either of ``lids`` and ``white`` is enough for a blink.
    A face that is found in no framing moves nothing.
    """

    name, version, needs = "articulation", 2, ("detector",)

    def evaluate(self, subject: Subject) -> Values:
        """See the class."""
        posed = [subject.bundle.pose(subject.acted(name)) for name in ACTIONS]
        seen = [found for side in SIDES if (found := self._changes(subject, posed, side)) is not None]
        if not seen:
            return dict.fromkeys(("jaw.right", "smile.right", "blink.right"), 0.0)
        values = {name: sum(found[name] for found in seen) / len(seen) for name in LEAST}
        moved = {name: values[name] > least for name, least in LEAST.items()}
        values |= {f"{name}.right": float(moved[name]) for name in ("jaw", "smile")}
        return values | {"blink.right": float(moved["lids"] or moved["white"])}

    def _changes(self, subject: Subject, posed: Sequence[Splats], side: float) -> dict[str, float] | None:
        """Changes against the neutral face in one framing; None where a face is not found."""
        camera = subject.face_camera(SIZE, side)
        pictures = torch.cat([subject.pictures(camera, splats) for splats in posed])
        seen = subject.tools.detector.detect(pictures)
        if not bool(torch.isfinite(seen.points).all()):
            return None
        neutral, opened, closed, smiling = range(4)
        mouth, width, eyes = mouth_opening(seen.points), mouth_width(seen.points), eye_opening(seen.points).mean(1)
        white = eye_whiteness(pictures, seen.mesh).mean(1)
        return {
            "jaw": float(mouth[opened] - mouth[neutral]),
            "smile": float(width[smiling] - width[neutral]),
            "lids": float(eyes[neutral] - eyes[closed]),
            "white": float(white[neutral] - white[closed]),
        }

    def summarise(self, measured: Sequence[Measured]) -> Summary:
        """Shares of avatars that move the right way, and by how much on average."""
        figures = [
            f for n in ("jaw", "blink", "smile") for f in mean_figure(f"{n} moves", measured, f"{n}.right", 0.95)
        ]
        for name, key in (("jaw opens by", "jaw"), ("lids close by", "lids"), ("eye white goes by", "white")):
            figures += mean_figure(name, measured, key)
        return Summary(figures + mean_figure("mouth widens by", measured, "smile"))
