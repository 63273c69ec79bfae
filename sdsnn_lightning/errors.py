"""Errors meant for people: one line that names the file or key, and the cure."""

import textwrap


class UserError(Exception):
    """A mistake the user can mend. The command line prints its one-line message without a traceback."""


class DataError(UserError):
    """Data on disk is missing, incomplete or corrupt. The message names the file and the cure."""


class ConfigError(UserError):
    """A configuration cannot work. The message names the key and the cure."""


class NonFiniteLossError(UserError):
    """A loss term became NaN or infinite. The message names the term and the step."""


class ProcessLostError(UserError):
    """A loader process or another process of a distributed run died. The message says how to go on."""


def first_line(error: object, most: int = 160) -> str:
    """The beginning of another library's message.

    Args:
        error: Whatever was raised, or its reason.
        most: Characters; what is longer is cut between two words.

    Returns:
        The first line of the message, or the error's type where it has none.
    """
    text = str(error).strip()
    return textwrap.shorten(text.splitlines()[0], most, placeholder=" ...") if text else type(error).__name__


def one_line(error: BaseException) -> str:
    """The message of an error on one line.

    Args:
        error: One that a loader process of torch hands over has that process's traceback in its message.

    Returns:
        The message without line breaks; of a handed-over error, what the original one said.
    """
    text = str(error).strip()
    if text.startswith("Caught ") and "Traceback" in text:
        name, _, said = text.splitlines()[-1].partition(": ")
        text = said or name
    return " ".join(text.split())
