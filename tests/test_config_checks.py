"""What the parser would tell by a traceback."""

from pathlib import Path

import pytest
import torch
import yaml
from places import REPOSITORY
from refusal import refusal
from toy_files import write_toy

from sdsnn_lightning.cli import main
from sdsnn_lightning.config_checks import check_files, check_names, plain_construction
from sdsnn_lightning.data.loader import TrainLoader
from sdsnn_lightning.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: \xff", "is no text"),
        (b"x: &a [*a]\n", r"refers to itself by an alias \(\*\); write it out"),
        (b"[" * 3000, "is nested too deeply"),
    ],
)
def test_files_the_parser_would_stumble_over(tmp_path, content, said):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"--config \S+bad\.yaml {said}"):
        check_files([str(path)])


@pytest.mark.parametrize("content", [b"", b"a: &b {c: 1}\nd: *b\n", b"name: [", b"1: {2: 3}", b"t: 2020-01-01"])
def test_other_files_are_left_to_the_parser(tmp_path, content):
    path = tmp_path / "some.yaml"
    path.write_bytes(content)
    check_files([str(path), str(tmp_path / "none.yaml"), str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "runs", "said"),
    [
        ("", "runs", "name is ''; give a text that can name a folder"),
        (None, "runs", "name is None"),
        ("x", "", "runs is ''"),
        ("a\0b", "runs", r"name is 'a\\x00b'"),
        ("/etc/x", "runs", "name is '/etc/x', which leads out of the folder of all runs; set runs:"),
        ("a/../../x", "runs", "leads out of the folder"),
        ("a/" + "x" * 256, "runs", r"name is 'a/xxxxxxxxxxxxxxxxxx\.\.\.', too long to name a folder; shorten it"),
        ("x", "é" * 128, "runs is 'é.*, too long"),
    ],
)
def test_names_of_no_run_folder(name, runs, said):
    with pytest.raises(ConfigError, match=said):
        check_names(name, runs)


def test_names_of_run_folders():
    check_names("a/b..c", "../elsewhere")
    check_names("x" * 255, "runs", 0)


def test_a_version_below_zero_is_refused(workdir, capsys):
    write_toy()
    said = refusal(capsys, "fit", "--config", "teacher.yaml", "--version", "-1")
    assert said == "error: version is -1; set it to at least 0, or leave it out for the next free one"
    assert not Path("runs").exists()


class Picky:
    def __init__(self, size):
        raise ValueError(f"size {size} is odd")


def wrapped(error_type, message, cause):
    """An error as the parser makes it of one that a constructor raised."""
    try:
        cause()
    except Exception as error:
        raise error_type(message) from error


UNION = (
    "Does not validate against any of the Union subtypes\nSubtypes: [DataModule, None]\nErrors:\n  - size 3 is odd\n"
)


def test_a_constructor_that_fails_is_named():
    said = r"data: Picky cannot be made \(size 3 is odd\); correct its init_args"
    with pytest.raises(ConfigError, match=said), plain_construction():
        wrapped(ValueError, UNION, lambda: Picky(3))
    with pytest.raises(ConfigError, match="model: Picky"), plain_construction():
        wrapped(TypeError, UNION.replace("DataModule", "Network"), lambda: Picky(3))


def test_what_is_clear_already_comes_through():
    def refuse():
        raise DataError("x.h5 is missing; restore it")

    with pytest.raises(ValueError, match="Union subtypes"), plain_construction():
        wrapped(ValueError, UNION, refuse)  # the command line finds the one-line error below
    with pytest.raises(ValueError, match="just wrong"), plain_construction():
        raise ValueError("just wrong")


@pytest.mark.parametrize("key", ["trainer", "checkpoint", "wandb", "model", "data"])
def test_a_section_that_holds_nothing_is_named(workdir, capsys, key):
    write_toy()
    Path("empty.yaml").write_text(f"{key}:\n")
    said = refusal(capsys, "fit", "--config", "toy.yaml", "--config", "empty.yaml")
    assert key in said
    assert not Path("runs").exists()


def test_a_module_that_is_not_in_the_current_folder_is_named_with_the_cure(workdir, capsys):
    write_toy()
    said = refusal(capsys, "fit", "--config", "toy.yaml", "--model.init_args.student", "elsewhere.Mine")
    assert "No module named 'elsewhere'" in said
    assert "start in the folder that the module is in" in said


@pytest.mark.parametrize(
    ("overlay", "said"),
    [
        ("quick.yaml", "no data is named; give the experiment's YAML before an overlay"),
        ("strategies/activity_kd.yaml", "give the YAML of an experiment with a Distiller before this overlay"),
    ],
)
def test_an_overlay_without_its_experiment_says_what_it_lacks(workdir, capsys, overlay, said):
    assert said in refusal(capsys, "fit", "--config", str(REPOSITORY / "experiments" / overlay))


def with_callback(kind, **arguments):
    """A callback of Lightning's, or a strategy, as a word of the command line."""
    return (
        f"--trainer.callbacks+={yaml.safe_dump({'class_path': kind, 'init_args': arguments}, default_flow_style=True)}"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.accumulate_grad_batches", "0"], "accumulate_grad_batches is 0; set it to at least 1"),
        (["--trainer.val_check_interval", "0"], "val_check_interval is 0; set it above 0"),
        (["--trainer.gradient_clip_val", "-0.1"], "gradient_clip_val is -0.1; set it above 0, or leave it out"),
        (["--trainer.limit_train_batches", "0"], "limit_train_batches is 0, so nothing would be trained"),
        (["--checkpoint.filename", "last"], "checkpoint.filename is last, as every epoch is named; give another name"),
        (["--seed_everything", "-5"], "seed_everything is -5; set it from 0 to 4294967295"),
        (["--seed_everything", "5000000000"], "seed_everything is 5000000000; set it from 0"),
        (["--checkpoint.mode", "up"], "checkpoint: `mode` can be min, max but got up; correct it"),
        (
            [with_callback("lightning.pytorch.callbacks.EarlyStopping", monitor="x", mode="up")],
            "trainer.callbacks: EarlyStopp",
        ),
        (
            [
                with_callback(
                    "test_distiller.Match", weight={"class_path": "Linear", "init_args": dict(start=0, end=1, begin=2)}
                )
            ],
            "a schedule needs 0 <= begin <= until <= 1, got begin=2.0",
        ),
    ],
)
def test_what_would_end_a_run_late_or_be_wrong_in_silence(workdir, capsys, words, said):
    write_toy()
    assert said in refusal(capsys, "fit", "--config", "toy.yaml", *words, alone=True)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trainer.val_check_interval", "100"], "`val_check_interval` (100) must be less than or equal to"),
        (
            [with_callback("lightning.pytorch.callbacks.EarlyStopping", monitor="val/x")],
            "metric `val/x` which is not available",
        ),
        ([with_callback("lightning.pytorch.callbacks.LearningRateFinder")], "When using the learning rate finder"),
    ],
)
def test_what_lightning_complains_of_once_it_runs(workdir, capsys, words, said):
    write_toy()
    assert said in refusal(capsys, "fit", "--config", "teacher.yaml", *words)


@pytest.mark.parametrize(
    "callback",
    [
        with_callback(
            "lightning.pytorch.callbacks.StochasticWeightAveraging", swa_lrs=0.01
        ),  # by default on a torch.device
        with_callback(
            "lightning.pytorch.callbacks.Timer", duration="00:01:00:00"
        ),  # by default looks at a word of an Enum
    ],
)
def test_callbacks_whose_defaults_are_no_plain_values(workdir, callback):
    write_toy()
    main(["fit", "--config", "teacher.yaml", callback, "--trainer.max_epochs", "1"])
    assert Path("runs/toy_teacher/version_0/checkpoints/best.ckpt").is_file()
    main(["fit", "--config", "runs/toy_teacher/version_0/config.yaml", "--trainer.max_epochs", "1"])


def test_overfitting_sees_the_same_batches_in_every_epoch(workdir):
    write_toy()
    main(["fit", "--config", "teacher.yaml", "--trainer.overfit_batches", "2"])
    loader = TrainLoader(torch.arange(9), 1, 0, lambda: 0, shuffle=False, batch_size=4)
    for epoch in (0, 5):
        loader.sampler.set_epoch(epoch)
        assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_without_a_logger_a_run_has_its_folder_all_the_same(workdir):
    write_toy()
    Path("config.yaml").write_text("mine")
    for _ in range(2):
        main(["fit", "--config", "teacher.yaml", "--trainer.logger", "false", "--trainer.max_epochs", "1"])
    assert Path("config.yaml").read_text() == "mine"
    for number in range(2):
        folder = Path(f"runs/toy_teacher/version_{number}")
        assert all((folder / name).is_file() for name in ("config.yaml", "results.json", "checkpoints/best.ckpt"))
    assert not Path("checkpoints").exists()
