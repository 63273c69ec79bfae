"""A sweep in a job of a real Slurm, on a Ray cluster that the job starts."""

import json
from pathlib import Path

import pytest
import yaml
from toy_files import TEACHER

SCRIPT = Path(__file__).parents[2] / "experiments" / "cluster" / "sweep.sbatch"
SWEEP = """
name: rates
config: [toy.yaml]
space: {model.init_args.optimizer.init_args.lr: {grid: [0.001, 0.01, 0.1, 1.0]}}
metric: val/task
mode: min
num_samples: 1
resources: {cpus: 1, gpus: 0}
scheduler: none
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def test_four_trials_run_on_the_ray_of_the_job(slurm, tmp_path):
    pytest.importorskip("ray", reason="the extra `sweeps` is not installed")
    (tmp_path / "toy.yaml").write_text(TEACHER)
    (tmp_path / "rates.yaml").write_text(SWEEP)
    options = ("--cpus-per-task=2", f"--chdir={tmp_path}", f"--output={tmp_path}/job.out")
    job = slurm.submit(*options, str(SCRIPT), "rates.yaml")
    said = slurm.finish(job, 1800)
    scores = {}
    for folder in (tmp_path / "runs" / "rates").glob("trial_*/version_0"):
        rate = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]["optimizer"]["init_args"][
            "lr"
        ]
        assert json.loads((folder / "results.json").read_text())["fit"]["steps"] == 12
        rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
        scores[rate] = float(next(row[rows[0].index("val/task")] for row in rows[1:] if row[rows[0].index("val/task")]))
    assert sorted(scores) == [0.001, 0.01, 0.1, 1.0], said
    best = yaml.safe_load((tmp_path / "runs" / "rates" / "best.yaml").read_text())
    assert best["model"]["init_args"]["optimizer"]["init_args"]["lr"] == min(scores, key=scores.get)
