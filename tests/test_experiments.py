"""Every YAML in experiments/ runs: two training steps, validation, test and prediction through the command line."""

import json
from pathlib import Path

import pytest
import yaml
from places import REPOSITORY

from sdsnn_lightning.cli import main
from sdsnn_lightning.runs import versions

EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.yaml"))
OVERLAYS = [path for path in EXPERIMENTS if "model" not in yaml.safe_load(path.read_text())]
RUNNABLE = [path for path in EXPERIMENTS if path not in OVERLAYS]
SMALL = {
    "SingleEye": {"simulated_subjects": 3, "simulated_clips": 1, "size": 32, "batch_size": 3, "val_fraction": 0.4},
    "SpeechCommands": {"batch_size": 8},
    "CIFAR10DVS": {"simulated_recordings": 4, "size": 16, "batch_size": 4, "val_fraction": 0.34},
    "SpikingHeidelberg": {"batch_size": 8},
    "SpikingSpeechCommands": {"batch_size": 8},
}
KINDS = (
    "seye", "seye_teacher", "seen", "keyword_ce", "words_kdcl", "shd_kdcl", "gsc", "cifar10dvs_bkdsnn",
    "dvs_objects_sltt",
)  # fmt: skip
"""At least one of every kind of data, network and method; the others are a little slower to wait for."""
TWO_STEPS = {
    "limit_train_batches": 2, "limit_val_batches": 2, "limit_test_batches": 2,
    "limit_predict_batches": 2, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False,
    "log_every_n_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all experiments, so that simulated sets and teachers are made once."""
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "experiments").symlink_to(REPOSITORY / "experiments")
    return folder


def overlay(experiment: Path, folder: Path) -> Path:
    """An overlay that makes the experiment tiny; it reaches the teacher, too."""
    data = yaml.safe_load(experiment.read_text())["data"]["class_path"].rpartition(".")[2]
    path = folder / f"tiny_{data}.yaml"
    trainer = {"max_epochs": stages(experiment), **TWO_STEPS}
    path.write_text(yaml.safe_dump({"width": 0.1, "data": {"init_args": SMALL[data]}, "trainer": trainer}))
    return path


def stages(experiment: Path) -> int:
    """Stages of the experiment's curriculum, each of which needs an epoch; 1 without."""
    callbacks = yaml.safe_load(experiment.read_text())["trainer"].get("callbacks", [])
    return max([len(callback.get("init_args", {}).get("stages", [])) for callback in callbacks] + [1])


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in KINDS else [pytest.mark.slow]) for path in RUNNABLE],
)
def test_experiment_runs(experiment, place, monkeypatch):
    monkeypatch.chdir(place)
    name = yaml.safe_load(experiment.read_text())["name"]
    assert name == experiment.stem
    words = ["--config", f"experiments/{experiment.name}", "--config", str(overlay(experiment, place))]
    main(["fit", *words])
    folder = versions(place / "runs", name)[-1]
    assert (folder / "checkpoints" / "best.ckpt").is_file()
    assert json.loads((folder / "results.json").read_text())["fit"]["steps"] == 2 * stages(experiment)
    main(["test", *words, "--ckpt_path", "best"])
    results = json.loads((folder / "results.json").read_text())
    assert results["data_source"] == "simulated"
    assert 0 <= results["test"]["WAR"] <= 1
    assert {"confusion.png", "recall.png"} <= {path.name for path in (folder / "pictures").iterdir()}
    main(["predict", *words, "--ckpt_path", "best"])
    assert len((folder / "predictions.csv").read_text().splitlines()) > 1


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_states_only_what_differs(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 60
    assert lines[0].startswith("#"), "an experiment says on its first line what it is"


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_fits_every_single_eye_experiment(path, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    for experiment in (e for e in RUNNABLE if "SingleEye" in e.read_text()):
        with pytest.raises(SystemExit) as end:
            main(["fit", "--config", f"experiments/{experiment.name}", "--config", str(path), "--print_config"])
        assert end.value.code in (0, None)
        printed, wanted = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(path.read_text())
        for key, value in wanted["trainer"].items():
            assert printed["trainer"][key] == value


def test_spoken_digits_are_read_from_where_their_command_puts_them():
    text = (REPOSITORY / "experiments" / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    words = next(line for line in text.splitlines() if line.startswith("sdsnn data to-spikes")).split()
    out, prefix = words[words.index("--prefix") - 1], words[words.index("--prefix") + 1]
    for path in (REPOSITORY / "experiments").glob("digits*.yaml"):
        options = yaml.safe_load(path.read_text())["data"]["init_args"]
        assert (options["root"], options["prefix"]) == (out, prefix), path.name
