"""One Ray for all tests of the cluster; workers and subprocesses find the stand-in pipeline on their path."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(ROOT)])
sys.path[:0] = [p for p in (str(HERE),) if p not in sys.path]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on this machine with two CPUs and no GPU, whatever the machine has."""
    import ray

    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., int]:
    """Runs ``generate`` on lines of prompts with the stand-in pipeline, into ``tmp_path / "out"``."""
    from cluster.run import GenerateOptions, generate
    from cluster.sizing import WorkerOptions

    def run(*prompts: str, workers: int | None = None, **options: Any) -> int:
        file = tmp_path / "prompts.txt"
        file.write_text("\n".join(prompts) + "\n")
        given = {"out": str(tmp_path / "out"), "preset": "smoke", "pipeline": "stand_in:load", **options}
        sizes = WorkerOptions(workers=workers, threads_per_worker=1)
        return generate(GenerateOptions(prompts=str(file), sizes=sizes, **given))

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """Reads ``avatars.parquet`` of ``tmp_path / "out"`` as an outside reader would."""
    import pyarrow.parquet as pq

    return lambda: pq.read_table(tmp_path / "out" / "avatars.parquet").to_pylist()
