"""The `text` start with a painter whose pictures are known."""

from types import SimpleNamespace

import pytest
import torch

from ap3d.framing import full_cameras
from ap3d.portrait import text
from ap3d.portrait.text import TextPortrait, azimuth_of

BACKGROUND = torch.tensor([0.45, 0.80, 0.78])


def test_views_are_matted_painted_with_one_noise_and_worded_by_azimuth(
    rig, neutral, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    asked: list[tuple[list[str], torch.Tensor]] = []

    def paint(models, prompts, conditions, *, steps, guidance_scale, generator, noise):  # type: ignore[no-untyped-def]
        asked.append((prompts, noise))
        inside = conditions.amax(1, keepdim=True) > 0
        return torch.where(inside, torch.tensor(0.6), BACKGROUND[:, None, None])

    monkeypatch.setattr(text, "sample_images", paint)
    cameras = full_cameras(rig, rig.vertices(neutral)[0], [0.0, 75.0, 180.0], [0.0], 64)
    drawn = (torch.arange(3)[:, None, None, None] >= 0) * torch.ones(3, 6, 64, 64)
    drawn[..., :12, :] = 0
    resources = SimpleNamespace(
        models=SimpleNamespace(latent_shape=(2, 4, 4), flat_background=None),
        rig=rig,
        conditions=SimpleNamespace(render=lambda vertices, cameras: drawn),
    )
    portrait = TextPortrait(resources, "a man", rig.vertices(neutral), 4, 2.0, torch.Generator().manual_seed(0))
    views = portrait.render(cameras)
    prompts, noise = asked[0]
    assert [p.split(",")[0] for p in prompts] == ["front view", "side view", "back view"]
    assert torch.equal(noise[0], noise[2])
    torch.testing.assert_close(views.background, BACKGROUND, atol=0.01, rtol=0)
    assert float(views.alpha[:, :, :8].max()) == 0 and float(views.alpha[:, :, 20:].min()) == 1
    torch.testing.assert_close(views.opaque()[:, :, 20:], torch.full((3, 3, 44, 64), 0.6), atol=0.01, rtol=0)


@pytest.mark.parametrize("azimuth", [0.0, 35.0, -80.0, 150.0])
def test_azimuth_is_read_back_from_a_camera(rig, neutral, azimuth: float) -> None:  # type: ignore[no-untyped-def]
    camera = full_cameras(rig, rig.vertices(neutral)[0], [azimuth], [10.0], 64)
    assert azimuth_of(camera.cam2world[0]) == pytest.approx(azimuth, abs=0.01)
