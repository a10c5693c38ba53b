"""Finding and building the kernels as a user's machine would."""

import subprocess
import sys
from pathlib import Path

import pytest

from ap3d.errors import InputError, MissingDependencyError
from ap3d.raster import library

SCRIPT = """
import sys
sys.modules["ap3d_kernels"] = None  # as where only the source tree was uploaded
from ap3d.raster.library import library
print(library()._name)
"""


def build_in(cache: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=Path(library.__file__).parents[2], text=True,
        env={"XDG_CACHE_HOME": str(cache), "PATH": "/usr/local/bin:/usr/bin:/bin"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_two_processes_build_the_cache_at_once_and_leave_one_file(tmp_path: Path) -> None:
    builders = [build_in(tmp_path) for _ in range(2)]
    paths = {builder.communicate(timeout=600)[0].strip() for builder in builders}
    assert len(paths) == 1 and Path(paths.pop()).is_file()
    assert sorted(path.suffix for path in (tmp_path / "ap3d").iterdir()) == [".lock", ".so"]


def test_without_a_compiler_one_line_says_what_to_install(tmp_path: Path) -> None:
    _, errors = build_in(tmp_path, PATH=str(tmp_path)).communicate(timeout=300)
    last = errors.strip().splitlines()[-1]
    assert "MissingDependencyError" in last and "install" in last


def test_a_failing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="with false failed"):
        library._cached()
    assert [path.name for path in (tmp_path / "ap3d").iterdir()] == ["build.lock"]


@pytest.mark.parametrize("text", ["0", "-1", "two", ""])
def test_thread_count_must_be_a_positive_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AP3D_THREADS", text)
    with pytest.raises(InputError, match="AP3D_THREADS"):
        library.thread_count()


def test_thread_count_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AP3D_THREADS", "3")
    assert library.thread_count() == 3
    monkeypatch.delenv("AP3D_THREADS")
    assert library.thread_count() >= 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_the_processor(files: dict[str, str], cores: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert library.container_cores(tmp_path) == cores


def test_an_installed_package_was_built_from_these_sources() -> None:
    kernels = pytest.importorskip("ap3d_kernels")
    assert kernels.LIBRARY.is_file()
    assert len(kernels.SOURCE_HASH) == len(library.source_hash()) == 64


FORK = """
import os
os.environ["AP3D_THREADS"] = "2"
import torch
from ap3d.cameras import orbit
from ap3d.raster.splats import Splats, rasterize_splats

g = torch.Generator().manual_seed(0)
cloud = Splats(*(torch.rand(500, *shape, generator=g) for shape in ((3,), (4,), (3,), (), (1, 3))))
camera = orbit([0.0], [0.0], torch.zeros(3), 4.0, 30.0, 64)
before = rasterize_splats(cloud, camera).color
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(before, rasterize_splats(cloud, camera).color) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert torch.equal(before, rasterize_splats(cloud, camera).color)
"""


def test_a_forked_child_and_the_exit_do_not_wait_for_threads_of_the_pool() -> None:
    root = Path(library.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", FORK], cwd=root, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
