"""The wheel and the sdist hold everything: installed away from the repository, `lightning fit` runs its own example."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from places import REPOSITORY

BUILT = ("sdsnn_lightning", "pyproject.toml", "README.md", "LICENSE")
SMALL = ("--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.init_args.simulated_clips=1")


def run(*words, cwd, **variables):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, timeout=900, env={**kept, **variables}
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def sources():
    """Files of the package that git knows or would take, relative to the repository."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *BUILT]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    return [Path(line) for line in done.stdout.splitlines() if (REPOSITORY / line).is_file()]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel and the sdist, built from a copy so that nothing is written into the repository."""
    pytest.importorskip("build")
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for file in sources():
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).write_bytes((REPOSITORY / file).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", out, cwd=copy)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_wheel_and_sdist_hold_every_file_of_the_package(archives):
    wheel, sdist = archives
    wanted = {file.as_posix() for file in sources() if file.parts[0] == "sdsnn_lightning"}
    assert {"sdsnn_lightning/py.typed", "sdsnn_lightning/defaults.yaml", "sdsnn_lightning/examples/eye.yaml",
            "sdsnn_lightning/reports/page.html", "sdsnn_lightning/reports/page.css"} <= wanted  # fmt: skip
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if name.startswith("sdsnn_lightning/")}
        metadata = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        assert "License-Expression: Apache-2.0" in file.read(metadata).decode()
        scripts = next(name for name in file.namelist() if name.endswith("entry_points.txt"))
        assert "lightning = sdsnn_lightning.cli:main" in file.read(scripts).decode()
    assert held == wanted
    with tarfile.open(sdist) as file:
        names = {member.name.partition("/")[2] for member in file if member.isfile()}
    assert wanted | {"pyproject.toml", "README.md", "LICENSE"} <= names


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_installed_wheel_trains_its_own_example(archives, tmp_path):
    place = tmp_path / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    target = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).stdout.strip()
    )
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, archives[0], cwd=tmp_path)
    # The other packages are those of this environment; a path file there that shows the repository is not read.
    (target / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    work = tmp_path / "work"
    work.mkdir()
    where = run(python, "-c", "import sdsnn_lightning; print(sdsnn_lightning.__file__)", cwd=work).stdout.strip()
    assert Path(where).is_relative_to(target)
    run(place / "bin" / "sdsnn", "examples", ".", cwd=work)
    done = run(place / "bin" / "lightning", "fit", "--config", "eye.yaml", *SMALL, cwd=work, WANDB_MODE="offline")
    assert "training the teacher first (eye_teacher.yaml)" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    results = json.loads((work / "runs/eye/version_0/results.json").read_text())
    assert results["data_source"] == "simulated"
    assert results["fit"]["epochs"] == 1
    assert (work / "runs/eye/version_0/checkpoints/best.ckpt").is_file()
    run(place / "bin" / "lightning", "test", "--config", "eye.yaml", "--ckpt_path", "best", *SMALL, cwd=work,
        WANDB_MODE="disabled")  # fmt: skip
    run(place / "bin" / "sdsnn", "report", "runs/eye", cwd=work)
    assert "<html" in (work / "runs" / "eye" / "report.html").read_text()
