"""A trained network from its run folder alone: checkpoint and saved configuration, no data set, no teacher."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from sdsnn_lightning import runs
from sdsnn_lightning.checkpoints import check_state, load_network_state
from sdsnn_lightning.data.base import DataModule
from sdsnn_lightning.errors import ConfigError, UserError, one_line

NetworkFactory = Callable[[int], nn.Module]


@dataclass
class TrainedFiles:
    """Where a trained network lies.

    Attributes:
        checkpoint: The weights.
        folder: The run folder.
        config: The saved configuration's content.
    """

    checkpoint: Path
    folder: Path
    config: dict[str, Any] = field(repr=False)

    @property
    def data_class(self) -> str:
        """Class path of the data module it was trained on."""
        return str(self.config["data"].get("class_path", ""))


@dataclass
class Trained:
    """A trained network and what is known about it.

    Attributes:
        files: Where it comes from.
        network: In evaluation mode, on the CPU; a distilled student without teacher and adapters.
        class_names: Classes in index order.
        data_source: `real` or `simulated`, as the checkpoint says.
        data: The data module of the run, constructed but not set up, for shapes and normalisation.
    """

    files: TrainedFiles
    network: nn.Module
    class_names: list[str]
    data_source: str | None
    data: DataModule


def find_trained(path: Path) -> TrainedFiles:
    """Finds checkpoint and configuration of a run.

    Args:
        path: A checkpoint in its run folder, a run folder `version_<n>`, or an experiment's folder, whose newest run
            with a checkpoint is taken. Of a folder, `best.ckpt` before `last.ckpt`.

    Returns:
        The files; the checkpoint is not read yet.

    Raises:
        ConfigError: If there is no checkpoint, or no configuration beside it.
    """
    checkpoint = None
    if path.is_file():
        checkpoint = path
    elif path.is_dir():
        folders = [path] if (path / "checkpoints").is_dir() else list(reversed(runs.versions(path.parent, path.name)))
        found = [folder / "checkpoints" / name for folder in folders for name in ("best.ckpt", "last.ckpt")]
        checkpoint = next((file for file in found if file.is_file()), None)
    if checkpoint is None:
        what = "holds no checkpoint" if path.exists() else "does not exist"
        raise ConfigError(f"{path} {what}; give a run folder, runs/<experiment>/version_<n>, or one of its checkpoints")
    inside = checkpoint.resolve().parent
    folder = inside.parent if inside.name == "checkpoints" else inside
    config = folder / "config.yaml"
    if not config.is_file():
        raise ConfigError(f"{checkpoint} has no {config} beside it; give a checkpoint in its run folder")
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{config} is no YAML ({str(error).splitlines()[0]}); restore it from the run") from None
    for key in ("model", "data"):
        section = content.get(key) if isinstance(content, dict) else None
        if not isinstance(section, dict) or not isinstance(section.get("init_args", {}), dict):
            raise ConfigError(f"{config} has no {key} with a class_path and init_args; restore it from the run")
    return TrainedFiles(checkpoint, folder, content)


def load_trained(path: Path) -> Trained:
    """Builds the network of a run and loads its weights. Neither data set nor teacher need exist.

    Args:
        path: As for `find_trained`.

    Returns:
        The trained network.

    Raises:
        ConfigError: If something is missing or does not go together.
    """
    files = find_trained(path)
    what = f"the checkpoint {files.checkpoint}"
    state, content = load_network_state(files.checkpoint, what)
    about = content.get("sdsnn", {})
    data = build_data(files)
    names = list(about.get("class_names") or data.class_names)
    network = _build_network(files, len(names))
    check_state(network.state_dict(), state, what)
    network.load_state_dict(state)
    return Trained(files, network.eval(), names, about.get("origin") or about.get("data_source"), data)


def _instantiate(key: str, kind: Any, content: Any, config: Path) -> Any:
    """Makes the object that a part of a saved configuration describes."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    if isinstance(kind, type):
        parser.add_subclass_arguments(kind, key, required=True)
    else:
        parser.add_argument(f"--{key}", type=kind)
    try:
        return parser.instantiate_classes(parser.parse_object({key: content}))[key]
    except UserError:
        raise
    except Exception as error:  # the parser raises many types for one mistake, and so do constructors
        reason = one_line(error)[:300]
        raise ConfigError(f"{config}: {key} cannot be made ({reason}); restore it from the run") from None


def _build_network(files: TrainedFiles, num_classes: int) -> nn.Module:
    """The network, with fresh weights."""
    options = files.config["model"].get("init_args", {})
    key = "student" if "student" in options else "network"
    if key not in options:
        raise ConfigError(f"{files.folder / 'config.yaml'}: model.init_args names no student or network")
    config = files.folder / "config.yaml"
    made = _instantiate(key, NetworkFactory, options[key], config)
    try:
        return made if isinstance(made, nn.Module) else made(num_classes)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"{config}: {key} cannot be made ({one_line(error)}); restore it from the run") from None


def build_data(files: TrainedFiles) -> DataModule:
    """The data module of a run, constructed only; of its simulated source where it has one, which needs no files.

    Args:
        files: The run.

    Returns:
        The module, for its shapes and its `views`.

    Raises:
        ConfigError: If the configuration does not describe one.
    """
    content = dict(files.config["data"])
    options = dict(content.get("init_args") or {})
    if "source" in options:
        options |= {"source": "simulated"} | ({"download": False} if "download" in options else {})
    return _instantiate("data", DataModule, content | {"init_args": options}, files.folder / "config.yaml")
