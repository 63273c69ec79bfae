"""The leaky integrate-and-fire recurrence and its adjoint in plain torch: what every kernel is tested against.

Forward, from `m[-1] = 0` (snnTorch's `Leaky`, all roundings included):

    r[t] = H(m[t-1] - threshold)
    v[t] = beta * m[t-1] + x[t] - r[t] * threshold     (subtract)
    v[t] = beta * (1 - r[t]) * m[t-1] + x[t]           (zero)
    s[t] = H(v[t] - threshold)
    m[t] = v[t]                                        (reset_delay)
    m[t] = v[t] - (s[t] - r[t]) * {threshold | v[t]}   (no reset_delay; subtract | zero)

`m` is the membrane that snnTorch returns. Backward replaces `dH` by the surrogate. It keeps the current alone and
integrates it again, which is cheaper than writing the membrane out and reading it back. Any device.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from sdsnn_lightning.neurons.surrogate import derivative


def _integrate(
    x: Tensor, beta: Tensor, threshold: Tensor, reset: str, delay: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields spikes `s`, membrane `m` and membrane before the undelayed reset `v`, each `[...]`, step by step."""
    m = x.new_zeros(x.shape[1:])
    for x_t in x:
        r = (m - threshold > 0).to(x.dtype)
        v = beta * ((1 - r) * m if reset == "zero" else m) + x_t
        if reset == "subtract":
            v = v - r * threshold
        s = (v - threshold > 0).to(x.dtype)
        m = v if delay else v - (s - r) * (threshold if reset == "subtract" else v)
        yield s, m, v


def forward(
    x: Tensor, beta: Tensor, threshold: Tensor, reset: str, delay: bool, membrane: bool
) -> tuple[Tensor, Tensor]:
    """Integrates a whole sequence.

    Args:
        x: Input current `[T, ...]`, float32 or float64.
        beta: Decay per step in [0, 1], scalar or `[...]`, dtype of `x`.
        threshold: Scalar or `[...]`, dtype of `x`.
        reset: `subtract`, `zero` or `none`.
        delay: Whether the reset comes one step after the spike. True where there is no reset.
        membrane: Whether to return the membrane.

    Returns:
        Spikes `s` and membrane `m`, each `[T, ...]`; the membrane empty where it is not wanted.
    """
    spikes = torch.empty_like(x)
    mem = torch.empty_like(x) if membrane else x.new_empty(0)
    for t, (s, m, _) in enumerate(_integrate(x, beta, threshold, reset, delay)):
        spikes[t] = s
        if membrane:
            mem[t] = m
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
    """The adjoint of `forward`: one sweep from the last step to the first.

    With `detach` the gate `r` is a constant, as in snnTorch. The gate `s - r` of an undelayed reset lets the gradient
    through `s` even then, again as in snnTorch.

    Args:
        grad_spikes: dL/ds `[T, ...]`.
        grad_mem: dL/dm `[T, ...]`, or None for zero.
        x: As in `forward`, and so on.
        beta: Decay.
        threshold: Threshold.
        reset: Kind of reset.
        delay: Whether it is delayed.
        detach: Whether no gradient flows through the gate `r`.
        kind: Surrogate, see `surrogate.derivative`.
        param: Its parameter.
        learn: Whether the gradients of beta and threshold are wanted.

    Returns:
        dL/dx `[T, ...]`, and per element `[...]` dL/dbeta and dL/dthreshold (empty without `learn`).
    """
    grad_x = torch.empty_like(x)
    state = x.shape[1:]
    grad_beta, grad_threshold = (x.new_zeros(state if learn else 0) for _ in range(2))
    steps = list(_integrate(x, beta, threshold, reset, delay))
    carry = x.new_zeros(state)  # dL/dm[t] from the steps after t
    for t in reversed(range(len(x))):
        s, _, v = steps[t]
        before = steps[t - 1][1] if t else x.new_zeros(state)
        r = (before - threshold > 0).to(x.dtype)
        grad_m = carry if grad_mem is None else carry + grad_mem[t]
        grad_s, grad_v, grad_r = grad_spikes[t], grad_m, x.new_zeros(())
        if not delay:  # through m = v - (s - r) * {threshold | v}
            away = threshold if reset == "subtract" else v
            grad_s, grad_r = grad_s - grad_m * away, grad_m * away
            if reset == "zero":
                grad_v = grad_m * (1 - (s - r))
            elif learn:
                grad_threshold -= grad_m * (s - r)
        through_s = grad_s * derivative(v - threshold, kind, param)
        grad_v = grad_v + through_s
        grad_x[t] = grad_v
        left = (1 - r) * before if reset == "zero" else before  # what the decay acts on
        carry = beta * grad_v
        if reset == "zero":
            grad_r, carry = grad_r - carry * before, carry * (1 - r)
        elif reset == "subtract":
            grad_r = grad_r - grad_v * threshold
        if learn:
            grad_beta += grad_v * left
            grad_threshold -= through_s + grad_v * r if reset == "subtract" else through_s
        if not detach and reset != "none":
            through_r = grad_r * derivative(before - threshold, kind, param)
            carry = carry + through_r
            if learn:
                grad_threshold -= through_r
    return grad_x, grad_beta, grad_threshold
