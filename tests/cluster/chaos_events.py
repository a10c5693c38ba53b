"""What the workers of :mod:`tests.cluster.chaos` told: tries under way, tries that died, stages made twice."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import psutil


class Events:
    """Follows the file that all workers append to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self.open: dict[int, tuple[str, str]] = {}  # by process: the try it works on
        self.begun: set[tuple[str, str]] = set()
        self.statuses: dict[tuple[str, str], str] = {}
        self.done: set[str] = set()
        self.stages_begun: Counter[tuple[str, str]] = Counter()  # by face and stage
        self.committed: set[tuple[str, str]] = set()
        self.remade = 0  # stages begun although they had been committed

    def read(self) -> None:
        """Take in what was appended since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def prune(self) -> None:
        """Forget tries whose process is gone."""
        for pid in [pid for pid in self.open if not psutil.pid_exists(pid)]:
            del self.open[pid]

    def _take(self, event: dict[str, Any]) -> None:
        key, face = (event["face"], event["attempt"]), event["face"]
        if event["event"] == "begin":
            self.open[event["pid"]] = key
            self.begun.add(key)
        elif event["event"] == "stage":
            self.stages_begun[face, event["stage"]] += 1
            self.remade += (face, event["stage"]) in self.committed and face not in self.done
        elif event["event"] == "committed":
            self.committed.add((face, event["stage"]))
        else:
            self.open.pop(event["pid"], None)
            self.statuses[key] = event["status"]
            if event["status"] == "done":
                self.done.add(face)

    @property
    def died(self) -> set[tuple[str, str]]:
        """Tries that gave no answer and are not under way; exact only when the run is over."""
        return self.begun - self.statuses.keys() - set(self.open.values())

    @property
    def died_share(self) -> float:
        """Tries that died, of all that are over."""
        return len(self.died) / max(len(self.died) + len(self.statuses), 1)

    @property
    def storage_errors(self) -> int:
        """Tries that a storage error ended."""
        return sum(status == "RunError" for status in self.statuses.values())

    def redone(self) -> int:
        """Stages begun again because an earlier begin never reached its commit."""
        return sum(count - 1 for count in self.stages_begun.values())
