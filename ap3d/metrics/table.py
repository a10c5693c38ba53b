"""The metrics by name."""

from collections.abc import Mapping
from typing import Final

from ap3d.metrics.articulation import ArticulationMetric
from ap3d.metrics.attributes import AttributeMetric
from ap3d.metrics.colours import ColourMetric
from ap3d.metrics.geometry import GeometryMetric
from ap3d.metrics.identity import IdentityMetric
from ap3d.metrics.integrity import IntegrityMetric
from ap3d.metrics.landmarks import LandmarkMetric
from ap3d.metrics.protocol import Metric

METRICS: Final[Mapping[str, Metric]] = {
    metric.name: metric
    for metric in (
        AttributeMetric(), ColourMetric(), GeometryMetric(), LandmarkMetric(), ArticulationMetric(), IdentityMetric(),
        IntegrityMetric(),
    )
}  # fmt: skip
