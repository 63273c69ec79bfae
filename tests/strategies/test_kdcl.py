"""The curriculum over time steps: stages, promotion, and a kill at any time that changes nothing."""

import copy
import math
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from refusal import refusal
from toy import TimedToy, ToyNet
from toy_files import CURRICULUM

from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.cli import main
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.logits import distillation_loss, entropy_weighted_distillation
from sdsnn_lightning.strategies import Stage, TimeStepCurriculum, WarmupCosine
from sdsnn_lightning.strategies.kdcl import real_steps, stage_ends
from sdsnn_lightning.types import Batch, Output, Step


class Kill(Callback):
    """Ends the process without a word, as a power cut does."""

    def __init__(self, epoch: int, where: str, batch: int = 0) -> None:
        self.epoch, self.where, self.batch = epoch, where, batch

    def _strike(self, trainer, where):
        if (trainer.current_epoch, where) == (self.epoch, self.where):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_epoch_start(self, trainer, module):  # the curriculum has promoted by now: it stands before this one
        self._strike(trainer, "epoch_start")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == self.batch:
            self._strike(trainer, "batch_end")

    def on_train_epoch_end(self, trainer, module):  # `last.ckpt` of this epoch is written after this
        self._strike(trainer, "epoch_end")


class Record(Callback):
    """What every epoch of a run saw."""

    seen = []  # noqa: RUF012

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        teacher = None if module.teacher is None else batch.teacher["x"].shape[1]
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        Record.seen.append((trainer.current_epoch, batch_idx, batch.student["x"].shape[1], teacher, rate))


@pytest.fixture
def place(workdir):
    Path("toy.yaml").write_text(CURRICULUM)
    return workdir


def weights(folder):
    state = load_checkpoint(Path(folder, "checkpoints/last.ckpt"), "it")
    return state["state_dict"], state["optimizer_states"]


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_stages_promote_restart_and_end_at_the_coarsest_steps(place):
    Path("record.yaml").write_text("trainer: {callbacks+: [{class_path: strategies.test_kdcl.Record}]}")
    Record.seen = []
    sys.modules["strategies.test_kdcl"] = sys.modules[__name__]
    fit = ["fit", "--config", "toy.yaml", "--config", "record.yaml"]
    main([*fit, "--trainer.fast_dev_run", "true"])
    assert [(student, teacher) for *_, student, teacher, _ in Record.seen] == [(8, None)]  # of the first stage
    Record.seen = []
    main(fit)
    steps = {epoch: (student, teacher) for epoch, _, student, teacher, _ in Record.seen}
    # 7 epochs in shares of 2, 1, 1 end after 3.5, 5.25 and 7: after 4, 5 and 7.
    assert steps == {0: (8, None), 1: (8, None), 2: (8, None), 3: (8, None), 4: (4, 8), 5: (2, 4), 6: (2, 4)}
    rates = {(epoch, batch): rate for epoch, batch, *_, rate in Record.seen}
    assert rates[0, 0] == rates[4, 0] == rates[5, 0] == 0.0  # a warm-up in every stage
    assert rates[0, 5] == pytest.approx(0.05 * WarmupCosine(0.2)(5 / 24))
    assert rates[5, 5] == pytest.approx(0.05 * WarmupCosine(0.2)(5 / 12))

    folder = place / "runs/toy/version_0/checkpoints"
    assert {path.stem for path in folder.iterdir()} == {"best", "last", "previous", "stage1", "stage2"}
    last = load_checkpoint(folder / "last.ckpt", "it")
    assert not [key for key in last["state_dict"] if "teacher" in key]
    promoted = last["callbacks"]["TimeStepCurriculum[TimeStepCurriculum]"]["promoted"]
    stage2 = load_checkpoint(folder / "stage2.ckpt", "it")["state_dict"]
    assert same({key.removeprefix("network."): value for key, value in stage2.items()}, promoted)
    assert load_checkpoint(folder / "best.ckpt", "it")["epoch"] in (5, 6)  # not of an earlier, easier stage
    main(["test", "--config", "toy.yaml", "--ckpt_path", "best"])
    main(["test", "--config", "toy.yaml", "--ckpt_path", str(folder / "stage1.ckpt"), "--data.init_args.step_ms", "10"])


@pytest.mark.parametrize(
    ("epoch", "where"),
    [(2, "batch_end"), (3, "epoch_end"), (4, "epoch_start"), (4, "batch_end"), (5, "epoch_start"), (6, "epoch_end")],
)
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(place, epoch, where):
    sys.modules["strategies.test_kdcl"] = sys.modules[__name__]
    kill = {"class_path": "strategies.test_kdcl.Kill", "init_args": {"epoch": epoch, "where": where, "batch": 2}}
    Path("kill.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [kill]}}))
    words = ["fit", "--config", "toy.yaml", "--runs"]
    child = multiprocessing.get_context("fork").Process(target=main, args=([*words, "cut", "--config", "kill.yaml"],))
    child.start()
    child.join(100)
    assert child.exitcode == -signal.SIGKILL
    main([*words, "cut", "--ckpt_path", "last"])
    main([*words, "whole"])
    assert same(weights("cut/toy/version_0"), weights("whole/toy/version_0"))
    assert Path("cut/toy/version_0/metrics.csv").read_text() == Path("whole/toy/version_0/metrics.csv").read_text()
    best = [load_checkpoint(Path(f"{runs}/toy/version_0/checkpoints/best.ckpt"), "it") for runs in ("cut", "whole")]
    assert same(best[0]["state_dict"], best[1]["state_dict"])


def test_a_given_teacher_starts_and_guides_the_first_stage(place):
    main(["fit", "--config", "toy.yaml", "--runs", "first"])
    given = yaml.safe_load(CURRICULUM)
    given["data"]["init_args"] = {"teacher_step_ms": 10.0}
    given["model"]["init_args"] |= {
        "teacher": {"class_path": "toy.ToyNet"},
        "teacher_checkpoint": "first/toy/version_0/checkpoints/stage1.ckpt",
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}},
    }
    given["trainer"]["callbacks"][0]["init_args"]["stages"] = [{"step_ms": 40.0}]
    given["trainer"]["max_epochs"] = 1
    Path("given.yaml").write_text(yaml.safe_dump(given))
    main(["fit", "--config", "given.yaml", "--runs", "second"])
    start, end = weights("first/toy/version_0")[0], weights("second/toy/version_0")[0]
    teacher = load_checkpoint(Path("first/toy/version_0/checkpoints/stage1.ckpt"), "it")["state_dict"]
    assert torch.equal(end["network.head.weight"], teacher["network.head.weight"])
    assert not torch.equal(end["network.head.weight"], start["network.head.weight"])


def test_stage_ends_give_every_stage_an_epoch():
    assert stage_ends([Stage(10), Stage(25)], 10) == [5, 10]
    assert stage_ends([Stage(10, 2), Stage(20), Stage(40)], 7) == [4, 5, 7]
    assert stage_ends([Stage(10, 100), Stage(20, 0.1), Stage(40, 0.1)], 5) == [3, 4, 5]
    assert stage_ends([Stage(10, 0.1), Stage(20, 0.1), Stage(40, 100)], 5) == [1, 2, 5]
    with pytest.raises(ConfigError, match=r"max_epochs is 1 for the 2 stages"):
        stage_ends([Stage(10), Stage(25)], 1)


def step_of(student, teacher, mask=None):
    view = {} if mask is None else {"mask": mask}
    batch = Batch(view, view, torch.zeros(student.shape[1], dtype=torch.long), {})
    return Step(batch, Output(student, {}), None if teacher is None else Output(teacher, {}), batch.target, 0.0)


def sums(network):
    network.readout = lambda logits: logits.softmax(-1).sum(0)
    return network


def curriculum(**options):
    strategy = TimeStepCurriculum([{"step_ms": 10.0}, {"step_ms": 20.0}], **options)
    strategy.student_readout = strategy.teacher_readout = sums(ToyNet(3)).readout
    return strategy


def test_the_loss_compares_summed_softmaxes():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 3, generator=generator), torch.randn(5, 4, 3, generator=generator)
    p_s, p_t = student.softmax(-1).sum(0), teacher.softmax(-1).sum(0)
    assert p_s.sum(-1).allclose(torch.full((4,), 2.0))
    expected = 0.0
    for row in range(4):
        q, p = p_s[row].softmax(-1), p_t[row].softmax(-1)
        expected += sum(float(p[k] * math.log(p[k] / q[k])) for k in range(3)) / 4
    assert float(curriculum().loss(step_of(student, teacher), None)) == pytest.approx(expected, abs=1e-6)
    assert float(curriculum().loss(step_of(student, None), None)) == 0.0


def test_the_mean_form_is_zero_for_equal_mean_distributions():
    student = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    teacher = student.expand(5, 4, 3)
    assert float(curriculum(readout="mean").loss(step_of(student, teacher), None)) == pytest.approx(0.0, abs=1e-6)
    assert float(curriculum().loss(step_of(student, teacher), None)) > 0.01  # the sums differ by the factor 5
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert real_steps({"mask": mask}, torch.zeros(3, 2, 3)).tolist() == [[2], [1]]
    assert real_steps({}, torch.zeros(3, 2, 3)) == 3


def test_entropy_weighting_by_hand():
    teacher, student = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    q = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))]
    entropy = -(q[0] * math.log(q[0]) + q[1] * math.log(q[1])) / math.log(2)
    for tau in (1.0, 2.0):  # the temperature leaves the weights alone
        plain = [float(distillation_loss(teacher[i : i + 1], student[i : i + 1], tau)) for i in (0, 1)]
        weighted = entropy_weighted_distillation(teacher, student, tau)
        assert float(weighted) == pytest.approx((plain[0] + entropy * plain[1]) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": []}, "stages is empty"),
        ({"stages": [{"step_ms": 0.0}]}, r"stages\[0\]\.step_ms is 0\.0; set it above 0"),
        ({"stages": [{"step_ms": 5.0, "share": -1.0}]}, r"stages\[0\]\.share is -1\.0"),
        ({"stages": [{"step_ms": 5.0}], "temperature": 0.0}, "temperature is 0.0; set it above 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TimeStepCurriculum(**options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.init_args.step_ms", "20"], "data.init_args.step_ms is 20.0 but the last stage has 40.0"),
        (["--trainer.max_epochs", "2"], "trainer.max_epochs is 2 for the 3 stages"),
        (["--data", "toy.ToyData"], "ToyData has one time resolution"),
        (
            ["--trainer.callbacks+", "{class_path: lightning.pytorch.callbacks.EMAWeightAveraging}"],
            "EMAWeightAveraging (trainer.callbacks) averages over the stages of TimeStepCurriculum",
        ),
        (
            [
                "--trainer.callbacks+",
                "{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: val/WAR}}",
            ],
            "EarlyStopping (trainer.callbacks) may end the run in an early stage",
        ),
        (["--trainer.callbacks.init_args.monitor", "val/Ware"], "nothing is logged as val/Ware; choose one of val/UAR"),
    ],
)
def test_a_mistake_in_the_experiment_is_one_line(place, capsys, words, message):
    assert message in refusal(capsys, "fit", "--config", "toy.yaml", *words)


@pytest.mark.parametrize(("mode", "promoted"), [("max", [0.2, 0.7]), ("min", [0.2, 0.1])])
def test_the_best_of_a_stage_is_the_highest_score_or_the_lowest(mode, promoted):
    strategy = TimeStepCurriculum([{"step_ms": 10.0}], mode=mode)
    strategy.stage, kept = 0, []
    module, trainer = SimpleNamespace(student=ToyNet(3)), SimpleNamespace(sanity_checking=False)
    for score in (math.nan, 0.2, 0.7, 0.1, 0.1, math.nan):
        trainer.callback_metrics = {"val/WAR": torch.tensor(score)}
        before = strategy.best
        strategy.on_validation_end(trainer, module)
        kept += [score] if strategy.best is not before else []
    assert kept == promoted


def test_the_schedule_warms_up_and_decays():
    schedule = WarmupCosine(0.25, end=0.1)
    assert [schedule(p) for p in (0.0, 0.125, 0.25, 0.625, 1.0)] == pytest.approx([0, 0.5, 1, 0.55, 0.1])
    assert copy.deepcopy(schedule)(1.0) == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="warmup is 1"):
        WarmupCosine(1.0)


def test_data_without_time_steps_says_so():
    assert TimedToy().views({"x": torch.ones(1, 8, 6)}, False)[0]["x"].shape == (1, 2, 6)
