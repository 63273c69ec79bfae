"""The embedded recordings of shapes."""

import json

import numpy as np
import pytest

from sdsnn_lightning.data.aedat import read_aedat
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.shapes import CLASSES, draw_shape, write_simulated_recordings


def test_the_set_is_whole_and_the_same_for_equal_seeds(tmp_path):
    one = write_simulated_recordings(tmp_path / "one", seed=3, recordings=2, workers=1)
    two = write_simulated_recordings(tmp_path / "two", seed=3, recordings=2, workers=1)
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*.aedat"))
    assert names == sorted(f"{name}/{name}_{number:03d}.aedat" for name in CLASSES for number in (0, 1))
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    events = read_aedat(one / "star" / "star_001.aedat")
    assert 2_000 < len(events) < 100_000
    assert events["t"][-1] == pytest.approx(200_000, rel=0.02)
    assert events["x"].max() == events["y"].max() == 127
    assert 0.4 < np.mean([read_aedat(one / name)["p"].mean() for name in names]) < 0.65
    assert json.loads((one / "simulated.json").read_text())["parameters"] == {"seed": 3, "recordings": 2, "loops": 1}
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["one", "two"]


def test_a_set_is_reused_or_replaced_and_strangers_are_left_alone(tmp_path):
    root = tmp_path / "set"
    write_simulated_recordings(root, recordings=1, workers=1)
    first = (root / "disc" / "disc_000.aedat").stat().st_mtime_ns
    write_simulated_recordings(root, recordings=1, workers=1)
    assert (root / "disc" / "disc_000.aedat").stat().st_mtime_ns == first
    before = (root / "disc" / "disc_000.aedat").read_bytes()
    write_simulated_recordings(root, seed=1, recordings=1, workers=1)
    assert (root / "disc" / "disc_000.aedat").read_bytes() != before
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match=r"holds no readable simulated\.json"):
        write_simulated_recordings(other, recordings=1)
    (other / "simulated.json").write_text('{"generator": "another"}')
    with pytest.raises(DataError, match="another kind"):
        write_simulated_recordings(other, recordings=1)
    assert (other / "notes.txt").read_text() == "keep"
    with pytest.raises(ConfigError, match="recordings is 0"):
        write_simulated_recordings(tmp_path / "none", recordings=0)


@pytest.mark.parametrize("name", CLASSES)
def test_a_shape_is_there_varies_and_is_drawn_alike_from_one_seed(name):
    pictures = [np.asarray(draw_shape(name, np.random.default_rng(seed)), float) for seed in range(12)]
    again = np.asarray(draw_shape(name, np.random.default_rng(5)), float)
    assert (pictures[5] == again).all()
    assert pictures[0].shape == (96, 96)
    means = [picture.mean() for picture in pictures]
    assert np.std(means) > 5  # brightness varies
    spread = [picture.std() for picture in pictures]
    assert min(spread) > 3
    assert max(spread) > 1.5 * min(spread)  # contrast varies
