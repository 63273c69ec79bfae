"""Files and folders that are whole or not there: each is made aside and then takes its name in one step.

What is made for `path` lies beside it as `.<name>.partial-<8 digits>`: a name of its own for every writer, so two of
them never write into each other's file. A killed process leaves it behind; see `sweep_leftovers`. A folder is locked
while it is made, so that the next one who makes it can tell what a killed process left.
"""

import contextlib
import glob
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sdsnn_lightning.folder_locks import lock_folder, unlock_folder


def _aside(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}{suffix}")


@contextlib.contextmanager
def whole_path(path: Path, suffix: str = "") -> Iterator[Path]:
    """Gives a name aside, for what writes a file by name and not into an open one.

    Args:
        path: The file to be. Its folder exists. An older file is replaced.
        suffix: End of the name aside, for writers that look at it.

    Yields:
        The name aside, of a file that does not exist yet. The file takes the name `path` when the block ends well, and
        vanishes when it does not.

    Raises:
        OSError: If it cannot be written; it names `path`.
    """
    aside = _aside(path, suffix)
    try:
        yield aside
        os.replace(aside, path)
    except OSError as error:
        if str(error.filename) == str(aside):  # a name that means nothing to a person
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file aside that takes the name `path` when the block ends well, and vanishes when it does not.

    It is on the disk before it takes its name. Plain writes: on a full disk a write raises, where a writable memory map
    kills the process.

    Args:
        path: The file to be. Its folder exists. An older file is replaced.

    Yields:
        The file aside, open for reading and writing bytes.

    Raises:
        OSError: If it cannot be written; it names `path`.
    """
    with whole_path(path) as aside, aside.open("x+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.chmod(aside, 0o644)  # others who may read the set may read this


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one step.

    Args:
        path: The file, in UTF-8; its folder is made. An older file is replaced.
        text: Its whole content.

    Raises:
        OSError: If it cannot be written; it names `path` or a folder above.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_path(path) as aside:
        aside.write_text(text, encoding="utf-8")


def update_json(path: Path, **entries: Any) -> None:
    """Merges entries into a JSON file in one step.

    Args:
        path: The file; made, as its folder is, if it does not exist. A damaged one is kept as `<name>.damaged`, which a
            warning says, and a new one is begun: what took hours to compute is not lost for it.
        **entries: Replace the entries of the same name.

    Raises:
        OSError: As `write_text`.
    """
    content: Any = {}
    try:
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no names and values")
    except ValueError as error:
        content, damaged = {}, f"{path.name}.damaged"
        os.replace(path, path.with_name(damaged))
        warnings.warn(f"{path} is damaged ({error}): it is kept as {damaged}, and a new one is begun", stacklevel=2)
    write_text(path, json.dumps({**content, **entries}, indent=2))


@contextlib.contextmanager
def whole_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Makes a folder aside that takes the name `path` when the block ends well, and vanishes when it does not.

    Args:
        path: The folder to be; the one above it exists.
        replace: Delete what stands there first, at the very end. Else nothing may stand there but an empty folder.

    Yields:
        The folder aside, empty.

    Raises:
        OSError: If it cannot be made or named.
    """
    with folder_aside(path) as aside:
        yield aside
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        os.replace(aside, path)


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Makes a folder aside that vanishes when the block ends, and first deletes those that killed processes left.

    Args:
        path: What the folder is for; the one above it exists.

    Yields:
        The folder aside, empty.

    Raises:
        OSError: If it cannot be made.
    """
    for leftover in _leftovers(path):
        with contextlib.suppress(OSError), _held(leftover):
            if time.time() - leftover.stat().st_mtime > 60:  # else its maker may be about to lock it
                shutil.rmtree(leftover, ignore_errors=True)
    aside = _aside(path)
    aside.mkdir()
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks
                stack.enter_context(_held(aside))
            aside.chmod(0o755)  # as `whole_file`
            yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Locks a folder; raises what `lock_folder` does."""
    descriptor = lock_folder(folder)
    try:
        yield
    finally:
        unlock_folder(descriptor)


def _leftovers(path: Path) -> list[Path]:
    """What lies aside for this file or folder."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.partial-*"))


def sweep_leftovers(path: Path) -> None:
    """Deletes what killed processes left of a file or folder that they were making with this module.

    Args:
        path: The file or folder. The caller holds its lock, so nobody else is making it.
    """
    for leftover in _leftovers(path):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
