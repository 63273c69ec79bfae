import numpy as np
import pytest
from places import SHARED

from sdsnn_lightning.data.aedat import write_aedat
from sdsnn_lightning.data.event_recordings import CIFAR10, find_recordings, read_recording
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

EVENTS = np.array([(5, 1, 2, 1), (6, 127, 0, 0), (9, 0, 127, 1)], EVENT_DTYPE)


def table(*names):
    return np.stack([EVENTS[name].astype(np.int64) for name in names], 1)


def put(root, *files):
    for file in files:
        write_aedat(root / file, EVENTS)
    return root


def test_every_form_gives_the_same_events(tmp_path):
    from scipy.io import savemat

    write_aedat(tmp_path / "a.aedat", EVENTS)
    np.savez(tmp_path / "b.npz", **{name: EVENTS[name] for name in "txyp"})
    np.save(tmp_path / "c.npy", EVENTS)
    np.save(tmp_path / "d.npy", table("t", "x", "y", "p"))
    signed = EVENTS.copy()
    signed["p"] = 2 * EVENTS["p"] - 1
    np.save(tmp_path / "e.npy", signed)
    below = EVENTS.copy()
    below["y"] = 127 - EVENTS["y"]  # dat2mat.m counts rows from below
    four = np.stack([below[name].astype(float) for name in "txyp"], 1)
    savemat(tmp_path / "f.mat", {"out1": four})
    savemat(tmp_path / "g.mat", {"out1": np.insert(four, [1, 1], -1, axis=1)})
    savemat(tmp_path / "h.mat", {"out1": {name: four[:, i] for i, name in enumerate("txyp")}})
    for path in sorted(tmp_path.iterdir()):
        events = read_recording(path)
        assert events.dtype == EVENT_DTYPE, path
        assert events.tolist() == EVENTS.tolist(), path


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4)), "holds no event"),
        (np.zeros((5, 3)), "needs the columns t, x, y, p"),
        (np.array([[0, 128, 0, 1]]), "x runs from 128 to 128, outside the 128x128"),
        (np.array([[0, 0, -1, 1]]), "y runs from -1 to -1"),
        (np.array([[5, 0, 0, 1], [4, 0, 0, 1]]), "time goes back by 1 us at event 1"),
        (np.zeros(3, [("t", int), ("x", int), ("y", int)]), "has no field p"),
    ],
)
def test_bad_arrays_are_named(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(DataError, match=message) as error:
        read_recording(tmp_path / "bad.npy")
    assert "bad.npy" in str(error.value)


def test_bad_files_are_named(tmp_path):
    for name in ("a.npy", "a.npz", "a.mat", "a.aedat", "a.aedat4"):
        with pytest.raises(DataError, match="does not exist|cannot be read|pip install aedat"):
            read_recording(tmp_path / name)
        (tmp_path / name).write_bytes(b"no recording")
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            read_recording(tmp_path / name)
    np.savez(tmp_path / "a.npz", t=[0], x=[0], y=[0])
    with pytest.raises(DataError, match="has no array p"):
        read_recording(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", t=[0, 1], x=[0], y=[0], p=[0])
    with pytest.raises(DataError, match="differ in length"):
        read_recording(tmp_path / "a.npz")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_recording(tmp_path / "pickled.npy")


def test_an_aedat4_file_is_known_by_its_first_line(tmp_path):
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT4.0\r\n")
    with pytest.raises(DataError, match="AEDAT4"):
        read_recording(tmp_path / "a.aedat")


def test_classes_are_folders_or_files(tmp_path):
    put(tmp_path, "b/2.aedat", "b/10.aedat", "a/1.aedat", ".cache/c/1.aedat")
    names, recordings = find_recordings(tmp_path)
    assert names == ["a", "b"]
    assert recordings == [("a/1.aedat", "a"), ("b/10.aedat", "b"), ("b/2.aedat", "b")]
    names, recordings = find_recordings(tmp_path, classes=["b", "a"], match=["a/*", "*/2*"])
    assert names == ["b", "a"]
    assert [r.file for r in recordings] == ["a/1.aedat", "b/2.aedat"]
    put(tmp_path / "sessions", "one/Cup.aedat", "one/Pen.aedat", "one/Cube.aedat", "two/Cup.aedat", "two/Pen.aedat")
    names, recordings = find_recordings(tmp_path / "sessions", "file", ["Cup", "Pen"])
    assert recordings == [
        ("one/Cup.aedat", "Cup"), ("one/Pen.aedat", "Pen"), ("two/Cup.aedat", "Cup"), ("two/Pen.aedat", "Pen"),
    ]  # fmt: skip


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        find_recordings(tmp_path / "no")
    with pytest.raises(DataError, match="holds no recordings of events"):
        find_recordings(tmp_path)
    put(tmp_path, "loose.aedat")
    with pytest.raises(DataError, match="class_from: file"):
        find_recordings(tmp_path)
    (tmp_path / "loose.aedat").unlink()
    put(tmp_path, *(f"{name}/0.aedat" for name in CIFAR10[:-1]))
    with pytest.raises(DataError, match=r"no folder of class truck \(1 of 10 classes"):
        find_recordings(tmp_path)
    assert len(find_recordings(tmp_path, classes=CIFAR10[:3])[1]) == 3
    with pytest.raises(DataError, match=r"match x/\*; correct"):
        find_recordings(tmp_path, match=["x/*"])
    with pytest.raises(DataError, match="no folder of class cow"):
        find_recordings(tmp_path, classes=["cat", "cow"])
    for classes in (["cat"], ["cat", "cat"]):
        with pytest.raises(ConfigError, match="name two or more, each once"):
            find_recordings(tmp_path, classes=classes)


def test_one_recording_twice_is_refused(tmp_path):
    put(tmp_path, "one/a/1.aedat", "one/b/1.aedat", "two/a/1.aedat")
    assert len(find_recordings(tmp_path)[1]) == 3  # two sessions, and two classes
    for copy in ("events_np/a/1.npz", "one/a/1.mat"):
        put(tmp_path, copy)
        with pytest.raises(DataError, match=r"a/1\.\w+ and .*a/1\.\w+ are one recording twice.*data.init_args.root"):
            find_recordings(tmp_path)
        assert len(find_recordings(tmp_path, match=["*.aedat"])[1]) == 3
        (tmp_path / copy).unlink()
    (tmp_path / "train/a").mkdir(parents=True)
    (tmp_path / "train/a/1.aedat").symlink_to(tmp_path / "one/a/1.aedat")
    with pytest.raises(DataError, match="one/a/1.aedat and train/a/1.aedat are one recording"):
        find_recordings(tmp_path)


@pytest.mark.skipif(not (SHARED / "dvs128_objects").is_dir(), reason="no real recordings")
def test_the_real_sessions():
    five = ["Caixa", "Caneca", "Estilete", "Lapiseira", "Tesoura"]
    for session in ("session_2018-10-29", "session_2018-10-06"):
        names, recordings = find_recordings(SHARED / "dvs128_objects", "file", five, [f"{session}/*"])
        assert names == five
        assert [r.file for r in recordings] == [f"{session}/{name}.aedat" for name in five]
