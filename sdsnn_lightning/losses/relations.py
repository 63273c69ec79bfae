"""Losses on how positions or samples relate, not on the values of features: no projection between widths is needed."""

import torch
from torch import Tensor

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.features import same_size
from sdsnn_lightning.losses.logits import full_precision


def normalise(x: Tensor) -> Tensor:
    """Divides by the Euclidean norm along the last axis. What is all zero stays zero and receives no gradient.

    Args:
        x: `[..., F]`.

    Returns:
        The same shape. An epsilon instead would give silent spiking features a gradient of 1 / epsilon.
    """
    norm = x.square().sum(-1, keepdim=True)
    alive = norm > 1e-24
    return torch.where(alive, x, 0.0) / torch.where(alive, norm, 1.0).sqrt()


@full_precision
def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Attention transfer (Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928, eq 2), activation based.

    `A = sum_c |F_c|^2` over the positions, divided by its norm; mean over samples and positions of the squared
    difference. The paper writes the norm of the difference; squared is how it is used in practice.

    Args:
        student: `[N, C, H, W]`.
        teacher: `[N, C', H', W']`; receives no gradient. The attention map of the finer is averaged to the coarser.

    Returns:
        A scalar; invariant to the scale of either feature and to the order and number of its channels.

    Raises:
        ConfigError: If there is one position only: its attention is always 1.
    """
    maps = [x.square().sum(1, keepdim=True) for x in (student, teacher.detach())]  # [N, 1, H, W]
    ours, theirs = (normalise(x.flatten(1)) for x in same_size(*maps))
    if ours.shape[1] == 1:
        raise ConfigError(
            "attention transfer compares positions, but a feature here has one only; "
            "name taps that are maps, or vectors over time in both networks"
        )
    return (ours - theirs).square().sum() / max(1, ours.numel())


@full_precision
def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Similarity-preserving distillation (Tung and Mori, ICCV 2019, arXiv 1907.09682, eqs 1-4).

    `G = Q Q^T` of the flattened features Q, each row divided by its norm; `||G_student - G_teacher||_F^2 / B^2`.

    Args:
        student: `[..., B, F]`; leading axes (time steps) are averaged over.
        teacher: `[..., B, F']`; receives no gradient.

    Returns:
        A scalar; invariant to the scale of either feature and to any rotation of its axes.
    """
    grams = [normalise(x @ x.mT) for x in (student, teacher.detach())]
    return (grams[0] - grams[1]).square().mean()
