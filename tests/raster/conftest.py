"""Lets every raster test run with the splat kernel held to one instruction set: AP3D_ISA=base, avx2 or avx512."""

import os
from collections.abc import Iterator

import pytest

INSTRUCTION_SETS = ("base", "avx2", "avx512")


def use_instruction_set(name: str) -> bool:
    """Hold the kernel to a set; False where this machine lacks it."""
    from ap3d.raster.library import library

    wanted = INSTRUCTION_SETS.index(name)
    return int(library().ap3d_splats_limit(wanted)) == wanted


@pytest.fixture(autouse=True, scope="session")
def _instruction_set_of_the_run() -> None:
    """What AP3D_ISA asks for; an impossible wish ends the run, so that no test passes on another set."""
    name = os.environ.get("AP3D_ISA")
    if name and not use_instruction_set(name):
        pytest.exit(f"this machine does not have AP3D_ISA={name}", returncode=4)


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each set in turn; the run's own afterwards."""
    if not use_instruction_set(request.param):
        pytest.skip(f"this machine does not have {request.param}")
    yield request.param
    use_instruction_set(os.environ.get("AP3D_ISA") or INSTRUCTION_SETS[-1])
