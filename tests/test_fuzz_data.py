"""Two hundred damaged data files, a fixed seed: each ends in one line that names the file, or in a right result."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from speech_set import write_speech_set

from sdsnn_lightning.checkpoints import load_network_state
from sdsnn_lightning.data.aedat import write_aedat
from sdsnn_lightning.data.clip_cache import ClipCache, build_cache
from sdsnn_lightning.data.event_cache import EventFrames, build_event_frames
from sdsnn_lightning.data.event_recordings import read_recording
from sdsnn_lightning.data.event_windows import FrameRule
from sdsnn_lightning.data.see_layout import EMOTIONS, LIGHTINGS, ClipName, read_index, write_clip, write_index
from sdsnn_lightning.data.speech_words import choose_files
from sdsnn_lightning.data.spike_cache import SpikeCache, build_spikes
from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file
from sdsnn_lightning.data.video_windows import VideoWindows
from sdsnn_lightning.data.waveform_cache import build_waveforms, open_waveforms
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

ROUNDS = 200
SECONDS = 60
Samples = dict[str, Any]


class Kind(NamedTuple):
    """One kind of file.

    Attributes:
        make: Writes whole files into a folder, and gives those that may be damaged.
        read: Reads the folder with the package: samples by name. A sample read from one file is named after it.
        checked: Whether the format carries checksums, so that no damage at all may go unseen.
        tells_length: Whether a file that breaks off can be told from a whole one.
    """

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], Samples]
    checked: bool = False
    tells_length: bool = True


def sound_files(suffix):
    def make(folder):
        paths = [folder / f"{k}{suffix}" for k in range(3)]
        for k, path in enumerate(paths):
            soundfile.write(path, np.random.default_rng(k).normal(0, 0.1, 4000), 16000)
        return paths

    return make


def read_sounds(folder):
    files = sorted(path.name for path in folder.iterdir() if path.suffix in (".wav", ".flac"))
    rows = open_waveforms(build_waveforms(folder, files, 16000, 4000, folder / "cache"))
    return dict(zip(files, np.array(rows), strict=True))


def lists(folder):
    root = write_speech_set(folder / "set")
    return [root / "validation_list.txt", root / "testing_list.txt"]


def read_lists(folder):
    parts = choose_files(folder / "set", ["bed", "cat"])
    assert sum(len(files) for files in parts.values()) == 16
    return dict(parts)


def spikes(folder):
    samples = []
    for k in range(12):
        rng = np.random.default_rng(k)
        times = np.sort(rng.uniform(0, 1, 50)).astype(np.float16)
        samples.append(SpikeSample(times, rng.integers(0, 700, 50), k % 2, k % 3, ("one", "two")[k % 2]))
    write_spike_file(folder / "x_train.h5", samples, ["one", "two"])
    return [folder / "x_train.h5"]


def read_spikes(folder):
    cache = SpikeCache(build_spikes(folder / "x_train.h5", folder / "cache"))
    found: Samples = {f"spikes {k}": np.concatenate(cache.spikes(k)) for k in range(len(cache))}
    return found | {"names": cache.class_names, "labels": cache.labels, "speakers": cache.speakers}


def some_events(seed=0):
    rng = np.random.default_rng(seed)
    events = np.zeros(400, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 100_000, 400))
    for name, most in (("x", 128), ("y", 128), ("p", 2)):
        events[name] = rng.integers(0, most, 400)
    return events


def events_as(suffix):
    def make(folder):
        events, path = some_events(), folder / f"a{suffix}"
        if suffix == ".aedat":
            write_aedat(path, events)
        elif suffix == ".npy":
            np.save(path, np.stack([events[n].astype(np.int64) for n in "txyp"], 1))
        elif suffix == ".npz":
            np.savez_compressed(path, **{n: events[n] for n in "txyp"})
        else:
            from scipy.io import savemat

            table = np.stack([events[n].astype(np.int64) for n in "txyp"], 1)
            savemat(path, {"out1": table}, do_compression=True)
        return [path]

    return make


def read_events(folder):
    (path,) = (path for path in folder.iterdir() if path.name.startswith("a."))
    return {path.name: read_recording(path)}


def see(folder):
    entries = []
    for k in range(3):
        name = ClipName(k, f"{k:03d}", "man", 30, "Master", LIGHTINGS[k], EMOTIONS[k], 4, 0)
        images = np.random.default_rng(k).integers(0, 256, (4, 16, 16), dtype=np.uint8)
        write_clip(folder / "SEE", name, images, 255 - images)
        entries.append((name, "training", (0, 4)))
    write_index(folder / "SEE", list(EMOTIONS), entries)
    return [*sorted((folder / "SEE").rglob("*.jpg"))[::5], *[folder / "SEE/emotion.json"] * 3]


def read_see(folder):
    index = read_index(folder / "SEE")
    cache = ClipCache(build_cache(index, 16, ("frames", "events"), folder / "cache"))
    found: Samples = {}
    for clip, first, count in zip(index.clips, cache.offsets, cache.counts, strict=True):
        found[f"facts of {clip.name}"] = (clip.label, clip.subset, clip.subject, clip.start, clip.stop)
        for k in range(count):
            for tree, images in cache.images.items():
                tree = {"frames": "frame", "events": "event"}[tree]
                found[f"SEE/{tree}/{clip.label}/{clip.name}/{k:05d}.jpg"] = np.array(images[first + k])
    return found


def video(folder):
    import av

    with av.open(str(folder / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 32
        for k in range(24):
            image = np.full((32, 32, 3), 10 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    return [folder / "a.mp4"]


def read_video(folder):
    windows = VideoWindows(folder / "a.mp4", size=16, steps=2, skip=1, hop=4)
    return {f"window {sample['window']}": sample["frames"].numpy() for sample in windows}


def cached(make, read, pattern):
    """The cache that reading builds, damaged in place of the files it was built from."""

    def make_cache(folder):
        make(folder)
        read(folder)
        return sorted(path for path in (folder / "cache").rglob(pattern) if not path.name.startswith("."))

    return make_cache


def recordings(folder):
    for k in range(3):
        write_aedat(folder / f"{k}.aedat", some_events(k))
    return sorted(folder.glob("*.aedat"))


def read_frames(folder):
    rule, files = FrameRule(4, size=16), [f"{k}.aedat" for k in range(3)]
    frames = EventFrames(build_event_frames(folder, files, rule, folder / "cache"))
    return {file: np.array(frames.frames[k]) for k, file in enumerate(files)} | {"of": frames.recording}


def checkpoint(folder):
    content = {"state_dict": {f"network.{k}": torch.full((50, 7), float(k)) for k in range(5)}, "epoch": 3}
    torch.save(content, folder / "a.ckpt")
    return [folder / "a.ckpt"]


def read_checkpoint(folder):
    state, content = load_network_state(folder / "a.ckpt", f"the checkpoint {folder / 'a.ckpt'}")
    return {key: value.numpy() for key, value in state.items()} | {"epoch": content.get("epoch")}


KINDS = {
    "wav": Kind(sound_files(".wav"), read_sounds),
    "flac": Kind(sound_files(".flac"), read_sounds),
    "lists": Kind(lists, read_lists, tells_length=False),
    "h5": Kind(spikes, read_spikes),
    "aedat": Kind(events_as(".aedat"), read_events, tells_length=False),
    "npy": Kind(events_as(".npy"), read_events),
    "npz": Kind(events_as(".npz"), read_events, checked=True),
    "mat": Kind(events_as(".mat"), read_events),
    "see": Kind(see, read_see),
    "video": Kind(video, read_video, tells_length=False),
    "waveform cache": Kind(cached(sound_files(".wav"), read_sounds, "*.npy"), read_sounds),
    "spike cache": Kind(cached(spikes, read_spikes, "*.spikes"), read_spikes),
    "frame cache": Kind(cached(recordings, read_frames, "*.frames"), read_frames),
    "clip cache": Kind(cached(see, read_see, "*.*"), read_see),
    "checkpoint": Kind(checkpoint, read_checkpoint, checked=True),
}


def damage(path: Path, rng: np.random.Generator) -> str:
    """Damages a file, keeping its times, as a fault of a disk does; says how."""
    data, stat = bytearray(path.read_bytes()), path.stat()
    how = ("flip", "flip", "truncate", "truncate", "zero", "swap", "empty", "grow")[rng.integers(8)]
    if how == "flip":
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] ^= 1 << int(rng.integers(8))
        if rng.integers(2):  # headers are where the numbers are
            data[int(rng.integers(0, min(len(data), 128)))] ^= 1 << int(rng.integers(8))
    elif how == "truncate":
        data = data[: int(rng.integers(1, len(data)))]
    elif how == "zero":
        start = int(rng.integers(0, len(data)))
        length = int(rng.integers(1, len(data) + 1))
        data[start : start + length] = bytes(len(data[start : start + length]))
    elif how == "swap":
        data = bytearray(
            (b"PK\3\4 not a zip", b"just text\n", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY\1\0v\0{}", b"[1, 2]")[
                rng.integers(5)
            ]
        )
    elif how == "empty":
        data = bytearray()
    else:
        data += rng.bytes(int(rng.integers(1, 100)))
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return how


@contextmanager
def in_time():
    """Ends a hang."""

    def late(*_):
        raise TimeoutError(f"no end within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Whole files of every kind, and what they hold."""
    place, known = tmp_path_factory.mktemp("whole"), {}
    for name, kind in KINDS.items():
        folder = place / name
        folder.mkdir()
        files = [path.relative_to(folder) for path in kind.make(folder)]
        known[name] = (folder, files, kind.read(folder))
        if "cache" not in name:
            shutil.rmtree(folder / "cache", ignore_errors=True)
    return known


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    return a == b


def one_round(number, whole, place):
    """Damages one file and reads it. Returns what went wrong, or None, and whether the damage was refused."""
    rng = np.random.default_rng(number)
    name = list(KINDS)[number % len(KINDS)]
    kind, (folder, files, known) = KINDS[name], whole[name]
    shutil.copytree(folder, place, copy_function=shutil.copy2)
    path = place / files[rng.integers(len(files))]
    how = damage(path, rng)
    label = f"round {number}: {name}, {how} of {path.name}"
    try:
        with in_time():
            found = kind.read(place)
    except (DataError, ConfigError) as error:
        told = str(error)
        if "\n" in told or len(told) > 700:
            return f"{label}: not one line: {told}", True
        own = path.parent if name == "clip cache" else path
        return (None if own.name in told else f"{label}: does not name the file: {told}"), True
    except Exception as error:
        return f"{label}: {type(error).__name__}: {str(error)[:200]}", True
    finally:
        shutil.rmtree(place)
    wrong = [key for key, value in known.items() if key not in found or not same(value, found[key])]
    wrong += [key for key in found if key not in known]
    if kind.checked and wrong:
        return f"{label}: checksums let one know, but {wrong[0]} is another", False
    if how in ("truncate", "empty") and kind.tells_length and wrong:
        return f"{label}: the length lets one know, but {wrong[0]} is another", False
    own = str(path.relative_to(place))
    if own in known and [key for key in wrong if key != own]:
        return f"{label}: {[key for key in wrong if key != own][0]} is another, which was not damaged", False
    return None, False


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_in_one_line_or_read_rightly(whole, tmp_path):
    faults, refused = [], 0
    for number in range(ROUNDS):
        fault, was_refused = one_round(number, whole, tmp_path / "round")
        faults += [fault] if fault else []
        refused += was_refused
    assert not faults, "\n".join(faults)
    assert ROUNDS // 2 < refused < ROUNDS  # damage is mostly seen, and some of it cannot be
