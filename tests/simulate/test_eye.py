import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdsnn_lightning.data.see_layout import ClipName, read_index
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate import eye
from sdsnn_lightning.simulate.eye import write_simulated_see
from sdsnn_lightning.simulate.eye_clip import LIGHTINGS, Subject, simulate_clip
from sdsnn_lightning.simulate.eye_motion import STYLES
from sdsnn_lightning.simulate.once import STAMP

SMALL = {"subjects": 2, "clips_per_class": 1, "size": 20}


def digest(root: Path) -> str:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(f.relative_to(root)).encode() + f.read_bytes() for f in files)).hexdigest()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_simulated_see(tmp_path_factory.mktemp("sets") / "small", **SMALL, workers=1)


def test_the_set_reads_back_as_see(small):
    index = read_index(small)
    assert index.labels == ["angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
    assert len(index.clips) == 14
    for clip in index.clips:
        assert str(ClipName.parse(clip.name)) == clip.name
        assert 18 <= clip.length == clip.stop - clip.start
        for folder in (clip.frames, clip.events):
            names = sorted(path.name for path in folder.iterdir())
            assert names == [f"{i:05d}.jpg" for i in range(clip.length)]
        with Image.open(clip.frames / "00000.jpg") as image:
            assert (image.size, image.mode) == ((20, 20), "L")
    assert {clip.subset for clip in index.clips} == {"training", "testing"}


def test_nobody_is_in_both_parts_and_everybody_in_one_lighting(small):
    clips = read_index(small).clips
    seen = {subset: {c.subject for c in clips if c.subset == subset} for subset in ("training", "testing")}
    assert not seen["training"] & seen["testing"]
    for subject in seen["training"] | seen["testing"]:
        assert len({c.lighting for c in clips if c.subject == subject}) == 1


def test_lightings_are_balanced_in_both_parts_of_the_default_set():
    people = [Subject.draw(number, 0) for number in range(1, 25)]
    for part in (people[:16], people[16:]):
        counts = [sum(p.lighting == name for p in part) for name in LIGHTINGS]
        assert counts == [len(part) // 4] * 4
    assert {p.sex for p in people} == {"man", "woman"}
    assert all(19 <= p.age <= 28 for p in people)


def test_a_set_is_reused_replaced_and_depends_on_the_seed_only(small, tmp_path, monkeypatch):
    root = tmp_path / "set"
    write_simulated_see(root, **SMALL, workers=2)
    assert digest(root) == digest(small)  # whatever the number of workers
    first = digest(root)
    with monkeypatch.context() as patch:
        patch.setattr(eye, "_write", lambda *_: pytest.fail("a whole set was written again"))
        write_simulated_see(root, **SMALL)
    write_simulated_see(root, **SMALL, seed=1, workers=1)
    assert json.loads((root / STAMP).read_text())["parameters"]["seed"] == 1
    assert digest(root) != first
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["set"]  # nothing half-written is left


def test_strange_folders_are_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "emotion.json").write_text("{}")
    with pytest.raises(DataError, match="give another folder"):
        write_simulated_see(tmp_path / "mine", **SMALL)
    assert (tmp_path / "mine" / "emotion.json").read_text() == "{}"
    with pytest.raises(ConfigError, match="subjects is 1"):
        write_simulated_see(tmp_path / "new", subjects=1)


def test_a_failed_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(eye, "_write", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        write_simulated_see(tmp_path / "set", **SMALL)
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_lightings_spoil_frames_more_than_events():
    """One eye under the four lightings: frames saturate, drown or clip; the events keep the lid's motion."""
    frames, events = {}, {}
    person = Subject.draw(1, 0)
    for name in LIGHTINGS:
        lit = Subject(**{**person.__dict__, "lighting": name})
        frames[name], events[name] = simulate_clip(lit, "disgust", 18, [3], size=60)
    assert frames["Overexposed"].mean() > 1.8 * frames["normal"].mean()
    assert (frames["Overexposed"] == 255).mean() > 0.05
    assert frames["Low"].mean() < 40
    # a shadow and a highlight in one frame
    low, high = np.percentile(frames["HDR"], (10, 90))
    assert high / low > 2 * np.divide(*np.percentile(frames["normal"], (90, 10)))
    assert (frames["normal"] == 255).mean() < 0.02
    fired = {name: images != 127 for name, images in events.items()}
    assert fired["Low"].mean() > 1.5 * fired["normal"].mean()  # noise
    often = fired["normal"].mean(0) > 0.4  # where the eye moves in normal light ...
    for name in ("Overexposed", "HDR"):
        assert fired[name][:, often].mean() > 0.6 * fired["normal"][:, often].mean()  # ... it fires in the others too


def test_event_images_hold_three_values_and_show_the_motion():
    person = Subject.draw(5, 0)
    assert person.lighting == "normal"
    frames, events = simulate_clip(person, "surprise", 18, [1])
    assert set(np.unique(events)) == {0, 127, 255}
    change = np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2))
    density = (events[1:] != 127).mean((1, 2))
    assert np.corrcoef(change, density)[0, 1] > 0.5
    assert 0.005 < density.mean() < 0.2


def test_every_emotion_has_a_style_of_its_own():
    assert len({repr(style) for style in STYLES.values()}) == 7
