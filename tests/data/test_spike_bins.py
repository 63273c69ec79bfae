import math

import numpy as np
import pytest
import torch

from sdsnn_lightning.data.spike_bins import bin_spikes, mask_spikes, pad_spikes, seconds


def collate(*trains, dtype=np.float16):
    """A batch of (times, units)."""
    return pad_spikes(
        [
            {
                "times": torch.from_numpy(np.array(times, dtype)),
                "units": torch.from_numpy(np.array(units, np.int16)),
                "target": k,
            }
            for k, (times, units) in enumerate(trains)
        ]
    )


def frames(*trains, step_ms=10.0, dtype=np.float16, **options):
    batch = collate(*trains, dtype=dtype)
    view = bin_spikes(seconds(batch["times"]), batch["units"], batch["counts"], step_ms, **options)
    return view["spikes"], view["mask"]


def by_hand(times, units, step_ms, group=5):
    """The rule of the data sets that SpikeSCR trains on, spike by spike, in the type the times are stored in."""
    ms = times.dtype.type(1000) * times
    ms = ms - ms[0]
    steps = math.ceil(float(ms[-1]) / step_ms)
    counts = np.zeros((steps, 700 // group), np.float32)
    for t, unit in zip(ms, units, strict=True):
        counts[min(int(t // times.dtype.type(step_ms)), steps - 1), unit // group] += 1
    return counts


def test_padding_keeps_every_bit():
    batch = collate(([0.1, 0.2], [1, 2]), ([0.3], [3]))
    assert batch["times"].dtype == torch.int16
    assert seconds(batch["times"])[0].tolist() == np.array([0.1, 0.2], np.float16).tolist()
    assert batch["units"].tolist() == [[1, 2], [3, 0]]
    assert batch["counts"].tolist() == [2, 1]
    assert batch["target"].tolist() == [0, 1]
    full = collate(([0.1, 0.2], [1, 2]), dtype=np.float32)
    assert full["times"].dtype == torch.int32
    assert seconds(full["times"]).numpy().tolist() == [np.array([0.1, 0.2], np.float32).tolist()]


def test_first_spike_by_hand():
    # 0.5 is the first; 0, 8, 10, 19, 24 ms after it: ceil(24 / 10) = 3 frames with 2, 2 and 1 spikes.
    times = np.array([0.5, 0.508, 0.510, 0.519, 0.524], np.float32)
    spikes, mask = frames((times, [0, 4, 5, 699, 699]), dtype=np.float32)
    assert spikes.shape == (1, 3, 140)
    assert spikes.dtype == torch.float32
    assert mask.tolist() == [[True] * 3]
    assert spikes[0].nonzero().tolist() == [[0, 0], [1, 1], [1, 139], [2, 139]]
    assert spikes[0, 0, 0] == 2  # units 0 and 4 are one group; counts are not clipped
    assert spikes.sum() == 5


def test_a_spike_on_the_very_end_is_in_the_last_frame():
    # Powers of two: exact in binary. 31.25 ms in steps of 15.625 ms: the last spike lies on the end of frame 1.
    spikes, _ = frames(([0.0, 0.015625, 0.03125], [0, 0, 10]), step_ms=15.625)
    assert spikes.shape == (1, 2, 140)
    assert spikes[0, 0, 0] == 1
    assert (spikes[0, 1, 0], spikes[0, 1, 2]) == (1, 1)


def test_one_spike_and_spikes_all_at_once_give_one_frame():
    spikes, mask = frames(([0.7], [3]), ([0.25] * 4, [0, 1, 5, 699]))
    assert spikes.shape == (2, 1, 140)
    assert mask.all()
    assert spikes.sum((1, 2)).tolist() == [1, 4]


def test_no_spikes_give_one_empty_frame():
    for align in ("first_spike", "zero"):
        view = bin_spikes(torch.zeros(1, 0), torch.zeros(1, 0, dtype=torch.int16), torch.tensor([0]), 10.0, align=align)
        assert view["spikes"].shape == (1, 1, 140)
        assert not view["spikes"].any()
        assert view["mask"].tolist() == [[True]]
        times, units = torch.tensor([[0.5, 0.9], [0.1, 0.15]]), torch.zeros(2, 2, dtype=torch.int16)
        view = bin_spikes(times, units, torch.tensor([0, 2]), 10.0, align=align)
        assert view["spikes"].sum((1, 2)).tolist() == [0, 2]
        assert view["mask"].sum(1)[0] == 1


def trains(seed, dtype, step_ms):
    rng = np.random.default_rng(seed)
    for k in range(12):
        count = int(rng.integers(2, 3000))
        times = np.sort(rng.gamma(2, 0.25, count) + 0.1 * rng.random()).clip(0, 2)
        if k % 2:  # onto the boundaries between frames
            times = np.round(times * 1000 / step_ms) * step_ms / 1000
        yield times.astype(dtype), rng.integers(0, 700, count).astype(np.int16)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("step_ms", [2, 5, 10, 25])
def test_bit_by_bit_as_the_rule_in_the_type_of_the_times(dtype, step_ms):
    batch = [(t, u) for t, u in trains(step_ms, dtype, step_ms) if t[-1] > t[0]]
    spikes, mask = frames(*batch, step_ms=float(step_ms), dtype=dtype)
    for k, (times, units) in enumerate(batch):
        expected = by_hand(times, units, step_ms)
        assert int(mask[k].sum()) == len(expected)
        assert np.array_equal(spikes[k, : len(expected)].numpy(), expected)
        assert not spikes[k, len(expected) :].any()


def test_16_bits_move_late_spikes():
    # From 1.024 s on, 16-bit milliseconds are whole: 1.0293 s is 1029 ms, not 1029.3.
    late = np.array([0.0, 1.0293], np.float16)
    assert float(late[1]) == 1.029296875
    spikes, _ = frames((late, [0, 0]), step_ms=1.0)
    assert spikes.shape[1] == 1029
    spikes, _ = frames((late.astype(np.float32), [0, 0]), step_ms=1.0, dtype=np.float32)
    assert spikes.shape[1] == 1030


@pytest.mark.parametrize("step_ms", [4, 10, 25])
def test_from_zero_as_tonic(step_ms):
    from tonic.transforms import ToFrame

    transform = ToFrame((700, 1, 1), time_window=step_ms * 1000, start_time=0, include_incomplete=True)
    for times, units in trains(step_ms, np.float16, step_ms):
        # A spike on the very end is in no frame of tonic's; with a last one a little later, every digit is the same.
        times, units = np.append(times, times[-1] + np.float16(0.003)), np.append(units, 0)
        events = np.zeros(len(times), np.dtype([("t", int), ("x", int), ("p", int)]))
        events["t"], events["x"] = times.astype(np.float64) * 1e6, units
        expected = transform(events)[:, 0].reshape(-1, 140, 5).sum(2)
        spikes, mask = frames((times, units), step_ms=float(step_ms), align="zero")
        assert mask.all()
        assert np.array_equal(spikes[0].numpy(), expected)


def test_from_zero_by_hand():
    spikes, _ = frames(([0.03125, 0.0625], [0, 5]), step_ms=15.625, align="zero")
    assert spikes[0].nonzero().tolist() == [[2, 0], [3, 1]]  # 62.5 ms is the end of frame 3


def test_padding_changes_nothing():
    a, b = ([0.1, 0.15, 0.2], [1, 2, 3]), ([0.1, 0.9], [600, 601])
    both, mask = frames(a, b)
    alone, _ = frames(a)
    assert both.shape == (2, 80, 140)
    assert mask.sum(1).tolist() == [alone.shape[1], 80]
    assert torch.equal(both[0, : alone.shape[1]], alone[0])
    assert not both[0, alone.shape[1] :].any()


def test_groups_of_channels():
    spikes, _ = frames(([0.0, 0.1], [6, 699]), group=7)
    assert spikes.shape[2] == 100
    assert spikes[0].nonzero()[:, 1].tolist() == [0, 99]


def test_two_resolutions_hold_the_same_spikes():
    batch = list(trains(3, np.float32, 10))
    fine, _ = frames(*batch, step_ms=10.0, dtype=np.float32)
    coarse, _ = frames(*batch, step_ms=20.0, dtype=np.float32)
    assert torch.equal(fine.sum(1), coarse.sum(1))


def view_of(lengths, channels=140):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"spikes": mask[:, :, None].float().repeat(1, 1, channels), "mask": mask}


def test_time_mask_is_a_fixed_share_of_every_recording():
    torch.manual_seed(0)
    lengths = [100, 50, 5, 4, 1] * 400
    view = view_of(lengths)
    masked = mask_spikes(view, 0.2, 0)
    assert masked["mask"] is view["mask"]
    hidden = (view["spikes"] - masked["spikes"]).sum(2) / 140  # [B, T]
    starts = set()
    for k, length in enumerate(lengths):
        gone = hidden[k].nonzero().flatten().tolist()
        width = math.floor(0.2 * length)
        assert len(gone) in (0, width)
        assert gone == list(range(gone[0], gone[0] + width)) if gone else True
        if gone and length == 50:
            starts.add(gone[0])
    assert starts == set(range(40))  # [0, 50 - 10)
    share = (hidden.sum(1) > 0).view(400, 5)[:, :3].float().mean(0)
    assert (share - 0.5).abs().max() < 0.08
    assert not hidden.view(400, 5, -1)[:, 3:].any()  # floor(0.2 * 4) = 0


def test_neuron_mask_has_a_random_width():
    torch.manual_seed(0)
    view = view_of([3] * 4000)
    hidden = (view["spikes"] - mask_spikes(view, 0.0, 20)["spikes"])[:, 0]  # [B, channels]
    width = hidden.sum(1)
    assert set(width.int().tolist()) == set(range(20))
    assert abs(float((width > 0).float().mean()) - 0.5 * 19 / 20) < 0.03
    first = hidden.argmax(1)[width > 0]
    assert first.min() == 0
    assert first.max() == 119  # [0, 140 - 20)
    assert ((hidden[:, 1:] - hidden[:, :-1]).abs().sum(1) <= 2).all()  # one band


def test_masks_fall_independently_and_certainly_where_asked():
    torch.manual_seed(0)
    view = view_of([50] * 2000)
    gone = view["spikes"] - mask_spikes(view, 0.2, 20)["spikes"]
    time, neuron = gone.amin(2).any(1), gone.amin(1).any(1)
    both = float((time & neuron).float().mean())
    assert abs(both - 0.25 * 19 / 20) < 0.04
    assert torch.equal(mask_spikes(view, 0.2, 20, probability=0.0)["spikes"], view["spikes"])
    assert (mask_spikes(view, 0.2, 0, probability=1.0)["spikes"].sum((1, 2)) == 40 * 140).all()
