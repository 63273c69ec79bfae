"""Where the repository is, where real recordings may be, and folders of their own for rows of tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SDSNN_SHARED", REPOSITORY.parent / "shared" / "data"))
"""Folder with real recordings; the tests that use it skip where it does not exist."""


def without_seed(patch: pytest.MonkeyPatch) -> None:
    """Takes the seed out of the environment, where `seed_everything` leaves it for child processes."""
    patch.setenv("PL_GLOBAL_SEED", "0")  # so that it is put back, whatever the test does
    patch.delenv("PL_GLOBAL_SEED")


@contextmanager
def own_folder(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """An empty current folder for what the tests of a file share, as `workdir` is for one of them."""
    with pytest.MonkeyPatch.context() as patch:
        place = factory.mktemp(name)
        patch.chdir(place)
        without_seed(patch)
        yield place
