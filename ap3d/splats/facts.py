"""The content of ``avatar.json``."""

import json
from collections.abc import Mapping
from typing import Any

from ap3d.errors import DataFileError

SCHEMA_VERSION = 1


def check_facts(facts: Any, path: str) -> None:
    """Make sure that the content of an ``avatar.json`` can be used.

    Raises:
        DataFileError: it lacks fields or has a newer schema.
    """
    kinds = {"schema_version": int, "rig": str, "topology_sha256": str, "prompt": str, "metrics": dict, "groups": dict}
    if not isinstance(facts, dict) or not all(isinstance(facts.get(name), kind) for name, kind in kinds.items()):
        raise DataFileError(f"{path}/avatar.json is not an avatar's description")
    if facts["schema_version"] > SCHEMA_VERSION:
        raise DataFileError(
            f"{path} has schema {facts['schema_version']}, this version reads up to {SCHEMA_VERSION}: update ap3d"
        )


def facts_bytes(facts: Mapping[str, Any]) -> bytes:
    """The content of ``avatar.json``."""
    return (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
