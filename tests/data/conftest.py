"""Small sets in the SEE layout, written on the fly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdsnn_lightning.data.see_layout import EMOTIONS, LIGHTINGS, ClipName, write_clip, write_index


def clip_images(number: int, length: int, side: int = 16) -> np.ndarray:
    """Flat images whose grey value names the clip and the moment; JPEG keeps flat images exactly."""
    values = (40 * number + np.arange(length)) % 256
    return np.broadcast_to(values[:, None, None], (length, side, side)).astype(np.uint8)


@pytest.fixture
def make_see(tmp_path: Path) -> Callable[..., Path]:
    """Writes a set: subject s has one light condition and `per_subject` clips, the last of them for testing."""

    def make(subjects: int = 6, per_subject: int = 4, length: int = 20, name: str = "SEE", side: int = 16) -> Path:
        root = tmp_path / name
        entries = []
        for i in range(subjects * per_subject):
            subject, take = divmod(i, per_subject)
            clip = ClipName(
                number=i,
                subject=f"{subject:03d}",
                sex="man",
                age=30,
                degree="Master",
                lighting=LIGHTINGS[subject % 4],
                emotion=EMOTIONS[i % 7],
                length=length,
                take=take,
            )
            frames = clip_images(i, length, side)
            write_clip(root, clip, frames, 255 - frames)
            entries.append((clip, "testing" if take == per_subject - 1 else "training", (0, length)))
        write_index(root, list(EMOTIONS), entries)
        return root

    return make
