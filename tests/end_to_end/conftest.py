"""A whole avatar at the smoke preset with the shipped models, made once."""

from pathlib import Path

import pytest

from ap3d.config import load_config
from ap3d.pipeline import Generator, PortraitJob
from ap3d.storage import Store

PROMPT = "an old man with short gray hair, a beard and tan skin, wearing a blue shirt"


@pytest.fixture(scope="session")
def generator() -> Generator:
    """Resident models of the smoke preset."""
    return Generator(load_config("smoke"), threads=1)


@pytest.fixture(scope="session")
def made(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:  # type: ignore[type-arg]
    """The folder of a finished bundle, and the row."""
    root = tmp_path_factory.mktemp("dataset")
    row = generator.run(PortraitJob("old-man", PROMPT, 1), Store(str(root)), "first")
    assert row["status"] == "done", row["error_trace"] or row["error_message"]
    return root / row["uri_bundle"], row
