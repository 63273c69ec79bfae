"""Operations and energy of a network on real inputs, from every convolution and matrix product it really runs.

One mechanism sees all of them: a `TorchDispatchMode` watches the few ATen operations that multiply. It counts
functional calls with borrowed weights (SEEN's event path) as well as modules, and names each by the module that runs
and the module that owns the weight.

Conventions, as in the papers that publish such figures:

* dense MACs count border positions of a padded convolution like any other, and neither biases nor normalisation
  (folded into the convolution before it);
* an input of integers is a count of spikes and costs that many accumulates; any other input is analogue, and its
  layer costs multiply-accumulates;
* 45 nm figures of Horowitz (ISSCC 2014): 4.6 pJ a 32-bit multiply-accumulate, 0.9 pJ an accumulate.

These are estimates of arithmetic only. Memory traffic, which dominates on hardware, is not in them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import snntorch
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from sdsnn_lightning.metrics.spikes import layer_spikes

E_MAC = 4.6e-12
"""Energy of a 32-bit floating-point multiply-accumulate at 45 nm, joules (Horowitz 2014)."""
E_AC = 0.9e-12
"""Energy of a 32-bit floating-point accumulate at 45 nm, joules (Horowitz 2014)."""

Kind = Literal["silent", "binary", "integer", "analogue"]
KINDS: tuple[Kind, ...] = ("silent", "binary", "integer", "analogue")

aten = torch.ops.aten


@dataclass
class EnergyRow:
    """One layer: what runs, on what input, and how much. Counts are sums over all time steps, per sample.

    Attributes:
        layer: Dotted name of the layer; `a > b` where module `a` runs with the weights of module `b`.
        op: `conv`, `linear`, `matmul` (both operands are activations) or `neuron`.
        macs: Dense multiply-accumulates.
        synops: Accumulates that spikes cause, `macs` times the mean of |input|; 0 where the input is analogue.
        rate: Share of the input that is not zero (of a neuron: firing rate).
        events: Sum of |input|: the number of spikes that arrive (of a neuron: that leave).
        elements: Elements of the input.
        kind: What the input holds: nothing but zeros, 0 and 1, integers, or real values.
    """

    layer: str
    op: str
    macs: float = 0.0
    synops: float = 0.0
    rate: float = 0.0
    events: float = 0.0
    elements: float = 0.0
    kind: Kind = "silent"

    def add(self, macs: int, values: Tensor) -> None:
        """Adds one call of the operation; the row then holds sums over calls.

        Args:
            macs: Dense multiply-accumulates of the call.
            values: Its input.
        """
        size, events = values.numel(), values.abs().sum(dtype=torch.float64).item()
        kind = classify(values)
        self.rate = (self.rate * self.elements + int(values.count_nonzero())) / (self.elements + size)
        self.kind = max(self.kind, kind, key=KINDS.index)
        # Summed call by call, since calls of one layer may differ in size. Spikes that turn out to share a layer with
        # analogue calls are dropped in `measure_energy`.
        self.synops += macs * events / size
        self.macs, self.events = self.macs + macs, self.events + events
        self.elements += size


def classify(values: Tensor) -> Kind:
    """Says whether a tensor of any shape is all zero, holds only 0 and 1, integers (of either sign), or real values."""
    if not torch.equal(values, values.round()):
        return "analogue"
    low, high = values.aminmax()
    if low >= 0 and high <= 1:
        return "binary" if high else "silent"
    return "integer"


def paper_energy(row: EnergyRow) -> float:
    """Rule `paper`: accumulates for spiking inputs, dense MACs for analogue ones; neurons are free. Joules per sample.

    `E = E_MAC * MACs` of analogue layers `+ E_AC * sum(rate * MACs)` of the others, the usual form of SNN papers. An
    integer input counts as multiple accumulates, and attention products are included: our reading, since papers differ.
    """
    if row.op == "neuron":
        return 0.0
    return row.macs * E_MAC if row.kind == "analogue" else row.synops * E_AC


def stock_energy(row: EnergyRow) -> float:
    """Rule `syops`: what syops-counter (Chen et al. 2023) charges by default. Joules per sample.

    Binary inputs cost `rate * MACs` accumulates; everything else, integers too, full MACs. A leaky neuron
    costs one MAC and one accumulate an element. Products of two activations are invisible to it. Normalisation,
    activations, pooling and biases, which it also charges, are left out here: all but a few per cent.
    """
    if row.op == "matmul":
        return 0.0
    if row.op == "neuron":
        return row.elements * (E_MAC + E_AC)
    return row.macs * row.rate * E_AC if row.kind in ("silent", "binary") else row.macs * E_MAC


def dense_energy(row: EnergyRow) -> float:
    """Rule `dense`: the same layers run without spikes, every MAC paid. Joules per sample."""
    return row.macs * E_MAC


RULES: dict[str, Callable[[EnergyRow], float]] = {"paper": paper_energy, "syops": stock_energy, "dense": dense_energy}
"""Energy rules by the name they are reported under. A rule is a function of one row."""


@dataclass
class EnergyReport:
    """Operations and energy of one network, per sample.

    Attributes:
        rows: One entry a layer, in order of first use.
        parameters: Number of parameters of the network.
        totals: `dense_macs`, `macs` (of analogue layers), `synops`, `neuron_spikes`, `parameters` and
            `energy_<rule>_J` for every rule.
    """

    rows: list[EnergyRow]
    parameters: int
    totals: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        layers = [row for row in self.rows if row.op != "neuron"]
        self.totals = {
            "dense_macs": sum(row.macs for row in layers),
            "macs": sum(row.macs for row in layers if row.kind == "analogue"),
            "synops": sum(row.synops for row in layers),
            "neuron_spikes": sum(row.events for row in self.rows if row.op == "neuron"),
            "parameters": self.parameters,
        } | {f"energy_{name}_J": sum(map(rule, self.rows)) for name, rule in RULES.items()}

    def table(self) -> str:
        """The rows and totals as plain text, energy by rule `paper` in microjoules."""
        head = f"{'layer':<34} {'op':<7} {'input':<9} {'rate':>6} {'MACs':>10} {'SynOps':>10} {'uJ':>10}"
        lines = [head, "-" * len(head)]
        for row in self.rows:
            counts = f"{row.rate:6.3f} {_short(row.macs):>10} {_short(row.synops):>10} {paper_energy(row) * 1e6:10.3g}"
            lines.append(f"{row.layer:<34} {row.op:<7} {row.kind:<9} {counts}")
        sums = self.totals
        energies = ", ".join(f"{name} {sums[f'energy_{name}_J'] * 1e6:.4g} uJ" for name in RULES)
        return "\n".join(
            [
                *lines,
                f"total: {_short(sums['dense_macs'])} dense MACs, of which {_short(sums['macs'])} on analogue inputs; "
                f"{_short(sums['synops'])} SynOps; {_short(sums['parameters'])} parameters",
                f"energy per sample by rule (45 nm, 4.6 pJ a MAC, 0.9 pJ an AC): {energies}",
            ]
        )


def _short(count: float) -> str:
    """`1234567` -> `1.235M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:.4g}"


class _Counter(TorchDispatchMode):
    """Sees every ATen operation while a network runs, and counts those that multiply by weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.rows: dict[tuple, EnergyRow] = {}
        self.stack = [""]  # dotted names of the modules that are running, outermost first
        self.owners: dict[int, str] = {}
        for name, parameter in network.named_parameters(remove_duplicate=False):
            self.owners.setdefault(parameter.untyped_storage().data_ptr(), name.rpartition(".")[0])

    def owner(self, tensor: Tensor) -> str | None:
        """Dotted name of the module whose parameter this tensor is, or is a view of."""
        return self.owners.get(tensor.untyped_storage().data_ptr())

    def row(self, op: str, owner: str | None, shapes: tuple = ()) -> EnergyRow:
        """The row of the running module and the weight's owner; shapes tell the products of one attention apart."""
        here = self.stack[-1]
        key = (op, here, owner, shapes)
        if key not in self.rows:
            name = here or "network"
            if owner not in (None, here):
                name += f" > {owner or 'network'}"
            if op == "matmul":
                name += f" #{1 + sum(other[:2] == key[:2] for other in self.rows)}"
            self.rows[key] = EnergyRow(name, op)
        return self.rows[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet not in (aten.convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm):
            # Under inference_mode composite operations (linear, matmul, ...) arrive whole: take them apart.
            with self:
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        output = func(*args, **kwargs)
        if packet is aten.convolution:
            self.count_convolution(args, output)
        else:
            self.count_product(*(args[1:3] if packet in (aten.addmm, aten.baddbmm) else args[:2]))
        return output

    def count_convolution(self, args: tuple, output: Tensor) -> None:
        """Counts a convolution of 1 to 3 dimensions: `[N, C, *]` by `[O, C / groups, *k]`."""
        values, weight, transposed = args[0], args[1], args[6]
        # A weight holds the products of one output position [O, C/groups, *k], transposed of one input position.
        positions = prod((values if transposed else output).shape[2:]) * values.shape[0]
        self.row("conv", self.owner(weight)).add(positions * weight.numel(), values)

    def count_product(self, left: Tensor, right: Tensor) -> None:
        """Counts `[..., N, D] @ [..., D, M]`; the operand that is not a weight drives it."""
        macs = left.numel() * right.shape[-1]
        owners = self.owner(left), self.owner(right)
        if all(owner is not None for owner in owners):
            return  # weights multiplied with weights: done once, not once a sample
        if owners == (None, None):
            row = self.row("matmul", None, (*left.shape, *right.shape))
            # Spikes on either side suffice to replace the multiplications by accumulates.
            row.add(macs, right if classify(left) == "analogue" else left)
        else:
            row = self.row("linear", owners[1] if owners[0] is None else owners[0])
            row.add(macs, left if owners[0] is None else right)


def measure_energy(network: nn.Module, inputs: tuple[Tensor, ...]) -> EnergyReport:
    """Runs a network once in evaluation mode and counts its operations.

    Rates depend on the inputs: give real samples, a batch of 32 is plenty. The numbers do not depend on the batch size
    otherwise.

    Args:
        network: Follows the `Network` contract.
        inputs: What its `forward` takes, each `[T, B, ...]` (`[B, ...]` for a network without time).

    Returns:
        The report, per sample.
    """
    counter = _Counter(network)

    def enter(name: str) -> Callable:
        return lambda *call: counter.stack.append(name)

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, snntorch.Leaky):
            counter.row("neuron", None).add(0, layer_spikes(module, output))
        counter.stack.pop()

    hooks = []
    for name, module in network.named_modules():
        hooks += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    was_training = network.training
    network.eval()
    try:
        # Fused attention would hide its two products, so the plain one is asked for.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            output = network(*inputs)
    finally:
        network.train(was_training)
        for handle in hooks:
            handle.remove()
    batch = output.logits.shape[-2]
    rows = list(counter.rows.values())
    for row in rows:
        row.synops = 0.0 if row.kind == "analogue" else row.synops
        for count in ("macs", "synops", "events", "elements"):
            setattr(row, count, getattr(row, count) / batch)
    return EnergyReport(rows, sum(parameter.numel() for parameter in network.parameters()))
