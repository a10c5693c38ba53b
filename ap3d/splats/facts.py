"""The content of ``avatar.json``."""

import json
from collections.abc import Mapping
from typing import Any

from ap3d.errors import DataFileError

SCHEMA_VERSION = 2  # 2: Gaussians on several triangles, in BINDING_FILE
OLDEST_SCHEMA = 1
BINDING_FILE = "binding.safetensors"
HISTORIC_ORDER, ORDER = "local*triangle", "triangle*local"  # of the rotations
REVERSED = "reversed"  # frames are those of triangles with their second and third corner exchanged
_CHOICES = {"rotation_order": (None, HISTORIC_ORDER, ORDER), "winding": (None, REVERSED)}


def check_facts(facts: Any, path: str) -> None:
    """Make sure that the content of an ``avatar.json`` can be used.

    Raises:
        DataFileError: it lacks fields, or its schema is one that this version does not read.
    """
    kinds = {"schema_version": int, "rig": str, "topology_sha256": str, "prompt": str, "metrics": dict, "groups": dict}
    if not isinstance(facts, dict):
        raise DataFileError(f"{path}/avatar.json is not an avatar's description")
    wrong = [name for name, kind in kinds.items() if not isinstance(facts.get(name), kind)]
    if wrong:
        raise DataFileError(f"{path}/avatar.json is not an avatar's description: {', '.join(wrong)} missing or wrong")
    version = facts["schema_version"]
    if version > SCHEMA_VERSION:
        raise DataFileError(f"{path} has schema {version}, this version reads up to {SCHEMA_VERSION}: update ap3d")
    if version < OLDEST_SCHEMA:
        raise DataFileError(f"{path} has schema {version}, this version reads from {OLDEST_SCHEMA} on: make it anew")
    for name, choices in _CHOICES.items():
        if facts.get(name) not in choices:
            raise DataFileError(f"{path}/avatar.json has the {name} {facts[name]!r}, which this version does not know")


def named_files(facts: Mapping[str, Any]) -> list[str]:
    """The files that hold the avatar, besides ``avatar.json``."""
    several = isinstance(facts.get("triangles"), int) and facts["triangles"] > 1
    return ["splats.ply", "rig.safetensors", *([BINDING_FILE] if several else [])]


def facts_bytes(facts: Mapping[str, Any]) -> bytes:
    """The content of ``avatar.json``."""
    return (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
