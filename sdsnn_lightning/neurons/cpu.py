"""The CPU backend: hands torch tensors to the compiled kernels, over as many threads as torch may use."""

import functools
import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

MAX_BLOCK = 1024  # neurons; the rows of a block in flight (about 6 x 4 KiB in float32) stay in the L1 cache
MEMBRANES = 1 << 17  # bytes of membrane that backward integrates again at a time: at home in the L2 cache
SMALL = 1 << 16  # elements; below, waking a thread costs more than it saves


@functools.cache
def _kernels() -> Any:
    """The module of kernels, or None where numba cannot be imported; late, because the import takes a second."""
    try:
        from sdsnn_lightning.neurons import cpu_kernels
    except ImportError as error:
        warnings.warn(
            f"numba cannot be imported ({error}): Leaky runs in plain torch, several times slower", stacklevel=2
        )
        return None
    return cpu_kernels


def usable(x: Tensor) -> bool:
    """Whether the kernels can take `x`: float32 or float64 in main memory, and numba there."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and _kernels() is not None


def curve(kind: str, param: float) -> tuple[int, float, float]:
    """Number and the two constants of a surrogate in `cpu_kernels._curve`; see `surrogate.derivative`."""
    kernels = _kernels()
    if kind == "atan":
        return kernels.ATAN, param / 2, math.pi / 2 * param
    if kind == "fast_sigmoid":
        return kernels.FAST_SIGMOID, 1.0, param
    return kernels.RECTANGULAR, 1.0, param / 2


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: those of a parent do not exist in its fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="leaky")


def _share(work: Callable[[int, int], Any], x: Tensor, block: int) -> None:
    """Runs `work(lo, hi)` over all neurons of `x` `[T, ...]`, in ranges of whole blocks."""
    neurons = x[0].numel()
    threads = torch.get_num_threads() if x.numel() > SMALL else 1
    size = math.ceil(neurons / (threads * block)) * block
    first, *others = [(lo, min(lo + size, neurons)) for lo in range(0, neurons, size)]
    waiting = [_pool(os.getpid(), threads - 1).submit(work, *bounds) for bounds in others]
    work(*first)
    for other in waiting:
        other.result()


def _rows(x: Tensor, steps: int) -> Any:
    """A contiguous sequence as a numpy view `[steps, N]`."""
    return x.detach().reshape(steps, -1).numpy()


def _constant(value: Tensor, block: int) -> Any:
    """Beta or threshold as `[N]`, or `[block]` equal numbers for a scalar."""
    value = value.detach()
    return (value.expand(block) if value.ndim == 0 else value).contiguous().view(-1).numpy()


def forward(
    x: Tensor, beta: Tensor, threshold: Tensor, reset: str, delay: bool, membrane: bool
) -> tuple[Tensor, Tensor]:
    """`reference.forward`, compiled; `x` contiguous, beta and threshold of no dimension or those of one step."""
    spikes = torch.empty_like(x)
    mem = torch.empty_like(x) if membrane else x.new_empty(0)
    if x.numel():
        kernel = _kernels().forward(reset == "subtract", reset == "zero", delay, membrane)
        arrays = [_rows(x, len(x)), *(_constant(p, MAX_BLOCK) for p in (beta, threshold)), _rows(spikes, len(x))]
        arrays.append(_rows(mem, len(x)) if membrane else arrays[-1])
        _share(lambda lo, hi: kernel(*arrays, MAX_BLOCK, lo, hi), x, MAX_BLOCK)
    return spikes, mem


def backward(
    grad_spikes: Tensor,
    grad_mem: Tensor | None,
    x: Tensor,
    beta: Tensor,
    threshold: Tensor,
    reset: str,
    delay: bool,
    detach: bool,
    kind: str,
    param: float,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.backward`, compiled; sequences contiguous, beta and threshold as in `forward`."""
    grad_x = torch.empty_like(x)
    grad_beta, grad_threshold = (x.new_zeros(x.shape[1:] if learn else 0) for _ in range(2))
    if x.numel():
        number, *scales = curve(kind, param)
        detach = detach or reset == "none"
        with_mem = grad_mem is not None
        kernel = _kernels().backward(reset == "subtract", reset == "zero", delay, detach, number, with_mem, learn)
        block = min(max(MEMBRANES // (len(x) * x.element_size()) // 64 * 64, 64), MAX_BLOCK)
        sequences = [_rows(s, len(x)) for s in (grad_spikes, grad_spikes if grad_mem is None else grad_mem, x)]
        constants = [*(_constant(p, block) for p in (beta, threshold)), x.new_tensor(scales).numpy()]
        outputs = [_rows(grad_x, len(x)), grad_beta.view(-1).numpy(), grad_threshold.view(-1).numpy()]
        _share(lambda lo, hi: kernel(*sequences, *constants, *outputs, block, lo, hi), x, block)
    return grad_x, grad_beta, grad_threshold
