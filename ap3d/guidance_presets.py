"""Values of the table of guidance: the built-in preset's, smoke's, and the numbers of AnimPortrait3D.

Source of the paper's: reference/animportrait3d-avatar-and-guidance.md, sections 6 to 10.
"""

from dataclasses import replace

from ap3d.guidance_config import (
    EYE_POINTS,
    EditConfig,
    ExpressionConfig,
    MatchConfig,
    MouthConfig,
    RegionConfig,
    RegionsConfig,
)

# The small model's static views are coarse round eyes and lips, so the skin in those crops learns with them.
EYES = EditConfig(
    crops=("left_eye", "right_eye"), points=(*EYE_POINTS, "face"), faces="eyes", rounds=1, views=18, expressions=6,
    steps=10, detail_strength=0.9, iterations=140, learning_rate_factor=1.2, alpha_weight=0.0, back_share=0.0,
    densify_at=(40,), prune=False,
)  # fmt: skip
_INNER_MOUTH = ("teeth", "mouth", "lips")
MOUTH = MouthConfig(
    MatchConfig(crops=("mouth",), points=_INNER_MOUTH, faces="open_mouth", iterations=10, back_share=0.0),
    EditConfig(
        crops=("mouth",), points=_INNER_MOUTH, faces="open_mouth", rounds=1, views=12, expressions=4, steps=10,
        detail_strength=0.75, iterations=110, learning_rate_factor=1.0, alpha_weight=0.0, back_share=0.0,
    ),
)  # fmt: skip
WHOLE = MatchConfig(crops=("full", "face", "face", "mouth", "left_eye", "right_eye"), densify_at=(30,))
REFINE = EditConfig(crops=("full", "full", "face", "face", "mouth", "left_eye", "right_eye"))

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


PAPER_ELEVATIONS = (-_RADIUS_ELEVATION, _RADIUS_ELEVATION)
PAPER_EXPRESSIONS = ExpressionConfig(one_sided_share=0.0)
_PAPER_EDIT = EditConfig(
    one_camera=True, rounds=25, views=30, expressions=30, reference="start", strength=0.3, detail_strength=0.3,
    steps=20, control=False, iterations=30, views_per_step=5, view_words=False, guidance_scale=7.5, back_share=0.3,
    alpha_weight=0.0, negative_prompt=_BLUR, learning_rate_factor=1.0,
)  # fmt: skip
_PAPER_MATCH = MatchConfig(
    one_camera=True, iterations=1000, views_per_step=3, start_timestep=300, end_timestep=15, guidance_scale=100.0,
    inversion_steps=3, back_share=0.3, checkpoint_every=100, negative_prompt=_WHOLE_NEGATIVE, densify_at=(50, 100),
    learning_rate_factor=1.0,
)  # fmt: skip
PAPER_EYES = replace(
    _PAPER_EDIT, crops=("left_eye", "right_eye"), azimuths=(-75, 75), back_share=0.0, points=EYE_POINTS, faces="eyes",
    head_moves=False, rounds=20, views=25, expressions=25, iterations=25, strength=0.9, detail_strength=0.9,
    control=True, loss="l2", perceptual_weight=0.0, guidance_scale=10.0, negative_prompt=_EYE_NEGATIVE,
    densify_at=(1, 101, 201, 301, 401), prune=False,
)  # fmt: skip
PAPER_MOUTH = MouthConfig(
    replace(
        _PAPER_MATCH, crops=("mouth",), azimuths=(-50, 50), back_share=0.0, points=("teeth",), faces="open_mouth",
        head_moves=False, iterations=500, start_timestep=750, guidance_scale=7.5, negative_prompt=_MOUTH_NEGATIVE,
        densify_at=(100,), prune=False,
    ),
    replace(
        _PAPER_EDIT, crops=("mouth",), azimuths=(-50, 50), back_share=0.0, points=("teeth",), faces="open_mouth",
        head_moves=False, rounds=20, views=25, expressions=25, iterations=25, strength=0.35, detail_strength=0.35,
        control=True,
    ),
)  # fmt: skip
PAPER_WHOLE = _PAPER_MATCH
PAPER_REFINE = _PAPER_EDIT

DRAFT_EYES = replace(
    PAPER_EYES, rounds=1, views=24, expressions=24, reference="round", iterations=200, densify_at=(50,)
)
DRAFT_MOUTH = MouthConfig(
    replace(PAPER_MOUTH.match, iterations=60),
    replace(PAPER_MOUTH.edit, rounds=1, views=24, expressions=24, reference="round", iterations=150),
)
DRAFT_WHOLE = replace(PAPER_WHOLE, iterations=140, guidance_scale=7.5, densify_at=(50, 100))
DRAFT_REFINE = replace(
    PAPER_REFINE, rounds=2, views=24, expressions=24, reference="round", iterations=300, views_per_step=4
)
