import pytest
import torch

from sdsnn_lightning.data.mixup import mix_batch
from sdsnn_lightning.types import Batch


def batch(shared=True):
    student = {"events": torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1))}
    teacher = student if shared else {"events": torch.arange(48.0).view(4, 4, 3)}
    return Batch(student, teacher, torch.tensor([0, 2, 1, 2]), {"day": torch.arange(4)})


def test_views_and_labels_blend_alike():
    torch.manual_seed(3)
    share = torch.distributions.Beta(0.5, 0.5).sample()
    partner = torch.randperm(4)
    torch.manual_seed(3)
    before = batch(shared=False)
    after = mix_batch(before, 3, 0.5)
    for x, y in ((before.student, after.student), (before.teacher, after.teacher)):
        torch.testing.assert_close(y["events"], share * x["events"] + (1 - share) * x["events"][partner])
    for row, (own, other) in enumerate(zip(before.target, before.target[partner], strict=True)):
        wanted = torch.zeros(3)
        wanted[own] += share
        wanted[other] += 1 - share
        torch.testing.assert_close(after.target[row], wanted)
    assert after.groups is before.groups


def test_one_view_stays_one():
    after = mix_batch(batch(), 3, 0.4)
    assert after.teacher is after.student


def test_every_target_is_a_distribution():
    for seed in range(5):
        torch.manual_seed(seed)
        target = mix_batch(batch(), 3, 0.2).target
        assert target.shape == (4, 3)
        assert target.sum(1) == pytest.approx([1.0] * 4)
        assert (target >= 0).all()


def test_mixing_is_for_training_alone(tmp_path):
    from lightning.pytorch import Trainer

    from sdsnn_lightning import Distiller
    from sdsnn_lightning.data import CIFAR10DVS
    from sdsnn_lightning.networks import SEWResNet

    seen = {"train": [], "val": []}

    class Look(Distiller):
        def training_step(self, batch, batch_idx):
            seen["train"].append(batch.target)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            seen["val"].append(batch.target)
            super().validation_step(batch, batch_idx)

    data = CIFAR10DVS(
        root=str(tmp_path / "none"), simulated_root=str(tmp_path / "set"), simulated_recordings=3, size=16,
        batch_size=4, val_fraction=0.34, mixup=0.5,
    )  # fmt: skip
    student = SEWResNet(10, modality="events", channels=2, width=0.05)
    model = Look(student, num_classes=10, optimizer=lambda p: torch.optim.SGD(p, lr=0.01))
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=2, limit_val_batches=1, enable_model_summary=False, **options)
    trainer.fit(model, data)
    assert all(target.shape == (4, 10) and target.sum(1) == pytest.approx([1.0] * 4) for target in seen["train"])
    assert all(target.ndim == 1 for target in seen["val"])


@pytest.mark.parametrize("mixup", [-0.1, float("nan"), float("inf")])
def test_bad_share_is_refused(mixup, tmp_path):
    from sdsnn_lightning.data import CIFAR10DVS
    from sdsnn_lightning.errors import ConfigError

    with pytest.raises(ConfigError, match="data.init_args.mixup"):
        CIFAR10DVS(simulated_root=str(tmp_path), mixup=mixup)


def test_a_strategy_that_needs_classes_refuses_mixed_samples():
    from types import SimpleNamespace

    from toy import ToyNet

    from sdsnn_lightning import Distiller
    from sdsnn_lightning.errors import ConfigError
    from sdsnn_lightning.strategies import TemporalKnowledgeSharing

    model = Distiller(ToyNet(3), num_classes=3, optimizer=torch.optim.SGD)
    model._trainer = SimpleNamespace(datamodule=SimpleNamespace(mixes=True), callbacks=[])
    with pytest.raises(ConfigError, match="TemporalKnowledgeSharing.*data.init_args.mixup: 0"):
        model.add_strategy(TemporalKnowledgeSharing())
