"""A student as a NIR graph: traced layer by layer, batch norm folded into its layer, read back and compared."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from sdsnn_lightning.errors import ConfigError, first_line
from sdsnn_lightning.exports.nir_layers import NEURONS, NORMS, SILENT, GraphMaker, sample_shape
from sdsnn_lightning.exports.nir_neurons import DT, refusal
from sdsnn_lightning.exports.nir_read import compare_nir
from sdsnn_lightning.exports.streaming import NetworkStep
from sdsnn_lightning.whole import whole_path

if TYPE_CHECKING:
    import nir

SHOWN = 6
"""Missing layers that a refusal names."""


class _Tracer(fx.Tracer):
    """Keeps neurons and torch's own layers whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, NEURONS) or super().is_leaf_module(m, module_qualified_name)


def to_nir(network: nn.Module, frames: tuple[Tensor, ...], time_step_ms: float | None = None) -> "nir.NIRGraph":
    """Translates a network, one step of which becomes one step of `DT` in the graph.

    Args:
        network: The trained network, of one modality. Its batch norms are folded into the layers before them.
        frames: One frame of that modality `[2, ...]`.
        time_step_ms: What a step lasts in truth, for the graph's metadata.

    Returns:
        The graph from frames to logits, whose neurons have the dotted names of the network's.

    Raises:
        ConfigError: Naming the layers that NIR lacks.
    """
    import nir

    who = type(network).__name__
    step = NetworkStep(network)
    if len(frames) != 1:
        raise ConfigError(f"{who} sees {len(frames)} inputs, and NIR readers take one; export a program (--to program)")
    try:
        graph = _Tracer().trace(step.network)
    except Exception as error:  # control flow over tensors raises many types
        why = first_line(error)
        raise _refused(who, [*_unknown_layers(step.network)[: SHOWN - 1], f"forward pass like this ({why})"]) from None
    output = next(node for node in graph.nodes if node.op == "output").args[0]
    made: Any = output.args if isinstance(output, fx.Node) else output
    logits: fx.Node = made[0]
    wanted, found = {logits}, [logits]
    while found:
        new = [node for node in found.pop().all_input_nodes if node not in wanted]
        wanted |= set(new)
        found += new
    maker = GraphMaker(fx.GraphModule(step.network, graph), wanted)
    step.memory.begin(None)
    with torch.no_grad():
        result = maker.run(frames[0][None])
    if maker.lacking:
        raise _refused(who, list(maker.lacking))
    maker.nodes["output"] = nir.Output({"output": np.array(sample_shape(result[0]))})
    maker.edges += [(source, "output") for source in maker.sources[logits]]
    about = {"dt": DT, "classes": int(result[0].shape[-1])}
    return nir.NIRGraph(maker.nodes, maker.edges, about | ({"time_step_ms": time_step_ms} if time_step_ms else {}))


def save_nir(network: nn.Module, inputs: tuple[Tensor, ...], path: Path, time_step_ms: float | None) -> dict[str, Any]:
    """Writes the NIR graph of a network, after reading it back and comparing every spike, frame by frame.

    Args:
        network: The trained network.
        inputs: Its one modality `[T, B, ...]`, B = 2.
        path: The `.nir` file; its folder exists.
        time_step_ms: What a step lasts in truth.

    Returns:
        An entry for the card.

    Raises:
        ConfigError: Naming the layers that NIR lacks, or the layer whose spikes differ.
    """
    try:
        import nir
        import nirtorch  # noqa: F401
    except ImportError:
        raise ConfigError("NIR export needs the libraries nir and nirtorch; run `pip install nir nirtorch`") from None
    graph = to_nir(network, tuple(x[0] for x in inputs), time_step_ms)
    with whole_path(path, ".nir") as aside:
        nir.write(aside, graph)
        compared = compare_nir(network, aside, inputs[0])
    return {"file": path.name, "batch_norm": "folded", "dt": DT, "compared": compared}


def _refused(who: str, lacking: list[str]) -> ConfigError:
    """One line that names what NIR lacks."""
    more = f"; and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    return ConfigError(
        f"{who} cannot be a NIR graph, which has no {'; no '.join(lacking[:SHOWN])}{more}. "
        "Export a program (--to program), or train a network without them"
    )


def _unknown_layers(network: nn.Module) -> list[str]:
    """The layers that NIR lacks for certain, of a network that cannot be traced."""
    known = (*SILENT, *NORMS, nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Sequential)
    found: dict[str, None] = {}
    for name, module in network.named_modules():
        if isinstance(module, NEURONS):
            why = refusal(module)
            if why is not None:
                found[f"{why} of neurons ({name})"] = None
        elif not isinstance(module, known) and next(module.children(), None) is None:
            found[f"{type(module).__name__} ({name})"] = None
    return list(found)
