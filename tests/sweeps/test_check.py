"""A sweep that cannot work is refused in one line, before any trial. The sweeps and W&B file that come with us can."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from places import REPOSITORY
from refusal import refusal
from toy_files import write_toy
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from sdsnn_lightning.cli import main
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.sweeps.check import check_space, fit_reader
from sdsnn_lightning.sweeps.space import read_sweep

SWEEPS = sorted((REPOSITORY / "experiments/sweeps").glob("*.yaml"))
OURS = [path for path in SWEEPS if not path.name.endswith(".wandb.yaml")]
LR = "model.init_args.optimizer.init_args.lr"


@pytest.fixture
def sweep(workdir):
    write_toy()

    def sweep(space, extra=(), **more):
        Path("sweep.yaml").write_text(
            yaml.safe_dump({"config": "toy.yaml", "space": space, "metric": "val/UAR", **more})
        )
        return read_sweep(Path("sweep.yaml"), tuple(extra))

    return sweep


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"model.init_args.alhpa": {"grid": [0.1]}}, "space: model.init_args.alhpa=0.1: "),
        ({"model.init_args.alpha": {"grid": [0.1, 1.5]}}, "alpha=1.5: model.init_args.alpha is 1.5; set it between"),
        ({"model.init_args.alpha": {"uniform": [0.5, 2]}}, "alpha=2.0: model.init_args.alpha is 2.0; set it between"),
        ({"trainer.max_epochs": {"choice": [2, "many"]}}, "space: trainer.max_epochs=many: "),
        ({"trainer.max_epoch": {"grid": [2]}}, "space: trainer.max_epoch=2: "),
        ({"model.init_args.student.init_args.hidden": {"uniform": [2, 8.5]}}, "hidden=2.0: "),
    ],
)
def test_bad_keys_and_values_are_refused_by_the_experiments_own_parser(sweep, space, said):
    with pytest.raises(ConfigError) as error:
        check_space(sweep(space))
    text = str(error.value)
    assert text.startswith("sweep.yaml: space: ")
    assert said in text
    assert "\n" not in text
    assert not Path("runs").exists()


def test_an_experiment_that_cannot_run_is_refused(sweep):
    with pytest.raises(ConfigError, match=r"the experiment itself is refused: .*max_epoch"):
        check_space(sweep({LR: {"grid": [0.1]}}, extra=["--trainer.max_epoch=2"]))
    with pytest.raises(ConfigError, match=r"scheduler: asha compares epochs; set trainer\.max_epochs"):
        check_space(sweep({LR: {"grid": [0.1]}}, extra=["--trainer.max_epochs=-1"], scheduler="asha"))


def test_trials_share_the_experiments_teacher_and_only_keys_that_name_it_reach_it(sweep):
    space = {"seed_everything": {"grid": [1, 2]}, LR: {"grid": [0.1, 0.2]}, "trainer.max_epochs": {"grid": [2, 3]}}
    plan = check_space(sweep(space))
    assert plan.runs == Path("runs")
    assert plan.epochs == [2, 3] * 4
    assert plan.teachers == {
        "runs/toy_teacher/seed1.ckpt": ["--config", "toy.yaml"],
        "runs/toy_teacher/seed2.ckpt": ["--config", "toy.yaml", "--seed_everything=2", "--trainer.max_epochs=2"],
    }
    Path("runs/toy_teacher").mkdir(parents=True)
    Path("runs/toy_teacher/seed1.ckpt").touch()
    assert list(check_space(sweep({LR: {"grid": [0.1]}})).teachers) == []


def test_list_prints_the_commands_a_person_would_type(sweep, capsys, monkeypatch):
    sweep({LR: {"grid": [0.1, 0.2]}})
    main(["sweep", "sweep.yaml", "--list", "--trainer.max_epochs=1"])
    assert capsys.readouterr().out.splitlines()[1] == (
        "lightning fit --config toy.yaml --trainer.max_epochs=1 --model.init_args.optimizer.init_args.lr=0.2 "
        "--name=sweep/trial_001 --version=0 --wandb.group=sweep"
    )
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.max_epochs", "3"], "--trainer.max_epochs: no option of sweep; give overrides for the trials as"),
        (["--name=x"], "--name is set by the sweep itself"),
    ],
)
def test_words_for_the_trials_are_checked(sweep, capsys, words, said):
    sweep({LR: {"grid": [0.1]}})
    assert f"error: {said}" in refusal(capsys, "sweep", "sweep.yaml", *words)


def test_an_unknown_metric_is_refused_with_those_there_are(sweep, capsys):
    sweep({LR: {"grid": [0.1]}}, metric="val/accuracy")
    assert refusal(capsys, "sweep", "sweep.yaml").startswith(
        "error: sweep.yaml: metric: nothing is logged as val/accuracy; choose one of val/UAR, val/WAR"
    )
    assert not Path("runs/sweep").exists()
    assert not Path("runs/toy_teacher").exists()


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_sweep_that_comes_with_us_fits_its_experiment(path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    sweep = read_sweep(path.relative_to(REPOSITORY))
    assert sweep.name == path.stem
    plan = check_space(sweep)
    assert len(plan.epochs) == len(sweep.trials()) > 1
    assert len(set(plan.epochs)) == 1
    assert plan.epochs[0] > 0


def test_the_wandb_sweep_asks_for_runs_that_our_parser_takes(monkeypatch):
    """The words are formed by W&B's own agent code."""
    monkeypatch.chdir(REPOSITORY)
    path = REPOSITORY / "experiments/sweeps/seye_alpha.wandb.yaml"
    content = yaml.safe_load(path.read_text())
    chosen = {"model.init_args.alpha": 0.7, LR: 1e-05}
    assert chosen.keys() == content["parameters"].keys()
    words = create_sweep_command_args({"args": {key: {"value": value} for key, value in chosen.items()}})
    command = []
    for word in create_sweep_command(content["command"]):
        command += words["args"] if word == "${args}" else [word]
    assert command[:2] == ["lightning", "fit"]
    config = fit_reader().resolve(command[2:])
    assert config["model"]["init_args"]["alpha"] == 0.7
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1e-05
    assert config["runs"] == "runs/quick"
    ours = read_sweep(Path("experiments/sweeps/seye_alpha.yaml"))
    assert tuple(content["parameters"]["model.init_args.alpha"]["values"]) == ours.space["model.init_args.alpha"].values
    assert (content["metric"]["name"], content["metric"]["goal"]) == (ours.metric, "maximize")


@pytest.mark.parametrize("address", ["somewhere", "127.0.0.1:1", "127.0.0.1:99999", "127.0.0.1:x"])
def test_an_address_where_no_cluster_is_is_refused_at_once(sweep, address):
    from sdsnn_lightning.sweeps import engine

    with (
        pytest.raises(ConfigError, match=f"--address {address}: no Ray cluster answers"),
        engine.cluster(sweep({LR: {"grid": [0.1]}}), address),
    ):
        pass


def test_tune_can_write_down_what_follows_the_trials():
    """A live table in a terminal holds a lock, which cannot be written."""
    import threading

    from ray import cloudpickle

    from sdsnn_lightning.sweeps.engine import Follower

    lock = threading.RLock()
    assert cloudpickle.loads(cloudpickle.dumps(Follower(lambda *event: lock))).__dict__ == {}


def test_help_is_cheap():
    """Neither torch nor Ray is imported for it."""
    import subprocess

    program = "import json, sys\nfrom sdsnn_lightning.sweeps.command import main\ntry:\n    main(['--help'])\n"
    program += "except SystemExit:\n    print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert "--address" in done.stdout
    assert not {"torch", "ray", "lightning", "matplotlib"} & set(json.loads(done.stdout.splitlines()[-1]))
