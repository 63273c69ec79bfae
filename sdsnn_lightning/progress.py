"""A progress bar for what takes longer than people like to wait without a word."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

QUIET_SECONDS = 2.0
"""What is done sooner shows no bar."""

Item = TypeVar("Item")


def watched(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Passes items on and, after `QUIET_SECONDS`, shows on a terminal how many are done.

    Args:
        items: To pass on.
        description: Stands before the bar.
        total: Number of items.

    Yields:
        The items. The bar goes away when they end, or when the caller stops taking them.

    Example:
        >>> sum(watched([1, 2, 3], "Adding", total=3))
        6
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task(description, total=total)
    began, shown = time.monotonic(), False
    try:
        for item in items:
            yield item
            progress.advance(task)
            if not shown and time.monotonic() - began > QUIET_SECONDS:
                shown = True
                progress.start()
    finally:
        if shown:
            progress.stop()
