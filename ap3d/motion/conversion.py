"""A motion in another rig's expression basis: what has a published linear map is converted, the rest is named."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.motion.arkit import POSE_ACTIONS, angles
from ap3d.motion.schema import Motion
from ap3d.rig.protocol import Rig

_MOVES = 1e-4  # smaller coefficients move nothing that can be seen


def converted(motion: Motion, rig: Rig) -> Motion:
    """See :meth:`Motion.to`."""
    own, wanted = motion.expression_basis, rig.expression_basis
    if own == wanted:
        return _matched(motion, rig) if motion.expression_names and rig.expression_names else _resized(motion, rig)
    if own == "arkit52":
        return _to_angles(motion, rig)
    if wanted == "arkit52":
        return _without_expression(motion, rig)
    raise InputError(
        f"the motion's expression is in {own} coefficients, rig {rig.name} takes {wanted}: the two bases differ and "
        "have no linear map. If the file was tracked with the other version, say so with --basis"
    )


def _matched(motion: Motion, rig: Rig) -> Motion:
    """Same basis, named coefficients: columns in the rig's order."""
    names = tuple(rig.expression_names)
    if motion.expression_names == names:
        return motion
    column = {name: i for i, name in enumerate(motion.expression_names)}
    zero = torch.zeros(len(motion))
    expression = torch.stack([motion.expression[:, column[n]] if n in column else zero for n in names], 1)
    return replace(motion, expression=expression, expression_names=names).with_notes(
        _said(f"actions that rig {rig.name} does not have were dropped", _moving(motion, set(column) - set(names))),
        _said("actions that the motion does not have stay at rest", [n for n in names if n not in column]),
    )


def _resized(motion: Motion, rig: Rig) -> Motion:
    """Same basis, coefficients by rank: cut, or filled up with zeros."""
    have, want = motion.expression.shape[1], rig.n_expression
    if have == want:
        return motion
    expression = torch.zeros(len(motion), want)
    expression[:, : min(have, want)] = motion.expression[:, :want]
    lost = have > want and float(motion.expression[:, want:].abs().max()) > _MOVES
    return replace(motion, expression=expression, expression_names=()).with_notes(
        f"expression coefficients {want} to {have - 1} were dropped: rig {rig.name} has {want}" if lost else "",
        f"the motion has {have} of the rig's {want} expression coefficients; the others stay 0" if have < want else "",
    )


def _to_angles(motion: Motion, rig: Rig) -> Motion:
    """ARKit actions on a rig of the FLAME family: jaw, gaze and lids as angles, the rest by the rig's fitted axes."""
    jaw, eyes, lids = angles(motion.expression, motion.expression_names)
    expression, kept = _fitted(motion, rig)
    moving = _moving(motion, set(motion.expression_names) - set(POSE_ACTIONS))
    shaped, lost = [n for n in moving if n in kept], [n for n in moving if n not in kept]
    return replace(
        motion, expression=expression, jaw=motion.jaw + jaw, eyes=motion.eyes + eyes,
        eyelids=(motion.eyelids + lids).clamp(0, 1), expression_basis=rig.expression_basis, expression_names=(),
    ).with_notes(
        "jawOpen, eyeBlink* and eyeLook* became jaw, lid and eye angles",
        _said(f"actions became the nearest shapes in {rig.expression_basis}, fitted on this head", shaped),
        _said(f"actions without a linear map to {rig.expression_basis} were dropped", lost),
    )  # fmt: skip


def _fitted(motion: Motion, rig: Rig) -> tuple[Tensor, tuple[str, ...]]:
    """Coefficients ``[T, E]`` of the actions that the rig has axes for, and the names of these."""
    names, axes = getattr(rig, "arkit_names", ()), getattr(rig, "arkit_axes", None)
    found = [(i, names.index(n)) for i, n in enumerate(motion.expression_names) if n in names]
    if axes is None or not found:
        return torch.zeros(len(motion), rig.n_expression), ()
    own, row = (list(ids) for ids in zip(*found, strict=True))
    return motion.expression[:, own] @ axes[row], names


def _without_expression(motion: Motion, rig: Rig) -> Motion:
    """A FLAME motion on an ``arkit52`` rig: pose, jaw, eyes and lids work through its double controls."""
    names = tuple(rig.expression_names)
    count = int((motion.expression.abs().amax(0) > _MOVES).sum()) if motion.expression.shape[1] else 0
    sideways = float(motion.jaw[:, 1:].abs().max()) > 0.02
    return replace(
        motion, expression=torch.zeros(len(motion), len(names)), expression_basis="arkit52", expression_names=names
    ).with_notes(
        f"{count} {motion.expression_basis} expression coefficients were dropped: they have no linear map to ARKit "
        "actions; head, neck, jaw, eyes and lids are used" if count else "",
        "sideways jaw angles were dropped" if sideways and rig.name == "builtin" else "",
    )  # fmt: skip


def _moving(motion: Motion, names: Iterable[str]) -> list[str]:
    """Those of some coefficients that are not zero throughout, sorted."""
    chosen = set(names)
    moves = motion.expression.abs().amax(0) > _MOVES
    return sorted(n for i, n in enumerate(motion.expression_names) if n in chosen and bool(moves[i]))


def _said(sentence: str, names: list[str]) -> str:
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{sentence}: {shown}" if names else ""
