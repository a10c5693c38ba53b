"""The joints of SMPL-X and FLAME that a head rig moves, and where the others' weights go."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ARM_ANGLE = math.radians(60)  # of the A-pose, about z


@dataclass(frozen=True)
class MovingJoints:
    """Few joints for many: joint 0 is the resting body, the others follow in ``names``.

    Attributes:
        names: parameters of ``RigParams`` that turn joints 1.. (``left_eye``, ``right_eye`` are halves of ``eyes``);
            ``left_shoulder`` and ``right_shoulder`` stand still at the A-pose.
        sources: joint ids in the model's file.
        parents: ``1 + len(names)`` ids among these.
    """

    names: tuple[str, ...]
    sources: tuple[int, ...]
    parents: tuple[int, ...]

    def source(self, name: str) -> int:
        """The id of a joint in the model's file."""
        return self.sources[self.names.index(name)]

    def owners(self, parents: Sequence[int]) -> list[int]:
        """For each joint of the file, the one of these that it moves with."""
        out: list[int] = []
        for joint, parent in enumerate(parents):
            out.append(self.sources.index(joint) + 1 if joint in self.sources else out[parent] if parent >= 0 else 0)
        return out

    def resting_angles(self) -> list[tuple[float, float, float]]:
        """Axis-angle of joints 1.. that no parameter turns; zeros elsewhere."""
        turns = {"left_shoulder": -ARM_ANGLE, "right_shoulder": ARM_ANGLE}
        return [(0.0, 0.0, turns.get(name, 0.0)) for name in self.names]


_HEAD = ("neck", "head", "jaw", "left_eye", "right_eye")
MOVING_JOINTS = {
    "flame": MovingJoints(_HEAD, (0, 1, 2, 3, 4), (-1, 0, 1, 2, 2, 2)),
    "smplx": MovingJoints(
        (*_HEAD, "left_shoulder", "right_shoulder"), (12, 15, 22, 23, 24, 16, 17), (-1, 0, 1, 2, 2, 2, 0, 0)
    ),
}
