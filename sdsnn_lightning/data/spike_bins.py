"""Spike trains to frames of counts, and their augmentation, for whole batches on the device.

The convention is that of SpikeSCR's loaders (digits of its `fixed duration` integration): a recording begins with its
first spike, its last frame takes whatever is left, and counts of neighbouring channels are added, not clipped.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sdsnn_lightning.data.spike_rules import CHANNELS
from sdsnn_lightning.types import View

Align = Literal["first_spike", "zero"]

_BITS = {torch.float16: torch.int16, torch.float32: torch.int32}
_FLOATS = {bits: floats for floats, bits in _BITS.items()}


def pad_spikes(samples: list[dict[str, Tensor | int]]) -> dict[str, Tensor]:
    """Collates recordings of different numbers of spikes.

    Times travel as the integers that have the same bits: a Trainer that computes in 16 bits converts every floating
    tensor on its way to the device, and times would lose their digits.

    Args:
        samples: Each with `times` float16 or float32 `[N]`, `units` int16 `[N]`, and any numbers.

    Returns:
        `times` int16 or int32 `[B, N]` (see `seconds`), `units` int16 `[B, N]`, `counts` int64 `[B]`, and the numbers,
        int64 `[B]`. Padded with zeros to the most spikes.
    """
    times: list[Tensor] = [sample["times"] for sample in samples]  # type: ignore[misc]
    numbers = [name for name in samples[0] if name not in ("times", "units")]
    return {
        "times": pad_sequence([t.view(_BITS[t.dtype]) for t in times], batch_first=True),
        "units": pad_sequence([sample["units"] for sample in samples], batch_first=True),  # type: ignore[misc]
        "counts": torch.tensor([len(t) for t in times]),
        **{name: torch.tensor([int(sample[name]) for sample in samples]) for name in numbers},
    }


def seconds(times: Tensor) -> Tensor:
    """Times as floats again: the bits `pad_spikes` gave, int16 -> float16 and int32 -> float32; floats stay."""
    return times.view(_FLOATS[times.dtype]) if times.dtype in _FLOATS else times


def bin_spikes(
    times: Tensor,
    units: Tensor,
    counts: Tensor,
    step_ms: float,
    group: int = 5,
    align: Align = "first_spike",
) -> View:
    """Counts the spikes of a batch in frames of equal duration.

    With `first_spike`, the frames of SpikeSCR's data sets, bit by bit: `ms = 1000 * time - 1000 * first` in the type of
    the times (16-bit floats in SHD and SSC, so that a late spike may move by half a millisecond),
    `n = ceil(last / step)` frames, and spike `ms` in frame `floor(ms / step)`. The last frame takes everything left: a
    spike on the very end too. Where all spikes come at once there is one frame; the original fails there.

    With `zero`, time runs from the beginning of the recording, as in tonic's `ToFrame(time_window=..., start_time=0,
    include_incomplete=True)`. Only a spike on the very end differs: it is in the last frame here, and in none there.

    Args:
        times: Seconds of every spike, float16 or float32 `[B, N]`, ascending; anything beyond `counts`.
        units: Channels, integer `[B, N]`, 0 to 699.
        counts: Spikes of every recording, integer `[B]`. A recording without spikes gives one empty frame.
        step_ms: Duration of a frame in milliseconds.
        group: Neighbouring channels that are added into one.
        align: Where the first frame begins.

    Returns:
        `spikes`: float32 counts `[B, T, 700 // group]`, T the most frames of the batch; `mask`: bool `[B, T]`, True in
        the frames of the recording itself.
    """
    batch, most = times.shape
    inside = torch.arange(most, device=times.device) < counts[:, None]  # [B, N]
    if align == "first_spike":
        ms = times * 1000
        ms = (ms - ms[:, :1]).float()  # rounded to the type of the times twice, as the original
    else:
        ms = times.float() * 1000
    ms = ms * inside
    last = ms.amax(1, keepdim=True) if most else ms.new_zeros(batch, 1)
    frames = torch.div(last, step_ms, rounding_mode="floor") + (torch.remainder(last, step_ms) > 0)  # exact ceil
    frames = frames.clamp_min(1).long()  # [B, 1]
    steps, channels = int(frames.max()), CHANNELS // group

    frame = torch.div(ms, step_ms, rounding_mode="floor").long().minimum(frames - 1)
    rows = torch.arange(batch, device=times.device)[:, None]
    cell = (rows * steps + frame) * channels + units.long() // group  # [B, N]
    spikes = torch.zeros(batch * steps * channels, device=times.device)
    spikes.scatter_add_(0, (cell * inside).flatten(), inside.flatten().float())
    return {
        "spikes": spikes.view(batch, steps, channels),
        "mask": torch.arange(steps, device=times.device) < frames,
    }


def mask_spikes(view: View, time_ratio: float, neurons: int, probability: float = 0.5) -> View:
    """Empties a stretch of time and a band of channels, each with its own probability in every recording.

    The augmentation that SpikeSCR trains with. The stretch is `floor(time_ratio * T)` frames long, T being the frames
    of the recording itself, and begins uniformly in `[0, T - length)`. The band has a uniform width in
    `[0, neurons - 1]` and begins uniformly in `[0, channels - neurons)`.

    Args:
        view: `spikes` `[B, T, channels]` and `mask` `[B, T]`, of `bin_spikes`.
        time_ratio: Length of the stretch as a share of the recording, in [0, 1).
        neurons: One more than the greatest width of the band, below the number of channels; 0 for none.
        probability: Of either part.

    Returns:
        A new view with the same `mask`.
    """
    spikes, mask = view["spikes"], view["mask"]
    batch, steps, channels = spikes.shape
    chance, where = torch.rand(5, batch, 1, device=spikes.device).split([2, 3])  # [2, B, 1] and [3, B, 1]
    frames = mask.sum(1, keepdim=True)
    length = (time_ratio * frames + 1e-4).long()  # 0.29 * 100 is a little less than 29 in binary
    start = (where[0] * (frames - length)).long()
    time = torch.arange(steps, device=spikes.device)
    hide_time = (time >= start) & (time < start + length) & (chance[0] < probability)  # [B, T]

    width = (where[1] * neurons).long()
    begin = (where[2] * (channels - neurons)).long()
    channel = torch.arange(channels, device=spikes.device)
    hide_channel = (channel >= begin) & (channel < begin + width) & (chance[1] < probability)  # [B, channels]
    return {**view, "spikes": spikes.masked_fill(hide_time[:, :, None] | hide_channel[:, None, :], 0.0)}
