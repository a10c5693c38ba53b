"""Numbering of the 478 points of the shipped face-landmark network, and its 70 landmarks of the rigs.

Facts of the published model (MediaPipe Face Mesh, Apache-2.0): which mesh points the refined parts replace, and which
of them stand where the iBUG landmarks are. "Right" and "left" are the subject's.
"""

import torch
from torch import Tensor

POINTS = 478  # 468 of the mesh, 5 of the right iris (centre first), 5 of the left

LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
    76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73, 72, 11, 302, 303, 304, 408,
    62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407,
)  # fmt: skip
RIGHT_EYE = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173,
    130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190,
    226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189,
    35, 124, 46, 53, 52, 65, 143, 111, 117, 118, 119, 120, 121, 128, 245, 156, 70, 63, 105, 66, 107, 55, 193,
)  # fmt: skip
LEFT_EYE = (
    263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398,
    359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414,
    446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442, 441, 413,
    265, 353, 276, 283, 282, 295, 372, 340, 346, 347, 348, 349, 350, 357, 465, 383, 300, 293, 334, 296, 336, 285, 417,
)  # fmt: skip
RIGHT_IRIS = (468, 469, 470, 471, 472)
LEFT_IRIS = (473, 474, 475, 476, 477)
REFINED = (LIPS, RIGHT_EYE, LEFT_EYE, RIGHT_IRIS, LEFT_IRIS)  # in the order of the network's outputs
EYE_CONTOUR, EYE_RINGS = 16, 48  # an eye's table begins with its contour; two rings of skin follow

# The rigs' 70 landmarks: 68 of iBUG, then the right and the left eye's centre.
IBUG = (
    127, 93, 58, 172, 136, 149, 148, 176, 152, 400, 377, 378, 365, 397, 288, 323, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
    468, 473,
)  # fmt: skip
IBUG_POINTS = 68  # of detectors that know no mesh


def ibug_points(points: Tensor) -> Tensor:
    """The rigs' 70 landmarks ``[70, D]`` among a detector's points ``[K, D]``: 478, or 68 of iBUG alone, whose eyes'
    centres are the middles of their outlines."""
    if len(points) != IBUG_POINTS:
        return points[list(IBUG)]
    return torch.cat([points, points[36:42].mean(0)[None], points[42:48].mean(0)[None]])
