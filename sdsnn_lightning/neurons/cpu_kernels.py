"""Numba kernels of the recurrence in `reference.py`; importing this module imports numba.

A kernel is a C function of a pointer to the numbers `FIELDS`, so that any pool of threads can run it: each thread
claims chunks of neurons until none is left. A tile of neighbouring neurons goes through all time steps at once. Its
state and its results live in rows of scratch memory, in the cache; since the inner loops write nowhere else, LLVM turns
them into vector instructions. A finished row is moved out whole, past the caches where the sequence is larger than they
are: an ordinary store first reads the line that it overwrites, a third of all the traffic with memory.

Options are constants of a closure: LLVM drops the branches not taken. There is no `fastmath`, hence no fused
multiply-add: spikes are those of the reference bit by bit.
"""
# ruff: noqa: ANN001, ANN202 (numba infers the types of what it compiles)

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, float32, float64, from_dtype, int64, njit, types
from numba.extending import intrinsic

ATAN, FAST_SIGMOID, RECTANGULAR = 0, 1, 2
LINE = 64  # bytes of a cache line
FORWARD_ROWS, BACKWARD_ROWS = 5, 8  # rows of scratch a thread needs; backward `steps` more, twice that without delay

FIELDS = (
    *("neuron", "worker"),  # next ones to claim, from 0
    "chunk",  # neurons that are claimed at once
    *("steps", "neurons", "stream"),  # `stream`: whether rows go past the caches, by whole lines
    "rows",  # of scratch for each thread
    *("betas", "thresholds"),  # how many there are: one per neuron, or 1
    *("scratch", "beta", "threshold", "gain"),  # addresses from here on; the gain is every neuron's
    "curve",  # the surrogate's two constants, see `cpu.curve`
    *("x", "spikes", "mem", "grad_spikes", "grad_mem", "grad_x", "grad_beta", "grad_threshold"),
)
_view: Any = carray  # numba annotates it for ctypes' pointers only
_intrinsic: Any = intrinsic  # and this one for its own types only
_CALL = from_dtype(np.dtype([(name, np.int64) for name in FIELDS]))


@_intrinsic
def _pointer(_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer that `_view` takes."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@_intrinsic
def _claim(_context, data, field, amount):  # type: ignore[no-untyped-def]
    """Adds to the field of that number, which threads share, and returns what it was."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        counter = builder.gep(builder.bitcast(args[0], ir.IntType(64).as_pointer()), [args[1]])
        return builder.atomic_rmw("add", counter, args[2], "monotonic")

    return int64(data, int64, int64), generate


@_intrinsic
def _prefetch(_context, address):  # type: ignore[no-untyped-def]
    """Asks for a cache line that will be read soon; any address will do."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], form)
        builder.call(prefetch, [builder.inttoptr(args[0], pointer), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(int64), generate


def _line_mover(past_caches: bool) -> Any:
    """An intrinsic that copies a cache line from an aligned address; to one as well if it goes `past_caches`."""

    @_intrinsic
    def move(_context, target, source):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            line = ir.VectorType(ir.IntType(8), LINE).as_pointer()
            to, of = (builder.inttoptr(address, line) for address in args)
            store = builder.store(builder.load(of, align=LINE), to, align=LINE if past_caches else 1)
            if past_caches:
                store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
            return context.get_dummy_value()

        return types.void(int64, int64), generate

    return move


_stream, _copy = _line_mover(True), _line_mover(False)


@_intrinsic
def _fence(_context):  # type: ignore[no-untyped-def]
    """Lets other threads see streamed lines before anything stored later."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@njit(error_model="numpy")
def _move(target, row, bytes_, stream):  # type: ignore[no-untyped-def]
    """Copies a row of scratch to an address."""
    if stream:
        for i in range(0, bytes_, LINE):
            _stream(target + i, row.ctypes.data + i)
    else:
        whole = bytes_ // LINE * LINE
        for i in range(0, whole, LINE):
            _copy(target + i, row.ctypes.data + i)
        to = _view(_pointer(target), row.shape, row.dtype)
        for j in range(whole // row.itemsize, bytes_ // row.itemsize):
            to[j] = row[j]


@njit(error_model="numpy")
def _curve(kind, a, c, one, distance):  # type: ignore[no-untyped-def]
    """Surrogate derivative of one neuron; `a`, `c` and `one` in the dtype of `distance`, see `cpu.curve`."""
    if kind == ATAN:
        y = c * distance
        return a / (one + y * y)
    if kind == FAST_SIGMOID:
        y = c * abs(distance) + one
        return one / (y * y)
    return one if abs(distance) < c else one - one


@njit(error_model="numpy")
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


def _compile(kernel: Callable) -> Any:
    """Compiles; cached on disk, beside this file or in the user's cache folder, where one is writable."""
    signature = types.void(types.CPointer(_CALL))
    compiled: Any
    try:
        compiled = cfunc(signature, cache=True)(kernel)
    except RuntimeError:  # numba found no folder to write to
        compiled = cfunc(signature)(kernel)
    function: Any = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiled.address)
    function.owner = compiled  # keeps the code alive
    return function


@functools.cache
def forward(double: bool, lines: int, subtract: bool, zero: bool, delay: bool, membrane: bool, graded: bool) -> Any:
    """The kernel of `reference.forward` for one kind of reset, on float64 or float32 sequences `[steps, neurons]`.

    `lines` of cache are the width of a tile; a constant, or short rows would spend their time on loop ends. With
    `graded`, spikes are multiplied by the neuron's gain.
    """
    real, size = (float64, 8) if double else (float32, 4)
    width, tile = lines * LINE, lines * LINE // size

    def kernel(data):  # type: ignore[no-untyped-def]
        call = _view(data, 1)[0]
        steps, neurons, chunk, stream, nil, one = call.steps, call.neurons, call.chunk, call.stream, real(0), real(1)
        scratch = call.scratch + _claim(data, 1, 1) * call.rows * width
        b, thr, s_t, m, g = _view(_pointer(scratch), (5, tile), real)
        b[:] = _view(_pointer(call.beta), 1, real)[0]
        thr[:] = _view(_pointer(call.threshold), 1, real)[0]
        while True:
            first = _claim(data, 0, chunk)
            if first >= neurons:
                break
            for lo in range(first, min(first + chunk, neurons), tile):
                n = min(tile, neurons - lo)
                if call.betas > 1:
                    b[:n] = _view(_pointer(call.beta + lo * size), n, real)
                if call.thresholds > 1:
                    thr[:n] = _view(_pointer(call.threshold + lo * size), n, real)
                if graded:
                    g[:n] = _view(_pointer(call.gain + lo * size), n, real)
                m[:] = nil
                for t in range(steps):
                    at = (t * neurons + lo) * size
                    x_t = _view(_pointer(call.x + at), tile, real)
                    for i in range(0, width, LINE):
                        _prefetch(call.x + at + width + i)
                    for j in range(n):
                        s, m[j], _ = _step(subtract, zero, delay, m[j], x_t[j], b[j], thr[j], nil, one)
                        s_t[j] = s * g[j] if graded else s
                    _move(call.spikes + at, s_t, n * size, stream)
                    if membrane:
                        _move(call.mem + at, m, n * size, stream)
        _fence()

    return _compile(kernel)


@functools.cache
def backward(
    double: bool, lines: int, subtract: bool, zero: bool, delay: bool, detach: bool, kind: int, with_grad_mem: bool,
    learn: bool, graded: bool,
) -> Any:  # fmt: skip
    """The kernel of `reference.backward` for one kind of neuron."""
    real, size = (float64, 8) if double else (float32, 4)
    width, tile = lines * LINE, lines * LINE // size

    def kernel(data):  # type: ignore[no-untyped-def]
        call = _view(data, 1)[0]
        steps, neurons, chunk, stream, nil, one = call.steps, call.neurons, call.chunk, call.stream, real(0), real(1)
        scratch = call.scratch + _claim(data, 1, 1) * call.rows * width
        rows = _view(_pointer(scratch), (call.rows, tile), real)
        b, thr, carry, out, gb, gt, g = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6]
        mem = rows[7:]  # m[t] in row t + 1; the first row stays zero
        pre = mem[1:] if delay else mem[steps + 1 :]
        pa, pc = _view(_pointer(call.curve), 2, real)
        b[:] = _view(_pointer(call.beta), 1, real)[0]
        thr[:] = _view(_pointer(call.threshold), 1, real)[0]
        mem[0] = nil
        while True:
            first = _claim(data, 0, chunk)
            if first >= neurons:
                break
            for lo in range(first, min(first + chunk, neurons), tile):
                n = min(tile, neurons - lo)
                if call.betas > 1:
                    b[:n] = _view(_pointer(call.beta + lo * size), n, real)
                if call.thresholds > 1:
                    thr[:n] = _view(_pointer(call.threshold + lo * size), n, real)
                if graded:
                    g[:n] = _view(_pointer(call.gain + lo * size), n, real)
                for t in range(steps):
                    at = (t * neurons + lo) * size
                    x_t, before, after, v_t = _view(_pointer(call.x + at), tile, real), mem[t], mem[t + 1], pre[t]
                    for i in range(0, width, LINE):
                        _prefetch(call.x + at + width + i)
                        _prefetch(call.grad_spikes + at + i)
                    for j in range(n):
                        _, m, v = _step(subtract, zero, delay, before[j], x_t[j], b[j], thr[j], nil, one)
                        after[j] = m
                        if not delay:
                            v_t[j] = v
                carry[:], gb[:], gt[:] = nil, nil, nil
                for t in range(steps - 1, -1, -1):
                    at = (t * neurons + lo) * size
                    before, v_t = mem[t], pre[t]
                    gs_t = _view(_pointer(call.grad_spikes + at), tile, real)
                    gm_t = _view(_pointer(call.grad_mem + at), tile, real)
                    for j in range(n):
                        m, v = before[j], v_t[j]
                        r = one if m - thr[j] > nil else nil
                        grad_m, grad_s, grad_r, grad_thr = carry[j], gs_t[j], nil, nil
                        if graded:
                            grad_s *= g[j]
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
                        out[j] = grad_v
                        carry[j] = back
                        if learn:
                            gb[j] += grad_v * left
                            gt[j] += grad_thr
                    _move(call.grad_x + at, out, n * size, stream)
                if learn:
                    _move(call.grad_beta + lo * size, gb, n * size, stream)
                    _move(call.grad_threshold + lo * size, gt, n * size, stream)
        _fence()

    return _compile(kernel)
