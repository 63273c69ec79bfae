"""The self-test of `sdsnn doctor`: the compiled neuron against its reference, and one step of a tiny distillation."""

import logging
import time
import warnings
from collections.abc import Iterator
from typing import ClassVar, cast

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import TensorDataset, default_collate

from sdsnn_lightning.data.base import DataModule
from sdsnn_lightning.distiller import Distiller
from sdsnn_lightning.doctor import Finding
from sdsnn_lightning.neurons import ATan, Leaky, cpu, gpu, reference
from sdsnn_lightning.neurons.fused import leaky_sequence
from sdsnn_lightning.strategies import LogitDistillation
from sdsnn_lightning.types import Output, View

STEPS, SAMPLES, INPUTS, CLASSES = 6, 8, 12, 3


def self_test() -> Iterator[Finding]:
    """Runs the neuron on every kind of device that is here, and trains one step."""
    began = time.monotonic()
    yield compare_neuron("cpu")
    if torch.cuda.is_available():
        yield compare_neuron("cuda")
    yield train_step()
    yield Finding("ok", f"{time.monotonic() - began:.0f} s")


def compare_neuron(device: str) -> Finding:
    """Compares spikes and gradient of the compiled neuron with those of the reference in plain torch.

    Args:
        device: `cpu` or `cuda`.
    """
    generator = torch.Generator().manual_seed(0)
    current = torch.rand(STEPS, SAMPLES, 64, generator=generator).to(device)
    weight = torch.rand(current.shape, generator=generator).to(device)
    compiled = cpu.usable(current) if device == "cpu" else gpu.usable(current)
    if not compiled:
        which = "numba" if device == "cpu" else "Triton"
        return Finding("note", f"{which} has no kernel here: the neuron runs in plain torch, slower")
    decay, level, surrogate = torch.tensor(0.9, device=device), torch.tensor(1.0, device=device), ATan()
    leaf = current.clone().requires_grad_()
    spikes, _ = leaky_sequence(leaf, decay, level, surrogate)
    (spikes * weight).sum().backward()
    expected, _ = reference.forward(current, decay, level, "subtract", True, False)
    gradient, _, _ = reference.backward(
        weight, None, current, decay, level, "subtract", True, True, surrogate.kind, surrogate.param, False
    )
    different = int((spikes != expected).sum())
    if leaf.grad is None or different or not torch.allclose(leaf.grad, gradient, rtol=1e-4, atol=1e-6):
        return Finding(
            "FAIL",
            f"the compiled neuron on {device} differs from its reference ({different} of {expected.numel()} spikes); "
            "delete the __pycache__ folders of sdsnn_lightning/neurons and try again, then report it",
        )
    return Finding(
        "ok", f"the compiled neuron on {device} equals its reference: {int(expected.sum())} spikes, gradient"
    )


class _Blobs(DataModule):
    """Two batches of noise with a class each."""

    def __init__(self) -> None:
        super().__init__(batch_size=SAMPLES)
        self.class_names = [f"class {k}" for k in range(CLASSES)]
        self.input_shapes = {"x": (STEPS, INPUTS)}
        self.data_source = "simulated"

    @staticmethod
    def collate(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Names what a sample holds."""
        x, target = default_collate(samples)
        return {"x": x, "target": target}

    def setup(self, stage: str) -> None:
        """Draws the samples."""
        x = torch.rand(2 * SAMPLES, STEPS, INPUTS, generator=torch.Generator().manual_seed(1))
        self.train_set = TensorDataset(x, torch.arange(2 * SAMPLES) % CLASSES)

    def views(self, sample: dict[str, Tensor], training: bool) -> tuple[View, View]:
        """Both networks see the same."""
        return sample, sample


class _Net(nn.Module):
    """One layer of spiking neurons."""

    inputs: ClassVar[tuple[str, ...]] = ("x",)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.hidden, self.head, self.neuron = nn.Linear(INPUTS, 16), nn.Linear(16, num_classes), Leaky(0.9)

    def forward(self, x: Tensor) -> Output:
        """Maps `[T, B, inputs]` to logits `[T, B, K]`."""
        spikes = self.neuron(self.hidden(x))
        return Output(self.head(spikes), {"hidden": spikes})

    def readout(self, logits: Tensor) -> Tensor:
        """Means over time: `[T, B, K]` to `[B, K]`."""
        return logits.mean(0)


def train_step() -> Finding:
    """Trains a spiking student under a teacher for one step, on the device that a fit would take, and looks at it."""
    torch.manual_seed(0)
    model = Distiller(_Net, CLASSES, lambda parameters: torch.optim.SGD(parameters, lr=0.1), teacher=_Net, alpha=0.5)
    hidden = cast(_Net, model.student).hidden
    before = hidden.weight.detach().clone()
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            trainer = Trainer(
                max_steps=1, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, limit_val_batches=0, callbacks=[LogitDistillation()],
            )  # fmt: skip
            trainer.fit(model, datamodule=_Blobs())
        finally:
            log.setLevel(level)
    moved = (hidden.weight.detach().cpu() - before).abs().max().item()
    if trainer.global_step != 1 or not 0 < moved < float("inf"):
        return Finding("FAIL", f"a tiny distillation took {trainer.global_step} steps and moved weights by {moved}")
    return Finding("ok", f"a tiny distillation trained one step on {trainer.strategy.root_device}")
