"""Small spiking networks that the exports are tested with, and the run of one of them."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from sdsnn_lightning.neurons import Leaky
from sdsnn_lightning.types import Output

RUN = """
name: spiking
data: {class_path: toy.ToyData}
model:
  class_path: sdsnn_lightning.Distiller
  init_args:
    student: {class_path: nets.SpikingToy, init_args: {hidden: 12}}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [{class_path: sdsnn_lightning.strategies.TemporalSpatialSelfDistillation, init_args: {steps: 2}}]
"""


class SpikingToy(nn.Module):
    """Linear, batch norm, neurons, linear."""

    inputs: ClassVar[tuple[str, ...]] = ("x",)

    def __init__(self, num_classes: int, hidden: int = 12) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(6, hidden), nn.BatchNorm1d(hidden)
        self.lif = Leaky(beta=0.8, threshold=0.5, reset_mechanism="zero")
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Output:
        spikes = self.lif(self.norm(self.hidden(x.flatten(0, 1))).unflatten(0, x.shape[:2]))
        return Output(self.head(spikes), {"hidden": spikes})

    def readout(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1).sum(0)


class TinyConv(nn.Module):
    """Convolution, batch norm, neurons with a beta a channel, pooling, a residual sum, linear."""

    inputs: ClassVar[tuple[str, ...]] = ("frames",)

    def __init__(self, num_classes: int, reset: str = "zero", pool: nn.Module | None = None) -> None:
        super().__init__()
        beta = torch.tensor([0.3, 0.9, 0.55, 0.97])[:, None, None]
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.lif1 = Leaky(beta=beta, threshold=0.4, reset_mechanism=reset)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.lif2 = Leaky(beta=1.0, threshold=0.7, reset_mechanism=reset)
        self.pool = nn.AvgPool2d(2) if pool is None else pool
        self.fc = nn.Linear(4 * 16, num_classes)

    def forward(self, frames: Tensor) -> Output:
        leading = frames.shape[:2]
        one = self.lif1(self.norm(self.conv(frames.flatten(0, 1))).unflatten(0, leading))
        two = self.lif2(self.conv2(one.flatten(0, 1)).unflatten(0, leading))
        pooled = self.pool((one + two).flatten(0, 1)).flatten(1)
        return Output(self.fc(pooled).unflatten(0, leading), {"one": one, "two": two})

    def readout(self, logits: Tensor) -> Tensor:
        return logits.mean(0)


class Centred(SpikingToy):
    """Subtracts the mean over time, hence the future."""

    def forward(self, x: Tensor) -> Output:
        return super().forward(x - x.mean(0))


def awake(network: nn.Module, *inputs: Tensor) -> nn.Module:
    """Gives batch norms the statistics of the inputs, so that neurons fire."""
    with torch.no_grad():
        for _ in range(30):
            network.train()(*inputs)
    return network.eval()
