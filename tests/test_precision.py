"""Whole students compiled in one graph, and training in half precision."""

import copy

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn
from toy import ToyData

from sdsnn_lightning.distiller import Distiller
from sdsnn_lightning.networks import SingleEyeStudent, SpikeSCR
from sdsnn_lightning.neurons import Leaky, gpu
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.types import Output

STUDENTS = {
    "single_eye": (lambda: SingleEyeStudent(4, size=24, width=0.125), lambda: (torch.randn(3, 2, 3, 24, 24),)),
    "spikescr": (
        lambda: SpikeSCR(4, in_channels=20, width=32, heads=2, dropout=0.0),
        lambda: (torch.rand(12, 2, 20).round(), torch.ones(12, 2)),
    ),
}


@pytest.mark.timeout(1800)  # a compiler of C++ at work
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STUDENTS)
def test_a_whole_student_compiles_into_one_graph(name, backend):
    make, draw = STUDENTS[name]
    torch.manual_seed(0)
    eager, inputs = make(), draw()
    twin = copy.deepcopy(eager)
    torch._dynamo.reset()
    compiled = torch.compile(twin, backend=backend, fullgraph=True)
    expected, found = eager(*inputs), compiled(*inputs)
    flips = {
        key: int((found.features[key] != spikes).sum())
        for key, spikes in expected.features.items()
        if torch.equal(spikes, spikes.round())
    }
    assert flips
    if backend == "aot_eager":
        assert not any(flips.values())
        assert torch.equal(found.logits, expected.logits)
    for output in (expected, found):
        output.logits.square().sum().backward()
    pairs = list(zip(twin.named_parameters(), eager.parameters(), strict=True))
    assert all((a.grad is None) == (b.grad is None) for (_, a), b in pairs)
    if not any(
        flips.values()
    ):  # the compiler's batch norm may round otherwise, and a flipped spike changes all after it
        assert torch.allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
        # A bias before a batch norm has no gradient but for rounding: that is measured by the largest gradient of all.
        largest = max(b.grad.abs().max() for _, b in pairs if b.grad is not None)
        for (key, a), b in pairs:
            if b.grad is not None:
                assert (a.grad - b.grad).abs().max() <= 1e-3 * b.grad.abs().max() + 1e-5 * largest, key
    total = sum(expected.features[key].numel() for key in flips)
    assert sum(flips.values()) <= 1e-3 * total


class Spiking(nn.Module):
    """A spiking student for the toy data whose beta and threshold are learnt."""

    inputs = ("x",)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.hidden, self.norm, self.head = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, num_classes)
        self.lif = Leaky(torch.full((16,), 0.8), learn_beta=True, learn_threshold=True)
        self.seen: set[torch.dtype] = set()

    def forward(self, x: Tensor) -> Output:
        current = self.norm(self.hidden(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        spikes = self.lif(current)
        self.seen.add(spikes.dtype)
        return Output(self.head(spikes), {"spikes": spikes})

    def readout(self, logits: Tensor) -> Tensor:
        return logits.mean(0)


class Watched(Strategy):
    """Matches logits, and sees to it that terms are float32."""

    def loss(self, step, adapter):
        from sdsnn_lightning.losses.logits import distillation_loss

        term = distillation_loss(step.teacher.logits, step.student.logits)
        assert term.dtype == torch.float32
        assert term.isfinite()
        return term


@pytest.mark.parametrize(("precision", "half"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)])
def test_trains_in_half_precision_without_nan(tmp_path, monkeypatch, precision, half):
    seed_everything(3)
    module = Distiller(Spiking, 3, lambda p: torch.optim.SGD(p, 0.1), teacher=Spiking(3), lean_memory=True)
    before = {name: p.detach().clone() for name, p in module.student.named_parameters()}
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    plugins = []
    if precision == "16-mixed":  # Lightning asks for CUDA; the same plugin with a scaler of the CPU
        from lightning.pytorch.plugins import MixedPrecision

        plugins, precision = [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))], None
    trainer = Trainer(
        max_epochs=8, precision=precision, plugins=plugins, callbacks=[Watched()], default_root_dir=tmp_path,
        num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=ToyData())
    assert half in module.student.seen
    for name, parameter in module.student.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[name]), name
    assert trainer.callback_metrics["val/WAR"] > 0.6
    assert not gpu.usable(torch.zeros(1))
