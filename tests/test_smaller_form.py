"""A stage that runs out of memory is made once more in the preset's smaller form, and the row says so."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ap3d import pipeline
from ap3d.config import Config, load_config
from ap3d.diffusion.cost import CostMeter
from ap3d.pipeline import Generator
from ap3d.portrait_job import PortraitJob
from ap3d.stages.base import StageContext, StageResult
from ap3d.storage import Store


class Stage:
    """Needs memory for every view of a step; holds one view, or none."""

    version = 1
    inputs: tuple[str, ...] = ()
    starts = ("text", "portrait3d", "object")

    def __init__(self, name: str, holds: int) -> None:
        self.name, self.holds = name, holds
        self.views: list[int] = []

    def settings(self, config: Config) -> Any:
        return [config.initialise]

    def run(self, context: StageContext) -> StageResult:
        self.views.append(context.config.initialise.views_per_step)
        if self.views[-1] > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return StageResult({"avatar.json": b"{}"})


@pytest.fixture
def generator() -> Generator:
    """A generator without models."""
    made = Generator.__new__(Generator)
    made.config = load_config("smoke", {"initialise.views_per_step": 4})
    models = SimpleNamespace(device="cpu", dtype=torch.float32, forget_prompts=lambda: None, meter=CostMeter())
    made.resources = SimpleNamespace(models=models, device="cpu", fingerprints={})  # type: ignore[assignment]
    return made


def run(generator: Generator, root: Path, attempt: str = "000001-00", **options: Any) -> dict[str, Any]:
    return generator.run(PortraitJob("a", "a man"), Store(str(root)), attempt, **options)


def test_only_the_stage_that_ran_out_of_memory_shrinks(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (Stage("initialise", holds=4), Stage("whole", holds=1), Stage("publish", holds=4))
    monkeypatch.setattr(pipeline, "STAGES", stages)
    row = run(generator, tmp_path)
    assert row["status"] == "done" and row["metrics"]["stages_in_smaller_form"] == 1
    assert [stage.views for stage in stages] == [[4], [4, 1], [4]]
    assert row["config_hash"] == generator.config.config_hash


def test_a_stage_finished_in_the_smaller_form_is_not_made_again(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (Stage("whole", holds=1), Stage("publish", holds=0))
    monkeypatch.setattr(pipeline, "STAGES", stages)
    row = run(generator, tmp_path)
    assert row["status"] == "failed" and row["error_class"] == "OutOfMemoryError"
    stages[1].holds = 1
    row = run(generator, tmp_path, "000001-01", smaller=True)
    assert row["status"] == "done" and stages[0].views == [4, 1] and stages[1].views == [4, 1, 1]


def test_the_chunks_of_a_batch_shrink_until_they_fit() -> None:
    from ap3d.diffusion.sampling import in_chunks

    sizes: list[int] = []
    batch = torch.arange(11.0)[:, None]

    def chunk(part: slice) -> torch.Tensor:
        sizes.append(len(batch[part]))
        if len(batch[part]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch[part]

    assert torch.equal(in_chunks(chunk, 11, 8), batch) and sizes == [8, 4, 2, 2, 2, 2, 2, 1]
