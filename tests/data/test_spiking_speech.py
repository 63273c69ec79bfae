import hashlib
import http.server
import json
import threading
import zipfile

import h5py
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer

from sdsnn_lightning.callbacks import RunRecord
from sdsnn_lightning.classifier import Classifier
from sdsnn_lightning.data import DataModule, SpikingHeidelberg, SpikingSpeechCommands, spike_archives
from sdsnn_lightning.data.spike_files import SpikeSample, write_spike_file
from sdsnn_lightning.data.utterances import hold_out_speakers, languages
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.reports.collect import Run
from sdsnn_lightning.types import Output

WORDS = ["zero", "one", "null", "eins"]
PART = {"train": (0, 1, 2, 3), "valid": (6, 7), "test": (4, 5, 0)}


def write(root, part="train", prefix="shd", words=WORDS, takes=3, seed=0):
    """Every speaker of a part says every word a few times: `label` spikes on 10 channels, for 100 to 400 ms."""
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


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "set"
    write(root)
    write(root, "test", takes=2)
    return root


def module(root, kind=SpikingHeidelberg, **args):
    data = kind(root=str(root), source="real", **{"batch_size": 8, **args})
    data.prepare_data()
    data.setup("fit")
    return data


def speakers(part):
    return sorted(set(part.cache.speakers[part.rows].tolist()))


def test_samples_are_the_recordings(root):
    data = module(root)
    assert data.class_names == WORDS
    assert data.num_classes == 4
    assert data.data_source == "real"
    samples = write(root.parent / "again", "test", takes=2)
    assert len(data.test_set) == len(samples) == 24
    sample = data.test_set[13]
    assert torch.equal(sample["times"], torch.from_numpy(samples[13].times.astype(np.float16)))
    assert sample["units"].tolist() == samples[13].units.tolist()
    assert sample["target"] == samples[13].label
    assert sample["speaker"] == 1  # 13 is of speaker 5, who is in no training part
    assert sample["language"] == WORDS[sample["target"]].startswith(("n", "e"))


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


def test_any_set_in_the_layout(tmp_path):
    for part in ("train", "test"):
        write(tmp_path, part, "fad", ["ahlan", "zero", "sifr"])
    data = module(tmp_path, prefix="fad")
    assert data.class_names == ["ahlan", "zero", "sifr"]
    assert data.groups == {"speaker": ["seen", "unseen"]}


def test_a_set_that_does_not_say_who_speaks(root):
    for part in ("train", "test"):
        with h5py.File(root / f"shd_{part}.h5", "a") as file:
            del file["extra"]
    with pytest.raises(DataError, match="does not say who speaks.*validation: file or test"):
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


def test_views_of_two_resolutions_come_from_one_batch(root):
    torch.manual_seed(0)
    data = module(root, step_ms=20.0, teacher_step_ms=5.0)
    assert data.input_shapes == {"spikes": (50, 140), "mask": (50,)}
    batch = next(iter(data.train_dataloader()))
    student, teacher = data.views(batch, training=False)
    assert student["spikes"].shape[2] == 140
    assert student["mask"].shape == student["spikes"].shape[:2]
    assert student["mask"].dtype == torch.bool
    assert teacher["spikes"].shape[1] > 3 * student["spikes"].shape[1]
    assert torch.equal(student["spikes"].sum(1), teacher["spikes"].sum(1))
    assert torch.equal(student["spikes"].sum((1, 2)).long(), batch["counts"])

    data.set_resolution(5.0)
    assert data.input_shapes == {"spikes": (200, 140), "mask": (200,)}
    fine, same = data.views(batch, training=False)
    assert fine is same
    assert torch.equal(fine["spikes"], teacher["spikes"])
    data.set_resolution(10.0, 20.0)
    assert torch.equal(data.views(batch, training=False)[1]["spikes"], student["spikes"])


def test_only_the_student_is_augmented_and_only_in_training(root):
    torch.manual_seed(0)
    data = module(root, batch_size=24)
    batch = next(iter(data.train_dataloader()))
    clean = data.views(batch, training=False)[0]
    student, teacher = data.views(batch, training=True)
    assert torch.equal(teacher["spikes"], clean["spikes"])
    assert torch.equal(student["mask"], clean["mask"])
    assert (student["spikes"] <= clean["spikes"]).all()
    assert not torch.equal(student["spikes"], clean["spikes"])
    student, teacher = module(root, batch_size=24, augment=False).views(batch, training=True)
    assert student is teacher


def test_alignment_and_groups(root):
    data = module(root, align="zero", group=7)
    batch = next(iter(data.val_dataloader()))
    zero = data.views(batch, training=False)[0]
    assert zero["spikes"].shape[2] == 100
    first = module(root).views(batch, training=False)[0]
    assert zero["mask"].sum() >= first["mask"].sum()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_trainer_gets_two_views_whatever_its_precision(root, num_workers):
    data = module(root, num_workers=num_workers)
    seen = []

    class Watch(LightningModule):
        def validation_step(self, batch, batch_idx):
            seen.append(batch)

    Trainer(
        accelerator="cpu", precision="bf16-true", logger=False, enable_progress_bar=False, enable_checkpointing=False
    ).validate(Watch(), data, verbose=False)
    raw = next(iter(data.val_dataloader()))
    assert torch.equal(seen[0].student["spikes"], data.views(raw, training=False)[0]["spikes"])
    assert seen[0].target.tolist() == raw["target"].tolist()
    assert set(seen[0].groups) == {"speaker", "language"}


@pytest.mark.parametrize(
    ("args", "match"),
    [
        ({"step_ms": 0.0}, "step_ms is 0.0; set it to a number of milliseconds above 0"),
        ({"step_ms": float("nan")}, "step_ms is nan"),
        ({"teacher_step_ms": -5.0}, "teacher_step_ms is -5.0"),
        ({"group": 6}, "group is 6; set it to a divisor of 700"),
        ({"time_mask": 1.0}, "time_mask is 1.0"),
        ({"neuron_mask": 140}, "neuron_mask is 140; set it to 0 to 139"),
        ({"prefix": "fad", "download": True}, "no address is known for fad_train.h5"),
        ({"validation": "file", "download": True}, "no address is known for shd_valid.h5"),
    ],
)
def test_arguments_that_cannot_work(root, args, match):
    with pytest.raises(ConfigError, match=match):
        SpikingHeidelberg(root=str(root), **args)


def test_missing_files_name_the_cure(root, tmp_path):
    with pytest.raises(DataError, match="no does not exist; put the data there, or set source: simulated"):
        SpikingHeidelberg(root=str(tmp_path / "no"), source="real")
    (root / "shd_test.h5").unlink()
    with pytest.raises(DataError, match=r"shd_test.h5 does not exist; .* data.init_args.download: true"):
        SpikingHeidelberg(root=str(root))


def test_a_broken_file_is_named_once_and_for_all_before_training(root):
    with h5py.File(root / "shd_test.h5", "a") as file:
        file["spikes/units"][5] = np.full(len(file["spikes/times"][5]), 700)
    data = SpikingHeidelberg(root=str(root))
    with pytest.raises(DataError, match="shd_test.h5: recording 5 has unit 700"):
        data.prepare_data()
    with pytest.raises(DataError, match="prepare_data"):
        data.setup("fit")


def test_files_of_different_sets_are_not_mixed(root):
    write(root, "test", words=["a", "b", "c", "d"])
    with pytest.raises(DataError, match="shd_test.h5 and shd_train.h5 have other words"):
        module(root)


def test_without_a_folder_the_set_is_simulated_and_says_so(tmp_path):
    with pytest.warns(UserWarning, match="SIMULATED"):
        data = SpikingHeidelberg(root=str(tmp_path / "no"), simulated_root=str(tmp_path / "simulated"))
    assert data.data_source == "simulated"
    assert data.num_classes == 20
    assert SpikingSpeechCommands(root=str(tmp_path / "no")).num_classes == 12
    assert not (tmp_path / "simulated").exists()  # nothing is made before prepare_data


@pytest.fixture
def official(tmp_path, monkeypatch):
    """Archives as on the authors' server, at another address; `served` notes what was asked for."""
    served = []
    store = tmp_path / "server"
    store.mkdir()
    for part in ("train", "test"):
        write(tmp_path / "made", part, words=[f"w{k}" for k in range(20)], takes=1)
        with zipfile.ZipFile(store / f"shd_{part}.h5.zip", "w") as content:
            content.write(tmp_path / "made" / f"shd_{part}.h5", f"shd_{part}.h5")
        raw = (store / f"shd_{part}.h5.zip").read_bytes()
        monkeypatch.setitem(spike_archives.MD5, f"shd_{part}.h5", hashlib.md5(raw).hexdigest())

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(store))

        def log_message(self, *args):
            served.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(spike_archives, "ADDRESS", f"http://127.0.0.1:{server.server_port}/")
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def test_download_fetches_unpacks_and_names_the_words(tmp_path, official):
    data = SpikingHeidelberg(root=str(tmp_path / "new"), download=True)
    assert data.data_source == "real"
    assert data.num_classes == 20
    assert not (tmp_path / "new").exists()
    data.prepare_data()
    data.setup("fit")
    assert data.class_names[19] == "w19"
    assert sorted(p.name for p in (tmp_path / "new").iterdir() if p.name[0] != ".") == ["shd_test.h5", "shd_train.h5"]
    asked = len(official)
    module(tmp_path / "new", download=True)
    assert len(official) == asked


def test_a_download_that_fails_leaves_no_set(tmp_path, official, monkeypatch):
    monkeypatch.setitem(spike_archives.MD5, "shd_test.h5", "0" * 32)
    data = SpikingHeidelberg(root=str(tmp_path / "new"), download=True)
    with pytest.raises(DataError, match="instead of 00000000"):
        data.prepare_data()
    with pytest.raises(DataError, match="shd_test.h5 does not exist"):
        SpikingHeidelberg(root=str(tmp_path / "new"))


def test_yaml_may_name_every_argument(root):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    args = {"root": str(root), "align": "zero", "teacher_step_ms": 5, "download": False, "cache_dir": str(root / "c")}
    config = parser.parse_object({"data": {"class_path": "SpikingHeidelberg", "init_args": args}})
    data = parser.instantiate_classes(config).data
    assert (data.align, data.teacher_step_ms, data.step_ms, data.time_mask) == ("zero", 5, 10.0, 0.2)
    with pytest.raises(Exception, match="protocol"):
        parser.parse_object({"data": {"class_path": "SpikingHeidelberg", "init_args": {"protocol": "x"}}})


def test_a_set_of_ones_own_is_stood_in_for_by_simulated_digits(tmp_path):
    data = SpikingHeidelberg(
        root=str(tmp_path / "absent"), simulated_root=str(tmp_path / "set"), prefix="mine", validation="file"
    )
    assert data.data_source == "simulated"
    assert (data.prefix, data.validation, data.protocol) == ("shd", "speakers", "speakers")
    assert data.num_classes == 20
