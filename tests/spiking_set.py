"""A small set of spike trains in the layout of SHD, written on the fly."""

import numpy as np

from sdsnn_lightning.data import SpikingHeidelberg
from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file

WORDS = ["zero", "one", "null", "eins"]
PART = {"train": (0, 1, 2, 3), "valid": (6, 7), "test": (4, 5, 0)}


def write(root, part="train", prefix="shd", words=WORDS, takes=3, seed=0):
    """Every speaker of a part says every word a few times: 20 to 59 spikes on any channel, within 100 to 400 ms."""
    rng = np.random.default_rng(seed)
    samples = []
    for speaker in PART[part]:
        for label, word in enumerate(words):
            for _ in range(takes):
                count = int(rng.integers(20, 60))
                times = np.sort(rng.random(count)) * rng.uniform(0.1, 0.4)
                samples.append(SpikeSample(times, rng.integers(0, 700, count), label, speaker, word))
    write_spike_file(root / f"{prefix}_{part}.h5", samples, words)
    return samples


def write_set(root):
    """The training and the test part; gives the folder."""
    write(root)
    write(root, "test", takes=2)
    return root


def module(root, kind=SpikingHeidelberg, **args):
    """The module, ready to train."""
    data = kind(root=str(root), source="real", **{"batch_size": 8, **args})
    data.prepare_data()
    data.setup("fit")
    return data
