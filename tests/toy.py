"""A tiny learnable data set and two tiny networks: what the tests of the core train."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from sdsnn_lightning.data.base import DataModule, Source
from sdsnn_lightning.types import Output, View


class ToySet(Dataset):
    def __init__(self, count: int, steps: int, classes: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.target = torch.arange(count) % classes
        noise = torch.randn(count, steps, 6, generator=generator)
        self.x = noise + 2.0 * nn.functional.one_hot(self.target, 6)[:, None].float()

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "target": self.target[index], "side": torch.tensor(index % 2)}


class ToyData(DataModule):
    """Gaussian blobs over time; `privileged` is an input only a teacher names."""

    def __init__(
        self,
        classes: int = 3,
        steps: int = 4,
        train: int = 48,
        batch_size: int = 8,
        num_workers: int = 0,
        root: str = "nowhere",
        source: Source = "simulated",
        poison: bool = False,
    ) -> None:
        super().__init__(batch_size, num_workers)
        self.class_names = [f"c{k}" for k in range(classes)]
        self.input_shapes = {"x": (steps, 6), "privileged": (steps, 6)}
        self.groups = {"side": ["left", "right"]}
        self.steps, self.train_count, self.poison = steps, train, poison
        self.fold = 0
        self.find_source(root, source, "unused")

    @property
    def split_key(self):
        return {"fold": self.fold}

    def setup(self, stage: str) -> None:
        make = lambda count, seed: ToySet(count, self.steps, self.num_classes, seed)  # noqa: E731
        self.train_set, self.val_set, self.test_set = make(self.train_count, 0), make(23, 1), make(23, 2)

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        x = sample["x"] * (float("nan") if self.poison and training else 1.0)
        view = {"x": x, "privileged": x * 2.0}
        return view, view


class TimedToy(ToyData):
    """The same blobs as eight frames of 10 ms; longer steps average neighbours."""

    def __init__(
        self, step_ms: float = 40.0, teacher_step_ms: float | None = None, batch_size: int = 8, noise: float = 0.1
    ) -> None:
        super().__init__(steps=8, batch_size=batch_size)
        self.step_ms, self.teacher_step_ms, self.noise = step_ms, teacher_step_ms, noise

    def set_resolution(self, step_ms: float, teacher_step_ms: float) -> None:
        self.step_ms, self.teacher_step_ms = step_ms, teacher_step_ms

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        x = sample["x"] + self.noise * training * torch.randn_like(sample["x"])

        def view(step_ms: float) -> View:
            return {"x": x.unflatten(1, (-1, round(step_ms / 10))).mean(2)}

        return view(self.step_ms), view(self.teacher_step_ms or self.step_ms)


class ToyNet(nn.Module):
    inputs: ClassVar[tuple[str, ...]] = ("x",)

    def __init__(self, num_classes: int, hidden: int = 8, norm: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.hidden = nn.Linear(6, hidden)
        self.norm = nn.BatchNorm1d(hidden) if norm else nn.Identity()
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Output:
        steps, batch = x.shape[:2]
        h = torch.relu(self.norm(self.hidden(x.flatten(0, 1))))
        h = nn.functional.dropout(h, self.dropout, self.training)
        return Output(self.head(h).unflatten(0, (steps, batch)), {"hidden": h.unflatten(0, (steps, batch))})

    def readout(self, logits: Tensor) -> Tensor:
        return logits.mean(0)


class ToyTeacher(ToyNet):
    inputs: ClassVar[tuple[str, ...]] = ("privileged",)
