"""Settings that a curriculum cannot run with, or cannot go on with."""

import sys
from pathlib import Path

import pytest
import yaml
from refusal import refusal
from toy import TimedToy
from toy_files import CURRICULUM

from sdsnn_lightning.cli import main
from sdsnn_lightning.errors import ConfigError


@pytest.fixture
def place(workdir):
    Path("toy.yaml").write_text(CURRICULUM)
    return workdir


class Tens(TimedToy):
    """Takes whole tens of milliseconds."""

    def set_resolution(self, step_ms: float, teacher_step_ms: float) -> None:
        if step_ms % 10:
            raise ConfigError(f"step_ms is {step_ms}; set it to tens")
        super().set_resolution(step_ms, teacher_step_ms)


def test_a_stage_that_the_data_cannot_make_is_told_before_training(place, capsys):
    edited = yaml.safe_load(CURRICULUM)
    edited["data"] = {"class_path": "strategies.test_kdcl_settings.Tens"}
    sys.modules["strategies.test_kdcl_settings"] = sys.modules[__name__]
    Path("toy.yaml").write_text(yaml.safe_dump(edited))
    main(["fit", "--config", "toy.yaml", "--trainer.max_epochs", "3"])
    edited["trainer"]["callbacks"][0]["init_args"]["stages"][1]["step_ms"] = 15
    Path("toy.yaml").write_text(yaml.safe_dump(edited))
    assert "TimeStepCurriculum.stages[1]: step_ms is 15.0; set it to tens" in refusal(
        capsys, "fit", "--config", "toy.yaml", alone=True
    )


@pytest.mark.parametrize(
    ("stages", "epochs", "message"),
    [
        ([10, 40], 9, "has begun stages of [10.0, 20.0, 40.0] ms, but TimeStepCurriculum.stages begin with"),
        ([10, 30, 40], 9, "TimeStepCurriculum.stages begin with [10.0, 30.0, 40.0]"),
        ([10, 20, 40], 14, "is in stage 3 of the curriculum at epoch 7, which is in stage 2 of these"),
        ([10, 20, 40, 80], 20, "which is in stage 2 of these settings; leave trainer.max_epochs and the"),
    ],
)
def test_a_run_goes_on_with_its_own_stages_only(place, capsys, stages, epochs, message):
    main(["fit", "--config", "toy.yaml"])
    edited = yaml.safe_load(CURRICULUM)
    edited["trainer"]["max_epochs"] = epochs
    edited["trainer"]["callbacks"][0]["init_args"]["stages"] = [{"step_ms": float(step)} for step in stages]
    edited["data"]["init_args"] = {"step_ms": float(stages[-1])}
    Path("edited.yaml").write_text(yaml.safe_dump(edited))
    assert message in refusal(capsys, "fit", "--config", "edited.yaml", "--ckpt_path", "last")


def test_stages_that_are_yet_to_come_may_change(place):
    main(["fit", "--config", "toy.yaml"])
    edited = yaml.safe_load(CURRICULUM)
    edited["trainer"]["max_epochs"] = 9
    stages = [{"step_ms": 10, "share": 4}, {"step_ms": 20}, {"step_ms": 40, "share": 2}, {"step_ms": 80, "share": 2}]
    edited["trainer"]["callbacks"][0]["init_args"]["stages"] = stages
    edited["data"]["init_args"] = {"step_ms": 80}
    Path("longer.yaml").write_text(yaml.safe_dump(edited))
    main(["fit", "--config", "longer.yaml", "--ckpt_path", "last"])
    assert (place / "runs/toy/version_0/checkpoints/stage3.ckpt").is_file()


def test_a_number_of_steps_would_end_the_run_in_an_early_stage(place, capsys):
    said = refusal(capsys, "fit", "--config", "toy.yaml", "--trainer.max_steps", "12", alone=True)
    assert "trainer.max_steps is 12, but the stages of TimeStepCurriculum share out trainer.max_epochs" in said
