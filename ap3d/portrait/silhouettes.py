"""Where the bare rig covers a picture: foreground whatever a matte says."""

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.raster.mesh import rasterize_mesh
from ap3d.rig.protocol import Rig

MARGIN = 5  # pixels of the window that shrinks the outline: a painted one need not follow the rig exactly


def rig_silhouettes(rig: Rig, vertices: Tensor, cameras: Cameras) -> Tensor:
    """Pixels ``[B, 1, H, W]`` (bool) safely inside the outline of posed vertices ``[1, V, 3]``."""
    homogeneous = torch.nn.functional.pad(vertices, (0, 1), value=1.0)
    clip = homogeneous @ cameras.clip_matrices().transpose(1, 2)
    drawn = rasterize_mesh(clip, rig.faces, (cameras.height, cameras.width))[..., 3] > 0
    outside = torch.nn.functional.max_pool2d((~drawn).float()[:, None], MARGIN, 1, MARGIN // 2)
    return outside < 0.5
