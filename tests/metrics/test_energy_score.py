"""The metric over batches and processes, and the callback that logs it."""

import json
from types import SimpleNamespace

import pytest
import torch
from counted import Fires, Net
from lightning.pytorch.plugins.precision import Precision
from torch import nn

from sdsnn_lightning.callbacks import EnergyMeter
from sdsnn_lightning.cli import main
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.metrics.activity import Activity, _on_device, activity
from sdsnn_lightning.metrics.energy import RULES, EnergyScore, measure_energy
from sdsnn_lightning.types import Batch


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = {"first": nn.Linear(6, 8), "norm": nn.BatchNorm1d(8), "neuron": Fires(beta=0.5), "head": nn.Linear(8, 3)}

    def run(net, x):
        spikes = net.neuron(net.norm(net.first(x).flatten(0, 1)).unflatten(0, x.shape[:2]))
        scores = spikes.transpose(0, 1) @ spikes.transpose(0, 1).transpose(1, 2)  # [B, T, T]
        return net.head((scores @ spikes.transpose(0, 1)).transpose(0, 1))

    return Net(run, **layers).eval()


def counted(network, *batches):
    score = EnergyScore(network)
    with score.watch(), torch.inference_mode():
        for batch in batches:
            network(batch)
    return score


def test_batches_of_any_size_and_length_add_up(network):
    x = torch.randn(4, 8, 6)
    whole, parts = counted(network, x), counted(network, x[:, :3], x[:, 3:])
    for old, new in zip(whole.compute().rows, parts.compute().rows, strict=True):
        numbers = {key: value for key, value in vars(new).items() if not key.startswith("stock")}
        assert {key: getattr(old, key) for key in numbers} == pytest.approx(numbers)
    assert parts.compute().samples == 8
    assert parts.compute().firing_rate == pytest.approx(whole.compute().firing_rate)
    longer = counted(network, x, torch.randn(9, 2, 6))  # padded to another length, as spike recordings are
    assert len(longer.compute().rows) == len(whole.compute().rows)


def test_two_processes_give_what_one_gives(network):
    x = torch.randn(4, 8, 6)
    one = counted(network, x[:, :4], x[:, 4:])
    ranks = [counted(network, part) for part in (x[:, :4], x[:, 4:])]  # as two processes sum their states
    ranks[0].merge_state(ranks[1])
    assert ranks[0].compute().totals == pytest.approx(one.compute().totals, rel=1e-12, abs=0)
    assert [vars(a) for a in ranks[0].compute().rows] == [vars(b) for b in one.compute().rows]


def test_processes_with_samples_of_other_lengths_agree(network):
    short, long = torch.randn(4, 3, 6), torch.randn(9, 2, 6)
    one = counted(network, short, long).compute()
    for first, second in ((short, long), (long, short)):  # either process, with what it has gathered
        rank = counted(network, first)
        rank.merge_state(counted(network, second))
        assert rank.compute().totals == pytest.approx(one.totals, rel=1e-12, abs=0)
    scores = next(row for row in one.rows if row.op == "matmul")  # [T, B] by [B, T]: a spike meets T others
    assert scores.fanout == pytest.approx(scores.synops / scores.events)
    assert 4 < scores.fanout < 9


def test_hooks_go_a_failing_pass_is_forgotten_and_training_is_not_counted(network):
    score = counted(network, torch.randn(4, 2, 6))
    before = score.compute().totals
    network(torch.randn(4, 2, 6))
    with score.watch(), pytest.raises(RuntimeError):
        network(torch.randn(4, 2, 5))
    assert score.compute().totals == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    torch.ones(2, 2) @ torch.ones(2, 2)  # the mode is off
    score.reset()
    assert score.compute().rows == []
    assert score.compute().firing_rate is None


def test_same_kind_of_counts_as_one_measurement(network):
    x = torch.randn(4, 8, 6)
    assert counted(network, x).compute().totals == pytest.approx(measure_energy(network, (x,)).totals, abs=0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0, 0, 0], (0, 0, 0, 0, 1, 0)),
        ([0.0, 1, 1, 0], (2, 2, 0, 0, 1, 0.5)),
        ([3.0, -1, 0, 0], (2, 4, 0, 1, 0, 0)),
        ([0.5, 0, 0, 0.5], (2, 0, 1, 0, 1, 0.25)),  # two values within [0, 1]
        ([0.5, 0, 1, 0], (2, 0, 1, 0, 0, 0)),
        ([0.5, 2, -1, 0], (3, 0, 1, 0, 0, 0)),
        ([1.0, 1, 1, 1], (4, 4, 0, 0, 1, 1)),
    ],
)
def test_activity_is_the_same_on_every_device(values, expected):
    x = torch.tensor(values)
    assert activity(x).tolist() == list(expected)
    assert _on_device(x).tolist() == list(expected)  # the code of a GPU
    many = torch.zeros(600, 4)
    many[7] = x  # beyond what is looked at first
    assert Activity(*activity(many).tolist()).spikes == expected[1]
    assert activity(many).tolist()[:5] == _on_device(many).tolist()[:5]
    assert activity(many, only_two_valued=True).tolist()[4:] == _on_device(many).tolist()[4:]


def run_epoch(meter, network, batches, logged, rank=0, total=None):
    module = SimpleNamespace(
        network=network,
        view="student",
        device=torch.device("cpu"),
        log=lambda name, value, **_: logged.update({name: value}),
    )
    trainer = SimpleNamespace(
        num_test_batches=[total or len(batches)], is_global_zero=rank == 0, precision_plugin=Precision()
    )
    meter.on_test_epoch_start(trainer, module)
    for index, frames in enumerate(batches):
        view = {"frames": frames.transpose(0, 1)}
        batch = Batch(view, view, torch.zeros(frames.shape[1], dtype=torch.long), {})
        meter.on_test_batch_start(trainer, module, batch, index)
        with torch.inference_mode():
            network(frames)
        meter.on_test_batch_end(trainer, module, None, batch, index)
    meter.on_test_epoch_end(trainer, module)


def test_callback_counts_batches_spread_over_the_test(network, tmp_path):
    batches, logged, some = list(torch.randn(4, 12, 6).split(2, dim=1)), {}, {}
    run_epoch(EnergyMeter(tmp_path / "all"), network, batches, logged)
    assert logged["test/energy/paper_nJ"] == pytest.approx(
        counted(network, *batches).compute().totals["energy_paper_J"] * 1e9
    )
    assert {name.removeprefix("test/energy/").removesuffix("_nJ") for name in logged if "energy" in name} == set(RULES)
    stream = {}  # of which nobody knows the end
    run_epoch(EnergyMeter(tmp_path / "stream"), network, batches, stream, total=float("inf"))
    assert stream == logged
    run_epoch(EnergyMeter(tmp_path / "some", batches=2), network, batches, some)
    expected = counted(network, batches[0], batches[3]).compute()
    assert some["test/energy/lemaire_nJ"] == pytest.approx(expected.totals["energy_lemaire_J"] * 1e9)
    text = (tmp_path / "some" / "energy.txt").read_text(encoding="utf-8")
    assert "measured on 4 samples" in text
    assert all(rule in text for rule in RULES)
    assert "\x1b" not in text
    with pytest.raises(ConfigError, match="batches is 0"):
        EnergyMeter(tmp_path, batches=0)


def test_only_the_first_process_writes(network, tmp_path):
    run_epoch(EnergyMeter(tmp_path / "run"), network, [torch.randn(4, 2, 6)], {}, rank=1)
    assert not (tmp_path / "run").exists()


def test_every_test_logs_all_rules(workdir):
    (workdir / "toy.yaml").write_text("""
name: toy
data: {class_path: toy.ToyData}
model:
  class_path: sdsnn_lightning.Classifier
  init_args:
    network: {class_path: toy.ToyNet}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
trainer: {accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
""")
    main(["test", "--config", "toy.yaml"])
    results = json.loads((workdir / "runs/toy/untrained/results.json").read_text())["test"]
    macs = 4 * (6 * 8 + 8 * 3)
    assert results["operations/dense_macs"] == macs
    assert results["energy/dense_nJ"] == pytest.approx(macs * 4.6e-3)
    assert {f"energy/{rule}_nJ" for rule in RULES} <= set(results)
    assert "measured on 23 samples" in (workdir / "runs/toy/untrained/energy.txt").read_text(encoding="utf-8")
