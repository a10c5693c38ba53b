"""Runs the raster tests with kernels built under AddressSanitizer and UndefinedBehaviorSanitizer.

python -m tests.raster.sanitized [pytest options]       needs g++ with its sanitizer libraries (Debian: part of g++)
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
# The compiled package, if installed, is hidden: the kernels are built anew with these flags, in their own cache.
RUN = "import sys; sys.modules['ap3d_kernels'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def runtime(name: str) -> str:
    """Path of a sanitizer's library, which has to be in the process before Python's allocator is used."""
    found = subprocess.run(["g++", f"-print-file-name={name}.so"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def main() -> None:
    """Become the test process."""
    environment = os.environ | {
        "CXX": f"g++ {FLAGS}",
        "XDG_CACHE_HOME": str(ROOT / "build" / "sanitized"),
        "LD_PRELOAD": f"{runtime('libasan')} {runtime('libubsan')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself leaks at exit
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "AP3D_TEST_BUDGET_FACTOR": "20",
    }
    options = sys.argv[1:] or ["tests/raster", "-q", "--deselect", "tests/raster/test_library.py"]
    os.chdir(ROOT)
    # Reports come from outside Python: pytest must leave the file descriptors alone.
    common = ["-c", RUN, "-p", "no:cacheprovider", "--capture=sys"]
    os.execve(sys.executable, [sys.executable, *common, *options], environment)


if __name__ == "__main__":
    main()
