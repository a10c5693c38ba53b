"""How often a portrait is tried again, by the kind of failure: what the machine did is not the portrait's fault."""

from dataclasses import dataclass, field

from cluster.executor import Outcome

_NEVER_AGAIN = (
    "InputError", "DataFileError", "MissingDependencyError", "PortraitError", "NoFaceError", "RigFitError",
)  # fmt: skip
_MEMORY = ("MemoryError", "OutOfMemoryError")
_PRIOR = 0.01  # of a worker lost for other reasons, as if seen in one more try


@dataclass(frozen=True)
class RetryPolicy:
    """Tries after the first, by kind of failure.

    Attributes:
        worker: the worker or its machine was lost.
        memory: memory ran out, also in the smaller form.
        error: anything the portrait's code raised.
        timeout: a try or one of its stages took too long.
        storage: the storage failed; tries are put off, twice as long each time.
        innocent: how many portraits of a run may be called poison in expectation without being it.
    """

    worker: int = 10
    memory: int = 1
    error: int = 1
    timeout: int = 1
    storage: int = 4
    innocent: float = 0.01

    def budget(self, kind: str) -> int:
        """How many further tries this kind allows; 0 for what would fail the same way again."""
        budgets = {"worker": self.worker, "memory": self.memory, "error": self.error, "timeout": self.timeout}
        return (budgets | {"storage": self.storage}).get(kind, 0)


@dataclass
class Tries:
    """What happened to one portrait so far."""

    attempts: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    lost_at: set[str] = field(default_factory=set)

    def may_retry(self, kind: str, policy: RetryPolicy) -> bool:
        """Count a failure and tell whether the portrait is to be tried again."""
        self.failures[kind] = self.failures.get(kind, 0) + 1
        return self.failures[kind] <= policy.budget(kind)

    @property
    def storage_delay(self) -> float:
        """Seconds before the next try after the storage failed."""
        return min(30.0, 0.5 * 2.0 ** self.failures.get("storage", 0))


@dataclass
class Losses:
    """How often workers die in this run: tells a portrait that kills its workers from a cluster that loses them.

    Attributes:
        tries: tries that ended, of all portraits.
        died: those whose worker died while its machine lived.
    """

    tries: int = 0
    died: int = 0

    def is_poison(self, portrait: Tries, portraits: int, policy: RetryPolicy) -> bool:
        """Whether a portrait's workers died too often, in places that have only the portrait in common, for chance.

        With the share s of tries in which *other* portraits lost a worker, ``portraits * s**k`` of them would lose k
        in a row without being at fault. Where workers hardly ever die, two places are proof.
        """
        own = len(portrait.lost_at)
        if own < 2:
            return False
        share = (self.died - own + _PRIOR) / max(self.tries - portrait.attempts + 1, 1)
        return portraits * min(max(share, 0.0), 1.0) ** own < policy.innocent


def failure_kind(outcome: Outcome) -> str | None:
    """``worker``, ``memory``, ``timeout``, ``storage``, ``error``, or ``input``; None when nothing failed."""
    if outcome.lost:
        return outcome.lost
    if outcome.report["status"] != "failed":
        return None
    error_class = outcome.report.get("error_class")
    if error_class in _NEVER_AGAIN:
        return "input"
    if error_class == "RunError":
        return "storage"
    return "memory" if error_class in _MEMORY else "error"
