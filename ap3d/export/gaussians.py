"""A posed bundle as a file of Gaussians in any format, and such a file back in the world."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch

from ap3d.errors import InputError
from ap3d.export.axes import from_file, to_file
from ap3d.export.formats import export_format
from ap3d.motion import Motion
from ap3d.motion.arkit import ARKIT_NAMES
from ap3d.motion.expressions import COMBINATIONS, action_names
from ap3d.raster.splats import Splats, require_finite
from ap3d.rig.protocol import Rig, RigParams
from ap3d.splats.bundle import Bundle


@torch.no_grad()
def export_gaussians(bundle: Bundle, params: RigParams, name: str, axes: str | None = None) -> bytes:
    """The avatar at a pose (a batch of one) in a format of :data:`ap3d.export.FORMATS`.

    Raises:
        InputError: no such format, or axes that it cannot have.
        NumericalError: the bundle holds values that are not finite.
    """
    chosen, axes = export_format(name, axes)
    splats = bundle.pose(params)
    for field, tensor in splats.tensors().items():
        require_finite(f"{field} of the avatar", tensor)
    scale = 1 / float(params.scale[0, 0]) if chosen.metres else 1.0
    data: bytes = chosen.load().write(to_file(splats, axes, scale), notes_of(bundle.facts))
    return data


def import_gaussians(data: bytes, name: str, axes: str | None = None, units_per_metre: float = 1.0) -> Splats:
    """The Gaussians of an exported file in world axes and units.

    Args:
        data: content of the file.
        name: its format.
        axes: those it was written with, by default the format's.
        units_per_metre: the rig's scale, for formats in metres.

    Raises:
        DataFileError: not such a file, or damaged.
    """
    chosen, axes = export_format(name, axes)
    splats: Splats = chosen.load().read(data)
    return from_file(splats, axes, 1 / units_per_metre if chosen.metres else 1.0)


def notes_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a file that can hold notes says about the avatar."""
    names = ("prompt", "seed", "rig", "ap3d_version", "licences")
    return {name: facts[name] for name in names if name in facts}


def with_expression(rig: Rig, params: RigParams, text: str) -> RigParams:
    """A head (a batch of one) with the expression ``NAME[=VALUE],...``.

    Names are ARKit's actions, the combinations of :data:`ap3d.motion.expressions.COMBINATIONS`, and the rig's own
    coefficients. Rigs of the FLAME family are given the nearest shapes and angles.

    Raises:
        InputError: a name that the rig does not have, or a value that is no number.
    """
    actions, own = action_names(rig), list(rig.expression_names)
    strengths, coefficients = torch.zeros(1, len(actions)), torch.zeros(1, rig.n_expression)
    for part in text.split(","):
        name, _, amount = (piece.strip() for piece in part.partition("="))
        strength = _number(name, amount or "1")
        if name in COMBINATIONS or name in actions:
            for action, value in COMBINATIONS.get(name, {name: 1.0}).items():
                strengths[0, actions.index(action)] += strength * value
        elif name in own:
            coefficients[0, own.index(name)] += strength
        else:
            raise InputError(_unknown(rig, name, [*COMBINATIONS, *actions, *own]))
    angles = params.neck, params.head, params.jaw, params.eyes, params.eyelids
    posed = Motion(strengths, *angles, 1.0, "arkit52", actions).to(rig).params(params, 0)
    return posed.replace(expression=posed.expression + coefficients)


def _unknown(rig: Rig, name: str, known: list[str]) -> str:
    """The message: what is written alike, and in short what there is, for all names are up to 166."""
    close = get_close_matches(name, known, 3, 0.5)
    meant = f"; like it: {', '.join(close)}" if close else ""
    own = "" if rig.expression_basis == "arkit52" else f", {rig.expression_names[0]} to {rig.expression_names[-1]}"
    return (
        f"rig {rig.name} has no expression {name!r}{meant}; there are {', '.join(COMBINATIONS)}, "
        f"ARKit's actions ({ARKIT_NAMES[0]}, jawOpen, ...){own}"
    )


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -10 <= value <= 10:
        raise InputError(f"the strength of expression {name!r} must be a number such as 0.7, got {text!r}")
    return value
