"""What the configuration parser says by a traceback, in one line: unreadable files, failing constructors."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sdsnn_lightning.checkpoints import LAST, PREVIOUS
from sdsnn_lightning.errors import ConfigError, UserError, one_line

LONGEST_NAME = 255
"""Bytes of a name of a file or folder on the usual file systems."""
LARGEST_SEED = 2**32 - 1
"""Of numpy."""
_NO_REASON = ("Does not validate", "Expected a ", "Not a valid subclass")
_WRAPPED = re.compile(r"Does not validate against any of the Union subtypes")


def check_files(paths: Sequence[str]) -> None:
    """Refuses configuration files that the parser would stumble over. What else is wrong is left to the parser.

    Args:
        paths: The files; those that do not exist are left to the parser, too.

    Raises:
        ConfigError: If a file is no text, or refers to itself, or is nested beyond all use.
    """
    for path in paths:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            json.dumps(content, default=str, skipkeys=True)  # walks through all of it
        except UnicodeDecodeError as error:
            raise ConfigError(f"--config {path} is no text ({error.reason}); give a YAML file") from error
        except RecursionError as error:
            raise ConfigError(f"--config {path} is nested too deeply; write it with fewer levels") from error
        except ValueError as error:
            if "Circular" in str(error):
                raise ConfigError(f"--config {path} refers to itself by an alias (*); write it out") from error
        except (OSError, yaml.YAMLError):
            pass


def check_names(name: str | None, runs: str | None, version: int | None = None) -> None:
    """Refuses names that no run folder can have, or that lead out of the folder of all runs.

    Args:
        name: Name of the experiment.
        runs: Folder that all run folders lie in.
        version: Number of the run folder.

    Raises:
        ConfigError: If a text is empty or holds a null character, `name` is absolute or goes up, or `version` is less
            than 0, or a part of a path is longer than file systems allow.
    """
    for key, value in (("name", name), ("runs", runs)):
        if not value or "\0" in value:
            raise ConfigError(f"{key} is {value!r}; give a text that can name a folder")
        if any(len(part.encode()) > LONGEST_NAME for part in Path(value).parts):
            raise ConfigError(f"{key} is '{value[:20]}...', too long to name a folder; shorten it")
    if Path(str(name)).is_absolute() or ".." in Path(str(name)).parts:
        raise ConfigError(f"name is {name!r}, which leads out of the folder of all runs; set runs: for another folder")
    if version is not None and version < 0:
        raise ConfigError(f"version is {version}; set it to at least 0, or leave it out for the next free one")


def check_options(options: Mapping[str, Any], fits: bool) -> None:
    """Refuses what the Trainer takes, or never sees, and what then ends in a traceback or in nothing.

    Sections may be there and hold nothing, as a key without a value does in YAML; numbers may divide by zero, turn
    gradients round or train nothing.

    Args:
        options: The configuration of a subcommand.
        fits: Whether it trains.

    Raises:
        ConfigError: If a section is empty, or a number out of its range.
    """
    for key in ("trainer", "checkpoint", "wandb"):
        if options.get(key) is None:
            raise ConfigError(f"{key} is empty in the configuration; give its values, or take the key out for defaults")
    trainer, filename = options["trainer"], options["checkpoint"].get("filename")
    if filename and f"{filename}.ckpt" in (LAST, PREVIOUS):
        raise ConfigError(f"checkpoint.filename is {filename}, as every epoch is named; give another name: best")
    if trainer.get("accumulate_grad_batches", 1) < 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches is {trainer['accumulate_grad_batches']}; set it to at least 1"
        )
    interval, clip = trainer.get("val_check_interval"), trainer.get("gradient_clip_val")
    if isinstance(interval, int | float) and not interval > 0:
        raise ConfigError(
            f"trainer.val_check_interval is {interval}; set it above 0, or limit_val_batches: 0 for no validation"
        )
    if clip is not None and clip < 0:
        raise ConfigError(f"trainer.gradient_clip_val is {clip}; set it above 0, or leave it out to clip nothing")
    if fits and trainer.get("limit_train_batches") == 0:
        raise ConfigError("trainer.limit_train_batches is 0, so nothing would be trained; set it above 0")


def check_seed(seed: int | bool) -> None:
    """Refuses a seed that the generators of random numbers do not take.

    Args:
        seed: Of `seed_everything`; a truth value draws one, or leaves it.

    Raises:
        ConfigError: If it is out of its range.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed_everything is {seed}; set it from 0 to {LARGEST_SEED}")


@contextmanager
def plain_construction() -> Iterator[None]:
    """Turns the failure of a constructor that a configuration calls into one line that names class and key.

    Raises:
        ConfigError: Instead of what the parser makes of it. SDSNN_TRACEBACK=1 shows where it comes from.
    """
    try:
        yield
    except MisconfigurationException as error:  # every other class stands in a union of types, see below
        raise ConfigError(f"checkpoint: {one_line(error)}; correct it (see --print_config)") from error
    except (ValueError, TypeError) as error:
        if not _WRAPPED.search(str(error)) or _has_user_error(error):
            raise
        cause = error.__cause__ or error.__context__ or error
        wanted = str(error).partition("Errors:")[0]
        key = "data" if "DataModule" in wanted else "trainer.callbacks" if ".Callback'" in wanted else "model"
        # Of nested unions, the first reason that is more than what type was expected.
        said = [line.strip()[2:] for line in str(error).splitlines() if line.strip().startswith("- ")]
        reason = next((line for line in said if not line.startswith(_NO_REASON)), (said or [str(cause)])[0])
        raise ConfigError(
            f"{key}: {_constructor(cause)} cannot be made ({reason}); correct its init_args (see --print_config)"
        ) from error


def _has_user_error(error: BaseException | None) -> bool:
    """Whether one of the package's own one-line errors is below."""
    while error is not None:
        if isinstance(error, UserError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _constructor(error: BaseException) -> str:
    """Name of the class whose constructor failed: that of the innermost `__init__` in the traceback."""
    name, trace = "an object", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "__init__" and "self" in trace.tb_frame.f_locals:
            name = type(trace.tb_frame.f_locals["self"]).__name__
        trace = trace.tb_next
    return name
