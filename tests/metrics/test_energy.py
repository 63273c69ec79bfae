"""Operations and energy of layers small enough to count by hand."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from counted import Fires, Net
from torch import nn

from sdsnn_lightning.metrics.energy import E_AC, E_MAC, EnergyScore, classify, measure_energy
from sdsnn_lightning.networks.seen import SEEN

joules = partial(pytest.approx, rel=1e-9, abs=0)  # the default tolerance, 1e-12, is of the size of the energies


def rows(report):
    return {(row.name, row.op): row for row in report.rows}


def test_linear_on_known_spikes():
    spikes = torch.zeros(4, 2, 10)  # [T, B, 10], 80 elements
    spikes[0, 0, :5] = 1
    spikes[3, 1, 0] = 1  # 6 spikes in two samples
    report = measure_energy(Net(lambda net, x: net.fc(x), fc=nn.Linear(10, 3)), (spikes,))
    (row,) = report.rows
    assert (row.name, row.op, row.kind) == ("fc", "linear", "binary")
    assert row.macs == 4 * 10 * 3  # per sample
    assert row.events == 3
    assert row.synops == pytest.approx(3 * 3)  # every spike reaches three outputs
    assert row.rate == pytest.approx(6 / 80)
    assert report.totals["energy_paper_J"] == joules(9 * 0.9e-12)
    assert report.totals["energy_syops_J"] == joules(
        (240 + 3) * 6 / 80 / 2 * 0.9e-12
    )  # the bias once a call, as weights
    assert report.totals["energy_dense_J"] == joules(120 * 4.6e-12)
    assert report.totals["macs"] == 0
    assert report.totals["parameters"] == 33


def test_integer_inputs_are_several_accumulates():
    counts = torch.zeros(1, 1, 10)
    counts[0, 0, :2] = torch.tensor([3.0, 1.0])
    report = measure_energy(Net(lambda net, x: net.fc(x), fc=nn.Linear(10, 3, bias=False)), (counts,))
    (row,) = report.rows
    assert row.kind == "integer"
    assert row.synops == pytest.approx(4 * 3)
    assert row.rate == pytest.approx(0.2)
    assert report.totals["energy_paper_J"] == joules(12 * E_AC)
    assert report.totals["energy_syops_J"] == joules(30 * E_MAC)  # the stock rule knows no integers


def test_analogue_first_layer_then_spikes_with_padding_and_groups():
    def run(net, x):
        steps, batch = x.shape[:2]
        spikes = net.neuron(net.first(x.flatten(0, 1)).unflatten(0, (steps, batch)))
        return net.second(spikes.flatten(0, 1)).flatten(1).unflatten(0, (steps, batch))

    layers = {
        "first": nn.Conv2d(1, 4, 3, padding=1, bias=False),
        "neuron": Fires(beta=0.5),
        "second": nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, bias=False),
    }
    nn.init.constant_(layers["first"].weight, 0.1)
    report = measure_energy(Net(run, **layers), (torch.linspace(0.1, 0.9, 384).view(2, 3, 1, 8, 8),))
    found = rows(report)
    first, second, neuron = found["first", "conv"], found["second", "conv"], found["neuron", "neuron"]
    assert (first.kind, first.macs, first.synops) == ("analogue", 2 * 64 * 4 * 9, 0)  # borders count like any position
    assert (second.kind, second.rate, second.macs) == ("binary", 1.0, 2 * 16 * 4 * 2 * 9)
    assert second.synops == second.macs
    assert (neuron.elements, neuron.events) == (2 * 4 * 64, 2 * 4 * 64)
    assert report.totals["energy_paper_J"] == joules(4608 * E_MAC + 2304 * E_AC)
    assert report.totals["energy_syops_J"] == joules(4608 * E_MAC + 2304 * E_AC + 512 * E_AC)
    assert "first" in report.table()
    assert "6.91k dense MACs" in report.table()


def test_functional_call_with_borrowed_weights():
    """As in SEEN: the event path uses the frame path's convolution, and both are counted, apart."""

    def run(net, x):
        frame = net.conv(x[0])
        events = F.conv1d(x.round().flatten(0, 1), net.conv.weight.detach())
        return frame.flatten(1) + events.flatten(1).unflatten(0, x.shape[:2])

    report = measure_energy(Net(run, conv=nn.Conv1d(2, 5, 3)), (torch.full((4, 2, 2, 6), 0.7),))
    found = rows(report)
    assert found["conv", "conv"].macs == 5 * 2 * 3 * 4
    assert found["conv", "conv"].kind == "analogue"
    assert found["network > conv", "conv"].macs == 4 * 5 * 2 * 3 * 4
    assert found["network > conv", "conv"].kind == "binary"


@pytest.mark.parametrize("way", ["matmul", "einsum", "sdpa"])
def test_attention_products_are_rows_of_their_own(way):
    def run(net, x):
        if way == "sdpa":
            return F.scaled_dot_product_attention(x, x, x)
        score = torch.einsum("bnd,bmd->bnm", x, x) if way == "einsum" else x @ x.transpose(1, 2)
        return score @ x

    spikes = (torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(0)) < 0.3).float()  # [T=2, B=5, D=8]
    report = measure_energy(Net(run), (spikes,))
    assert [(row.name, row.op, row.macs) for row in report.rows] == [
        ("network #1", "matmul", 2 * 5 * 5 * 8 / 5),
        ("network #2", "matmul", 2 * 5 * 5 * 8 / 5),
    ]
    assert report.rows[1].kind != "analogue"  # the values are spikes, whatever the scores
    assert report.totals["energy_syops_J"] == 0


def test_same_result_under_inference_mode_and_for_any_batch():
    network = Net(lambda net, x: net.b(net.a(x)), a=nn.Linear(6, 4), b=nn.Linear(4, 2, bias=False))
    x = torch.ones(3, 1, 6)
    once = measure_energy(network, (x,))
    with torch.inference_mode():
        again = measure_energy(network, (x.clone().expand(3, 8, 6),))
    a_call = 4 * (1 - 1 / 8) * 0.9e-12  # syops-counter charges the bias of a linear layer once a batch
    once.totals["energy_syops_J"] -= a_call
    assert once.totals == pytest.approx(again.totals, rel=1e-9, abs=0)
    assert [row.name for row in again.rows] == ["a", "b"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_autocast_costs_the_same_in_the_same_layers(mode):
    def run(net, x):
        maps = net.conv(x.flatten(0, 1))
        return net.head((net.wide(maps.flatten(1)) > 300).float()).unflatten(0, x.shape[:2])

    layers = {"conv": nn.Conv2d(2, 3, 3, padding=1), "wide": nn.Linear(48, 5), "head": nn.Linear(5, 3, bias=False)}
    network = Net(run, **layers)
    for parameter in network.parameters():
        nn.init.ones_(parameter)  # small integers, which half precision holds exactly
    clip = (torch.rand(3, 2, 2, 4, 4) > 0.5).float()
    plain = measure_energy(network, (clip,))
    with mode(), torch.autocast("cpu", torch.bfloat16):
        cast = measure_energy(network, (clip,))
    assert [(row.name, row.op) for row in cast.rows] == [("conv", "conv"), ("wide", "linear"), ("head", "linear")]
    assert all(row.stock_acs + row.stock_macs > 0 for row in cast.rows)
    assert cast.rows == plain.rows


def test_a_layer_with_one_analogue_step_is_analogue_as_a_whole():
    x = torch.ones(2, 1, 4)
    x[1] = 0.5
    network = Net(lambda net, x: torch.stack([net.fc(step) for step in x]), fc=nn.Linear(4, 4)).train()
    (row,) = measure_energy(network, (x,)).rows
    assert (row.kind, row.synops, row.macs) == ("analogue", 0, 32)
    assert network.training
    assert not network.fc._forward_hooks


def test_classify():
    assert [
        classify(torch.tensor(v)) for v in ([0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 1.0], [0.5, 1.0])
    ] == [
        "silent",
        "binary",
        "binary",
        "integer",
        "integer",
        "analogue",
    ]


@pytest.mark.parametrize(("steps", "macs"), [(4, 907_154_656), (7, 1_454_191_264), (13, 2_548_264_480)])
def test_seen_costs_what_its_paper_says(steps, macs):
    """The paper's FLOPS column: 0.9, 1.5 and 2.6 G; one frame pass plus T event passes with borrowed weights."""
    clip = torch.randn(steps, 1, 3, 90, 90, generator=torch.Generator().manual_seed(0))
    report = measure_energy(SEEN(7), (clip, clip))
    found = rows(report)
    assert report.totals["dense_macs"] == macs
    assert report.totals["parameters"] == 6_078_655
    assert found["network > stack.conv3", "conv"].macs == steps * 512 * 256 * 9 * 36
    assert found["network > stack.conv3", "conv"].kind in ("silent", "binary")
    assert found["stack.conv3", "conv"].kind == "analogue"  # the frame path has no spikes between convolutions


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_kernels_that_hide_their_products_are_taken_apart(mode):
    def macs(network, *shape):
        score = EnergyScore(network.eval())
        with score.watch(), mode():
            network((torch.rand(*shape) < 0.4).float())
        report = score.compute()
        assert report.unseen == []
        return {row.name: row.macs for row in report.rows if row.macs}

    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    run = lambda net, x: net.a(*[x.transpose(0, 1)] * 3, need_weights=False)[0].transpose(0, 1)  # noqa: E731
    # Per sample of four steps: 3 x 8 x 8 for queries, keys and values, twice 4 x 8 within, 8 x 8 on the way out.
    expected = {"a": 4 * 192, "a #1": 4 * 4 * 8, "a #2": 4 * 4 * 8, "a > a.out_proj": 4 * 64}
    assert macs(Net(run, a=attention), 4, 3, 8) == expected
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    found = macs(Net(lambda net, x: net.a(x.transpose(0, 1)).transpose(0, 1), a=layer), 4, 3, 8)
    assert sum(found.values()) == sum(expected.values()) + 2 * 4 * 8 * 16
    for kind, gates in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)):
        network = Net(lambda net, x: net.a(x)[0], a=kind(8, 5, bidirectional=True))
        assert macs(network, 4, 3, 8) == {"a": 2 * 4 * gates * 5 * (8 + 5)}
    assert torch.backends.mkldnn.enabled
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_matrix_times_a_vector_is_counted_and_what_cannot_be_is_named():
    x = (torch.rand(4, 3, 8) < 0.4).float()
    (row,) = measure_energy(Net(lambda net, x: (x @ net.fc.weight[0]).unsqueeze(-1), fc=nn.Linear(8, 1)), (x,)).rows
    assert row.macs == 4 * 8
    layers = {
        "fc": nn.Linear(8, 8),
        "pair": nn.Bilinear(8, 8, 3),
        "norm": nn.LayerNorm((3, 3)),
        "unused": nn.Linear(3, 3),
    }
    report = measure_energy(Net(lambda net, x: net.norm(net.pair(net.fc(x), x)), **layers), (x,))
    assert report.unseen == ["pair"]
    assert "Not counted, as the products of these modules cannot be seen: pair." in report.table()
