"""From what users write (YAML, dotted overrides) to frozen dataclasses, with errors that name the field."""

import dataclasses
import math
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ap3d.errors import InputError


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``FIELD=VALUE`` pairs of a command line, the values read as YAML.

    Raises:
        InputError: a pair without ``=`` or an unreadable value.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        import yaml

        name, separator, text = pair.partition("=")
        if not separator or not name.strip():
            raise InputError(f"--set takes FIELD=VALUE, got {pair!r}")
        try:
            values[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {name}: cannot read the value {text!r}") from error
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """The fields in a YAML file.

    Raises:
        InputError: it is unreadable or no mapping.
    """
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read configuration {path}: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"configuration {path} must hold a mapping of fields")
    return loaded


def merge(values: dict[str, Any], changes: dict[str, Any], prefix: str = "") -> None:
    """Put changes into nested values.

    Raises:
        InputError: a field is not among them, or is a section where a value is given.
    """
    for key, value in changes.items():
        if key not in values:
            raise InputError(f"unknown configuration field {prefix + str(key)!r}; known: {', '.join(values)}")
        if isinstance(values[key], dict):
            if not isinstance(value, dict):
                raise InputError(f"configuration field {prefix + key!r} has fields of its own; set one of them")
            merge(values[key], value, f"{prefix}{key}.")
        else:
            values[key] = value


def build(kind: Any, value: Any, name: str = "") -> Any:
    """A dataclass from nested plain values.

    Raises:
        InputError: a value is of another type than its field.
    """
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{k: build(hints[k], v, f"{name}.{k}".strip(".")) for k, v in value.items()})  # type: ignore[operator]
    return _convert(kind, value, name)


def _convert(kind: Any, value: Any, name: str) -> Any:
    if isinstance(kind, types.UnionType):
        if value is None or value == "none":
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise InputError(f"configuration field {name!r} must be a list, got {value!r}")
        item_kind = typing.get_args(kind)[0]
        return tuple(_convert(item_kind, item, name) for item in items)
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"configuration field {name!r} must be true or false, got {value!r}")
        return value
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise InputError(f"configuration field {name!r} must be a {kind.__name__}, got {value!r}")
    try:
        converted = kind(value)
        if kind is float and not math.isfinite(converted):
            raise ValueError("not finite")
        return converted
    except (TypeError, ValueError) as error:
        raise InputError(f"configuration field {name!r} must be a {kind.__name__}, got {value!r}") from error
