import torch

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.training.attributes import BACKGROUND_COLOUR
from ap3d.training.weighting import BEARD, HAIR, HEAD, NEAR, RegionWeights, mirror_condition


def condition_of(region: str, size: int = 32) -> torch.Tensor:
    value = torch.tensor([0.5, 0.5, 1.0, *ConditionSpec().codes[region]])
    return value[None, :, None, None].expand(1, -1, size, size).clone()


def test_regions_weigh_what_they_should():
    weights = RegionWeights(ConditionSpec(), cell=4)
    background = torch.tensor(BACKGROUND_COLOUR)[None, :, None, None].expand(1, -1, 32, 32)
    for region, value in {"CLOTHES": NEAR, "SCALP": HEAD, "BEARD": BEARD}.items():
        out = weights(condition_of(region), background)
        assert out.shape == (1, 1, 8, 8) and torch.allclose(out, torch.tensor(value))


def test_paint_outside_the_condition_is_hair():
    weights, nothing = RegionWeights(ConditionSpec(), cell=4), torch.zeros(1, 6, 32, 32)
    assert torch.allclose(weights(nothing, torch.zeros(1, 3, 32, 32)), torch.tensor(HAIR))


def test_mirroring_turns_normals_and_twice_is_nothing():
    normals = torch.nn.functional.normalize(
        torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), dim=1
    )
    regions = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    condition = torch.cat([normals * 0.5 + 0.5, regions], 1)
    mirrored = mirror_condition(condition)
    inner = slice(1, -1)
    assert torch.allclose(
        mirrored[:, 0, inner, inner], (-normals[:, 0].flip(-1) * 0.5 + 0.5)[:, inner, inner], atol=1e-6
    )
    assert torch.equal(mirrored[:, 1:], condition.flip(-1)[:, 1:])
    assert torch.allclose(mirror_condition(mirrored)[..., inner, inner], condition[..., inner, inner], atol=1e-6)


def test_half_covered_edges_keep_their_coverage():
    condition = torch.zeros(1, 6, 8, 8)
    condition[:, :3, :, 3] = 0.5 * torch.tensor([1.0, 0.5, 0.5])[:, None]  # half a pixel of a normal along +x
    mirrored = mirror_condition(condition)
    assert torch.allclose(mirrored[0, :3, 4, 4], 0.5 * torch.tensor([0.0, 0.5, 0.5]), atol=1e-6)
