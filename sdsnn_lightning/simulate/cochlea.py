"""Audio to 700 spike trains, in the manner of the Heidelberg spiking data sets (Cramer et al., 2020, arXiv 1910.07407).

The chain is the paper's: sound brought to one level, the basilar membrane at 700 places, a hair cell with three
transmitter pools a place (Meddis, 1986, 1988), and a bushy cell a place: a leaky integrate-and-fire neuron driven by 40
hair cells. The constants of hair and bushy cells are the paper's, but for the weight. Two stages are ours, for speed
and because they need no random numbers:

* The membrane is a bank of gammatone filters (Patterson et al., 1992; bandwidth of Glasberg and Moore, 1990) instead of
  a hydrodynamic travelling wave, with 6 dB more an octave, about what the middle ear gives. The place map is that of
  the paper's membrane: stiffness falls by `exp(-3 x)` over 3.5 cm, so that the frequency of a place falls from 7.1 kHz
  by half every 92.3 units.
* The bushy cell receives the expected current of its 40 hair cells, not 40 drawn spike trains. Without the noise of
  these, sustained sound would not reach the threshold: the weight is 1.7 times the paper's. The same sound gives the
  same spikes, and silence gives none at all.

Drive and weight are set such that spoken digits give about 8,000 spikes, as in SHD.

**Order of units.** As in SHD, unit 0 lies at the base of the cochlea and answers to the highest frequency, unit 699 at
the apex and answers to the lowest.
"""

from collections.abc import Callable
from functools import cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.compiled import compile_loop
from sdsnn_lightning.errors import DataError

UNITS = 700
RATE = 16000
"""Rate in Hz at which everything is computed, whatever the rate of the recording."""
TOP_HZ = 7118.0
"""Frequency of unit 0: sqrt(stiffness 1e8 / mass 0.05) / 2 pi of the paper's membrane."""
UNITS_PER_OCTAVE = (UNITS - 1) / 3.5 * np.log(2) / 1.5
LEVEL = 0.3
"""Root mean square that recordings are brought to, as in the paper."""
REFRACTORY = 1e-3  # seconds, of bushy cells and of hair cells' fibres

_MAX_GAIN = 100.0  # 40 dB: the hiss of an empty recording must not be blown up to a shout
_ACTIVE_DB = 30.0  # frames this far below the loudest are pauses
_FRAME = 320  # 20 ms
_BLOCK = 64  # channels that are filtered together; their state stays in the first-level cache
_ROWS = 18  # numbers a channel: its state, its constants
_CHUNK = 8192  # samples between two collections of spikes
_RAMP = 80  # 5 ms; a recording that starts within a sound would begin with a click
_DRIVE = 210.0  # sound to the unit of the hair cells, at 1 kHz


def place_hz(unit: NDArray | float) -> NDArray[np.float64]:
    """Frequency in Hz a unit answers to most.

    Args:
        unit: Unit numbers, 0 to 699, of any shape; fractions lie between two places.

    Returns:
        float64 of the same shape: 7118 Hz at unit 0, 37 Hz at unit 699.
    """
    return np.asarray(TOP_HZ * 2.0 ** (-np.asarray(unit, np.float64) / UNITS_PER_OCTAVE))


def spike_trains(
    waveform: NDArray, sample_rate: int, level: float | None = LEVEL
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Turns one recording into spikes.

    Args:
        waveform: Sound `[S]`, float in about [-1, 1].
        sample_rate: Its rate in Hz. Above half of it there is no sound, hence no spike in the units of these places.
        level: Root mean square of the loud frames that the recording is brought to (at most 40 dB up); None leaves it.

    Returns:
        Times in seconds, float32 `[N]`, ascending; and units, int16 `[N]`, 0 to 699, 0 being the highest frequency.

    Raises:
        DataError: If the waveform is not a finite vector with at least one sample, or the rate is not positive.
    """
    sound = np.asarray(waveform, np.float64)
    if sound.ndim != 1 or not len(sound) or not np.isfinite(sound).all():
        raise DataError(f"a waveform of shape {sound.shape} cannot be heard; give finite mono samples [S], S > 0")
    if sample_rate < 1:
        raise DataError(f"a sample rate of {sample_rate} Hz is impossible; give the recording's own")
    if sample_rate != RATE:
        from scipy.signal import resample_poly

        divisor = gcd(RATE, sample_rate)
        sound = resample_poly(sound, RATE // divisor, sample_rate // divisor)
    if level is not None:
        sound = sound * min(level / max(active_rms(sound), 1e-12), _MAX_GAIN)
    ramp = min(_RAMP, len(sound) // 2)
    if ramp:
        rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp)
        sound = np.concatenate([sound[:ramp] * rise, sound[ramp:-ramp], sound[-ramp:] * rise[::-1]])

    places = np.flatnonzero(place_hz(np.arange(UNITS)) < sample_rate / 2)
    state = _at_rest(places)
    run, sound = _kernel(), sound.astype(np.float32)
    times, units = [], []
    for start in range(0, len(sound), _CHUNK):
        piece = sound[start : start + _CHUNK]
        fired = np.empty((len(piece), state.shape[0] * _BLOCK), np.bool_)
        run(piece, state, fired)
        index = np.flatnonzero(fired)  # in the order of time
        times.append((index // fired.shape[1] + start) / RATE)
        units.append(places[0] + index % fired.shape[1])
    return np.concatenate(times).astype(np.float32), np.concatenate(units).astype(np.int16)


def active_rms(sound: NDArray) -> float:
    """Root mean square of a recording without its pauses, so that silence around a word does not change its level.

    Args:
        sound: `[S]` at 16 kHz.

    Returns:
        Root mean square over the 20 ms frames that are at most 30 dB below the loudest one.
    """
    power = np.square(np.pad(sound, (0, -len(sound) % _FRAME))).reshape(-1, _FRAME).mean(1)
    return float(np.sqrt(power[power >= power.max() * 10 ** (-_ACTIVE_DB / 10)].mean()))


def _at_rest(places: NDArray) -> NDArray[np.float32]:
    """Resting state and constants of some units, `[blocks, rows * 64]`; the kernel names the rows."""
    blocks = -(-len(places) // _BLOCK)
    hz = place_hz(places)
    width = 2 * np.pi * 1.019 * 24.7 * (4.37e-3 * hz + 1)  # rad/s, of a gammatone of order 4
    pole = np.exp((-width + 2j * np.pi * hz) / RATE)
    table = np.zeros((_ROWS, blocks * _BLOCK))
    table[8:11] = np.array(_resting_pools())[:, None]
    # The real part of a resonator passes half of a tone at its place.
    gain = 2 * (1 - np.abs(pole)) ** 4 * _DRIVE * hz / 1000
    table[14:17, : len(places)] = pole.real, pole.imag, gain
    return table.reshape(_ROWS, blocks, _BLOCK).transpose(1, 0, 2).reshape(blocks, -1).astype(np.float32)


# Meddis, 1988, as the paper sets it: transmitter in the cell q, in the cleft c, being reprocessed w.
_A, _B, _G = 5.0, 300.0, 2000.0  # permeability g (s + A) / (s + A + B) of a membrane at s
_Y, _L, _R, _X, _M, _H = 5.05, 2500.0, 6580.0, 66.3, 1.0, 50000.0  # 1/s: factory, loss, reuptake, reprocessing; h c dt
# Bushy cell: hair cells, time constants in s, weight per second (13e3 in the paper); the threshold is 1.
_CELLS, _TAU_MEMBRANE, _TAU_SYNAPSE, _WEIGHT = 40, 1e-3, 5e-4, 22e3


def _resting_pools() -> tuple[float, float, float]:
    """Pools q, c, w where nothing moves (Meddis, 1986, appendix)."""
    permeability = _G * _A / (_A + _B)
    cleft = _M * _Y * permeability / (_L * permeability + _Y * (_L + _R))
    return cleft * (_L + _R) / permeability, cleft, cleft * _R / _X


@cache
def _kernel() -> Callable[..., None]:
    """Compiles the loop over time on first use; the machine code is kept on disk where it can be.

    The state of 64 units lies in one array at constant distances: LLVM sees that nothing overlaps and makes vector
    instructions of the inner loop. A quantity that decays is given a tiny constant, because denormal numbers are slow.
    """
    f = np.float32
    dt = 1 / RATE
    a, b, gdt, hair = f(_A), f(_B), f(_G * dt), f(_H)
    ydt, outdt, rdt, xdt, m = f(_Y * dt), f((_L + _R) * dt), f(_R * dt), f(_X * dt), f(_M)
    synapse, membrane = f(np.exp(-dt / _TAU_SYNAPSE)), f(np.exp(-dt / _TAU_MEMBRANE))
    arrive, weight, dead = f(_CELLS * dt), f(_WEIGHT / _CELLS * dt), f(REFRACTORY)
    wait = f(round(REFRACTORY * RATE))
    zero, one, tiny = f(0), f(1), f(1e-12)
    # rows of the state: four resonators, hair cell, bushy cell; then the constants; then what is handed over
    r1, i1, r2, i2, r3, i3, r4, i4, q, c, w, current, v, rest, re, im, gain, out = (
        _BLOCK * row for row in range(_ROWS)
    )
    width = _BLOCK

    def run(sound, state, fired):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        for block in range(state.shape[0]):
            z = state[block]
            for n in range(sound.size):
                x = sound[n] + tiny
                for k in range(width):
                    # four equal complex resonators in a row: the real part is a gammatone of order 4
                    a_re, a_im = z[re + k], z[im + k]
                    u = a_re * z[r1 + k] - a_im * z[i1 + k] + z[gain + k] * x
                    t = a_re * z[i1 + k] + a_im * z[r1 + k]
                    z[r1 + k], z[i1 + k] = u, t
                    u, t = a_re * z[r2 + k] - a_im * z[i2 + k] + u, a_re * z[i2 + k] + a_im * z[r2 + k] + t
                    z[r2 + k], z[i2 + k] = u, t
                    u, t = a_re * z[r3 + k] - a_im * z[i3 + k] + u, a_re * z[i3 + k] + a_im * z[r3 + k] + t
                    z[r3 + k], z[i3 + k] = u, t
                    u, t = a_re * z[r4 + k] - a_im * z[i4 + k] + u, a_re * z[i4 + k] + a_im * z[r4 + k] + t
                    z[r4 + k], z[i4 + k] = u, t
                    # hair cell: only one direction opens the channels, and the pool in the cell runs low
                    push = max(u + a, zero)
                    pool, cleft = z[q + k], z[c + k]
                    eject = gdt * push / (push + b) * pool
                    back = xdt * z[w + k]
                    z[q + k] = pool + ydt * max(m - pool, zero) - eject + back
                    cleft = cleft + eject - outdt * cleft
                    z[w + k] = z[w + k] + rdt * z[c + k] - back
                    z[c + k] = cleft
                    # bushy cell: expected current of 40 fibres that pause after each spike
                    rate = hair * cleft
                    i_syn = z[current + k] * synapse + arrive * rate / (one + rate * dead)
                    z[current + k] = i_syn
                    left = z[rest + k]
                    u = z[v + k] * membrane + weight * i_syn if left <= zero else zero
                    z[v + k] = zero if u >= one else u
                    z[rest + k] = wait if u >= one else max(left - one, zero)
                    z[out + k] = u
                for k in range(width):
                    fired[n, block * width + k] = z[out + k] >= one

    return compile_loop(run, error_model="numpy")
