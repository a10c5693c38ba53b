"""The shipped example: what it weighs, and how near its pictures are to the person whom it shows."""

import torch

from ap3d.checksums import BUILTIN
from ap3d.portrait.trigrid import load_trigrid
from ap3d.portrait.view_sets import mesh_views
from ap3d.rig.builtin import BuiltinRig
from ap3d.training.example_portrait import EXAMPLE, example_truth, prompt_of

FOLDER = BUILTIN / "portrait3d"


def test_files_are_small_and_belong_together() -> None:
    files = sorted(p.name for p in FOLDER.iterdir())
    assert files == ["000.png", "000.pth", "000.txt", "README.md", "decoder.safetensors"]
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) <= 3e6
    assert (FOLDER / "000.txt").read_text().strip() == prompt_of(EXAMPLE)


def test_pictures_are_those_of_the_person() -> None:
    portrait = load_trigrid(str(FOLDER / "000.pth"), resolution=128)
    cameras = mesh_views(64).cameras[[8, 10, 12]]
    ours, true = portrait.render(cameras), example_truth(BuiltinRig.load()).render(cameras)
    for i in range(3):
        error = (ours.color[i] - true.color[i]).square().mean()
        assert float(-10 * error.log10()) > 22, i
    solid, there = ours.alpha > 0.5, true.alpha > 0.5
    assert float((solid & there).sum() / (solid | there).sum()) > 0.95
    assert ours.depth is not None and true.depth is not None
    both = (ours.alpha > 0.99) & (true.alpha > 0.99)
    # A density is seen some way into: at most a centimetre, in world units.
    assert float((ours.depth - true.depth)[both].abs().median()) < 0.028
    assert torch.isfinite(ours.color).all()
