"""Finds the Gaussians and the rig's parameters of a finished avatar in the folder that its program left."""

from dataclasses import dataclass
from pathlib import Path

from ap3d.array_files import read_limited
from ap3d.errors import InputError

LARGEST_BYTES = 4 << 30
FLAME_PARAMS, SMPLX_PARAMS = "flame_param.npz", "fitted_params.pkl"
FINAL = ("full_pretrain/res/final/point_cloud.ply", "point_cloud.ply")


@dataclass(frozen=True)
class AvatarSource:
    """The two files of an avatar; ``params`` tells by its name which program wrote them."""

    gaussians: Path
    params: Path

    @property
    def from_gaussian_avatars(self) -> bool:
        """Whether GaussianAvatars wrote it; else AnimPortrait3D did."""
        return self.params.suffix == ".npz"


def find_source(path: str, params: str | None = None) -> AvatarSource:
    """The files of an avatar.

    Args:
        path: a PLY file, or a folder that holds one.
        params: ``flame_param.npz`` or ``fitted_params.pkl`` where it does not lie in or below the same folder.

    Raises:
        InputError: there is none, or more than one that it could be.
    """
    start = Path(path)
    if not start.exists():
        raise InputError(f"{path} does not exist; give the PLY of an avatar or the folder that holds it")
    gaussians = start if start.is_file() else _gaussians(start)
    if gaussians.suffix.lower() != ".ply":
        raise InputError(f"{path} is no PLY file; give the avatar's point_cloud.ply or its folder")
    folder = start if start.is_dir() else start.parent
    found = Path(params) if params is not None else _params(folder, gaussians.parent)
    if not found.is_file() or found.suffix not in (".npz", ".pkl"):
        raise InputError(f"--params must be a {FLAME_PARAMS} or {SMPLX_PARAMS}, got {params!r}")
    return AvatarSource(gaussians, found)


def read_file(path: Path) -> bytes:
    """The content of a file of an avatar.

    Raises:
        DataFileError: it cannot be read, or is too large to be what it should be.
    """
    return read_limited(path, LARGEST_BYTES, "this is no avatar's file")


def _gaussians(folder: Path) -> Path:
    """The final PLY: by the name it has in the programs' folders, of the highest iteration, or the only one."""
    for name in FINAL:
        found = sorted(folder.glob(f"**/{name}"), key=_iteration)
        if found and (len(found) == 1 or _iteration(found[-1]) > _iteration(found[-2])):
            return found[-1]
        if found:
            raise InputError(f"{folder} holds {len(found)} files {name}; name one of them")
    others = sorted(folder.glob("*.ply"))
    if len(others) != 1:
        raise InputError(f"{folder} holds {len(others) or 'no'} PLY files; name the avatar's own")
    return others[0]


def _iteration(path: Path) -> int:
    """The number of ``iteration_N``, the folder that trainers write into."""
    digits = path.parent.name.removeprefix("iteration_")
    return int(digits) if digits.isascii() and digits.isdigit() else -1


def _params(folder: Path, beside: Path) -> Path:
    for name in (FLAME_PARAMS, SMPLX_PARAMS):
        if (beside / name).is_file():
            return beside / name
        found = sorted(folder.glob(f"**/{name}"))
        if len(found) == 1:
            return found[0]
    raise InputError(f"{folder} holds no {FLAME_PARAMS} or {SMPLX_PARAMS} (or several); name it with --params")
