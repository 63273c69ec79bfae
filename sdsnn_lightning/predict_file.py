"""`sdsnn predict RUN INPUT`: predicts on one file from a checkpoint and its saved configuration alone."""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from sdsnn_lightning.data.image_folder import ENDINGS
from sdsnn_lightning.errors import ConfigError, DataError

KINDS: dict[str, tuple[str, ...]] = {
    "video": (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif"),
    "sound": (".wav", ".flac", ".ogg", ".aiff", ".au", ".mp3"),
    "HDF5 file of spike trains": (".h5", ".hdf5", ".hdf"),
    "event recording": (".aedat", ".aedat4", ".mat", ".npy", ".npz"),
    "folder of images": (),
}
"""Endings by kind of input."""
FITS: dict[str, tuple[str, ...]] = {
    "SingleEye": ("video", "folder of images"),
    "SpeechCommands": ("sound",),
    "SpikingSpeech": ("HDF5 file of spike trains",),
    "CIFAR10DVS": ("event recording",),
}
"""Kinds that fit what a student was trained on, by name of the data module or of its base."""


def kind_of(path: Path) -> str:
    """Says what kind of input a path is.

    Raises:
        DataError: If it does not exist, or nobody knows its ending.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give a file or folder to predict on")
    if path.is_dir():
        found = {child.suffix.lower() for child in path.iterdir()}
        if not found & set(ENDINGS) and any(p.suffix in KINDS["event recording"] for p in path.rglob("*")):
            return "event recording"
        return "folder of images"
    for kind, endings in KINDS.items():
        if path.suffix.lower() in endings:
            return kind
    known = " ".join(ending for endings in KINDS.values() for ending in endings)
    raise DataError(f"{path}: '{path.suffix}' is no known ending of an input; known are {known}, or a folder of images")


def prediction_config(run: Path, source: Path, video: bool = False) -> tuple[dict[str, Any], Path]:
    """Turns the saved configuration of a run into one that predicts on a file, without teacher and strategies.

    Args:
        run: Run folder or checkpoint, see `trained.find_trained`.
        source: The input.
        video: Also draw the answers into the video.

    Returns:
        The configuration, and the run folder.

    Raises:
        ConfigError: If the run is missing, its data module has no reader of single files, or a video is wanted of what
            is none.
        DataError: If the input is missing, or of a kind that this student does not see.
    """
    from sdsnn_lightning.checkpoints import load_checkpoint
    from sdsnn_lightning.trained import find_trained

    files = find_trained(run)
    saved = files.folder / "config.yaml"
    bases = {base.__name__ for base in _imported(files.data_class, f"{saved}: data.class_path").__mro__}
    family = next((name for name in FITS if name in bases), None)
    if family is None:
        raise ConfigError(
            f"{run} was trained on {files.data_class}, which has no reader of single files; use "
            "`lightning predict --config ...` with a data module that has a predict_dataloader"
        )
    kind = kind_of(source)
    if kind not in FITS[family]:
        raise DataError(
            f"{source} is of the kind '{kind}', but {run} was trained on {files.data_class.rpartition('.')[2]}; "
            f"give a {' or a '.join(FITS[family])}"
        )
    if video and family != "SingleEye":
        raise ConfigError(
            f"--video draws answers into a video or a folder of images, and {source} is none; take it out"
        )
    content = load_checkpoint(files.checkpoint, f"the checkpoint {files.checkpoint}")
    names = list(content.get("sdsnn", {}).get("class_names", []))
    if not names:
        raise ConfigError(f"{files.checkpoint} does not name its classes; train it anew with this version")
    given: dict[str, Any] = files.config["data"].get("init_args") or {}
    options: dict[str, Any] = {"root": str(source), "class_names": names, "batch_size": given.get("batch_size", 32)}
    if family == "SingleEye":
        events = "events" in (given.get("modalities") or ()) and "events" in _inputs(files.config, saved)
        keys = ("size", "steps", "skip", "channels", "event_values")
        options |= {key: given[key] for key in keys if key in given} | {"simulate_events": events, "annotate": video}
        data = {"class_path": "sdsnn_lightning.data.EyeVideo", "init_args": options}
    else:
        data = {
            "class_path": "sdsnn_lightning.data.recorded_files.RecordedFile",
            "init_args": options | {"run": str(files.folder)},
        }
    model: dict[str, Any] = files.config["model"].get("init_args") or {}
    network = model.get("student", model.get("network"))
    keep = {key: model[key] for key in ("optimizer", "view") if key in model}
    trainer = {"accelerator": (files.config.get("trainer") or {}).get("accelerator", "auto"), "logger": False}
    return {
        "name": files.config.get("name", "run"),
        "data": data,
        "model": {"class_path": "sdsnn_lightning.Classifier", "init_args": {"network": network, **keep}},
        "trainer": trainer,
        "ckpt_path": str(files.checkpoint),
    }, files.folder


def _imported(class_path: str, what: str) -> type:
    """The class of a class path; `what` names its place in an error."""
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{what} {class_path} cannot be imported ({error}); start in the folder that its module is in"
        ) from None
    if not isinstance(found, type):
        raise ConfigError(f"{what} {class_path} is no class; restore it from the run")
    return found


def _inputs(config: dict[str, Any], saved: Path) -> tuple[str, ...]:
    """Modalities that the network of a configuration names, where its class says so."""
    options = config["model"].get("init_args") or {}
    key = "student" if "student" in options else "network"
    spec = options.get(key)
    if not isinstance(spec, dict) or "class_path" not in spec:
        return ()
    return tuple(getattr(_imported(str(spec["class_path"]), f"{saved}: model.init_args.{key}"), "inputs", ()))


@contextmanager
def _written(config: dict[str, Any]) -> Iterator[str]:
    """The configuration as a file that is gone afterwards."""
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "predict.yaml")
        with open(path, "w", encoding="utf-8") as file:
            yaml.safe_dump(config, file)
        yield path


def main(words: list[str]) -> None:
    """Predicts on one file.

    Args:
        words: Command-line words after `predict`.
    """
    parser = argparse.ArgumentParser(
        prog="sdsnn predict",
        description="Predict on a video, folder of images (30 a second), sound, HDF5 file of spike trains, or event "
        "recording, prepared as the run was trained. Writes predictions.csv and predictions.png.",
        epilog="example: sdsnn predict runs/quick/seye_ce/version_0 eye.mp4 --out answers; further words go to "
        "`lightning predict`, for instance --data.init_args.batch_size 8",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, help="Run folder, experiment folder (its newest run), or checkpoint.")
    parser.add_argument("input", type=Path, help="The file or folder.")
    parser.add_argument(
        "--out", type=Path, help="Folder to write into; predictions/<input> in the run folder by default."
    )
    parser.add_argument(
        "--video", action="store_true", help="Of a video or images: also write predictions.mp4, answers drawn in."
    )
    options, more = parser.parse_known_args(words)
    from sdsnn_lightning.cli import run_trainer

    config, folder = prediction_config(options.run, options.input, options.video)
    out = folder / "predictions" / options.input.name if options.out is None else options.out
    with _written(config) as path:
        run_trainer(["predict", "--config", path, *more], out)
    for ending in ("csv", "png", *(["mp4"] if options.video else [])):
        print(out / f"predictions.{ending}")
