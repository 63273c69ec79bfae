"""Every overlay in experiments/strategies/ trains two steps over a toy experiment with maps and one with vectors."""

import csv
import json
import sys
from pathlib import Path

import pytest
import yaml
from places import REPOSITORY
from refusal import refusal

from sdsnn_lightning import strategies
from sdsnn_lightning.cli import main

OVERLAYS = sorted((REPOSITORY / "experiments" / "strategies").glob("*.yaml"))
NETWORKS = {
    "maps": ("ToyEvents", "toy_strategies.SpikingMaps", {}, "toy_strategies.FrameMaps", {}),
    "vectors": (
        "ToySound", "sdsnn_lightning.networks.SpikingKeyword", {"mels": 8, "hidden": 6},
        "sdsnn_lightning.networks.KeywordConvNet", {"width": 4},
    ),
}  # fmt: skip
REFUSALS = {("attention", "vectors"): "compares positions", ("samd", "vectors"): "a map of one position"}
"""What a combination that cannot work says; this teacher has neither maps nor time."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the toy experiments; their `alpha` is there to see that an overlay sets its own."""
    folder = tmp_path_factory.mktemp("overlays")
    for kind, (data, student, student_args, teacher, teacher_args) in NETWORKS.items():
        model = {
            "student": {"class_path": student, "init_args": student_args},
            "teacher": {"class_path": teacher, "init_args": teacher_args},
            "alpha": 0.3,
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}},
        }
        trainer = {
            "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "accelerator": "cpu",
            "log_every_n_steps": 1, "enable_progress_bar": False, "enable_model_summary": False,
            "callbacks": [{"class_path": "sdsnn_lightning.strategies.LogitDistillation"}],
        }  # fmt: skip
        content = {
            "data": {"class_path": f"toy_strategies.{data}"},
            "model": {"class_path": "sdsnn_lightning.Distiller", "init_args": model},
            "trainer": trainer,
        }
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_trains(overlay, kind, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    name = f"{overlay.stem}_{kind}"
    words = ["fit", "--config", f"{kind}.yaml", "--config", str(overlay), "--name", name]
    if (overlay.stem, kind) in REFUSALS:
        assert REFUSALS[overlay.stem, kind] in refusal(capsys, *words)
        return
    main(words)
    run = place / "runs" / name / "version_0"
    assert json.loads((run / "results.json").read_text())["fit"]["steps"] == 2
    with (run / "metrics.csv").open() as file:
        columns = set(csv.DictReader(file).fieldnames or [])
    content = yaml.safe_load(overlay.read_text())
    saved = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert saved["alpha"] == content.get("model", {}).get("init_args", {}).get("alpha", 0.3)
    for callback in content["trainer"].get("callbacks", []) + content["trainer"].get("callbacks+", []):
        method = getattr(strategies, callback["class_path"].rpartition(".")[2], None)
        if isinstance(method, type) and issubclass(method, strategies.Strategy):
            assert f"train/{callback.get('init_args', {}).get('name', method.__name__)}" in columns


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_says_what_it_is_and_leaves_the_experiment_alone(overlay):
    text = overlay.read_text()
    assert text.startswith("# ")
    assert len(text.splitlines()) <= 60
    assert set(yaml.safe_load(text)) <= {"model", "notes", "trainer", "data"}
    assert yaml.safe_load(text)["notes"]["method"]
    assert set(yaml.safe_load(text).get("model", {"init_args": {}})) <= {"init_args"}


def test_there_are_overlays_and_toys():
    assert {"bkd", "wsld", "bkdsnn", "kdsnn", "lasnn", "hdkd", "mgd", "attention", "similarity", "dkd", "dist"} <= {
        path.stem for path in OVERLAYS
    }
    assert str(Path(__file__).parent) in sys.path  # toy_strategies is importable by its name
