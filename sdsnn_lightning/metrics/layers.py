"""One operation of a network: what it is, how large its memories are, and how much of it ran."""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor, nn

from sdsnn_lightning.metrics.activity import Activity, Kind

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm,
         nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)  # fmt: skip
ACTIVATIONS = (nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6, nn.GELU)
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
         nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
         nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)  # fmt: skip
OTHERS = dict.fromkeys(NORMS, "norm") | dict.fromkeys(POOLS, "pool") | dict.fromkeys(ACTIVATIONS, "activation")
OTHERS[nn.Upsample] = "upsample"
"""Modules that only some energy rules charge; by exact type, as syops-counter does."""
UNWEIGHED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
"""Modules whose weights are looked up or multiply element by element: there is no product to count."""


class Key(NamedTuple):
    """Tells the layers of one network apart.

    Attributes:
        op: As of `Layer`.
        module: Dotted name of the module that runs.
        owner: Dotted name of the module whose weights are used; None without weights.
        detail: For a product of two activations, where it was called and which operand this is.
    """

    op: str
    module: str
    owner: str | None = None
    detail: tuple[Hashable, ...] = ()


@dataclass
class Layer:
    """What does not depend on the samples: one operation of the network and the sizes of its memories in words.

    Attributes:
        name: Dotted name of the layer; `a > b` where module `a` runs with the weights of module `b`.
        op: `conv`, `linear`, `matmul` (both operands are activations), `neuron`, `norm`, `pool`, `activation` or
            `upsample`.
        fanout: Weights that one input element meets; for a convolution out-channels of its group times kernel size, in
            a product of activations the mean over the spikes.
        strided_fanout: The same with each side of the kernel divided by the stride and rounded up.
        parameter_words: Weights and biases; of a product of activations the other operand; of a normalisation its
            channels.
        input_words: Input elements of one sample and time step.
        output_words: Output elements of one sample and time step; of neurons their number.
        bias: Whether a bias is added.
        leaky: Whether the neurons leak.
    """

    name: str
    op: str
    fanout: float = 0.0
    strided_fanout: float = 0.0
    parameter_words: float = 0.0
    input_words: float = 0.0
    output_words: float = 0.0
    bias: bool = False
    leaky: bool = False


FIELDS = ("macs", "elements", "outputs", "kernel_steps", "synops", "nonzero", "events", "analogue", "integer",
          "stock_macs", "stock_acs")  # fmt: skip
"""What is summed over all calls of a layer and all samples."""
SIZES = ("parameter_words", "input_words", "output_words")
"""What is the largest of all calls of a layer and all samples."""


@dataclass
class LayerOperations(Layer):
    """One layer and how much of it ran: all counts are sums over time steps, per sample.

    Attributes:
        macs: Dense multiply-accumulates.
        synops: Accumulates that spikes cause, `macs` times the mean of |input|; 0 where the input is analogue.
        events: Spikes that arrive (of a neuron: that leave), k of them for an integer k; 0 where the input is analogue.
        elements: Elements of the input.
        outputs: Elements of the output.
        kernel_steps: Out-channels times kernel size, once a time step; 0 but for convolutions.
        rate: Share of the input that is not zero (of a neuron: firing rate).
        kind: What the input holds: nothing but zeros, 0 and 1, integers, or real values.
        stock_macs: Multiply-accumulates that syops-counter charges.
        stock_acs: Accumulates that syops-counter charges.
    """

    macs: float = 0.0
    synops: float = 0.0
    events: float = 0.0
    elements: float = 0.0
    outputs: float = 0.0
    kernel_steps: float = 0.0
    rate: float = 0.0
    kind: Kind = "silent"
    stock_macs: float = 0.0
    stock_acs: float = 0.0


@dataclass
class Call:
    """One call of a layer; `values` is what its input (of neurons: output) holds."""

    key: Key
    values: Tensor
    macs: int = 0
    elements: int = 0
    outputs: int = 0
    kernel_steps: int = 0
    stock: int = 0  # operations syops-counter charges, as accumulates or multiply-accumulates
    always_accumulates: bool = False

    def counts(self, values: Activity) -> list[float]:
        """The summands of the call, in the order of `FIELDS`."""
        size = max(1, self.elements)
        if self.always_accumulates:
            stock = [0.0, float(self.stock)]
        else:
            stock = [self.stock * (1 - values.two_valued), self.stock * values.mean]
        synops = self.macs * values.spikes / size
        return [self.macs, self.elements, self.outputs, self.kernel_steps, synops, values.nonzero, values.spikes,
                values.analogue, values.integer, *stock]  # fmt: skip


def merge(layers: dict[Key, Layer], counts: list[list[float]], samples: float) -> list[LayerOperations]:
    """Turns the sums over all samples into one entry a layer, per sample.

    A layer with one analogue call is analogue as a whole. Of the two operands of a product of activations the one that
    spikes drives it, the left one where both do.

    Args:
        layers: The layers in order of first use.
        counts: Their sums of `FIELDS`, in the same order.
        samples: Number of samples.

    Returns:
        One entry a layer, in order of first use.
    """
    found: dict[Key, LayerOperations] = {}
    for (key, layer), row in zip(layers.items(), counts, strict=True):
        sums = {name: value / samples for name, value in zip(FIELDS, row, strict=True)}
        rate = sums.pop("nonzero") / sums["elements"] if sums["elements"] else 0.0
        analogue, integer = sums.pop("analogue"), sums.pop("integer")
        kind: Kind = "analogue" if analogue else "integer" if integer else "binary" if sums["events"] else "silent"
        if key.op == "matmul" and sums["events"]:  # the other operand may be longer in one sample than in another
            layer = replace(layer, fanout=sums["synops"] / sums["events"])
            layer.strided_fanout = layer.fanout
        if analogue:
            sums["synops"] = sums["events"] = 0.0
        found[key] = LayerOperations(**vars(layer), **sums, rate=rate, kind=kind)  # type: ignore[arg-type]
    merged: dict[Key, LayerOperations] = {}
    numbers: dict[str, int] = {}
    for key, entry in found.items():
        if key.op == "matmul":
            site = key.detail[:-1]
            left, right = (found.get(key._replace(detail=(*site, side))) for side in ("left", "right"))
            key = key._replace(detail=site)
            if key not in merged:
                numbers[key.module] = numbers.get(key.module, 0) + 1
                driver = right if left is None or (right is not None and left.kind == "analogue") else left
                assert driver is not None  # a product has at least one operand that is written out
                driver.name += f" #{numbers[key.module]}"
                merged[key] = driver
        else:
            merged[key] = entry
    return list(merged.values())
