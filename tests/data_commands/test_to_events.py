"""`sdsnn data to-events` on small sets of pictures and a short video."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from places import SHARED
from refusal import refusal

from sdsnn_lightning.cli import main
from sdsnn_lightning.data import CIFAR10DVS
from sdsnn_lightning.data.aedat import read_aedat
from sdsnn_lightning.simulate.closed_loop import ClosedLoop


def picture(seed, size=16):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


@pytest.fixture
def folders(tmp_path):
    """Two classes of three pictures, and what is none."""
    root = tmp_path / "pictures"
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for number in (1, 2, 10):
            picture(100 * label + number).save(root / name / f"{number}.png")
        (root / name / "notes.txt").write_text("none")
    return root


@pytest.fixture
def tars(folders):
    """The same in tars, with a split."""
    root = folders.parent / "tars"
    for split, count in (("train", 3), ("test", 2)):
        (root / split).mkdir(parents=True)
        for name in ("cat", "dog"):
            with tarfile.open(root / split / f"{name}.tar", "w") as archive:
                for file in sorted((folders / name).glob("*.png"))[:count]:
                    archive.add(file, f"images/{file.name}")
    return root


def refused(capsys, *words):
    return refusal(capsys, "data", "to-events", *words, alone=True)


def run(*words):
    main(["data", "to-events", *map(str, words), "--loops", "1", "--workers", "1"])


def test_folders_become_recordings_of_the_same_layout(folders, tmp_path, capsys):
    run(folders, tmp_path / "out")
    files = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.aedat"))
    assert files == [f"{name}/{number}.aedat" for name in ("cat", "dog") for number in (1, 10, 2)]
    events = read_aedat(tmp_path / "out" / "cat" / "1.aedat")
    assert events["t"][-1] <= ClosedLoop(loops=1).seconds * 1e6
    assert (events["x"].min(), events["x"].max()) == (0, 127)
    assert "6 recordings, 2 classes" in capsys.readouterr().out
    facts = json.loads((tmp_path / "out" / "simulated.json").read_text())
    assert facts["recordings"] == {"cat": 3, "dog": 3}
    assert facts["source"] == "pictures"
    assert not list(tmp_path.glob(".out*"))
    data = CIFAR10DVS(root=str(tmp_path / "out"), classes=["cat", "dog"], size=16, val_fraction=0.34)
    assert (data.data_source, data.origin) == ("real", "simulated")  # which folder, and what results say of it
    (tmp_path / "out" / "simulated.json").unlink()
    assert data.origin == "real"


def test_tars_keep_their_split_and_a_limit_changes_no_recording(tars, tmp_path, capsys):
    run(tars, tmp_path / "all")
    run(tars, tmp_path / "few", "--limit", 2)
    said = capsys.readouterr().out
    assert f"{tmp_path / 'few' / 'train'}: 4 recordings, 2 classes" in said
    assert f"{tmp_path / 'few' / 'test'}: 4 recordings, 2 classes" in said
    few = {path.relative_to(tmp_path / "few") for path in (tmp_path / "few").rglob("*.aedat")}
    assert sorted(map(str, few)) == [
        "test/cat/1.aedat", "test/cat/10.aedat", "test/dog/1.aedat", "test/dog/10.aedat",
        "train/cat/1.aedat", "train/cat/2.aedat", "train/dog/1.aedat", "train/dog/2.aedat",
    ]  # fmt: skip  # by number: 10 comes last and is left out
    assert all((tmp_path / "few" / path).read_bytes() == (tmp_path / "all" / path).read_bytes() for path in few)
    run(tars, tmp_path / "fewer", "--limit", 3, "--test-limit", 1)
    assert len(list((tmp_path / "fewer").rglob("*.aedat"))) == 8
    train, test = (read_aedat(tmp_path / "all" / split / "cat" / "1.aedat") for split in ("train", "test"))
    assert not np.array_equal(train, test)  # the same picture, but sensors of their own
    part = CIFAR10DVS(root=str(tmp_path / "all" / "train"), classes=["cat", "dog"])
    assert (part.data_source, part.origin) == ("real", "simulated")  # the stamp of the whole is that of its parts


def test_arrays_seed_threshold_and_overwrite(folders, tmp_path):
    out = tmp_path / "out"
    run(folders, out, "--format", "npz", "--limit", 1)
    with np.load(out / "cat" / "1.npz") as file:
        first = {name: file[name] for name in file.files}
    assert set(first) == {"t", "x", "y", "p"}
    assert first["t"].dtype == np.int64
    assert set(first["p"]) == {0, 1}
    run(folders, out, "--format", "npz", "--limit", 1, "--seed", 1, "--threshold", 0.52, "--overwrite")
    with np.load(out / "cat" / "1.npz") as file:
        assert len(file["t"]) < 0.7 * len(first["t"])
    assert sorted(path.name for path in out.iterdir()) == ["cat", "dog", "simulated.json"]


def make_video(path, frames, rate=25):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode())


def test_a_video_becomes_one_file(tmp_path, capsys):
    x = np.arange(96)
    bars = np.stack([np.tile(128 + 100 * np.sin((x - 3 * i) / 5), (64, 1)) for i in range(6)]).astype(np.uint8)
    make_video(tmp_path / "bars.mp4", bars)
    main(["data", "to-events", str(tmp_path / "bars.mp4"), str(tmp_path / "out")])
    square = read_aedat(tmp_path / "out" / "bars.aedat")
    assert (square["x"].max(), square["y"].max()) == (127, 127)
    main(["data", "to-events", str(tmp_path / "bars.mp4"), str(tmp_path / "full.npz")])
    with np.load(tmp_path / "full.npz") as file:
        assert (file["x"].max(), file["y"].max()) == (95, 63)
        assert file["t"].max() <= 200_000
    assert "events of 6 frames" in capsys.readouterr().out
    assert "exists" in refused(capsys, tmp_path / "bars.mp4", tmp_path / "full.npz")
    assert "make them agree" in refused(capsys, tmp_path / "bars.mp4", tmp_path / "a.npz", "--format", "aedat")
    assert "--limit is for images" in refused(capsys, tmp_path / "bars.mp4", tmp_path / "a.npz", "--limit", 2)
    make_video(tmp_path / "still.mp4", np.full((1, 64, 64), 99, np.uint8))
    assert "gives no event in 1 frames" in refused(capsys, tmp_path / "still.mp4", tmp_path / "new")
    (tmp_path / "bad.mp4").write_bytes(b"none" * 50)
    assert "bad.mp4: cannot be decoded" in refused(capsys, tmp_path / "bad.mp4", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_mistakes_are_one_line_and_leave_nothing(folders, tars, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("--workers", 1, "--loops", 1)
    assert "gone does not exist" in refused(capsys, tmp_path / "gone", out)
    assert "--limit is 0; give at least 1" in refused(capsys, folders, out, "--limit", 0)
    assert "--test-limit is -1; give at least 1" in refused(capsys, folders, out, "--test-limit", -1)
    assert "--upsample-fps is for a video" in refused(capsys, folders, out, "--upsample-fps", 100)
    assert "cat.tar is part of a class" in refused(capsys, tars / "train" / "cat.tar", out)
    assert "holds no images by class" in refused(capsys, folders / "cat", out)
    good = (folders / "dog" / "2.png").read_bytes()
    (folders / "dog" / "2.png").write_bytes(good[:200])
    assert "dog/2.png cannot be read as an image" in refused(capsys, folders, out, *words)
    (folders / "dog" / "2.png").write_bytes(good)
    (folders / "dog" / "2.jpg").write_bytes(good)
    assert "two images called 2; rename one" in refused(capsys, folders, out, *words)
    whole = (tars / "train" / "dog.tar").read_bytes()
    (tars / "train" / "dog.tar").write_bytes(b"no tar" * 200)
    assert "dog.tar is no whole tar archive" in refused(capsys, tars, out)
    (tars / "train" / "dog.tar").write_bytes(whole[: 512 + 100])
    assert "dog.tar is no whole tar archive" in refused(capsys, tars, out)
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    (tars / "train" / "dog.tar").write_bytes(empty.getvalue())
    assert "dog.tar holds no images" in refused(capsys, tars, out)
    (tars / "train" / "dog.tar").unlink()
    (tars / "train" / "cat").mkdir()
    picture(0).save(tars / "train" / "cat" / "0.png")
    assert "class cat as folder and as .tar" in refused(capsys, tars, out)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    assert "was not made by this command" in refused(capsys, folders, out, "--overwrite")
    (out / "simulated.json").write_text('{"generator": "sdsnn_lightning.simulate.eye"}')  # of another command
    assert "was not made by this command" in refused(capsys, folders, out, "--overwrite")
    assert sorted(path.name for path in out.iterdir()) == ["mine.txt", "simulated.json"]
    (folders / "dog" / "2.jpg").unlink()
    run(folders, tmp_path / "made", "--limit", 1)
    assert "give --overwrite" in refused(capsys, folders, tmp_path / "made")
    assert not list(tmp_path.glob(".*partial*"))


@pytest.mark.skipif(not (SHARED / "cifar10_jpeg").exists(), reason="no real images")
def test_real_cifar_images_give_as_many_events_as_cifar10_dvs(tmp_path, capsys):
    source = tmp_path / "cifar"
    source.mkdir()
    for name in ("airplane", "cat", "frog", "truck"):
        (source / f"{name}.tar").symlink_to(SHARED / "cifar10_jpeg" / "test" / f"{name}.tar")
    main(["data", "to-events", str(source), str(tmp_path / "out"), "--limit", "5", "--workers", "1"])
    counts = [len(read_aedat(path)) for path in (tmp_path / "out").rglob("*.aedat")]
    assert len(counts) == 20
    assert 120_000 < np.mean(counts) < 280_000
