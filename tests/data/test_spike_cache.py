import os
import pickle
import threading

import numpy as np
import pytest
from filelock import FileLock

from sdsnn_lightning.data.spike_cache import SpikeCache, build_spikes, spike_cache_file
from sdsnn_lightning.data.spike_files import SpikeFile, SpikeSample, write_spike_file
from sdsnn_lightning.errors import DataError


def write(path, recordings=600, seed=0):
    rng = np.random.default_rng(seed)
    samples = []
    for k in range(recordings):
        count = int(rng.integers(1, 40))
        times = np.sort(rng.random(count))
        samples.append(SpikeSample(times, rng.integers(0, 700, count), k % 3, k % 5, "abc"[k % 3]))
    write_spike_file(path, samples, list("abc"))
    return samples


def test_a_cache_holds_what_the_file_holds(tmp_path):
    path = tmp_path / "x_train.h5"
    samples = write(path)  # more than are read at once
    cache = SpikeCache(build_spikes(path))
    assert cache.path.parent == tmp_path / ".cache"
    assert len(cache) == 600
    assert cache.class_names == ["a", "b", "c"]
    assert cache.labels.tolist() == [k % 3 for k in range(600)]
    assert cache.speakers.tolist() == [k % 5 for k in range(600)]
    for k in (0, 1, 255, 256, 599):
        times, units = cache.spikes(k)
        assert times.dtype == np.float16
        assert times.tolist() == samples[k].times.astype(np.float16).tolist()
        assert units.tolist() == samples[k].units.tolist()
        assert times.tolist() == SpikeFile(path)[k].times.tolist()
    assert pickle.loads(pickle.dumps(cache)).spikes(7)[1].tolist() == samples[7].units.tolist()
    assert len(pickle.dumps(cache)) < 500


def test_a_cache_is_built_once_and_again_for_another_file(tmp_path):
    path = tmp_path / "x_train.h5"
    write(path, 5)
    cache = build_spikes(path, tmp_path / "elsewhere")
    assert cache.parent == tmp_path / "elsewhere"
    written = cache.stat().st_mtime_ns
    assert build_spikes(path, tmp_path / "elsewhere") == cache
    assert cache.stat().st_mtime_ns == written
    os.utime(path, ns=(0, 12345))
    assert build_spikes(path, tmp_path / "elsewhere") != cache


def test_a_broken_file_leaves_no_cache(tmp_path):
    path = tmp_path / "x_train.h5"
    write(path, 5)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="truncated"):
        build_spikes(path)
    assert [p.name for p in (tmp_path / ".cache").iterdir() if not p.name.endswith(".lock")] == []
    with pytest.raises(DataError, match="does not exist"):
        build_spikes(tmp_path / "no.h5")


def test_an_absent_or_damaged_cache_is_named(tmp_path):
    path = tmp_path / "x_train.h5"
    write(path, 50)
    with pytest.raises(DataError, match="prepare_data"):
        SpikeCache(spike_cache_file(path))
    cache = build_spikes(path)
    whole = cache.read_bytes()
    for length in (0, 10, 500, len(whole) - 1):
        cache.write_bytes(whole[:length])
        with pytest.raises(DataError, match="is damaged .* delete the file"):
            SpikeCache(cache)


def test_a_cache_that_cannot_be_written(tmp_path):
    path = tmp_path / "x_train.h5"
    write(path, 5)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cache_dir to another folder"):
        build_spikes(path, tmp_path / "file" / "cache")


def test_one_process_builds(tmp_path):
    path = tmp_path / "x_train.h5"
    write(path, 5)
    cache = spike_cache_file(path)
    cache.parent.mkdir()
    with FileLock(cache.with_name(f".{cache.name}.lock")):
        thread = threading.Thread(target=build_spikes, args=(path,))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert not cache.exists()
        cache.write_bytes(b"built by the other")
    thread.join(10)
    assert cache.read_bytes() == b"built by the other"
