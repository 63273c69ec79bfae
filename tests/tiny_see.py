"""The shipped experiments of the single eye, on a tiny set in the current folder (see bad_input/conftest.py)."""

import json
from pathlib import Path

from refusal import refusal

OVERLAY = {
    "width": 0.1,
    "data": {"init_args": {"root": "SEE", "source": "real", "size": 24, "skip": 1, "batch_size": 2, "eval_starts": 1}},
    "trainer": {
        "max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False,
        "log_every_n_steps": 1,
    },
}  # fmt: skip
STUDENT = ["--config", "experiments/seye_ce.yaml", "--config", "tiny.yaml"]
DISTILLED = ["--config", "experiments/seye.yaml", "--config", "tiny.yaml"]
TEACHER = ["--config", "experiments/seye_teacher.yaml", "--config", "tiny.yaml"]
LR = "--model.init_args.optimizer.init_args.lr"


def refused(capsys, *words):
    """The line a command says before it ends with exit code 2, leaving nothing to be taken for a result."""
    said = refusal(capsys, *words)
    assert nothing_written()
    return said


def nothing_written(runs="runs"):
    """No checkpoint of the student and no part of one."""
    return not [*Path(runs).glob("seye*/version_*/checkpoints/*"), *Path(runs).glob("seye*/version_*/checkpoints/.*")]


def edit_index(change):
    """Changes the content of the set's index."""
    path = Path("SEE/emotion.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
