import shutil

import pytest
from places import SHARED
from speech_set import SPEAKERS, write_speech_set

from sdsnn_lightning.data.speech_commands import SpeechCommands
from sdsnn_lightning.data.speech_words import (
    TASKS,
    WORDS_V1,
    WORDS_V2,
    all_words,
    choose_files,
    hash_part,
    list_words,
    name_classes,
    rotate_speakers,
    speaker_of,
    split_files,
)
from sdsnn_lightning.data.spoken_folders import read_folder, read_list
from sdsnn_lightning.errors import ConfigError, DataError

needs_recordings = pytest.mark.skipif(
    not (SHARED / "speech_commands_en").is_dir(), reason="set SDSNN_SHARED to the folder of the recordings"
)


@pytest.fixture
def root(tmp_path):
    return write_speech_set(tmp_path / "set")


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


def test_names_in_capitals_and_what_macos_leaves_beside_them(root):
    for path in (root / "bed").iterdir():
        path.rename(path.with_suffix(".WAV"))
    for name in ("validation_list.txt", "testing_list.txt"):
        (root / name).unlink()
    (root / "cat" / f"._{SPEAKERS[0]}_nohash_0.wav").write_bytes(b"no sound")
    files = sorted(file for part in split_files(root, ["bed", "cat"]).values() for file in part)
    assert files == sorted(
        f"{word}/{speaker}_nohash_{take}.{suffix}"
        for word, suffix in (("bed", "WAV"), ("cat", "wav"))
        for speaker in SPEAKERS
        for take in range(2)
    )
    assert len(read_folder(root)[0]) == len(files)


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


def test_a_word_that_only_the_lists_know_is_missed(root):
    assert all_words(root) == list_words(root) == ["bed", "cat"]
    shutil.rmtree(root / "cat")
    with pytest.raises(DataError, match=r"cat does not exist, but validation_list.txt names recordings of it"):
        all_words(root)
    with pytest.raises(DataError, match="cat does not exist"):
        SpeechCommands(root=str(root))
    with pytest.raises(DataError, match="cat does not exist"):
        read_folder(root)
    assert SpeechCommands(root=str(root), classes=["bed"]).class_names == ["bed"]
    assert read_folder(root, ["bed"])[1] == ["bed"]
    for name in ("validation", "testing"):
        (root / f"{name}_list.txt").unlink()
    assert all_words(root) == ["bed"]


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


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("./bed/{}", "holds the line './bed/{}', which is not <word>/<recording>"),
        ("/bed/{}", "holds the line '/bed/{}'"),
        ("bed\\{}", "which is not <word>/<recording>"),
        ("# test", "holds the line '# test'"),
        ("Bed/{}", "says 'Bed' where the folder is 'bed'"),
    ],
)
def test_a_line_that_would_leave_its_recording_to_training_is_refused(root, written, said):
    path, file = root / "testing_list.txt", f"{SPEAKERS[0]}_nohash_1.wav"
    path.write_text(path.read_text().replace(f"bed/{file}", written.format(file)) + written.format(file) + "\n")
    with pytest.raises(DataError) as error:
        choose_files(root, ["bed", "cat"])
    assert said.format(file) in str(error.value)
    with pytest.raises(DataError):
        read_list(path, read_folder(root, ["bed", "cat"])[0])


def test_a_mark_at_the_beginning_blanks_and_words_of_two_parts_do_no_harm(root):
    expected = split_files(root, ["bed", "cat"])
    path = root / "testing_list.txt"
    lines = path.read_text().splitlines()
    path.write_bytes("\r\n".join(["\ufeff" + lines[0], "", f" {lines[1]} ", *lines[2:]]).encode())
    assert split_files(root, ["bed", "cat"]) == expected
    (root / "bed").rename(root / "turn on")
    for name in ("validation", "testing"):
        text = (root / f"{name}_list.txt").read_text(encoding="utf-8-sig")
        (root / f"{name}_list.txt").write_text(text.replace("bed/", "turn on/"))
    assert len(split_files(root, all_words(root))["test"]) == 4
    assert len(read_list(root / "testing_list.txt", read_folder(root)[0])) == 4


def test_the_tasks_have_their_classes(tmp_path):
    assert [len(TASKS[k]) for k in (10, 12, 30, 35)] == [10, 12, 30, 35]
    assert TASKS[12][-3:] == ("go", "_unknown_", "_silence_")
    assert set(WORDS_V2) - set(WORDS_V1) == {"backward", "follow", "forward", "learn", "visual"}
    assert list(WORDS_V2) == sorted(WORDS_V2)
    words = [f"w{k:02d}" for k in range(12)]
    assert name_classes(None, words, False) == words
    assert name_classes(12, words, True) == [*words[:10], "_unknown_", "_silence_"]
    assert name_classes(35, words, True) == words
    assert name_classes(35, words, False) == list(WORDS_V2)
    assert name_classes(["b", "_unknown_", "a"], words, False) == ["b", "_unknown_", "a"]
    for name in ("up", ".hidden", "_background_noise_", "_silence_", "down"):
        (tmp_path / name).mkdir()
    assert list_words(tmp_path) == ["down", "up"]
    for wrong in (11, [], ["_unknown_"], ["up", "up"]):
        with pytest.raises(ConfigError, match=r"classes"):
            name_classes(wrong, words, False)


def test_unknown_is_an_average_class_of_other_words_chosen_by_the_seed(tmp_path):
    for word in ("one", "two", "red", "blue", "green"):
        (tmp_path / word).mkdir()
        for part, number in (("a", 6), ("b", 3), ("c", 2)):
            for take in range(number):
                (tmp_path / word / f"{part}_nohash_{take}.wav").touch()
    words = ("one", "two", "red", "blue", "green")
    for name, speaker, number in (("validation", "b", 3), ("testing", "c", 2)):
        lines = [f"{word}/{speaker}_nohash_{k}.wav" for word in words for k in range(number)]
        (tmp_path / f"{name}_list.txt").write_text("\n".join(lines))
    names = ["_unknown_", "one", "two", "_silence_"]
    parts = choose_files(tmp_path, names, seed=0)
    counts = {p: [sum(t == k for _, t in files) for k in range(4)] for p, files in parts.items()}
    assert counts == {"train": [6, 6, 6, 0], "val": [3, 3, 3, 0], "test": [2, 2, 2, 0]}
    unknown = {file for files in parts.values() for file, target in files if target == 0}
    assert {file.partition("/")[0] for file in unknown} <= {"red", "blue", "green"}
    assert choose_files(tmp_path, names, seed=0) == parts
    assert choose_files(tmp_path, names, seed=1) != parts
    with pytest.raises(DataError, match="no other word for _unknown_"):
        choose_files(tmp_path, [*words, "_unknown_"])


@needs_recordings
def test_the_official_task_on_real_recordings():
    root = SHARED / "speech_commands_en"
    parts = choose_files(root, TASKS[12])
    for files in parts.values():
        known = sum(target < 10 for _, target in files)
        assert sum(target == 10 for _, target in files) == -(-known // 10)


def test_folds_test_every_speaker_once_and_keep_the_parts_apart():
    own = {"train": [f"w/{n:02d}_nohash_0.wav" for n in range(7)], "val": ["w/v_nohash_0.wav", "w/u_nohash_0.wav"],
           "test": ["w/t_nohash_0.wav", "w/s_nohash_0.wav"]}  # fmt: skip
    folds = [rotate_speakers(own, fold) for fold in range(6)]  # 7 / 2 rounds to four groups: 00 04, 01 05, 02 06, 03
    by_part = [{part: {s for s, p in fold.items() if p == part} for part in ("train", "val", "test")} for fold in folds]
    assert by_part[0]["test"] == {"t", "s"}
    assert by_part[0]["val"] == {"v", "u"}
    assert [sorted(parts["test"]) for parts in by_part[1:]] == [
        ["u", "v"], ["00", "04"], ["01", "05"], ["02", "06"], ["03"],
    ]  # fmt: skip
    assert by_part[5]["val"] == {"t", "s"}
    assert all(sum(map(len, parts.values())) == 11 for parts in by_part)
    for fold in (-1, 6):
        with pytest.raises(ConfigError, match=f"data.init_args.fold is {fold}; these speakers make the folds 0 to 5"):
            rotate_speakers(own, fold)
    with pytest.raises(DataError, match="speaker t is in two parts of the set"):
        rotate_speakers({**own, "train": [*own["train"], "w/t_nohash_1.wav"]}, 1)


def test_a_fold_moves_other_words_with_their_speakers(root):
    shutil.copytree(root / "cat", root / "dog")
    for name in ("validation", "testing"):  # the hash knows the new word, too
        (root / f"{name}_list.txt").unlink()
    names = ["bed", "cat", "_unknown_"]
    assert choose_files(root, names, fold=0) == choose_files(root, names)
    tested = set()
    for fold in range(4):
        parts = choose_files(root, names, fold=fold)
        who = {part: {speaker_of(file) for file, _ in files} for part, files in parts.items()}
        assert [len(files) for files in parts.values()] == [12, 6, 6]
        assert [len(speakers) for speakers in who.values()] == [2, 1, 1]
        assert not who["train"] & (who["val"] | who["test"])
        assert not who["val"] & who["test"]
        tested |= who["test"]
    assert tested == set(SPEAKERS)


def test_a_fold_is_one_of_the_data_and_of_its_teacher(root):
    data = SpeechCommands(root=str(root), fold=2)
    assert data.split_key == {"fold": 2}
    data.prepare_data()
    data.setup("fit")
    speakers = {part: len(getattr(data, f"{part}_set")) for part in ("train", "val", "test")}
    assert speakers == {"train": 8, "val": 4, "test": 4}
    with pytest.raises(ConfigError, match="fold is 4; these speakers make the folds 0 to 3"):
        SpeechCommands(root=str(root), fold=4).prepare_data()
