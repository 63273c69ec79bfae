"""The GPU backend: hands CUDA tensors to the Triton kernels, one launch forward and one backward."""

import functools
import math
import warnings
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
BLOCK, WARPS = 128, 1  # neurons of a program: 4 float32 numbers, one 16-byte access, for each thread of a warp


@functools.cache
def _kernels() -> Any:
    """The module of kernels, or None where triton cannot be imported; late, because the import takes time."""
    try:
        from sdsnn_lightning.neurons import triton_kernels
    except ImportError as error:
        warnings.warn(
            f"triton cannot be imported ({error}): Leaky runs in plain torch on this GPU, several times slower",
            stacklevel=2,
        )
        return None
    return triton_kernels


def usable(x: Tensor) -> bool:
    """Whether the kernels can take `x`: floating point on a CUDA device, and triton there."""
    return x.is_cuda and x.dtype in DTYPES and _kernels() is not None


def curve(kind: str, param: float) -> tuple[int, float, float]:
    """Number and the two constants of a surrogate in `triton_kernels._curve`; see `surrogate.derivative`."""
    kernels = _kernels()
    if kind == "atan":
        return kernels.ATAN.value, param / 2, math.pi / 2 * param
    if kind == "fast_sigmoid":
        return kernels.FAST_SIGMOID.value, 1.0, param
    return kernels.RECTANGULAR.value, 1.0, param / 2


def per_neuron(value: Tensor) -> tuple[Tensor, int, int]:
    """Beta or threshold without the copies that broadcasting makes.

    Args:
        value: One number, or those of one step `[...]`, broadcast dimensions of stride 0.

    Returns:
        The numbers, `inner` and `count`: neuron n has number `n // inner % count`.
    """
    kept = [d for d in range(value.ndim) if value.stride(d) != 0 and value.shape[d] > 1]
    if not kept:
        return value.reshape(-1)[:1], 1, 1
    span = range(kept[0], kept[-1] + 1)
    if any(value.stride(d) == 0 and value.shape[d] > 1 for d in span):
        return value.contiguous(), 1, value.numel()
    numbers = value[tuple(slice(None) if d in span else 0 for d in range(value.ndim))].contiguous()
    return numbers, math.prod(value.shape[span.stop :]), numbers.numel()


def _launch(kernel: Any, x: Tensor, *arguments: Any, **constants: Any) -> None:
    """Runs a kernel over all neurons of `x`, on its device."""
    language = _kernels().tl
    constants |= {"REAL": language.float64 if x.dtype == torch.float64 else language.float32, "BLOCK": BLOCK}
    with torch.cuda.device_of(x):
        # Multiply and add in one rounding would flip spikes at the threshold.
        grid = (math.ceil(x[0].numel() / BLOCK),)
        kernel[grid](x, *arguments, **constants, num_warps=WARPS, enable_fp_fusion=False)


def forward(
    x: Tensor, beta: Tensor, threshold: Tensor, reset: str, delay: bool, membrane: bool
) -> tuple[Tensor, Tensor]:
    """`reference.forward`, on the GPU; `x` contiguous, also half precision, beta and threshold float32 then."""
    spikes = torch.empty_like(x)
    mem = torch.empty_like(x) if membrane else x.new_empty(0)
    if x.numel():
        (beta, *beta_at), (threshold, *threshold_at) = per_neuron(beta), per_neuron(threshold)
        arguments = beta, threshold, spikes, mem, len(x), x[0].numel(), *beta_at, *threshold_at
        options = {"SUBTRACT": reset == "subtract", "ZERO": reset == "zero", "DELAY": delay, "MEMBRANE": membrane}
        _launch(_kernels().forward, x, *arguments, **options)
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
    """`reference.backward`, on the GPU; sequences contiguous. Gradients of beta and threshold in their dtype."""
    grad_x = torch.empty_like(x)
    grad_beta, grad_threshold = (x.new_zeros(x.shape[1:] if learn else 0, dtype=beta.dtype) for _ in range(2))
    if x.numel():
        # The membrane lies where the gradient of the current will, if that has room for it.
        mem = grad_x if grad_x.element_size() >= 4 else torch.empty_like(x, dtype=torch.float32)
        (beta, *beta_at), (threshold, *threshold_at) = per_neuron(beta), per_neuron(threshold)
        grads = grad_spikes, grad_spikes if grad_mem is None else grad_mem, grad_x, grad_beta, grad_threshold
        number, a, c = curve(kind, param)
        options = {
            "SUBTRACT": reset == "subtract",
            "ZERO": reset == "zero",
            "DELAY": delay,
            "DETACH": detach or reset == "none",
            "KIND": number,
            "A": a,
            "C": c,
            "WITH_GRAD_MEM": grad_mem is not None,
            "LEARN": learn,
        }
        sizes = len(x), x[0].numel(), *beta_at, *threshold_at
        _launch(_kernels().backward, x, beta, threshold, *grads, mem, *sizes, **options)
    return grad_x, grad_beta, grad_threshold
