"""Batches of samples that differ in length: which frames are real, and every sample without its padding."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def real_frames(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
    """Finds the mask among the inputs of a network.

    Args:
        network: Follows the `Network` contract; it takes a mask where its `inputs` name one.
        inputs: What its `forward` takes, each `[T, B, ...]`.

    Returns:
        True on real frames `[T, B]`; None where the network takes no mask or was given none.
    """
    for name, values in zip(getattr(network, "inputs", ()), inputs, strict=False):
        if name == "mask" and values.dim() == 2:
            return values.ne(0)
    return None


def is_padded(network: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether any sample of a batch ends before the batch does; `network` and `inputs` as of `real_frames`."""
    mask = real_frames(network, inputs)
    return mask is not None and not bool(mask[-1].all())


def own_lengths(network: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Takes a batch apart into samples of one length each, without the frames after the last real one.

    Args:
        network: Follows the `Network` contract.
        inputs: What its `forward` takes, each `[T, B, ...]`.

    Yields:
        Inputs `[t, b, ...]`: the samples of `t` frames, from the shortest; the whole batch where nothing is padded.
    """
    mask = real_frames(network, inputs)
    if mask is None or bool(mask[-1].all()):
        yield inputs
        return
    steps = torch.arange(1, len(mask) + 1, device=mask.device).unsqueeze(-1)
    lengths = (mask * steps).amax(0).clamp(min=1)
    for length in lengths.unique().tolist():
        these = lengths == length
        yield tuple(values[:length, these] for values in inputs)
