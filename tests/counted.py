"""Networks whose operations are known: for the tests of the meters."""

from typing import ClassVar

import snntorch
from torch import nn

from sdsnn_lightning.types import Output


class Net(nn.Module):
    """A network whose forward is given as a function of itself and `[T, B, ...]`."""

    inputs: ClassVar[tuple[str, ...]] = ("frames",)

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return Output(self.run(self, x), {})


class Fires(snntorch.Leaky):
    """A multi-step layer that passes on where its input is positive."""

    def forward(self, current):
        return (current > 0).float()
