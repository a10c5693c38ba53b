"""Portrait3D's results: pyramid tri-grids (Wu et al. 2024, "Portrait3D"), read, rendered and meshed.

The frame is the project's world frame: Portrait3D's box of 0.7 SMPL metres, three times as large, the origin at the
neck joint of the mean SMPL body, y up, the face towards +z, the subject's left at +x.
"""

from ap3d.portrait.trigrid.portrait import TriGridPortrait
from ap3d.portrait.trigrid.reading import load_trigrid, read_prompt

__all__ = ["TriGridPortrait", "load_trigrid", "read_prompt"]
