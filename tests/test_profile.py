"""`sdsnn profile` as a person uses it, on networks whose cost is known."""

import io
import json
from pathlib import Path

import pytest
import torch
from counted import Fires, Net
from refusal import refusal
from rich.console import Console
from spiking_set import write_set
from torch import nn

from sdsnn_lightning.cli import main
from sdsnn_lightning.metrics.cost import device_name, latency, peak_memory
from sdsnn_lightning.metrics.energy import RULES, measure_energy
from sdsnn_lightning.metrics.energy_table import _cut, microjoules, short
from sdsnn_lightning.profile import NetworkProfile
from sdsnn_lightning.profile_table import print_profiles

STUDENT = """
name: toy
data: {class_path: toy.ToyData}
model:
  class_path: sdsnn_lightning.Distiller
  init_args:
    student: {class_path: own_network.Spiking, init_args: {hidden: 5}}
    teacher: {class_path: toy.ToyTeacher, init_args: {hidden: 8}}
    teacher_checkpoint: teacher.ckpt
    alpha: 0.5
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
trainer:
  max_epochs: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [{class_path: sdsnn_lightning.strategies.LogitDistillation}]
"""
MINE = """
from torch import nn
from sdsnn_lightning import Leaky, Output

class Spiking(nn.Module):
    inputs = ("x",)

    def __init__(self, num_classes, hidden=5):
        super().__init__()
        self.first, self.neuron, self.head = nn.Linear(6, hidden), Leaky(beta=0.5), nn.Linear(hidden, num_classes)

    def forward(self, x):
        return Output(self.head(self.neuron(self.first(x))), {})

    def readout(self, logits):
        return logits.mean(0)
"""


@pytest.fixture
def toy(workdir):
    """A folder as a user has it: an experiment and a network of his own."""
    Path("toy.yaml").write_text(STUDENT)
    Path("own_network.py").write_text(MINE)
    return workdir


def save_teacher(hidden=8):
    from toy import ToyTeacher

    torch.manual_seed(0)
    torch.save(ToyTeacher(3, hidden=hidden).state_dict(), "teacher.ckpt")


def test_student_next_to_its_teacher(toy, capsys):
    save_teacher()
    main(["profile", "--config", "toy.yaml", "--json", "out/profile.json"])
    table = capsys.readouterr().out
    content = json.loads(Path("out/profile.json").read_text())
    student, teacher = content["networks"]["student"], content["networks"]["teacher"]
    assert content["data_source"] == "simulated"
    assert (student["parameters"], teacher["parameters"]) == (6 * 5 + 5 + 5 * 3 + 3, 6 * 8 + 8 + 16 + 8 * 3 + 3)
    assert (student["dense_macs"], teacher["dense_macs"]) == (4 * (30 + 15), 4 * (48 + 24))
    assert student["samples"] == teacher["samples"] == 23  # the whole test part, in batches of 8, 8 and 7
    assert (student["weights"], teacher["weights"]) == ("untrained", "teacher.ckpt")
    assert student["batch_size"] == 8
    assert student["steps"] == 4
    assert 0 < student["firing_rate"] < 1
    assert teacher["firing_rate"] is None
    assert student["synops"] == pytest.approx(student["firing_rate"] * 4 * 15)
    assert student["energy_paper_J"] == pytest.approx(120 * 4.6e-12 + student["synops"] * 0.9e-12, rel=1e-9, abs=0)
    assert teacher["energy_paper_J"] == pytest.approx(288 * 4.6e-12, rel=1e-9, abs=0)
    for rule in RULES:
        assert student[f"energy_{rule}_J"] == pytest.approx(
            sum(layer["energy_J"][rule] for layer in student["layers"]), rel=1e-9, abs=0
        )
        assert f"energy, {rule} (uJ)" in table
    assert 0 < student["latency_batch_s"] < student["latency_one_s"] * 8
    assert student["peak_bytes"] >= 4 * 8 * 5 * 4  # the current of the hidden layer
    assert "The student's weights are untrained (give --ckpt_path best)" in table
    assert "The teacher's" not in table
    assert "\x1b" not in table  # no colours outside a terminal
    assert not Path("runs").exists()  # a profile is no run


def test_trained_weights_an_overlay_and_overrides(toy, capsys):
    save_teacher()
    main(["fit", "--config", "toy.yaml", "--data.init_args.train", "16"])
    Path("overlay.yaml").write_text("{data: {init_args: {batch_size: 4}}}")
    capsys.readouterr()
    results = {path: path.read_text() for path in Path("runs").rglob("results.json")}
    main(["profile", "--config", "toy.yaml", "--config", "overlay.yaml", "--ckpt_path", "best",
          "--trainer.limit_test_batches", "2", "--json", "p.json"])  # fmt: skip
    student = json.loads(Path("p.json").read_text())["networks"]["student"]
    assert student["weights"].endswith("runs/toy/version_0/checkpoints/best.ckpt")
    assert (student["samples"], student["batch_size"]) == (8, 4)
    assert "untrained" not in capsys.readouterr().out
    assert results == {path: path.read_text() for path in Path("runs").rglob("results.json")}
    main(["test", "--config", "toy.yaml", "--ckpt_path", "best"])
    main(["profile", "--config", "toy.yaml", "--ckpt_path", "best", "--json", "p.json"])
    tested = json.loads(Path("runs/toy/version_0/results.json").read_text())["test"]
    student = json.loads(Path("p.json").read_text())["networks"]["student"]
    assert student["energy_lemaire_J"] * 1e9 == pytest.approx(tested["energy/lemaire_nJ"])
    assert student["firing_rate"] == pytest.approx(tested["firing_rate/total"])


def test_teacher_that_does_not_exist_is_said(toy, capsys):
    main(["profile", "--config", "toy.yaml"])
    out = capsys.readouterr().out
    assert "The teacher's weights are untrained (there is no checkpoint of it)" in " ".join(out.split())


def test_a_curriculum_shows_the_teacher_of_its_last_stage(workdir, capsys):
    write_set(Path("."))
    experiment = str(Path(__file__).parents[1] / "experiments" / "shd_kdcl.yaml")
    words = [
        "--config",
        experiment,
        "--data.init_args.root",
        ".",
        "--data.init_args.source",
        "real",
        "--width",
        "0.125",
    ]
    words += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    main(["fit", *words, "--trainer.max_epochs", "2"])
    capsys.readouterr()
    main(["profile", *words, "--ckpt_path", "best", "--json", "costs.json"])
    networks = json.loads(Path("costs.json").read_text())["networks"]
    assert list(networks) == ["student", "teacher"]
    assert networks["teacher"]["weights"].endswith("checkpoints/stage1.ckpt")
    assert networks["teacher"]["steps"] > 2 * networks["student"]["steps"]  # 10 and 25 ms
    assert networks["teacher"]["dense_macs"] > 2 * networks["student"]["dense_macs"]
    assert networks["student"]["not_counted"] == []
    main(["profile", *words])  # nothing trained: said, not refused
    assert "The teacher's weights are untrained" in capsys.readouterr().out


def test_mistakes_end_in_one_line(toy, capsys):
    words = ("profile", "--config", "toy.yaml")
    save_teacher(hidden=7)
    assert "teacher.ckpt) is of another architecture" in refusal(capsys, *words)
    save_teacher()
    assert "none.yaml" in refusal(capsys, "profile", "--config", "none.yaml")
    assert "no run in runs/toy has a best.ckpt" in refusal(capsys, *words, "--ckpt_path", "best")
    assert "trainer.limit_test_batches" in refusal(capsys, *words, "--trainer.limit_test_batches", "0")
    Path("file").write_text("")
    assert "cannot write" in refusal(capsys, *words, "--json", "file/p.json")
    assert "jsn" in refusal(capsys, *words, "--jsn", "p.json")


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(width):
    layers = {"a_module_with_a_long_name": nn.ModuleDict({"and_another_layer1": nn.Linear(6, 3)}), "neuron": Fires(0.5)}
    network = Net(lambda net, x: net.neuron(net.a_module_with_a_long_name["and_another_layer1"](x)), **layers)
    report = measure_energy(network, (torch.rand(4, 2, 6),))
    pair = [
        NetworkProfile(role, "SomeNetwork", "untrained", 4, 2, report, 1e-3, 2e-4, 10**6)
        for role in ("student", "teacher")
    ]
    file = io.StringIO()
    about = {"data": "ToyData", "data_source": "simulated", "device": "CPU, 1 thread"}
    print_profiles(pair, about, Console(file=file, width=width, force_terminal=False))
    lines = file.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert sum("and_another_layer1" in line for line in lines) == (2 if width == 120 else 0)
    assert sum(line.startswith("total") for line in lines) == 2


def test_short_numbers_and_names():
    assert [short(value) for value in (0, 7, 999, 999.7, 12345, 3.2e6, 9.995e8, 5e12)] == [
        "0", "7", "999", "1k", "12.3k", "3.2M", "1G", "5T",
    ]  # fmt: skip
    assert [microjoules(value * 1e-6) for value in (0, 1e-9, 0.0312, 7.618, 1466.7)] == [
        "0", "<0.001", "0.0312", "7.62", "1,467",
    ]  # fmt: skip
    assert _cut("branches.frames.layer1.0.conv1", 18) == "b.f.layer1.0.conv1"
    assert _cut("branches.frames.layer1.0.conv1", 17) == "b.f.l1.0.conv1"
    assert _cut("attention.averylongname #2", 12) == "a.av…name #2"


def test_peak_memory_is_what_is_alive_at_once():
    class Wide(nn.Module):
        def forward(self, x):
            a = x.repeat(1, 1, 4)  # 4 MiB
            b = a + 1  # 8 MiB together
            del a
            return (b + 1).sum()  # 8 MiB again

    x = torch.zeros(4, 64, 1024)  # 1 MiB
    assert peak_memory(Wide(), (x,)) == pytest.approx(8 * 2**20, rel=0.01)


def test_an_unknown_key_names_the_program_that_has_the_others(workdir, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/sdsnn_lightning/__main__.py"])
    said = refusal(capsys, "profile", "--nothing", "3")
    assert said.endswith("(all keys: python -m sdsnn_lightning profile --help)")


def test_latency_is_the_median_of_passes():
    network = Net(lambda net, x: x)
    network.readout = lambda logits: logits
    assert 0 < latency(network, (torch.zeros(1, 1, 1),)) < 0.1
    assert device_name(torch.device("cpu")) == "CPU, 1 thread"
