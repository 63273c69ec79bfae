"""Data that vanish under a run: what is mapped is read to the end, what is lost ends it in one line."""

import shutil
from pathlib import Path

import pytest
import real_sets
from refusal import refusal
from test_faults import add, run, same

from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.cli import main

FIT = ("fit", "--config", "flat.yaml")
REAL = "was trained on real data but this run uses simulated data; restore the data, or start without --ckpt_path"


@pytest.fixture
def place(workdir, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return workdir


def last(version):
    return Path(f"runs/flat/version_{version}/checkpoints/last.ckpt")


@pytest.mark.parametrize(("kind", "workers"), [("eyes", 0), ("eyes", 1), ("events", 0), ("words", 1), ("spikes", 0)])
def test_a_run_ends_on_data_whose_folder_was_deleted(place, capsys, kind, workers):
    """The caches are mapped: they last until the run ends, which is that of an undisturbed one."""
    real_sets.make(kind)
    shutil.copytree("set", "kept")
    words = (*FIT, "--data.init_args.num_workers", str(workers))
    main([*words])
    main([*words, *add("Vanish")])
    assert not Path("set").exists()
    whole, vanished = (load_checkpoint(last(n), "it") for n in (0, 1))
    assert whole["epoch"] == 1
    assert whole["sdsnn"]["data_source"] == "real"
    assert same(whole["state_dict"], vanished["state_dict"])

    # `source: auto` must not let it go on with simulated data.
    before = last(1).read_bytes()
    more = (*words, "--trainer.max_epochs", "3", "--ckpt_path", "last")
    assert refusal(capsys, *more) == f"error: the checkpoint (--ckpt_path {last(1)}) {REAL}"
    assert "set does not exist" in refusal(capsys, *more, "--data.init_args.source", "real")
    assert last(1).read_bytes() == before
    assert not Path("simulated").exists()
    assert sorted(path.name for path in Path("runs/flat").iterdir()) == ["version_0", "version_1"]

    shutil.copytree("kept", "set")
    main([*more])
    assert load_checkpoint(last(1), "it")["epoch"] == 2


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_file_that_is_lost_while_it_is_mapped_is_named(place, workers):
    """Cut short here; a disk that is gone gives the same signal, SIGBUS."""
    real_sets.make("eyes")
    words = (*FIT, "--data.init_args.num_workers", workers)
    done = run(*words, *add("CutShort"))
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    (cache,) = Path("set/.cache").glob("*/frames.npy")
    cure = "cannot be read any more: it was cut short, or its disk is gone; restore the data, then go on with"
    assert lines[-1].lstrip("\0") == f"error: {cache.resolve()} {cure} --ckpt_path last"
    assert "Traceback" not in done.stderr
    assert load_checkpoint(last(0), "it")["epoch"] == 0

    shutil.rmtree(cache.parent)
    main([*words, "--ckpt_path", "last"])
    main([*words])
    assert same(*(load_checkpoint(last(n), "it")["state_dict"] for n in (0, 1)))
