"""What of a student's command line reaches its teacher. The rest of the way is in test_cli.py."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from refusal import refusal
from toy_files import write_toy

from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.cli import main
from sdsnn_lightning.teacher_first import config_files, trainer_words


def test_config_files_are_found_in_every_spelling():
    words = ["fit", "--config", "a.yaml", "--seed_everything", "2", "-c", "b.yaml", "--config=c.yaml", "--name", "x"]
    assert config_files(words) == ["a.yaml", "b.yaml", "c.yaml"]
    assert config_files(["fit"]) == []


def test_trainer_overrides_pass_but_strategies_and_loggers_do_not():
    words = ["fit", "--trainer.max_epochs=3", "--trainer.devices", "2", "--trainer.callbacks+", "X", "--data.root", "d",
             "--trainer.logger", "false", "--trainer.detect_anomaly"]  # fmt: skip
    assert trainer_words(words) == ["--trainer.max_epochs=3", "--trainer.devices", "2", "--trainer.detect_anomaly"]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library has no mallopt")
def test_freed_memory_is_kept():
    """A block that is freed and asked for again costs no page faults."""
    program = """
import resource, sys, torch
from sdsnn_lightning.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    for _ in range(20):
        blocks = [torch.ones(10_000_000) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(faults() - first)
"""
    counts = [
        int(subprocess.run([sys.executable, "-c", program, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "leave")
    ]
    assert counts[0] < counts[1] / 10


@pytest.mark.slow
def test_a_teacher_without_validation_is_its_last_state_which_is_said(workdir, capsys):
    write_toy()
    fit = ("fit", "--config", "toy.yaml", "--trainer.devices", "1")
    kept = Path("runs/toy_teacher/version_0/checkpoints/last.ckpt")
    with pytest.warns(UserWarning, match=f"without validation, so none of its states is the best: taking {kept}"):
        main([*fit, "--trainer.limit_val_batches", "0"])
    assert not kept.with_name("best.ckpt").exists()
    teacher = Path("runs/toy_teacher/seed1.ckpt")
    assert teacher.read_bytes() == kept.read_bytes()
    assert load_checkpoint(Path("runs/toy/version_0/checkpoints/last.ckpt"), "it")["epoch"] == 1
    # Where nothing at all is kept, there is no teacher to go on with.
    teacher.unlink()
    own = Path("teacher.yaml").read_text().replace("trainer: {", "trainer: {fast_dev_run: true, ")
    Path("teacher.yaml").write_text(own)
    said = refusal(capsys, *fit)
    assert said == "error: training the teacher left no checkpoint; train teacher.yaml by itself first"
    assert not teacher.exists()
    assert not Path("runs/toy/version_1").exists()


def test_a_trial_of_a_batch_needs_no_teacher_and_says_so(workdir):
    write_toy()
    with pytest.warns(UserWarning, match="seed1.ckpt does not exist, so the teacher of this trial is untrained"):
        main(["fit", "--config", "toy.yaml", "--trainer.devices", "1", "--trainer.fast_dev_run", "true"])
    assert not list(Path("runs").rglob("*.*"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no settings"),
        (b"- a\n- list\n", "holds no settings"),
        (b"name: [", "is no YAML"),
        (b"name: \xff", "is no YAML"),
        (b"name: 5\n", "name is 5"),
        (b"name: ../../elsewhere\n", "leads out of the folder of all runs"),
        (b"name: toy_${width}\n", "name is 'toy_${width}'"),
    ],
)
def test_a_teacher_experiment_that_is_none_is_named(workdir, capsys, content, said):
    write_toy()
    Path("teacher.yaml").write_bytes(content)
    line = refusal(capsys, "fit", "--config", "toy.yaml", alone=True)
    assert line.startswith("error: model.init_args.teacher_experiment: teacher.yaml")
    assert said in line
    assert not Path("runs").exists()


def test_a_teacher_experiment_without_a_place_for_its_weights_is_refused(workdir, capsys):
    write_toy()
    Path("toy.yaml").write_text(Path("toy.yaml").read_text().replace("teacher_checkpoint:", "#"))
    line = refusal(capsys, "fit", "--config", "toy.yaml", alone=True)
    assert line.startswith(
        "error: model.init_args.teacher_experiment is teacher.yaml, but there is no teacher_checkpoint"
    )
    assert not Path("runs").exists()


def test_an_overlay_written_on_the_command_line_reaches_the_teacher(workdir):
    write_toy()
    small = "{trainer: {max_epochs: 1, limit_train_batches: 1, devices: 1}}"
    main(["fit", "--config", "toy.yaml", "--config", small])
    kept = load_checkpoint(Path("runs/toy_teacher/seed1.ckpt"), "it")
    assert (kept["epoch"], kept["global_step"]) == (0, 1)
