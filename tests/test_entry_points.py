"""The three names of the program, and what it keeps out of the terminal where Slurm is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_faults import EXPERIMENT

SCRIPTS = Path(sys.executable).parent
MODULE = [sys.executable, "-m", "sdsnn_lightning"]
HINT = "The `srun` command is available"


def said(*commands, **variables):
    """Exit code and standard error of commands that run beside each other."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")} | variables
    runs = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment) for words in commands]
    return [(run.communicate(timeout=240)[1].strip(), run.returncode) for run in runs]


@pytest.mark.slow
def test_a_hint_names_the_program_as_it_was_started(workdir):
    programs = {"python -m sdsnn_lightning": MODULE}
    programs |= {name: [str(SCRIPTS / name)] for name in ("lightning", "sdsnn") if (SCRIPTS / name).is_file()}
    found = said(*(words + ["fit", "--no_such_key", "1"] for words in programs.values()))
    for name, (line, code) in zip(programs, found, strict=True):
        assert code == 2
        assert line.startswith("error: ")
        assert line.endswith(f"(all keys: {name} fit --help)"), line


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("srun") is None, reason="srun is not installed")
def test_the_hint_to_use_srun_is_for_jobs_of_slurm(workdir):
    Path("toy.yaml").write_text(EXPERIMENT)
    fit = [*MODULE, "fit", "--config", "toy.yaml", "--trainer.max_epochs", "1"]
    ((outside, code),) = said(fit)
    assert code == 0
    assert "srun" not in outside
    # In a batch script that starts its program without srun.
    ((inside, code),) = said(fit, SLURM_JOB_ID="7", SLURM_JOB_NAME="mine", SLURM_NTASKS="1")
    assert code == 0
    assert HINT in inside
