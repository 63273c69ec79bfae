"""Disks that are full or read-only: one line with the folder and a cure, and nothing half-written."""

import re
from pathlib import Path

import pytest
import torch
from tiny_see import STUDENT, nothing_written, refused

from sdsnn_lightning.cli import main


@pytest.mark.parametrize(("options", "reason"), [("size=64k", "No space left"), ("ro", "Read-only file system")])
def test_a_disk_that_takes_no_cache(place, disk, capsys, options, reason):
    disk(options)
    words = ["fit", *STUDENT, "--data.init_args.cache_dir", "disk/cache"]
    said = refused(capsys, *words)
    assert re.search(rf"disk/cache/clips-24-\w+: cannot write the cache of 0 MB \({reason}", said)
    assert "free space there or set data.init_args.cache_dir to another folder" in said
    assert not list(Path("disk").rglob("*.npy"))
    disk("rw,size=4m")
    main(words)
    assert len(list(Path("runs").glob("seye_ce/version_*/checkpoints/best.ckpt"))) == 1


def test_a_disk_that_takes_no_run(place, disk, capsys):
    words = ["fit", *STUDENT, "--runs", "disk/runs"]
    said = refused(capsys, *words)
    assert re.search(r"disk/runs/seye_ce\S*: cannot write.*\(No space left", said)
    assert "another folder with --runs" in said
    assert nothing_written("disk/runs")
    disk("ro")
    assert "(Read-only file system)" in refused(capsys, *words)
    disk("rw,size=32m")
    main(words)
    assert len(list(Path("disk/runs").glob("seye_ce/version_*/checkpoints/best.ckpt"))) == 1


FILL = """
import os
from pathlib import Path

from lightning.pytorch import Callback


class Fill(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            space = os.statvfs("disk")
            Path("disk/filler").write_bytes(bytes(space.f_bavail * space.f_frsize - 2**16))
"""


def test_a_disk_that_fills_up_keeps_the_last_checkpoint_whole(place, disk, capsys):
    disk("size=80m")
    Path("fill.py").write_text(FILL)
    words = ["fit", *STUDENT, "--runs", "disk/runs", "--trainer.max_epochs", "2"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--trainer.callbacks", "[{class_path: fill.Fill}]"])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(r"error: \S+\.ckpt: cannot write the checkpoint of \d+\.\d MB \(No space left", said)
    assert "another folder with --runs" in said
    folder = Path("disk/runs/seye_ce/version_0/checkpoints")
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert [torch.load(path, weights_only=True)["epoch"] for path in folder.iterdir()] == [0, 0]
    Path("disk/filler").unlink()
    main([*words, "--ckpt_path", "last"])
