"""What padding does not change: operations, energy and firing rates of samples that differ in length."""

import json
from pathlib import Path

import pytest
import torch
from spiking_set import write_set
from torch import nn

from sdsnn_lightning.cli import main
from sdsnn_lightning.metrics.energy import EnergyScore, measure_energy
from sdsnn_lightning.metrics.padding import own_lengths, real_frames
from sdsnn_lightning.metrics.spikes import FiringRates
from sdsnn_lightning.networks.spikescr import SpikeSCR

LENGTHS = (9, 4, 9, 6)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = SpikeSCR(5, width=16, heads=2, in_channels=12, kernel_size=7)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.bias.data.fill_(0.6)
    return network.eval()


def utterances():
    mask = torch.arange(max(LENGTHS))[:, None] < torch.tensor(LENGTHS)
    frames = torch.poisson(
        torch.full((max(LENGTHS), len(LENGTHS), 12), 0.7), generator=torch.Generator().manual_seed(0)
    )
    return frames * mask[..., None], mask.float()


def alone(inputs):
    """Every sample by itself, at its own length."""
    return [tuple(x[:length, index : index + 1] for x in inputs) for index, length in enumerate(LENGTHS)]


def test_a_batch_comes_apart_into_samples_of_one_length(network):
    frames, mask = utterances()
    parts = list(own_lengths(network, (frames, mask)))
    assert [tuple(part[0].shape[:2]) for part in parts] == [(4, 1), (6, 1), (9, 2)]
    assert torch.equal(parts[2][0], frames[:, [0, 2]])
    assert torch.equal(real_frames(network, (frames, mask)), mask.bool())
    whole = (frames[:4], mask[:4])
    assert list(own_lengths(network, whole)) == [whole]
    assert real_frames(network, (frames,)) is None
    silent = list(own_lengths(network, (frames, mask * torch.tensor([1.0, 0, 1, 1]))))
    assert [tuple(part[0].shape[:2]) for part in silent] == [(1, 1), (6, 1), (9, 2)]


def test_operations_and_energy_are_those_of_every_sample_by_itself(network):
    inputs = utterances()
    apart = EnergyScore(network)
    with apart.watch(), torch.no_grad():
        for sample in alone(inputs):
            network(*sample)
    expected = apart.compute()
    report = measure_energy(network, inputs)
    assert report.totals == pytest.approx({**expected.totals, "energy_syops_J": report.totals["energy_syops_J"]})
    assert report.totals["energy_syops_J"] == pytest.approx(expected.totals["energy_syops_J"], rel=0.05)  # by batches
    assert report.firing_rate == pytest.approx(expected.firing_rate)
    padded = EnergyScore(network)
    with padded.watch(), torch.no_grad():
        network(*inputs)
    assert padded.compute().totals["dense_macs"] > 1.2 * report.totals["dense_macs"]


def test_firing_rates_are_those_of_real_frames(network):
    inputs = utterances()
    padded, apart = FiringRates(network), FiringRates(network)
    with torch.no_grad():
        with padded.watch(network):
            network(*inputs)
        with apart.watch(network):
            for sample in alone(inputs):
                network(*sample)
    assert padded.compute() == apart.compute()
    assert padded.compute()["total"].rate > 0.05


def test_a_test_measures_the_same_in_batches_of_any_size(workdir):
    write_set(Path("."))
    Path("mine.yaml").write_text(
        """
name: mine
data: {class_path: sdsnn_lightning.data.SpikingHeidelberg, init_args: {root: ., source: real, step_ms: 25}}
model:
  class_path: sdsnn_lightning.Classifier
  init_args:
    network:
      class_path: sdsnn_lightning.networks.SpikeSCR
      init_args: {width: 16, heads: 2, in_channels: 140, kernel_size: 7}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.01}}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""
    )
    main(["fit", "--config", "mine.yaml"])
    results = Path("runs/mine/version_0/results.json")
    found = []
    for size in ("1", "5"):
        main(["test", "--config", "mine.yaml", "--ckpt_path", "best", "--data.init_args.batch_size", size])
        scores = json.loads(results.read_text())["test"]
        found.append(
            {key: value for key, value in scores.items() if key.startswith(("energy", "operations", "firing"))}
        )
    for scores in found:
        del scores["energy/syops_nJ"]  # which judges inputs batch by batch
    assert len(found[0]) > 6
    assert found[0] == pytest.approx(found[1], rel=1e-5)
