import multiprocessing
import pickle
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from sdsnn_lightning.data.spike_files import SpikeFile, SpikeSample, write_spike_file
from sdsnn_lightning.errors import DataError

WORDS = ["null", "eins"]


def sample(times=(0.1, 0.2, 0.2), units=(0, 699, 5), label=0, speaker=3):
    return SpikeSample(np.array(times), np.array(units), label, speaker, WORDS[label])


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "set" / "x_train.h5"
    write_spike_file(path, [sample(), sample((0.5,), (7,), 1, 4)], WORDS)
    return path


def refused(path, match):
    with pytest.raises(DataError, match=match) as error:
        list(SpikeFile(path).chunks())
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert ";" in str(error.value)  # the cure


def test_what_is_written_is_read(path):
    file = SpikeFile(path)
    assert len(file) == 2
    assert file.class_names == WORDS
    assert file.labels.tolist() == [0, 1]
    assert file.speakers.tolist() == [3, 4]
    first = file[0]
    assert first.times.dtype == np.float16
    assert first.times.tolist() == np.array([0.1, 0.2, 0.2], np.float16).tolist()
    assert first.units.dtype == np.int16
    assert first.units.tolist() == [0, 699, 5]
    assert (first.label, first.speaker, first.key) == (0, 3, "null")
    assert file[1].key == "eins"
    with pytest.raises(IndexError):
        file[2]
    (chunk,) = file.chunks()
    assert chunk.counts.tolist() == [3, 1]
    assert chunk.units.tolist() == [0, 699, 5, 7]


def test_times_of_32_bits(tmp_path):
    write_spike_file(tmp_path / "f.h5", [sample()], WORDS, times="float32")
    assert SpikeFile(tmp_path / "f.h5")[0].times.tolist() == np.array([0.1, 0.2, 0.2], np.float32).tolist()


def test_the_layout_is_that_of_shd(path):
    with h5py.File(path) as file:
        assert set(file) == {"spikes", "labels", "extra"}
        assert h5py.check_vlen_dtype(file["spikes/times"].dtype) == np.float16
        assert h5py.check_vlen_dtype(file["spikes/units"].dtype).kind == "u"
        assert file["extra/keys"][()].tolist() == [b"null", b"eins"]
        assert file["extra/speaker"][()].tolist() == [3, 4]


def test_tonic_reads_it(tmp_path):
    from tonic.datasets.hsd import SHD

    class Local(SHD):
        def _check_exists(self):
            return True

    write_spike_file(tmp_path / "Local" / "shd_train.h5", [sample(), sample(label=1)], WORDS)
    data = Local(str(tmp_path))
    events, target = data[1]
    assert len(data) == 2
    assert target == 1
    assert events["x"].tolist() == [0, 699, 5]
    assert np.allclose(events["t"], [100000, 200000, 200000], atol=100)


def _in_process(file, queue):
    queue.put((file[1].units.tolist(), file._process))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every_process_opens_its_own_handle(path, method):
    file = SpikeFile(path)
    mine = file[0]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_in_process, args=(file, queue))
    process.start()
    units, number = queue.get(timeout=60)
    process.join()
    assert units == [7]
    assert number == process.pid != file._process
    assert pickle.loads(pickle.dumps(file))[0].units.tolist() == mine.units.tolist()


def test_files_of_others_may_lack_names_and_speakers(path):
    with h5py.File(path, "a") as file:
        del file["extra"]
    file = SpikeFile(path)
    assert file.class_names == ["0", "1"]
    assert file.speakers.tolist() == [-1, -1]
    assert file[1].key == "1"


@pytest.mark.parametrize("kind", ["S8", None])
def test_speakers_may_be_names(path, tmp_path, kind):
    other = tmp_path / "other.h5"
    shutil.copy(path, other)
    for place, names in ((path, ["0a2b400e", "ann"]), (other, ["bob", "0a2b400e"])):
        with h5py.File(place, "a") as file:
            del file["extra/speaker"]
            file["extra/speaker"] = np.array(names, kind) if kind else names
    mine, others = SpikeFile(path).speakers, SpikeFile(other).speakers
    assert mine.dtype == np.int64
    assert len({*mine, *others}) == 3
    assert mine[0] == others[1] == SpikeFile(path)[0].speaker > 0


def test_a_truncated_file(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "cannot be read as HDF5, it is truncated")


def test_another_kind_of_file(path):
    path.write_bytes(b"PK\x03\x04 this is a zip" * 100)
    refused(path, "another kind of file")
    path.unlink()
    refused(path, "does not exist")


def test_a_file_damaged_within(path):
    path.write_bytes(path.read_bytes().replace(b"GCOL", bytes(4)))  # HDF5's mark of the lists of spikes
    refused(path, "cannot be read as HDF5")


def test_damage_anywhere_is_told_or_does_no_harm(path):
    whole, told = path.read_bytes(), 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        damaged, at = bytearray(whole), int(rng.integers(0, len(whole) - 32))
        damaged[at : at + 32] = rng.bytes(32)
        path.write_bytes(damaged)
        file = SpikeFile(path)
        try:
            list(file.chunks())
            for index in range(len(file)):
                file[index]
        except DataError:
            told += 1
        finally:
            if file._handle is not None:
                file._handle.close()
    assert told > 30


def test_damaged_names_are_not_taken_for_absent_ones(path):
    with h5py.File(path, "a") as file:
        place = h5py.h5o.get_info(file["extra/keys"].id).addr
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 16] = b"\xff" * 16
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        SpikeFile(path).class_names  # noqa: B018


@pytest.mark.parametrize("name", ["spikes", "spikes/times", "spikes/units", "labels"])
def test_a_missing_part(path, name):
    with h5py.File(path, "a") as file:
        del file[name]
    refused(path, "has no (spikes|labels)")


def test_parts_of_another_kind(path):
    with h5py.File(path, "a") as file:
        del file["labels"]
        file["labels"] = np.array([0.0, 1.0])
    refused(path, "holds float64 of shape .2,. in labels")
    with h5py.File(path, "a") as file:
        del file["labels"]
        file["labels"] = np.array([0, 1, 1])
    refused(path, "disagrees about the number of recordings")
    with h5py.File(path, "a") as file:
        del file["spikes/times"]
        file["spikes/times"] = np.zeros((2, 5))
    refused(path, "in spikes/times")


def replace(path, times=None, units=None, labels=None):
    with h5py.File(path, "a") as file:
        if times is not None:
            file["spikes/times"][1] = np.array(times, np.float16)
        if units is not None:
            del file["spikes/units"]
            lists = file.create_dataset("spikes/units", (2,), h5py.vlen_dtype(np.int64))
            lists[0], lists[1] = np.array([0, 1, 2]), np.array(units)
        if labels is not None:
            file["labels"][...] = labels


@pytest.mark.parametrize(
    ("times", "units", "match"),
    [
        ([0.1, 0.2], [3, 700], "recording 1 has unit 700"),
        ([0.1, 0.2], [-1, 3], "recording 1 has unit -1"),
        ([0.1, 0.2], [70000, 3], "recording 1 has unit 70000"),
        ([0.2, 0.1], [3, 4], "recording 1 has a spike at 0.0999756 s after one at 0.199951 s; times must ascend; sort"),
        ([0.1, np.nan], [3, 4], "recording 1 has a spike at nan s"),
        ([-0.1, 0.1], [3, 4], "recording 1 has a spike at -0.0999756 s"),
        ([0.1, np.inf], [3, 4], "recording 1 has a spike at inf s"),
        ([100.0, 200.0], [3, 4], "recording 1 has a spike at 100 s, beyond 60 s; write times in seconds"),
        ([], [], "recording 1 has no spikes; take it out"),
        ([0.1, 0.2], [3], "recording 1 has 2 times but 1 units"),
    ],
)
def test_spikes_that_cannot_be(path, times, units, match):
    replace(path, times, units)
    refused(path, match)
    with pytest.raises(DataError, match=match):
        SpikeFile(path)[1]


def test_a_recording_may_begin_before_the_last_one_ended(path):
    replace(path, [0.0, 0.01], [3, 4])  # the one before ends at 0.2 s
    assert [len(chunk.counts) for chunk in SpikeFile(path).chunks()] == [2]


def test_a_label_without_a_word(path):
    replace(path, labels=[0, 2])
    with pytest.raises(DataError, match="recording 1 has label 2 but extra/keys has 2 words; replace"):
        _ = SpikeFile(path).labels


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (sample((0.2, 0.1, 0.3)), "must ascend"),
        (sample(units=(0, 1, 700)), "unit 700"),
        (sample((), ()), "has no spikes"),
        (sample()._replace(key="eins"), "label 0 and word 'eins'"),
        (sample()._replace(label=2), "label 2"),
    ],
)
def test_nothing_broken_is_written(tmp_path, bad, match):
    path = tmp_path / "bad.h5"
    write_spike_file(path, [sample()], WORDS)
    before = path.read_bytes()
    with pytest.raises(DataError, match=match):
        write_spike_file(path, [sample(), bad], WORDS)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["bad.h5"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_spike_file(tmp_path / "file" / "x.h5", [sample()], WORDS)


def test_a_disk_that_fills_up_is_told_in_one_line_and_ends_nothing(tmp_path):
    script = """
import resource, sys
import numpy as np
from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # refuses as a full disk does
samples = (SpikeSample(np.linspace(0, 1, 8000), np.arange(8000) % 700, 0, 0, "a") for _ in range(40))
try:
    write_spike_file(sys.argv[1], samples, ["a"])
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "x.h5"], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"DataError {tmp_path / 'x.h5'} cannot be written (File too large); free space")
    assert not list(tmp_path.iterdir())
