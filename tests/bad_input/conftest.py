"""A tiny set, a teacher trained on it and a small disk, for the tests of what can be wrong."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from places import REPOSITORY
from tiny_see import OVERLAY, TEACHER

from sdsnn_lightning.cli import main
from sdsnn_lightning.data.see_layout import EMOTIONS, LIGHTINGS, ClipName, write_clip, write_index

LENGTH = 8


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A whole set of 6 subjects with 2 clips each, and a trained teacher of it."""
    place = tmp_path_factory.mktemp("whole")
    entries = []
    for i in range(12):
        subject, take = divmod(i, 2)
        name = ClipName(i, f"{subject:03d}", "man", 30, "Master", LIGHTINGS[subject % 4], EMOTIONS[i % 7], LENGTH, take)
        images = np.random.default_rng(i).integers(0, 256, (LENGTH, 16, 16), dtype=np.uint8)
        write_clip(place / "SEE", name, images, 255 - images)
        entries.append((name, "testing" if take else "training", (0, LENGTH)))
    write_index(place / "SEE", list(EMOTIONS), entries)
    (place / "experiments").symlink_to(REPOSITORY / "experiments")
    (place / "tiny.yaml").write_text(yaml.safe_dump(OVERLAY))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        torch.set_num_threads(1)
        main(["fit", *TEACHER])
    (place / "runs/seye_teacher/version_0/checkpoints/best.ckpt").rename(place / "teacher.ckpt")
    shutil.rmtree(place / "runs")
    shutil.rmtree(place / "SEE/.cache")
    return place


@pytest.fixture
def place(whole, workdir):
    """A fresh folder with that set, as a user has it."""
    shutil.copytree(whole / "SEE", "SEE")
    Path("experiments").symlink_to(REPOSITORY / "experiments")
    shutil.copy(whole / "tiny.yaml", "tiny.yaml")
    return workdir


@pytest.fixture
def teacher(whole, place):
    """The trained teacher where seye.yaml looks for it."""
    path = Path("runs/seye_teacher/seed1.ckpt")
    path.parent.mkdir(parents=True)
    shutil.copy(whole / "teacher.ckpt", path)
    return path


@pytest.fixture
def disk(place):
    """A disk of its own at ./disk; gives a function that changes its size and rights."""
    folder = place / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")

    def remount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True, capture_output=True)

    yield remount
    subprocess.run(["umount", "-l", folder], check=True)
