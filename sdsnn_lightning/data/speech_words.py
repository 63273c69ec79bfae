"""Which recordings of a Speech Commands folder are in which part, and of which class.

Parts follow the set's list files, or its hash rule without any; both keep a speaker within one part. Classes are words,
`_unknown_` (any other word) and `_silence_` (background noise). Warden, 2018 (arXiv 1804.03209), sections 6 and 7.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sdsnn_lightning.errors import ConfigError, DataError

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")

LISTS: dict[Part, str] = {"val": "validation_list.txt", "test": "testing_list.txt"}
BACKGROUND = "_background_noise_"
UNKNOWN, SILENCE = "_unknown_", "_silence_"
COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The words of the 10- and the 12-class task."""
_NEW_IN_V2 = ("backward", "follow", "forward", "learn", "visual")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_OTHERS = ("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow")
WORDS_V1 = tuple(sorted((*COMMANDS, *DIGITS, *_OTHERS)))
WORDS_V2 = tuple(sorted((*WORDS_V1, *_NEW_IN_V2)))
TASKS: dict[int, tuple[str, ...]] = {10: COMMANDS, 12: (*COMMANDS, UNKNOWN, SILENCE), 30: WORDS_V1, 35: WORDS_V2}
"""Class names by the number of classes: the task of ten commands, with the two extra classes, all of v1, all of v2."""
_MAX_PER_CLASS = 2**27 - 1  # the constant of the official rule


def hash_part(file: str, val_percent: float = 10.0, test_percent: float = 10.0) -> Part:
    """Assigns a recording to a part by the official rule of Speech Commands: by a hash of its speaker.

    Warden, 2018 (arXiv 1804.03209), section 6 and `which_set` in the data set's README: SHA-1 of the file name before
    `_nohash_`, so that a speaker's recordings stay together and adding recordings moves no other one.

    Args:
        file: `<word>/<speaker>_nohash_<take>.wav`, or the name alone.
        val_percent: Share of the validation part.
        test_percent: Share of the test part.

    Returns:
        `train`, `val` or `test`.
    """
    number = int(hashlib.sha1(speaker_of(file).encode()).hexdigest(), 16)
    percent = number % (_MAX_PER_CLASS + 1) * (100.0 / _MAX_PER_CLASS)
    if percent < val_percent:
        return "val"
    return "test" if percent < val_percent + test_percent else "train"


def speaker_of(file: str) -> str:
    """The speaker in `<word>/<speaker>_nohash_<take>.wav`.

    Raises:
        DataError: If the name has no `_nohash_`.
    """
    speaker, found, _ = file.rsplit("/", 1)[-1].partition("_nohash_")
    if not found or not speaker:
        raise DataError(f"{file} names no speaker; rename it to <word>/<speaker>_nohash_<take>.wav or delete it")
    return speaker


def is_recording(name: str) -> bool:
    """Whether a file of this name holds sound; what macOS leaves beside it, `._name.wav`, does not."""
    return name.lower().endswith((".wav", ".flac")) and not name.startswith(".")


def list_words(root: Path) -> list[str]:
    """The word folders of a set, sorted; hidden folders and those of no word (`_background_noise_`) are left out."""
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] not in "._")


def all_words(root: Path) -> list[str]:
    """The word folders of a set, as `list_words`; none that its list files know may be missing.

    Raises:
        DataError: If a list file cannot be read, or names recordings of a word that has no folder.
    """
    words = list_words(root)
    for path in (root / name for name in LISTS.values()):
        named = {line.partition("/")[0] for line in _listed(path)} if path.exists() else set()
        if words and (missing := sorted(named - set(words))):
            raise DataError(
                f"{root / missing[0]} does not exist, but {path.name} names recordings of it; restore the folder, or "
                "name the words to take"
            )
    return words


def name_classes(classes: int | Sequence[str] | None, words: Sequence[str], simulated: bool) -> list[str]:
    """The class names of a task, in index order.

    Args:
        classes: Number of classes of an official task (10, 12, 30 or 35), or names of words, `_unknown_` and
            `_silence_`, or None for all words.
        words: The words of the set.
        simulated: Whether the set is the simulated one, whose words are others: its first ten then stand for the ten
            commands, and all of them for the 30 and 35 words.

    Returns:
        Class names.

    Raises:
        ConfigError: If there is no task of so many classes, a class is named twice, or there is no word among them.
    """
    if isinstance(classes, int) and classes not in TASKS:
        raise ConfigError(f"data.init_args.classes is {classes}; set it to 10, 12, 30, 35 or a list of words")
    if classes is None or (simulated and classes in (30, 35)):
        return list(words)
    if isinstance(classes, int):
        names = [*words[:10], *TASKS[classes][10:]] if simulated else list(TASKS[classes])
    else:
        names = list(classes)
    if len(set(names)) < len(names) or not set(names) - {UNKNOWN, SILENCE}:
        raise ConfigError(f"data.init_args.classes is {names}; name at least one word, and no class twice")
    return names


def split_files(root: Path, words: Sequence[str]) -> dict[Part, list[str]]:
    """Finds all recordings of some words and splits them by the set's list files, or by the official hash without any.

    Args:
        root: Holds `<word>/<speaker>_nohash_<take>.wav` (or `.flac`), and perhaps both official list files.
        words: Names of the word folders.

    Returns:
        Paths below `root` in the training, validation and test part, sorted.

    Raises:
        DataError: If a word or a listed recording is missing, a name has no speaker, only one list is there, a
            recording stands in both, or a part is empty.
    """
    files = []
    for word in words:
        if not (root / word).is_dir():
            raise DataError(f"{root / word} does not exist; restore the folder or change data.init_args.classes")
        found = sorted(name for name in os.listdir(root / word) if is_recording(name))
        if not found:
            raise DataError(f"{root / word} holds no .wav or .flac file; restore the folder")
        files += [f"{word}/{name}" for name in found]
    for file in files:
        speaker_of(file)

    parts: dict[Part, list[str]] = {part: [] for part in PARTS}
    if any((root / name).exists() for name in LISTS.values()):
        listed = {part: _read_list(root / name, words, set(files)) for part, name in LISTS.items()}
        both = sorted(listed["val"] & listed["test"])
        if both:
            raise DataError(f"{root / LISTS['test']} and {LISTS['val']} both name {both[0]}; restore both files")
        for file in files:
            parts["val" if file in listed["val"] else "test" if file in listed["test"] else "train"].append(file)
    else:
        for file in files:
            parts[hash_part(file)].append(file)
    for part, chosen in parts.items():
        if not chosen and part in LISTS and (root / LISTS[part]).exists():
            raise DataError(
                f"{root / LISTS[part]} names none of these words, so no recording is left for the {part} part; "
                "restore the file"
            )
        if not chosen:
            raise DataError(f"{root}: no recording is left for the {part} part; restore the set or its list files")
    return parts


def _read_list(path: Path, words: Sequence[str], files: set[str]) -> set[str]:
    """Reads one official list file, as far as it is about these words, and checks that its recordings are there."""
    lines, folders = _listed(path), {word.lower(): word for word in words}
    for word in sorted({line.partition("/")[0] for line in lines} - set(words)):
        if word.lower() in folders:  # or its recordings would train
            raise DataError(f"{path} says '{word}' where the folder is '{folders[word.lower()]}'; make them equal")
    named = {line for line in lines if line.partition("/")[0] in words}
    missing = sorted(named - files)
    if missing:
        raise DataError(f"{path} names {missing[0]}, which is missing ({len(missing)} in all); restore the recordings")
    return named


def _listed(path: Path) -> list[str]:
    """The recordings `<word>/<file>` in a list file; a line of another form would leave its recording to another part.

    Raises:
        DataError: If it cannot be read, or a line is no recording.
    """
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); restore it, or delete {' and '.join(LISTS.values())} to split by hash"
        ) from None
    for line in lines:
        if not is_listed_form(line):
            raise DataError(f"{path} holds the line '{line}', which is not <word>/<recording>; restore the file")
    return lines


def is_listed_form(line: str) -> bool:
    """Whether a line of a list file has the form `<word>/<recording>`."""
    word, _, name = line.partition("/")
    return bool(word.strip(".")) and "/" not in name and is_recording(name)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, without blanks around them and a byte-order mark."""
    return [text for line in path.read_text(encoding="utf-8-sig").splitlines() if (text := line.strip())]


def average_class(recordings: int, words: int) -> int:
    """Recordings of an average word, rounded up: the size of `_unknown_` and of `_silence_` in a part."""
    return math.ceil(recordings / words)


def rotate_speakers(parts: dict[Part, list[str]], fold: int) -> dict[str, Part]:
    """The parts of another fold of a cross-validation over speakers: every speaker is tested in one of the folds.

    The test speakers, the validation speakers and the training speakers, these dealt in order into groups about as
    large as the test part, form a ring. Fold k tests the k-th group and validates on the next one; fold 0 is the set's
    own split. Ours.

    Args:
        parts: Recordings by part of the set's own split.
        fold: Which group to test.

    Returns:
        Part of every speaker.

    Raises:
        ConfigError: If there is no such fold.
        DataError: If a speaker is in two parts, so that speakers cannot change places.
    """
    speakers = {part: sorted({speaker_of(file) for file in files}) for part, files in parts.items()}
    own = {speaker: part for part, names in speakers.items() for speaker in names}
    for part, names in speakers.items():
        if twice := [speaker for speaker in names if own[speaker] != part]:
            raise DataError(f"speaker {twice[0]} is in two parts of the set, which rules folds out; leave fold at 0")
    count = max(1, round(len(speakers["train"]) / len(speakers["test"])))
    groups = [speakers["test"], speakers["val"], *(speakers["train"][k::count] for k in range(count))]
    if not 0 <= fold < len(groups):
        raise ConfigError(f"data.init_args.fold is {fold}; these speakers make the folds 0 to {len(groups) - 1}")
    held: dict[str, Part] = dict.fromkeys(groups[(fold + 1) % len(groups)], "val")
    held |= dict.fromkeys(groups[fold], "test")
    return {speaker: held.get(speaker, "train") for speaker in own}


def _regroup(parts: dict[Part, list[str]], places: dict[str, Part]) -> dict[Part, list[str]]:
    """The same recordings, sorted, by the part of their speaker."""
    moved: dict[Part, list[str]] = {part: [] for part in PARTS}
    for file in sorted(file for files in parts.values() for file in files):
        moved[places[speaker_of(file)]].append(file)
    return moved


def choose_files(
    root: Path, class_names: Sequence[str], seed: int = 0, fold: int = 0
) -> dict[Part, list[tuple[str, int]]]:
    """The recordings of every part with their class index; `_silence_` has no recordings and is left out.

    `_unknown_` holds as many recordings of other words as an average word has, which for ten commands is the 10 % of
    the official training code. They are chosen once, as there, and not anew every epoch: those with the smallest
    hash of seed and name, so that every machine chooses the same and a missing recording moves no other.

    Args:
        root: Folder of the set.
        class_names: Words and perhaps `_unknown_`, in index order.
        seed: Chooses the recordings of other words.
        fold: Fold of a cross-validation over speakers (see `rotate_speakers`); 0 is the set's own split.

    Returns:
        `(path below root, class index)` by part.

    Raises:
        ConfigError: If there is no such fold.
        DataError: If the set is incomplete (see `split_files`), or has no other word.
    """
    known = [name for name in class_names if name not in (UNKNOWN, SILENCE)]
    indices = {name: index for index, name in enumerate(class_names)}
    parts, unknown = split_files(root, known), {}
    if UNKNOWN in indices:
        others = sorted(set(list_words(root)) - set(known))
        if not others:
            raise DataError(f"{root} holds no other word for {UNKNOWN}; take it out of data.init_args.classes")
        unknown = split_files(root, others)
    if fold:
        places = rotate_speakers({part: files + unknown.get(part, []) for part, files in parts.items()}, fold)
        parts, unknown = _regroup(parts, places), _regroup(unknown, places)
    chosen = {part: [(file, indices[file.partition("/")[0]]) for file in files] for part, files in parts.items()}
    for part, files in unknown.items():
        files.sort(key=lambda file: hashlib.sha1(f"{seed}:{file}".encode()).hexdigest())
        few = sorted(files[: average_class(len(parts[part]), len(known))])
        chosen[part] += [(file, indices[UNKNOWN]) for file in few]
    return chosen
