"""The command line as a person uses it: words in, files and messages out."""

import csv
import json
import shlex
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml
from refusal import refusal
from toy_files import STUDENT, TEACHER, write_toy
from wandb_file import ended_run, run_files

from sdsnn_lightning import cli
from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.cli import main
from sdsnn_lightning.loggers import Wandb, logged_in

STRATEGY = """
from sdsnn_lightning import Strategy

class LogitMSE(Strategy):
    def loss(self, step, adapter):
        return (step.student.logits - step.teacher.logits).square().mean()
"""


@pytest.fixture
def toy(workdir):
    """A folder as a user has it: two experiments and a module with a strategy of his own."""
    write_toy()
    own = STUDENT.replace("sdsnn_lightning.strategies.LogitDistillation", "strategy_for_tests.LogitMSE")
    Path("toy.yaml").write_text(own)
    Path("strategy_for_tests.py").write_text(STRATEGY)
    return workdir


def run(*words):
    """A command in a process of its own."""
    command = [sys.executable, "-m", "sdsnn_lightning", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


def test_fit_trains_the_teacher_first_then_test_reports(toy, capsys):
    Path("overlay.yaml").write_text("{trainer: {max_epochs: 1, callbacks+: []}, name: toy}")
    done = run("fit", "--config", "toy.yaml", "--config=overlay.yaml")
    assert done.returncode == 0, done.stderr
    assert "training the teacher first (teacher.yaml)" in done.stderr
    assert json.loads(Path("runs/toy_teacher/version_0/results.json").read_text())["fit"]["epochs"] == 1
    folder = toy / "runs/toy/version_0"
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "metrics.csv", "results.json", "checkpoints"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    teacher = torch.load("runs/toy_teacher/seed1.ckpt", weights_only=True)
    assert teacher["state_dict"]["network.hidden.weight"].shape == (8, 6)
    assert load_checkpoint(folder / "checkpoints" / "last.ckpt", "it")["epoch"] == 0
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/task", "train/LogitMSE", "train/LogitMSE_weight", "val/WAR", "val/UAR", "val/side/left"} <= set(
        header
    )

    main(["test", "--config", "toy.yaml", "--ckpt_path", "best"])
    results = json.loads((folder / "results.json").read_text())
    assert results["data_source"] == "simulated"
    assert results["test"]["parameters"] == 63
    assert 0 <= results["test"]["UAR"] <= 1
    assert results["test"]["energy/paper_nJ"] > 0
    capsys.readouterr()
    main(["report", "runs/toy", "runs/toy/version_0", "--table"])
    table = capsys.readouterr().out.splitlines()
    assert f"{100 * results['test']['WAR']:.1f}" in table[2]
    assert "ToyData (simulated)" in table[2]

    # The run is reproduced by its saved configuration, number by number.
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["data"]["init_args"]["source"] == "simulated"
    again = run("fit", "--config", str(folder / "config.yaml"))
    assert again.returncode == 0, again.stderr
    assert "training the teacher first" not in again.stderr
    first, second = (toy / f"runs/toy/version_{n}/metrics.csv" for n in (0, 1))
    assert first.read_text() == second.read_text()

    # So is its teacher, which got the number of its folder, by the command that the report shows: beside itself.
    command = json.loads(Path("runs/toy_teacher/version_0/results.json").read_text())["fit"]["command"]
    kept = Path("runs/toy_teacher/version_0/metrics.csv").stat().st_mtime_ns
    main(shlex.split(command)[1:])
    first, second = (toy / f"runs/toy_teacher/version_{n}/metrics.csv" for n in (0, 1))
    assert first.read_text() == second.read_text()
    assert first.stat().st_mtime_ns == kept


def test_last_is_the_last_epoch_and_training_goes_on_from_it(toy):
    Path("worse.yaml").write_text("{checkpoint: {monitor: val/task, mode: max}}")  # epoch 0 stays the best
    words = ["fit", "--config", "teacher.yaml", "--config", "worse.yaml", "--trainer.max_epochs"]
    main([*words, "3"])
    folder = toy / "runs/toy_teacher/version_0/checkpoints"
    best, last = (load_checkpoint(folder / f"{which}.ckpt", "it")["epoch"] for which in ("best", "last"))
    assert (best, last) == (0, 2)
    main([*words, "5", "--ckpt_path", "last"])
    assert [path.name for path in Path("runs/toy_teacher").glob("version_*")] == ["version_0"]
    assert yaml.safe_load((folder.parent / "config.yaml").read_text())["ckpt_path"] is None  # repeats all five epochs
    again = load_checkpoint(folder / "last.ckpt", "it")
    assert again["epoch"] == 4
    assert again["global_step"] == 5 * 6
    rows = list(csv.DictReader((folder.parent / "metrics.csv").open()))
    validated = [int(row["step"]) for row in rows if row["val/WAR"]]
    assert validated == [5, 11, 17, 23, 29]


def test_a_trial_run_of_one_batch_leaves_no_folder(toy):
    main(["fit", "--config", "teacher.yaml", "--trainer.fast_dev_run", "true"])
    assert not Path("runs/toy_teacher").exists()


def test_overrides_reach_every_interpolation(toy, capsys):
    main_words = ["fit", "--config", "toy.yaml", "--data.init_args.batch_size", "6", "--trainer.max_epochs", "9"]
    with pytest.raises(SystemExit):
        main([*main_words, "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["teacher"]["init_args"]["hidden"] == 6
    assert config["model"]["init_args"]["scheduler"]["init_args"]["T_max"] == 9
    assert config["model"]["init_args"]["teacher_checkpoint"] == "runs/toy_teacher/seed1.ckpt"


def test_optimizer_gets_its_own_defaults_only(toy, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "toy.yaml", "--print_config"])
    options = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]["init_args"]
    assert options["weight_decay"] == 0
    assert options["lr"] == 0.1


def test_a_missing_teacher_experiment_is_named(toy, capsys):
    Path("teacher.yaml").unlink()
    assert "teacher_experiment: teacher.yaml does not exist" in refusal(capsys, "fit", "--config", "toy.yaml")
    assert not Path("runs/toy").exists()


def test_a_failing_teacher_stops_the_student(toy, capsys):
    Path("teacher.yaml").write_text(TEACHER.replace("lr: 0.1", "lr: 1.0e+30"))
    assert "training the teacher failed with exit code 2" in refusal(capsys, "fit", "--config", "toy.yaml")
    assert not Path("runs/toy").exists()
    assert not Path("runs/toy_teacher/seed1.ckpt").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.max_epoch", "3"], "max_epoch"),
        (["--model.init_args.student.init_args.hiden", "3"], "hiden"),
        (["--data.init_args.source", "maybe"], "maybe"),
        (["--data", "toy.NoData"], "NoData"),
        (["--data.init_args.source", "real"], "nowhere does not exist"),
        (["--ckpt_path", "last"], "no run in runs/toy has a last.ckpt"),
        (["--trainer.max_epochs", "many"], "max_epochs"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(toy, capsys, words, said):
    assert said in refusal(capsys, "fit", "--config", "toy.yaml", *words)
    assert not Path("runs/toy").exists()


@pytest.mark.parametrize(
    ("word", "said"), [("reprot", "no command 'reprot'; did you mean report?"), ("xyz", "; choose from fit, ")]
)
def test_a_word_that_is_no_command_is_told_those_that_are(capsys, word, said):
    with pytest.raises(SystemExit) as end:
        main([word, "--config", "a.yaml"])
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
    assert "sweep" in line


def test_help_names_the_subcommands(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("fit", "validate", "test", "predict"))


def test_foreign_words_go_to_the_other_lightning(monkeypatch):
    called = []
    other = EntryPoint("lightning", "elsewhere:main", "console_scripts")
    monkeypatch.setattr(EntryPoint, "load", lambda self: lambda: called.append(self.value))
    ours = EntryPoint("lightning", "sdsnn_lightning.cli:main", "console_scripts")
    monkeypatch.setattr(cli, "entry_points", lambda **_: [ours, other])
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lightning", "run", "app.py"])
    main()
    assert called == ["elsewhere:main"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/sdsnn", "run", "app.py"])
    with pytest.raises(SystemExit):
        main()
    assert called == ["elsewhere:main"]


def test_wandb_is_offline_unless_logged_in(workdir, monkeypatch):
    for key in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("NETRC", str(workdir / "netrc"))
    assert not logged_in()
    assert Wandb().mode == "offline"
    (workdir / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert logged_in()
    assert Wandb().mode == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert Wandb().mode == "offline"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("NETRC", "none")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert Wandb().mode == "online"
    assert Wandb(mode="disabled").loggers("runs", "x") == []


@pytest.mark.slow
def test_wandb_offline_run_holds_the_whole_config(toy, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    done = run("fit", "--config", "toy.yaml", "--wandb.tags", "[mine]", "--wandb.group", "together")
    assert done.returncode == 0, done.stderr
    (file,) = run_files(Path("runs/toy/version_0"))
    kept = ended_run(file)
    assert kept.config["model"]["init_args"]["student"]["class_path"] == "toy.ToyNet"
    assert kept.config["trainer"]["callbacks"][0]["init_args"]["weight"] == 0.5
    assert kept.config["data_source"] == "simulated"
    assert {"train/task", "train/LogitMSE", "val/WAR"} <= set().union(*kept.history)
    assert kept.tags == {"mine", "data_source: simulated"}


@pytest.mark.slow
def test_two_seeds_started_at_once_keep_their_own_teachers_and_folders(toy):
    command = [sys.executable, "-m", "sdsnn_lightning", "fit", "--config", "toy.yaml", "--seed_everything"]
    runs = [subprocess.Popen([*command, seed], stderr=subprocess.PIPE, text=True) for seed in ("1", "2", "2")]
    for process in runs:
        assert process.wait(280) == 0, process.stderr.read()
    teachers = {}
    for folder in Path("runs/toy_teacher").glob("version_*"):
        seed = yaml.safe_load((folder / "config.yaml").read_text())["seed_everything"]
        teachers[seed] = (folder / "checkpoints/best.ckpt").read_bytes()
    assert len(list(Path("runs/toy_teacher").glob("version_*"))) == 2
    for seed in (1, 2):
        assert Path(f"runs/toy_teacher/seed{seed}.ckpt").read_bytes() == teachers[seed]
    assert len(list(Path("runs/toy").glob("version_*/results.json"))) == 3


def test_evaluation_runs_on_one_device_and_counts_every_sample_once(toy):
    Path("classifier.yaml").write_text(TEACHER.replace("name: toy_teacher", "name: alone"))
    done = run("fit", "--config", "classifier.yaml", "--trainer.devices", "2")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in Path("runs/alone").iterdir()] == ["version_0"]
    words = ("--config", "classifier.yaml", "--trainer.devices", "2", "--ckpt_path", "best")
    main(["predict", *words])
    assert len(Path("runs/alone/version_0/predictions.csv").read_text().splitlines()) == 1 + 23
    main(["test", *words])
    scores = json.loads(Path("runs/alone/version_0/results.json").read_text())["test"]
    assert scores["WAR"] * 23 == pytest.approx(round(scores["WAR"] * 23), abs=1e-4)
    assert "layer" in (Path("runs/alone/version_0") / "energy.txt").read_text()


def test_trainer_overrides_reach_the_teacher(toy):
    main(["fit", "--config", "toy.yaml", "--trainer.max_epochs=1", "--trainer.limit_train_batches", "2"])
    assert json.loads(Path("runs/toy_teacher/version_0/results.json").read_text())["fit"]["steps"] == 2
