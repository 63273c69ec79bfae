"""Mistakes on the command line and in files: one line with the word or key and a cure."""

import re
from pathlib import Path

import pytest
from tiny_see import DISTILLED, LR, STUDENT, refused


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--data.init_args.sise", "3"], "'sise' is not accepted"),
        (["--data.init_args.size", "big"], "key \"size\": Expected a <class 'int'>. Got value: big"),
        (["--data.init_args.size", "0"], "data.init_args.size is 0; set it to at least 1"),
        (["--data.init_args.batch_size", "0"], "data.init_args.batch_size is 0; set it to at least 1"),
        (["--data.init_args.num_workers", "-1"], "data.init_args.num_workers is -1; set it to at least 0"),
        (["--data.init_args.modalities", "[frame]"], 'key "modalities": Expected a typing.Literal'),
        (["--model", "sdsnn_lightning.Distiler"], "'sdsnn_lightning' has no attribute 'Distiler'"),
        (["--model.init_args.network", "sdsnn_lightning.networks.SEENN"], "has no attribute 'SEENN'"),
        (["--model.init_args.network.init_args.preset", "x"], "'preset' is not accepted"),
        (["--model.init_args.optimizer", "torch.optim.SDG"], "'torch.optim' has no attribute 'SDG'"),
        (["--model.init_args.label_smoothing", "3"], "label_smoothing is 3.0; set it to at least 0 and below 1"),
        ([LR, "fast"], 'key "lr"'),
        ([LR, "-1"], "model.init_args.optimizer: Invalid learning rate: -1.0; correct its init_args"),
        (["--trainer.max_epoch", "3"], "max_epoch"),
        (["--trainer.accelerator", "tpux"], "trainer: You selected an invalid accelerator name"),
        (["--trainer.callbacks", "[{class_path: sdsnn_lightning.strategies.HitConsistancy}]"], "HitConsistancy"),
        (
            ["--trainer.callbacks", "[{class_path: sdsnn_lightning.strategies.HitConsistency}]"],
            "needs a Distiller; set",
        ),
        (
            ["--ckpt_path", "none.ckpt"],
            "(--ckpt_path none.ckpt) does not exist; give another path, or `last` or `best`",
        ),
        (["--ckpt_path", "tiny.yaml"], "(--ckpt_path tiny.yaml) cannot be read as a checkpoint"),
        (["--runs", "tiny.yaml"], ": cannot write (Not a directory); free space there"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_a_mistake_on_the_command_line(place, capsys, words, named):
    said = refused(capsys, "fit", *STUDENT, *words)
    assert named in said
    assert "Union subtypes" not in said


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nmae: x", "'nmae'"),
        ("trainer: {max_epoch: 1}", "'trainer.max_epoch'"),
        ("data: {init_args: {sise: 3}}", "'sise' is not accepted"),
        ("model: {init_args: {student: {init_args: {sise: 3}}}}", "'sise' is not accepted"),
        ("trainer: {max_epochs: 1", "parsing a flow mapping"),
        ("just words", "Unexpected config: just words"),
    ],
)
def test_a_mistake_in_a_file(place, capsys, text, named):
    Path("overlay.yaml").write_text(text)
    said = refused(capsys, "fit", *DISTILLED, "--config", "overlay.yaml")
    assert named in said
    assert "all keys: " in said


def test_a_wrong_monitor_is_named(place, capsys):
    said = refused(capsys, "fit", *STUDENT, "--checkpoint.monitor", "val/WRA")
    assert "monitor='val/WRA'" in said
    assert "'val/WAR'" in said


def test_a_loss_that_is_not_finite(place, teacher, capsys):
    said = refused(capsys, "fit", *STUDENT, LR, ".inf")
    assert re.match(r"error: loss term 'task' is (nan|inf) at step \d+; lower the learning rate", said)
    assert "model.init_args.optimizer.init_args.lr" in said
    strategy = "{class_path: sdsnn_lightning.strategies.HitConsistency, init_args: {weight: .inf}}"
    said = refused(capsys, "fit", *DISTILLED, "--trainer.callbacks", f"[{strategy}]")
    assert "at step 0; lower the learning rate" in said
    assert "or the term's weight" in said
