"""How a run is doing: counts, a live table on a terminal, plain lines elsewhere, a snapshot for other processes."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

LINE_SECONDS = 30.0
SHOWN_WORKERS = 24


class Progress:
    """Counts of one run; the driver changes them, reporters and the lease's heartbeat read them in their threads.

    Attributes:
        watch: tells what the workers are doing just now; called from any thread.
    """

    def __init__(self, total: int, already_done: int, run_id: str) -> None:
        self.total, self.already_done, self.run_id = total, already_done, run_id
        self.done = self.failed = self.retried = 0
        self.queued = total - already_done
        self.watch: Callable[[], dict[str, dict[str, Any]]] = dict
        self.errors: deque[str] = deque(maxlen=5)
        self._started = self._began = time.monotonic()
        self._ended_before = 0

    def begin(self) -> None:
        """Workers start now: pace and estimate count from here."""
        self._began, self._ended_before = time.monotonic(), self.done + self.failed

    @property
    def running(self) -> dict[str, dict[str, Any]]:
        """By worker name, what each is doing just now."""
        return self.watch()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    @property
    def per_hour(self) -> float:
        """Finished avatars an hour of this run."""
        return 3600 * self.done / max(time.monotonic() - self._began, 1e-9)

    @property
    def remaining_seconds(self) -> float | None:
        """Estimate from the pace so far; None before the first portrait ended."""
        paced = self.done + self.failed - self._ended_before
        left = self.total - self.already_done - self.done - self.failed
        return left * (time.monotonic() - self._began) / paced if paced else None

    def snapshot(self) -> dict[str, Any]:
        """Plain values for ``jobs.status``."""
        names = ("run_id", "total", "already_done", "done", "failed", "retried", "queued", "per_hour")
        return {
            **{name: getattr(self, name) for name in names},
            "seconds": self.seconds,
            "remaining_seconds": self.remaining_seconds,
            "running": self.running,
            "errors": list(self.errors),
        }


class Reporter(Protocol):
    """Shows a run to its user."""

    def ended(self, row: Mapping[str, Any]) -> None:
        """A portrait got its row."""
        ...

    def say(self, message: str) -> None:
        """Something worth a line happened."""
        ...

    def update(self) -> None:
        """Called about once a second."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class LineReporter:
    """One line an event and a summary now and then: for logs."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._said = time.monotonic()

    def ended(self, row: Mapping[str, Any]) -> None:
        """A line with the portrait's result."""
        self.say(result_line(self._progress, row))

    def say(self, message: str) -> None:
        """The message with the time."""
        self._said = time.monotonic()
        self._console.print(f"{time.strftime('%H:%M:%S')} {message}", markup=False, highlight=False, soft_wrap=True)

    def update(self) -> None:
        """A summary when nothing was said for a while."""
        if time.monotonic() - self._said > LINE_SECONDS:
            self.say(summary_line(self._progress))

    def close(self) -> None:
        """Nothing to end."""


class LiveReporter:
    """A table that redraws itself in its own thread, also while this thread makes a portrait."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress, self._console = progress, console
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=2, transient=True)
        self._live.start()

    def ended(self, row: Mapping[str, Any]) -> None:
        """A line above the table."""
        self.say(result_line(self._progress, row))

    def say(self, message: str) -> None:
        """The message above the table."""
        self._console.print(message, markup=False, highlight=False)

    def update(self) -> None:
        """Nothing: the table redraws itself."""

    def close(self) -> None:
        """Remove the table."""
        self._live.stop()

    def _render(self) -> RenderableType:
        running = self._progress.running
        parts = [_head(self._progress), _workers(running, self._console.width)]
        if len(running) > SHOWN_WORKERS:
            parts.append(Text(f"and {len(running) - SHOWN_WORKERS} more workers", style="dim"))
        if self._progress.errors:
            parts.append(Text("last failures", style="bold dim"))
        parts += [Text(line, style="red", overflow="ellipsis", no_wrap=True) for line in self._progress.errors]
        return Group(*parts)


def _head(progress: Progress) -> RenderableType:
    """The bar with its share and the time left, and the counts below."""
    ended, total = progress.already_done + progress.done + progress.failed, max(progress.total, 1)
    left = progress.remaining_seconds
    head = Table.grid(padding=(0, 2))
    text = f"{ended}/{progress.total} ({100 * ended // total} %)"
    text += f" · about {duration(left)} left" if left is not None else ""
    head.add_row(ProgressBar(total=total, completed=ended, width=24), Text(text, style="bold"))
    return Group(head, Text(summary_line(progress, with_left=False), overflow="ellipsis", no_wrap=True), Text(""))


def _workers(running: Mapping[str, dict[str, Any]], width: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    table.add_column("worker", no_wrap=True, min_width=9)
    table.add_column("portrait", no_wrap=True, overflow="ellipsis", max_width=max(12, width - 64))
    table.add_column("stage", no_wrap=True, min_width=10)
    table.add_column("", min_width=10, max_width=10)
    table.add_column("step", justify="right", no_wrap=True, min_width=7)
    table.add_column("in it", justify="right", no_wrap=True, min_width=6)
    for name, worker in islice(running.items(), SHOWN_WORKERS):
        step, steps, seconds = worker.get("step", 0), worker.get("steps"), worker.get("stage_s")
        table.add_row(
            name,
            Text(str(worker.get("face_id") or "")),
            Text(str(worker.get("stage", ""))),
            ProgressBar(total=steps, completed=step, width=10) if steps else "",
            f"{step}/{steps}" if steps else "",
            duration(seconds) if seconds else "",
        )
    return table


def make_reporter(progress: Progress, console: Console) -> Reporter:
    """A live table on a terminal, lines elsewhere."""
    return LiveReporter(progress, console) if console.is_terminal else LineReporter(progress, console)


def summary_line(progress: Progress, with_left: bool = True) -> str:
    """Counts, pace and, if wanted, the time left in one line."""
    left = progress.remaining_seconds
    busy = sum(1 for worker in progress.running.values() if worker.get("face_id"))
    parts = [
        f"{progress.already_done + progress.done} done",
        f"{progress.failed} failed",
        f"{busy} running",
        f"{progress.queued} queued",
        f"{progress.per_hour:.0f} avatars/h" if progress.done else "",
        f"{progress.retried} tried again" if progress.retried else "",
        f"{duration(left)} left" if with_left and left is not None else "",
    ]
    return " · ".join(p for p in parts if p)


def result_line(progress: Progress, row: Mapping[str, Any]) -> str:
    """How one portrait ended."""
    count = f"{progress.already_done + progress.done + progress.failed}/{progress.total}"
    if row["status"] == "done":
        return f"done   {count}  {row['face_id']}  {row.get('wall_s') or 0:.1f} s"
    return f"failed {count}  {row['face_id']}  {error_line(row)}"


def error_line(row: Mapping[str, Any]) -> str:
    """Class and message of a failed row."""
    return f"{row.get('error_class')}: {row.get('error_message')}"[:300]


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
