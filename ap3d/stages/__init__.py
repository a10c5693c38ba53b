"""The stages of one portrait, in order. A new stage is a file and a line here."""

from ap3d.stages.assets import AssetsStage
from ap3d.stages.base import Stage
from ap3d.stages.fit import FitStage
from ap3d.stages.guided import GUIDED_STAGES
from ap3d.stages.initialise import InitialiseStage
from ap3d.stages.mesh import MeshStage
from ap3d.stages.portrait import PortraitStage
from ap3d.stages.publish import PublishStage

__all__ = ["STAGES", "Stage"]

STAGES: tuple[Stage, ...] = (
    PortraitStage(),
    MeshStage(),
    AssetsStage(),
    FitStage(),
    InitialiseStage(),
    *GUIDED_STAGES,
    PublishStage(),
)
