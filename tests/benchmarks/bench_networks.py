"""Rows 2 and 3: a training step of whole networks with our neurons, ReLU, and the peers' neurons.

Every contestant has the same layers and weights and sees the same batch. snnTorch steps its neurons inside the layers,
which see all time steps at once, as here; beside it, where the network has no layer over time, stands the loop of its
tutorials, in which the whole network is called once for every time step. A step ends with that of the optimizer.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from measure import Options, Row, alternate, compare, main, spikingjelly
from torch import Tensor, nn
from twins import Rectifier, Stepped, node, swap, training_step

from sdsnn_lightning.memory import keep_freed_memory
from sdsnn_lightning.networks import SEWResNet, SpikeSCR
from sdsnn_lightning.neurons import Leaky
from sdsnn_lightning.types import Output


class PerFrame(nn.Module):
    """A network called once for every time step, its neurons stepped by snnTorch."""

    def __init__(self, network: SEWResNet) -> None:
        super().__init__()
        self.network = network
        self.neurons = [module for module in network.modules() if isinstance(module, OneStep)]

    def forward(self, frames: Tensor) -> Output:
        for neuron in self.neurons:
            neuron.mem = None
        return Output(torch.cat([self.network(frame[None]).logits for frame in frames.unbind()]), {})

    def readout(self, logits: Tensor) -> Tensor:
        return self.network.readout(logits)


class OneStep(Stepped):
    """One step of a `snntorch.Leaky` for each call, `[1, B, ...]`."""

    mem: Tensor | None = None

    def forward(self, current: Tensor) -> Tensor:
        mem = torch.zeros_like(current[0]) if self.mem is None else self.mem
        spikes, self.mem = self.neuron(current[0], mem)
        return spikes[None]


def contestants(network: nn.Module, inputs: tuple[Tensor, ...], classes: int) -> dict[str, Callable[[], Tensor]]:
    """Training steps by name."""
    target = torch.arange(inputs[0].shape[1]) % classes
    other: Callable[[Callable[[Leaky], nn.Module]], nn.Module] = lambda make: swap(copy.deepcopy(network), make)  # noqa: E731
    rival = spikingjelly()
    stepped, frames = other(Stepped), other(OneStep)
    runs = {
        "ReLU twin": training_step(other(Rectifier), inputs, target),
        "snnTorch, its neurons stepped": training_step(stepped, inputs, target),
    }
    if isinstance(frames, SEWResNet):
        runs["snnTorch, the network stepped"] = training_step(PerFrame(frames), inputs, target)
    if rival is not None:
        theirs = other(partial(node, rival=rival))
        reset = partial(rival.functional.reset_net, theirs)
        runs["spikingjelly"] = training_step(theirs, inputs, target, reset)
    return {"ours": training_step(network, inputs, target)} | runs


def rows(options: Options) -> Iterator[Row]:
    """Ours against each of the others, for both networks."""
    keep_freed_memory()
    torch.manual_seed(0)
    quick = options.quick
    sew = (4, 2, 2, 16, 16) if quick else (8, 8, 2, 48, 48)
    scr = (10, 4, 140) if quick else (100, 32, 140)
    cases: list[tuple[str, nn.Module, tuple[Tensor, ...]]] = [
        (f"SEW-ResNet-18, width {width}, {sew}", SEWResNet(10, 2, width), (torch.rand(sew),))
        for width in ((0.125,) if quick else (1.0, 0.25))
    ]
    cases.append((f"SpikeSCR {scr}", SpikeSCR(20, masked=False), ((torch.rand(scr) < 0.1).float(),)))
    for name, network, inputs in cases:
        runs = contestants(network, inputs, 10)
        _check(runs)
        times = alternate(runs, options)
        yield compare(2, f"{name}, step against its ReLU twin's", times, "ours", "ReLU twin", "<= 1.2")
        # The layers that all have bound what neurons can gain: no peer can be left further behind than by the twin.
        bound = compare(3, "", times, "ReLU twin", "spikingjelly", ">=").ratio
        note = "" if bound is None else f"its ReLU twin: {bound:.2f}"
        yield compare(3, f"{name}, step on spikingjelly", times, "ours", "spikingjelly", ">= 2", note)
        for peer in [peer for peer in runs if peer.startswith("snnTorch")]:
            yield compare(3, f"{name}, step on {peer}", times, "ours", peer, ">= 5")


def _check(runs: dict[str, Callable[[], Tensor]]) -> None:
    """The first loss of every spiking contestant is the same but for spikes that rounding flips: one network."""
    losses = {}
    for name, run in runs.items():
        torch.manual_seed(1)
        losses[name] = float(run())
    for name, loss in losses.items():
        if name not in ("ReLU twin", "snnTorch, the network stepped") and abs(loss / losses["ours"] - 1) > 0.1:
            raise SystemExit(f"{name} is another network: its loss is {loss}, ours {losses['ours']}")


if __name__ == "__main__":
    main(rows, __doc__)
