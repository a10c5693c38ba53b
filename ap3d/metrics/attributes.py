"""Attributes by the measuring probe, on the front view and from 30 degrees on both sides."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ap3d.metrics.attribute_probe import READ, SIZE
from ap3d.metrics.protocol import Measured, Summary, Values, confusion, mean_figure
from ap3d.metrics.subject import Subject
from ap3d.training.attributes import BACKGROUND_COLOUR

AZIMUTHS = (0.0, -30.0, 30.0)
TARGETS = {
    "shirt": 0.95, "hair_colour": 0.9, "skin": 0.9, "hair_style": 0.8, "beard": 0.9, "age": 0.8, "gender": 0.8,
}  # fmt: skip


class AttributeMetric:
    """Share of the three views in which the probe reads what the prompt asked for.

    Values by attribute: ``.asked`` and ``.front`` (positions in ``READ``), ``.right`` (share of the views).
    """

    name, version, needs = "attributes", 1, ("probe",)

    def evaluate(self, subject: Subject) -> Values:
        """See the class."""
        cameras = subject.cameras(AZIMUTHS, 2 * SIZE)
        pictures = subject.pictures(cameras, background=torch.tensor(BACKGROUND_COLOUR))
        with torch.no_grad():
            logits = subject.tools.probe(F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True))
        values: dict[str, float] = {}
        for name, labels in READ.items():
            asked = asked_value(subject, name)
            if asked not in labels:
                continue
            found = logits[name].argmax(1)
            values[f"{name}.asked"] = float(labels.index(asked))
            values[f"{name}.front"] = float(found[0])
            values[f"{name}.right"] = float((found == labels.index(asked)).float().mean())
        return values

    def summarise(self, measured: Sequence[Measured]) -> Summary:
        """Accuracy and confusion (front view) of every attribute."""
        summary = Summary()
        for name, labels in READ.items():
            figure = mean_figure(name, measured, f"{name}.right", TARGETS.get(name), chance=1 / len(labels))
            summary.figures.extend(figure)
            if figure:
                summary.confusions.append(confusion(name, labels, measured, f"{name}.asked", f"{name}.front"))
        return summary


def asked_value(subject: Subject, name: str) -> object | None:
    """What was asked for, None where nothing can be seen of it: no hair colour on a bald head without a beard.

    A man who was asked for without a word on his beard may have one or not; of all others no beard is expected.
    """
    asked = subject.asked
    if name == "hair_colour" and asked.get("hair_style") == "bald":
        return None
    if name == "beard" and "beard" not in asked and (asked.get("gender") == "woman" or asked.get("age") == "child"):
        return False
    return asked.get(name)
