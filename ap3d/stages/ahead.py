"""Things that a thread makes ahead of their use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Made = TypeVar("Made")


def made_ahead(make: Callable[[int], Made], numbers: Iterable[int], depth: int) -> Iterator[Made]:
    """``make(number)`` for each number in order.

    Args:
        make: must depend on its number alone.
        numbers: what to make.
        depth: how many results may wait; 0 makes each when it is asked for.
    """
    if depth == 0:
        yield from map(make, numbers)
        return
    waiting: deque[Future[Made]] = deque()
    # One thread: results come in order anyway, and more would fight with the rasterisers for cores.
    pool = ThreadPoolExecutor(1, "ahead")
    try:
        for number in numbers:
            waiting.append(pool.submit(make, number))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
