"""Counts what a network really computes: every convolution and matrix product, its input, and every neuron.

A `TorchDispatchMode` watches the few ATen operations that multiply. It sees functional calls with borrowed weights
(SEEN's event path) as well as modules, and names each by the module that runs and the module that owns the weight. It
is on only while the watched network runs. Kernels that do many products in one call (`nn.LSTM`, the fast path of
`nn.TransformerEncoderLayer`) are switched off meanwhile. What still is not seen is named: `OperationCounter.unseen`.

Conventions, as in the papers that publish such figures: dense MACs count border positions of a padded convolution like
any other, and neither biases nor normalisation (folded into the convolution before it); an input of integers is a
count of spikes, any other input that is not binary is analogue.
"""

from collections.abc import Callable, Hashable
from contextlib import ExitStack
from functools import partial
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from sdsnn_lightning.metrics.activity import Activity, activity
from sdsnn_lightning.metrics.layers import FIELDS, OTHERS, UNWEIGHED, WEIGHTED, Call, Key, Layer
from sdsnn_lightning.metrics.shown_products import call_site, without_fused_products
from sdsnn_lightning.metrics.spikes import layer_spikes, spiking_layers

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.mv, aten.addmv)
FUSED_ATTENTION = (
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
)


class OperationCounter(TorchDispatchMode):
    """Counts the operations of one network in every forward pass between `attach` and `detach`."""

    def __init__(self, network: nn.Module, deliver: Callable[[dict[Key, list[float]], int], Any]) -> None:
        """Prepares the counter; nothing is counted before `attach`.

        Args:
            network: Follows the `Network` contract: inputs `[T, B, ...]`.
            deliver: Is called after every pass with the sums of `FIELDS` by layer, and the number of samples.
        """
        super().__init__()
        self.network, self.deliver = network, deliver
        self.layers: dict[Key, Layer] = {}
        self._modules = dict(network.named_modules())
        self._neurons = list(spiking_layers(network).values())
        self._owners: dict[int, str] = {}
        self._casts: dict[int, tuple[str, Tensor]] = {}
        self._hooks: list[RemovableHandle] = []
        self._ran: set[str] = set()
        self._recurs = any(isinstance(module, nn.RNNBase) for module in self._modules.values())
        self._fused = ExitStack()  # switches fused kernels on again
        self._running = False

    def attach(self) -> None:
        """Starts counting."""
        self.detach()
        # By storage, since a weight arrives as a view of itself. Taken now: the network may have been moved.
        self._owners.clear()
        for name, parameter in self.network.named_parameters(remove_duplicate=False):
            self._owners.setdefault(parameter.untyped_storage().data_ptr(), name.rpartition(".")[0])
        self._hooks.append(self.network.register_forward_pre_hook(self._begin))
        for name, module in self._modules.items():
            self._hooks.append(module.register_forward_pre_hook(partial(self._enter, name=name)))
            self._hooks.append(module.register_forward_hook(self._leave))
        self._hooks.append(self.network.register_forward_hook(self._finish, always_call=True))

    def detach(self) -> None:
        """Stops counting and removes every hook."""
        while self._hooks:
            self._hooks.pop().remove()

    def _begin(self, module: nn.Module, inputs: tuple) -> None:
        first = [x for x in inputs if isinstance(x, Tensor)]
        self._steps, self._batch = max(x.shape[0] for x in first), first[0].shape[1]
        self._stack: list[str] = []  # dotted names of the modules that are running, outermost first
        self._calls: list[Call] = []
        self._sizes: dict[Key, tuple[float, float, int]] = {}
        self._scores = 0  # address of the last softmax
        self._casts.clear()
        self._fused = without_fused_products(self._recurs)
        self._running = True
        self.__enter__()

    def _enter(self, module: nn.Module, inputs: tuple, name: str) -> None:
        self._stack.append(name)
        self._ran.add(name)

    def _leave(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        name = self._stack.pop()
        if any(module is neuron for neuron in self._neurons):
            self._count_neurons(name, module, output)
        elif type(module) in OTHERS:
            self._count_other(name, module, inputs[0], output)

    def _finish(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        """Also runs when the pass fails, then without an output."""
        if not self._running:
            return
        self._running = False
        self.__exit__(None, None, None)
        self._fused.close()
        self._casts.clear()
        if output is None:
            return
        logits = getattr(output, "logits", output)
        timed = isinstance(logits, Tensor) and logits.dim() == 3
        for key, (inputs_a_sample, outputs_a_sample, folded) in self._sizes.items():
            # A network without time holds a whole sample at once, one with time what belongs to a step.
            layer, steps = self.layers[key], folded if timed else 1
            layer.input_words = max(layer.input_words, inputs_a_sample / steps)
            layer.output_words = max(layer.output_words, outputs_a_sample / steps)
        measured = torch.stack([call.values for call in self._calls]).tolist() if self._calls else []  # one wait
        sums: dict[Key, list[float]] = {}
        for call, values in zip(self._calls, measured, strict=True):
            row = sums.setdefault(call.key, [0.0] * len(FIELDS))
            row[:] = [a + b for a, b in zip(row, call.counts(Activity(*values)), strict=True)]
        self.deliver(sums, self._batch)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet not in (aten.convolution, *PRODUCTS, *FUSED_ATTENTION):
            # Under inference_mode composite operations (linear, matmul, ...) arrive whole: take them apart.
            with self:
                parts = func.decompose(*args, **kwargs)
            output = func(*args, **kwargs) if parts is NotImplemented else parts
            if packet in (aten._softmax, aten._safe_softmax):
                self._scores = output.data_ptr()
            elif packet is aten._to_copy and (owner := self._owner(args[0])) is not None:
                # Autocast hands layers a copy of their weight. Kept for the pass, or another tensor takes its address.
                self._casts[output.untyped_storage().data_ptr()] = owner, output
            return output
        output = func(*args, **kwargs)
        if packet is aten.convolution:
            self._count_convolution(args, output)
        elif packet in FUSED_ATTENTION:
            self._count_attention(*args[:3])
        else:
            left, right = args[:2] if packet in (aten.mm, aten.bmm, aten.mv) else args[1:3]
            self._count_product(left, right if right.dim() > 1 else right.unsqueeze(-1))
        return output

    @property
    def unseen(self) -> list[str]:
        """Names of the modules that ran with a matrix of weights of which no product was seen."""
        seen = {key.owner for key in self.layers}
        return [
            name
            for name, module in self._modules.items()
            if name in self._ran - seen
            and not isinstance(module, UNWEIGHED)
            and any(x.dim() > 1 and "weight" in key for key, x in module.named_parameters(recurse=False))
        ]

    def _owner(self, tensor: Tensor) -> str | None:
        """Dotted name of the module whose parameter this tensor is, or is a view or a cast of."""
        address = tensor.untyped_storage().data_ptr()
        cast = self._casts.get(address)
        return self._owners.get(address) if cast is None else cast[0]

    def _layer(self, op: str, owner: str | None, detail: tuple[Hashable, ...] = ()) -> tuple[Key, Layer]:
        """The layer of the running module and the weight's owner; the detail tells products of one module apart."""
        here = self._stack[-1]
        key = Key(op, here, owner, detail)
        if key not in self.layers:
            name = here or "network"
            if owner not in (None, here):
                name += f" > {owner or 'network'}"
            self.layers[key] = Layer(name, op)
        return key, self.layers[key]

    def _resize(self, key: Key, elements: float, outputs: float, folded: int) -> None:
        """Notes the largest input and output of one sample; `folded` is the number of steps in them."""
        old = self._sizes.get(key, (0.0, 0.0, 1))
        self._sizes[key] = (max(old[0], elements), max(old[1], outputs), max(old[2], folded))

    def _folded(self, rows: int) -> int:
        """How many time steps an axis of `rows` holds beside the batch: `T` of `[T * B, ...]`."""
        return self._steps if rows % (self._steps * self._batch) == 0 else 1

    def _count_convolution(self, args: tuple, output: Tensor) -> None:
        """Counts a convolution of 1 to 3 dimensions: `[N, C, *]` by `[O, C / groups, *k]`."""
        values, weight, bias, stride, transposed = args[0], args[1], args[2], args[3], args[6]
        owner = self._owner(weight)
        key, layer = self._layer("conv", owner)
        # A weight holds the products of one output position [O, C/groups, *k], transposed of one input position.
        positions = prod((values if transposed else output).shape[2:]) * values.shape[0]
        channels = weight.shape[1] if transposed else weight.shape[0] // args[8]
        kernel = weight.shape[2:]
        layer.fanout, layer.bias = channels * prod(kernel), bias is not None
        layer.strided_fanout = channels * prod(ceil(k / s) for k, s in zip(kernel, stride, strict=True))
        layer.parameter_words = weight.numel() + (0 if bias is None else bias.numel())
        folded = self._folded(values.shape[0])
        if output.dim() == 3 and output.shape[-1] == self._steps and values.shape[0] == self._batch:
            folded = self._steps  # a convolution over time
        if values.shape[0] == 1 and output.shape[2:] == (self._steps, self._batch):
            folded = self._steps  # the same, with time and batch as the two sides of one image
        self._resize(key, values.numel() / self._batch, output.numel() / self._batch, folded)
        stock = 0
        if self._is_own(owner):
            stock = prod(output.shape[2:]) * values.shape[0] * (weight.numel() + (output.shape[1] if layer.bias else 0))
        call = Call(key, activity(values), positions * weight.numel(), values.numel(), output.numel(), stock=stock)
        call.kernel_steps = output.shape[1] * prod(kernel) * folded * self._batch
        self._calls.append(call)

    def _count_product(self, left: Tensor, right: Tensor) -> None:
        """Counts `[..., N, D] @ [..., D, M]`; the operand that is not a weight drives it."""
        macs = left.numel() * right.shape[-1]
        owners = self._owner(left), self._owner(right)
        if all(owner is not None for owner in owners):
            return  # weights multiplied with weights: done once, not once a sample
        if owners == (None, None):
            self._count_activations(left, right, macs, left.data_ptr() == self._scores)
            return
        owner = owners[1] if owners[0] is None else owners[0]
        values, weight, fanout = (left, right, right.shape[-1]) if owners[0] is None else (right, left, left.shape[0])
        key, layer = self._layer("linear", owner)
        module = self._modules.get(owner or "")
        bias = getattr(module, "bias", None)
        layer.bias = isinstance(bias, Tensor) or bias is True  # a recurrent layer only says whether
        layer.fanout = layer.strided_fanout = fanout
        outputs = macs // left.shape[-1]
        held = min(weight.numel(), weight.untyped_storage().nbytes() // weight.element_size())  # it may be expanded
        layer.parameter_words = held + (fanout if layer.bias else 0)
        folded = self._folded(values.numel() // left.shape[-1])
        self._resize(key, values.numel() / self._batch, outputs / self._batch, folded)
        stock = macs + (fanout if layer.bias else 0) if self._is_own(owner) else 0
        self._calls.append(Call(key, activity(values), macs, values.numel(), outputs, stock=stock))

    def _count_attention(self, query: Tensor, keys: Tensor, values: Tensor) -> None:
        """Counts the two products of a fused attention, `[..., N, D]` by `[..., M, D]` and scores by `[..., M, V]`."""
        scores = query.numel() // query.shape[-1] * keys.shape[-2]
        self._count_activations(query, keys.transpose(-1, -2), scores * query.shape[-1], False)
        self._count_activations(None, values, scores * values.shape[-1], True)

    def _count_activations(self, left: Tensor | None, right: Tensor, macs: int, scores: bool) -> None:
        """Counts a product of two activations; which of them drives it is decided once both are known (`merge_sides`).

        Args:
            left: `[..., N, D]`, or None for attention scores that are never written out: real values.
            right: `[..., D, M]`.
            macs: Multiply-accumulates.
            scores: Whether the left operand came out of a softmax.
        """
        site = (*call_site(), scores)
        outputs = macs // right.shape[-2]
        for side, values in (("left", left), ("right", right)):
            if values is None:
                continue
            other = right if side == "left" else left
            key, layer = self._layer("matmul", None, (*site, side))
            # A row or a column of the other operand takes the place of the weights.
            held = macs / outputs * macs / values.numel() if other is None else other.shape[-1] * other.shape[-2]
            layer.parameter_words = max(layer.parameter_words, held)
            size = values.numel()
            self._resize(key, size / self._batch, outputs / self._batch, self._folded(size // right.shape[-2]))
            self._calls.append(Call(key, activity(values), macs, size, outputs))

    def _count_neurons(self, name: str, neuron: nn.Module, output: Any) -> None:
        spikes = layer_spikes(neuron, output)
        key = Key("neuron", name)
        if key not in self.layers:
            leaky = bool(torch.as_tensor(neuron.beta != 1).any())
            self.layers[key] = Layer(name or "neuron", "neuron", leaky=leaky, output_words=spikes[0, 0].numel())
        size = spikes.numel()
        self._calls.append(
            Call(key, activity(spikes), 0, size, size, stock=size, always_accumulates=True)  # one accumulate each
        )

    def _count_other(self, name: str, module: nn.Module, values: Tensor, output: Tensor) -> None:
        """Counts what syops-counter (0.0.3 to 0.0.5) charges for modules without products.

        It looks at the input of a normalisation or pooling, counting a normalisation with affine parameters twice, and
        at the first entry of an activation's or upsampling's output.
        """
        op = OTHERS[type(module)]
        if op in ("norm", "pool"):
            stock = values.numel() * (2 if op == "norm" and getattr(module, "affine", False) else 1)
        else:
            stock = output[0].numel() if op == "upsample" else output.numel()
        looked_at = values if op in ("norm", "pool") else output[0]
        key = Key(op, name)
        if key not in self.layers:
            words = sum(parameter.numel() for parameter in module.parameters(recurse=False)) / 2
            self.layers[key] = Layer(name, op, parameter_words=words)
        self._calls.append(
            Call(key, activity(looked_at, only_two_valued=True), 0, values.numel(), output.numel(), stock=stock)
        )

    def _is_own(self, owner: str | None) -> bool:
        """Whether a module of syops-counter's list runs with its own weights; it is blind to functional calls."""
        return owner == self._stack[-1] and type(self._modules[owner]) in WEIGHTED
