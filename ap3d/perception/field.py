"""What plug-ins share that need no weights: they give what the portrait itself knows."""

from dataclasses import dataclass
from typing import ClassVar, Self

from ap3d.errors import InputError


@dataclass(frozen=True)
class FieldModel:
    """Base of the offline defaults; each says in ``kind`` what it is in messages."""

    kind: ClassVar[str]
    name: str = "field"
    licence: str = "none needed"
    fingerprint: str = "field"

    @classmethod
    def load(cls, path: str | None = None, device: str = "cpu") -> Self:
        """Nothing to read.

        Raises:
            InputError: a path was given.
        """
        if path:
            raise InputError(f"{cls.kind} 'field' has no weights; write 'field' instead of 'field:{path}'")
        return cls()
