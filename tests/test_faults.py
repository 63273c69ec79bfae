"""Runs that are killed, stopped or damaged: each ends in one line, and goes on to the weights of an undisturbed run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import own_folder
from refusal import refusal

from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.cli import main
from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.faults import plain_errors

EXPERIMENT = """
name: toy
data: {class_path: toy.TimedToy}
model:
  class_path: sdsnn_lightning.Distiller
  init_args:
    student: {class_path: toy.ToyNet, init_args: {dropout: 0.3}}
    teacher: {class_path: toy.ToyNet, init_args: {hidden: 7}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.02}}
    scheduler: {class_path: torch.optim.lr_scheduler.ExponentialLR, init_args: {gamma: 0.7}}
trainer:
  max_epochs: 4
  accelerator: cpu
  devices: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [{class_path: test_distiller.Match, init_args: {weight: 0.5}}]
"""
FOLDER = Path("runs/toy/version_0/checkpoints")
FIT = ("fit", "--config", "toy.yaml")


def add(name, **arguments):
    """The words that add a callback of `faulty` to the experiment."""
    text = ", ".join(f"{key}: {value}" for key, value in arguments.items())
    Path(f"{name}.yaml").write_text(
        f"trainer: {{callbacks+: [{{class_path: faulty.{name}, init_args: {{{text}}}}}]}}".replace("True", "true")
    )
    return "--config", f"{name}.yaml"


def run(*words):
    """A command in a process of its own; ends within three minutes, with all of its children, or fails."""
    command = [sys.executable, "-m", "sdsnn_lightning", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run of four epochs, and what it had left in the middle of the last one."""
    with own_folder(tmp_path_factory, "whole") as place:
        torch.set_num_threads(1)
        Path("toy.yaml").write_text(EXPERIMENT)
        main([*FIT, *add("KeepCopy", epoch=3)])
    return place


@pytest.fixture
def place(workdir, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("toy.yaml").write_text(EXPERIMENT)
    return workdir


@pytest.fixture
def cut(whole, place):
    """The run folder of a run that was killed in its fourth epoch."""
    shutil.copytree(whole / "copy", "runs/toy/version_0")
    return place


def same(a, b):
    """Whether two contents of checkpoints are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def assert_like_undisturbed(whole, folder=FOLDER):
    found, wanted = (load_checkpoint(path / "last.ckpt", "it") for path in (folder, whole / FOLDER))
    assert (wanted["epoch"], wanted["global_step"]) == (3, 24)
    assert any(key.startswith("adapters.") for key in wanted["state_dict"])
    for key in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        assert same(found[key], wanted[key]), key


def test_a_run_killed_while_it_writes_checkpoints_ends_like_an_undisturbed_one(whole, place):
    assert run(*FIT, *add("DieWriting", epoch=1, half=True)).returncode == -9
    assert (FOLDER / ".last.ckpt.partial").is_file()
    assert load_checkpoint(FOLDER / "last.ckpt", "it")["epoch"] == 0
    assert run(*FIT, *add("DieWriting", epoch=2, half=False), "--ckpt_path", "last").returncode == -9
    assert [load_checkpoint(FOLDER / name, "it")["epoch"] for name in ("last.ckpt", "previous.ckpt")] == [1, 1]
    main([*FIT, "--ckpt_path", "last"])
    assert_like_undisturbed(whole)
    assert sorted(path.name for path in FOLDER.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert [path.name for path in Path("runs/toy").iterdir()] == ["version_0"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path):
    """One bit of a weight, which torch alone reads as another number."""
    content = load_checkpoint(path, "it")
    raw = bytearray(path.read_bytes())
    place = raw.index(content["state_dict"]["network.hidden.weight"].numpy().tobytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    torch.load(path, weights_only=True)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(("damage", "ask"), [(truncate, "last"), (flip, str(FOLDER / "last.ckpt")), (empty, "last")])
def test_a_damaged_last_checkpoint_is_told_and_the_one_before_it_taken(whole, cut, damage, ask):
    damage(FOLDER / "last.ckpt")
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged \(.*\): going on from .*previous\.ckpt"):
        main([*FIT, "--ckpt_path", ask])
    assert_like_undisturbed(whole)
    assert load_checkpoint(FOLDER / "previous.ckpt", "it")["epoch"] == 2  # not the damaged one
    assert [path.name for path in Path("runs/toy").iterdir()] == ["version_0"]


def test_without_the_one_before_it_the_best_is_taken(whole, cut):
    truncate(FOLDER / "last.ckpt")
    flip(FOLDER / "previous.ckpt")
    with pytest.warns(UserWarning, match=r"going on from .*best\.ckpt"):
        main([*FIT, "--ckpt_path", "last"])
    assert_like_undisturbed(whole)


def test_where_all_are_damaged_and_in_evaluations_nothing_takes_their_place(cut, capsys):
    truncate(FOLDER / "last.ckpt")
    said = refusal(capsys, "validate", *FIT[1:], "--ckpt_path", "last")
    assert "last.ckpt) cannot be read as a checkpoint" in said
    flip(FOLDER / "best.ckpt")
    assert "the checksum of" in refusal(capsys, "validate", *FIT[1:], "--ckpt_path", "best")
    empty(FOLDER / "previous.ckpt")
    assert "last.ckpt) cannot be read as a checkpoint" in refusal(capsys, *FIT, "--ckpt_path", "last")
    assert len(list(FOLDER.iterdir())) == 3


def test_sigterm_keeps_the_state_of_that_step(whole, place):
    with pytest.raises(SystemExit) as end:
        main([*FIT, *add("Terminate", epoch=2, batch=3)])
    assert end.value.code == 143
    assert load_checkpoint(FOLDER / "last.ckpt", "it")["global_step"] == 2 * 6 + 4
    main([*FIT, "--ckpt_path", "last"])
    assert_like_undisturbed(whole)


def test_a_killed_loader_process_is_told_in_one_line(place, capsys):
    words = ("--data", "faulty.MortalData", "--data.num_workers", "1")
    said = refusal(capsys, *FIT, *words)
    assert "a loader process died" in said
    assert "lower data.init_args.num_workers" in said


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_data_folder_that_vanishes_is_told_in_one_line(place, capsys, workers):
    words = ("--data", "faulty.FileData", "--data.num_workers", workers)
    said = refusal(capsys, *FIT, *words, *add("Vanish"))
    assert "No such file or directory" in said
    assert "set/" in said
    assert "restore the data, then go on with --ckpt_path last" in said
    assert load_checkpoint(FOLDER / "last.ckpt", "it")["epoch"] == 0
    main([*FIT, *words, "--ckpt_path", "last"])  # the set is there again
    main([*FIT, *words])
    first, second = (load_checkpoint(Path(f"runs/toy/version_{n}/checkpoints/last.ckpt"), "it") for n in (0, 1))
    assert same(first["state_dict"], second["state_dict"])


def test_a_batch_that_is_too_small_to_normalise_names_its_size():
    said = r"one number a channel .*batch_size to at least 2"
    with pytest.raises(ConfigError, match=said) as caught, plain_errors(FOLDER):
        torch.nn.BatchNorm1d(3)(torch.ones(1, 3))
    assert "\n" not in str(caught.value)


def test_too_little_memory_names_what_takes_less():
    said = "no memory is left .*; lower data.init_args.batch_size"
    with pytest.raises(ConfigError, match=said) as caught, plain_errors(FOLDER):
        torch.empty(10**15)
    assert "\n" not in str(caught.value)
