"""`sdsnn data list|download|simulate|verify`: what is said of sets, stand-ins written, damage found."""

import json
import os
import shutil
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest

from sdsnn_lightning import data as modules
from sdsnn_lightning.cli import main
from sdsnn_lightning.data_commands.catalogue import SETS, set_of_module
from sdsnn_lightning.data_commands.verify import read_set


def ends(code, *words):
    """Runs a command that ends the program with this code."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == code


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """Two simulated subjects, one clip of every emotion each, written by the command."""
    root = tmp_path_factory.mktemp("eyes") / "see"
    main(["data", "simulate", "see", str(root), "--subjects", "2", "--clips", "1"])
    return root


@pytest.fixture
def copy(eyes, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(eyes, tmp_path / "see"))


def test_every_set_names_its_module_layout_and_folders(capsys, workdir):
    (workdir / "mine" / "shd").mkdir(parents=True)
    main(["data", "list", "--data", "mine"])
    text = capsys.readouterr().out
    assert [line for line in text.splitlines() if not line.startswith(" ")] == list(SETS)
    for name, found in SETS.items():
        assert issubclass(getattr(modules, found.module), modules.DataModule)
        assert set_of_module(f"sdsnn_lightning.data.{found.module}") == name
        assert found.licence in text
        assert found.address in text
    assert "found in mine/shd\n" in text
    assert "not in mine/ssc; sdsnn data download ssc mine/ssc" in text
    assert "\x1b" not in text
    assert set_of_module("mine.Data") is None


def test_folders_of_the_catalogue_are_those_of_the_modules():
    for found in SETS.values():
        parameters = signature(getattr(modules, found.module)).parameters
        assert Path(parameters["root"].default) == found.root
        assert Path(parameters["simulated_root"].default) == found.simulated


def test_simulated_clips_are_whole(eyes, capsys):
    clips = json.loads((eyes / "emotion.json").read_text())["database"]
    images = sum(entry["annotations"]["segment"][1] for entry in clips.values())
    assert len(clips) == 2 * 7
    main(["data", "verify", "see", str(eyes)])
    assert f"{eyes}: {2 * images} images read in" in capsys.readouterr().out
    assert read_set("see", eyes) == (2 * images, [])
    main(["data", "simulate", "see", str(eyes), "--subjects", "2", "--clips", "1"])  # is there: used again
    said = capsys.readouterr().out
    assert "simulated see" in said
    before = (eyes / "emotion.json").stat().st_mtime_ns
    words = said.rpartition("a run takes it by ")[2].split()
    options = dict(zip((word.removeprefix("--data.init_args.") for word in words[::2]), words[1::2], strict=True))
    root = options.pop("simulated_root")
    numbers = {key: int(value) for key, value in options.items()}
    modules.SingleEye(source="simulated", simulated_root=root, size=16, **numbers).prepare_data()
    assert (eyes / "emotion.json").stat().st_mtime_ns == before  # used, not replaced


def test_every_damaged_image_is_named(copy, capsys):
    first, second, third = sorted((copy / "frame" / "angry").iterdir())[0], *sorted((copy / "event" / "fear").iterdir())
    broken, missing = first / "00003.jpg", first / "00005.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    missing.unlink()
    shutil.rmtree(second)
    count = len(list(third.iterdir()))
    shutil.copy(third / "00000.jpg", third / f"{count:05d}.jpg")
    ends(1, "data", "verify", "see", str(copy))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("damaged: ")]
    assert len(lines) == 4
    text = "\n".join(lines)
    assert f"{broken} cannot be decoded" in text
    assert f"{missing} is missing" in text
    assert f"{second} does not exist" in text
    assert f"{third} holds {count + 1} images, its name or manifest says {count}" in text


def test_a_broken_index_is_damage_and_a_missing_folder_a_mistake(copy, capsys):
    (copy / "emotion.json").write_text("{")
    ends(1, "data", "verify", "see", str(copy))
    assert "emotion.json: broken index" in capsys.readouterr().out
    ends(2, "data", "verify", "see", str(copy / "nowhere"))
    assert "nowhere does not exist; put it there" in capsys.readouterr().err


def test_recordings_of_a_spike_file_are_read_one_by_one(tmp_path, capsys):
    import h5py
    import numpy as np

    from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file

    times, units = np.array([0.1, 0.2, 0.3]), np.array([5, 6, 699])
    for part, count in (("train", 70), ("test", 3)):
        samples = [SpikeSample(times, units, k % 2, 0, ("a", "b")[k % 2]) for k in range(count)]
        write_spike_file(tmp_path / f"shd_{part}.h5", samples, ["a", "b"])
    assert read_set("shd", tmp_path) == (73, [])
    with h5py.File(tmp_path / "shd_train.h5", "r+") as file:
        file["spikes/units"][66] = np.array([5, 6, 700], np.uint16)  # no such channel
        file["spikes/units"][3] = np.array([5, 6], np.uint16)  # fewer than times
    number, damages = read_set("shd", tmp_path)
    assert number == 73
    assert len(damages) == 2
    assert "recording 3 " in damages[0]
    assert "recording 66 " in damages[1]
    file = tmp_path / "shd_test.h5"
    file.write_bytes(file.read_bytes()[:1000])
    number, damages = read_set("shd", tmp_path)
    assert number == 70
    assert len(damages) == 3
    (tmp_path / "shd_train.h5").unlink()
    ends(1, "data", "verify", "shd", str(tmp_path))
    assert "shd_train.h5 does not exist" in capsys.readouterr().out


def test_spike_files_of_ones_own_prefix_are_read(tmp_path):
    import numpy as np

    from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file

    samples = [SpikeSample(np.array([0.1, 0.2]), np.array([5, 6]), k % 2, 0, ("a", "b")[k % 2]) for k in range(4)]
    for prefix, part in (("fad", "train"), ("fad", "valid"), ("two_train", "train"), ("two_train", "test")):
        write_spike_file(tmp_path / f"{prefix}_{part}.h5", samples, ["a", "b"])
    number, damages = read_set("shd", tmp_path)  # the validation file too, which not every run needs
    assert number == 16
    assert len(damages) == 1
    assert damages[0].startswith(f"{tmp_path / 'fad_test.h5'} does not exist")
    number, damages = read_set("ssc", tmp_path)  # its module validates on a file
    assert number == 16
    assert [line.split(" ")[0] for line in damages] == [
        str(tmp_path / name) for name in ("fad_test.h5", "two_train_valid.h5")
    ]


def test_sound_and_list_files_are_read(tmp_path):
    import numpy as np
    import soundfile

    for word in ("no", "yes", "_background_noise_"):
        (tmp_path / word).mkdir()
        for speaker in "abcdefgh":
            name = f"{speaker}.wav" if word.startswith("_") else f"{speaker}_nohash_0.wav"
            soundfile.write(str(tmp_path / word / name), np.zeros(160), 16000)
    (tmp_path / "validation_list.txt").write_text("no/a_nohash_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/b_nohash_0.wav\nyes/b_nohash_0.wav\n")
    assert read_set("speech-commands", tmp_path) == (24, [])
    for path in (tmp_path / "no" / "c_nohash_0.wav", tmp_path / "_background_noise_" / "d.wav"):
        path.write_bytes(path.read_bytes()[:100])
    (tmp_path / "yes" / "b_nohash_0.wav").unlink()
    number, damages = read_set("speech-commands", tmp_path)
    assert number == 23
    assert len(damages) == 3
    assert "testing_list.txt names yes/b_nohash_0.wav" in damages[0]
    assert sum("fetch it again or delete it" in line for line in damages[1:]) == 2


def test_event_recordings_are_read(tmp_path):
    import numpy as np

    from sdsnn_lightning.data.aedat import write_aedat
    from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

    events = np.zeros(10, EVENT_DTYPE)
    events["t"] = np.arange(10)
    for label in ("cup", "pen"):
        (tmp_path / label).mkdir()
        for k in range(2):
            write_aedat(tmp_path / label / f"{k}.aedat", events)
    assert read_set("cifar10-dvs", tmp_path) == (4, [])
    path = tmp_path / "pen" / "1.aedat"
    path.write_bytes(path.read_bytes()[:-3])
    (line,) = read_set("cifar10-dvs", tmp_path)[1]
    assert line.startswith(f"{path} breaks off within an event: 5 bytes")
    shutil.rmtree(tmp_path / "cup")
    number, damages = read_set("cifar10-dvs", tmp_path)
    assert number == 2
    assert damages[0].startswith(f"{tmp_path}: the classes are ['pen']; name two or more")
    assert len(damages) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["download", "see", "x"], "see cannot be fetched by a program"),
        (["download", "mnist", "x"], "there is no data set 'mnist'; NAME is one of see, shd"),
        (["download", "shd", "x", "--version", "1"], "--version is for speech-commands"),
        (["simulate", "shd", "x", "--subjects", "3"], "--subjects is for see"),
        (["simulate", "see", "x", "--subjects", "1"], "subjects is 1; give 2 or more"),
        (["simulate", "nothing", "x"], "there is no data set 'nothing'"),
        (["verify", "nothing", "x"], "there is no data set 'nothing'"),
    ],
)
def test_a_mistake_is_one_line(workdir, capsys, words, said):
    ends(2, "data", *words)
    assert said in capsys.readouterr().err
    assert not list(workdir.glob("x*"))


def test_download_leaves_what_is_there_and_names_the_check(tmp_path, capsys):
    main(["data", "download", "speech-commands", str(tmp_path)])
    assert f"sdsnn data verify speech-commands {tmp_path}" in capsys.readouterr().out
    for part in ("train", "test"):
        (tmp_path / f"shd_{part}.h5").touch()
    main(["data", "download", "shd", str(tmp_path)])
    assert f"sdsnn data verify shd {tmp_path}" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error(workdir):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "sdsnn_lightning", "data", "list"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
