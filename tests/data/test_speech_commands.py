import pickle
import time

import numpy as np
import pytest
import soundfile
import torch
from conftest import SHARED

from sdsnn_lightning.data.speech_commands import SpeechCommands, hash_part, list_words, speaker_of, split_files
from sdsnn_lightning.data.waveform_cache import build_waveforms, cache_file, open_waveforms
from sdsnn_lightning.errors import ConfigError, DataError

needs_recordings = pytest.mark.skipif(
    not (SHARED / "speech_commands_en").is_dir(), reason="set SDSNN_SHARED to the folder of the recordings"
)
SPEAKERS = (
    "0ea0e2f4",
    "026290a7",
    "00f0204f",
    "00176480",
)  # by the official lists: test, validation, training, training


@pytest.fixture
def root(tmp_path):
    """Two words by four speakers, two takes each, and both list files; the second word is a tone."""
    root = tmp_path / "set"
    for number, word in enumerate(("bed", "cat")):
        (root / word).mkdir(parents=True)
        for k, speaker in enumerate(SPEAKERS):
            for take in range(2):
                rng = np.random.default_rng(100 * number + 10 * k + take)
                sound = rng.normal(0, 0.1, 12000) + number * np.sin(np.arange(12000)) * 0.5
                soundfile.write(root / word / f"{speaker}_nohash_{take}.wav", sound, 16000)
    (root / "_background_noise_").mkdir()
    for name, speaker in (("validation", SPEAKERS[1]), ("testing", SPEAKERS[0])):
        lines = [f"{word}/{speaker}_nohash_{take}.wav\n" for word in ("bed", "cat") for take in range(2)]
        (root / f"{name}_list.txt").write_text("".join(lines))
    return root


def module(root, **args):
    data = SpeechCommands(root=str(root), source="real", batch_size=4, **args)
    data.prepare_data()
    data.setup("fit")
    return data


def test_hash_rule_gives_the_official_parts():
    # From the published list files of Speech Commands.
    assert hash_part("bed/0ea0e2f4_nohash_0.wav") == "test"
    assert hash_part("cat/0ea0e2f4_nohash_7.flac") == "test"
    assert hash_part("bed/026290a7_nohash_0.wav") == "val"
    assert hash_part("00176480_nohash_0.wav") == "train"
    # sha1("a") = 86f7e437...377667b8: the last 27 bits are 0x77667b8 = 125200312, 93.28 % of 2^27 - 1.
    assert hash_part("a_nohash_0.wav", 93.2, 0.0) == "train"
    assert hash_part("a_nohash_0.wav", 93.3, 0.0) == "val"
    assert hash_part("a_nohash_0.wav", 50.0, 43.3) == "test"


@needs_recordings
def test_hash_rule_reproduces_the_real_lists():
    root = SHARED / "speech_commands_en"
    parts = split_files(root, list_words(root))
    assert [len(parts[part]) for part in ("train", "val", "test")] == [1272, 201, 165]
    wrong = [file for part, files in parts.items() for file in files if hash_part(file) != part]
    assert wrong == []


@needs_recordings
def test_real_arabic_words_split_by_speaker():
    root = SHARED / "speech_commands_ar"
    parts = split_files(root, list_words(root))
    assert [len(files) for files in parts.values()] == [1728, 576, 576]
    speakers = [{speaker_of(file) for file in files} for files in parts.values()]
    assert [len(s) for s in speakers] == [18, 6, 6]
    assert len(set.union(*speakers)) == 30


def test_lists_decide_where_there_are_lists_and_the_hash_where_not(root):
    by_list = split_files(root, ["bed", "cat"])
    assert [len(files) for files in by_list.values()] == [8, 4, 4]
    for name in ("validation", "testing"):
        (root / f"{name}_list.txt").unlink()
    assert split_files(root, ["bed", "cat"]) == by_list


def test_a_broken_set_is_an_error_that_names_the_file(root):
    def broken(match):
        with pytest.raises(DataError, match=match) as error:
            split_files(root, ["bed", "cat"])
        assert "\n" not in str(error.value)

    gone = root / "bed" / f"{SPEAKERS[0]}_nohash_1.wav"
    sound = gone.read_bytes()
    gone.unlink()
    broken(f"testing_list.txt names bed/{gone.name}")
    gone.write_bytes(sound)

    nameless = root / "cat" / "noise.wav"
    nameless.write_bytes(sound)
    broken("cat/noise.wav names no speaker")
    nameless.unlink()

    lists = [root / f"{name}_list.txt" for name in ("validation", "testing")]
    texts = [path.read_text() for path in lists]
    lists[0].unlink()
    broken("validation_list.txt cannot be read")
    lists[0].write_text(texts[0] + texts[1])
    broken("both name bed/")
    lists[0].write_text("")
    broken("for the val part")
    lists[0].write_text(texts[0])

    with pytest.raises(DataError, match="dog does not exist"):
        split_files(root, ["bed", "dog"])
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no"):
        split_files(root, ["bed", "empty"])


def test_absent_and_wordless_folders(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        SpeechCommands(root=str(tmp_path / "no"), source="real")
    with pytest.raises(DataError, match="no word folder"):
        SpeechCommands(root=str(tmp_path))


def test_samples_are_the_recordings_and_their_words(root):
    data = module(root)
    assert data.class_names == ["bed", "cat"]
    assert data.num_classes == 2
    assert data.data_source == "real"
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (8, 4, 4)
    sample = data.test_set[3]
    recorded, _ = soundfile.read(root / "cat" / f"{SPEAKERS[0]}_nohash_1.wav", dtype="int16")
    assert sample["target"] == 1
    assert torch.equal(sample["audio"], torch.from_numpy(np.pad(recorded, (0, 4000))))
    again = pickle.loads(pickle.dumps(data.test_set))
    assert torch.equal(again[3]["audio"], sample["audio"])
    swapped = module(root, classes=["cat", "bed"])
    assert swapped.test_set[0]["target"] == 0
    assert torch.equal(swapped.test_set[1]["audio"], sample["audio"])
    assert module(root, classes=["cat"]).num_classes == 1


def test_views_have_their_steps_and_share_the_augmentation(root):
    torch.manual_seed(0)
    data = module(root, steps=25, teacher_steps=100, n_mels=32)
    assert data.input_shapes == {"audio": (25, 32)}
    sample = {"audio": next(iter(data.train_dataloader()))["audio"]}
    student, teacher = data.views(sample, training=False)
    assert student["audio"].shape == (4, 25, 32)
    assert teacher["audio"].shape == (4, 100, 32)
    assert student["audio"].dtype == torch.float32
    assert torch.equal(data.views(sample, training=False)[0]["audio"], student["audio"])

    student, teacher = (view["audio"] for view in data.views(sample, training=True))
    pooled = teacher.unflatten(1, (25, 4)).mean(2)
    assert torch.corrcoef(torch.stack([student.flatten(), pooled.flatten()]))[0, 1] > 0.9
    assert not torch.allclose(data.views(sample, training=True)[0]["audio"], student)

    plain = module(root, augment=False)
    one, two = plain.views(sample, training=True)
    assert one is two
    assert torch.equal(one["audio"], plain.views(sample, training=False)[0]["audio"])


def test_too_many_steps_are_refused(root):
    with pytest.raises(ConfigError, match=r"steps is 101; set it to 1 to 100"):
        SpeechCommands(root=str(root), steps=101)
    with pytest.raises(ConfigError, match="teacher_steps"):
        SpeechCommands(root=str(root), teacher_steps=500)


def test_the_cache_is_built_once_and_again_for_other_files(root, tmp_path):
    files = [file for part in split_files(root, ["bed", "cat"]).values() for file in part]
    args = (root, files, 16000, 16000, tmp_path / "cache")
    with pytest.raises(DataError, match="prepare_data"):
        open_waveforms(cache_file(*args))
    path = build_waveforms(*args)
    written = path.stat().st_mtime_ns
    assert build_waveforms(*args) == path
    assert path.stat().st_mtime_ns == written
    waveforms = open_waveforms(path)
    assert waveforms.shape == (16, 16000)
    assert waveforms.dtype == np.int16
    assert build_waveforms(root, files, 8000, 8000, tmp_path / "cache") != path

    time.sleep(0.01)
    soundfile.write(root / files[0], np.zeros(12000), 16000)
    renewed = build_waveforms(*args)
    assert renewed != path
    assert not open_waveforms(renewed)[0].any()
    assert np.array_equal(open_waveforms(renewed)[1:], waveforms[1:])


def test_a_broken_recording_leaves_no_cache(root, tmp_path):
    (root / "bed" / f"{SPEAKERS[2]}_nohash_0.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=f"{SPEAKERS[2]}_nohash_0.wav"):
        module(root, cache_dir=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").glob("*.npy")) == []
    assert list((tmp_path / "cache").glob("*partial*")) == []


def test_a_damaged_cache_is_named(root, tmp_path):
    data = module(root, cache_dir=str(tmp_path / "cache"))
    with data.train_set.path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match="delete the file"):
        data.setup("fit")


def test_a_set_without_its_folder_is_simulated_and_says_so(tmp_path):
    args = {"root": str(tmp_path / "no"), "simulated_root": str(tmp_path / "simulated")}
    with pytest.warns(UserWarning, match="SIMULATED"):
        data = SpeechCommands(**args)
    assert data.data_source == "simulated"
    data.prepare_data()
    data.setup("fit")
    assert data.num_classes == 12
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (384, 96, 96)


@needs_recordings
def test_thirty_real_words_through_loader_processes(tmp_path):
    data = SpeechCommands(
        root=str(SHARED / "speech_commands_en"), cache_dir=str(tmp_path), batch_size=64, num_workers=1
    )
    data.prepare_data()
    data.setup("test")
    assert data.num_classes == 30
    batch = next(iter(data.test_dataloader()))
    assert batch["audio"].shape == (64, 16000)
    audio = data.views(batch, training=False)[0]["audio"]
    assert audio.shape == (64, 50, 40)
    assert audio.isfinite().all()
