"""An interrupted run goes on as if nothing had happened: bit for bit, in its own folder."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from test_faults import same
from torch.utils.data import Dataset

from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.cli import main
from sdsnn_lightning.data.loader import Order, TrainLoader

EXPERIMENT = """
name: toy
data: {class_path: toy.TimedToy}
model:
  class_path: sdsnn_lightning.Classifier
  init_args:
    network: {class_path: toy.ToyNet, init_args: {dropout: 0.3}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.02}}
    scheduler: {class_path: torch.optim.lr_scheduler.ExponentialLR, init_args: {gamma: 0.7}}
trainer: {max_epochs: 4, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""


class Interrupt(Callback):
    """Ctrl-C within an epoch."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 3):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("accumulate", ["1", "2"])
def test_a_run_interrupted_within_an_epoch_ends_like_an_undisturbed_one(workdir, accumulate):
    sys.modules["test_resume"] = sys.modules[__name__]
    Path("toy.yaml").write_text(EXPERIMENT)
    Path("interrupt.yaml").write_text("trainer: {callbacks+: [{class_path: test_resume.Interrupt}]}")
    words = ["fit", "--config", "toy.yaml", "--trainer.accumulate_grad_batches", accumulate, "--runs"]
    with pytest.raises(SystemExit) as end:
        main([*words, "cut", "--config", "interrupt.yaml"])
    assert end.value.code == 130
    assert load_checkpoint(Path("cut/toy/version_0/checkpoints/last.ckpt"), "it")["epoch"] == 2
    main([*words, "cut", "--ckpt_path", "last"])
    main([*words, "whole"])
    states = [
        load_checkpoint(Path(f"{runs}/toy/version_0/checkpoints/last.ckpt"), "it")["state_dict"]
        for runs in ("cut", "whole")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


class Leave(Callback):
    """A run that ends without a word before its third epoch."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 2:
            raise SystemExit(9)


class Terminate(Callback):
    """SIGTERM after the third batch of an epoch."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 2):
            os.kill(os.getpid(), signal.SIGTERM)


PLATEAU = "{class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {monitor: val/task, patience: 0}}"


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("Leave", ["--model.init_args.scheduler", PLATEAU]),  # looked at the metric after the state was kept
        ("Leave", ["--trainer.max_epochs", "-1", "--trainer.max_steps", "21"]),
        ("Leave", ["--trainer.overfit_batches", "3"]),
        ("Terminate", ["--trainer.accumulate_grad_batches", "2"]),  # the third batch belongs to a step to come
    ],
)
def test_a_run_that_ends_between_epochs_or_steps_goes_on_like_an_undisturbed_one(workdir, end, words):
    sys.modules["test_resume"] = sys.modules[__name__]
    Path("toy.yaml").write_text(EXPERIMENT)
    words = ["fit", "--config", "toy.yaml", *words, "--trainer.devices", "1", "--runs"]
    with pytest.raises(SystemExit):
        main([*words, "cut", f"--trainer.callbacks+={{class_path: test_resume.{end}}}"])
    main([*words, "cut", "--ckpt_path", "last"])
    main([*words, "whole"])
    cut, whole = (
        load_checkpoint(Path(f"{runs}/toy/version_0/checkpoints/last.ckpt"), "it") for runs in ("cut", "whole")
    )
    for key in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        assert same(cut[key], whole[key]), key


def batches(world, rank, epoch, done=0, workers=0, count=21):
    loader = TrainLoader(torch.arange(count), world, rank, lambda: done, batch_size=8 // world, num_workers=workers)
    loader.sampler.set_epoch(epoch)
    return [batch.tolist() for batch in loader]


def test_every_epoch_has_its_own_order_whatever_came_before():
    whole = batches(1, 0, epoch=3)
    assert sorted(sum(whole, [])) == list(range(21))
    assert whole == batches(1, 0, epoch=3)
    assert whole != batches(1, 0, epoch=4)
    assert batches(1, 0, epoch=3, done=1) == whole[1:]
    assert batches(1, 0, epoch=3, done=2, workers=1) == whole[2:]


class Draws(Dataset):
    """Every sample is a number drawn when it is fetched."""

    def __len__(self):
        return 21

    def __getitem__(self, index):
        return torch.rand(())


def drawn(epochs, workers, done=0):
    """What the epochs draw, one after the other in the same loader processes."""
    loader = TrainLoader(Draws(), 1, 0, lambda: done, batch_size=4, num_workers=workers, persistent_workers=workers > 0)
    found = []
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        found.append([batch.tolist() for batch in loader])
    return found


def test_a_batch_draws_by_its_place_however_many_processes_load(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    whole = drawn([0, 1], workers=0)
    assert whole[0] != whole[1]
    assert drawn([0, 1], workers=2) == whole
    assert drawn([1], workers=1) == whole[1:]
    assert drawn([1], workers=2, done=2) == [whole[1][2:]]


def test_two_processes_see_the_global_batches_of_one():
    alone, first, second = batches(1, 0, 5, count=24), batches(2, 0, 5, count=24), batches(2, 1, 5, count=24)
    assert [sorted(batch) for batch in alone] == [sorted(a + b) for a, b in zip(first, second, strict=True)]


def test_the_order_starts_with_the_first_batch_not_with_the_iterator():
    loader = TrainLoader(torch.arange(21), 1, 0, lambda: 0, batch_size=8)
    iterator = iter(loader)  # Lightning makes it before it says which epoch it is
    loader.sampler.set_epoch(5)
    assert next(iterator).tolist() == batches(1, 0, 5)[0]
    assert isinstance(loader.sampler, Order)
