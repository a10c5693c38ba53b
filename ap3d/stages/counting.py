"""How many evaluations of UNet and ControlNet an avatar of a configuration takes, without running any.

Cameras that see only some of a phase's crops are drawn as the phase draws them, so such counts are of one seed.
"""

from collections.abc import Sequence

import torch

from ap3d.config import Config
from ap3d.diffusion.cost import Cost
from ap3d.diffusion.ism import inversion_timesteps
from ap3d.diffusion.vocabulary import VIEWS
from ap3d.guidance_config import EditConfig, MatchConfig
from ap3d.stages.editing import COARSE, dealt_crops
from ap3d.stages.guided import GUIDED_STAGES, phase_config
from ap3d.stages.matching import crop_names, ism_settings, timestep
from ap3d.stages.regions import Crop, draw_crops


def counted_evaluations(config: Config, controlnets: int = 1, seed: int = 0) -> dict[str, Cost]:
    """Evaluations by stage of an avatar that starts from text.

    Args:
        config: resolved configuration.
        controlnets: how many there are.
        seed: of the cameras.
    """
    views, generator = config.views, torch.Generator().manual_seed(seed)
    pictures = len(views.full_azimuths) + len(views.face_azimuths)
    sampled = pictures * views.steps * _branches(views.guidance_scale)
    out = {"portrait": Cost(sampled, sampled * controlnets)}
    for stage in GUIDED_STAGES:
        total = Cost()
        for name in stage.phases:
            phase = phase_config(config, name)
            if isinstance(phase, MatchConfig):
                total += _matching(config, phase, controlnets, generator)
            elif isinstance(phase, EditConfig):
                total += _editing(config, phase, controlnets, generator)
        out[stage.name] = total
    return out


def _matching(config: Config, phase: MatchConfig, controlnets: int, generator: torch.Generator) -> Cost:
    against = len(VIEWS) if phase.perpendicular else 0
    total = Cost()
    for iteration in range(phase.iterations):
        evaluations = _branches(phase.guidance_scale, against)
        if phase.objective == "ism":
            evaluations += len(inversion_timesteps(timestep(phase, iteration), iteration, ism_settings(phase)))
        for _ in range(phase.views_per_step if phase.one_camera else 1):
            crops = _drawn(config, phase, crop_names(phase, generator), generator)
            controlled = sum(config.regions.of(crop.region).control for crop in crops)
            total += Cost(evaluations * len(crops), evaluations * controlled * controlnets)
    return total


def _editing(config: Config, phase: EditConfig, controlnets: int, generator: torch.Generator) -> Cost:
    total = Cost()
    for _ in range(phase.rounds):
        for camera in (names for face in dealt_crops(phase) for names in face):
            for crop in _drawn(config, phase, camera, generator):
                strength = phase.strength if crop.region in COARSE else phase.detail_strength
                steps = min(phase.steps, max(0, round(phase.steps * strength)))
                evaluations = steps * _branches(phase.guidance_scale)
                total += Cost(evaluations, evaluations * phase.control * controlnets)
    return total


def _branches(guidance_scale: float, against: int = 0) -> int:
    return 1 if guidance_scale == 1 else 2 + against


def _drawn(
    config: Config, phase: MatchConfig | EditConfig, names: Sequence[str], generator: torch.Generator
) -> list[Crop]:
    """Crops of one camera, or of as many as there are names; drawn anew while none is seen."""
    crops: list[Crop] = []
    while not crops:
        crops = draw_crops(config.regions, phase, config.camera.elevation_range, names, generator)
    return crops
