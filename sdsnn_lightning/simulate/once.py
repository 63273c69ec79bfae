"""Simulated sets on disk: made once, marked as simulated, and never in the place of anything else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.whole import sweep_leftovers, whole_folder

STAMP = "simulated.json"
"""The file that marks a folder as simulated and says by what and with which parameters."""


class Stamp(NamedTuple):
    """What tells one simulated set from another."""

    generator: str
    """Dotted name of the module that makes the set."""
    version: int
    """Raised whenever that makes other files of the same parameters."""
    parameters: dict[str, int | str]


def check_least(what: str, parameters: dict[str, int], **least: int) -> None:
    """Refuses parameters below their least values.

    Args:
        what: What is to be made, for the error.
        parameters: Values by name.
        **least: The smallest value of each that has one.

    Raises:
        ConfigError: At the first that is too small.
    """
    for key, smallest in least.items():
        if parameters[key] < smallest:
            raise ConfigError(f"{what}: {key} is {parameters[key]}; give {smallest} or more")


def make_once(root: Path, what: str, stamp: Stamp, write: Callable[[Path], None]) -> Path:
    """Makes a simulated set, unless it stands there. It appears whole or not at all; two processes make it once.

    Args:
        root: Folder of the set. One of the same generator with other parameters, or of another version, is replaced.
        what: What is made, for the errors.
        stamp: Of the set, written to `STAMP` in its folder.
        write: Fills the empty folder that it is given.

    Returns:
        `root`.

    Raises:
        DataError: If `root` holds anything but a set of this generator, which is left alone, or cannot be written.
    """
    from filelock import FileLock

    if read_stamp(root) == stamp._asdict():
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(root.with_name(f".{root.name}.lock")):
            if read_stamp(root) == stamp._asdict():  # another process made it while this one waited
                return root
            _check_replaceable(root, stamp.generator)
            sweep_leftovers(root)
            with whole_folder(root, replace=True) as aside:
                write(aside)
                (aside / STAMP).write_text(json.dumps(stamp._asdict(), indent=1))
    except OSError as error:
        raise DataError(
            f"{root}: cannot write the simulated {what} ({error.strerror or error}); "
            "free space there or set data.init_args.simulated_root to another folder"
        ) from error
    return root


def read_stamp(root: Path) -> dict[str, Any]:
    """What `STAMP` says in a folder.

    Args:
        root: The folder.

    Returns:
        The content, `generator` among it; nothing where there is no readable one.
    """
    try:
        found = json.loads((root / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_replaceable(root: Path, generator: str) -> None:
    """Refuses to touch what the generator did not make."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    found = read_stamp(root)
    if not found:
        raise DataError(f"{root}: holds no readable {STAMP}, so it was not simulated; give another folder")
    if found.get("generator") != generator:
        raise DataError(f"{root}: is a simulated set of another kind; delete it or give another folder")
