"""Triton kernels of the recurrence in `reference.py`: one launch forward, one backward; importing this imports triton.

A program takes a block of neighbouring neurons through all time steps, the membrane in registers. Whatever the dtype of
the current, the membrane is float32, or float64 for a float64 current. Options are constants of the compiled kernel.
The roundings are the reference's: compiled without fused multiply-add (see `gpu.py`), a kernel gives its very spikes.
"""
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201, ANN202, N803 (triton infers the types of what it compiles; constants are in capitals)

import triton
import triton.language as tl

ATAN, FAST_SIGMOID, RECTANGULAR = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def _fires(distance):
    """1 where the distance is positive, else 0, in its dtype."""
    return tl.where(distance > 0, 1.0, 0.0).to(distance.dtype)


@triton.jit
def _curve(distance, KIND: tl.constexpr, A: tl.constexpr, C: tl.constexpr):
    """Surrogate derivative; `A` and `C` are those of `gpu.curve`."""
    if KIND == ATAN:
        y = C * distance
        out = A / (1.0 + y * y)
    elif KIND == FAST_SIGMOID:
        y = C * tl.abs(distance) + 1.0
        out = A / (y * y)
    else:
        out = tl.where(tl.abs(distance) < C, 1.0, 0.0).to(distance.dtype)
    return out


@triton.jit
def _step(m, x, beta, threshold, SUBTRACT: tl.constexpr, ZERO: tl.constexpr, DELAY: tl.constexpr):
    """One step: spike `s`, membrane `m` and membrane before the undelayed reset `v`."""
    r = _fires(m - threshold)
    if ZERO:
        m = (1.0 - r) * m
    v = beta * m + x
    if SUBTRACT:
        v = v - r * threshold
    s = _fires(v - threshold)
    m = v
    if not DELAY:
        m = v - (s - r) * (threshold if SUBTRACT else v)
    return s, m, v


@triton.jit
def forward(
    x_ptr, beta_ptr, threshold_ptr, spikes_ptr, mem_ptr, steps, neurons,
    beta_inner, beta_count, threshold_inner, threshold_count,
    REAL: tl.constexpr, BLOCK: tl.constexpr, SUBTRACT: tl.constexpr, ZERO: tl.constexpr, DELAY: tl.constexpr,
    MEMBRANE: tl.constexpr,
):  # fmt: skip
    """`reference.forward` on sequences `[steps, neurons]`.

    Neuron n has the beta number `n // beta_inner % beta_count`, and its threshold likewise.
    """
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = n < neurons
    beta = tl.load(beta_ptr + n // beta_inner % beta_count).to(REAL)
    threshold = tl.load(threshold_ptr + n // threshold_inner % threshold_count).to(REAL)
    m = tl.full((BLOCK,), 0.0, REAL)
    at = n.to(tl.int64)  # a sequence may have more elements than 32 bits count
    for _ in range(steps):
        x = tl.load(x_ptr + at, mask=valid, other=0.0).to(REAL)
        s, m, _v = _step(m, x, beta, threshold, SUBTRACT, ZERO, DELAY)
        tl.store(spikes_ptr + at, s.to(spikes_ptr.dtype.element_ty), mask=valid)
        if MEMBRANE:
            tl.store(mem_ptr + at, m.to(mem_ptr.dtype.element_ty), mask=valid)
        at += neurons


@triton.jit
def backward(
    x_ptr, beta_ptr, threshold_ptr, grad_spikes_ptr, grad_mem_ptr, grad_x_ptr, grad_beta_ptr, grad_threshold_ptr,
    mem_ptr, steps, neurons, beta_inner, beta_count, threshold_inner, threshold_count,
    REAL: tl.constexpr, BLOCK: tl.constexpr, SUBTRACT: tl.constexpr, ZERO: tl.constexpr, DELAY: tl.constexpr,
    DETACH: tl.constexpr, KIND: tl.constexpr, A: tl.constexpr, C: tl.constexpr, WITH_GRAD_MEM: tl.constexpr,
    LEARN: tl.constexpr,
):  # fmt: skip
    """`reference.backward` on sequences `[steps, neurons]`: integrates again, then sweeps back.

    `mem_ptr` is room for the membrane, `REAL[steps, neurons]`. It may be that of the current's gradient: a step's
    membrane is read before its gradient is written.
    """
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = n < neurons
    beta = tl.load(beta_ptr + n // beta_inner % beta_count).to(REAL)
    threshold = tl.load(threshold_ptr + n // threshold_inner % threshold_count).to(REAL)
    m = tl.full((BLOCK,), 0.0, REAL)
    at = n.to(tl.int64)
    for _ in range(steps):
        x = tl.load(x_ptr + at, mask=valid, other=0.0).to(REAL)
        _s, m, _v = _step(m, x, beta, threshold, SUBTRACT, ZERO, DELAY)
        tl.store(mem_ptr + at, m, mask=valid)
        at += neurons
    after = m
    carry = tl.full((BLOCK,), 0.0, REAL)  # dL/dm[t] from the steps after t
    grad_beta = tl.full((BLOCK,), 0.0, REAL)
    grad_threshold = tl.full((BLOCK,), 0.0, REAL)
    for _ in range(steps):
        at -= neurons
        tl.debug_barrier()  # what one thread has stored another may load, and the other way round
        before = tl.load(mem_ptr + at - neurons, mask=valid & (at >= neurons), other=0.0)
        tl.debug_barrier()
        v = after
        if not DELAY:
            x = tl.load(x_ptr + at, mask=valid, other=0.0).to(REAL)
            _s, _m, v = _step(before, x, beta, threshold, SUBTRACT, ZERO, DELAY)
        r = _fires(before - threshold)
        grad_s = tl.load(grad_spikes_ptr + at, mask=valid, other=0.0).to(REAL)
        grad_m = carry
        if WITH_GRAD_MEM:
            grad_m += tl.load(grad_mem_ptr + at, mask=valid, other=0.0).to(REAL)
        grad_v = grad_m
        grad_r = tl.full((BLOCK,), 0.0, REAL)
        if not DELAY:
            gate = _fires(v - threshold) - r
            grad_r = grad_m * threshold if SUBTRACT else grad_m * v
            grad_s -= grad_r
            if ZERO:
                grad_v = grad_m * (1.0 - gate)
            else:
                grad_threshold -= grad_m * gate
        through_s = grad_s * _curve(v - threshold, KIND, A, C)
        grad_v += through_s
        grad_threshold -= through_s
        left = before  # what the decay acts on
        carry = beta * grad_v
        if ZERO:
            left = (1.0 - r) * before
            grad_r -= carry * before
            carry = carry * (1.0 - r)
        if SUBTRACT:
            grad_r -= grad_v * threshold
            grad_threshold -= grad_v * r
        if not DETACH:
            through_r = grad_r * _curve(before - threshold, KIND, A, C)
            carry += through_r
            grad_threshold -= through_r
        grad_beta += grad_v * left
        tl.store(grad_x_ptr + at, grad_v.to(grad_x_ptr.dtype.element_ty), mask=valid)
        after = before
    if LEARN:
        tl.store(grad_beta_ptr + n, grad_beta, mask=valid)
        tl.store(grad_threshold_ptr + n, grad_threshold, mask=valid)
