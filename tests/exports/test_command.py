"""`sdsnn export` on a run: what it writes, what never gets in, and how it refuses."""

import json
import sys
from pathlib import Path

import pytest
import torch
from nets import RUN, SpikingToy
from refusal import refusal

from sdsnn_lightning.cli import main
from sdsnn_lightning.exports.card import READOUTS, name_readout
from sdsnn_lightning.trained import load_trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tested run of a small spiking student under TSSD, whose weak classifier is an adapter."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("run.yaml").write_text(RUN)
        main(["fit", "--config", "run.yaml"])
        main(["test", "--config", "run.yaml", "--ckpt_path", "best"])
    return folder / "runs/spiking/version_0"


def test_weights_program_graph_and_card(run, tmp_path, capsys):
    main(["export", str(run), "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    files = {path.name for path in (tmp_path / "out").iterdir()}
    weights = next(name for name in files if name.startswith("weights"))
    assert files == {weights, "step.pt2", "network.nir", "card.json"}
    assert "compared over 4 steps: logits differ by" in said.out
    assert said.err == ""

    card = json.loads((tmp_path / "out/card.json").read_text())
    test = json.loads((run / "results.json").read_text())["test"]
    assert card["accuracy"] == {"WAR": test["WAR"], "UAR": test["UAR"]}
    assert card["energy_nJ"]["paper"] == test["energy/paper_nJ"]
    assert card["classes"] == ["c0", "c1", "c2"]
    assert card["data_source"] == "simulated"
    assert card["inputs"] == [
        {"name": "x", "shape": [6], "dtype": "float32", "unit": "as ToyData.views gives it", "normalisation": None}
    ]
    assert card["time_steps"] == 4
    assert card["readout"] == "sum over time of the softmax of the logits"
    assert card["program"]["state"] == [{"name": "lif", "shape": [12], "start": 0.0}]
    assert card["parameters"] == 6 * 12 + 12 + 24 + 12 * 3 + 3

    # The adapter is in the checkpoint, and in nothing that was exported.
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert any(key.startswith("adapters.") for key in content)
    if weights.endswith(".pt"):
        state = torch.load(tmp_path / "out" / weights, weights_only=True)
        assert set(state) == set(SpikingToy(3).state_dict())
        assert torch.equal(state["head.weight"], content["network.head.weight"])
    program = torch.export.load(tmp_path / "out/step.pt2")
    sizes = sum(value.numel() for value in program.state_dict.values())
    assert sizes <= sum(value.numel() for value in SpikingToy(3).state_dict().values()) + 8
    assert not any("adapter" in key or "linear" in key for key in program.state_dict)


def test_a_trained_network_needs_no_data(run, monkeypatch):
    trained = load_trained(run / "checkpoints/last.ckpt")
    assert trained.class_names == ["c0", "c1", "c2"]
    assert not trained.network.training
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(trained.network.hidden.weight, state["network.hidden.weight"])
    assert load_trained(run.parent).files.checkpoint == run / "checkpoints/best.ckpt"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere does not exist; give a run folder"),
        (["."], "holds no checkpoint"),
        (["alone.ckpt"], "has no"),
        (["broken/version_0"], "cannot be read as a checkpoint"),
    ],
)
def test_mistakes_are_one_line(workdir, capsys, run, words, said):
    Path("alone.ckpt").write_bytes(b"")
    broken = Path("broken/version_0/checkpoints")
    broken.mkdir(parents=True)
    (broken / "best.ckpt").write_bytes(b"not a checkpoint")
    (broken.parent / "config.yaml").write_text((run / "config.yaml").read_text())
    assert said in refusal(capsys, "export", *words)


def test_what_was_asked_for_and_cannot_be_is_an_error(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["nets"], "SpikingToy", sys.modules["nets"].Centred)
    assert "frame by frame" in refusal(capsys, "export", run, "--to", "program", "--out", tmp_path)
    assert not list(tmp_path.glob("*.pt2"))


def test_readouts_are_recognised():
    network = SpikingToy(3)
    for text, rule in READOUTS.items():
        network.readout = rule
        assert name_readout(network, 4) == text
    network.readout = lambda logits: logits.mean(0) * 2 + 1
    assert "SpikingToy.readout" in name_readout(network, 4)
