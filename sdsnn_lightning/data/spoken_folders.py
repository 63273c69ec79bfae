"""Folders of spoken words in three layouts: what was said, by whom, and in which part a recording belongs.

* Speech Commands: `<word>/<speaker>_nohash_<take>.wav`, with or without the official list files.
* Free Spoken Digit Dataset: `<digit>_<speaker>_<take>.wav`, all in one folder.
* Heidelberg Digits, the audio of SHD: `lang-<language>_speaker-<n>_trial-<n>_digit-<n>.flac`, all in one folder. The
  ten English digits come first, then the ten German ones, as in SHD.

Files may be `.wav` or `.flac` in each.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sdsnn_lightning.data.speech_words import (
    DIGITS,
    LISTS,
    PARTS,
    Part,
    all_words,
    hash_part,
    is_listed_form,
    is_recording,
    list_words,
    read_lines,
    speaker_of,
)
from sdsnn_lightning.errors import ConfigError, DataError

GERMAN_DIGITS = ("null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun")
_FLAT = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_\d+\.\w+")
_HEIDELBERG = re.compile(
    r"lang-(?P<language>\w+)_speaker-(?P<speaker>\d+)_trial-\d+_digit-(?P<digit>\d)\.(?i:wav|flac)"
)
_LAYOUTS = "<word>/<speaker>_nohash_<take>, <digit>_<speaker>_<take> or lang-<l>_speaker-<n>_trial-<n>_digit-<n>"


class Recording(NamedTuple):
    """One file.

    Attributes:
        root: The folder of its set.
        file: Path below it.
        word: What is said.
        speaker: Who says it, a name that is unique within the folder.
    """

    root: Path
    file: str
    word: str
    speaker: str


def read_folder(root: Path, words: Sequence[str] | None = None) -> tuple[list[Recording], list[str]]:
    """Lists the recordings of a folder.

    Args:
        root: The folder.
        words: Words to take, in the order of their classes; by default all, digits by value and other words sorted.

    Returns:
        Recordings, sorted by path, and the words in the order of their classes.

    Raises:
        DataError: If the folder or a word is missing, it holds no recording, or a file name fits no layout.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; name the folder that holds the recordings")
    flat = sorted(path.name for path in root.iterdir() if is_recording(path.name))
    if flat:
        recordings = [_parse_flat(root, name) for name in flat]
        said = {recording.word for recording in recordings}
        found = [word for word in (*DIGITS, *GERMAN_DIGITS) if word in said]
    else:
        found = list_words(root) if words else all_words(root)
        recordings = [
            Recording(root, f"{word}/{path.name}", word, speaker_of(f"{root}/{word}/{path.name}"))
            for word in (words or found)
            if (root / word).is_dir()
            for path in sorted((root / word).iterdir())
            if is_recording(path.name)
        ]
        if not words:
            found = [word for word in found if any(recording.word == word for recording in recordings)]
    for word in words or ():
        if not any(recording.word == word for recording in recordings):
            raise DataError(f"{root} holds no recording of '{word}'; restore it, or leave the word out of --words")
    if not recordings:
        raise DataError(f"{root} holds no .wav or .flac file named {_LAYOUTS}; name another folder")
    chosen = list(words or found)
    return [recording for recording in recordings if recording.word in set(chosen)], chosen


def _parse_flat(root: Path, name: str) -> Recording:
    """Reads word and speaker out of a file name."""
    if match := _FLAT.fullmatch(name):
        return Recording(root, name, DIGITS[int(match["digit"])], match["speaker"])
    if match := _HEIDELBERG.fullmatch(name):
        words = {"english": DIGITS, "german": GERMAN_DIGITS}.get(match["language"].lower())
        if words:
            return Recording(root, name, words[int(match["digit"])], match["speaker"])
    raise DataError(f"{root / name} is named in no known way; rename it to {_LAYOUTS}, or delete it")


def has_speaker(recordings: Iterable[Recording], names: Collection[str]) -> set[str]:
    """Which of some names are speakers of these recordings; a name is `<speaker>` or `<folder>/<speaker>`."""
    present = {name for r in recordings for name in (r.speaker, f"{r.root.name}/{r.speaker}")}
    return present & set(names)


def split_recordings(
    recordings: Sequence[Recording], valid_speakers: Collection[str], test_speakers: Collection[str]
) -> dict[Part, list[Recording]]:
    """Splits the recordings of one folder such that no speaker is in two parts.

    The first rule that applies is taken: the named speakers, where one of them is in this folder; the folder's list
    files; the hash rule of Speech Commands, where the files are named as there.

    Args:
        recordings: All of one folder.
        valid_speakers: Speakers held out for validation.
        test_speakers: Speakers held out for the test.

    Returns:
        Recordings by part; a part may be empty.

    Raises:
        ConfigError: If one speaker is named for both parts.
        DataError: If no rule applies, a list file is broken or names a missing recording, or a recording is in both.
    """
    parts: dict[Part, list[Recording]] = {part: [] for part in PARTS}
    root = recordings[0].root
    lists = {part: root / name for part, name in LISTS.items()}
    if has_speaker(recordings, {*valid_speakers, *test_speakers}):
        for recording in recordings:
            valid, test = (bool(has_speaker([recording], names)) for names in (valid_speakers, test_speakers))
            if valid and test:
                raise ConfigError(f"--valid-speakers and --test-speakers both name {recording.speaker}; name it once")
            parts["val" if valid else "test" if test else "train"].append(recording)
    elif any(path.exists() for path in lists.values()):
        listed = {part: read_list(path, recordings, whole=False) for part, path in lists.items()}
        both = sorted(listed["val"] & listed["test"])
        if both:
            raise DataError(f"{lists['val']} and {lists['test'].name} both name {both[0]}; restore both files")
        for recording in recordings:
            held_out = [part for part in listed if recording.file in listed[part]]
            parts[held_out[0] if held_out else "train"].append(recording)
    elif "_nohash_" in recordings[0].file:
        for recording in recordings:
            parts[hash_part(recording.file)].append(recording)
    else:
        names = sorted({recording.speaker for recording in recordings})
        raise DataError(f"{root} has no list files; hold speakers out by --test-speakers (it has {', '.join(names)})")
    return parts


def read_list(path: Path, recordings: Sequence[Recording], whole: bool = True) -> set[str]:
    """Reads a list file, one path below the set's folder a line.

    Args:
        path: The file.
        recordings: All of the folder, as far as their words are wanted; lines of other words are passed over.
        whole: Whether the folders of those other words must be there.

    Returns:
        The paths it names among those recordings.

    Raises:
        DataError: If it cannot be read or names a recording that is missing.
    """
    try:
        lines = set(read_lines(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it") from None
    root, files = recordings[0].root, {recording.file for recording in recordings}
    words = {recording.word.lower() for recording in recordings}

    def passed_over(line: str) -> bool:
        word = line.partition("/")[0]
        return is_listed_form(line) and word.lower() not in words and not (whole and not (root / word).is_dir())

    missing = sorted(line for line in lines - files if not passed_over(line))
    if missing:
        raise DataError(f"{path} names {missing[0]}, which is missing ({len(missing)} in all); restore the recordings")
    return lines & files
