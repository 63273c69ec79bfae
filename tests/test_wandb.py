"""W&B for real: runs of the command line, and what stands in wandb's own files afterwards."""

import contextlib
import csv
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import wandb
from lightning.pytorch import Callback
from refusal import refusal
from torch import nn
from wandb_file import RunFile, ended_run, run_files

from sdsnn_lightning import Leaky, Output, loggers
from sdsnn_lightning.checkpoints import load_network_state
from sdsnn_lightning.cli import main
from sdsnn_lightning.loggers import ID_FILE, Wandb
from sdsnn_lightning.wandb_record import git_state

EXPERIMENT = """
name: toy
data: {class_path: toy.ToyData}
model:
  class_path: sdsnn_lightning.Distiller
  init_args:
    student: {class_path: test_wandb.SpikingToy}
    teacher: {class_path: toy.ToyTeacher}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
trainer:
  max_epochs: 2
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [{class_path: sdsnn_lightning.strategies.LogitDistillation, init_args: {weight: 0.5}}]
wandb: {tags: [mine], group: together}
"""
FOLDER = Path("runs/toy/version_0")
KEY = "0123456789" * 4


class SpikingToy(nn.Module):
    inputs: ClassVar[tuple[str, ...]] = ("x",)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.hidden, self.neuron, self.head = nn.Linear(6, 8), Leaky(beta=0.9), nn.Linear(8, num_classes)

    def forward(self, x):
        spikes = self.neuron(self.hidden(x))
        return Output(self.head(spikes), {"hidden": spikes})

    def readout(self, logits):
        return logits.mean(0)


class KillWandb(Callback):
    """Kills wandb's own process, a child of this one, after the first epoch."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            for file in Path("/proc").glob("[0-9]*/stat"):
                pid, name, _, parent = file.read_text().split()[:4]
                if name == "(wandb-core)" and int(parent) == os.getpid():
                    os.kill(int(pid), signal.SIGKILL)


def settle(place, monkeypatch, mode):
    """A folder with the experiment, all files of wandb within, and nobody logged in."""
    sys.modules["test_wandb"] = sys.modules[__name__]
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(place)
    for key, value in {
        "WANDB_MODE": mode, "WANDB_CONSOLE": "off", "NETRC": str(place / "netrc"),
        "WANDB_CACHE_DIR": str(place / "cache"), "WANDB_DATA_DIR": str(place / "staged"),
        "WANDB_CONFIG_DIR": str(place / "config"),
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    for key in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_RUN_ID"):
        monkeypatch.delenv(key, raising=False)
    Path("toy.yaml").write_text(EXPERIMENT)
    with contextlib.suppress(OSError):  # wandb reads these variables once in a process
        wandb.teardown()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A fit of two epochs, gone on with for a third, and a test: the three run files in order."""
    place = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as monkeypatch:
        settle(place, monkeypatch, "offline")
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
        for words in (["init", "-q"], ["add", "toy.yaml"], ["commit", "-q", "-m", "x"]):
            subprocess.run([*git, *words], check=True, capture_output=True)
        main(["fit", "--config", "toy.yaml", "--wandb.log_model", "true"])
        monkeypatch.setenv("WANDB_RUN_ID", "of-another-run")
        main(["fit", "--config", "toy.yaml", "--trainer.max_epochs", "3", "--ckpt_path", "last"])
        monkeypatch.delenv("WANDB_RUN_ID")
        main(["test", "--config", "toy.yaml", "--ckpt_path", "best"])
    return place


@pytest.fixture
def first(kept):
    return ended_run(run_files(kept / FOLDER)[0])


def column(place, name):
    rows = csv.DictReader((place / FOLDER / "metrics.csv").read_text().splitlines())
    return [(int(row["step"]), float(row[name])) for row in rows if row[name]]


def test_the_whole_configuration_and_where_it_came_from(kept, first):
    config = first.config
    assert config["model"]["init_args"]["student"]["class_path"].endswith("test_wandb.SpikingToy")
    assert config["model"]["init_args"]["teacher"]["class_path"] == "toy.ToyTeacher"
    assert config["trainer"]["callbacks"][0]["init_args"]["weight"] == 0.5
    assert config["seed_everything"] == 1
    assert config["data_source"] == "simulated"
    facts = config["provenance"]
    assert (facts["student"], facts["teacher"]) == ("SpikingToy", "ToyTeacher")
    assert facts["strategies"] == ["LogitDistillation"]
    assert (facts["data"], facts["data_source"]) == ("ToyData", "simulated")
    head = subprocess.run(["git", "-C", kept, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert facts["git_commit"] == head.stdout.strip()
    assert facts["git_changed"] is False
    assert first.tags == {"mine", "data_source: simulated"}
    assert first.group == "together"
    assert first.ended == 0


def test_git_state_sees_changes(kept, tmp_path):
    (kept / "toy.yaml").write_text(EXPERIMENT + "# changed\n")
    assert git_state(kept)["git_changed"] is True
    (kept / "toy.yaml").write_text(EXPERIMENT)
    assert git_state(kept)["git_changed"] is False
    assert git_state(tmp_path / "nowhere") == {}


def test_every_epoch_is_there_with_the_numbers_of_the_metrics_file(kept):
    fit, more, _ = (ended_run(file) for file in run_files(kept / FOLDER))
    for name in ("val/WAR", "val/UAR", "val/task", "val/firing_rate/neuron"):
        found = [(row["trainer/global_step"], row[name]) for row in fit.history + more.history if name in row]
        assert [step for step, _ in found] == [step for step, _ in column(kept, name)] == [5, 11, 17]
        assert [value for _, value in found] == pytest.approx([value for _, value in column(kept, name)]), name
    assert any("train/LogitDistillation" in row for row in fit.history)


def test_a_resumed_fit_and_a_test_stay_the_same_run(kept):
    files = run_files(kept / FOLDER)
    ids = [RunFile(file).id for file in files]
    assert len(ids) == 3
    assert set(ids) == {(kept / FOLDER / ID_FILE).read_text().strip()}
    assert len(ids[0]) == 8


def test_the_summary_knows_the_best_epoch(kept):
    scores = [value for _, value in column(kept, "val/UAR")]
    fit, more, _ = (ended_run(file) for file in run_files(kept / FOLDER))
    for summary, known in ((fit.summary, scores[:2]), (more.summary, scores)):
        assert summary["best/val/UAR"] == pytest.approx(max(known))
        assert summary["best/epoch"] == known.index(max(known))


def test_pictures_of_the_test_are_media_of_the_run(kept):
    test = ended_run(run_files(kept / FOLDER)[2])
    media = {key: value for row in test.history for key, value in row.items() if isinstance(value, dict)}
    for name in ("confusion", "raster", "recall"):
        (image,) = media[f"test/{name}"]["filenames"]
        path = run_files(kept / FOLDER)[2].parent / "files" / image
        drawn = kept / FOLDER / "pictures" / f"{name}.png"
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(drawn.read_bytes()).digest()
    results = json.loads((kept / FOLDER / "results.json").read_text())["test"]
    scores = {key: value for row in test.history for key, value in row.items()}
    assert scores["test/UAR"] == pytest.approx(results["UAR"])
    assert scores["test/energy/paper_nJ"] == pytest.approx(results["energy/paper_nJ"])


def test_the_best_weights_are_an_artifact(kept, first):
    (artifact,) = first.artifacts
    assert (artifact.name, artifact.type) == (f"weights-{first.id}", "model")
    assert "best" in artifact.aliases
    (entry,) = artifact.manifest.contents
    assert entry.path == "network.pt"
    state = torch.load(entry.local_path, weights_only=True)
    # Of the first two epochs: the third, of the resumed fit, may have become the best one.
    assert set(state) == {key for key, _ in SpikingToy(3).state_dict().items()}
    again, _ = load_network_state(Path(entry.local_path), "it")
    SpikingToy(3).load_state_dict(again)
    if max(score for _, score in column(kept, "val/UAR")[:2]) >= column(kept, "val/UAR")[2][1]:
        best, _ = load_network_state(kept / FOLDER / "checkpoints/best.ckpt", "it")
        assert all(torch.equal(best[key], state[key]) for key in best)


def said(caplog):
    return [record.getMessage() for record in caplog.records if "W&B" in record.getMessage()]


def test_a_closed_network_leaves_a_run_to_send_later(tmp_path, monkeypatch, caplog):
    settle(tmp_path, monkeypatch, "online")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    main(["fit", "--config", "toy.yaml"])
    (line,) = said(caplog)
    assert f"W&B at http://127.0.0.1:{port} does not answer" in line
    run = (FOLDER / ID_FILE).read_text().strip()
    assert line.endswith(f"to send it later: wandb sync {FOLDER}/wandb/*run-*-{run}")
    # Nothing was tried online, which would have waited: there is the offline run alone.
    (file,) = run_files(FOLDER)
    assert file.parent.name.startswith("offline-run-")
    found = ended_run(file)
    assert found.ended == 0
    assert sum("val/UAR" in row for row in found.history) == 2


class Mute(BaseHTTPRequestHandler):
    """A server that is there, and never answers what W&B asks of it."""

    hold = threading.Event()

    def do_HEAD(self):
        self.send_response(404)
        self.end_headers()

    def do_POST(self):
        self.hold.wait(120)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(handler, ended, monkeypatch):
    """W&B's server, as far as a run knows; answers that are held back are let go by the event `ended` at the end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        try:
            yield
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def test_a_server_that_takes_no_run_leaves_a_run_to_send_later(tmp_path, monkeypatch, caplog):
    settle(tmp_path, monkeypatch, "online")
    monkeypatch.setattr(loggers, "START_SECONDS", 1.0)
    with serving(Mute, Mute.hold, monkeypatch):
        main(["fit", "--config", "toy.yaml", "--trainer.max_epochs", "1"])
    (line,) = said(caplog)
    assert "takes no run" in line
    assert "wandb sync" in line
    assert any(ended_run(file).ended == 0 for file in run_files(FOLDER) if file.parent.name.startswith("offline-"))


def test_the_training_outlives_wandb(tmp_path, monkeypatch, recwarn):
    settle(tmp_path, monkeypatch, "offline")
    main(["fit", "--config", "toy.yaml", "--trainer.callbacks+", "{class_path: test_wandb.KillWandb}"])
    with contextlib.suppress(OSError):
        wandb.teardown()
    wandb.run = None  # else the next test in this process goes on with a run that nobody keeps
    lines = [str(w.message) for w in recwarn if "W&B takes no more values" in str(w.message)]
    assert len(lines) == 1
    assert "metrics.csv has them all" in lines[0]
    assert len(column(tmp_path, "val/UAR")) == 2
    assert json.loads((FOLDER / "results.json").read_text())["fit"]["epochs"] == 2


def test_a_best_checkpoint_that_was_cut_does_not_end_a_resumed_run(tmp_path, monkeypatch):
    settle(tmp_path, monkeypatch, "offline")
    main(["fit", "--config", "toy.yaml", "--trainer.max_epochs", "1"])
    best = FOLDER / "checkpoints/best.ckpt"
    best.write_bytes(best.read_bytes()[:-1000])
    main(["fit", "--config", "toy.yaml", "--ckpt_path", "last"])
    assert len(column(tmp_path, "val/UAR")) == 2
    assert "best/val/UAR" in ended_run(run_files(FOLDER)[1]).summary


def test_an_agent_names_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun")
    (logger,) = Wandb().loggers(str(tmp_path / "a"), "x")
    assert logger.version == "agentrun"
    monkeypatch.delenv("WANDB_RUN_ID")
    one, two = (Wandb().loggers(str(tmp_path / "a"), "x")[0].version for _ in range(2))
    assert one != two


def test_a_wrong_mode_is_refused(tmp_path, monkeypatch, capsys):
    settle(tmp_path, monkeypatch, "ofline")
    line = refusal(capsys, "fit", "--config", "toy.yaml")
    assert line == "error: the variable WANDB_MODE is 'ofline'; set it to online, offline or disabled"
    assert not Path("runs").exists()
