"""Who trains, validates and tests in spiking speech, and that results say so."""

import json

import h5py
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from spiking_set import PART, module, write, write_set

from sdsnn_lightning.callbacks import RunRecord
from sdsnn_lightning.classifier import Classifier
from sdsnn_lightning.data import SpikingHeidelberg, SpikingSpeechCommands
from sdsnn_lightning.data.utterances import hold_out_speakers, languages
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.reports.collect import Run
from sdsnn_lightning.types import Output


@pytest.fixture
def root(tmp_path):
    return write_set(tmp_path / "set")


def speakers(part):
    return sorted(set(part.cache.speakers[part.rows].tolist()))


def test_validation_speakers_are_no_training_speakers(root):
    data = module(root)
    assert data.protocol == "speakers"
    assert data.split_key == {"prefix": "shd", "validation": "speakers", "val_speakers": None}
    assert speakers(data.val_set) == [0]  # 15 % of four, at least one
    assert speakers(data.train_set) == [1, 2, 3]
    assert len(data.train_set) + len(data.val_set) == 48
    chosen = module(root, val_speakers=[1, 3])
    assert speakers(chosen.val_set) == [1, 3]
    assert speakers(chosen.train_set) == [0, 2]
    assert chosen.split_key["val_speakers"] == [1, 3]
    # Speaker 0 of the test part was trained on only where not held out.
    assert sum(sample["speaker"] == 0 for sample in chosen.test_set) == 8
    assert sum(sample["speaker"] == 0 for sample in data.test_set) == 0


def test_the_protocol_of_the_papers_tags_the_run(root):
    with pytest.warns(UserWarning, match="protocol: test"):
        data = module(root, validation="test")
    assert data.protocol == "test"
    assert len(data.train_set) == 48
    assert len(data.val_set) == len(data.test_set) == 24
    assert data.split_key["validation"] == "test"


class Count(torch.nn.Module):
    """Counts the spikes of every channel over real frames, then a linear layer."""

    inputs = ("spikes", "mask")

    def __init__(self, num_classes):
        super().__init__()
        self.head = torch.nn.Linear(140, num_classes)

    def forward(self, spikes, mask):
        return Output(self.head((spikes * mask[..., None]).sum(0)), {})

    def readout(self, logits):
        return logits


@pytest.mark.parametrize("protocol", ["speakers", "test"])
def test_results_say_what_picked_the_checkpoint(root, tmp_path, protocol):
    data = SpikingHeidelberg(root=str(root), validation=protocol, batch_size=16)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[RunRecord(tmp_path)],
    )
    trainer.fit(Classifier(Count, 4, torch.optim.AdamW), data)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["protocol"] == protocol
    picked = ", picked on test" if protocol == "test" else ""
    assert Run(tmp_path, "count", results).source == f"SpikingHeidelberg (real{picked})"
    assert {"val/speaker/unseen", "val/language/English", "val/language/German"} <= set(trainer.callback_metrics)


def test_a_validation_file_is_used_where_asked(root):
    with pytest.raises(DataError, match=r"shd_valid.h5 does not exist; put it there or set"):
        module(root, validation="file")
    write(root, "valid")
    data = module(root, validation="file")
    assert data.protocol == "file"
    assert speakers(data.val_set) == [6, 7]
    assert len(data.train_set) == 48
    with pytest.raises(ConfigError, match="val_speakers"):
        module(root, validation="file", val_speakers=[1])


def test_speech_commands_have_three_files(tmp_path):
    for part in PART:
        write(tmp_path, part, "ssc", ["yes", "no"])
    data = module(tmp_path, SpikingSpeechCommands)
    assert data.protocol == "file"
    assert data.class_names == ["yes", "no"]
    assert data.groups == {}
    assert [speakers(part) for part in (data.train_set, data.val_set, data.test_set)] == [
        [0, 1, 2, 3],
        [6, 7],
        [0, 4, 5],
    ]
    assert (data.time_mask, data.neuron_mask) == (0.1, 10)


def test_a_set_that_does_not_say_who_speaks(root):
    for part in ("train", "test"):
        with h5py.File(root / f"shd_{part}.h5", "a") as file:
            del file["extra"]
    with pytest.raises(DataError, match="so none can be held out; set validation: file or test"):
        module(root)
    data = module(root, validation="test")
    assert data.class_names == ["0", "1", "2", "3"]
    assert data.groups == {}


def test_hold_out_speakers():
    everybody = np.repeat(np.arange(10), 4)
    assert hold_out_speakers(everybody, np.tile(np.arange(4), 10)) == [0, 1]  # 15 % of ten
    # 0 to 2 say words 0 and 1, 7 to 9 say words 2 and 3: one of either kind.
    two = np.array([0, 0, 1, 1, 2, 2, 7, 7, 8, 8, 9, 9])
    assert hold_out_speakers(two, np.array([0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3])) == [0, 7]
    # Only speaker 3 says word 1.
    assert hold_out_speakers(np.array([2, 3, 3, 5]), np.array([0, 0, 1, 0])) == [2]
    assert hold_out_speakers(np.array([3, 3]), np.array([0, 1])) == []


def test_nobody_to_hold_out(tmp_path, monkeypatch):
    monkeypatch.setitem(PART, "train", (3,))
    write(tmp_path)
    write(tmp_path, "test")
    with pytest.raises(DataError, match="no speaker can be held out"):
        module(tmp_path)
    with pytest.raises(ConfigError, match=r"choose some, not all, of the speakers \[3\]"):
        module(tmp_path, val_speakers=[3])
    with pytest.raises(ConfigError, match=r"val_speakers is \[8\]"):
        module(tmp_path, val_speakers=[8])


def test_languages():
    assert languages(["zero", "nine", "null", "fuenf"]) == [0, 0, 1, 1]
    assert languages(["zero", "nine"]) == []
    assert languages(["zero", "null", "sifr"]) == []
