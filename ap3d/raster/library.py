"""Finds, or builds once, the C library behind the CPU rasterisers, and says how many threads it may use.

The library has a plain C interface: no torch or Python headers, loaded with ctypes. It comes from the installed
package ``ap3d_kernels`` when that was built from the very sources beside this file, else it is compiled into the
user's cache, which is what a source tree uploaded by ``ray job submit --working-dir`` needs.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ap3d.errors import InputError, MissingDependencyError

try:
    import fcntl
except ImportError:  # not on this system: builders at once then each build, and the last one wins
    fcntl = None  # type: ignore[assignment]

SOURCE_DIRECTORY = Path(__file__).parent / "csrc"
COMPILER_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=default")
# These are compiled once for each instruction set, and one is chosen when the library is loaded; see csrc/simd.h.
ISA_SOURCES = ("lanes", "tiles")
INSTRUCTION_SETS = {
    "x86_64": {
        "base": (),
        "avx2": ("-mavx2", "-mfma"),
        "avx512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma"),
    },
}


# What allocates; csrc answers OUT_OF_MEMORY, or with a null pointer, where memory is short.
ALLOCATING = (
    *(f"ap3d_splats_{name}" for name in ("project", "project_backward", "composite", "composite_backward")),
    *("ap3d_splats_pose", "ap3d_splats_pose_backward"),
    *(f"ap3d_mesh_{name}{way}" for name in ("rasterize", "interpolate", "texture", "antialias")
      for way in ("", "_backward")),
    "ap3d_mesh_topology",
)  # fmt: skip
OUT_OF_MEMORY = -1


def thread_count() -> int:
    """Threads for one kernel call: ``AP3D_THREADS``, else the CPUs that this process, or its container, may use."""
    text = os.environ.get("AP3D_THREADS")
    if text is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, container_cores() or cores)
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"AP3D_THREADS must be a whole number of at least 1, got {text!r}")
    return int(text)


@functools.cache
def container_cores(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """CPU time that Linux grants this container (cgroup version 2 or 1), in whole cores; None: no limit is set."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, round(int(quota) / int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):  # "max", or no such limit on this system
        return None


def source_hash() -> str:
    """Sha256 over the names and digests of the C++ sources; CMakeLists.txt computes the same."""
    sources = sorted(p for p in SOURCE_DIRECTORY.iterdir() if p.suffix in (".cpp", ".h"))
    lines = "".join(f"{p.name}:{hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in sources)
    return hashlib.sha256(lines.encode()).hexdigest()


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded kernel library; its functions raise MemoryError where memory is short.

    Raises:
        MissingDependencyError: neither an installed ``ap3d_kernels`` nor a C++ compiler was found.
    """
    loaded = ctypes.CDLL(str(_installed() or _cached()))
    loaded.ap3d_splats_composite.restype = ctypes.c_void_p
    for name in ALLOCATING:
        getattr(loaded, name).errcheck = _answer
    return loaded


def _answer(result: Any, function: Any, arguments: tuple[Any, ...]) -> Any:
    if result is None or result == OUT_OF_MEMORY:
        raise MemoryError(f"{function.__name__} ran out of memory: pass fewer cameras, Gaussians or pixels in one call")
    return result


def _installed() -> Path | None:
    try:
        import ap3d_kernels  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    return ap3d_kernels.LIBRARY if source_hash() == ap3d_kernels.SOURCE_HASH else None


def _cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ap3d"
    target = cache / f"kernels-{source_hash()[:16]}-{platform.system()}-{platform.machine()}.so".lower()
    if target.exists():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "build.lock").open("a")
        build_directory = tempfile.mkdtemp(prefix="build-", dir=cache)
    except OSError as error:
        raise MissingDependencyError(
            f"cannot write the kernel cache {cache} ({error.strerror}); set XDG_CACHE_HOME or install ap3d_kernels"
        ) from None
    with lock:
        try:
            if fcntl:  # the other workers of this machine wait for the first one's build
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                os.replace(_compile(Path(build_directory)), target)
        finally:
            shutil.rmtree(build_directory, ignore_errors=True)
    return target


def _compile(directory: Path) -> Path:
    """Compile every source in ``csrc``, the inner loops once for each instruction set, and link them."""
    compiler = _compiler()
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    sets = INSTRUCTION_SETS.get(machine, {"base": ()})
    commands, objects = [], []
    for source in sorted(SOURCE_DIRECTORY.glob("*.cpp")):
        for name, flags in sets.items() if source.stem in ISA_SOURCES else [("base", ())]:
            objects.append(str(directory / f"{source.stem}-{name}.o"))
            options = [*COMPILER_FLAGS, *flags, f"-DAP3D_ISA={name}"]
            commands.append([*compiler, *options, "-c", str(source), "-o", objects[-1]])
    with ThreadPoolExecutor(thread_count()) as workers:
        list(workers.map(_run, commands))
    result = directory / "kernels.so"
    _run([*compiler, "-shared", "-pthread", *objects, "-o", str(result)])
    return result


def _compiler() -> list[str]:
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        words = name.split()
        if words and shutil.which(words[0]):
            return words
    raise MissingDependencyError(
        "the CPU rasteriser is not built and no C++ compiler was found: install the ap3d wheel, or g++ or clang++"
    )


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        line = next((text for text in done.stderr.splitlines() if "error" in text), done.stderr.strip()[:200])
        raise MissingDependencyError(f"building the CPU rasteriser with {command[0]} failed: {line}")
