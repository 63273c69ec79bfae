"""The data sets that the package has a module for: what `sdsnn data list` and `sdsnn doctor` say about them."""

from pathlib import Path
from typing import NamedTuple

from sdsnn_lightning.errors import ConfigError


class DataSet(NamedTuple):
    """Facts of one set.

    Attributes:
        module: Its class in `sdsnn_lightning.data`.
        what: What it holds.
        layout: Its files, below its folder.
        size: Its size as published.
        licence: Under which terms it is given out.
        address: Where it comes from.
        root: Folder where the experiments look for it.
        simulated: Folder of its stand-in.
        fetched: Whether `sdsnn data download` fetches it.
    """

    module: str
    what: str
    layout: str
    size: str
    licence: str
    address: str
    root: Path
    simulated: Path
    fetched: bool


SETS = {
    "see": DataSet(
        "SingleEye",
        "SEE: clips of one eye, frames and events, seven emotions (Zhang et al., SIGGRAPH 2023)",
        "event/<label>/<clip>/00000.jpg, frame/<label>/<clip>/00000.jpg, emotion.json",
        "2,405 clips of 111 volunteers",
        "research, on application to its authors",
        "https://arxiv.org/abs/2310.04043 names the authors to ask",
        Path("data/SEE"),
        Path("data/see-simulated"),
        False,
    ),
    "shd": DataSet(
        "SpikingHeidelberg",
        "Spiking Heidelberg Digits: digits in two languages as spikes (Cramer et al., 2020), or any set in its layout",
        "shd_train.h5, shd_test.h5, or with another data.init_args.prefix",
        "8,156 and 2,264 recordings of 12 speakers",
        "CC BY 4.0",
        "https://zenkelab.org/datasets/",
        Path("data/shd"),
        Path("data/shd-simulated"),
        True,
    ),
    "ssc": DataSet(
        "SpikingSpeechCommands",
        "Spiking Speech Commands: 35 words as spikes (Cramer et al., 2020)",
        "ssc_train.h5, ssc_valid.h5, ssc_test.h5",
        "75,466, 9,981 and 20,382 recordings",
        "CC BY 4.0",
        "https://zenkelab.org/datasets/",
        Path("data/ssc"),
        Path("data/ssc-simulated"),
        True,
    ),
    "speech-commands": DataSet(
        "SpeechCommands",
        "Speech Commands: one spoken word a recording (Warden, 2018), or any set in its layout",
        "<word>/<speaker>_nohash_<take>.wav or .flac, validation_list.txt, testing_list.txt",
        "105,829 recordings, 2.4 GB to fetch; version 1: 64,727, 1.5 GB",
        "CC BY 4.0",
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        Path("data/speech_commands"),
        Path("data/speech-commands-simulated"),
        True,
    ),
    "cifar10-dvs": DataSet(
        "CIFAR10DVS",
        "CIFAR10-DVS: event recordings of moving images (Li et al., 2017), or any recordings by class",
        "<class>/<name>.aedat, .aedat4, .mat, .npz or .npy",
        "10,000 recordings of ten classes",
        "see its page",
        "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671, one archive a class, unpacked by hand",
        Path("data/CIFAR10-DVS"),
        Path("data/cifar10-dvs-simulated"),
        False,
    ),
}
"""The sets by the name that the commands take."""


def find_set(name: str) -> DataSet:
    """The facts of a set.

    Args:
        name: One of `SETS`.

    Raises:
        ConfigError: If there is none of that name.
    """
    if name not in SETS:
        raise ConfigError(f"there is no data set '{name}'; NAME is one of {', '.join(SETS)}")
    return SETS[name]


def how_to_get(name: str, root: Path) -> str:
    """What to do where a set is not there.

    Args:
        name: One of `SETS`.
        root: Where it should be.
    """
    found = find_set(name)
    if found.fetched:
        return f"sdsnn data download {name} {root}"
    return f"put it there ({found.address})"


def set_of_module(module: str) -> str | None:
    """The name of the set that a data module reads.

    Args:
        module: Name of the class, with or without its package.

    Returns:
        One of `SETS`; None for any other class.
    """
    return next((name for name, found in SETS.items() if found.module == module.rpartition(".")[2]), None)
