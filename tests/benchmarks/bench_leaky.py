"""Row 1: forward and backward of one neuron layer: `python tests/benchmarks/bench_leaky.py [--threads N]`.

snnTorch is stepped as in its tutorials, over `x[t]`, whose backward adds up a tensor of zeros for every step; stepping
over `x.unbind()`, which spares that, stands beside it. Freed memory stays in the process, for all alike, as in training
from the command line. The roof is a copy of the tensor for each direction: one read and one write.
"""

from collections.abc import Callable, Iterable, Iterator

import snntorch
import torch
from measure import Options, Row, alternate, compare, main, spikingjelly

from sdsnn_lightning.memory import keep_freed_memory
from sdsnn_lightning.neurons import Leaky

SHAPES = [(10, 16, 64, 16, 16), (16, 8, 64, 32, 32), (100, 64, 256)]
LARGE = 2  # of them, the first ones, have to come near the roof


def contestants(current: torch.Tensor) -> dict[str, Callable[[], object]]:
    """One closure per contestant, each a whole forward and backward to the current."""
    cotangent = torch.randn(current.shape)
    ours, stepped = Leaky(0.9), snntorch.Leaky(0.9)
    target = torch.empty_like(cotangent)

    def loop(steps: Iterable[torch.Tensor]) -> None:
        mem = torch.zeros_like(current[0])
        spikes = []
        for x in steps:
            s, mem = stepped(x, mem)
            spikes.append(s)
        torch.autograd.grad(torch.stack(spikes), current, cotangent)

    def copies() -> None:
        target.copy_(cotangent)
        target.copy_(cotangent)

    runs: dict[str, Callable[[], object]] = {
        "Leaky": lambda: torch.autograd.grad(ours(current), current, cotangent),
        "snntorch.Leaky over x[t]": lambda: loop(current[t] for t in range(len(current))),
        "snntorch.Leaky over x.unbind()": lambda: loop(current.unbind()),
        "two copies": copies,
    }
    rival = spikingjelly()
    if rival is None:
        return runs
    node = rival.neuron.LIFNode(tau=10.0, decay_input=False, detach_reset=True, v_reset=None, step_mode="m")

    def multi_step() -> None:
        rival.functional.reset_net(node)
        torch.autograd.grad(node(current), current, cotangent)

    return runs | {"spikingjelly LIFNode": multi_step}


def rows(options: Options) -> Iterator[Row]:
    """Three comparisons a shape."""
    keep_freed_memory()
    for number, shape in enumerate([(5, 4, 8, 8, 8)] if options.quick else SHAPES):
        current = torch.randn(shape, requires_grad=True)
        times = alternate(contestants(current), options)
        what = f"Leaky {shape} against"
        yield compare(1, f"{what} snnTorch over x[t]", times, "Leaky", "snntorch.Leaky over x[t]", ">= 10")
        yield compare(1, f"{what} snnTorch over unbind()", times, "Leaky", "snntorch.Leaky over x.unbind()", ">=")
        yield compare(1, f"{what} spikingjelly multi-step", times, "Leaky", "spikingjelly", ">= 3")
        yield compare(1, f"{what} two copies", times, "Leaky", "two copies", "<= 1.5" if number < LARGE else "<=")


if __name__ == "__main__":
    main(rows, __doc__)
