"""Motions that drive an avatar: one schema, a reader a format, and motions made from nothing or from sound."""

from ap3d.motion.named import load_motion
from ap3d.motion.reading import read_motion
from ap3d.motion.schema import Motion

__all__ = ["Motion", "load_motion", "read_motion"]
