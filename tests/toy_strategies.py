"""Two small experiments that every strategy's overlay is laid over: spiking maps, and spiking vectors over time."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from sdsnn_lightning.data.base import DataModule
from sdsnn_lightning.networks.sew_resnet import ConvNeuron
from sdsnn_lightning.types import Output, View


class Blobs(Dataset):
    """Noise with one feature of the last axis raised by class."""

    def __init__(self, shape: tuple[int, ...], classes: int, count: int = 16) -> None:
        self.target = torch.arange(count) % classes
        self.x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
        for k in range(classes):
            self.x[self.target == k, ..., k] += 1.0

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "target": self.target[index]}


class ToyBlobs(DataModule):
    """`x` stored at the teacher's 8 time steps; the student sees `steps` of them, neighbours summed."""

    modality: ClassVar[str]
    shape: ClassVar[tuple[int, ...]]

    def __init__(self, steps: int = 4, teacher_steps: int = 8, batch_size: int = 4) -> None:
        super().__init__(batch_size)
        self.class_names = ["a", "b", "c"]
        self.steps, self.teacher_steps = steps, teacher_steps
        self.input_shapes = {self.modality: (steps, *self.shape)}
        self.find_source("nowhere", "simulated", "unused")

    def setup(self, stage: str) -> None:
        self.train_set = self.val_set = self.test_set = Blobs((8, *self.shape), self.num_classes)

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        student, teacher = (sample["x"].unflatten(1, (n, -1)).sum(2) for n in (self.steps, self.teacher_steps))
        return {self.modality: student}, {self.modality: teacher}


class ToyEvents(ToyBlobs):
    """Event frames `[T, 2, 8, 8]`."""

    modality = "events"
    shape = (2, 8, 8)


class ToySound(ToyBlobs):
    """Spectrograms `[T, 8]`."""

    modality = "audio"
    shape = (8,)


class SpikingMaps(nn.Module):
    """Two spiking convolutions, pooling and a read-out at every step."""

    inputs: ClassVar[tuple[str, ...]] = ("events",)

    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.layer1 = ConvNeuron(2, width, 3, 1, 0.5)
        self.layer2 = ConvNeuron(width, 2 * width, 3, 2, 0.5)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, events: Tensor) -> Output:
        features = {"layer1": self.layer1(events)}
        features["layer2"] = self.layer2(features["layer1"])
        features["pooled"] = features["layer2"].mean((-2, -1))
        return Output(self.fc(features["pooled"]), features)

    def readout(self, logits: Tensor) -> Tensor:
        return logits.mean(0)


class FrameMaps(nn.Module):
    """The same without spikes, every frame by itself, wider."""

    inputs: ClassVar[tuple[str, ...]] = ("events",)

    def __init__(self, num_classes: int, width: int = 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, events: Tensor) -> Output:
        leading = events.shape[:2]
        one = self.conv1(events.flatten(0, 1)).relu()
        two = self.conv2(one).relu()
        maps = {"layer1": one.unflatten(0, leading), "layer2": two.unflatten(0, leading)}
        pooled = maps["layer2"].mean((-2, -1))
        return Output(self.fc(pooled), {**maps, "pooled": pooled})

    def readout(self, logits: Tensor) -> Tensor:
        return logits.mean(0)
