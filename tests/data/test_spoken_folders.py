"""Folders of spoken words: their layouts, and every rule that splits them."""

import pytest

from sdsnn_lightning.data.spoken_folders import DIGITS, GERMAN_DIGITS, Recording, read_folder, split_recordings
from sdsnn_lightning.errors import ConfigError, DataError


def touch(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def files(parts):
    return {part: [recording.file for recording in recordings] for part, recordings in parts.items()}


def test_words_in_folders(tmp_path):
    touch(tmp_path, "yes/a1_nohash_0.wav", "no/b2_nohash_1.flac", "no/README.md", "_background_noise_/hum.wav", "up/x")
    recordings, words = read_folder(tmp_path)
    assert words == ["no", "yes"]  # `up` holds no recording
    assert recordings[0] == Recording(tmp_path, "no/b2_nohash_1.flac", "no", "b2")
    assert [recording.file for recording in read_folder(tmp_path, ["yes"])[0]] == ["yes/a1_nohash_0.wav"]
    assert read_folder(tmp_path, ["yes", "no"])[1] == ["yes", "no"]  # the order of the classes is the caller's


def test_digits_in_one_folder_are_ordered_by_language_and_value(tmp_path):
    touch(tmp_path, "lang-German_speaker-02_trial-1_digit-0.flac", "lang-english_speaker-11_trial-12_digit-3.flac",
          "1_ann_0.wav")  # fmt: skip
    recordings, words = read_folder(tmp_path)
    assert words == ["one", "three", "null"]
    assert [(r.word, r.speaker) for r in recordings] == [("one", "ann"), ("null", "02"), ("three", "11")]
    assert len({*DIGITS, *GERMAN_DIGITS}) == 20


@pytest.mark.parametrize(
    ("names", "words", "said"),
    [
        ((), None, "holds no .wav or .flac file named <word>/<speaker>_nohash_<take>"),
        (("yes/a_nohash_0.wav",), ["yes", "no"], "holds no recording of 'no'; restore it"),
        (("1_ann_0.wav",), ["two"], "holds no recording of 'two'"),
        (("1_ann_0.wav", "lang-french_speaker-1_trial-0_digit-1.flac"), None, "french_speaker-1_trial-0_digit-1.flac"),
        (("1_ann.wav",), None, "1_ann.wav is named in no known way; rename it"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, names, words, said):
    with pytest.raises(DataError) as error:
        read_folder(touch(tmp_path, *names), words)
    assert said in str(error.value)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(DataError, match="gone is not a folder; name the folder"):
        read_folder(tmp_path / "gone")


def test_named_speakers_go_before_list_files(tmp_path):
    root = touch(tmp_path / "set", "1_ann_0.wav", "1_bob_0.wav", "1_cy_0.wav")
    (root / "testing_list.txt").write_text("1_ann_0.wav\n")
    (root / "validation_list.txt").touch()
    recordings, _ = read_folder(root)
    held_out = {"train": ["1_ann_0.wav"], "val": ["1_cy_0.wav"], "test": ["1_bob_0.wav"]}
    assert files(split_recordings(recordings, ["set/cy", "dan"], ["bob"])) == held_out
    assert files(split_recordings(recordings, ["dan"], []))["test"] == ["1_ann_0.wav"]  # nobody is called dan
    with pytest.raises(ConfigError, match="both name cy; name it once"):
        split_recordings(recordings, ["set/cy"], ["cy"])


def test_list_files_are_taken_at_their_word(tmp_path):
    root = touch(tmp_path, "yes/a_nohash_0.wav", "yes/b_nohash_0.wav", "yes/c_nohash_0.wav", "no/a_nohash_0.wav")
    (root / "validation_list.txt").write_text("yes/b_nohash_0.wav\nno/z_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("yes/c_nohash_0.wav\n")
    recordings, _ = read_folder(root, ["yes"])
    assert files(split_recordings(recordings, [], [])) == {
        "train": ["yes/a_nohash_0.wav"], "val": ["yes/b_nohash_0.wav"], "test": ["yes/c_nohash_0.wav"],
    }  # fmt: skip
    with pytest.raises(DataError, match=r"validation_list\.txt names no/z_nohash_0\.wav, which is missing \(1 in all"):
        split_recordings(read_folder(root)[0], [], [])  # now that `no` is wanted, too
    (root / "testing_list.txt").write_text("yes/b_nohash_0.wav\n")
    with pytest.raises(DataError, match=r"both name yes/b_nohash_0\.wav; restore both files"):
        split_recordings(recordings, [], [])
    (root / "testing_list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"testing_list\.txt cannot be read"):
        split_recordings(recordings, [], [])
    (root / "testing_list.txt").unlink()
    with pytest.raises(DataError, match=r"testing_list\.txt cannot be read"):  # one of both is not a split
        split_recordings(recordings, [], [])


def test_without_any_rule_nobody_is_held_out_by_chance(tmp_path):
    recordings, _ = read_folder(touch(tmp_path, "1_bob_0.wav", "2_ann_0.wav"))
    with pytest.raises(DataError, match=r"hold speakers out by --test-speakers \(it has ann, bob\)"):
        split_recordings(recordings, ["dan"], [])
