"""Tables of perception models: what is shipped loads and answers in the shared scheme, what is not says what to do."""

import math

import pytest
import torch

from ap3d.cameras import Cameras, orbit
from ap3d.config import load_config
from ap3d.errors import InputError
from ap3d.perception import load_landmark_detector, load_matting, load_normals, load_segmenter
from ap3d.perception.parsing import CLASSES
from ap3d.perception.protocol import Group, Part, groups_of
from ap3d.portrait.protocol import PortraitViews

SIZE = 48


def sphere_views(azimuth: float = 30.0) -> tuple[PortraitViews, torch.Tensor]:
    """A unit sphere at the origin: views with depth and world normals from the ray equation, and those normals."""
    cameras = orbit([azimuth], [10.0], torch.zeros(3), 4.0, 40.0, SIZE)
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    y, x = torch.meshgrid(*[torch.arange(SIZE) + 0.5] * 2, indexing="ij")
    rays = torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(x)], 2) @ cameras.cam2world[0, :3, :3].T
    origin = cameras.positions[0]
    a, b, c = (rays**2).sum(2), 2 * rays @ origin, float(origin @ origin) - 1
    root = b * b - 4 * a * c
    depth = (-b - root.clamp_min(0).sqrt()) / (2 * a)
    hit = root > 0
    normals = torch.where(hit[..., None], origin + depth[..., None] * rays, 0)
    alpha = hit.float()[None, None]
    views = PortraitViews(
        cameras, alpha.expand(-1, 3, -1, -1) * 0.6, alpha, torch.zeros(3), torch.where(hit, depth, 0)[None, None],
        normals.permute(2, 0, 1)[None],
    )  # fmt: skip
    return views, normals


def test_the_shared_scheme_begins_with_the_parsers_classes() -> None:
    assert [part.name.lower() for part in Part][: len(CLASSES)] == list(CLASSES)
    labels = torch.tensor([[Part.BEARD, Part.NECK, Part.EARS], [Part.HAIR, Part.ACCESSORY, Part.BACKGROUND]])
    wanted = [[Group.SKIN] * 3, [Group.HAIR, Group.CLOTHES, Group.BACKGROUND]]
    assert groups_of(labels).tolist() == [[int(g) for g in row] for row in wanted]


def test_the_builtin_segmenter_labels_every_pixel_of_any_picture() -> None:
    segmenter = load_segmenter()
    labels = segmenter.segment(torch.rand(2, 3, 50, 70))
    assert labels.shape == (2, 50, 70) and labels.dtype == torch.int64
    assert {Part(int(k)) for k in labels.unique()} <= segmenter.parts
    assert len(segmenter.fingerprint) == 64 and segmenter.licence == "Apache-2.0"
    assert segmenter.segment(torch.zeros(0, 3, 8, 9)).shape == (0, 8, 9)


def test_field_normals_of_a_sphere_face_the_camera_and_agree_with_its_depth() -> None:
    views, world = sphere_views()
    own = load_normals("field").normals(views)
    middle = own[0, :, SIZE // 2, SIZE // 2]
    assert middle[2] > 0.99  # towards the viewer
    assert own[0, 0, SIZE // 2, -20] > 0.15 and own[0, 1, 16, SIZE // 2] > 0.15  # right is +x, up is +y
    inside = views.alpha[:, 0] > 0
    assert torch.allclose(own.norm(dim=1)[inside], torch.ones(int(inside.sum())), atol=1e-5)
    assert not own.norm(dim=1)[~inside].any()
    depth_only = PortraitViews(views.cameras, views.color, views.alpha, views.background, views.depth)
    cosine = (load_normals("field").normals(depth_only) * own).sum(1)
    core = -torch.nn.functional.max_pool2d(-views.alpha, 5, 1, 2)[:, 0] > 0
    assert math.degrees(math.acos(float(cosine[core].min()))) < 6


def test_the_fields_own_alpha_is_the_default_matte() -> None:
    views, _ = sphere_views()
    assert torch.equal(load_matting().matte(views), views.alpha)


def test_a_portrait_without_depth_has_no_field_normals() -> None:
    flat = PortraitViews(orbit([0.0], [0.0], torch.zeros(3), 4.0, 40.0, 8), *[torch.ones(1, k, 8, 8) for k in (3, 1)],
                         torch.zeros(3))  # fmt: skip
    with pytest.raises(InputError, match="perception.normals"):
        load_normals().normals(flat)


@pytest.mark.parametrize("load", [load_segmenter, load_matting, load_normals, load_landmark_detector])
def test_unknown_names_are_refused_with_the_known_ones(load) -> None:
    with pytest.raises(InputError, match="there are: .*(builtin|field)"):
        load("no-such-model")


def test_the_configuration_refuses_models_that_are_in_no_table() -> None:
    chosen = load_config(overrides={"perception.segmenter": "sapiens:weights.pt2", "perception.hair": "segmenter"})
    assert chosen.perception.segmenter == "sapiens:weights.pt2"
    with pytest.raises(InputError, match="'perception.matting' takes field, modnet, birefnet, got 'rembg'"):
        load_config(overrides={"perception.matting": "rembg"})


def test_landmarks_by_name() -> None:
    found = load_landmark_detector("builtin").detect(torch.zeros(1, 3, 64, 64))
    assert float(found.score[0]) == 0 and found.points.isnan().all()


def test_cameras_of_the_sphere_are_opencv() -> None:
    """Guards the test's own ray equation: the sphere's centre projects to the principal point."""
    views, _ = sphere_views()
    assert isinstance(views.cameras, Cameras)
    pixels, depth = views.cameras.project(torch.zeros(1, 3))
    assert torch.allclose(pixels.flatten(), torch.full((2,), SIZE / 2), atol=1e-3) and abs(float(depth) - 4) < 1e-4
