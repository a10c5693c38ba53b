"""The ablation's variants are valid configurations of their own, and its table goes into the documentation once."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from ap3d.config import load_config
from ap3d.errors import InputError
from ap3d.stages.counting import counted_evaluations


@pytest.fixture(scope="module")
def ablation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablation", Path(__file__).parents[2] / "benchmarks" / "ablation.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("preset", ["smoke", "builtin"])
def test_every_variant_is_another_configuration(ablation: ModuleType, preset: str) -> None:
    configs = {name: load_config(preset, changes) for name, changes in ablation.variants(preset).items()}
    assert len({config.config_hash for config in configs.values()}) == len(configs)
    counted = {name: counted_evaluations(config) for name, config in configs.items()}
    assert all(counted["without ControlNet"][s].controlnet == 0 for s in ablation.GUIDED)
    assert counted["without refinement"]["refine"].unet == counted["without eyes and mouth"]["eyes"].unet == 0
    assert counted["SDS, not ISM"]["whole"].unet < counted["everything"]["whole"].unet
    assert counted[ablation.ALONE] == counted["everything"] == counted["bfloat16"]
    redrawn = counted["targets redrawn 4 times as often"]
    assert redrawn["refine"].unet == 4 * counted["everything"]["refine"].unet


def test_the_table_shows_what_differs_and_replaces_the_last_one(ablation: ModuleType, tmp_path: Path) -> None:
    figures = {"whole": {"a: x": 1.0, "b: y": 2.0}, "less": {"a: x": 1.0, "b: y": 0.123456, "c: z": 3.0}}
    text = ablation.table(figures, "About.")
    assert text.splitlines()[2:] == [
        "| variant | b: y | c: z |",
        "| --- | --- | --- |",
        "| whole | 2 |  |",
        "| less | 0.123 | 3 |",
    ]
    (tmp_path / "figures").mkdir()
    (tmp_path / "guidance.md").write_text("before\n<!-- ablation -->\n<!-- end of ablation -->\nafter\n")
    for _ in range(2):
        ablation.into_docs(text, Image.new("RGB", (8, 8)), tmp_path)
    page = (tmp_path / "guidance.md").read_text()
    assert page.count("| less |") == 1 and page.startswith("before\n") and page.endswith("\nafter\n")
    assert (tmp_path / "figures" / "ablation.jpg").exists()


def test_two_processes_share_the_prompts(ablation: ModuleType) -> None:
    assert [ablation.part_of(text) for text in ("1/1", "2/3")] == [(0, 1), (1, 3)]
    for wrong in ("0/2", "3/2", "two"):
        with pytest.raises(InputError, match="--part"):
            ablation.part_of(wrong)
    assert ablation.store_of("everything", "a").root == "a" != ablation.store_of(ablation.ALONE, "a").root


def test_costs_are_means_over_avatars_of_the_guided_stages(ablation: ModuleType) -> None:
    stage = {"unet_evaluations": 10, "controlnet_evaluations": 4, "flops": 2e12, "core_seconds": 3.0}
    row = {"stages": [{"name": "portrait", **stage}, {"name": "eyes", **stage}, {"name": "refine", **stage}]}
    costs = ablation.costs({"a": row, "b": row})
    assert (
        costs["cost: UNet evaluations"] == 20
        and costs["cost: TFLOP"] == 4
        and costs["cost: core-seconds of guidance"] == 6
    )
