"""The 52 ARKit actions in the expression axes of a body model.

No published map leads from ARKit to FLAME. The built-in rig's actions are shapes, though: they are carried over by the
registration of the two heads, and the coefficients that come closest to each shape are its image, with FLAME's unit
normal prior on coefficients (the axes are scaled to unit variance). Jaw, lid and gaze actions are left to the angles.
"""

import numpy as np

from ap3d.rig.atlas import Registration, atlas

ERROR = 0.004  # metres of a vertex that weigh as much as one standard deviation of a coefficient
_ANGLES = ("jawOpen", "eyeBlink", "eyeLook", "tongueOut")


def fit_arkit_axes(
    registration: Registration, axes: np.ndarray, size: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Coefficients of every action.

    Args:
        registration: the head on the built-in one.
        axes: ``[V, 3, E]`` expression axes, metres.
        size: ``[3]`` lengths of this head for one of the built-in head along x, y, z.

    Returns:
        Names of the actions and coefficients ``[A, E]`` at their full strength.
    """
    rig = atlas().rig
    rows = [i for i, name in enumerate(rig.expression_names) if not name.startswith(_ANGLES)]
    displaced = rig.expression_axes()[rows].numpy().astype(float)  # [A, V', 3]
    face = (registration.canonical[:, 2] > 0.0) & (registration.canonical[:, 1] > -0.13)
    wanted = registration.transfer(displaced.transpose(1, 0, 2))[face] * size  # [N, A, 3]
    system = axes[face].astype(float).reshape(-1, axes.shape[2])
    target = wanted.transpose(0, 2, 1).reshape(len(system), -1)
    gram = system.T @ system + ERROR**2 * np.eye(axes.shape[2])
    return tuple(rig.expression_names[i] for i in rows), np.linalg.solve(gram, system.T @ target).T
