"""`sdsnn doctor`: what it says of requirements, scripts, data and the neuron, and when it ends with 1."""

import sys
from pathlib import Path

import pytest
import torch

from sdsnn_lightning.cli import main
from sdsnn_lightning.doctor import Finding, data, examine, machine, self_test

EXPERIMENT = "name: x\ndata: {{class_path: sdsnn_lightning.data.{}, init_args: {{{}}}}}\n"


def test_a_requirement_is_met_missing_or_of_another_version():
    wanted = [
        "rich>=13",
        "torch>=99",
        "no-such-distribution>=1",
        'no-such-extra>=1; extra == "sweeps"',
        'no-such-tool>=1; extra == "dev"',
        'no-such-system>=1; platform_system == "Plan9"',
        'rich>=99; extra == "export"',
    ]
    found = list(machine.check_requirements(wanted))
    assert [finding.kind for finding in found] == ["ok", "FAIL", "FAIL", "note", "note"]
    assert found[1].text.endswith("is not within >=99; pip install 'torch>=99'")
    assert found[2].text == "no-such-distribution is not installed; pip install 'no-such-distribution>=1'"
    assert "pip install 'sdsnn-lightning[sweeps]'" in found[3].text


def test_this_installation_is_sound():
    found = list(machine.installation())
    assert len(found) > 15
    assert not [finding for finding in found if finding.kind == "FAIL"]
    assert any(finding.text.startswith("lightning 2.6.") for finding in found)


def test_a_script_is_ours_or_named(tmp_path, monkeypatch):
    python, ours, other = (tmp_path / name for name in ("python", "lightning", "elsewhere"))
    monkeypatch.setattr(sys, "executable", str(python))
    ours.write_text("#!/bin/sh\nfrom sdsnn_lightning.cli import main\n")
    other.write_text("#!/bin/sh\nfrom somebody import main\n")
    assert machine.look_at_script("lightning", str(ours)) == Finding("ok", f"{ours} is ours")
    assert "another program's; use sdsnn" in machine.look_at_script("lightning", str(other)).text
    assert "python -m sdsnn_lightning" in machine.look_at_script("lightning", None).text
    (tmp_path / "bin").mkdir()
    far = tmp_path / "bin" / "lightning"
    far.write_text(ours.read_text())
    assert "of another environment" in machine.look_at_script("lightning", str(far)).text


def test_wandb_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE")
    (finding,) = machine.wandb()
    assert finding == Finding("note", "nobody is logged in: runs are offline; to have them online: wandb login")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    (finding,) = machine.wandb()
    assert finding.kind == "FAIL"
    assert "WANDB_MODE is 'sometimes'" in finding.text
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    first, second = machine.wandb()
    assert first.text == "logged in: runs are online (WANDB_MODE is online)"
    assert second.kind == "note"
    assert "does not answer" in second.text


@pytest.fixture
def experiments(workdir):
    """Experiments on four folders of data: one is here, one is broken, two are not here."""
    folder = Path("experiments")
    folder.mkdir()
    for name, module, options in (
        ("eye", "SingleEye", "root: data/SEE"),
        ("eye_too", "SingleEye", "root: data/SEE, size: 48"),
        ("digits", "SpikingHeidelberg", ""),
        ("own", "SpikingHeidelberg", "root: data/own, prefix: fad"),
        ("words", "SpeechCommands", "root: data/words, classes: [no, yes]"),
    ):
        (folder / f"{name}.yaml").write_text(EXPERIMENT.format(module, options))
    (folder / "overlay.yaml").write_text("data: {init_args: {size: 48}}\n")
    for word in ("no", "yes"):
        Path("data/words", word).mkdir(parents=True)
    Path("data/SEE").mkdir()
    return folder


def test_data_is_here_missing_or_broken(experiments):
    found = {finding.text: finding.kind for finding in data.data_found(experiments)}
    assert found == {
        "data/shd is not here: digits simulate a stand-in; sdsnn data download shd data/shd": "note",
        "data/own is not here: own simulate a stand-in; sdsnn data to-spikes makes it from recordings": "note",
        "data/words is here, 2 classes: words": "ok",
        "eye, eye_too: data/SEE/emotion.json does not exist; put the set's index there (or a manifest.json); to read "
        "every file: sdsnn data verify see data/SEE": "FAIL",
    }
    assert next(data.data_found(Path("nowhere"))).text.startswith("nowhere holds no experiment")


def test_caches_are_measured(experiments, monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert [finding.text for finding in data.cache_sizes(experiments)] == ["no caches yet"]
    Path("data/words/.cache").mkdir()
    Path("data/words/.cache/a.npy").write_bytes(bytes(2_500_000))
    assert [finding.text for finding in data.cache_sizes(experiments)] == ["data/words/.cache: 2.5 MB"]


def test_neuron_and_tiny_training_work_here():
    assert [finding.kind for finding in self_test.self_test()] == ["ok"] * 3
    assert "equals its reference" in self_test.compare_neuron("cpu").text


def test_a_neuron_that_differs_is_a_failure(monkeypatch):
    real = self_test.reference.forward

    def other(x, *options):
        spikes, membrane = real(x, *options)
        spikes[0, 0, :5] = 1 - spikes[0, 0, :5]
        return spikes, membrane

    monkeypatch.setattr(self_test.reference, "forward", other)
    finding = self_test.compare_neuron("cpu")
    assert finding.kind == "FAIL"
    assert f"(5 of {6 * 8 * 64} spikes)" in finding.text


def test_a_training_that_moves_nothing_is_a_failure(monkeypatch):
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: closure() if closure else None)
    finding = self_test.train_step()
    assert finding.kind == "FAIL"
    assert "moved weights by 0.0" in finding.text


def test_a_check_that_breaks_is_a_failure_and_the_others_go_on(capsys):
    def broken():
        yield Finding("ok", "before")
        raise RuntimeError("no\nway")

    assert examine({"first": broken, "second": lambda: iter([Finding("note", "after")])}) == 1
    assert capsys.readouterr().out.splitlines() == [
        "first", "  ok   before", "  FAIL RuntimeError: no way", "second", "  note after",
    ]  # fmt: skip


def test_the_command_ends_with_1_where_something_does_not_work(experiments, capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--no-self-test"])
    assert end.value.code == 1
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "1 thing does not work"
    assert text.count("\n  FAIL ") == 1
    assert "\x1b" not in text
    (experiments / "eye.yaml").unlink()
    (experiments / "eye_too.yaml").unlink()
    main(["doctor", "--no-self-test"])
    assert capsys.readouterr().out.splitlines()[-1] == "everything works"
