"""Run folders in which something was cut short or edited: what can go on goes on, the rest is one line and no loss."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from places import own_folder
from refusal import refusal
from toy import ToyData, ToyNet
from toy_files import TEACHER

from sdsnn_lightning.checkpoints import load_checkpoint, load_network_state
from sdsnn_lightning.cli import main
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.trained import load_trained

FOLDER = Path("runs/toy/version_0")
WORDS = ("--config", "toy.yaml", "--trainer.devices", "1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two epochs, tested."""
    with own_folder(tmp_path_factory, "whole") as place:
        Path("toy.yaml").write_text(TEACHER.replace("toy_teacher", "toy"))
        main(["fit", *WORDS])
        main(["test", *WORDS, "--ckpt_path", "best"])
    return place


@pytest.fixture
def place(whole, workdir):
    shutil.copytree(whole, workdir, dirs_exist_ok=True)
    return workdir


def rows():
    with (FOLDER / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.4, 0.95])
def test_a_metrics_file_that_was_cut_keeps_its_whole_rows(place, kept):
    before, path = rows(), FOLDER / "metrics.csv"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    main(["fit", *WORDS, "--ckpt_path", "last", "--trainer.max_epochs", "3"])
    after = rows()
    old = [row for row in after if int(row["step"]) < 12]
    assert old == before[: len(old)]
    assert len(old) == max(0, content[: int(kept * len(content))].count(b"\n") - 1)
    assert [row["step"] for row in after if row["val/WAR"]][-1] == "17"


@pytest.mark.parametrize("content", [b'{"fit": {"seco', b"", b"\xff\xfe\x00", b"[1]"])
def test_results_that_were_cut_are_kept_aside_and_begun_anew(place, content):
    for name in ("results.json", "details.json"):
        (FOLDER / name).write_bytes(content)
    with pytest.warns(UserWarning, match=r"results\.json is damaged .*: it is kept as results\.json\.damaged"):
        main(["test", *WORDS, "--ckpt_path", "best"])
    assert "WAR" in json.loads((FOLDER / "results.json").read_text())["test"]
    assert "layers" in json.loads((FOLDER / "details.json").read_text())
    assert (FOLDER / "results.json.damaged").read_bytes() == content


def test_a_resumed_run_tells_the_seconds_of_all_its_parts(place):
    results = FOLDER / "results.json"
    path = FOLDER / "checkpoints/last.ckpt"
    first = json.loads(results.read_text())["fit"]["seconds"]
    content = load_checkpoint(path, "it")
    assert content["sdsnn_seconds"] <= first + 0.05
    content["sdsnn_seconds"] = 1000.0
    torch.save(content, path)
    main(["fit", *WORDS, "--ckpt_path", "last", "--trainer.max_epochs", "3"])
    assert json.loads(results.read_text())["fit"]["seconds"] >= 1000
    assert load_checkpoint(path, "it")["sdsnn_seconds"] >= 1000


def edited(change):
    path = FOLDER / "config.yaml"
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(model=None), "model"),
        (lambda c: c.update(data="toy.ToyData"), "data"),
        (lambda c: c["model"].update(init_args=None), "model"),
        (lambda c: c["model"]["init_args"]["network"]["init_args"].update(hidden=-1), "network"),
        (lambda c: c["data"]["init_args"].update(classes=-2, batch_size=-1), "batch_size"),
        (lambda c: c["model"]["init_args"]["network"].update(class_path="gone.Net"), "gone"),
    ],
)
def test_an_edited_configuration_of_a_run_is_named(place, change, said):
    edited(change)
    with pytest.raises(ConfigError, match=rf"{said}") as caught:
        load_trained(FOLDER)
    assert str(FOLDER / "config.yaml") in str(caught.value) or said == "batch_size"


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)], 5])
def test_a_file_without_named_weights_is_no_checkpoint(place, capsys, content):
    torch.save(content, "other.ckpt")
    for word in ("fit", "validate"):
        said = refusal(capsys, word, *WORDS, "--ckpt_path", "other.ckpt")
        assert "the checkpoint (--ckpt_path other.ckpt) " in said
        assert "give another path" in said
    with pytest.raises(ConfigError, match="it cannot be read as a checkpoint"):
        load_network_state(Path("other.ckpt"), "it")


def test_weights_alone_are_no_state_of_a_run(place, capsys):
    state, _ = load_network_state(FOLDER / "checkpoints/best.ckpt", "it")
    for content in (state, {"state_dict": state, "epoch": 3}):
        torch.save(content, "weights.pt")
        for word in ("fit", "validate"):
            said = refusal(capsys, word, *WORDS, "--ckpt_path", "weights.pt")
            assert "the checkpoint (--ckpt_path weights.pt) holds no state of a run" in said
        again, _ = load_network_state(Path("weights.pt"), "it")  # for a teacher they are all that is needed
        assert again.keys() == state.keys()


class Plain(ToyData):
    """A data module as a newcomer writes it: no arguments, and features under a name that pictures have elsewhere."""

    def __init__(self):
        super().__init__()
        self.input_shapes = {"events": (4, 6)}

    def views(self, sample, training):
        view = {"events": sample["x"]}
        return view, view


class OnEvents(ToyNet):
    inputs = ("events",)


def test_a_data_module_without_arguments_and_without_pictures(workdir):
    sys.modules["test_damaged_runs"] = sys.modules[__name__]
    text = TEACHER.replace("toy_teacher", "toy").replace("toy.ToyData", "test_damaged_runs.Plain")
    text = text.replace("toy.ToyTeacher", "test_damaged_runs.OnEvents").replace('"${data.init_args.batch_size}"', "4")
    Path("toy.yaml").write_text(text)
    main(["fit", *WORDS])
    main(["test", *WORDS, "--ckpt_path", "best"])
    drawn = {path.name for path in (FOLDER / "pictures").iterdir()}
    assert {"confusion.png", "recall.png"} <= drawn
    assert "clip.png" not in drawn


@pytest.mark.skipif(torch.cuda.is_available(), reason="a processor alone refuses a device by its number")
def test_an_evaluation_takes_the_device_that_is_named(place, capsys):
    assert "devices" in refusal(capsys, "validate", *WORDS, "--trainer.devices", "[1]")


def test_a_network_that_knows_no_answer_predicts_none(place, capsys):
    path = FOLDER / "checkpoints/best.ckpt"
    content = load_checkpoint(path, "it")
    content["state_dict"]["network.head.bias"][1] = float("nan")
    torch.save(content, path)
    said = refusal(capsys, "predict", *WORDS, "--ckpt_path", "best")
    assert "the network's scores are not finite in predict" in said
    assert not (FOLDER / "predictions.csv").exists()
