"""How many processor cores there are to use, and reading ahead in threads."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Number of processor cores this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], at_once: int, workers: int | None = None
) -> Iterator[Result]:
    """Calls a function that lets go of the interpreter, as decoding does, in threads, and yields in order.

    Args:
        function: Called once an item.
        items: Taken one by one, at most `at_once` ahead of what was yielded.
        at_once: Most results that are being made or wait to be taken; bounds memory.
        workers: Number of threads; the standard library's choice where None.

    Yields:
        The result of every item, in the items' order. Where the function raises, its error comes in the item's turn;
        what has not begun by then is not begun any more.

    Example:
        >>> list(read_ahead(abs, [3, -2, 1], at_once=2))
        [3, 2, 1]
    """
    pool = ThreadPoolExecutor(workers)
    ahead: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(ahead) == at_once:
                yield ahead.popleft().result()
            ahead.append(pool.submit(function, item))
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
