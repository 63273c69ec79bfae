"""Times forward + backward of one neuron layer: `python tests/benchmarks/bench_leaky.py [--threads N] [--repeats N]`.

All contestants run alternately in one process, so that a busy machine slows them alike. Printed are the median and the
range of wall time and the median of processor time (all threads) in milliseconds, and how many times less than stepping
`snntorch.Leaky` both medians are. Stepping is that of snnTorch's tutorials, over `x[t]`, whose backward adds up a
tensor of zeros for every step; stepping over `x.unbind()`, which spares that, is shown beside it. Freed memory stays in
the process, for all alike, as in training from the command line, unless `--return-memory` leaves the C library alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable

import snntorch
import torch

from sdsnn_lightning.memory import keep_freed_memory
from sdsnn_lightning.neurons import Leaky, cpu

SHAPES = [(10, 16, 64, 16, 16), (16, 8, 64, 32, 32), (100, 64, 256)]


def contestants(current: torch.Tensor) -> dict[str, Callable[[], object]]:
    """One closure per contestant, each a whole forward and backward to the current."""
    cotangent = torch.randn(current.shape)
    ours, stepped = Leaky(0.9), snntorch.Leaky(0.9)
    learning = Leaky(torch.full(current.shape[2:3] + (1,) * (current.ndim - 3), 0.9), learn_beta=True)

    def loop(steps: Iterable[torch.Tensor]) -> None:
        mem = torch.zeros_like(current[0])
        spikes = []
        for x in steps:
            s, mem = stepped(x, mem)
            spikes.append(s)
        torch.autograd.grad(torch.stack(spikes), current, cotangent)

    def step() -> None:
        loop(current[t] for t in range(len(current)))

    def unbound() -> None:
        loop(current.unbind())

    def kernel() -> None:
        torch.autograd.grad(ours(current), current, cotangent)

    def reference() -> None:
        usable, cpu.usable = cpu.usable, lambda x: False
        torch.autograd.grad(ours(current), current, cotangent)
        cpu.usable = usable

    target = torch.empty_like(cotangent)
    runs: dict[str, Callable[[], object]] = {
        "snntorch.Leaky, stepped over x[t]": step,
        "snntorch.Leaky, stepped over x.unbind()": unbound,
        "Leaky, plain torch": reference,
        "Leaky, kernel": kernel,
        "Leaky, kernel, beta learnt per channel": lambda: torch.autograd.grad(
            learning(current), [current, learning.beta], cotangent
        ),
        "one read + write of the tensor": lambda: target.copy_(cotangent),
    }
    try:
        from spikingjelly.activation_based import functional, neuron
    except ImportError:
        return runs
    rival = neuron.LIFNode(tau=10.0, decay_input=False, detach_reset=True, v_reset=None, step_mode="m")

    def spikingjelly() -> None:
        functional.reset_net(rival)
        torch.autograd.grad(rival(current), current, cotangent)

    return runs | {"spikingjelly LIFNode, multi-step": spikingjelly}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--return-memory", action="store_true")
    options = parser.parse_args()
    if not options.return_memory:
        keep_freed_memory()
    torch.set_num_threads(options.threads)
    for shape in SHAPES:
        current = torch.randn(shape, requires_grad=True)
        runs = contestants(current)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for repeat in range(options.repeats + 1):
            for name, run in runs.items():
                start, cpu_start = time.perf_counter(), time.process_time()
                run()
                if repeat:  # the first round compiles and allocates
                    wall, busy = time.perf_counter() - start, time.process_time() - cpu_start
                    times[name].append((wall * 1e3, busy * 1e3))
        memory = "returned" if options.return_memory else "kept"
        print(f"\n{shape}, float32, {options.threads} thread(s), {options.repeats} repeats, freed memory {memory}")
        base: list[float] = []
        for name, values in times.items():
            walls, busies = zip(*values, strict=True)
            medians = [statistics.median(walls), statistics.median(busies)]
            base = base or medians
            wall, busy = (f"{value:8.2f} ms {first / value:6.1f}x" for value, first in zip(medians, base, strict=True))
            print(f"  {name:42s} wall {wall}  [{min(walls):.2f}, {max(walls):.2f}]   processor {busy}")


if __name__ == "__main__":
    main()
