"""Numba kernels of the recurrence in `reference.py`; importing this module imports numba.

Time is the outer loop inside a block of neighbouring neurons that fits the cache, so memory is read in order and the
inner loop becomes vector instructions. Options are constants of a closure: LLVM drops the branches not taken. There is
no `fastmath`, hence no fused multiply-add: spikes are those of the reference bit by bit. Each kernel works on the
neurons `lo` to `hi` and releases the interpreter lock, so plain threads can share the work. Numba's own threads are not
used: they do not survive a fork.
"""
# ruff: noqa: ANN001, ANN202 (numba infers the types of what it compiles)

import functools
from collections.abc import Callable

import numpy as np
from numba import njit

ATAN, FAST_SIGMOID, RECTANGULAR = 0, 1, 2


def _jit(function: Callable) -> Callable:
    """Compiles on first call; cached on disk, beside this file or in the user's cache folder, where one is writable."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # numba found no folder to write to
        return njit(nogil=True, error_model="numpy")(function)


@njit(nogil=True, error_model="numpy")
def _curve(kind, a, c, one, distance):  # type: ignore[no-untyped-def]
    """Surrogate derivative of one neuron; `a`, `c` and `one` in the dtype of `distance`, see `cpu.curve`."""
    if kind == ATAN:
        y = c * distance
        return a / (one + y * y)
    if kind == FAST_SIGMOID:
        y = c * abs(distance) + one
        return one / (y * y)
    return one if abs(distance) < c else one - one


@njit(nogil=True, error_model="numpy")
def _step(subtract, zero, delay, m, x, b, thr, nil, one):  # type: ignore[no-untyped-def]
    """One step of one neuron: spike `s`, membrane `m` and membrane before the undelayed reset `v`."""
    r = one if m - thr > nil else nil
    if zero:
        m = (one - r) * m
    v = b * m + x
    if subtract:
        v = v - r * thr
    s = one if v - thr > nil else nil
    if delay:
        return s, v, v
    return s, (v - (s - r) * thr if subtract else v - (s - r) * v), v


@functools.cache
def forward(subtract: bool, zero: bool, delay: bool, membrane: bool) -> Callable:
    """The kernel of `reference.forward` for one kind of reset.

    Returns:
        `kernel(x, beta, threshold, spikes, mem, block, lo, hi)`: `x`, `spikes` `[T, N]`; `mem` `[T, N]`, or any matrix
        without `membrane`; `beta`, `threshold` `[N]`, or `[block]` equal numbers.
    """

    def kernel(x, beta, threshold, spikes, mem, block, lo, hi):  # type: ignore[no-untyped-def]
        nil, one = x.dtype.type(0), x.dtype.type(1)
        state = np.empty((2, block), x.dtype)
        for a in range(lo, hi, block):
            e = min(a + block, hi)
            b = beta[a:e] if beta.size > block else beta[: e - a]
            thr = threshold[a:e] if threshold.size > block else threshold[: e - a]
            state[:] = nil
            for t in range(x.shape[0]):
                x_t, s_t, before, after = x[t, a:e], spikes[t, a:e], state[(t + 1) % 2], state[t % 2]
                m_t = mem[t, a:e] if membrane else after
                for j in range(e - a):
                    s, m, _ = _step(subtract, zero, delay, before[j], x_t[j], b[j], thr[j], nil, one)
                    s_t[j] = s
                    after[j] = m
                    if membrane:
                        m_t[j] = m

    return _jit(kernel)


@functools.cache
def backward(
    subtract: bool, zero: bool, delay: bool, detach: bool, kind: int, with_grad_mem: bool, learn: bool
) -> Callable:
    """The kernel of `reference.backward` for one kind of neuron.

    Returns:
        `kernel(grad_spikes, grad_mem, x, beta, threshold, scales, grad_x, grad_beta, grad_threshold, block, lo, hi)`:
        sequences `[T, N]`, constants as in `forward`, `scales` the two numbers of `cpu.curve` in the dtype of `x`,
        `grad_beta` and `grad_threshold` `[N]` of zeros to add to. What the options leave unused may be any array with
        as many dimensions.
    """

    def kernel(  # type: ignore[no-untyped-def]
        grad_spikes, grad_mem, x, beta, threshold, scales, grad_x, grad_beta, grad_threshold, block, lo, hi
    ):
        nil, one, steps = x.dtype.type(0), x.dtype.type(1), x.shape[0]
        pa, pc = scales[0], scales[1]
        carry = np.empty(block, x.dtype)
        mem = np.zeros((steps + 1, block), x.dtype)  # m[t] in row t + 1; the first row stays zero
        pre = mem[1:] if delay else np.empty((steps, block), x.dtype)
        for a in range(lo, hi, block):
            e = min(a + block, hi)
            b = beta[a:e] if beta.size > block else beta[: e - a]
            thr = threshold[a:e] if threshold.size > block else threshold[: e - a]
            gb, gt = grad_beta[a:e], grad_threshold[a:e]
            for t in range(steps):
                x_t, before, after, v_t = x[t, a:e], mem[t], mem[t + 1], pre[t]
                for j in range(e - a):
                    _, m, v = _step(subtract, zero, delay, before[j], x_t[j], b[j], thr[j], nil, one)
                    after[j] = m
                    if not delay:
                        v_t[j] = v
            carry[:] = nil
            for t in range(steps - 1, -1, -1):
                before, v_t = mem[t], pre[t]
                gs_t, gm_t, gx_t = grad_spikes[t, a:e], grad_mem[t, a:e], grad_x[t, a:e]
                for j in range(e - a):
                    m, v = before[j], v_t[j]
                    r = one if m - thr[j] > nil else nil
                    grad_m, grad_s, grad_r, grad_thr = carry[j], gs_t[j], nil, nil
                    if with_grad_mem:
                        grad_m += gm_t[j]
                    grad_v = grad_m
                    if not delay:
                        gate = (one if v - thr[j] > nil else nil) - r
                        grad_r = grad_m * (thr[j] if subtract else v)
                        grad_s -= grad_r
                        if zero:
                            grad_v = grad_m * (one - gate)
                        else:
                            grad_thr -= grad_m * gate
                    through_s = grad_s * _curve(kind, pa, pc, one, v - thr[j])
                    grad_v += through_s
                    grad_thr -= through_s
                    left, back = m, b[j] * grad_v
                    if zero:
                        left = (one - r) * m
                        grad_r -= back * m
                        back = back * (one - r)
                    if subtract:
                        grad_r -= grad_v * thr[j]
                        grad_thr -= grad_v * r
                    if not detach:
                        through_r = grad_r * _curve(kind, pa, pc, one, m - thr[j])
                        back += through_r
                        grad_thr -= through_r
                    gx_t[j] = grad_v
                    carry[j] = back
                    if learn:
                        gb[j] += grad_v * left
                        gt[j] += grad_thr

    return _jit(kernel)
