"""Stage `publish`: the avatar bundle with its pictures and videos."""

from typing import Any

import torch
from torch import Tensor

from ap3d import __version__
from ap3d.animation import bundle_camera, motion_frames, render, turntable_frames
from ap3d.config import Config
from ap3d.diffusion.cost import COST_COLUMNS
from ap3d.motion.expressions import ExpressionSampler
from ap3d.motion.procedural import talking
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.splats.avatar import GaussianAvatar, group_counts
from ap3d.splats.bundle import Bundle
from ap3d.splats.facts import ORDER, SCHEMA_VERSION
from ap3d.splats.frames import triangle_frames
from ap3d.stages.base import STARTS, StageContext, StageResult, seeded_generator
from ap3d.stages.initialise import read_avatar, read_params
from ap3d.video import mp4_bytes

SHEET_EXPRESSIONS = ("neutral", "open", "smile", "blink", "frown", "surprise")
SHEET_AZIMUTHS = (0.0, 35.0, -80.0, 180.0)


class PublishStage:
    """Writes what a user keeps."""

    name = "publish"
    version = 3
    inputs: tuple[str, ...] = ("portrait", "fit", "refine")
    starts: tuple[str, ...] = STARTS

    def settings(self, config: Config) -> Any:
        """Sizes of pictures and videos."""
        return config.publish

    def run(self, context: StageContext) -> StageResult:
        """Outputs: the files of the bundle."""
        publish = context.config.publish
        bundle = _bundle(context)
        generator = seeded_generator(context.job, "talking")
        talk = talking(publish.talking_seconds, publish.fps, generator)
        preview = _picture(bundle, 0.0, publish.size)
        context.report(1, 5)
        sheet = contact_sheet(_sheet(bundle, max(publish.size // 2, 96)), len(SHEET_EXPRESSIONS))
        context.report(2, 5)
        turntable = mp4_bytes(turntable_frames(bundle, publish.turntable_frames, publish.size), publish.fps)
        context.report(3, 5)
        speech = mp4_bytes(motion_frames(bundle, talk, publish.size), publish.fps)
        context.report(4, 5)
        outputs = {
            "preview.png": png_bytes(preview),
            "sheet.png": png_bytes(sheet),
            "turntable.mp4": turntable,
            "talking.mp4": speech,
            **bundle.files(),
        }
        return StageResult(outputs, {"bundle_bytes": float(sum(map(len, outputs.values())))})


def _bundle(context: StageContext) -> Bundle:
    rig, params, avatar = context.resources.rig, read_params(context), read_avatar(context, "refine")
    neutral = triangle_frames(rig.vertices(params)[0], rig.faces)
    return Bundle(_facts(context, avatar), avatar, params, rig, neutral)


def _facts(context: StageContext, avatar: GaussianAvatar) -> dict[str, Any]:
    notes, rig, job = context.notes("portrait"), context.resources.rig, context.job
    metrics: dict[str, float] = {}
    for record in context.records.values():
        metrics.update(record["metrics"])
    return {
        "schema_version": SCHEMA_VERSION,
        "ap3d_version": __version__,
        "face_id": job.face_id,
        "prompt": job.prompt,
        "completed_prompt": notes["completed_prompt"],
        "abstract_prompt": notes["abstract_prompt"],
        "unknown_words": notes["unknown_words"],
        "seed": job.seed,
        "preset": context.config.preset,
        "config_hash": context.config.config_hash,
        "rig": rig.name,
        "topology_sha256": rig.topology_sha256,
        "expression_basis": rig.expression_basis,
        "rotation_order": ORDER,
        "sh_degree": avatar.sh_degree,
        "triangles": 1 + avatar.extra_binding.shape[1],
        "groups": group_counts(avatar),
        "metrics": metrics,
        "cost": _cost(context),
        "models": context.resources.fingerprints,
        "licences": context.resources.licences | notes.get("licences", {}),
    }


def _cost(context: StageContext) -> list[dict[str, Any]]:
    """What the stages before this one cost."""
    names = ("seconds", *COST_COLUMNS)
    return [{"phase": stage, **{n: r[n] for n in names if n in r}} for stage, r in context.records.items()]


def _picture(bundle: Bundle, azimuth: float, size: int) -> Tensor:
    camera = bundle_camera(bundle, azimuth, 2.0, size)
    return render(bundle.pose(bundle.params), camera, bundle.background, bundle.avatar.sh_degree)[0]


def _sheet(bundle: Bundle, size: int) -> Tensor:
    """Views in rows, expressions in columns."""
    sampler = ExpressionSampler(bundle.rig)
    posed = [bundle.pose(sampler.named(bundle.params, name)) for name in SHEET_EXPRESSIONS]
    rows = []
    for azimuth in SHEET_AZIMUTHS:
        camera = bundle_camera(bundle, azimuth, 2.0, size)
        rows += [render(s, camera, bundle.background, bundle.avatar.sh_degree)[0] for s in posed]
    return torch.stack(rows)
