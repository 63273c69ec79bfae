import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from sdsnn_lightning.data import clip_cache
from sdsnn_lightning.data.clip_cache import ClipCache, build_cache, cache_folder, decode_images
from sdsnn_lightning.data.see_layout import read_index
from sdsnn_lightning.errors import DataError

BOTH = ("frames", "events")


def build(root, size=8, modalities=BOTH, cache_dir=None):
    return build_cache(read_index(root), size, modalities, cache_dir)


def nothing_but_locks(folder):
    return all(path.suffix == ".lock" for path in folder.iterdir())


def test_every_image_lies_at_its_place(make_see):
    root = make_see(subjects=2, per_subject=2, length=6)
    folder = build(root)
    assert folder.parent == root / ".cache"
    cache = ClipCache(folder)
    assert cache.counts.tolist() == [6, 6, 6, 6]
    assert cache.offsets.tolist() == [0, 6, 12, 18]
    assert cache.images["frames"].shape == (24, 8, 8)
    assert cache.images["frames"].dtype == np.uint8
    expected = [40 * clip + i for clip in range(4) for i in range(6)]
    assert cache.images["frames"][:, 3, 5].tolist() == expected
    assert cache.images["events"][:, 0, 0].tolist() == [255 - value for value in expected]


def test_only_the_segment_is_stored(make_see):
    root = make_see(subjects=1, per_subject=2, length=6)
    path = root / "emotion.json"
    content = json.loads(path.read_text())
    next(iter(content["database"].values()))["annotations"]["segment"] = [2, 5]
    path.write_text(json.dumps(content))
    cache = ClipCache(build(root))
    assert cache.counts.tolist() == [3, 6]
    assert cache.images["frames"][:4, 0, 0].tolist() == [2, 3, 4, 40]


def test_decodes_as_the_authors_do(tmp_path):
    # They load RGB and resize with Pillow's bilinear filter; three equal channels give one grey channel's numbers.
    picture = np.random.default_rng(0).integers(0, 256, (18, 18), np.uint8)
    Image.fromarray(picture).save(tmp_path / "00000.jpg", quality=95)
    Image.fromarray(np.repeat(picture[..., None], 3, 2)).save(tmp_path / "00001.jpg", quality=95)
    images = decode_images(tmp_path, 0, 2, 9)
    for i in range(2):
        with Image.open(tmp_path / f"{i:05d}.jpg") as image:
            official = np.asarray(image.convert("RGB").resize((9, 9), Image.Resampling.BILINEAR))
        assert (images[i] == official[..., 1]).all()


def test_a_whole_cache_is_used_without_opening_an_image(make_see, monkeypatch):
    root = make_see(subjects=1, per_subject=2, length=4)
    folder = build(root)
    written = (folder / "index.json").stat().st_mtime_ns
    monkeypatch.setattr(Image, "open", lambda *args: pytest.fail("an image was opened"))
    assert build(root) == folder
    assert (folder / "index.json").stat().st_mtime_ns == written


def test_a_changed_file_is_decoded_again(make_see):
    root = make_see(subjects=1, per_subject=2, length=4)
    folder = build(root)
    old = ClipCache(folder)
    path = read_index(root).clips[1].frames / "00002.jpg"
    Image.fromarray(np.full((16, 16), 200, np.uint8)).save(path, quality=95)
    assert build(root) == folder
    assert ClipCache(folder).images["frames"][6, 0, 0] == 200
    assert old.images["frames"][6, 0, 0] == 42  # who still reads the old cache is not disturbed
    assert sorted(path.name for path in folder.iterdir()) == ["events.npy", "frames.npy", "index.json"]


def test_size_modalities_and_clips_have_their_own_cache(make_see):
    root = make_see(subjects=1, per_subject=2, length=4)
    index = read_index(root)
    fewer = index._replace(clips=index.clips[:1])
    folders = {cache_folder(index, 8, BOTH), cache_folder(index, 9, BOTH), cache_folder(index, 8, ("frames",))}
    assert len(folders | {cache_folder(fewer, 8, BOTH)}) == 4
    assert folders.isdisjoint({cache_folder(index, 8, BOTH, root.parent / "elsewhere")})


def test_a_read_only_set_is_cached_at_home(make_see, monkeypatch, tmp_path):
    root = make_see(subjects=1, per_subject=2, length=4)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere, whatever the mode says
    assert build(root).parent == tmp_path / "home" / ".cache" / "sdsnn_lightning"
    assert not (root / ".cache").exists()


def test_a_set_moved_with_its_cache_keeps_it(make_see):
    root = make_see(subjects=1, per_subject=2, length=4)
    name = build(root).name
    moved = root.rename(root.with_name("moved"))
    assert cache_folder(read_index(moved), 8, BOTH) == moved / ".cache" / name


KILLED = """
import os, signal, sys
from pathlib import Path
from sdsnn_lightning.data import clip_cache
from sdsnn_lightning.data.see_layout import read_index
decode, done = clip_cache.decode_images, []
def decode_then_die(*args):
    done.append(1)
    if len(done) > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(*args)
clip_cache.decode_images = decode_then_die
clip_cache.build_cache(read_index(Path(sys.argv[1])), 8, ("frames", "events"))
"""


def test_a_killed_build_is_not_taken_for_whole(make_see):
    root = make_see(subjects=2, per_subject=2, length=4)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    folder = cache_folder(read_index(root), 8, BOTH)
    assert list(folder.parent.glob(".*.partial-*"))
    assert not folder.exists()
    with pytest.raises(DataError, match=r"no whole cache.*prepare_data"):
        ClipCache(folder)
    assert ClipCache(build(root)).images["events"].shape == (16, 8, 8)
    assert not list(folder.parent.glob(".*.partial-*"))


def test_a_full_disk_leaves_nothing_and_names_the_cure(make_see, monkeypatch):
    root = make_see(subjects=1, per_subject=2, length=4)

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(clip_cache, "_sync", full)
        with pytest.raises(DataError, match=r"No space left on device.*cache_dir"):
            build(root)
    assert nothing_but_locks(root / ".cache")
    build(root)


def test_two_runs_at_once_build_once(make_see, monkeypatch):
    root = make_see(subjects=2, per_subject=2, length=4)
    decoded = []

    def count(*args):
        decoded.append(args)
        return decode_images(*args)

    monkeypatch.setattr(clip_cache, "decode_images", count)
    threads = [threading.Thread(target=build, args=(root,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 8  # four clips, two modalities
    assert ClipCache(build(root)).images["frames"].shape == (16, 8, 8)


def test_loader_processes_get_the_name_of_the_cache_not_its_content(make_see):
    cache = ClipCache(build(make_see(subjects=1, per_subject=2, length=4)))
    sent = pickle.dumps(cache)
    assert len(sent) < 1000
    assert (pickle.loads(sent).images["frames"] == cache.images["frames"]).all()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def cut_picture(path):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    truncate(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda clip: (clip.frames / "00002.jpg").unlink(), ["frame/fear", "00002.jpg is missing"]),
        (lambda clip: (clip.events / "00003.jpg").unlink(), ["event/fear", "00003.jpg is missing"]),
        (
            lambda clip: cut_picture(clip.events / "00001.jpg"),
            ["event/fear", "00001.jpg cannot be decoded", "truncated"],
        ),
        (lambda clip: (clip.frames / "00001.jpg").write_bytes(b""), ["frame/fear", "00001.jpg cannot be decoded"]),
        (lambda clip: shutil.copy(clip.frames / "00000.jpg", clip.frames / "00004.jpg"), ["holds 5 images", "says 4"]),
        (lambda clip: shutil.rmtree(clip.events), ["event/fear", "does not exist"]),
    ],
)
def test_bad_files_are_named_and_nothing_is_left(make_see, damage, words):
    root = make_see(subjects=1, per_subject=4, length=4, side=32)
    clip = read_index(root).clips[2]
    damage(clip)
    with pytest.raises(DataError) as caught:
        build(root)
    message = str(caught.value)
    assert clip.name in message
    assert "\n" not in message
    for word in words:
        assert word in message
    assert not (root / ".cache").exists() or nothing_but_locks(root / ".cache")


def test_streams_of_different_length_are_named(make_see):
    root = make_see(subjects=1, per_subject=2, length=4)
    clip = read_index(root).clips[0]
    (root / "emotion.json").rename(root / "unused.json")
    row = {"label": "angry", "subset": "training", "subject": "s", "lighting": "dim", "segment": [0, 3]}
    row |= {"frames": os.path.relpath(clip.frames, root), "events": os.path.relpath(clip.events, root)}
    (root / "manifest.json").write_text(json.dumps([row]))
    (clip.events / "00003.jpg").unlink()
    with pytest.raises(DataError, match="has 4 frames and 3 events"):
        build(root)


def test_a_damaged_cache_file_is_named(make_see):
    folder = build(make_see(subjects=1, per_subject=2, length=4))
    truncate(folder / "frames.npy")
    with pytest.raises(DataError, match=r"is damaged.*delete the folder"):
        ClipCache(folder)
