"""Where the benchmark keeps what it builds: outside the checkout, shared by all checkouts of a user."""

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ap3d" / "benchmarks"
ALTERNATIVES = Path(os.environ.get("AP3D_ALTERNATIVES") or CACHE / "alternatives")
