"""One Slurm for all tests of this folder, which skip with the reason where none can run."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from one_node import Slurm, Unavailable


@pytest.fixture(scope="session")
def slurm():
    here = Path(__file__).parent
    try:
        with Slurm() as running:
            running.environment |= {
                "PYTHON": sys.executable,
                "PYTHONPATH": f"{here.parent}:{here}",
                "OMP_NUM_THREADS": "1",
                "WANDB_MODE": "disabled",
            }
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))
