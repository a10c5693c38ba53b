"""Budgets of the fast tests, and the models that several test folders share."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Seconds by the first folder below tests/, about three times what a quiet machine with two cores takes, since a busy
# one must pass too; the suite fails when a group takes longer.
BUDGETS = {
    "raster": 120, "rig": 90, "motion": 60, "portrait": 75, "splats": 60, "diffusion": 120, "cluster": 200, "jobs": 180,
    "end_to_end": 200, "training": 150, "importing": 60, "export": 100, "commands": 60, "metrics": 30, "perception": 45,
    "stages": 90,
    ".": 90,
}  # fmt: skip
OTHER_BUDGET = 30
_spent: defaultdict[str, float] = defaultdict(float)


def _group(path: str) -> str:
    parts = Path(path).parts
    return parts[1] if len(parts) > 2 else "."


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what each group spends; slow tests are outside the budget."""
    if "slow" not in report.keywords:
        _spent[_group(report.nodeid.split("::")[0])] += report.duration


def _over_budget() -> list[str]:
    factor = float(os.environ.get("AP3D_TEST_BUDGET_FACTOR", "1"))
    return [
        f"tests/{group} took {seconds:.0f} s of {BUDGETS.get(group, OTHER_BUDGET) * factor:.0f} s"
        for group, seconds in sorted(_spent.items())
        if seconds > BUDGETS.get(group, OTHER_BUDGET) * factor
    ]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """An overspent budget is a failure."""
    if exitstatus == 0 and _over_budget():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the time of each group and what went over."""
    shown = ", ".join(f"{group} {seconds:.0f} s" for group, seconds in sorted(_spent.items()))
    terminalreporter.write_line(f"time by folder: {shown}")
    for line in _over_budget():
        terminalreporter.write_line(f"over budget: {line}", red=True)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Processes share the cores: more threads would spin."""
    import torch

    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def rig():  # type: ignore[no-untyped-def]
    """The built-in rig."""
    from ap3d.rig import load_rig

    return load_rig("builtin")


@pytest.fixture(scope="session")
def neutral(rig):  # type: ignore[no-untyped-def]
    """Neutral parameters of the built-in rig."""
    from ap3d.rig.protocol import RigParams

    return RigParams.neutral(rig)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server process; its address stands in the environment while the session runs."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    from tests.s3_server import running

    with running() as address:
        yield address


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty root on each kind of storage."""
    if request.param == "local":
        return str(tmp_path / "root")
    if request.param == "memory":
        return f"memory://{tmp_path.name}-{id(request)}"
    request.getfixturevalue("s3_server")
    from tests.s3_server import new_bucket

    return f"{new_bucket()}/data"
