"""`sdsnn data to-spikes`: turns folders of spoken words into spike files."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdsnn_lightning.cores import usable_cores
from sdsnn_lightning.data_commands.spike_conversion import Tally, convert
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.progress import watched
from sdsnn_lightning.whole import folder_aside

EPILOG = """examples:
  one file of all recordings, sorted by path:
    sdsnn data to-spikes data/speech_commands words.h5
  a set with training, validation and test file, split by the list files or the hash rule of Speech Commands:
    sdsnn data to-spikes data/speech_commands data/commands-spikes --prefix ssc
  SHD's test speakers from the Heidelberg Digits audio:
    sdsnn data to-spikes data/hd_audio/audio data/hd-spikes --prefix shd --test-speakers 04,05
  FAD-spikes, two languages and 20 classes: English digits 0-9 with one speaker held out for validation and one for the
  test, Arabic digits 10-19 by that set's list files, both with the bandwidth of 8 kHz:
    sdsnn data to-spikes data/fsdd data/speech_commands_ar data/fad --digits --sample-rate 8000 \\
      --valid-speakers theo --test-speakers yweweler
"""
FILE_PARTS = {"train": "train", "val": "valid", "test": "test"}
"""Part of a split to the word in the file's name, as in SSC."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the words and options of `to-spikes`.

    Args:
        commands: The commands of `sdsnn data`.
    """
    spikes = commands.add_parser(
        "to-spikes",
        help="Spoken words to spike files in the layout of SHD.",
        description="Turn recordings of spoken words into spike trains of a simulated cochlea (700 channels, unit 0 "
        "the highest frequency), in HDF5 files in the layout of the Spiking Heidelberg Digits.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    spikes.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="Recordings: <word>/<speaker>_nohash_<take>, <digit>_<speaker>_<take> or the names of the Heidelberg "
        "Digits; .wav or .flac. The words of a second folder become further classes.",
    )
    spikes.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="OUT.h5 for one file, or a folder for <prefix>_train, _valid and _test.h5.",
    )
    spikes.add_argument("--prefix", help="First part of the file names in the folder OUT; its name by default.")
    spikes.add_argument("--list", type=Path, help="Convert only the recordings a text file names; with OUT.h5.")
    spikes.add_argument("--words", type=_names, help="Words to take of every folder, in the order of their classes.")
    spikes.add_argument("--digits", action="store_true", help="The same as --words zero,one,...,nine.")
    spikes.add_argument("--merge", action="store_true", help="Equal words of two folders are one class.")
    spikes.add_argument("--valid-speakers", type=_names, default=[], metavar="A,B", help="Held out for validation.")
    spikes.add_argument("--test-speakers", type=_names, default=[], metavar="A,B", help="Held out for the test.")
    spikes.add_argument("--sample-rate", type=int, metavar="HZ", help="Resample every recording to this rate first.")
    spikes.add_argument("--workers", type=int, default=usable_cores(), help="Threads; one for every core by default.")
    spikes.add_argument("--overwrite", action="store_true", help="Replace files that exist.")
    spikes.set_defaults(run=to_spikes)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def to_spikes(options: argparse.Namespace) -> None:
    """Runs `sdsnn data to-spikes`. Files appear together, when all are whole.

    Args:
        options: See `add_parser`.

    Raises:
        ConfigError: If options contradict each other.
        DataError: If recordings are missing or broken, or a file exists or cannot be written.
    """
    from sdsnn_lightning.data.speech_words import DIGITS
    from sdsnn_lightning.data.spoken_folders import has_speaker, read_folder, read_list, split_recordings

    single = options.out.suffix.lower() in (".h5", ".hdf5")
    _check(options, single)
    held_out = {*options.valid_speakers, *options.test_speakers}
    words = list(DIGITS) if options.digits else options.words
    folders = [read_folder(folder, words) for folder in options.folders]
    unknown = held_out - set().union(*(has_speaker(recordings, held_out) for recordings, _ in folders))
    if unknown:
        raise ConfigError(f"nobody is called {min(unknown)} in these folders; mend --valid-speakers or --test-speakers")
    said = [(root, found) for root, (_, found) in zip(options.folders, folders, strict=True)]
    class_names, labels = number_words(said, options.merge)
    speakers: dict[tuple[int, str], int] = {}
    parts: dict[str, list[tuple[Path, int, int]]] = {}
    for number, (recordings, _) in enumerate(folders):
        for name in sorted({recording.speaker for recording in recordings}):
            speakers[number, name] = len(speakers)
        if single:
            wanted = read_list(options.list, recordings) if options.list else {r.file for r in recordings}
            split = {"": [recording for recording in recordings if recording.file in wanted]}
        else:
            by_part = split_recordings(recordings, options.valid_speakers, options.test_speakers)
            split = {FILE_PARTS[part]: chosen for part, chosen in by_part.items()}
        for part, chosen in split.items():
            parts.setdefault(part, []).extend(
                (r.root / r.file, labels[number, r.word], speakers[number, r.speaker]) for r in chosen
            )
    if single:
        files, names = {options.out: parts[""]}, [options.out]
        if not parts[""]:
            raise DataError(f"{options.list} names no recording of {options.folders[0]}; give another list")
    else:
        for part in ("train", "test"):
            if not parts[part]:
                raise DataError(f"no recording is left for {part}; name other speakers or restore the list files")
        prefix = options.prefix or options.out.resolve().name
        names = [options.out / f"{prefix}_{part}.h5" for part in FILE_PARTS.values()]
        files = {options.out / f"{prefix}_{part}.h5": chosen for part, chosen in parts.items() if chosen}
    old = [file for file in names if file.exists()]  # of a part, too, that this split does not have
    if old and not options.overwrite:
        raise DataError(f"{old[0]} exists; delete it, name another output, or give --overwrite")
    _convert_all(files, old, class_names, options)


def _check(options: argparse.Namespace, single: bool) -> None:
    """Refuses options that contradict each other."""
    if options.words and options.digits:
        raise ConfigError("--words and --digits both choose words; give one of them")
    if single and (options.valid_speakers or options.test_speakers or options.prefix):
        raise ConfigError(f"{options.out} is one file; name a folder to get the parts of a split")
    if options.prefix and Path(options.prefix).name != options.prefix:
        raise ConfigError(f"--prefix is {options.prefix}; give the beginning of a file name, without a folder")
    if single and options.out.is_dir():
        raise ConfigError(f"{options.out} is a folder, but its name is that of one file; name another output")
    if options.list and (not single or len(options.folders) > 1):
        raise ConfigError("--list goes with one folder and an output that ends in .h5; mend the command")
    if options.sample_rate is not None and not 1000 <= options.sample_rate <= 192000:
        raise ConfigError(f"--sample-rate is {options.sample_rate} Hz; give 1000 to 192000")
    if options.workers < 1:
        raise ConfigError(f"--workers is {options.workers}; give at least 1")
    names = [folder.resolve().name for folder in options.folders]
    if len(set(names)) < len(names):
        raise ConfigError(f"two folders are called {max(names, key=names.count)}; give them different names")


def number_words(
    folders: Sequence[tuple[Path, Sequence[str]]], merge: bool
) -> tuple[list[str], dict[tuple[int, str], int]]:
    """Numbers the words of several folders.

    Args:
        folders: Every folder with its words in order.
        merge: Whether equal words of two folders are one class; else every folder has classes of its own.

    Returns:
        Class names, which carry the folder's name where two folders have an equal word; and the class index by number
        of the folder and word.
    """
    every = Counter(word for _, words in folders for word in words)
    class_names: list[str] = []
    labels = {}
    for number, (folder, words) in enumerate(folders):
        for word in words:
            name = word if merge or every[word] == 1 else f"{folder.resolve().name}/{word}"
            if name not in class_names:
                class_names.append(name)
            labels[number, word] = class_names.index(name)
    return class_names, labels


def _convert_all(
    files: dict[Path, list[tuple[Path, int, int]]],
    old: Sequence[Path],
    class_names: Sequence[str],
    options: argparse.Namespace,
) -> None:
    """Converts into a folder aside, then replaces the old files, and says what was done."""
    from sdsnn_lightning.data.spike_files import write_spike_file

    began = time.monotonic()
    tallies = {file: Tally() for file in files}
    first = next(iter(files))
    folder = first.parent
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with folder_aside(first) as aside:
            for file, recordings in files.items():
                samples = convert(recordings, class_names, options.sample_rate, options.workers, tallies[file])
                shown = watched(samples, file.name, len(recordings))
                write_spike_file(aside / file.name, shown, class_names)
                if not tallies[file].spikes:
                    raise DataError(f"{recordings[0][0]} and all others for {file.name} are silent; record them anew")
            # Not before all are good. The first is replaced in one step; the other old parts go before that, so that a
            # kill never leaves parts of two splits.
            for file in old:
                if file != first:
                    file.unlink(missing_ok=True)
            for file in files:
                os.replace(aside / file.name, file)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}); name another output") from None
    finally:
        if new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    _report(files, tallies, len(class_names), options.sample_rate, time.monotonic() - began)


def _report(
    files: dict[Path, list[tuple[Path, int, int]]],
    tallies: dict[Path, Tally],
    classes: int,
    sample_rate: int | None,
    took: float,
) -> None:
    """Says what was converted, and what was written."""
    rates: Counter[int] = sum((tally.rates for tally in tallies.values()), Counter())
    mixed = sum(tally.mixed for tally in tallies.values())
    other = sorted(rate for rate in rates if sample_rate and rate != sample_rate)
    silent = [path for tally in tallies.values() for path in tally.silent]
    if mixed:
        print(f"note: mixed {mixed} recordings of several channels to one", file=sys.stderr)
    if other:
        number, names = sum(rates[rate] for rate in other), ", ".join(str(rate) for rate in other)
        print(f"note: resampled {number} recordings from {names} to {sample_rate} Hz", file=sys.stderr)
    if not sample_rate and len(rates) > 1:
        print(
            f"warning: recordings have {' and '.join(str(rate) for rate in sorted(rates))} Hz: a network can tell them "
            f"apart by their bandwidth; --sample-rate {min(rates)} makes them alike",
            file=sys.stderr,
        )
    if silent:
        print(f"warning: left out {len(silent)} recordings without a spike, first {silent[0]}", file=sys.stderr)
    for file, recordings in files.items():
        spikes, seconds = np.array(tallies[file].spikes), np.array(tallies[file].seconds)
        print(
            f"{file}: {len(spikes)} recordings, {classes} classes, {len({speaker for _, _, speaker in recordings})} "
            f"speakers, {spikes.mean():.0f} spikes ({spikes.min()} to {spikes.max()}) and {seconds.mean():.2f} s "
            f"({seconds.min():.2f} to {seconds.max():.2f}) a recording, {file.stat().st_size / 1e6:.1f} MB"
        )
    total = sum(sum(tally.seconds) for tally in tallies.values())
    print(f"{total:.0f} s of sound in {took:.0f} s, {total / took:.0f} times faster than real time")
