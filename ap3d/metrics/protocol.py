"""What a metric is: numbers of one avatar, and how the numbers of many become figures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ap3d.metrics.subject import Subject

Values = Mapping[str, float | list[float]]


@dataclass(frozen=True)
class Measured:
    """The numbers of one avatar by one metric.

    Attributes:
        face_id: which avatar.
        prompt: what it was made from.
        seed: of its portrait.
        values: numbers, and lists of numbers that are only compared with those of other avatars.
    """

    face_id: str
    prompt: str
    seed: int
    values: Values


@dataclass(frozen=True)
class Figure:
    """One number about all avatars.

    Attributes:
        name: what was measured.
        value: the number.
        count: of avatars that it comes from.
        target: what it should reach, None where it is only reported.
        at_least: whether the target is a lower limit.
        chance: what guessing would give.
    """

    name: str
    value: float
    count: int
    target: float | None = None
    at_least: bool = True
    chance: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True)
class Confusion:
    """How often each asked value was read as each value: ``counts[asked][read]``."""

    name: str
    labels: tuple[str, ...]
    counts: list[list[int]]


@dataclass(frozen=True)
class Summary:
    """What a metric says about all avatars."""

    figures: list[Figure] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)


class Metric(Protocol):
    """One way of measuring avatars; it holds no state."""

    @property
    def name(self) -> str:
        """Name in the table of metrics and of the folder of records."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever equal avatars would get other numbers."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Networks that it reads with, by their names in :class:`ap3d.metrics.subject.Tools`."""
        ...

    def evaluate(self, subject: "Subject") -> Values:
        """The numbers of one avatar; what cannot be measured on it is absent."""
        ...

    def summarise(self, measured: Sequence[Measured]) -> Summary:
        """Figures of all avatars."""
        ...


def scalars(measured: Iterable[Measured], key: str) -> list[float]:
    """The values of one key, of the avatars that have it."""
    found = [m.values[key] for m in measured if key in m.values]
    return [float(v) for v in found if not isinstance(v, list)]


def mean_figure(
    name: str, measured: Sequence[Measured], key: str, target: float | None = None, *, at_least: bool = True,
    chance: float | None = None,
) -> list[Figure]:  # fmt: skip
    """The mean of a key as a list of one figure, or none where no avatar has it."""
    values = scalars(measured, key)
    return [Figure(name, sum(values) / len(values), len(values), target, at_least, chance)] if values else []


def confusion(name: str, labels: Sequence[object], measured: Sequence[Measured], asked: str, read: str) -> Confusion:
    """Count pairs of two keys that hold positions in ``labels``."""
    counts = [[0] * len(labels) for _ in labels]
    for m in measured:
        if asked in m.values and read in m.values:
            row, column = (int(scalars([m], key)[0]) for key in (asked, read))
            counts[row][column] += 1
    return Confusion(name, tuple(map(str, labels)), counts)
