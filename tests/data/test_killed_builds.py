"""Caches of events, waveforms and spikes whose build is killed or started twice at once; clips: test_clip_cache.py."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from speech_set import write_speech_set

from sdsnn_lightning.data import event_cache, spike_cache, waveform_cache
from sdsnn_lightning.data.aedat import write_aedat
from sdsnn_lightning.data.event_windows import FrameRule
from sdsnn_lightning.data.speech_words import split_files
from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["events", "waveforms", "spikes"])
def cache(request, tmp_path):
    """The module of one cache, a function that builds it, and the file to be."""
    if request.param == "events":
        files = []
        for k in range(4):
            events = np.zeros(5000, EVENT_DTYPE)
            events["t"], events["x"], events["y"] = 7 * np.arange(5000), np.arange(5000) % 128, (k + 3) % 128
            files.append(f"{k}.aedat")
            write_aedat(tmp_path / files[-1], events)
        args = (tmp_path, files, FrameRule(4))
        return event_cache, lambda: event_cache.build_event_frames(*args), event_cache.event_cache_file(*args)
    if request.param == "waveforms":
        root = write_speech_set(tmp_path / "set")
        args = (root, [file for part in split_files(root, ["bed", "cat"]).values() for file in part], 16000, 16000)
        return waveform_cache, lambda: waveform_cache.build_waveforms(*args), waveform_cache.cache_file(*args)
    path = tmp_path / "x_train.h5"
    samples = [SpikeSample(np.arange(30) / 30, np.arange(30), k % 2, 0, "ab"[k % 2]) for k in range(50)]
    write_spike_file(path, samples, ["a", "b"])
    return spike_cache, lambda: spike_cache.build_spikes(path), spike_cache.spike_cache_file(path)


def half_then_die(number):
    os.ftruncate(number, os.fstat(number).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60.0)  # the signal may take a moment


def killed(build):
    os.fsync = half_then_die
    build()


def test_a_killed_build_leaves_no_cache_and_the_next_one_clears_up(cache):
    _, build, file = cache
    process = FORK.Process(target=killed, args=(build,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not file.exists()
    (leftover,) = file.parent.glob(f".{file.name}.partial-*")
    half = leftover.stat().st_size
    build()
    assert file.stat().st_size in (2 * half, 2 * half + 1)
    assert [path.name for path in file.parent.iterdir() if path.suffix != ".lock"] == [file.name]


def counted(module, build, ready):
    write = module._write

    def count(*args):
        with Path(f"{ready}.built").open("a") as file:
            file.write("built\n")
        write(*args)

    module._write = count
    ready.touch()
    build()


def test_two_processes_at_once_build_once(cache, tmp_path):
    module, build, file = cache
    file.parent.mkdir(exist_ok=True)
    ready = [tmp_path / "ready0", tmp_path / "ready1"]
    with FileLock(file.with_name(f".{file.name}.lock")):  # until both are at the door
        processes = [FORK.Process(target=counted, args=(module, build, path)) for path in ready]
        for process in processes:
            process.start()
        while not all(path.exists() for path in ready):
            assert all(process.is_alive() for process in processes)
            time.sleep(0.01)
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert len(list(tmp_path.glob("*.built"))) == 1
    assert file.exists()
