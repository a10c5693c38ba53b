"""Motions that drive an avatar: one schema, and a reader a format."""

from ap3d.motion.schema import Motion

__all__ = ["Motion"]
