"""Where the events of a video go, and which part of its frames is seen; the command itself: test_to_events.py."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from sdsnn_lightning.data_commands.video_events import _output, _square
from sdsnn_lightning.errors import ConfigError, DataError


@pytest.mark.parametrize("tall", [False, True])
def test_the_middle_square_is_seen(tall):
    frame = np.zeros((256, 512), np.uint8)
    frame[:, 128:384] = 100  # the middle
    frame[:, 128:256] = 50
    seen = _square(frame.T if tall else frame)
    assert seen.shape == (128, 128)
    seen = seen.T if tall else seen
    assert (seen[:, :64] == 50).all()
    assert (seen[:, 64:] == 100).all()


def output(out, **options):
    return _output(Namespace(**{"out": out, "source": Path("eye.mp4"), "format": None, "overwrite": False} | options))


def test_the_ending_says_how_and_a_folder_takes_the_name_of_the_video(tmp_path):
    assert output(tmp_path / "a.npz") == tmp_path / "a.npz"
    assert output(tmp_path / "a.npz", format="npz") == tmp_path / "a.npz"
    assert output(tmp_path / "new") == tmp_path / "new" / "eye.aedat"
    assert output(tmp_path / "new.v2", format="npz") == tmp_path / "new.v2" / "eye.npz"
    with pytest.raises(ConfigError, match=r"a\.npz ends in \.npz and --format is aedat; make them agree"):
        output(tmp_path / "a.npz", format="aedat")
    (tmp_path / "a.npz").touch()
    with pytest.raises(DataError, match=r"a\.npz exists; name another output, or give --overwrite"):
        output(tmp_path / "a.npz")
    assert output(tmp_path / "a.npz", overwrite=True) == tmp_path / "a.npz"
