"""Loads weights of the authors' SpikeSCR code (github.com/JackieWang9811/SpikeSCR, commit 095f418f) by a name map.

Their code trains with the layout that `official_layout` reproduces, so `from_official` sets it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdsnn_lightning.checkpoints import load_network_state
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.networks.spikescr import SpikeSCR

_OUTER = {"embed.layer.conv": "spike_embed.conv", "embed.norm": "spike_embed.bn", "head": "head"}
_INNER = {
    "attention.query.layer": "attn.q_conv",
    "attention.query.norm": "attn.q_bn",
    "attention.key.layer": "attn.k_conv",
    "attention.key.norm": "attn.k_bn",
    "attention.value.layer": "attn.v_conv",
    "attention.value.norm": "attn.v_bn",
    "attention.project.layer": "attn.proj_conv",
    "attention.project.norm": "attn.proj_bn",
    "feedforward1.0.layer": "mlp1.fc1_conv",
    "feedforward1.0.norm": "mlp1.fc1_bn",
    "feedforward1.1.layer": "mlp1.fc2_conv",
    "feedforward1.1.norm": "mlp1.fc2_bn",
    "gated_conv.enter.layer": "conformer_module.pw1.conv",
    "gated_conv.enter.norm": "conformer_module.bn1",
    "gated_conv.spread.layer.conv": "conformer_module.dw.conv",
    "gated_conv.spread.norm": "conformer_module.bn2",
    "gated_conv.split": "conformer_module.pw2.conv",
    "gated_conv.split_norm": "conformer_module.bn3",
    "gated_conv.gate.layer": "conformer_module.gsu.proj_conv",
    "gated_conv.gate.norm": "conformer_module.gsu.proj_bn",
    "feedforward2.0.layer": "mlp2.fc1_conv",
    "feedforward2.0.norm": "mlp2.fc1_bn",
    "feedforward2.1.layer": "mlp2.fc2_conv",
    "feedforward2.1.norm": "mlp2.fc2_bn",
}
_FREQUENCIES = "attn.rotary_emb.freqs"
_WHAT = "the official SpikeSCR state dict"


def _theirs(key: str) -> str | None:
    """The official key of ours; None for a neuron's constants."""
    module, _, leaf = key.rpartition(".")
    block = re.match(r"(blocks\.\d+\.)(.*)", module)
    prefix, name = (block[1], _INNER.get(block[2])) if block else ("", _OUTER.get(module))
    return None if name is None else f"{prefix}{name}.{leaf}"


def load_official(network: SpikeSCR, source: str | Path | Mapping[str, Any]) -> None:
    """Loads official weights into a network of the same sizes.

    Args:
        network: Whose weights are replaced.
        source: A file of theirs (loaded without running code from it), or its state dict.

    Raises:
        ConfigError: If the file cannot be read; or naming the keys that are missing, unknown (learned decays of their
            "plif" neurons are), or of other shapes; or if the rotary frequencies differ.
    """
    state, what = _read(source)
    own = network.state_dict()
    wanted = {ours: theirs for ours in own if (theirs := _theirs(ours)) is not None}
    frequencies = [f"blocks.{depth}.{_FREQUENCIES}" for depth in range(len(network.blocks))]
    known = {*wanted.values(), *frequencies}
    problems = [f"{key} is missing" for key in sorted(known - set(state))]
    problems += [f"{key} is not known" for key in sorted(set(state) - known)]
    _raise(problems, what)
    for ours, theirs in wanted.items():
        value = state[theirs]
        if value.ndim == 3:  # a convolution of one tap is a linear layer here, any other has two axes
            value = value.squeeze(-1) if own[ours].ndim == 2 else value.unsqueeze(-1)
        if value.shape != own[ours].shape:
            problems.append(f"{theirs} has shape {tuple(state[theirs].shape)}, which does not fit {ours}")
        own[ours] = value
    for key in frequencies:
        # Computed on other machines: the power may differ in its last bit.
        if state[key].shape != network.frequencies.shape or not torch.allclose(
            state[key].to(network.frequencies), network.frequencies, rtol=1e-5
        ):
            problems.append(f"{key} are other rotary frequencies than those of heads and rotary_theta")
    _raise(problems, what)
    network.load_state_dict(own)


def from_official(source: str | Path | Mapping[str, Any], **options: Any) -> SpikeSCR:
    """Builds the network that official weights belong to, and loads them.

    Args:
        source: As for `load_official`.
        **options: Further arguments of `SpikeSCR`; sizes are read off the weights, `official_layout` is True unless
            given.

    Returns:
        The network, in evaluation mode.

    Raises:
        ConfigError: As `load_official`.
    """
    state, what = _read(source)
    needed = {
        "embed": "spike_embed.conv.weight",
        "frequencies": f"blocks.0.{_FREQUENCIES}",
        "hidden": "blocks.0.mlp1.fc1_conv.weight",
        "depthwise": "blocks.0.conformer_module.dw.conv.weight",
        "head": "head.weight",
    }
    _raise([f"{key} is missing" for key in needed.values() if key not in state], what)
    width, in_channels, _ = state[needed["embed"]].shape
    sizes: dict[str, Any] = {
        "num_classes": len(state[needed["head"]]),
        "in_channels": in_channels,
        "width": width,
        "heads": width // (2 * len(state[needed["frequencies"]])),
        "depth": 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
        "mlp_ratio": len(state[needed["hidden"]]) // width,
        "kernel_size": state[needed["depthwise"]].shape[-1],
        "official_layout": True,
    }
    network = SpikeSCR(**(sizes | options)).eval()
    load_official(network, state)
    return network


def _read(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The state dict, less the prefix of a parallel wrapper, and its name in errors."""
    what = _WHAT
    if not isinstance(source, Mapping):
        what = f"{_WHAT} ({source})"
        source, _ = load_network_state(Path(source), what)
    return {key.removeprefix("module."): value for key, value in source.items()}, what


def _raise(problems: list[str], what: str) -> None:
    """One line with the first problems, if there are any."""
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigError(f"{what} does not fit: {'; '.join(problems[:3])}{more}. Build SpikeSCR with its sizes")
