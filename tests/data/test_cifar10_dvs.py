import numpy as np
import pytest
import torch
from places import SHARED

from sdsnn_lightning.data import CIFAR10DVS
from sdsnn_lightning.data.aedat import write_aedat
from sdsnn_lightning.data.cifar10_dvs import regroup
from sdsnn_lightning.data.event_augment import EventAugment
from sdsnn_lightning.data.event_recordings import CIFAR10, ordered_split, random_split
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

OBJECTS = SHARED / "dvs128_objects"
FIVE = ["Caixa", "Caneca", "Estilete", "Lapiseira", "Tesoura"]


def write(path, seed=0, count=1600):
    rng = np.random.default_rng(seed)
    events = np.empty(count, EVENT_DTYPE)
    events["t"] = 10 * np.arange(count)
    events["x"], events["y"], events["p"] = (rng.integers(0, n, count) for n in (128, 128, 2))
    write_aedat(path, events)


@pytest.fixture
def folders(tmp_path):
    """Two classes of ten recordings, each a different picture."""
    root = tmp_path / "set"
    for c, name in enumerate(("disc", "ring")):
        for k in range(10):
            write(root / name / f"{name}_{k}.aedat", 100 * c + k)
    return root


def ready(**options):
    data = CIFAR10DVS(source="real", **options)
    data.prepare_data()
    data.setup("fit")
    return data


def files(data, part):
    """Names of the recordings of a part, by the place of their samples in the cache."""
    dataset = getattr(data, f"{part}_set")
    recordings = data._find()[1]
    return [recordings[k].file for k in dataset.cache.recording[dataset.rows]]


def batch(data, part="train", count=4):
    dataset = getattr(data, f"{part}_set")
    return torch.utils.data.default_collate(dataset.__getitems__(list(range(count))))


def test_splits_by_hand():
    labels = ["a"] * 10 + ["b"] * 4
    train, test = ordered_split(labels, 0.9)
    assert train == [*range(9), 10, 11, 12]  # 9 of 10; all but one of 4, as 3.6 is rounded up
    assert test == [9, 13]
    assert ordered_split(["a"] * 1000, 0.9) == (list(range(900)), list(range(900, 1000)))
    train, test = random_split(labels, 0.3, 5)
    assert sorted(train + test) == list(range(14))
    assert [labels[i] for i in test] == ["a"] * 3 + ["b"]
    assert random_split(labels, 0.3, 5) == (train, test)
    assert any(random_split(labels, 0.3, seed)[1] != test for seed in range(6))


def test_first900_trains_on_the_first_nine_tenths(folders):
    data = ready(root=str(folders))
    assert data.class_names == ["disc", "ring"]
    assert data.protocol == "recordings"
    assert files(data, "test") == ["disc/disc_9.aedat", "ring/ring_9.aedat"]
    assert len(data.train_set) == 16
    assert len(data.val_set) == 2
    parts = [set(files(data, part)) for part in ("train", "val", "test")]
    assert len(set.union(*parts)) == sum(len(part) for part in parts) == 20
    assert data.val_set.targets.tolist() == [0, 1]
    every = ready(root=str(folders), val_fraction=0.0)
    assert every.protocol == "test"
    assert (len(every.train_set), files(every, "val")) == (18, files(every, "test"))


def test_a_stratified_split_moves_with_its_seed(folders):
    first, second = (ready(root=str(folders), split="stratified", split_seed=seed) for seed in (0, 1))
    assert [len(first.train_set), len(first.val_set), len(first.test_set)] == [16, 2, 2]
    assert first.test_set.targets.tolist() == [0, 1]
    assert files(first, "test") != files(second, "test")
    assert first.split_key != second.split_key


def test_both_views_hold_the_same_events(folders):
    data = ready(root=str(folders), steps=4, teacher_steps=16, size=128, image=True)
    assert data.input_shapes == {"events": (4, 2, 128, 128), "image": (1, 2, 128, 128)}
    student, teacher = data.views(batch(data), training=False)
    assert student["events"].shape == (4, 4, 2, 128, 128)
    assert teacher["events"].shape == (4, 16, 2, 128, 128)
    assert student["events"].dtype == torch.float32
    assert (student["events"].sum((2, 3, 4)) == 400).all()  # 1600 events
    assert (teacher["events"].sum((2, 3, 4)) == 100).all()
    assert (student["events"] == teacher["events"].unflatten(1, (4, 4)).sum(2)).all()
    assert (student["image"][:, 0] == student["events"].mean(1)).all()
    assert teacher["image"] is student["image"]
    one, same = ready(root=str(folders)).views(batch(data), training=False)
    assert one is same


def test_augmentation_moves_both_views_alike_and_only_in_training(folders):
    data = ready(root=str(folders), steps=2, teacher_steps=4, size=48, augment=EventAugment())
    plain, _ = data.views(batch(data), training=False)
    torch.manual_seed(0)
    student, teacher = data.views(batch(data), training=True)
    assert (student["events"] != plain["events"]).any()
    assert (student["events"] == regroup(teacher["events"], 2)).all()


def test_loaders_serve_batches(folders):
    data = ready(root=str(folders), batch_size=4)
    got = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert got.student["events"].shape == (4, 4, 2, 48, 48)
    assert got.target.dtype == torch.int64
    assert sum(len(sample["target"]) for sample in data.test_dataloader()) == 2


def test_sessions_with_one_recording_a_class(tmp_path):
    for s, session in enumerate(("one", "two")):
        for k, name in enumerate(("Cup", "Pen")):
            write(tmp_path / session / f"{name}.aedat", 10 * s + k)  # 16 ms each
    write(tmp_path / "one" / "Cube.aedat")
    options = {
        "root": str(tmp_path), "class_from": "file", "classes": ["Cup", "Pen"], "window_ms": 0.8,
        "train_match": ["one/*"], "test_match": ["two/*"],
    }  # fmt: skip
    data = ready(**options, val_fraction=0.2)
    assert data.class_names == ["Cup", "Pen"]
    assert data.protocol == "tail"
    # 19 windows fit in 15,991 us: 4 validate, one lies between, 14 train
    assert files(data, "train") == ["one/Cup.aedat"] * 14 + ["one/Pen.aedat"] * 14
    assert data.val_set.rows.tolist() == [15, 16, 17, 18, 34, 35, 36, 37]
    assert files(data, "test") == ["two/Cup.aedat"] * 19 + ["two/Pen.aedat"] * 19
    assert data.split_key["train_match"] == ["one/*"]
    with pytest.raises(DataError, match=r"Cup.aedat is the only training recording of Cup and gives 1 samples"):
        ready(**options | {"window_ms": None})
    with pytest.raises(ConfigError, match=r"one/Cup.aedat matches train_match and test_match"):
        CIFAR10DVS(**options | {"test_match": ["*"]})
    (tmp_path / "two" / "Pen.aedat").unlink()
    with pytest.raises(DataError, match="has no recording of class Pen"):
        CIFAR10DVS(**options)


def test_the_simulated_set_is_made_and_read(tmp_path):
    pytest.importorskip("sdsnn_lightning.simulate.shapes")
    with pytest.warns(UserWarning, match="SIMULATED"):
        data = CIFAR10DVS(
            root=str(tmp_path / "no"), simulated_root=str(tmp_path / "sim"), simulated_recordings=3,
            train_match=["x/*"], test_match=["y/*"], classes=["x", "y"], window_ms=3.0, size=32,
        )  # fmt: skip
    assert data.data_source == "simulated"
    assert data.num_classes == 10
    data.prepare_data()
    data.setup("fit")
    assert [len(data.train_set), len(data.val_set), len(data.test_set)] == [10, 10, 10]
    view, _ = data.views(batch(data), training=False)
    assert (view["events"].sum((2, 3, 4)) > 50).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 4, "teacher_steps": 6}, "teacher_steps is 6, not a multiple of steps 4"),
        ({"steps": 4, "teacher_steps": 2}, "not a multiple of steps 4"),
        ({"size": 129}, "size is 129; the sensor has 128"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"train_match": ["a/*"]}, "go together"),
        ({"window_ms": 5.0, "window_events": 5}, "set one of them"),
        ({"window_ms": 0.0}, "must be positive"),
        ({"window_events": 0}, "must be positive"),
        ({"simulated_recordings": 2}, "simulated_recordings is 2"),
    ],
)
def test_arguments_out_of_range(folders, options, message):
    with pytest.raises(ConfigError, match=message):
        CIFAR10DVS(root=str(folders), **options)


def test_bad_sets_are_named_before_training(tmp_path, folders):
    with pytest.raises(DataError, match="does not exist"):
        CIFAR10DVS(root=str(tmp_path / "no"), source="real")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no recordings"):
        CIFAR10DVS(root=str(tmp_path / "empty"))
    for name in CIFAR10[1:]:
        write(tmp_path / "cifar" / name / f"cifar10_{name}_0.aedat")
    with pytest.raises(DataError, match="no folder of class airplane"):
        CIFAR10DVS(root=str(tmp_path / "cifar"))
    write(tmp_path / "cifar" / "airplane" / "cifar10_airplane_0.aedat")
    lonely = CIFAR10DVS(root=str(tmp_path / "cifar"))
    assert lonely.class_names == list(CIFAR10)
    lonely.prepare_data()
    with pytest.raises(DataError, match="has one recording of airplane, which cannot be split"):
        lonely.setup("fit")
    few = CIFAR10DVS(root=str(folders), steps=2000)
    with pytest.raises(DataError, match="1600 events, fewer than 2000 frames"):
        few.prepare_data()
    with pytest.raises(DataError, match="prepare_data"):
        CIFAR10DVS(root=str(folders)).setup("fit")


@pytest.mark.skipif(not OBJECTS.is_dir(), reason="no real recordings")
def test_real_objects(tmp_path):
    data = ready(
        root=str(OBJECTS), class_from="file", classes=FIVE, window_ms=200.0, cache_dir=str(tmp_path),
        train_match=["session_2018-10-29/*"], test_match=["session_2018-10-06/*"], steps=4, size=64, resize="sum",
    )  # fmt: skip
    # recordings of 32.8, 33.5, 33.6, 36.4, 33.0 s and 18.5, 20.5, 18.4, 18.5, 18.8 s
    assert np.bincount(data.test_set.targets).tolist() == [92, 102, 91, 92, 93]
    windows = [163, 167, 167, 182, 165]
    assert np.bincount(data.val_set.targets).tolist() == [round(0.1 * n) for n in windows]
    assert np.bincount(data.train_set.targets).tolist() == [n - 1 - round(0.1 * n) for n in windows]
    assert {file.split("/")[0] for file in files(data, "train") + files(data, "val")} == {"session_2018-10-29"}
    assert {file.split("/")[0] for file in files(data, "test")} == {"session_2018-10-06"}
