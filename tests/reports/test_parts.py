"""Fronts, means, settings and causality by hand."""

import numpy as np
import torch
from toy_strategies import SpikingMaps

from sdsnn_lightning.charts import layer_chart, mean_curve, pareto_front
from sdsnn_lightning.details import raster, spike_entries
from sdsnn_lightning.metrics.prefixes import is_causal
from sdsnn_lightning.reports.page import loss_terms
from sdsnn_lightning.reports.settings import differences
from sdsnn_lightning.types import Output


def test_pareto_front_holds_what_no_other_beats():
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (3.0, 0.8), (2.5, 0.7)]
    assert pareto_front(points) == [1, 4, 0]
    assert pareto_front([(1.0, 5.0), (1.0, 5.0)]) == [0]
    assert pareto_front([]) == []


def test_mean_curve_takes_the_epochs_that_all_runs_have():
    curves = [(np.array([0, 1, 2]), np.array([1.0, 2.0, 9.0])), (np.array([0, 1]), np.array([3.0, 6.0]))]
    at, middle, least, most = mean_curve(curves)
    assert (at.tolist(), middle.tolist(), least.tolist(), most.tolist()) == ([0, 1], [2, 4], [1, 2], [3, 6])


def test_layers_whose_names_begin_and_end_alike_have_a_bar_and_a_name_each():
    names = [f"branches.events.layer{stage}.{block}.layer1.lif" for stage in (1, 2) for block in (0, 1)]
    names += [f"teacher.{name}" for name in names]
    rows = [{"name": name, "op": "neuron", "rate": 0.1, "energy_nJ": {"paper": 0.0}} for name in names]
    axes = layer_chart(rows).axes[0]
    assert sorted(bar.get_y() + bar.get_height() / 2 for bar in axes.patches) == list(range(8))
    assert len(axes.get_yticklabels()) == 8
    assert len({label.get_text() for label in axes.get_yticklabels()[:4]}) == 4


def test_settings_are_compared_class_by_class_without_those_of_the_run():
    def config(weight, seed, *others):
        callbacks = [*others, {"class_path": "a.b.Kd", "init_args": {"weight": weight}}]
        return {"seed_everything": seed, "trainer": {"callbacks": callbacks, "max_epochs": 2}}

    found = differences([config(1.0, 1), config(0.5, 2, {"class_path": "x.Tet", "init_args": {}})])
    assert found == {"trainer.callbacks.Kd.weight": ["1", "0.5"], "trainer.callbacks.Tet": ["-", "used"]}


def test_what_data_does_for_a_teacher_matters_where_there_is_one():
    def config(augment, **model):
        data = {"class_path": "a.Speech", "init_args": {"augment_teacher": augment, "step_ms": 10}}
        return {"data": data, "model": {"class_path": "a.Model", "init_args": model}}

    teacher = {"class_path": "a.Net", "init_args": {"width": 4}}
    assert differences([config(True, network=teacher), config(False, network=teacher)]) == {}
    assert differences([config(True, teacher=None), config(False, teacher=None)]) == {}
    found = differences([config(True, teacher=teacher), config(False, teacher=teacher)])
    assert found == {"data.augment_teacher": ["yes", "no"]}


def test_spikes_come_back_as_they_were():
    spikes = torch.tensor([[1, 0, 1], [0, 0, 1]])
    entry = spike_entries({"lif": spikes})["lif"]
    assert entry == {"neurons": 3, "rate": 0.5, "fired": ["10", "00", "11"]}
    assert raster(entry).tolist() == spikes.bool().tolist()


def test_terms_are_neither_weights_nor_other_metrics():
    assert loss_terms(["train/loss", "train/Kd", "train/Kd_weight", "train/Kd/hit_rate", "val/UAR"]) == ["loss", "Kd"]


def test_a_network_that_looks_ahead_or_has_a_fixed_length_is_not_causal():
    class Ahead(SpikingMaps):
        def forward(self, events):
            return Output(super().forward(events).logits.flip(0), {})

    class Fixed(SpikingMaps):
        def forward(self, events):
            return super().forward(events.reshape(6, 1, 2, 8, 8))

    torch.manual_seed(0)
    networks = [network(3).eval() for network in (SpikingMaps, Ahead, Fixed)]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    events = 5 * torch.rand(6, 1, 2, 8, 8)
    with torch.no_grad():
        steps = networks[0](events).logits
    assert (steps[0] - steps[1:]).abs().amax((1, 2)).min() > 0.01  # it fires, and at every step otherwise
    assert [is_causal(network, (events,)) for network in networks] == [True, False, False]
