"""NIR graphs read back as torch modules, and compared with the network they were made of, spike by spike."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.exports.nir_neurons import ReadNeuron
from sdsnn_lightning.exports.streaming import DEVIATION, NetworkStep


def read_nir(path: Path) -> fx.GraphModule:
    """Reads a graph back as a torch module of one step.

    Args:
        path: The `.nir` file.

    Returns:
        A module from frames `[B, ...]` and a state, None at first, to logits `[B, K]` and the state; `nirtorch` wires
        it, our own constructors fill it: those it brings drop the bias of a linear layer and flatten the batch.
    """
    import nir
    import nirtorch

    kinds = {
        nir.LIF: ReadNeuron,
        nir.IF: ReadNeuron,
        nir.Conv2d: _read_conv,
        nir.Affine: _read_affine,
        nir.Flatten: lambda node: nn.Flatten(1 + int(node.start_dim), int(node.end_dim)),
        nir.AvgPool2d: lambda node: nn.AvgPool2d(pair(node.kernel_size), pair(node.stride), pair(node.padding)),
    }
    return nirtorch.nir_to_torch(nir.read(path), kinds)


def compare_nir(network: nn.Module, path: Path, frames: Tensor) -> dict[str, Any]:
    """Runs a graph beside its network and compares the spikes of every layer, frame by frame.

    Args:
        network: The network.
        path: Its `.nir` file.
        frames: `[T, B, ...]`.

    Returns:
        `steps`, `spikes` of the network's neurons, `differ` (spikes that are not the same), `different` (the largest
        deviation of a logit).

    Raises:
        ConfigError: If more than `DEVIATION` of the spikes of a layer differ.
    """
    step, graph = NetworkStep(network), read_nir(path)
    fired: dict[str, dict[str, list[Tensor]]] = {"ours": {}, "read": {}}

    def keep(side: str, name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            spikes = out[0] if isinstance(out, tuple) else out
            fired[side].setdefault(name, []).append(spikes.reshape(frames.shape[1], -1))

        return hook

    for name in step.names:
        step.network.get_submodule(name).register_forward_hook(keep("ours", name))
        graph.get_submodule(name.replace(".", "_")).register_forward_hook(keep("read", name))
    state, read_state, different = None, None, 0.0
    with torch.no_grad():
        for frame in frames:
            logits, state = step(frame, state)
            read, read_state = graph(frame, read_state)
            different = max(different, (logits - read).abs().max().item())
    total = differ = 0
    for name in step.names:
        ours, theirs = torch.stack(fired["ours"][name]), torch.stack(fired["read"][name])
        wrong, spikes = int((ours != theirs).sum()), int(ours.sum())
        if wrong > DEVIATION * max(spikes, 1):
            raise ConfigError(
                f"{type(network).__name__}: {wrong} spikes of {name} differ from {spikes} when the NIR graph is read "
                "back; export a program (--to program)"
            )
        total, differ = total + spikes, differ + wrong
    return {"steps": len(frames), "spikes": total, "differ": differ, "different": different}


def pair(value: Any) -> tuple[int, int]:
    """Two whole numbers, of one or two."""
    values = [int(v) for v in np.asarray(value).ravel()]
    return (values[0], values[-1])


def _read_conv(node: Any) -> nn.Conv2d:
    out, inside, *kernel = node.weight.shape
    padding = node.padding if isinstance(node.padding, str) else pair(node.padding)
    return _filled(nn.Conv2d(inside, out, tuple(kernel), pair(node.stride), padding, pair(node.dilation)), node)


def _read_affine(node: Any) -> nn.Linear:
    return _filled(nn.Linear(node.weight.shape[1], node.weight.shape[0]), node)


def _filled(layer: Any, node: Any) -> Any:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(node.weight))
        layer.bias.copy_(torch.from_numpy(node.bias))
    return layer
