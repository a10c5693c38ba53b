"""Values of the table of guidance: the built-in preset's, smoke's, and the numbers of AnimPortrait3D.

Source of the paper's: reference/animportrait3d-avatar-and-guidance.md, sections 6 to 10.
"""

from dataclasses import replace
from typing import Any

from ap3d.guidance_config import (
    EYE_POINTS,
    EditConfig,
    ExpressionConfig,
    MatchConfig,
    MouthConfig,
    OptimizerConfig,
    RegionConfig,
    RegionsConfig,
    RestraintConfig,
)

# The small model's static views are coarse round eyes and lips, so the skin in those crops learns with them.
EYES = EditConfig(
    crops=("left_eye", "right_eye"), points=(*EYE_POINTS, "face"), faces="eyes", rounds=1, views=18, expressions=6,
    steps=10, detail_strength=0.9, iterations=140, learning_rate_factor=1.2, alpha_weight=0.0, back_share=0.0,
    densify_at=(40,), prune=False,
)  # fmt: skip
# What a closed mouth hides is held by the rig alone: lips that grow close the gap between them.
_MOUTH = ("lips", "teeth")
# As in the paper without the rest of the prompt: told of a beard, the small model closes the mouth inside it.
_MOUTH_WORDING = "mouth region, {abstract}, {expression}"
_INNER_MOUTH = ("teeth", "mouth", "lips")
MOUTH = MouthConfig(
    MatchConfig(
        crops=("mouth",), points=_INNER_MOUTH, pinned=_MOUTH, faces="open_mouth", iterations=10, back_share=0.0,
        wording=_MOUTH_WORDING,
    ),
    EditConfig(
        crops=("mouth",), points=_INNER_MOUTH, pinned=_MOUTH, faces="open_mouth", rounds=1, views=12, expressions=4,
        steps=10, detail_strength=0.6, iterations=110, learning_rate_factor=1.0, alpha_weight=0.0, back_share=0.0,
        wording=_MOUTH_WORDING,
    ),
)  # fmt: skip
# Crops of a whole face show too little of lips and teeth to better what the mouth's own stage made of them.
_ALL_BUT_MOUTH = ("-lips", "-teeth")
WHOLE = MatchConfig(
    crops=("full", "face", "face", "mouth", "left_eye", "right_eye"), points=_ALL_BUT_MOUTH,
    densify_at=(30,),
)  # fmt: skip
REFINE = EditConfig(crops=("full", "full", "face", "face", "mouth", "left_eye", "right_eye"), points=_ALL_BUT_MOUTH)

SMOKE_EYES = replace(EYES, views=4, expressions=2, steps=4, iterations=10)
SMOKE_MOUTH = MouthConfig(
    replace(MOUTH.match, iterations=2, views_per_step=1, inversion_steps=1),
    replace(MOUTH.edit, views=2, expressions=1, steps=4, iterations=10),
)
SMOKE_WHOLE = replace(WHOLE, iterations=4, views_per_step=1, inversion_steps=1, densify_at=(2,), checkpoint_every=2)
SMOKE_REFINE = replace(REFINE, rounds=1, views=7, expressions=2, steps=4, iterations=30)

_BLUR = "oversaturation, low-resolution, unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull"
_EYE_NEGATIVE = f"tattoo, hair, eyelash, make up, {_BLUR}"
_MOUTH_NEGATIVE = "tattoo, highlight, blur, no-shadow, lowres, bad anatomy, cropped, worst quality"
_WHOLE_NEGATIVE = "tattoo, blur, lowres, bad anatomy, bad hands, cropped, worst quality"
_RADIUS_ELEVATION = 12.8  # degrees; the paper's pitches 70 and 110

PAPER_REGIONS = RegionsConfig(
    full=RegionConfig(0.0, (-180, 180), "{view} {prompt}", control=False, protects=("face",)),
    face=RegionConfig(1.23, (-90, 90), "{view} {prompt}"),
    mouth=RegionConfig(0.48, (-90, 90), "{view} mouth region, {abstract}"),
    left_eye=RegionConfig(0.28, (-30, 90), "{view} left eye region, {abstract}"),
    right_eye=RegionConfig(0.28, (-90, 30), "{view} right eye region, {abstract}"),
)  # fmt: skip


# Of the static fit and of guidance; the paper multiplies those of positions by the cameras' extent, and leaves them
# constant within a few thousand iterations.
_EXTENT = 2.9847
PAPER_STATIC_RATES = OptimizerConfig(
    xyz=5e-4 * _EXTENT, rotation=0.0015, scaling=0.0255, opacity=0.075, f_dc=0.00375, f_rest=0.0001875, beta2=0.999
)
PAPER_RATES = replace(PAPER_STATIC_RATES, xyz=1e-5 * _EXTENT)
_LATENT_CELLS = 64 * 64  # the paper's gradient is a sum over cells and crops, ours a mean
_PAPER_RESTRAINT = RestraintConfig(
    position_threshold=1.0, position_weight=1e-2, scale_threshold=0.2, scale_weight=1e4, form="paper"
)
_MATCH_RESTRAINT = replace(_PAPER_RESTRAINT, scale_weight=5e7)
_EYE_RESTRAINT = replace(_PAPER_RESTRAINT, position_weight=1e-2 / 0.8, scale_weight=1e4 / 0.8)  # its L2 weighs 0.8
_PAPER_RADIUS = 20 / 416  # head heights: 20 pixels of a frame in which the head takes 416

PAPER_ELEVATIONS = (-_RADIUS_ELEVATION, _RADIUS_ELEVATION)
PAPER_EXPRESSIONS = ExpressionConfig(one_sided_share=0.0)
_PAPER_EDIT = EditConfig(
    one_camera=True, rounds=25, views=30, expressions=30, reference="start", strength=0.3, detail_strength=0.3,
    steps=20, control=False, iterations=30, views_per_step=5, view_words=False, guidance_scale=7.5, back_share=0.3,
    alpha_weight=0.0, negative_prompt=_BLUR, learning_rate_factor=1.0, optimizer=PAPER_RATES,
    restraint=_PAPER_RESTRAINT,
)  # fmt: skip
_PAPER_MATCH = MatchConfig(
    one_camera=True, iterations=1000, views_per_step=3, start_timestep=300, end_timestep=15, guidance_scale=100.0,
    inversion_steps=3, back_share=0.3, checkpoint_every=100, negative_prompt=_WHOLE_NEGATIVE, densify_at=(50, 100),
    learning_rate_factor=1.0, maximum_radius=_PAPER_RADIUS, optimizer=PAPER_RATES, restraint=_MATCH_RESTRAINT,
    gradient_scale=5.0 * _LATENT_CELLS,
)  # fmt: skip
PAPER_EYES = replace(
    _PAPER_EDIT, crops=("left_eye", "right_eye"), azimuths=(-75, 75), back_share=0.0, points=EYE_POINTS, faces="eyes",
    head_moves=False, rounds=20, views=25, expressions=25, iterations=25, strength=0.9, detail_strength=0.9,
    control=True, loss="l2", perceptual_weight=0.0, guidance_scale=10.0, negative_prompt=_EYE_NEGATIVE,
    densify_at=(1, 101, 201, 301, 401), prune=False, restraint=_EYE_RESTRAINT,
)  # fmt: skip
PAPER_MOUTH = MouthConfig(
    replace(
        _PAPER_MATCH, crops=("mouth",), azimuths=(-50, 50), back_share=0.0, points=("teeth",), faces="open_mouth",
        head_moves=False, iterations=500, start_timestep=750, guidance_scale=7.5, negative_prompt=_MOUTH_NEGATIVE,
        densify_at=(100,), prune=False, gradient_scale=1.0 * _LATENT_CELLS,
    ),
    replace(
        _PAPER_EDIT, crops=("mouth",), azimuths=(-50, 50), back_share=0.0, points=("teeth",), faces="open_mouth",
        head_moves=False, rounds=20, views=25, expressions=25, iterations=25, strength=0.35, detail_strength=0.35,
        control=True,
    ),
)  # fmt: skip
PAPER_WHOLE = _PAPER_MATCH
PAPER_REFINE = _PAPER_EDIT

# A tenth of the iterations: rates and regularisers of the built-in preset, which are made for so few.
_QUICK: dict[str, Any] = {"optimizer": OptimizerConfig(), "restraint": RestraintConfig()}
_QUICK_EDIT: dict[str, Any] = {**_QUICK, "views": 24, "expressions": 24, "reference": "round"}
DRAFT_EYES = replace(
    PAPER_EYES, rounds=1, iterations=200, densify_at=(50,), **{**_QUICK_EDIT, "views": 18, "expressions": 18}
)
DRAFT_MOUTH = MouthConfig(
    replace(PAPER_MOUTH.match, iterations=60, gradient_scale=0.1, **_QUICK),
    replace(PAPER_MOUTH.edit, rounds=1, iterations=150, **_QUICK_EDIT),
)
DRAFT_WHOLE = replace(
    PAPER_WHOLE, iterations=140, guidance_scale=7.5, densify_at=(50, 100), gradient_scale=0.15, **_QUICK
)
DRAFT_REFINE = replace(PAPER_REFINE, rounds=2, iterations=300, views_per_step=4, **_QUICK_EDIT)
