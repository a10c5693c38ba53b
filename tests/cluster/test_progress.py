"""What a user sees of a run: a table on a terminal, lines elsewhere; text from outside is never markup."""

import io
import time

import pytest
from rich.console import Console

from cluster.progress import LineReporter, LiveReporter, Progress, duration, make_reporter, summary_line

FAILED = {"face_id": "one", "status": "failed", "error_class": "InputError", "error_message": "[red]no[/red] [/x]"}
DONE = {"face_id": "two", "status": "done", "wall_s": 12.34}


def progress_of_five() -> Progress:
    progress = Progress(total=5, already_done=1, run_id="r")
    progress.begin()
    progress.done, progress.failed, progress.queued = 1, 1, 1
    progress.watch = lambda: {"worker 0": {"face_id": "three", "stage": "refine", "step": 3, "steps": 9}}
    progress.errors.append("one: [red]no[/red]")
    return progress


def test_lines_go_to_logs_and_a_live_table_to_terminals() -> None:
    log, terminal = Console(file=io.StringIO()), Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(make_reporter(progress_of_five(), log), LineReporter)
    live = make_reporter(progress_of_five(), terminal)
    live.close()
    assert isinstance(live, LiveReporter)


def test_lines_hold_the_result_and_the_reason_as_they_are() -> None:
    stream = io.StringIO()
    reporter = LineReporter(progress_of_five(), Console(file=stream, width=60))
    reporter.ended(DONE)
    reporter.ended(FAILED)
    first, second = stream.getvalue().splitlines()
    assert first.endswith("done   3/5  two  12.3 s")
    assert second.endswith("failed 3/5  one  InputError: [red]no[/red] [/x]")


def test_a_quiet_run_says_how_it_is_doing_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    reporter = LineReporter(progress_of_five(), Console(file=stream, width=200))
    reporter.update()
    assert not stream.getvalue()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 31)
    reporter.update()
    assert "2 done · 1 failed · 1 running · 1 queued" in stream.getvalue() and "left" in stream.getvalue()


def test_the_live_table_shows_workers_and_errors() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    reporter = LiveReporter(progress_of_five(), console)
    time.sleep(0.7)
    reporter.close()
    shown = stream.getvalue()
    assert "worker 0" in shown and "refine" in shown and "3/9" in shown and "one: [red]no[/red]" in shown


def test_the_estimate_leaves_out_what_needed_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(total=110, already_done=0, run_id="r")
    progress.failed = 100  # rejected before any worker started
    progress.begin()
    assert progress.remaining_seconds is None
    began = progress._began
    progress.done = 2
    monkeypatch.setattr(time, "monotonic", lambda: began + 60)
    assert progress.remaining_seconds == pytest.approx(240)
    assert progress.per_hour == pytest.approx(120)
    assert "120 avatars/h" in summary_line(progress)


@pytest.mark.parametrize("width", [80, 110])
def test_the_table_is_whole_at_usual_widths(width: int) -> None:
    progress = progress_of_five()
    long = {"face_id": "a-woman-with-long-red-hair-wearing-a-gre-0a1b2c3d", "stage": "initialise", "stage_s": 725.0}
    progress.watch = lambda: {f"worker {n}": {**long, "step": 1412, "steps": 2000} for n in range(100)}
    console = Console(file=io.StringIO(), force_terminal=True, width=width, record=True)
    reporter = LiveReporter(progress, console)
    console.print(reporter._render())
    reporter.close()
    text = console.export_text()
    assert "3/5 (60 %)" in text and "2 done · 1 failed · 100 running · 1 queued" in text
    assert "worker 23  a-woman" in text and "1412/2000" in text and "12 min 5 s" in text
    assert "and 76 more workers" in text and "one: [red]no[/red]" in text


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
