"""Time and memory that one forward pass takes on the device at hand."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import torch
from torch import Tensor, nn

WARM_UPS, LEAST, MOST, SECONDS = 2, 3, 50, 2.0


def device_name(device: torch.device) -> str:
    """What the figures were measured on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type.upper()}, {threads} thread{'s' if threads > 1 else ''}"


def latency(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Time of one forward pass with its read-out: the median of repeats, after two passes to warm up.

    Args:
        network: Follows the `Network` contract, in evaluation mode.
        inputs: What its `forward` takes, each `[T, B, ...]`, on the network's device.

    Returns:
        Seconds for the whole batch.
    """
    device, times = inputs[0].device, []
    for index in range(WARM_UPS + MOST):
        _wait(device)
        start = time.perf_counter()
        network.readout(network(*inputs).logits)  # type: ignore[operator]
        _wait(device)
        if index >= WARM_UPS:
            times.append(time.perf_counter() - start)
        if len(times) >= LEAST and sum(times) > SECONDS:
            break
    return median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(network: nn.Module, inputs: tuple[Tensor, ...]) -> int | None:
    """Memory that one forward pass needs beside weights and inputs, at its peak.

    On CUDA and on the CPU alike: bytes that PyTorch's allocator hands out, hence tensors and the work space of
    operators, but neither the interpreter nor the libraries. On the CPU the peak is that of the allocator's own
    record, since the resident memory of a process says little where freed memory is kept.

    Args:
        network: Follows the `Network` contract, in evaluation mode.
        inputs: What its `forward` takes, each `[T, B, ...]`, on the network's device.

    Returns:
        Bytes; None on a device that keeps no such record.
    """
    device = inputs[0].device
    network(*inputs)  # what is allocated once and kept is not of the pass
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        network(*inputs)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    with _native_silence(), torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as record:  # fmt: skip
        network(*inputs)
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


@contextmanager
def _native_silence() -> Iterator[None]:
    """Keeps the profiler's native library from writing its begin and end to the error stream."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
