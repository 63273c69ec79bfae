"""Energy of a network on real inputs, by four rules, each a pure function of one layer's operations.

| rule | charges |
| --- | --- |
| `paper` | the usual form of SNN papers: accumulates that spikes cause, multiply-accumulates of analogue layers |
| `syops` | what syops-counter 0.0.5 (Chen et al. 2023) charges |
| `lemaire` | arithmetic, memory and addressing after Lemaire et al. 2022, see `memory_energy` |
| `dense` | the same layers without spikes: every multiply-accumulate |

`paper`, `syops` and `dense` estimate arithmetic only. Memory traffic, which dominates on hardware, is in `lemaire`
alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from sdsnn_lightning.metrics.activity import classify
from sdsnn_lightning.metrics.layers import FIELDS, SIZES, Key, Layer, LayerOperations, merge
from sdsnn_lightning.metrics.memory_energy import lemaire_energy
from sdsnn_lightning.metrics.operations import OperationCounter
from sdsnn_lightning.metrics.padding import is_padded, own_lengths

__all__ = ["E_AC", "E_MAC", "RULES", "EnergyReport", "EnergyScore", "classify", "measure_energy"]

E_MAC = 4.6e-12
"""Energy of a 32-bit floating-point multiply-accumulate at 45 nm, joules (Horowitz, ISSCC 2014)."""
E_AC = 0.9e-12
"""Energy of a 32-bit floating-point accumulate at 45 nm, joules (Horowitz, ISSCC 2014)."""


def paper_energy(row: LayerOperations) -> float:
    """Rule `paper`: accumulates for spiking inputs, dense MACs for analogue ones; neurons are free. Joules per sample.

    `E = E_MAC * MACs` of analogue layers `+ E_AC * sum(rate * MACs)` of the others, the usual form of SNN papers. An
    integer input counts as multiple accumulates, and attention products are included: our reading, since papers differ.
    """
    if row.op == "neuron":
        return 0.0
    return row.macs * E_MAC if row.kind == "analogue" else row.synops * E_AC


def stock_energy(row: LayerOperations) -> float:
    """Rule `syops`: what syops-counter charges by its stock rules, versions 0.0.3 to 0.0.5. Joules per sample.

    An input of at most two values within [0, 1], judged batch by batch, costs its mean times the operations in
    accumulates; everything else, integers too, full MACs. Operations are those of convolutions and linear layers with
    biases, twice the elements of an affine normalisation, the elements of pooling and activations; a neuron costs one
    accumulate a step (versions 0.0.1 and 0.0.2: a MAC and its input rate). It sees modules of stock types only: no
    functional calls, products of activations, additions, and no recurrent layers or `nn.MultiheadAttention`, which it
    puts into neither sum.
    """
    return row.stock_macs * E_MAC + row.stock_acs * E_AC


def dense_energy(row: LayerOperations) -> float:
    """Rule `dense`: the same layers run without spikes, every MAC paid. Joules per sample."""
    return row.macs * E_MAC


RULES: dict[str, Callable[[LayerOperations], float]] = {
    "paper": paper_energy,
    "syops": stock_energy,
    "lemaire": lemaire_energy,
    "dense": dense_energy,
}
"""Energy rules by the name they are reported under. A rule is a function of one layer."""


class EnergyReport:
    """Operations and energy of one network, per sample.

    Attributes:
        rows: One entry a layer, in order of first use.
        parameters: Number of parameters of the network.
        samples: Number of samples they were measured on.
        totals: `dense_macs`, `macs` (of analogue layers), `synops`, `neuron_spikes`, `parameters` and
            `energy_<rule>_J` for every rule.
        unseen: Names of modules whose weights multiply where it cannot be counted; they are missing from all figures.
    """

    def __init__(self, rows: list[LayerOperations], parameters: int, samples: int, unseen: Sequence[str] = ()) -> None:
        """Sums up the layers.

        Args:
            rows: One entry a layer, per sample.
            parameters: Number of parameters of the network.
            samples: Number of samples they were measured on.
            unseen: Names of modules whose products could not be counted.
        """
        self.rows, self.parameters, self.samples, self.unseen = rows, parameters, samples, list(unseen)
        layers = [row for row in rows if row.op != "neuron"]
        self.totals: dict[str, float] = {
            "dense_macs": sum(row.macs for row in layers),
            "macs": sum(row.macs for row in layers if row.kind == "analogue"),
            "synops": sum(row.synops for row in layers),
            "neuron_spikes": sum(row.events for row in rows if row.op == "neuron"),
            "parameters": parameters,
        } | {f"energy_{name}_J": sum(map(rule, rows)) for name, rule in RULES.items()}

    @property
    def firing_rate(self) -> float | None:
        """Spikes per neuron and step over all neurons; None for a network without them."""
        neurons = [row for row in self.rows if row.op == "neuron"]
        steps = sum(row.elements for row in neurons)
        return sum(row.rate * row.elements for row in neurons) / steps if steps else None

    def table(self, width: int = 120) -> str:
        """The layers and totals as plain text of `width` columns, energies in microjoules per sample."""
        from sdsnn_lightning.metrics.energy_table import as_text, layer_table, summary

        return "\n".join([as_text(layer_table(self, width), width), *summary(self)])


class EnergyScore(Metric):
    """Counts the operations of a network over all batches it sees, for its energy per sample.

    Rates differ between samples, so the figures are those of the whole part that was seen. Operations are sums and
    memories the largest that any sample needs, hence exact under distributed evaluation as long as every process has
    seen a batch. Names and order of the layers are those of the process' own passes: every process runs the same
    network. What a network computes on padding counts as any other work while attached; `count` cuts it off::

        score = EnergyScore(network)
        score.count(frames, mask)  # or, in passes of your own: with score.watch(): network(frames, mask)
        print(score.compute().table())
    """

    full_state_update = False
    counts: Tensor
    sizes: Tensor
    samples: Tensor

    def __init__(self, network: nn.Module, **kwargs: Any) -> None:
        """Creates the metric. Nothing is counted before `attach`.

        Args:
            network: Follows the `Network` contract.
            **kwargs: Passed to `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        self._parameters_of_network = sum(parameter.numel() for parameter in network.parameters())
        self._counter = [OperationCounter(network, self.update)]  # in a list: the network is no part of the metric
        # Scalar zeros that grow a row a layer.
        self.add_state("counts", torch.zeros((), dtype=torch.float64), "sum")
        self.add_state("sizes", torch.zeros((), dtype=torch.float64), "max")
        self.add_state("samples", torch.zeros((), dtype=torch.float64), "sum")

    @property
    def layers(self) -> dict[Key, Layer]:
        """The layers seen so far, in order of first use: the rows of `counts`."""
        return self._counter[0].layers

    def update(self, sums: dict[Key, list[float]], samples: int) -> None:
        """Adds one forward pass.

        Args:
            sums: The sums of `FIELDS` by layer.
            samples: Number of samples.
        """
        rows = [sums.get(key, [0.0] * len(FIELDS)) for key in self.layers]
        new = torch.tensor(rows, dtype=torch.float64, device=self.samples.device)
        if self.counts.dim():
            new[: len(self.counts)] += self.counts
        self.counts = new
        sizes = [[getattr(layer, name) for name in SIZES] for layer in self.layers.values()]
        self.sizes = torch.tensor(sizes, dtype=torch.float64, device=self.samples.device)
        self.samples = self.samples + samples

    def attach(self) -> None:
        """Starts counting every forward pass of the network."""
        self._counter[0].attach()

    def detach(self) -> None:
        """Stops counting and removes every hook."""
        self._counter[0].detach()

    def count(self, *inputs: Tensor) -> None:
        """Runs the network on a batch and counts it, every sample at its own length, as it would run by itself.

        Args:
            *inputs: What its `forward` takes, each `[T, B, ...]`; padding is what an input named `mask` says.
        """
        network = self._counter[0].network
        with self.watch():
            for samples in own_lengths(network, inputs):
                network(*samples)

    def follow(self, *inputs: Tensor) -> None:
        """Counts the pass over a batch that comes next, until `detach`; a padded batch in passes of its own, at once.

        Args:
            *inputs: As of `count`.
        """
        if is_padded(self._counter[0].network, inputs):
            self.count(*inputs)
        else:
            self.attach()

    @contextmanager
    def watch(self) -> Iterator["EnergyScore"]:
        """Counts within a `with` block."""
        self.attach()
        try:
            yield self
        finally:
            self.detach()

    def compute(self) -> EnergyReport:
        """Returns operations and energy per sample of all passes so far; no rows where there was none."""
        samples = int(self.samples)
        if not samples:
            return EnergyReport([], self._parameters_of_network, 0)
        # Of as many layers as there are counts: a reset forgets counts, not layers.
        layers = {
            key: replace(layer, **dict(zip(SIZES, sizes, strict=True)))
            for (key, layer), sizes in zip(self.layers.items(), self.sizes.tolist(), strict=False)
        }
        rows = merge(layers, self.counts.tolist(), samples)
        return EnergyReport(rows, self._parameters_of_network, samples, self._counter[0].unseen)


def measure_energy(network: nn.Module, inputs: tuple[Tensor, ...]) -> EnergyReport:
    """Runs a network once in evaluation mode and counts its operations.

    Rates depend on the inputs: give real samples. The numbers do not depend on the batch size otherwise: every sample
    counts at its own length, where an input named `mask` says what is padding.

    Args:
        network: Follows the `Network` contract.
        inputs: What its `forward` takes, each `[T, B, ...]`.

    Returns:
        The report, per sample.
    """
    score = EnergyScore(network)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            score.count(*inputs)
    finally:
        network.train(was_training)
    return score.compute()
