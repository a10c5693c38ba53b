"""Avatars of other programs as bundles: GaussianAvatars and AnimPortrait3D."""

from ap3d.importing.imported import Imported, import_avatar

__all__ = ["Imported", "import_avatar"]
