"""ap3d: text prompts to animatable 3D Gaussian head avatars.

Importing this package is cheap: torch, diffusers and ray are imported by the modules that need them.
"""

__version__ = "0.1.0"
