"""What holds for every scene and every correct splat kernel: symmetries, equal paths, and no crash on any input."""

import math
import os
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ap3d.cameras import Cameras, orbit
from ap3d.errors import InputError, NumericalError
from ap3d.raster import reference
from ap3d.raster.splats import GSPLAT, INRIA, SplatImages, SplatRule, Splats, rasterize_splats
from ap3d.splats.frames import quaternion_product
from tests.raster.scenes import concatenate, leaves, loss, random_splats, relative

# Without thresholds a picture is a continuous function of its scene, so that rounding cannot flip a pixel.
SMOOTH = SplatRule(alpha_clamp=0.999, extent=6.0, opacity_aware=True, cut=1e-7, stop=1e-12)
PARAMETERS = ("means", "quaternions", "scales", "opacities", "sh")
IMAGES = ("color", "alpha", "depth")

# AP3D_EXAMPLES=500 searches longer, and anew each time; the default is the same everywhere.
EXAMPLES = int(os.environ.get("AP3D_EXAMPLES", "25"))
quick = settings(
    max_examples=EXAMPLES, deadline=None, derandomize="AP3D_EXAMPLES" not in os.environ, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


class Scene(NamedTuple):
    splats: Splats
    cameras: Cameras
    rule: SplatRule


@st.composite
def scenes(draw: st.DrawFn, *rules: SplatRule, most: int = 40, turned: bool | None = None) -> Scene:
    """A cloud in front of one to three cameras; images of any small size, 1 x 1 too."""
    count, degree, seed = draw(st.integers(0, most)), draw(st.integers(0, 3)), draw(st.integers(0, 10_000))
    width, height = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    azimuths = draw(st.lists(st.floats(-180, 180), min_size=1, max_size=3))
    poses = orbit(azimuths, [draw(st.floats(-80, 80))], torch.zeros(3), draw(st.floats(1.2, 4.0)), 30.0, 8).cam2world
    focal = draw(st.floats(20, 200))
    row = torch.tensor([focal, focal * draw(st.floats(0.5, 2)), width * draw(st.floats(0, 1)), height / 2])
    is_turned = draw(st.booleans()) if turned is None else turned
    splats = random_splats(count, seed, degree, is_turned)
    return Scene(splats, Cameras(poses, row.expand(len(poses), 4), width, height), draw(st.sampled_from(rules)))


class Result(NamedTuple):
    images: SplatImages
    gradients: dict[str, Tensor]


def run(scene: Scene, dtype: torch.dtype = torch.float32, backend: str = "cpu") -> Result:
    """Images, and gradients of a random linear loss."""
    splats = leaves(scene.splats, dtype)
    images = rasterize_splats(splats, scene.cameras, rule=scene.rule, backend=backend)
    loss(images).backward()
    return Result(images, {name: getattr(splats, name).grad for name in PARAMETERS})


def assert_near(a: Result, b: Result, image: float = 1e-5, gradient: float = 1e-3) -> None:
    for name in IMAGES:
        assert torch.allclose(getattr(a.images, name), getattr(b.images, name).float(), atol=image, rtol=1e-5), name
    for name in PARAMETERS:
        size = float(b.gradients[name].norm())
        assert size < 1e-3 or relative(a.gradients[name], b.gradients[name]) <= gradient, name


def assert_equal(a: Result, b: Result) -> None:
    for name in (*IMAGES, "radii", "means2d"):
        assert torch.equal(getattr(a.images, name), getattr(b.images, name)), name
    for name in PARAMETERS:
        assert torch.equal(a.gradients[name], b.gradients[name]), name


@quick
@given(scenes(GSPLAT, INRIA), st.randoms(use_true_random=False))
def test_the_order_of_gaussians_does_not_matter(scene: Scene, random: object) -> None:
    order = list(range(len(scene.splats)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = scene._replace(splats=Splats(**{n: t[order] for n, t in scene.splats.tensors().items()}))
    before, after = run(scene), run(shuffled)
    back = {name: torch.empty_like(t).index_copy(0, torch.tensor(order, dtype=torch.long), t)
            for name, t in after.gradients.items()}  # fmt: skip
    assert_near(Result(after.images, back), before, image=1e-6, gradient=1e-5)


@quick
@given(scenes(SMOOTH, turned=False), st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: math.hypot(*q) > 0.1))
def test_turning_scene_and_camera_together_changes_nothing(scene: Scene, q: tuple[float, ...]) -> None:
    quaternion = torch.nn.functional.normalize(torch.tensor([q]), dim=1)
    turn = reference.rotation_matrices(quaternion)[0]
    s, pose = scene.splats, scene.cameras.cam2world.clone()
    pose[:, :3] = turn @ pose[:, :3]
    turned = Splats(
        s.means @ turn.T, quaternion_product(quaternion.expand(len(s), 4), s.quaternions), s.scales, s.opacities, s.sh,
        turn.expand(len(s), 3, 3),
    )  # fmt: skip
    before = run(scene)
    after = run(Scene(turned, Cameras(pose, *_frame(scene.cameras)), scene.rule))
    back = after.gradients | {"means": after.gradients["means"] @ turn}
    conjugate = quaternion * torch.tensor([1.0, -1, -1, -1])
    back["quaternions"] = quaternion_product(conjugate.expand(len(s), 4), after.gradients["quaternions"])
    assert_near(Result(after.images, back), before, image=2e-4, gradient=5e-3)


@quick
@given(scenes(GSPLAT, INRIA), st.integers(1, 20))
def test_gaussians_of_opacity_zero_are_invisible(scene: Scene, count: int) -> None:
    ghosts = random_splats(count, 1, scene.splats.sh_degree, scene.splats.view_rotations is not None)
    ghosts = Splats(**(ghosts.tensors() | {"opacities": torch.zeros(count)}))
    n = len(scene.splats)
    both = run(scene._replace(splats=concatenate(scene.splats, ghosts)))
    assert_near(Result(both.images, {k: g[:n] for k, g in both.gradients.items()}), run(scene), 1e-6, 1e-6)
    assert bool((both.images.radii[:, n:] == 0).all())
    assert all(bool((g[n:] == 0).all()) for g in both.gradients.values())


@quick
@given(scenes(GSPLAT, INRIA))
def test_a_batch_of_cameras_equals_a_loop(scene: Scene) -> None:
    together = run(scene)
    splats = leaves(scene.splats, torch.float32)
    views = [rasterize_splats(splats, scene.cameras[i], rule=scene.rule) for i in range(len(scene.cameras))]
    joined = SplatImages(*(torch.cat([getattr(v, f) for v in views]) for f in ("color", "alpha", "depth", "radii",
                                                                               "means2d")))  # fmt: skip
    loss(joined).backward()
    for name in (*IMAGES, "radii", "means2d"):
        assert torch.equal(getattr(together.images, name), getattr(joined, name)), name
    assert_near(together, Result(joined, {name: getattr(splats, name).grad for name in PARAMETERS}), gradient=1e-5)


@quick
@given(scenes(GSPLAT, INRIA, most=400))
def test_threads_change_no_bit(scene: Scene) -> None:
    results = []
    for threads in ("1", "2", "5"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AP3D_THREADS", threads)
            results.append(run(scene))
    assert_equal(results[0], results[1])
    assert_equal(results[0], results[2])


@quick
@given(scene=scenes(SMOOTH))
def test_every_instruction_set_equals_the_float64_reference(instruction_set: str, scene: Scene) -> None:
    assert_near(run(scene), run(scene, torch.float64, "reference"), image=2e-5, gradient=1e-3)


@quick
@given(scene=scenes(GSPLAT, INRIA))
def test_thresholds_lie_where_the_reference_has_them(instruction_set: str, scene: Scene) -> None:
    """Rounding may move a pixel over a threshold: few pixels, and by no more than what is cut there."""
    ours, exact = run(scene), run(scene, torch.float64, "reference")
    for name in ("color", "alpha"):
        difference = (getattr(ours.images, name) - getattr(exact.images, name)).detach().abs()
        assert float(difference.max()) <= 0.03 and float((difference > 2e-5).double().mean()) <= 0.02, name


@quick
@given(scenes(GSPLAT, INRIA))
def test_gaussians_behind_the_camera_are_invisible(scene: Scene) -> None:
    camera = scene.cameras[0]
    back = camera.cam2world[0, :3, 2]
    means = camera.positions - back * (0.1 + scene.splats.means.abs().sum(1, keepdim=True))
    result = run(Scene(Splats(**(scene.splats.tensors() | {"means": means})), camera, scene.rule))
    assert not result.images.color.any() and not result.images.alpha.any() and not result.images.radii.any()
    assert all(not g.any() for g in result.gradients.values())


AWKWARD = (
    0.0,
    -0.0,
    1e-45,
    1e-30,
    1e-12,
    -1.0,
    1e4,
    1e9,
    -1e9,
    -1e12,
    1e30,
    3e38,
    -3e38,
    math.inf,
    -math.inf,
    math.nan,
)
spoils = st.lists(
    st.tuples(st.sampled_from(PARAMETERS), st.integers(0, 10**6), st.sampled_from(AWKWARD)), min_size=1, max_size=8
)


def spoiled(splats: Splats, changes: list[tuple[str, int, float]]) -> Splats:
    tensors = {name: tensor.clone() for name, tensor in splats.tensors().items()}
    for name, place, value in changes:
        if tensors[name].numel():
            tensors[name].view(-1)[place % tensors[name].numel()] = value
    return Splats(**tensors)


@settings(quick, max_examples=8 * EXAMPLES)
@given(scenes(GSPLAT, INRIA, SMOOTH), spoils)
def test_awkward_numbers_give_an_error_or_a_finite_picture(scene: Scene, changes: list[tuple[str, int, float]]) -> None:
    splats = leaves(spoiled(scene.splats, changes), torch.float32)
    try:
        images = rasterize_splats(splats, scene.cameras, rule=scene.rule)
    except (NumericalError, InputError):
        return
    for name in IMAGES:
        assert bool(torch.isfinite(getattr(images, name)).all()), name
    assert bool(((images.alpha >= 0) & (images.alpha <= 1)).all())
    loss(images).backward()
    if all(abs(value) <= 1e12 for _, _, value in changes):
        assert all(bool(torch.isfinite(getattr(splats, name).grad).all()) for name in PARAMETERS)


@settings(quick, max_examples=3 * EXAMPLES)
@given(scenes(GSPLAT, INRIA), st.lists(st.tuples(st.booleans(), st.integers(0, 11), st.sampled_from(AWKWARD)),
                                       min_size=1, max_size=3))  # fmt: skip
def test_awkward_cameras_give_an_error_or_a_finite_picture(
    scene: Scene, changes: list[tuple[bool, int, float]]
) -> None:
    pose, intrinsics = scene.cameras.cam2world.clone(), scene.cameras.intrinsics.clone()
    for in_pose, place, value in changes:
        if in_pose:
            pose[0].view(-1)[place] = value
        else:
            intrinsics[0, place % 4] = value
    cameras = Cameras(pose, intrinsics, scene.cameras.width, scene.cameras.height)
    try:
        images = rasterize_splats(leaves(scene.splats, torch.float32), cameras, rule=scene.rule)
    except (NumericalError, InputError):
        return
    for name in IMAGES:
        assert bool(torch.isfinite(getattr(images, name)).all()), name
    loss(images).backward()


def _frame(cameras: Cameras) -> tuple[Tensor, int, int]:
    return cameras.intrinsics, cameras.width, cameras.height
