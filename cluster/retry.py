"""How often a portrait is tried again, by the kind of failure: what the machine did is not the portrait's fault."""

from dataclasses import dataclass, field

from cluster.executor import Outcome

_NEVER_AGAIN = ("InputError", "DataFileError", "MissingDependencyError")
_MEMORY = ("MemoryError", "OutOfMemoryError")


@dataclass(frozen=True)
class RetryPolicy:
    """Tries after the first, by kind of failure."""

    worker: int = 10
    memory: int = 1
    error: int = 1
    timeout: int = 1

    def budget(self, kind: str) -> int:
        """How many further tries this kind allows; 0 for what would fail the same way again."""
        return {"worker": self.worker, "memory": self.memory, "error": self.error, "timeout": self.timeout}.get(kind, 0)


@dataclass
class Tries:
    """What happened to one portrait so far."""

    attempts: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    def may_retry(self, kind: str, policy: RetryPolicy) -> bool:
        """Count a failure and tell whether the portrait is to be tried again."""
        self.failures[kind] = self.failures.get(kind, 0) + 1
        return self.failures[kind] <= policy.budget(kind)


def failure_kind(outcome: Outcome) -> str | None:
    """``worker``, ``memory``, ``timeout``, ``error``, or ``input``; None when nothing failed."""
    if outcome.lost:
        return outcome.lost
    if outcome.report["status"] != "failed":
        return None
    error_class = outcome.report.get("error_class")
    if error_class in _NEVER_AGAIN:
        return "input"
    return "memory" if error_class in _MEMORY else "error"
