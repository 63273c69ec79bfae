"""Two processes on one machine train like one: same batches, gradients, weights and scores."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from refusal import refusal
from toy import ToyData, ToyNet

from sdsnn_lightning.checkpoints import load_checkpoint

TEACHER = """
name: toy_teacher
data: {class_path: toy.ToyData}
model:
  class_path: sdsnn_lightning.Classifier
  init_args:
    network: {class_path: toy.ToyNet, init_args: {hidden: 7, norm: false}}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
trainer: {max_epochs: 1, accelerator: cpu, precision: 64-true, enable_progress_bar: false, enable_model_summary: false}
"""
STUDENT = """
name: toy
data: {class_path: toy.ToyData, init_args: {train: 45}}
model:
  class_path: sdsnn_lightning.Distiller
  init_args:
    student: {class_path: toy.ToyNet, init_args: {hidden: 5, norm: false}}
    teacher: {class_path: toy.ToyNet, init_args: {hidden: 7, norm: false}}
    teacher_checkpoint: ${runs}/toy_teacher/seed${seed_everything}.ckpt
    teacher_experiment: teacher.yaml
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.05}}
trainer:
  max_epochs: 2
  accelerator: cpu
  precision: 64-true
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  callbacks: [{class_path: test_distiller.Match, init_args: {weight: 0.5}}]
"""
CURRICULUM = """
name: curriculum
data: {class_path: toy.TimedToy, init_args: {noise: 0.0}}  # each process draws its own noise
model:
  class_path: sdsnn_lightning.Distiller
  init_args:
    student: {class_path: toy.ToyNet, init_args: {norm: false}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.05}}
    scheduler: {class_path: sdsnn_lightning.strategies.WarmupCosine}
trainer:
  max_epochs: 2
  accelerator: cpu
  precision: 64-true
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: sdsnn_lightning.strategies.TimeStepCurriculum
      init_args: {stages: [{step_ms: 20}, {step_ms: 40}]}
"""


@pytest.fixture
def place(workdir, monkeypatch):
    Path("teacher.yaml").write_text(TEACHER)
    Path("toy.yaml").write_text(STUDENT)
    Path("curriculum.yaml").write_text(CURRICULUM)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return workdir


def fit(experiment, devices, runs, *words):
    """A run in processes of its own, of 8 samples a global batch."""
    command = [sys.executable, "-m", "sdsnn_lightning", "fit", "--config", experiment, "--runs", runs]
    command += ["--trainer.devices", str(devices), "--data.init_args.batch_size", str(8 // devices), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def weights(folder):
    return load_checkpoint(Path(folder, "checkpoints/last.ckpt"), "it")["state_dict"]


def column(folder, name):
    rows = csv.DictReader(Path(folder, "metrics.csv").read_text().splitlines())
    return [float(row[name]) for row in rows if row[name]]


def test_two_processes_train_like_one(place):
    said = fit("toy.yaml", 2, "two")
    assert said.count("training the teacher first") == 1
    fit("toy.yaml", 1, "one", "--model.init_args.teacher_checkpoint", "two/toy_teacher/seed1.ckpt")
    one, two = weights("one/toy/version_0"), weights("two/toy/version_0")
    assert one.keys() == two.keys()
    assert "adapters.Match.weight" in one
    for key, value in one.items():
        assert value.dtype == torch.float64
        assert torch.allclose(value, two[key], rtol=0, atol=1e-10), key
    # 23 validation samples on two processes: none is counted twice.
    for name in ("val/WAR", "val/UAR", "val/task"):
        assert column("one/toy/version_0", name) == pytest.approx(column("two/toy/version_0", name), abs=1e-6), name
    assert [path.name for path in Path("two/toy").iterdir()] == ["version_0"]
    results = [json.loads(Path(f"{runs}/toy/version_0/results.json").read_text())["fit"] for runs in ("one", "two")]
    assert results[0]["steps"] == results[1]["steps"] == 2 * (45 // 8)


@pytest.mark.slow
def test_a_curriculum_promotes_the_same_weights_on_every_process(place):
    fit("curriculum.yaml", 1, "one")
    fit("curriculum.yaml", 2, "two")
    one, two = weights("one/curriculum/version_0"), weights("two/curriculum/version_0")
    assert all(torch.allclose(value, two[key], rtol=0, atol=1e-10) for key, value in one.items())
    stages = [load_checkpoint(Path(f"{r}/curriculum/version_0/checkpoints/stage1.ckpt"), "it") for r in ("one", "two")]
    key = "network.head.weight"
    assert torch.allclose(stages[0]["state_dict"][key], stages[1]["state_dict"][key], rtol=0, atol=1e-10)


def test_every_process_validates_the_network_that_is_saved(place):
    Path("norm.yaml").write_text(TEACHER.replace("norm: false", "norm: true"))
    fit("norm.yaml", 2, "two")
    network, data = ToyNet(3, hidden=7).double().eval(), ToyData()
    state = weights("two/toy_teacher/version_0")
    network.load_state_dict({key.removeprefix("network."): value for key, value in state.items()})
    data.setup("fit")
    scores = network.readout(network(data.val_set.x.double().transpose(0, 1)).logits)
    loss = torch.nn.functional.cross_entropy(scores, data.val_set.target).item()
    assert column("two/toy_teacher/version_0", "val/task") == pytest.approx([loss], abs=1e-6)


def test_strategies_that_shard_the_networks_are_refused(place, capsys):
    words = ("--trainer.strategy", "fsdp", "--trainer.accelerator", "cpu")
    assert "trainer" in refusal(capsys, "fit", "--config", "curriculum.yaml", *words)
