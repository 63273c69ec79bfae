"""Two runs started at once on one set without a cache, and into one place: one cache, two run folders."""

import multiprocessing
import os
import sys
import time
import traceback
from pathlib import Path

import pytest
import real_sets
import yaml
from refusal import refusal
from test_faults import same

from sdsnn_lightning import runs
from sdsnn_lightning.checkpoints import load_checkpoint
from sdsnn_lightning.cli import main
from sdsnn_lightning.data import clip_cache, event_cache, spike_cache, waveform_cache

FORK = multiprocessing.get_context("fork")
BUILDERS = {
    "eyes": (clip_cache, "_build"),
    "events": (event_cache, "_write"),
    "words": (waveform_cache, "_write"),
    "spikes": (spike_cache, "_write"),
}


def be_run(number, module, builder, folder):
    """Fits, and counts the caches that it builds; does not build before the other run has come as far as that."""
    build = getattr(module, builder)

    def count(*args):
        with (folder / f"built{number}").open("a") as file:
            file.write("x")
        until = time.monotonic() + 120
        while not (folder / f"here{1 - number}").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        return build(*args)

    setattr(module, builder, count)
    sys.stderr = (folder / f"said{number}").open("w", buffering=1)
    code = 0
    try:
        (folder / f"here{number}").touch()
        main(["fit", "--config", "flat.yaml"])
    except BaseException:
        traceback.print_exc()
        code = 1
    os._exit(code)


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_two_runs_at_once_build_one_cache_and_write_two_folders(workdir, tmp_path_factory, kind):
    real_sets.make(kind)
    folder = tmp_path_factory.mktemp("seen")
    processes = [FORK.Process(target=be_run, args=(number, *BUILDERS[kind], folder)) for number in (0, 1)]
    for process in processes:
        process.start()
    for number, process in enumerate(processes):
        process.join(200)
        assert process.exitcode == 0, (folder / f"said{number}").read_text()
    built = sorted(path.read_text() for path in folder.glob("built*"))
    assert "".join(built) == ("xx" if kind == "spikes" else "x")  # spikes: a training and a test file
    assert len([path for path in Path("set/.cache").iterdir() if not path.name.startswith(".")]) == len("".join(built))
    found = sorted(Path("runs/flat").iterdir())
    assert [path.name for path in found] == ["version_0", "version_1"]
    assert same(*(load_checkpoint(path / "checkpoints/last.ckpt", "it")["state_dict"] for path in found))
    configs = [yaml.safe_load((path / "config.yaml").read_text()) for path in found]
    assert configs[0] == configs[1]
    assert not list(Path("set").rglob("*.partial*"))


def test_one_folder_is_written_by_one_run_at_a_time(workdir, capsys, monkeypatch):
    real_sets.make("words")
    main(["fit", "--config", "flat.yaml"])
    folder = Path("runs/flat/version_0")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(runs, "PATIENCE", 0.3)
    ready, done = FORK.Event(), FORK.Event()

    def hold():
        runs.claim(folder)
        ready.set()
        done.wait(60)
        os._exit(0)

    other = FORK.Process(target=hold)
    other.start()
    assert ready.wait(60)
    for words in (["--ckpt_path", "last"], ["--version", "0"]):
        said = refusal(capsys, "fit", "--config", "flat.yaml", *words)
        assert "runs/flat/version_0 is being written by another run" in said
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done.set()
    monkeypatch.setattr(runs, "PATIENCE", 60.0)  # waits for the end of the other
    main(["fit", "--config", "flat.yaml", "--trainer.max_epochs", "3", "--ckpt_path", "last"])
    other.join(60)
    assert load_checkpoint(folder / "checkpoints/last.ckpt", "it")["epoch"] == 2
