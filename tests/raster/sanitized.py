"""Runs the raster tests with kernels built under AddressSanitizer and UndefinedBehaviorSanitizer, or ThreadSanitizer.

python -m tests.raster.sanitized [--races] [pytest options]     needs g++ with its sanitizer libraries (Debian: in g++)
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
RACE_FLAGS = "-fsanitize=thread -g"
RACE_TESTS = ["tests/raster/test_limits.py", "-q", "-k", "many_python_threads or two_threads"]
# The compiled package, if installed, is hidden: the kernels are built anew with these flags, in their own cache.
RUN = "import sys; sys.modules['ap3d_kernels'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def runtime(name: str) -> str:
    """Path of a sanitizer's library, which has to be in the process before Python's allocator is used."""
    found = subprocess.run(["g++", f"-print-file-name={name}.so"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def main() -> None:
    """Become the test process."""
    races = sys.argv[1:2] == ["--races"]
    libraries = ("libtsan",) if races else ("libasan", "libubsan")
    environment = os.environ | {
        "CXX": f"g++ {RACE_FLAGS if races else FLAGS}",
        "XDG_CACHE_HOME": str(ROOT / "build" / ("races" if races else "sanitized")),
        "LD_PRELOAD": " ".join(map(runtime, libraries)),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself leaks at exit
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "exitcode=66",
        "PYTHONMALLOC": "malloc",
        "AP3D_TEST_BUDGET_FACTOR": "20",
    }
    usual = RACE_TESTS if races else ["tests/raster", "-q", "--deselect", "tests/raster/test_library.py"]
    options = sys.argv[1 + races :] or usual
    os.chdir(ROOT)
    # Reports come from outside Python: pytest must leave the file descriptors alone.
    common = ["-c", RUN, "-p", "no:cacheprovider", "--capture=sys"]
    os.execve(sys.executable, [sys.executable, *common, *options], environment)


if __name__ == "__main__":
    main()
