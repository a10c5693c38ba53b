"""The first interrupt asks the run to drain; the second ends the process at once."""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

_HANDLED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Remembers the first SIGINT or SIGTERM.

    Ray replaces the handlers when it starts, so :meth:`install` is called again after that.

    Attributes:
        received: number of the first signal, or None.
        on_first: called inside the handler; must be safe there.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.on_first: Callable[[], None] | None = None
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Take over SIGINT and SIGTERM; only the main thread can."""
        for number in _HANDLED:
            previous = signal.signal(number, self._on_signal)
            self._previous.setdefault(number, previous)

    def restore(self) -> None:
        """Give the signals back to whoever had them first."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    @property
    def exit_status(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return 128 + (self.received or 0)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        if self.on_first is not None:
            self.on_first()
