"""Spiking speech from its files to the two views of a batch; splits and downloads have files of their own."""

import h5py
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from spiking_set import WORDS, module, write, write_set

from sdsnn_lightning.data import DataModule, SpikingHeidelberg, SpikingSpeechCommands
from sdsnn_lightning.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    return write_set(tmp_path / "set")


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


def test_any_set_in_the_layout(tmp_path):
    for part in ("train", "test"):
        write(tmp_path, part, "fad", ["ahlan", "zero", "sifr"])
    data = module(tmp_path, prefix="fad")
    assert data.class_names == ["ahlan", "zero", "sifr"]
    assert data.groups == {"speaker": ["seen", "unseen"]}


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
