"""`sdsnn data to-spikes` on small folders of synthetic words."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import SHARED
from refusal import refusal

from sdsnn_lightning.cli import main
from sdsnn_lightning.data.spike_files import SpikeFile
from sdsnn_lightning.data_commands.to_spikes import number_words
from sdsnn_lightning.simulate.cochlea import place_hz, spike_trains


def sing(path, hz, seconds=0.15, rate=16000, channels=1):
    time = np.arange(round(seconds * rate)) / rate
    sound = 0.3 * sum(np.sin(2 * np.pi * hz * k * time) / k for k in (1, 2, 3, 5)) * np.hanning(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(str(path), np.repeat(sound[:, None], channels, 1), rate)
    return path


@pytest.fixture
def commands(tmp_path):
    """Two words, five speakers, lists: p1 validates, p2 and p3 test."""
    root = tmp_path / "commands"
    for word, hz in (("yes", 300), ("no", 500)):
        for speaker in range(5):
            sing(root / word / f"p{speaker}_nohash_0.wav", hz + 10 * speaker)
    (root / "validation_list.txt").write_text("yes/p1_nohash_0.wav\nno/p1_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("".join(f"{w}/p{s}_nohash_0.wav\n" for w in ("yes", "no") for s in (2, 3)))
    return root


@pytest.fixture
def digits(tmp_path):
    root = tmp_path / "digits"
    for digit in range(3):
        for speaker in ("ann", "bob", "cy"):
            sing(root / f"{digit}_{speaker}_0.flac", 200 + 100 * digit, rate=8000)
    return root


def refused(capsys, *words):
    return refusal(capsys, "data", "to-spikes", *words, alone=True)


def run(*words):
    main(["data", "to-spikes", *map(str, words)])


def test_one_file_holds_every_recording_as_the_cochlea_gives_it(commands, tmp_path, capsys):
    run(commands, tmp_path / "out.h5")
    file = SpikeFile(tmp_path / "out.h5")
    assert file.class_names == ["no", "yes"]
    assert file.labels.tolist() == [0] * 5 + [1] * 5
    assert file.speakers.tolist() == [0, 1, 2, 3, 4] * 2
    times, units = spike_trains(*soundfile.read(commands / "yes" / "p0_nohash_0.wav"))
    assert np.array_equal(file[5].units, units)
    assert file[5].times == pytest.approx(times, abs=2**-12)  # 16 bits below half a second
    assert file[5].times.dtype == np.float16
    assert "10 recordings, 2 classes, 5 speakers" in capsys.readouterr().out
    assert list(tmp_path.glob(".*")) == []


def test_one_file_may_be_called_hdf5(digits, tmp_path):
    run(digits, tmp_path / "out.hdf5")
    assert (tmp_path / "out.hdf5").is_file()


def test_lists_split_by_speaker_and_two_folders_make_more_classes(commands, digits, tmp_path):
    run(digits, commands, tmp_path / "both", "--sample-rate", 8000, "--valid-speakers", "ann", "--test-speakers", "bob")
    parts = {part: SpikeFile(tmp_path / "both" / f"both_{part}.h5") for part in ("train", "valid", "test")}
    assert all(file.class_names == ["zero", "one", "two", "no", "yes"] for file in parts.values())
    # speakers: ann 0, bob 1, cy 2 of the first folder, p0 3 to p4 7 of the second
    assert {part: sorted(set(file.speakers)) for part, file in parts.items()} == {
        "train": [2, 3, 7], "valid": [0, 4], "test": [1, 5, 6]
    }  # fmt: skip
    assert parts["test"].labels.tolist() == [0, 1, 2, 3, 3, 4, 4]
    assert all(place_hz(parts["train"][k].units).max() < 4000 for k in range(len(parts["train"])))  # both rates alike


def test_equal_words_of_two_folders_are_told_apart_or_merged():
    from pathlib import Path

    folders = [(Path("en"), ["one", "two"]), (Path("ar"), ["two", "six"])]
    names, labels = number_words(folders, merge=False)
    assert names == ["one", "en/two", "ar/two", "six"]
    assert labels == {(0, "one"): 0, (0, "two"): 1, (1, "two"): 2, (1, "six"): 3}
    names, labels = number_words(folders, merge=True)
    assert names == ["one", "two", "six"]
    assert labels[0, "two"] == labels[1, "two"] == 1


def test_heidelberg_names_give_the_twenty_classes_of_shd(tmp_path):
    root = tmp_path / "audio"
    for language, digit in (("german", 5), ("english", 0), ("german", 0), ("english", 9)):
        for speaker in (4, 7):
            sing(root / f"lang-{language}_speaker-{speaker:02d}_trial-3_digit-{digit}.flac", 300 + 50 * digit)
    run(root, tmp_path / "hd", "--prefix", "shd", "--test-speakers", "04")
    file = SpikeFile(tmp_path / "hd" / "shd_train.h5")
    assert file.class_names == ["zero", "nine", "null", "fuenf"]
    assert not (tmp_path / "hd" / "shd_valid.h5").exists()
    assert set(SpikeFile(tmp_path / "hd" / "shd_test.h5").speakers) == {0}


def test_tonic_reads_the_files(digits, tmp_path):
    tonic = pytest.importorskip("tonic")
    folder = tmp_path / "SHD"
    run(digits, folder, "--prefix", "shd", "--test-speakers", "cy")
    for part in ("train", "test"):  # tonic looks for the archive it would have downloaded, and reads the file beside it
        with zipfile.ZipFile(folder / f"shd_{part}.h5.zip", "w") as archive:
            archive.write(folder / f"shd_{part}.h5", f"shd_{part}.h5")
    train, test = (tonic.datasets.SHD(str(tmp_path), train=train) for train in (True, False))
    assert (len(train), len(test)) == (6, 3)
    assert [name.decode() for name in train.classes] == ["zero", "one", "two"]
    assert test.speaker.tolist() == [2, 2, 2]
    events, label = train[5]
    ours = SpikeFile(folder / "shd_train.h5")[5]
    assert label == ours.label == 2
    assert np.array_equal(events["x"], ours.units)
    assert events["t"] == pytest.approx(ours.times.astype(float) * 1e6, abs=1)  # tonic counts microseconds
    frames = tonic.transforms.ToFrame(
        sensor_size=tonic.datasets.SHD.sensor_size, time_window=10_000, include_incomplete=True
    )(events)
    assert frames.sum() == len(ours.times)


def test_other_rates_and_channels_are_converted_and_said_once(digits, tmp_path, capsys):
    for take in (1, 2):
        sing(digits / f"0_ann_{take}.wav", 200, rate=44100, channels=2)
    run(digits, tmp_path / "out.h5")
    error = capsys.readouterr().err
    assert "mixed 2 recordings of several channels to one" in error
    assert "recordings have 8000 and 44100 Hz" in error
    assert "--sample-rate 8000" in error
    run(digits, tmp_path / "out.h5", "--sample-rate", 8000, "--overwrite")
    assert "resampled 2 recordings from 44100 to 8000 Hz" in capsys.readouterr().err
    file = SpikeFile(tmp_path / "out.h5")
    mono, stereo = len(file[0].times), len(file[1].times)  # 0_ann_0.flac, 0_ann_1.wav: the same sound
    assert stereo == pytest.approx(mono, rel=0.1)


def test_overwriting_a_set_leaves_no_part_of_the_old_split(digits, tmp_path, capsys, monkeypatch):
    out = tmp_path / "set"
    files = {part: out / f"set_{part}.h5" for part in ("train", "valid", "test")}
    run(digits, out, "--valid-speakers", "bob", "--test-speakers", "cy")
    files["train"].unlink()
    files["test"].unlink()
    assert f"{files['valid']} exists" in refused(capsys, digits, out, "--test-speakers", "bob")  # no valid of its own

    run(digits, out, "--test-speakers", "bob", "--overwrite")
    assert {part for part, file in files.items() if file.exists()} == {"train", "test"}

    def killed(source, target):
        if Path(target) == files["test"]:
            raise KeyboardInterrupt
        os.rename(source, target)

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(SystemExit):
        run(digits, out, "--test-speakers", "cy", "--overwrite")
    assert not files["test"].exists()  # the old one holds bob, who is in the new training part


def test_words_list_workers_and_the_hash_rule(commands, tmp_path):
    run(commands, tmp_path / "a.h5", "--words", "yes", "--workers", 1)
    assert SpikeFile(tmp_path / "a.h5").class_names == ["yes"]
    run(commands, tmp_path / "b.h5", "--list", commands / "testing_list.txt")
    assert len(SpikeFile(tmp_path / "b.h5")) == 4
    for name in ("validation_list.txt", "testing_list.txt"):
        (commands / name).unlink()
    sing(commands / "yes" / "x5_nohash_0.wav", 300)  # by the official rule p3 tests, x5 validates, the others train
    run(commands, tmp_path / "hashed")
    sizes = [len(SpikeFile(tmp_path / "hashed" / f"hashed_{part}.h5")) for part in ("train", "valid", "test")]
    assert sizes == [8, 1, 2]


def test_recordings_without_a_spike_are_left_out_and_named(digits, tmp_path, capsys):
    soundfile.write(str(digits / "0_ann_5.wav"), np.zeros(4000), 8000)
    run(digits, tmp_path / "out.h5")
    assert len(SpikeFile(tmp_path / "out.h5")) == 9
    assert "left out 1 recordings without a spike, first" in capsys.readouterr().err


def test_mistakes_are_one_line_and_leave_nothing(commands, digits, tmp_path, capsys):
    out = tmp_path / "new"
    assert "is not a folder" in refused(capsys, tmp_path / "gone", out)
    assert "hold speakers out by --test-speakers (it has ann, bob, cy)" in refused(capsys, digits, out)
    assert "nobody is called dan" in refused(capsys, digits, out, "--test-speakers", "bob,dan")
    assert "both name bob" in refused(capsys, digits, out, "--test-speakers", "bob", "--valid-speakers", "bob")
    assert "'maybe'" in refused(capsys, commands, out, "--words", "yes,maybe")
    assert "is one file" in refused(capsys, digits, tmp_path / "x.h5", "--test-speakers", "bob")
    assert "--list goes with one folder" in refused(capsys, commands, out, "--list", "x.txt")
    assert "--sample-rate is 8" in refused(capsys, commands, out, "--sample-rate", 8)
    assert "--prefix is ../x; give the beginning" in refused(capsys, commands, out, "--prefix", "../x")
    (tmp_path / "folder.h5").mkdir()
    assert "folder.h5 is a folder, but its name" in refused(capsys, commands, tmp_path / "folder.h5", "--overwrite")
    (tmp_path / "list.txt").write_text("noo/p1_nohash_0.wav\n")
    assert "names noo/p1_nohash_0.wav, which is missing" in refused(
        capsys, commands, tmp_path / "x.h5", "--list", tmp_path / "list.txt"
    )
    with (commands / "testing_list.txt").open("a") as file:
        file.write("no/gone_nohash_0.wav\n")
    assert "names no/gone_nohash_0.wav, which is missing" in refused(capsys, commands, out)
    soundfile.write(str(digits / "1_bob_7.wav"), np.zeros(0), 8000)
    assert "1_bob_7.wav holds no audio samples" in refused(capsys, digits, out, "--test-speakers", "cy")
    (digits / "1_bob_7.wav").write_bytes(b"RIFF")
    assert "1_bob_7.wav cannot be read as audio" in refused(capsys, digits, out, "--test-speakers", "cy")
    soundfile.write(str(digits / "1_bob_7.wav"), np.full(800, np.nan), 8000, subtype="FLOAT")
    assert "NaN or infinite" in refused(capsys, digits, out, "--test-speakers", "cy")
    (digits / "1_bob_7.wav").rename(digits / "hello.wav")
    assert "hello.wav is named in no known way" in refused(capsys, digits, out, "--test-speakers", "cy")
    assert not out.exists()
    (digits / "hello.wav").unlink()
    run(digits, out, "--test-speakers", "cy")
    before = (out / "new_train.h5").read_bytes()
    assert "new_train.h5 exists" in refused(capsys, digits, out, "--test-speakers", "bob")
    assert (out / "new_train.h5").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["new_test.h5", "new_train.h5"]


def test_help_shows_how_to_make_two_languages(capsys):
    with pytest.raises(SystemExit) as end:
        run("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "data/fsdd data/speech_commands_ar data/fad --digits --sample-rate 8000" in text
    assert "unit 0 the" in text


@pytest.mark.skipif(not (SHARED / "fsdd").exists(), reason="no real recordings")
def test_real_digits_of_two_languages(tmp_path):
    english, arabic = tmp_path / "fsdd", tmp_path / "arabic"
    english.mkdir()
    for path in (SHARED / "fsdd").glob("*_0.flac"):
        (english / path.name).symlink_to(path)
    for word in ("zero", "one", "yes"):
        (arabic / word).mkdir(parents=True)
        for path in (SHARED / "speech_commands_ar" / word).glob("0000000[1-4]_nohash_0.flac"):
            (arabic / word / path.name).symlink_to(path)
    run(english, arabic, tmp_path / "fad", "--words", "zero,one", "--sample-rate", 8000,
        "--valid-speakers", "theo,00000003", "--test-speakers", "yweweler,00000004")  # fmt: skip
    train, test = (SpikeFile(tmp_path / "fad" / f"fad_{part}.h5") for part in ("train", "test"))
    assert train.class_names == ["fsdd/zero", "fsdd/one", "arabic/zero", "arabic/one"]
    assert (len(train), len(test)) == (2 * 4 + 2 * 2, 2 + 2)
    assert 2000 < np.mean([len(train[k].times) for k in range(len(train))]) < 15000
