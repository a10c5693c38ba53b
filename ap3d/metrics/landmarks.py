"""Does the detector see a face in the front view, and where the rig has it?"""

import math
from collections.abc import Sequence

import torch

from ap3d.metrics.protocol import Measured, Summary, Values, mean_figure
from ap3d.metrics.subject import Subject

SIZE = 512
LEAST_SCORE = 0.5
INNER = slice(17, 70)  # without the face's outline, which is the detector's idea of a visible border


class LandmarkMetric:
    """``found`` (1 or 0), ``score``, and mean distances to the rig's landmarks as fractions of the picture's side:
    ``distance`` of all 70, ``distance.inner`` without the outline of the face."""

    name, version, needs = "landmarks", 1, ("detector",)

    def evaluate(self, subject: Subject) -> Values:
        """See the class."""
        camera = subject.cameras([0.0], SIZE)
        seen = subject.tools.detector.detect(subject.pictures(camera))
        score = float(seen.score[0])
        if score < LEAST_SCORE or not bool(torch.isfinite(seen.points[0]).all()):
            return {"found": 0.0, "score": 0.0 if math.isnan(score) else score}
        wanted, _ = camera.project(subject.bundle.rig.landmarks(subject.bundle.params)[0])
        distance = (seen.points[0] - wanted[0]).norm(dim=1) / SIZE
        mean, inner = float(distance.mean()), float(distance[INNER].mean())
        return {"found": 1.0, "score": score, "distance": mean, "distance.inner": inner}

    def summarise(self, measured: Sequence[Measured]) -> Summary:
        """Share of faces found, and the mean distance where one was."""
        return Summary(
            mean_figure("face found", measured, "found", 0.95)
            + mean_figure("distance of landmarks", measured, "distance", 0.03, at_least=False)
            + mean_figure("distance without the outline", measured, "distance.inner")
        )
