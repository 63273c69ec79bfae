"""The CPU backend: hands torch tensors to the compiled kernels, over as many threads as torch may use."""

import ctypes
import functools
import math
import os
import warnings
from typing import Any

import torch
from torch import Tensor

SMALL = 1 << 16  # elements; below, waking a thread costs more than it saves
LARGE = 1 << 22  # bytes of a sequence; above, whoever reads it next hardly finds it in a cache
SHORT = 32  # steps; rows of 4 lines stream best (measured), of 8 where there are more rows
SHARES = 4  # chunks for each thread, so that a delayed one leaves work to the others
_PROCESS = os.getpid()


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


@functools.lru_cache(64)
def _scales(kind: str, param: float, dtype: torch.dtype) -> tuple[int, Tensor]:
    """`curve`, its constants as a tensor."""
    number, *scales = curve(kind, param)
    return number, torch.tensor(scales, dtype=dtype, device="cpu")  # whatever the default is: kept for all calls


@functools.cache
def _team() -> Any:
    """`GOMP_parallel` of the OpenMP library that torch runs on, or None where it runs on something else.

    Its threads are those of torch's own operators. A second pool would fight for the cores with them: they spin for a
    while after each operator (measured: half the speed on 2 cores).
    """
    try:
        team = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):
        return None
    team.argtypes, team.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    return team


def _plan(x: Tensor, outputs: tuple[Tensor, ...]) -> tuple[bool, int]:
    """Whether rows of the `outputs` of `x` `[T, ...]` go past the caches, and the cache lines in a row of a tile."""
    line = _kernels().LINE
    stream = x.nbytes > LARGE and x.nbytes // len(x) % line == 0 and all(o.data_ptr() % line == 0 for o in outputs)
    return stream, 4 if stream and len(x) <= SHORT else 8


def _run(
    kernel: Any, x: Tensor, stream: bool, lines: int, rows: int, beta: Tensor, threshold: Tensor,
    *tensors: Tensor | None,
) -> None:  # fmt: skip
    """Runs a kernel over all neurons of `x` `[T, ...]`, with that many rows of scratch for each thread.

    The `tensors` are those of `cpu_kernels.FIELDS` from `gain` on, in that order. A network calls this a few times a
    millisecond: what looks a field up by name here shows in its training step.
    """
    kernels, size, steps = _kernels(), x.numel(), len(x)
    neurons, tile = size // steps, lines * kernels.LINE // x.element_size()
    # The team of a parent does not exist in its fork, and calling it there would wait forever.
    threads = torch.get_num_threads() if size > SMALL and _team() and os.getpid() == _PROCESS else 1
    chunk = math.ceil(neurons / (tile * (SHARES * threads if threads > 1 else 1))) * tile
    beta, threshold, scratch = beta.contiguous(), threshold.contiguous(), x.new_empty(threads * rows * tile)
    numbers = 0, 0, chunk, steps, neurons, stream, rows, beta.numel(), threshold.numel()
    pointers = (0 if t is None else t.data_ptr() for t in (scratch, beta, threshold, *tensors))
    call = (ctypes.c_int64 * len(kernels.FIELDS))(*numbers, *pointers)
    if threads > 1:
        _team()(kernel, call, threads, 0)
    else:
        kernel(call)


def forward(
    x: Tensor, beta: Tensor, threshold: Tensor, reset: str, delay: bool, membrane: bool, gain: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`reference.forward`, compiled; `x` contiguous, beta and threshold of no dimension or those of one step.

    Spikes are multiplied by the `gain`, contiguous like those of one step.
    """
    spikes = torch.empty_like(x)
    mem = torch.empty_like(x) if membrane else x.new_empty(0)
    if x.numel():
        kernels = _kernels()
        stream, lines = _plan(x, (spikes, mem))
        options = x.dtype == torch.float64, lines, reset == "subtract", reset == "zero", delay, membrane
        tensors = beta, threshold, gain, None, x, spikes, mem
        _run(kernels.forward(*options, gain is not None), x, stream, lines, kernels.FORWARD_ROWS, *tensors)
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
    gain: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.backward`, compiled; sequences contiguous, beta, threshold and gain as in `forward`."""
    grad_x = torch.empty_like(x)
    grad_beta, grad_threshold = (x.new_zeros(x.shape[1:] if learn else 0) for _ in range(2))
    if x.numel():
        kernels, outputs = _kernels(), (grad_x, grad_beta, grad_threshold)
        stream, lines = _plan(x, outputs)
        number, scales = _scales(kind, param, x.dtype)
        resets = reset == "subtract", reset == "zero", delay, detach or reset == "none"
        options = x.dtype == torch.float64, lines, *resets, number, grad_mem is not None, learn, gain is not None
        rows = kernels.BACKWARD_ROWS + len(x) * (1 if delay else 2)
        grads = grad_spikes, grad_spikes if grad_mem is None else grad_mem, *outputs
        _run(kernels.backward(*options), x, stream, lines, rows, beta, threshold, gain, scales, x, None, None, *grads)
    return grad_x, grad_beta, grad_threshold
