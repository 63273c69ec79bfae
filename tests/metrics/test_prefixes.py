"""Accuracy after every number of steps."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from toy_strategies import SpikingMaps, ToyEvents

from sdsnn_lightning.classifier import Classifier, run_network
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.metrics.prefixes import PrefixAccuracy, held, prefix_hits
from sdsnn_lightning.networks import KeywordConvNet


def trainer(tmp_path):
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path,
        callbacks=[PrefixAccuracy()],
    )  # fmt: skip


def test_hits_by_hand():
    logits = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 3.0], [0.0, 1.0]], [[5.0, 0.0], [9.0, 0.0]]])
    # After 1, 2 and 3 steps the means say (0, 1), (1, 1) and (0, 0).
    assert prefix_hits(SpikingMaps(2), logits, torch.tensor([0, 1])).tolist() == [2, 1, 1]


def test_a_prefix_is_a_shorter_run_and_the_last_one_is_the_test_score(tmp_path):
    seed_everything(1)
    module = Classifier(SpikingMaps, 3, lambda p: torch.optim.SGD(p, lr=0.1))
    metrics = trainer(tmp_path).test(module, datamodule=ToyEvents(), verbose=False)[0]
    assert [key for key in metrics if "WAR_at" in key] == [f"test/WAR_at/{t}" for t in (1, 2, 3, 4)]
    assert not module.network._forward_hooks
    assert metrics["test/WAR_at/4"] == pytest.approx(metrics["test/WAR"])
    data = ToyEvents()
    data.setup("test")
    right = 0
    for batch in data.test_dataloader():
        batch = data.on_after_batch_transfer(batch, 0)
        view = {"events": batch.student["events"][:, :2]}
        with torch.no_grad():
            scores = module.network.readout(run_network(module.network, view).logits)
        right += int((scores.argmax(-1) == batch.target).sum())
    assert metrics["test/WAR_at/2"] == pytest.approx(right / 16)


def test_a_network_without_time_is_refused(tmp_path):
    class Events(KeywordConvNet):
        inputs = ("events",)

        def forward(self, events):
            return super().forward(events.mean((2, 3)))

    module = Classifier(lambda k: Events(k, width=4), 3, lambda p: torch.optim.SGD(p, lr=0.1))
    with pytest.raises(ConfigError, match="Events has no time steps"):
        trainer(tmp_path).test(module, datamodule=ToyEvents(), verbose=False)


def test_a_shorter_batch_keeps_its_last_answer():
    assert held(torch.tensor([1, 4, 2]), 5).tolist() == [1, 4, 2, 2, 2]
    assert held(torch.tensor([3]), 1).tolist() == [3]
