"""Row 6: peak memory of a training step against the same network with spikingjelly's multi-step neurons.

The peak is of all that torch's allocator hands out in a step, by its profiler: activations, gradients, the optimizer's
work, but not the weights, which were there before. With `lean_memory`, and without it, for comparison; what it costs in
time stands below. Every contestant has the same layers and weights and sees the same batch. Then how that peak grows
with the number of time steps where the sequence is run in sqrt(T) segments, and what that costs in time.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from measure import Options, Row, alternate, compare, main, spikingjelly
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from twins import node, swap, training_step

from sdsnn_lightning.lean import lean_memory
from sdsnn_lightning.networks import SEWResNet, SpikeSCR
from sdsnn_lightning.segments import run_in_segments
from sdsnn_lightning.types import Output


class Lean(nn.Module):
    """A network whose forward pass keeps little for backward."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Output:
        with lean_memory(self.network):
            return self.network(*inputs)

    def readout(self, logits: Tensor) -> Tensor:
        return self.network.readout(logits)  # type: ignore[operator]


class Segmented(nn.Module):
    """A network run in sqrt(T) segments, which backward computes again."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Output:
        return Output(run_in_segments(self.network, (frames,)), {})

    def readout(self, logits: Tensor) -> Tensor:
        return self.network.readout(logits)  # type: ignore[operator]


def peak(step: Callable[[], object]) -> float:
    """Most megabytes that a step has in use at once, beyond those in use before."""
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most / 1e6


def cases(quick: bool) -> Iterator[tuple[str, nn.Module, tuple[Tensor, ...], int]]:
    """Networks and batches: name, network, inputs and number of classes."""
    batch, steps = (2, 2) if quick else (16, 8)
    yield (
        f"SEW-ResNet-18, width 1/4, 48x48, T={steps}, batch {batch}",
        SEWResNet(10, channels=2, width=0.25),
        (torch.rand(steps, batch, 2, 48, 48),),
        10,
    )
    batch, steps = (2, 10) if quick else (32, 100)
    spikes = torch.poisson(torch.full((steps, batch, 140), 0.1))
    yield f"SpikeSCR, SHD, T={steps}, batch {batch}", SpikeSCR(20), (spikes, torch.ones(steps, batch)), 20


def rows(options: Options) -> Iterator[Row]:
    """The peaks, and the time that the smaller one costs."""
    rival = spikingjelly()
    torch.manual_seed(0)
    for what, network, inputs, classes in cases(options.quick):
        target = torch.arange(inputs[0].shape[1]) % classes
        lean = training_step(Lean(copy.deepcopy(network)), inputs, target)
        plain = training_step(copy.deepcopy(network), inputs, target)
        peaks = {"lean_memory": peak(lean), "as it is": peak(plain)}
        if rival is None:
            yield Row(6, f"peak memory, {what}", "<= 0.5", note="spikingjelly is not installed")
        else:
            theirs = swap(copy.deepcopy(network), lambda neuron: node(neuron, rival))
            peaks["spikingjelly"] = peak(
                training_step(theirs, inputs, target, lambda twin=theirs: rival.functional.reset_net(twin))  # type: ignore[misc]
            )
            in_mb = {f"{name}, MB": value for name, value in peaks.items()}
            for name, aim in (("lean_memory", "<= 0.5"), ("as it is", "<=")):
                ratio = peaks[name] / peaks["spikingjelly"]
                yield Row(6, f"peak memory, {name}, against spikingjelly: {what}", aim, ratio, medians=in_mb)
        times = alternate({"lean_memory": lean, "as it is": plain}, options)
        yield compare(6, f"time with lean_memory: {what}", times, "lean_memory", "as it is", "<=")
    yield from over_time(options)


def over_time(options: Options) -> Iterator[Row]:
    """Exponents of the peak over T, and the time at the longest sequence."""
    lengths = (4, 16) if options.quick else (9, 36, 144)
    network = SEWResNet(10, channels=2, width=0.25)
    peaks: dict[str, list[float]] = {"in segments": [], "whole": []}
    for steps in lengths:
        frames, target = (torch.rand(steps, 8, 2, 32, 32),), torch.arange(8)
        runs = {
            "in segments": training_step(Segmented(copy.deepcopy(network)), frames, target),
            "whole": training_step(copy.deepcopy(network), frames, target),
        }
        for name, step in runs.items():
            peaks[name].append(peak(step))
    for name, aim in (("in segments", "<= 0.5"), ("whole", "<=")):
        exponent = float(np.polyfit(np.log(lengths), np.log(peaks[name]), 1)[0])
        in_mb = {f"peak at T={steps}, MB": value for steps, value in zip(lengths, peaks[name], strict=True)}
        what = f"growth of peak memory with T, {name}, exponent: SEW-ResNet-18, width 1/4, 32x32, batch 8"
        yield Row(6, what, aim, exponent, medians=in_mb)
    times = alternate(runs, options)
    yield compare(6, f"time in sqrt(T) segments, T={lengths[-1]}", times, "in segments", "whole", "<=")


if __name__ == "__main__":
    main(rows, __doc__)
