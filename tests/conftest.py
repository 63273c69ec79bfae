"""Shared set-up: no W&B unless a test asks for it, one thread, a clean folder for runs, the toy modules importable."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

os.environ.setdefault("WANDB_MODE", "disabled")
sys.path.insert(0, str(Path(__file__).parent))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background commands deaf to Ctrl-C
LONG = ("test_experiments", "test_distributed", "test_cli", "test_entry_points", "test_kdcl", "test_vanishing_data")


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that several workers end at about the same time."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(autouse=True)
def _few_threads():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_seed_of_another_test(monkeypatch):
    """Each test starts without."""
    from places import without_seed  # found now that its folder is on the path

    without_seed(monkeypatch)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """An empty current folder, with the toy modules importable by child processes too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return tmp_path
