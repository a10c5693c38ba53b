"""The built-in training's pool of rendered portraits as triples, and which kind of data an address holds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ap3d.errors import DataFileError, InputError
from ap3d.training.captions import CaptionWriter
from ap3d.training.denoising import to_chw
from ap3d.training.portrait_pool import PortraitPool
from ap3d.training.triples import Triples


class TripleSource(Protocol):
    """Pictures, conditions and captions by number."""

    bad_shards: dict[str, str]
    bad_rows: dict[int, str]

    def __len__(self) -> int:
        """How many there are."""
        ...

    def order(self, epoch: int, seed: int) -> NDArray[np.int64]:
        """All numbers in the random order of one epoch."""
        ...

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, list[str]]:
        """Pictures ``[B, 3, S, S]`` and conditions ``[B, C, S, S]`` in 0..1, and captions."""
        ...

    def place(self, number: int) -> str:
        """Where a row lies, for messages."""
        ...


class PoolTriples:
    """Rows of a pool; a row's caption is worded anew for every seed, never within a training.

    Args:
        pool: complete rows are used, those that are rendered later are not.
        seed: of the wordings.
    """

    def __init__(self, pool: PortraitPool, seed: int = 0) -> None:
        self.pool, self.seed, self.rows = pool, seed, len(pool)
        self.bad_shards: dict[str, str] = {}
        self.bad_rows: dict[int, str] = {}

    def __len__(self) -> int:
        return self.rows

    def order(self, epoch: int, seed: int) -> NDArray[np.int64]:
        """All rows in the random order of one epoch."""
        return np.random.default_rng((seed, epoch)).permutation(self.rows)

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, list[str]]:
        """Pictures ``[B, 3, S, S]`` and conditions ``[B, C, S, S]`` in 0..1, and captions."""
        index = np.asarray(rows)
        return to_chw(self.pool.images[index]), to_chw(self.pool.conditions[index]), [self._caption(r) for r in rows]

    def place(self, number: int) -> str:
        """Where a row lies, for messages."""
        return f"{self.pool.folder}, row {number}"

    def _caption(self, row: int) -> str:
        scene, writer = self.pool.scene(int(row)), CaptionWriter(np.random.default_rng((self.seed, int(row))))
        return writer.write(
            scene.person, expression=scene.expression, framing=scene.framing, view=scene.view
        ).text  # fmt: skip


def open_triples(uri: str, size: int, channels: int, bad_share: float) -> TripleSource:
    """Shards (:class:`Triples`), or the local folder of a pool.

    Raises:
        InputError: nothing usable is there, or a pool of other sizes.
    """
    description = Path(uri) / "pool.json"
    if "://" in uri or not description.exists():
        return Triples(uri, size, channels, bad_share)
    try:
        pool = PortraitPool(Path(uri), **json.loads(description.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataFileError(f"{uri} is no pool of portraits ({error})") from error
    if (pool.size, pool.conditions.shape[3]) != (size, channels):
        raise InputError(
            f"the pool {uri} holds {pool.size} pixels and {pool.conditions.shape[3]} condition channels, "
            f"the model needs {size} and {channels}"
        )
    if not len(pool):
        raise InputError(f"the pool {uri} holds no portraits yet")
    return PoolTriples(pool)
