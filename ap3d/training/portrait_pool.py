"""A memory-mapped pool of rendered portraits that a producer fills while a trainer draws from it.

The producer renders chunk ``k`` from the seed ``(seed, k)`` alone, writes its rows, then its mark: killed anywhere, it
goes on with the first unmarked chunk and the pool comes out the same.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ap3d.diffusion.vocabulary import VIEWS
from ap3d.errors import DataFileError
from ap3d.training.attributes import EXPRESSIONS, FRAMINGS, PortraitAttributes
from ap3d.training.captions import LABELS

CHUNK = 64
_PERSON_FIELDS = ("gender", "age", "build", "skin", "hair_style", "hair_colour", "eye_colour", "shirt", "beard")

FRAMING_COLUMN = len(_PERSON_FIELDS) + 1  # of the codes


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    person: PortraitAttributes
    expression: str
    framing: str
    view: str

    def codes(self) -> list[int]:
        """The scene as small integers."""
        values = zip(_PERSON_FIELDS, astuple(self.person), strict=True)
        person = [LABELS[name].index(value) for name, value in values]
        return [*person, EXPRESSIONS.index(self.expression), FRAMINGS.index(self.framing), VIEWS.index(self.view)]

    @staticmethod
    def from_codes(codes: Sequence[int]) -> "Scene":
        """The inverse of :meth:`codes`."""
        person = {name: LABELS[name][int(code)] for name, code in zip(_PERSON_FIELDS, codes, strict=False)}
        rest = [int(code) for code in codes[len(_PERSON_FIELDS) :]]
        return Scene(PortraitAttributes(**person), EXPRESSIONS[rest[0]], FRAMINGS[rest[1]], VIEWS[rest[2]])  # type: ignore[arg-type]


class PortraitPool:
    """``capacity`` rows of ``images [N, S, S, 3]``, ``conditions [N, S, S, 6]`` (uint8) and ``scenes``.

    Args:
        folder: made when it does not exist.
        capacity: rows; a multiple of the chunk.
        size: pixels.
        seed: of the chunks.
    """

    def __init__(self, folder: Path, capacity: int = 24_576, size: int = 128, seed: int = 0) -> None:
        self.folder, self.capacity, self.size, self.seed = folder, -(-capacity // CHUNK) * CHUNK, size, seed
        folder.mkdir(parents=True, exist_ok=True)
        self._check_description()
        shape = (self.capacity, size, size)
        self.images = self._open("images", (*shape, 3), np.uint8)
        self.conditions = self._open("conditions", (*shape, 6), np.uint8)
        self.codes = self._open("codes", (self.capacity, len(_PERSON_FIELDS) + 3), np.int8)

    def __len__(self) -> int:
        """Rows that are complete."""
        try:
            return int((self.folder / "done").read_text()) * CHUNK
        except (FileNotFoundError, ValueError):
            return 0

    def scene(self, row: int) -> Scene:
        """What a row shows."""
        return Scene.from_codes(self.codes[row].tolist())

    def add_chunk(self, samples: Sequence[Any]) -> None:
        """Append one chunk of portrait samples, then mark it.

        Args:
            samples: ``CHUNK`` objects with image, condition, attributes, expression, framing and view.
        """
        start = len(self)
        for row, sample in enumerate(samples, start):
            scene = Scene(sample.attributes, sample.expression, sample.framing, sample.view)
            self.images[row], self.conditions[row], self.codes[row] = sample.image, sample.condition, scene.codes()
        mark = self.folder / f"done.{os.getpid()}"
        mark.write_text(str(start // CHUNK + 1))
        mark.replace(self.folder / "done")

    def fill(self, render: Callable[[np.random.Generator, int], Sequence[Any]], limit: int | None = None) -> None:
        """Render until the pool, or its first ``limit`` rows, are complete.

        Args:
            render: ``(rng, n) -> n samples``.
            limit: rows; the capacity where None.
        """
        limit = self.capacity if limit is None else min(limit, self.capacity)
        while len(self) < limit:
            rng = np.random.default_rng((self.seed, len(self) // CHUNK))
            self.add_chunk(render(rng, CHUNK))

    def wait_for(self, rows: int, alive: Callable[[], bool]) -> None:
        """Sleep until ``rows`` are complete.

        Raises:
            DataFileError: the producer is gone and they never will be.
        """
        while len(self) < rows:
            if not alive() and len(self) < rows:
                raise DataFileError(f"{self.folder} holds {len(self)} of {rows} portraits and no producer runs")
            time.sleep(1.0)

    def _check_description(self) -> None:
        description = {"capacity": self.capacity, "size": self.size, "seed": self.seed}
        path = self.folder / "pool.json"
        if not path.exists():
            path.write_text(json.dumps(description))
        elif json.loads(path.read_text()) != description:
            raise DataFileError(f"{self.folder} holds another pool ({path.read_text()}); delete it or choose another")

    def _open(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
        path = self.folder / f"{name}.npy"
        if not path.exists():
            partial = self.folder / f"{name}.{os.getpid()}.npy"
            np.lib.format.open_memmap(partial, "w+", dtype, shape).flush()
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(partial, path)
            partial.unlink()
        return np.load(path, mmap_mode="r+")
