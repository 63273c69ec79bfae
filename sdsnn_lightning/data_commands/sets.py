"""`sdsnn data list`, `download` and `simulate`: which sets there are, and how they get onto the disk."""

import argparse
import time
from pathlib import Path

from sdsnn_lightning.data_commands.catalogue import SETS, find_set, how_to_get
from sdsnn_lightning.errors import ConfigError

PARTS = {"shd": ("train", "test"), "ssc": ("train", "valid", "test")}
"""The files `<set>_<part>.h5` of the sets of spikes."""

_KEYS = {"subjects": "subjects", "clips_per_class": "clips", "recordings": "recordings"}
"""Sizes of simulated sets, and what the data modules call them after `simulated_`."""


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the words and options of `list`, `download` and `simulate`.

    Args:
        commands: The commands of `sdsnn data`.
    """
    listing = commands.add_parser(
        "list",
        help="The sets, their layout, size, licence, address, and whether they are here.",
        description="List the data sets that there are modules for, and whether they are here.",
        epilog="example: sdsnn data list --data data",
    )
    listing.add_argument(
        "--data", type=Path, default=Path("data"), metavar="FOLDER", help="Folder of all sets; data by default."
    )
    listing.set_defaults(run=list_sets)

    names = f"One of {', '.join(SETS)}."
    download = commands.add_parser(
        "download",
        help="Fetch a set, check it and unpack it.",
        description="Fetch a set from its authors' server, checked against its published sum. An interrupted download "
        "goes on with the same command.",
        epilog="example: sdsnn data download shd data/shd",
    )
    download.add_argument("name", metavar="NAME", help=names)
    download.add_argument("root", metavar="ROOT", type=Path, help="Folder of the set.")
    download.add_argument(
        "--version", type=int, choices=(1, 2), help="Release of Speech Commands: 1 (30 words) or 2 (35 words, default)."
    )
    download.set_defaults(run=download_set)

    simulate = commands.add_parser(
        "simulate",
        help="Write the simulated stand-in of a set.",
        description="Write the simulated stand-in of a set, in the layout of the real one. A result on it is one on "
        "simulated data. The folder appears whole or not at all; one that is there is used again.",
        epilog="example: sdsnn data simulate see data/see-simulated --subjects 6 --clips 1",
    )
    simulate.add_argument("name", metavar="NAME", help=names)
    simulate.add_argument("root", metavar="ROOT", type=Path, help="Folder of the set.")
    simulate.add_argument("--subjects", type=int, metavar="N", help="Of see: number of subjects; 24 by default.")
    simulate.add_argument("--clips", type=int, metavar="N", help="Of see: clips of every emotion a subject; 3.")
    simulate.add_argument("--recordings", type=int, metavar="N", help="Of cifar10-dvs: recordings a class; 40.")
    simulate.set_defaults(run=simulate_set)


def list_sets(options: argparse.Namespace) -> None:
    """Runs `sdsnn data list`.

    Args:
        options: See `add_parsers`.
    """
    for name, found in SETS.items():
        root, simulated = (options.data / path.name for path in (found.root, found.simulated))
        here = f"found in {root}" if root.is_dir() else f"not in {root}; {how_to_get(name, root)}"
        rows = {
            "what": found.what,
            "layout": found.layout,
            "size": found.size,
            "licence": found.licence,
            "address": found.address,
            "module": f"sdsnn_lightning.data.{found.module}",
            "here": here,
            "simulated": f"found in {simulated}" if simulated.is_dir() else f"sdsnn data simulate {name} {simulated}",
        }
        print(name)
        for key, value in rows.items():
            print(f"  {key:<10}{value}")


def download_set(options: argparse.Namespace) -> None:
    """Runs `sdsnn data download`.

    Args:
        options: See `add_parsers`.

    Raises:
        ConfigError: If there is no such set, or no address that it could be fetched from.
        DataError: If it cannot be fetched, is not what was published, or cannot be written.
    """
    if not find_set(options.name).fetched:
        raise ConfigError(
            f"{options.name} cannot be fetched by a program: {how_to_get(options.name, options.root)}; "
            f"or simulate a stand-in: sdsnn data simulate {options.name} {find_set(options.name).simulated}"
        )
    if options.version is not None and options.name != "speech-commands":
        raise ConfigError(f"--version is for speech-commands and the set is {options.name}; take it out")
    if options.name == "speech-commands":
        from sdsnn_lightning.data.speech_download import download_speech_commands

        if options.root.exists():
            print(f"{options.root} is there already; to check it: sdsnn data verify {options.name} {options.root}")
            return
        download_speech_commands(options.root, 1 if options.version == 1 else 2)
    else:
        from sdsnn_lightning.data.spike_archives import fetch_spikes

        for part in PARTS[options.name]:
            fetch_spikes(options.root / f"{options.name}_{part}.h5")
    print(f"{options.root}: {find_set(options.name).what}")
    print(f"to check every file: sdsnn data verify {options.name} {options.root}")


def simulate_set(options: argparse.Namespace) -> None:
    """Runs `sdsnn data simulate`.

    Args:
        options: See `add_parsers`.

    Raises:
        ConfigError: If there is no such set, or an option is of another one or out of its range.
        DataError: If the folder holds something else, or cannot be written.
    """
    find_set(options.name)
    for key, of in (("subjects", "see"), ("clips", "see"), ("recordings", "cifar10-dvs")):
        if getattr(options, key) is not None and options.name != of:
            raise ConfigError(f"--{key} is for {of} and the set is {options.name}; take it out")
    began, root = time.monotonic(), options.root
    sizes = {
        "subjects": options.subjects,
        "clips_per_class": options.clips,
        "recordings": options.recordings,
    }
    chosen = {key: value for key, value in sizes.items() if value is not None}
    if options.name == "see":
        from sdsnn_lightning.simulate.eye import write_simulated_see

        write_simulated_see(root, **chosen)
    elif options.name == "speech-commands":
        from sdsnn_lightning.simulate.speech import write_simulated_commands

        write_simulated_commands(root)
    elif options.name == "cifar10-dvs":
        from sdsnn_lightning.simulate.shapes import write_simulated_recordings

        write_simulated_recordings(root, **chosen)
    else:
        from sdsnn_lightning.simulate.spiking_speech import write_simulated_spikes

        write_simulated_spikes(root, options.name)
    files = [path for path in root.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"{root}: simulated {options.name}, {len(files)} files, {size:.1f} MB, {time.monotonic() - began:.0f} s")
    words = [f"--data.init_args.simulated_root {root}"]
    words += [
        f"--data.init_args.simulated_{_KEYS[key]} {value}" for key, value in chosen.items()
    ]  # else it is replaced
    print(f"results on it say data_source: simulated; a run takes it by {' '.join(words)}")
