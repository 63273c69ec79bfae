"""Less memory for a training step: spikes are kept as bits for backward, and the neurons' currents not at all.

A convolution or linear layer keeps its input for the gradient of its weights. Where that input is spikes, every float32
number of it holds one bit. Within `lean_memory` such tensors are kept packed, 32 times smaller (4 times for the sums
of spikes in a residual network), and unpacked when backward asks for them: the gradients are the same bit by bit.
Whether a tensor holds nothing else is looked at, not assumed; a real-valued one shows it within its first numbers.

A neuron keeps its current, and a batch norm before it what it normalises: one of the two is enough. The current is
computed again in backward by the same operator from the same numbers, so it is the same bit by bit.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sdsnn_lightning.compiled import compile_loop
from sdsnn_lightning.neurons import Leaky

LEAST = 4096  # elements; smaller tensors stay as they are


class Packed(NamedTuple):
    """A tensor of few values.

    Attributes:
        data: uint8: eight elements a number, or one (`bits` False).
        bits: Whether elements are 0 or 1, else 0 to 255.
        shape: Of the tensor with its axes in the order of memory.
        axes: Where these axes are in the tensor.
        dtype: Of the tensor.
    """

    data: Tensor
    bits: bool
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    dtype: torch.dtype


@functools.cache
def _kernels() -> tuple[Callable[..., bool], Callable[..., bool], Callable[..., None]]:
    """Compiled loops over flat arrays; late, because importing numba takes a second."""
    import numba

    @compile_loop
    def to_bits(x: Any, out: Any) -> bool:
        for block in range(0, len(x), 4096):  # a look after every block, or the loop could not be vectorised
            strange = 0
            for i in range(block, min(block + 4096, len(x)), 8):
                byte = 0
                for k in range(min(8, len(x) - i)):
                    one = x[i + k] == 1
                    strange |= (x[i + k] != 0) & (not one)
                    byte |= one << k
                out[i >> 3] = byte
            if strange:
                return False
        return True

    @compile_loop
    def to_bytes(x: Any, out: Any) -> bool:
        for block in range(0, len(x), 4096):
            strange = 0
            for i in range(block, min(block + 4096, len(x))):
                number = numba.int32(min(max(x[i], 0), 255))
                strange |= number != x[i]
                out[i] = number
            if strange:
                return False
        return True

    @compile_loop
    def from_bits(bits: Any, out: Any) -> None:
        for i in range(0, len(out), 8):
            byte = bits[i >> 3]
            for k in range(min(8, len(out) - i)):
                out[i + k] = (byte >> k) & 1

    return to_bits, to_bytes, from_bits


def _compiled(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def pack(x: Tensor) -> Tensor | Packed:
    """Packs a tensor that holds nothing but 0 and 1, or integers from 0 to 255.

    Args:
        x: Any tensor. On a GPU looking at it waits for the device.

    Returns:
        The packed numbers, or `x` itself where it is small, holds other numbers, has gaps in memory, or is a parameter.
    """
    if not x.is_floating_point() or x.numel() < LEAST or (x.is_leaf and x.requires_grad) or type(x) is not Tensor:
        return x
    axes = tuple(sorted(range(x.ndim), key=x.stride, reverse=True))
    ordered = x.detach().permute(axes)
    if not ordered.is_contiguous():
        return x
    flat, count = ordered.view(-1), x.numel()
    first = flat[:64]
    if bool((first != first.clamp(0, 255).floor()).any()):
        return x
    if not _compiled(x):
        numbers = flat.clamp(0, 255).to(torch.uint8)
        if not bool((numbers == flat).all()):
            return x
        if bool(numbers.max() > 1):
            return Packed(numbers, False, ordered.shape, axes, x.dtype)
        eight = torch.nn.functional.pad(numbers, (0, -count % 8)).view(-1, 8)
        data = eight.mul(2 ** torch.arange(8, dtype=torch.uint8, device=x.device)).sum(1, dtype=torch.uint8)
        return Packed(data, True, ordered.shape, axes, x.dtype)
    to_bits, to_bytes, _ = _kernels()
    data = torch.empty((count + 7) // 8, dtype=torch.uint8)
    if to_bits(flat.numpy(), data.numpy()):
        return Packed(data, True, ordered.shape, axes, x.dtype)
    data = torch.empty(count, dtype=torch.uint8)
    return Packed(data, False, ordered.shape, axes, x.dtype) if to_bytes(flat.numpy(), data.numpy()) else x


class Normalised(NamedTuple):
    """The output of a batch norm in training, as a neuron sees it, by what it was made of.

    Attributes:
        x: What is normalised.
        weight: Of the batch norm, or None.
        bias: Of the batch norm, or None.
        eps: Of the batch norm.
        versions: Of the three tensors when they were used.
        place: Shape, strides and offset of the view that the neuron sees.
    """

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    versions: tuple[int, ...]
    place: tuple[tuple[int, ...], tuple[int, ...], int]

    def again(self) -> Tensor:
        """Computes it.

        Raises:
            RuntimeError: If a tensor it was made of has been changed in place since.
        """
        if _versions(self.x, self.weight, self.bias) != self.versions:
            raise RuntimeError("lean_memory: a batch norm's input or weight was changed in place before backward")
        with torch.no_grad():
            y = functional.batch_norm(self.x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return y.as_strided(*self.place)


def _versions(*tensors: Tensor | None) -> tuple[int, ...]:
    return tuple(-1 if tensor is None else tensor._version for tensor in tensors)


def unpack(packed: Tensor | Packed | Normalised) -> Tensor:
    """The tensor that was packed, in the same order of memory; a new one."""
    if isinstance(packed, Tensor):
        return packed
    if isinstance(packed, Normalised):
        return packed.again()
    data, bits, shape, axes, dtype = packed
    if not bits:
        flat = data.to(dtype)
    else:
        flat = torch.empty(torch.Size(shape).numel(), dtype=dtype, device=data.device)
        if _compiled(flat):
            _kernels()[2](data.numpy(), flat.numpy())
        else:
            places = torch.arange(8, dtype=torch.uint8, device=data.device)
            flat.copy_(((data[:, None] >> places) & 1).flatten()[: len(flat)])
    back = sorted(range(len(axes)), key=axes.__getitem__)
    return flat.view(shape).permute(back)


@contextmanager
def lean_memory(network: nn.Module) -> Iterator[None]:
    """A context for the forward pass of a network: what is kept for backward is packed where that loses nothing.

    Args:
        network: Its batch norms and neurons are watched. Layers of other networks are packed all the same.

    Yields:
        Nothing. `backward` may run outside of the context.
    """
    last: list[tuple[nn.Module, Tensor, Tensor]] = []  # the batch norm that ran last, its input and output

    def remember(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        last[:] = [(norm, inputs[0], output)] if norm.training else []

    def forget(*_: Any) -> None:
        last.clear()

    def keep(x: Tensor) -> Tensor | Packed | Normalised:
        if last and last[0][2].untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
            norm, entered, output = last[0]
            if x.numel() == output.numel() and x._version == 0 and entered.requires_grad:
                tensors = entered.detach(), norm.weight, norm.bias
                place = tuple(x.shape), x.stride(), x.storage_offset()
                return Normalised(*tensors, norm.eps, _versions(*tensors), place)  # type: ignore[arg-type]
        return pack(x)

    norms = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
    hooks = [m.register_forward_hook(remember) for m in network.modules() if type(m) in norms]
    hooks += [m.register_forward_hook(forget) for m in network.modules() if isinstance(m, Leaky)]
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
            yield
    finally:
        for hook in hooks:
            hook.remove()
