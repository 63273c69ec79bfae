"""The traps of distillation in Lightning, each as a test on a toy problem."""

import copy
import math

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn
from toy import ToyData, ToyNet, ToyTeacher

from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.classifier import Classifier
from sdsnn_lightning.distiller import Distiller
from sdsnn_lightning.errors import ConfigError, NonFiniteLossError
from sdsnn_lightning.strategies.base import Strategy
from sdsnn_lightning.strategies.schedules import Linear


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


class Match(Strategy):
    """Projects the student's hidden layer and matches the teacher's: the smallest strategy with an adapter."""

    def build(self, distiller):
        student, teacher = distiller.example_outputs()
        return nn.Linear(student.features["hidden"].shape[-1], teacher.features["hidden"].shape[-1])

    def loss(self, step, adapter):
        return (adapter(step.student.features["hidden"]) - step.teacher.features["hidden"]).square().mean()


class LogitMSE(Strategy):
    def loss(self, step, adapter):
        return (step.student.logits - step.teacher.logits).square().mean()


def make(alpha=None, norm=True, optimizer=sgd):
    seed_everything(3)
    teacher = ToyTeacher(3, hidden=7)
    return Distiller(lambda k: ToyNet(k, hidden=5, norm=norm), 3, optimizer, teacher=teacher, alpha=alpha)


def fit(module, tmp_path, *strategies, data=None, ckpt_path=None, **options):
    seed_everything(7)
    options = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_progress_bar": False,
               "enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1,
               "default_root_dir": tmp_path, **options}  # fmt: skip
    trainer = Trainer(callbacks=list(strategies), **options)
    trainer.fit(module, datamodule=data or ToyData(), ckpt_path=ckpt_path, weights_only=True)
    return trainer


def student_weights(module):
    return torch.cat([p.detach().flatten() for p in module.student.parameters()])


def test_accumulating_four_batches_equals_one_large_batch(tmp_path):
    results = []
    for batch_size, accumulate in ((32, 1), (8, 4)):
        module = make(norm=False).double()
        module.teacher.double()
        data = ToyData(train=32, batch_size=batch_size)
        data.views = lambda sample, training: (v := {"x": sample["x"].double(), "privileged": sample["x"].double()}, v)
        fit(module, tmp_path, LogitMSE(0.7), data=data, max_epochs=1, accumulate_grad_batches=accumulate)
        results.append(student_weights(module))
    assert torch.allclose(results[0], results[1], atol=1e-12)
    assert not torch.allclose(results[0], student_weights(make(norm=False)).double())


def test_adapter_is_optimised_checkpointed_and_resumed(tmp_path):
    module = make()
    trainer = fit(module, tmp_path, Match(0.5), max_epochs=1)
    optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    adapter = module.adapters["Match"]
    assert {id(p) for p in adapter.parameters()} <= optimised
    path = tmp_path / "half.ckpt"
    trainer.save_checkpoint(path)
    assert "adapters.Match.weight" in load_checkpoint(path, "it")["state_dict"]

    whole = make()
    fit(whole, tmp_path, Match(0.5), max_epochs=2)
    resumed = make()
    nn.init.zeros_(resumed.student.head.weight)
    fit(resumed, tmp_path, Match(0.5), max_epochs=2, ckpt_path=path)
    # The loader's order differs after a resume within one process, so weights are compared at the resume point.
    assert not torch.equal(resumed.adapters["Match"].weight, adapter.weight)
    again = make()
    fit(again, tmp_path, Match(0.5), max_epochs=1, ckpt_path=path)
    assert torch.equal(again.adapters["Match"].weight, adapter.weight)
    assert torch.equal(student_weights(again), student_weights(module))


def test_teacher_never_trains_and_is_not_saved(tmp_path):
    module = make()
    before = copy.deepcopy(module.teacher.state_dict())
    trainer = fit(module, tmp_path, LogitMSE(1.0))
    assert all(torch.equal(before[key], value) for key, value in module.teacher.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in module.teacher.parameters())
    module.train()
    assert not module.teacher.training
    assert not module.teacher.norm.training
    assert module.student.training
    optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in module.teacher.parameters()}
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    content = load_checkpoint(tmp_path / "it.ckpt", "it")
    assert not [key for key in content["state_dict"] if key.startswith("teacher.")]
    assert "hyper_parameters" not in content
    sources = {"data_source": "simulated", "origin": "simulated"}
    assert content["sdsnn"] == {"class_names": ["c0", "c1", "c2"], "split": {"fold": 0}, **sources}


def test_two_strategies_of_one_class_live_side_by_side(tmp_path):
    module = make()
    first, second = Match(0.1, name="first"), Match(0.9, name="second")
    trainer = fit(module, tmp_path, first, second)
    assert set(module.adapters) == {"first", "second"}
    assert first.state_key != second.state_key
    assert {"train/first", "train/second", "train/first_weight", "train/task"} <= set(trainer.callback_metrics)
    with pytest.raises(ConfigError, match="two loss terms are named 'first'"):
        fit(make(), tmp_path, Match(name="first"), LogitMSE(name="first"))


def test_weight_zero_equals_no_strategy(tmp_path):
    plain, zero = make(), make()
    fit(plain, tmp_path)
    trainer = fit(zero, tmp_path, LogitMSE(0.0))
    assert torch.equal(student_weights(plain), student_weights(zero))
    assert trainer.callback_metrics["train/LogitMSE"] > 0


def test_total_is_convex_with_alpha_and_additive_without(tmp_path):
    for alpha, expected in ((0.25, lambda t, s: 0.75 * t + 0.25 * 2.0 * s), (None, lambda t, s: t + 2.0 * s)):
        metrics = fit(make(alpha), tmp_path, LogitMSE(2.0), max_steps=1, max_epochs=-1).callback_metrics
        task, term = metrics["train/task"].item(), metrics["train/LogitMSE"].item()
        assert metrics["train/loss"].item() == pytest.approx(expected(task, term), rel=1e-6)
    assert fit(make(0.0), tmp_path, LogitMSE(), max_steps=1, max_epochs=-1).callback_metrics["train/loss"] == (
        pytest.approx(task)
    )


def test_schedule_moves_the_logged_weight_over_the_run(tmp_path):
    class Watch(Strategy):
        needs_teacher = False
        seen = []

        def loss(self, step, adapter):
            self.seen.append(step.progress)
            return step.student.logits.sum() * 0.0

    watch = Watch(Linear(0.0, 1.0))
    trainer = fit(make(), tmp_path, watch, max_epochs=2)
    assert watch.seen == pytest.approx([i / 12 for i in range(12)])
    assert trainer.callback_metrics["train/Watch_weight"] == pytest.approx(11 / 12)


def test_distilled_checkpoint_evaluates_without_strategies_and_teacher(tmp_path):
    module = make()
    trainer = fit(module, tmp_path, Match())
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    scores = trainer.test(module, datamodule=ToyData(), verbose=False)[0]
    for bare in (make(), Distiller(lambda k: ToyNet(k, hidden=5), 3, sgd), Classifier(lambda k: ToyNet(k, 5), 3, sgd)):
        tester = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu")
        again = tester.test(bare, datamodule=ToyData(), ckpt_path=tmp_path / "it.ckpt", weights_only=True)[0]
        assert again == scores


def test_checkpoint_of_another_network_names_the_first_keys(tmp_path):
    trainer = fit(make(), tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "it.ckpt")
    other = Classifier(lambda k: ToyNet(k, hidden=6), 3, sgd)
    with pytest.raises(ConfigError, match=r"network.hidden.weight has shape \(5, 6\) instead of \(6, 6\)"):
        trainer.validate(other, datamodule=ToyData(), ckpt_path=tmp_path / "it.ckpt", verbose=False)
    two = Classifier(lambda k: ToyNet(k, hidden=5), 2, sgd)
    with pytest.raises(ConfigError, match="3 classes but the data has 2"):
        trainer.validate(two, datamodule=ToyData(classes=2), ckpt_path=tmp_path / "it.ckpt", verbose=False)


def test_teacher_checkpoint_is_loaded_and_checked(tmp_path):
    teacher = Classifier(lambda k: ToyTeacher(k, hidden=7), 3, sgd)
    trainer = fit(teacher, tmp_path, max_epochs=1)
    path = tmp_path / "teacher.ckpt"
    trainer.save_checkpoint(path)

    def distiller(hidden=7, file=path):
        return Distiller(lambda k: ToyNet(k), 3, sgd, lambda k: ToyTeacher(k, hidden=hidden), str(file))

    module = distiller()
    fit(module, tmp_path, LogitMSE(), max_epochs=1)
    assert torch.equal(module.teacher.head.weight, teacher.network.head.weight)
    with pytest.raises(ConfigError, match=r"teacher_checkpoint.*hidden.weight has shape \(7, 6\) instead of \(4, 6\)"):
        fit(distiller(hidden=4), tmp_path, LogitMSE())
    with pytest.raises(ConfigError, match="does not exist; train it first"):
        fit(distiller(file=tmp_path / "none.ckpt"), tmp_path, LogitMSE())
    (tmp_path / "cut.ckpt").write_bytes(path.read_bytes()[:500])
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        fit(distiller(file=tmp_path / "cut.ckpt"), tmp_path, LogitMSE())
    other = ToyData()
    other.fold = 1
    with pytest.raises(ConfigError, match=r"trained with data.init_args.fold: 0 but this run has 1"):
        fit(distiller(), tmp_path, LogitMSE(), data=other)
    real = ToyData()
    real.data_source = "real"
    with pytest.raises(ConfigError, match="trained on simulated data but this run uses real data"):
        fit(distiller(), tmp_path, LogitMSE(), data=real)


def test_non_finite_loss_names_the_term_and_the_step(tmp_path):
    class Broken(Strategy):
        def loss(self, step, adapter):
            return step.student.logits.sum() * (math.nan if step.progress > 0.1 else 1.0)

    with pytest.raises(NonFiniteLossError, match="'Broken' is nan at step 2"):
        fit(make(), tmp_path, Broken())
    with pytest.raises(NonFiniteLossError, match="'task' is nan at step 0"):
        fit(make(), tmp_path, data=ToyData(poison=True))


def test_student_sees_only_the_inputs_it_names(tmp_path):
    class Greedy(ToyNet):
        inputs = ("x", "sound")

    with pytest.raises(ConfigError, match="Greedy needs the input 'sound' but the data gives"):
        fit(Classifier(Greedy, 3, sgd), tmp_path)
    with pytest.raises(ConfigError, match="'LogitMSE' needs a teacher"):
        fit(Distiller(ToyNet, 3, sgd), tmp_path, LogitMSE())


def test_scores_are_those_of_the_whole_set(tmp_path):
    module = make()
    trainer = fit(module, tmp_path, max_epochs=3)
    data = ToyData()
    data.setup("validate")
    module.eval()
    x = data.val_set.x
    prediction = module({"x": x}).argmax(-1)
    expected = (prediction == data.val_set.target).float().mean()
    assert trainer.callback_metrics["val/WAR"].item() == pytest.approx(expected.item())
    recalls = [(prediction[data.val_set.target == k] == k).float().mean().item() for k in range(3)]
    assert trainer.callback_metrics["val/UAR"].item() == pytest.approx(sum(recalls) / 3)
    assert trainer.callback_metrics["val/recall/c1"].item() == pytest.approx(recalls[1])


def test_strategies_are_built_on_the_loaded_teacher(tmp_path):
    class Copy(Strategy):
        def build(self, distiller):
            self.seen = distiller.teacher.head.weight.clone()

        def loss(self, step, adapter):
            return step.student.logits.sum() * 0.0

    teacher = ToyTeacher(3, hidden=7)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    copied = Copy()
    module = Distiller(ToyNet, 3, sgd, lambda k: ToyTeacher(k, hidden=7), str(tmp_path / "teacher.pt"))
    fit(module, tmp_path, copied, max_epochs=1)
    assert torch.equal(copied.seen, teacher.head.weight)


def test_strategies_of_an_earlier_fit_are_forgotten(tmp_path):
    module = make()
    fit(module, tmp_path, Match(name="first"), max_epochs=1)
    trainer = fit(module, tmp_path, Match(name="first"), LogitMSE(), max_epochs=1)
    assert set(module.strategies) == {"first", "LogitMSE"}
    trainer = fit(module, tmp_path, max_epochs=1)
    assert not module.strategies
    assert not module.adapters
    assert "train/LogitMSE" not in trainer.callback_metrics


def test_alpha_without_strategies_or_out_of_range_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="alpha gives distillation a share, but there is no strategy"):
        fit(make(alpha=0.5), tmp_path)
    with pytest.raises(ConfigError, match="alpha is 5; set it between 0 and 1"):
        make(alpha=5)
    with pytest.raises(ConfigError, match="alpha is -0.0044; set it between 0 and 1"):
        make(alpha=Linear(0.5, -0.02))


def test_a_schedule_without_an_end_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="set trainer.max_epochs or max_steps"):
        fit(make(), tmp_path, LogitMSE(Linear(0.0, 1.0)), max_epochs=-1, max_time="00:00:00:05")


def test_scores_of_a_broken_network_are_refused(tmp_path):
    module = make()
    nn.init.constant_(module.student.head.bias, math.nan)
    trainer = Trainer(logger=False, enable_progress_bar=False, accelerator="cpu", enable_model_summary=False)
    with pytest.raises(NonFiniteLossError, match="scores are not finite in test"):
        trainer.test(module, datamodule=ToyData(), verbose=False)
