"""Errors that a user can act on.

Every message says what was wrong with which input and what to do about it, in one line, and never holds a password.
"""

from ap3d.redaction import redacted


class Ap3dError(Exception):
    """Base of all errors raised on purpose; the command line prints it as one line, without a traceback."""

    exit_status = 2

    def __init__(self, *args: object) -> None:
        super().__init__(*(redacted(a) if isinstance(a, str) else a for a in args))


class InputError(Ap3dError):
    """A prompt, file, option or configuration value is unusable."""


class DataFileError(InputError):
    """A file is missing, truncated, of the wrong kind, or fails its checksum."""


class MissingDependencyError(InputError):
    """An optional package or compiled part is absent; the message names what to install."""


class NumericalError(Ap3dError):
    """A computation produced or was given values that are not finite."""

    exit_status = 1


class RunError(Ap3dError):
    """The run as a whole cannot go on (storage full, cluster lost, lease taken over)."""

    exit_status = 3


class PortraitError(Ap3dError):
    """A starting portrait that can be read but not used; the message says why."""

    exit_status = 1


class NoFaceError(PortraitError):
    """No face was found in a portrait's views."""


class RigFitError(PortraitError):
    """The rig does not come close enough to a portrait's face."""


class StorageFullError(RunError):
    """The storage holds no more: what any portrait writes next fails as well."""
