"""The layers of a traced network as NIR nodes, one operation after the other."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from sdsnn_lightning.exports.nir_neurons import neuron_node, refusal
from sdsnn_lightning.exports.nir_read import pair
from sdsnn_lightning.exports.step_neurons import StepIntegrate, StepNeuron

if TYPE_CHECKING:
    import nir

NEURONS = (StepNeuron, StepIntegrate)
SILENT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
RESHAPES = ("flatten", "unflatten", "reshape", "view", "squeeze", "unsqueeze", "contiguous", "float", "to")


class GraphMaker(fx.Interpreter):
    """Runs a traced network on one frame and notes the NIR node that every tensor comes from.

    Attributes:
        nodes: NIR nodes by name.
        edges: From node to node; several into one are added up, which is how NIR states a sum.
        lacking: What NIR has no node for.
    """

    def __init__(self, module: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(module)
        self.wanted = wanted
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.lacking: dict[str, None] = {}
        self.sources: dict[fx.Node, tuple[str, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Runs one operation, and translates it where the logits depend on it."""
        result = super().run_node(n)
        if n in self.wanted and n.op not in ("output", "get_attr"):
            self._translate(n, result)
        return result

    def _translate(self, n: fx.Node, result: Any) -> None:
        if n.op == "placeholder":
            import nir

            self._add(n, nir.Input({"input": np.array(sample_shape(result))}), (), "input")
            return
        before = [self.sources[node] for node in n.all_input_nodes if node in self.sources]
        if not before or not _holds_tensor(result):
            return  # a shape, or a number made of one
        if n.op == "call_module":
            self._layer(n, self.module.get_submodule(str(n.target)), before[0], result)
            return
        name = n.target if isinstance(n.target, str) else getattr(n.target, "__name__", str(n.target))
        if name in ("add", "iadd", "__add__") and len(before) == 2 and not set(before[0]) & set(before[1]):
            self.sources[n] = before[0] + before[1]
        elif name == "getitem" and isinstance(self._value(n.args[0]), tuple):
            if n.args[1] != 0:
                self._lack(f"the membrane of {n.args[0]} as an output")
            self.sources[n] = before[0]
        elif name == "getitem" or name in RESHAPES:
            self._reshape(n, before[0], result)
        elif name == "mean" and _over_the_map(n, self._value(n.args[0])):
            map_ = self._value(n.args[0])
            self._pool(n, before[0], tuple(map_.shape[-2:]), tuple(map_.shape[-2:]), (0, 0))
            self._flatten(n, self.sources[n], (*sample_shape(map_)[:-2], 1, 1))
        elif name in ("dropout", "dropout1d", "dropout2d"):
            self.sources[n] = before[0]  # evaluation mode: nothing is dropped
        else:
            self._lack(f"{name} in {_place(n)}")
            self.sources[n] = before[0]

    def _value(self, node: Any) -> Any:
        return self.env.get(node) if isinstance(node, fx.Node) else node

    def _layer(self, n: fx.Node, layer: nn.Module, before: tuple[str, ...], result: Any) -> None:
        """Translates one module; its dotted name is the node's."""
        import nir

        x = self._value(n.args[0])
        if isinstance(layer, SILENT):
            self.sources[n] = before
        elif isinstance(layer, NEURONS):
            why = refusal(layer)
            if why is not None or isinstance(layer, StepIntegrate):
                self._lack(f"{why} of {n.target}")
                self.sources[n] = before
            else:
                self._add(n, neuron_node(layer, sample_shape(x)), before)
        elif isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and len(set(layer.kernel_size)) == 1:
            bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
            padding = layer.padding if isinstance(layer.padding, str) else tuple(layer.padding)
            node = nir.Conv2d(
                tuple(x.shape[-2:]), _array(_ungrouped(layer)), tuple(layer.stride), padding, tuple(layer.dilation),
                1, _array(bias),
            )  # fmt: skip
            self._add(n, node, before)
        elif isinstance(layer, nn.Linear) and len(sample_shape(x)) == 1:
            bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
            self._add(n, nir.Affine(weight=_array(layer.weight), bias=_array(bias)), before)
        elif isinstance(layer, NORMS):
            self._fold(n, layer, before)
        elif isinstance(layer, nn.AvgPool2d) and not layer.ceil_mode and layer.divisor_override is None:
            self._pool(n, before, pair(layer.kernel_size), pair(layer.stride), pair(layer.padding))
        elif isinstance(layer, nn.AdaptiveAvgPool2d) and not _uneven(x, result):
            kernel = tuple(a // b for a, b in zip(x.shape[-2:], result.shape[-2:], strict=True))
            self._pool(n, before, kernel, kernel, (0, 0))
        elif isinstance(layer, nn.Flatten):
            self._reshape(n, before, result)
        else:
            uneven = isinstance(layer, nn.AdaptiveAvgPool2d)
            why = f" from {tuple(x.shape[-2:])} to {tuple(result.shape[-2:])}, which do not divide" if uneven else ""
            self._lack(f"{type(layer).__name__}{why} ({n.target})")
            self.sources[n] = before

    def _fold(self, n: fx.Node, norm: Any, before: tuple[str, ...]) -> None:
        """Folds batch norm into the one convolution or linear layer before it."""
        node: Any = self.nodes.get(before[0]) if len(before) == 1 else None
        taken = any(edge[0] == before[0] for edge in self.edges)  # another layer reads it without the norm
        if node is None or taken or not hasattr(node, "weight"):
            self._lack(f"{type(norm).__name__} ({n.target}) that follows no convolution or linear layer")
        else:
            fuse: Any = fuse_conv_bn_weights if node.weight.ndim == 4 else fuse_linear_bn_weights
            weight, bias = fuse(
                torch.from_numpy(node.weight).double(), torch.from_numpy(node.bias).double(),
                norm.running_mean.double(), norm.running_var.double(), norm.eps,
                None if norm.weight is None else norm.weight.double(),
                None if norm.bias is None else norm.bias.double(),
            )  # fmt: skip
            node.weight, node.bias = _array(weight.float()), _array(bias.float())
        self.sources[n] = before

    def _pool(
        self,
        n: fx.Node,
        before: tuple[str, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pad: tuple[int, ...],
    ) -> None:
        import nir

        node = nir.AvgPool2d(kernel_size=np.array(kernel), stride=np.array(stride), padding=np.array(pad))
        self._add(n, node, before)

    def _reshape(self, n: fx.Node, before: tuple[str, ...], result: Tensor) -> None:
        """Time and batch may be folded as the network likes; of a sample, only flattening it whole is known."""
        old, new = sample_shape(self._value(n.args[0])), sample_shape(result)
        if old == new:
            self.sources[n] = before
        elif len(new) == 1 and new[0] == int(np.prod(old)):
            self._flatten(n, before, old)
        else:
            self._lack(f"reshaping {old} to {new} in {_place(n)}")
            self.sources[n] = before

    def _flatten(self, n: fx.Node, before: tuple[str, ...], shape: tuple[int, ...]) -> None:
        import nir

        node = nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1)
        self._add(n, node, before, f"{n.name}_flat")

    def _add(self, n: fx.Node, node: Any, before: tuple[str, ...], name: str | None = None) -> None:
        """Adds a node behind others; a layer that is used twice is a second node."""
        chosen = base = (str(n.target) if n.op == "call_module" else str(n.name)) if name is None else name
        while chosen in self.nodes:
            chosen = f"{base}_{len(self.nodes)}"
        self.nodes[chosen] = node
        self.edges += [(source, chosen) for source in before]
        self.sources[n] = (chosen,)

    def _lack(self, what: str) -> None:
        self.lacking[what] = None


def _place(n: fx.Node) -> str:
    """The module whose code an operation stands in."""
    stack = list((n.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack and stack[-1][0] else "forward"


def _holds_tensor(result: Any) -> bool:
    return isinstance(result, Tensor) or (isinstance(result, tuple) and any(isinstance(r, Tensor) for r in result))


def sample_shape(x: Any) -> tuple[int, ...]:
    """Shape of one sample of `[1, 2, ...]` or `[2, ...]`, whatever of time and batch is folded."""
    shape = tuple((x[0] if isinstance(x, tuple) else x).shape)
    return shape[2:] if shape[0] == 1 else shape[1:]


def _over_the_map(n: fx.Node, x: Any) -> bool:
    """Whether a mean runs over height and width of `[..., H, W]`, nothing kept."""
    dims = n.args[1] if len(n.args) > 1 else n.kwargs.get("dim")
    if not isinstance(x, Tensor) or not isinstance(dims, tuple | list) or n.kwargs.get("keepdim") or len(n.args) > 2:
        return False
    return sorted(d % x.ndim for d in dims) == [x.ndim - 2, x.ndim - 1] and len(sample_shape(x)) == 3


def _uneven(x: Tensor, result: Tensor) -> bool:
    return any(a % b for a, b in zip(x.shape[-2:], result.shape[-2:], strict=True))


def _ungrouped(layer: nn.Conv2d) -> Tensor:
    """Weights `[out, in, k, k]`, zero between groups: nir 1.0 gets the types of a convolution in groups wrong."""
    if layer.groups == 1:
        return layer.weight
    blocks = layer.weight.detach().new_zeros(layer.out_channels, layer.in_channels, *layer.kernel_size)
    rows, columns = layer.out_channels // layer.groups, layer.in_channels // layer.groups
    for group, weights in enumerate(layer.weight.detach().split(rows)):
        blocks[group * rows : (group + 1) * rows, group * columns : (group + 1) * columns] = weights
    return blocks


def _array(value: Tensor) -> np.ndarray:
    return np.ascontiguousarray(value.detach().numpy())
