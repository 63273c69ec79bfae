"""The processor cores there are to use, and processes and threads that work on them."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sdsnn_lightning.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")
_KILLED = "a working process was killed, as the system does it where memory is short; free some, and start again"


def usable_cores() -> int:
    """Number of processor cores this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Starts processes that work for this one, and end with it, also where it is killed.

    Args:
        count: How many.

    Yields:
        The pool. What has not begun when the block ends is cancelled.

    Raises:
        DataError: If one of them dies.
    """
    # spawn, not fork: the caller may hold threads (torch, loggers) that do not survive a fork
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_become_worker)
    try:
        yield pool
    except BrokenExecutor as error:
        raise DataError(_KILLED) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _become_worker() -> None:
    """Ctrl-C reaches every process of a terminal; the workers end when the caller shuts them down, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_starter, daemon=True).start()


def _end_with_starter() -> None:
    """Without it, the workers of a killed process wait for ever for more to do: each holds the queue open for all."""
    starter = multiprocessing.parent_process()
    if starter is not None:
        starter.join()
        os._exit(1)


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
