"""The table of export formats: names, file endings and axes."""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from ap3d.errors import InputError

AXES = ("y-up", "y-down", "z-up")


@dataclass(frozen=True)
class ExportFormat:
    """One format of Gaussians.

    Attributes:
        module: has ``write(splats, notes) -> bytes`` and ``read(data) -> Splats``, in the file's own axes and units.
        suffix: ending of a file's name.
        axes: what the format's viewers expect; see ``ap3d.export.axes``.
        axes_fixed: the format's specification fixes them.
        metres: lengths are metres, else the world's units.
        about: one line for the help.
    """

    module: str
    suffix: str
    axes: str
    axes_fixed: bool
    metres: bool
    about: str

    def load(self) -> ModuleType:
        """The format's module."""
        return import_module(self.module)


FORMATS = {
    "ply": ExportFormat("ap3d.export.ply", ".ply", "y-down", False, False, "3D Gaussian Splatting PLY"),
    "splat": ExportFormat(
        "ap3d.export.splat", ".splat", "y-down", False, False, "32 bytes a Gaussian, for web viewers"
    ),
    "spz": ExportFormat("ap3d.export.spz", ".spz", "y-up", True, False, "compressed Gaussians"),
    "glb": ExportFormat("ap3d.export.splat_glb", ".glb", "y-up", True, True, "glTF with KHR_gaussian_splatting"),
}
MESH_FORMAT = "mesh-glb"  # the rig's mesh, not Gaussians: ``ap3d.export.mesh_glb``
FORMAT_NAMES = (*FORMATS, MESH_FORMAT)


def export_format(name: str, axes: str | None = None) -> tuple[ExportFormat, str]:
    """A format of Gaussians by name and the axes to write.

    Raises:
        InputError: no such format, or axes that it cannot have.
    """
    if name not in FORMATS:
        raise InputError(f"unknown format {name!r}; there are: {', '.join(FORMAT_NAMES)}")
    chosen = FORMATS[name]
    if axes is not None and axes not in AXES:
        raise InputError(f"unknown axes {axes!r}; there are: {', '.join(AXES)}")
    if axes is not None and chosen.axes_fixed and axes != chosen.axes:
        raise InputError(f"the specification of {name} fixes its axes to {chosen.axes}; leave out --axes")
    return chosen, axes or chosen.axes
