"""Morphable models: parameters in, vertices and landmarks out. ``load_rig("builtin")`` needs no file of the user's."""

from typing import TYPE_CHECKING

from ap3d.errors import InputError

if TYPE_CHECKING:
    from ap3d.rig.protocol import Rig

RIGS = ("builtin",)

__all__ = ["RIGS", "load_rig"]


def load_rig(spec: str = "builtin") -> "Rig":
    """Load a rig by name.

    Raises:
        InputError: no rig of that name.
        DataFileError: its file is missing or damaged.
    """
    if spec == "builtin":
        from ap3d.rig.builtin import BuiltinRig

        return BuiltinRig.load()
    raise InputError(f"unknown rig {spec!r}; there is: {', '.join(RIGS)}")
