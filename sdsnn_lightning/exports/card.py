"""Plain weights, and the card that says what a network is, sees and scored."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdsnn_lightning import __version__
from sdsnn_lightning.data.cifar10_dvs import CIFAR10DVS
from sdsnn_lightning.data.single_eye import EVENT_MEAN, EVENT_STD, FRAME_MEAN, FRAME_STD, SingleEye
from sdsnn_lightning.data.speech_commands import SpeechCommands
from sdsnn_lightning.data.spiking_speech import SpikingSpeech
from sdsnn_lightning.data.video_files import FPS
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.trained import Trained
from sdsnn_lightning.whole import whole_path, write_text

READOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean over time of the logits": lambda logits: logits.mean(0),
    "sum over time of the logits": lambda logits: logits.sum(0),
    "mean over time of the softmax of the logits": lambda logits: logits.softmax(-1).mean(0),
    "sum over time of the softmax of the logits": lambda logits: logits.softmax(-1).sum(0),
    "maximum over time of the logits": lambda logits: logits.amax(0),
    "logits of the last step": lambda logits: logits[-1],
}
"""How class scores come out of logits `[T, B, K]`, in words."""


def name_readout(network: nn.Module, num_classes: int) -> str:
    """Says in words what a network's `readout` does, by trying it.

    Args:
        network: The network.
        num_classes: Number of classes K.

    Returns:
        A key of `READOUTS`, or that it is the network's own.
    """
    logits = torch.randn(5, 3, num_classes, generator=torch.Generator().manual_seed(0))
    found = network.readout(logits)  # type: ignore[operator]
    same = (
        text
        for text, rule in READOUTS.items()
        if found.shape == rule(logits).shape and torch.allclose(found, rule(logits), atol=1e-6)
    )
    return next(same, f"that of {type(network).__name__}.readout, which is none of the usual ones")


def save_weights(network: nn.Module, folder: Path) -> Path:
    """Writes the state dict of a network: `weights.safetensors` where that library is installed, else `weights.pt`.

    Args:
        network: The network; nothing but its own parameters and buffers is written.
        folder: Exists.

    Returns:
        The file. `weights.pt` is read by `torch.load(path, weights_only=True)`.
    """
    state = {name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()}
    suffix = ".safetensors" if find_spec("safetensors") else ".pt"
    path = folder / f"weights{suffix}"
    with whole_path(path) as aside:
        if suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(state, aside)
        else:
            torch.save(state, aside)
    return path


def describe_inputs(trained: Trained) -> list[dict[str, Any]]:
    """What a network sees: name, shape of one step, unit and normalisation of every modality.

    Args:
        trained: The network and its data module.

    Returns:
        One plain dict a modality, in the order of the arguments.
    """
    data, described = trained.data, []
    for name in trained.network.inputs:  # type: ignore[union-attr]
        entry: dict[str, Any] = {"name": name, "shape": list(data.input_shapes[name][1:]), "dtype": "float32"}
        described.append(entry | _normalisation(data, name))
    return described


def _normalisation(data: Any, name: str) -> dict[str, Any]:
    """Unit and normalisation of a modality, by data module."""
    if isinstance(data, SingleEye):
        if name == "events" and data.event_values == "ternary":
            return {"unit": "polarity: -1 darker, 0 no event, 1 brighter", "normalisation": None}
        mean, std = (FRAME_MEAN, FRAME_STD) if name == "frames" else (EVENT_MEAN, EVENT_STD)
        return {
            "unit": f"grey value, 0 to 255, in {data.channels} equal channels",
            "normalisation": {"formula": "(x / 255 - mean) / std", "mean": mean, "std": std},
        }
    if isinstance(data, SpeechCommands):
        mel = data.log_mel
        options = {
            "style": mel.style,
            "sample_rate_hz": mel.sample_rate,
            "n_fft": mel.n_fft,
            "n_mels": mel.n_mels,
            "hop_samples": data._frames("step_ms", data.step_ms)[0],
            "eps": mel.eps,
            "normalise": mel.normalise,
            "recorded_rate_hz": mel.recorded_rate,
            "window_samples": data.samples,
        }
        unit = "natural logarithm of mel power" if mel.style == "clean" else "decibel of mel power"
        return {"unit": unit, "normalisation": {"formula": "sdsnn_lightning.data.speech_front_end.LogMel", **options}}
    if isinstance(data, SpikingSpeech):
        return {"unit": f"spikes in a step, {data.group} neighbouring channels added", "normalisation": None}
    if isinstance(data, CIFAR10DVS):
        return {"unit": "events in a step, channel 0 darker and 1 brighter", "normalisation": None}
    return {"unit": f"as {type(data).__name__}.views gives it", "normalisation": None}


def time_step_ms(data: Any) -> float | None:
    """Milliseconds from one step to the next; None where steps hold equally many events, or nobody says."""
    if isinstance(data, SingleEye):
        return round(1000 * (data.skip + 1) / FPS, 6)
    step = getattr(data, "step_ms", None)
    return None if step is None else float(step)


def make_card(trained: Trained) -> dict[str, Any]:
    """Everything that a user of an exported student has to know, as plain values.

    Args:
        trained: The network.

    Returns:
        The card: accuracy in [0, 1] and energy in nanojoules a sample, each None before `lightning test`.

    Raises:
        DataError: If the run's results file is broken.
    """
    data, files = trained.data, trained.files
    network: Any = trained.network
    test = _tested(files.folder / "results.json", files.checkpoint)
    parameters = sum(p.numel() for p in network.parameters())
    return {
        "name": files.config.get("name", files.folder.parent.name),
        "network": f"{type(network).__module__}.{type(network).__qualname__}",
        "classes": trained.class_names,
        "inputs": describe_inputs(trained),
        "time_steps": data.input_shapes[network.inputs[0]][0],
        "time_step_ms": time_step_ms(data),
        "readout": name_readout(network, len(trained.class_names)),
        "parameters": parameters,
        "data": type(data).__name__,
        "data_source": trained.data_source,
        "accuracy": {key: test[key] for key in ("WAR", "UAR") if key in test} or None,
        "firing_rate": test.get("firing_rate/total"),
        "energy_nJ": {
            k.removeprefix("energy/").removesuffix("_nJ"): v for k, v in test.items() if k.startswith("energy/")
        }
        or None,
        "checkpoint": str(files.checkpoint),
        "made_with": {"sdsnn_lightning": __version__, "torch": torch.__version__},
    }


def _tested(path: Path, checkpoint: Path) -> dict[str, Any]:
    """The test scores of this very checkpoint, if it was tested."""
    if not path.is_file():
        return {}
    try:
        test = json.loads(path.read_text(encoding="utf-8")).get("test") or {}
    except (ValueError, AttributeError):
        raise DataError(f"{path} is not valid JSON; delete it and run `lightning test` again") from None
    return test if Path(str(test.get("checkpoint"))).name == checkpoint.name else {}


def write_card(card: dict[str, Any], path: Path) -> None:
    """Writes the card as JSON, in one step."""
    write_text(path, json.dumps(card, indent=2) + "\n")
