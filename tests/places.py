"""Where the repository is, and where real recordings may be."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("SDSNN_SHARED", REPOSITORY.parent / "shared" / "data"))
"""Folder with real recordings; the tests that use it skip where it does not exist."""
