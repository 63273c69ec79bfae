"""Refusals of a strategy's arguments, in the same words everywhere."""

from typing import TypeVar

from sdsnn_lightning.errors import ConfigError

Word = TypeVar("Word", bound=str)


def positive(value: float, key: str) -> float:
    """Refuses a number that is not positive.

    Args:
        value: The number.
        key: Names it in the message, `Class.argument`.

    Returns:
        The number.

    Raises:
        ConfigError: If it is not above 0.
    """
    if not value > 0:
        raise ConfigError(f"{key} is {value}; set it above 0")
    return value


def not_negative(value: float, key: str, most: float = float("inf")) -> float:
    """Refuses a number that is negative or above `most`; arguments and error as of `positive`."""
    if not 0 <= value <= most:
        raise ConfigError(f"{key} is {value}; set it to at least 0" + (f" and at most {most:g}" if most < 1e9 else ""))
    return value


def one_of(value: Word, choices: tuple[str, ...], key: str) -> Word:
    """Refuses a word that is none of the choices; arguments and error as of `positive`."""
    if value not in choices:
        raise ConfigError(f"{key} is {value!r}; choose one of {', '.join(choices)}")
    return value
