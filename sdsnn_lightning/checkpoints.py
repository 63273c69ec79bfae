"""Reading checkpoints: safe loading, and one-line errors that name what differs."""

import contextlib
import io
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from sdsnn_lightning.errors import ConfigError, first_line

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
"""The newest state of a run, the one before it, and that of the best validation, in the run's folder `checkpoints`."""


def load_checkpoint(path: Path, what: str) -> dict[str, Any]:
    """Loads a checkpoint without running code from it (`weights_only=True`).

    Args:
        path: The file.
        what: Names the file's role in an error.

    Returns:
        The checkpoint's content, on the CPU.

    Raises:
        ConfigError: If the file does not exist, is truncated, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise ConfigError(f"{what} does not exist; train it first or give another path")
    try:
        return _read(path)
    except Exception as error:
        raise _unreadable(what, error) from None


def usable_checkpoint(path: Path) -> Path:
    """The checkpoint a run can go on from: `path`, or where that is a damaged `last.ckpt` a good one of the same run.

    That is the state saved before it, `previous.ckpt`, or else `best.ckpt`. Which one is said aloud. A run that goes on
    from an earlier state draws the same numbers again and ends with the same weights.

    Args:
        path: The file asked for.

    Returns:
        `path` unless it is called `last.ckpt`, exists and cannot be read, while one of the others can.
    """
    if path.name != LAST or not path.is_file():
        return path
    damage = _damage(path)
    if damage is None:
        return path
    for other in (path.with_name(PREVIOUS), path.with_name(BEST)):
        if other.is_file() and _damage(other) is None:
            rank_zero_warn(f"{path} is damaged ({damage}): going on from {other}, an earlier state of the same run")
            return other
    return path


def _read(path: Path) -> dict[str, Any]:
    """Reads a checkpoint; raises whatever torch does, and ValueError for a wrong checksum or nothing by name."""
    _check_sums(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__} instead of values by name")
    return content


def _check_sums(path: Path) -> None:
    """Looks at the checksums in the file, which torch writes but does not look at: a flipped bit is a wrong weight."""
    if zipfile.is_zipfile(path):  # what is none is left to torch
        with zipfile.ZipFile(path) as content:
            bad = content.testzip()
        if bad is not None:
            raise ValueError(f"the checksum of {bad} is wrong")


def _damage(path: Path) -> str | None:
    """Why a file cannot be read as a checkpoint; None if it can."""
    try:
        _read(path)
    except Exception as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    """The first line of an error, or its type."""
    if "weights_only" in str(error):  # torch's advice to load it all the same is none for a foreign file
        return "it holds Python objects, which may run code, or is no file of torch's"
    return first_line(error)


def _unreadable(what: str, error: Exception) -> ConfigError:
    """One line for a truncated zip, a foreign pickle, no checkpoint at all: torch raises many types."""
    return ConfigError(f"{what} cannot be read as a checkpoint ({_reason(error)}); delete it or give another path")


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's way to its checkpoint files, with three differences.

    A checkpoint is written aside, in its own folder, and takes its name only when whole: a full disk or a killed
    process leaves the old one as it was. Lightning's own writer moves it from the folder of temporary files, which
    copies it byte by byte where that is another disk. The name aside is always the same, unlike that of `whole_file`:
    one process writes here, and what a killed one left is written over. The old `last.ckpt` stays as `previous.ckpt`,
    for the day a disk damages the new one. And a file that cannot be read is told in one line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._good: set[Path] = set()  # what this process has written or read: fit to become the previous one

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes a checkpoint.

        Args:
            checkpoint: Its content.
            path: The file.
            storage_options: Must be None.

        Raises:
            ConfigError: If the file cannot be written. The old one is still there then.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        partial = target.with_name(f".{target.name}.partial")
        content = io.BytesIO()  # torch.save into a full disk raises no OSError
        torch.save(checkpoint, content)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            if target.name == LAST and target.absolute() in self._good and target.is_file():
                _keep_as(target, target.with_name(PREVIOUS))
            os.replace(partial, target)
            _sync_folder(target.parent)
            self._good.add(target.absolute())
        except OSError as error:
            raise ConfigError(
                f"{target}: cannot write the checkpoint of {content.tell() / 1e6:.1f} MB ({error.strerror}); "
                "free space there, mend its rights, or give another folder with --runs"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Reads a checkpoint.

        Args:
            path: The file.
            *args: As the base class.
            **kwargs: As the base class.

        Returns:
            Its content.

        Raises:
            ConfigError: If it does not exist, cannot be read, or is no checkpoint of Lightning's.
        """
        what = f"the checkpoint (--ckpt_path {path})"
        try:
            _check_sums(Path(path))
            content = super().load_checkpoint(path, *args, **kwargs)
        except FileNotFoundError:
            raise ConfigError(f"{what} does not exist; give another path, or `last` or `best`") from None
        except Exception as error:
            raise _unreadable(what, error) from None
        whole = isinstance(content, dict) and "pytorch-lightning_version" in content
        if not whole or not isinstance(content.get("state_dict"), dict):
            raise ConfigError(f"{what} holds no state of a run; give another path, a best.ckpt or last.ckpt of a run")
        self._good.add(Path(path).absolute())
        return content


def _keep_as(path: Path, kept: Path) -> None:
    """Gives a file a second name, in one step; a copy where the disk knows no second names."""
    aside = kept.with_name(f".{kept.name}.partial")
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:
        shutil.copyfile(path, aside)
    os.replace(aside, kept)


def _sync_folder(folder: Path) -> None:
    """Puts a folder's new names on the disk, so that they outlive a power cut; where the system can do so."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def load_network_state(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Loads the weights of the one trained network from a run's checkpoint or from a plain state dict.

    The plain one may also stand under the name `state_dict`, as many training scripts save it.

    Args:
        path: The file.
        what: Names the file's role in an error.

    Returns:
        The network's state dict, and the whole checkpoint (empty for a plain state dict).

    Raises:
        ConfigError: As `load_checkpoint`, and if what it holds is no state dict.
    """
    content = load_checkpoint(path, what)
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ConfigError(f"{what} holds no state dict of a network; give another path")
    if "state_dict" not in content:
        return content, {}
    weights = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
    return weights or state, content


def check_state(expected: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    """Compares two state dicts by key and shape.

    Args:
        expected: The state dict of the module to load into.
        found: The state dict that was read.
        what: Names the file's role in an error.

    Raises:
        ConfigError: Naming the first keys that differ.
    """
    differences = [f"{key} is missing" for key in expected if key not in found]
    differences += [f"{key} is not expected" for key in found if key not in expected]
    for key, value in ((key, x) for key, x in expected.items() if key in found and isinstance(x, Tensor)):
        if not isinstance(found[key], Tensor):
            differences.append(f"{key} is a {type(found[key]).__name__}")
        elif found[key].shape != value.shape:
            differences.append(f"{key} has shape {tuple(found[key].shape)} instead of {tuple(value.shape)}")
        elif value.is_floating_point() and not found[key].is_floating_point():  # quantised weights lack their scale
            differences.append(f"{key} is {found[key].dtype} instead of {value.dtype}")
    if differences:
        shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
        raise ConfigError(
            f"{what} is of another architecture: {shown}. Use the configuration it was trained with, or another file"
        )


def check_classes(checkpoint: Mapping[str, Any], class_names: list[str], what: str) -> None:
    """Compares the classes a checkpoint was trained on with those of the data.

    Args:
        checkpoint: Its `sdsnn` entry, if any, names its classes.
        class_names: Classes of the data at hand; nothing is checked if empty.
        what: Names the file's role in an error.

    Raises:
        ConfigError: If number, names or order differ.
    """
    theirs = checkpoint.get("sdsnn", {}).get("class_names", [])
    if not theirs or not class_names or theirs == class_names:
        return
    if len(theirs) != len(class_names):
        raise ConfigError(
            f"{what} knows {len(theirs)} classes but the data has {len(class_names)}; use the same classes"
        )
    index = next(i for i, (a, b) in enumerate(zip(theirs, class_names, strict=True)) if a != b)
    raise ConfigError(
        f"{what} has '{theirs[index]}' as class {index} but the data has '{class_names[index]}'; use the same classes"
    )


def check_source(checkpoint: Mapping[str, Any], here: str | None, what: str, cure: str) -> None:
    """Compares the data source that a checkpoint was trained on with that of the data: the two are never mixed.

    Args:
        checkpoint: Its `sdsnn` entry, if any, names its data source.
        here: `real`, `simulated`, or None where it is not known.
        what: Names the file's role in an error.
        cure: Ends the error.

    Raises:
        ConfigError: If they differ.
    """
    source = checkpoint.get("sdsnn", {}).get("data_source")
    if source and here and source != here:
        raise ConfigError(f"{what} was trained on {source} data but this run uses {here} data; {cure}")
