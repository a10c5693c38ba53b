"""Every metric gives a drawn head its due, and catches one that was broken on purpose."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ap3d.metrics.articulation import ArticulationMetric
from ap3d.metrics.attributes import AttributeMetric
from ap3d.metrics.colours import ColourMetric
from ap3d.metrics.geometry import GROUPS, NOISE, GeometryMetric, read_groups
from ap3d.metrics.identity import IdentityMetric
from ap3d.metrics.integrity import IntegrityMetric
from ap3d.metrics.landmarks import LandmarkMetric
from ap3d.metrics.protocol import Measured
from ap3d.metrics.subject import Subject, Tools
from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import SH_C0, Group
from ap3d.splats.bundle import bundle_frames
from ap3d.training.portraits.surface import HAIR, SKIN
from tests.metrics.drawn_head import LIGHT, broken


def recoloured(subject: Subject, group: Group, colour: tuple[float, float, float]) -> Subject:
    f_dc = subject.bundle.avatar.f_dc.clone()
    f_dc[subject.bundle.avatar.group == group] = (LIGHT * torch.tensor(colour) - 0.5) / SH_C0
    return broken(subject, f_dc=f_dc)


def frozen(subject: Subject, *regions: str) -> Subject:
    """Gaussians of some regions hang on the skull's top, which no expression moves."""
    bundle = subject.bundle
    ids = torch.cat([bundle.rig.regions[name] for name in regions])
    stuck = torch.isin(bundle.avatar.binding, ids)
    target = int(bundle.rig.regions["scalp"][len(bundle.rig.regions["scalp"]) // 2])
    frames, means = bundle.neutral, bundle.pose(bundle.params).means
    turn, scale = frames.rotation[target], frames.scale[target]
    xyz, binding = bundle.avatar.xyz.clone(), bundle.avatar.binding.clone()
    xyz[stuck] = ((means[stuck] - frames.origin[target]) @ turn) / scale
    scaling = bundle.avatar.scaling.clone()
    scaling[stuck] += (frames.scale[binding[stuck]] / scale).log()[:, None]
    binding[stuck] = target
    return broken(subject, xyz=xyz, binding=binding, scaling=scaling)


def measured(subject: Subject, metric: IdentityMetric, seed: int) -> Measured:
    return Measured(str(seed), "a man", seed, metric.evaluate(subject))


def test_colours_are_those_that_were_painted(subject: Subject) -> None:
    values = ColourMetric().evaluate(subject)
    assert [values[f"{name}.right"] for name in ("hair_colour", "shirt", "skin")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("group", "colour", "name"),
    [
        (Group.HAIR, HAIR["pink"], "hair_colour"),
        (Group.CLOTHES, (0.12, 0.52, 0.20), "shirt"),
        (Group.SKIN, SKIN["dark"], "skin"),
    ],
)
def test_another_colour_is_caught(
    subject: Subject, group: Group, colour: tuple[float, float, float], name: str
) -> None:
    values = ColourMetric().evaluate(recoloured(subject, group, colour))
    rights = {n: values[f"{n}.right"] for n in ("hair_colour", "shirt", "skin")}
    assert rights == {n: float(n != name) for n in rights}


def test_missing_hair_is_no_colour(subject: Subject) -> None:
    avatar = subject.bundle.avatar
    group = torch.where(avatar.group == Group.HAIR, torch.full_like(avatar.group, int(Group.SKIN)), avatar.group)
    values = ColourMetric().evaluate(broken(subject, group=group))
    assert values["hair_colour.right"] == 0 and "hair_colour.read" not in values


def test_a_face_is_found_where_the_rig_has_it(subject: Subject) -> None:
    values = LandmarkMetric().evaluate(subject)
    assert values["found"] == 1 and values["distance"] < 0.03


def test_a_missing_face_is_caught(subject: Subject) -> None:
    flat = broken(subject, f_dc=torch.full_like(subject.bundle.avatar.f_dc, 0.5))
    assert LandmarkMetric().evaluate(flat)["found"] == 0
    articulation = ArticulationMetric().evaluate(flat)
    assert articulation == {"jaw.right": 0, "smile.right": 0, "blink.right": 0}


def test_a_shifted_face_is_caught(subject: Subject) -> None:
    """Landmarks of the rig and of the drawn face apart: all Gaussians moved by a tenth of the head."""
    avatar, frames = subject.bundle.avatar, subject.bundle.neutral
    shift = torch.tensor([0.06, 0.0, 0.0])
    local = (frames.rotation[avatar.binding].transpose(1, 2) @ shift) / frames.scale[avatar.binding][:, None]
    values = LandmarkMetric().evaluate(broken(subject, xyz=avatar.xyz + local))
    assert values["found"] == 0 or values["distance"] > 0.03


def test_the_face_follows_the_rig(subject: Subject) -> None:
    values = ArticulationMetric().evaluate(subject)
    assert [values[f"{name}.right"] for name in ("jaw", "blink", "smile")] == [1, 1, 1]


def test_a_frozen_face_is_caught(subject: Subject) -> None:
    still = frozen(subject, "face", "lips", "eyes", "mouth", "teeth", "tongue", "neck", "sockets")
    values = ArticulationMetric().evaluate(still)
    assert [values[f"{name}.right"] for name in ("jaw", "blink", "smile")] == [0, 0, 0]


def test_frozen_lids_are_caught(subject: Subject) -> None:
    still = frozen(subject, "face", "lids", "sockets")
    assert ArticulationMetric().evaluate(still)["blink.right"] == 0
    assert IntegrityMetric().evaluate(still)["lids"] < 0.7 < 0.9 < IntegrityMetric().evaluate(subject)["lids"]


def test_a_whole_avatar_is_whole(subject: Subject) -> None:
    values = IntegrityMetric().evaluate(subject)
    assert values["finite"] == 1 and values["holes"] < 0.005 and values["afloat"] == 0


def test_holes_are_caught(subject: Subject) -> None:
    opacity = subject.bundle.avatar.opacity.clone()
    cheek = subject.bundle.rig.canonical[subject.bundle.rig.faces].mean(1)[:, 0] > 0.04
    opacity[cheek[subject.bundle.avatar.binding]] = -8
    values = IntegrityMetric().evaluate(broken(subject, opacity=opacity))
    assert values["holes"] > 0.05 and values["faint"] > 0.01


def test_what_floats_is_caught(subject: Subject) -> None:
    xyz = subject.bundle.avatar.xyz.clone()
    hair = torch.nonzero(subject.bundle.avatar.group == Group.HAIR)[:, 0]
    xyz[hair[::2]] += torch.tensor([0.0, 40.0, 0.0])
    assert IntegrityMetric().evaluate(broken(subject, xyz=xyz))["afloat"] > 0.05


def test_values_that_are_not_finite_are_caught(subject: Subject) -> None:
    xyz = subject.bundle.avatar.xyz.clone()
    xyz[7] = float("nan")
    assert IntegrityMetric().evaluate(broken(subject, xyz=xyz))["finite"] < 1


def test_geometry_tells_groups_apart(rig: BuiltinRig) -> None:
    """Heads of known groups, read with the noise that the reader expects, and heads of swapped groups."""
    generator, right = torch.Generator().manual_seed(3), dict.fromkeys(GROUPS, 0)
    for _ in range(60):
        asked = {n: int(torch.randint(len(v), (1,), generator=generator)) for n, v in GROUPS.items()}
        words = [GROUPS[name][place] for name, place in asked.items()]
        shape = rig.sample_shape(*words, torch.randn(rig.n_shape, generator=generator))
        read = read_groups(rig, shape, NOISE * torch.randn(204, generator=generator))
        for name in GROUPS:
            right[name] += read[name] == asked[name]
    assert min(right.values()) >= 48


def test_a_head_of_another_group_is_caught(subject: Subject, rig: BuiltinRig) -> None:
    shape = rig.sample_shape("man", "child", "chubby", torch.zeros(rig.n_shape))[None]
    bundle = replace(subject.bundle, params=RigParams.neutral(rig).replace(shape=shape))
    told = {"gender": "man", "age": "child", "build": "chubby"}
    swapped = {"gender": "woman", "age": "old", "build": "thin"}
    for asked, right in ((told, 1), (swapped, 0)):
        values = GeometryMetric().evaluate(replace(subject, bundle=bundle, asked=asked))
        assert [values[f"{name}.right"] for name in GROUPS] == [right] * 3


def test_seeds_that_are_one_person_are_caught(subject: Subject, rig: BuiltinRig) -> None:
    metric = IdentityMetric()
    shape = rig.sample_shape("man", "old", "thin", torch.zeros(rig.n_shape))[None]
    params = subject.bundle.params.replace(shape=shape)
    neutral = bundle_frames(subject.bundle.facts, rig, params)
    other = replace(subject, bundle=replace(subject.bundle, params=params, neutral=neutral))
    dark = recoloured(other, Group.SKIN, SKIN["dark"])
    same = metric.summarise([measured(subject, metric, 1), measured(subject, metric, 2)]).figures
    apart = metric.summarise([measured(subject, metric, 1), measured(dark, metric, 2)]).figures
    assert all(figure.value == 0 for figure in same)
    shape_mean, _, picture_mean, _ = (figure.value for figure in apart)
    assert shape_mean > 0.02 and picture_mean > 0.1


class BrightnessReader(torch.nn.Module):
    """A reader that can be checked by hand: black shirt or white by the picture's lowest rows, all else unread."""

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        from ap3d.metrics.attribute_probe import READ

        logits = {name: torch.zeros(len(pictures), len(labels)) for name, labels in READ.items()}
        bright = pictures[:, :, -4:, 56:72].mean((1, 2, 3))
        logits["shirt"][:, 0], logits["shirt"][:, 1] = bright - 0.4, 0.4 - bright
        return logits


def test_swapped_attributes_are_caught(subject: Subject, tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    tools.__dict__["probe"] = BrightnessReader()
    dressed = replace(recoloured(subject, Group.CLOTHES, (0.08, 0.08, 0.09)), tools=tools)
    for asked, right in (("black", 1), ("white", 0)):
        values = AttributeMetric().evaluate(replace(dressed, asked={"shirt": asked}))
        assert values["shirt.right"] == right and values["shirt.front"] == 1
    found = AttributeMetric().summarise([Measured("x", "a man", 0, values)])
    assert found.figures[0].value == 0 and found.confusions[0].counts[0][1] == 1
