"""Loops that numba compiles."""

from collections.abc import Callable
from typing import Any


def compile_loop(function: Callable[..., Any], **options: Any) -> Any:
    """Compiles a function on its first call; the machine code is kept on disk where a folder can be written.

    Args:
        function: Written for numba's `njit`.
        **options: Of `njit`.

    Returns:
        The compiled function. It lets go of the interpreter while it runs.
    """
    from numba import njit

    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # neither beside the function's file nor in the user's cache folder
        return njit(nogil=True, **options)(function)
