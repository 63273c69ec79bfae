"""A folder of images as a video: people's order, times, and what cannot be one."""

import numpy as np
import pytest
from PIL import Image

from sdsnn_lightning.data.image_folder import frames_from_folder, list_images
from sdsnn_lightning.errors import DataError


def write(path, grey, size=(6, 4)):
    Image.new("L", size, grey).save(path)


def test_images_come_in_the_order_people_count(tmp_path):
    for name in ("eye_10.png", "eye_2.PNG", "eye_1.bmp", "b2_1.png", "b10_1.png", "²3.png"):
        write(tmp_path / name, 0)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._eye_1.bmp").touch()  # as macOS leaves them
    (tmp_path / "older.png").mkdir()
    names = [path.name for path in list_images(tmp_path)]
    assert names == ["b2_1.png", "b10_1.png", "eye_1.bmp", "eye_2.PNG", "eye_10.png", "²3.png"]


def test_frames_are_grey_and_come_at_their_times(tmp_path):
    write(tmp_path / "2.png", 20)
    write(tmp_path / "11.png", 200)
    Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "7.png")
    frames = list(frames_from_folder(tmp_path, 40.0))
    assert [time for _, time in frames] == [0.0, 25_000.0, 50_000.0]
    assert all(image.shape == (4, 6) and image.dtype == np.uint8 for image, _ in frames)
    assert [int(image[0, 0]) for image, _ in frames] == [20, 76, 200]  # red is 0.299 of white


def test_what_is_no_video_is_refused_by_name(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"holds no image \(\.png, .*; give a folder of images"):
        list(frames_from_folder(tmp_path, 30.0))
    write(tmp_path / "1.png", 0)
    write(tmp_path / "2.png", 0, (4, 6))
    with pytest.raises(DataError, match=r"2\.png is 4x6, the first 6x4; make them equal"):
        list(frames_from_folder(tmp_path, 30.0))
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"2\.png cannot be read as an image \(.*; replace it or take it out"):
        list(frames_from_folder(tmp_path, 30.0))
    for large in (Image.fromarray(np.full((4, 6), 300, np.uint16)), Image.new("F", (6, 4), 300.0)):
        (tmp_path / "2.png").unlink(missing_ok=True)
        large.save(tmp_path / "2.tif")
        with pytest.raises(DataError, match=r"2\.tif .*more than 8 bits a value; scale it to 8"):
            list(frames_from_folder(tmp_path, 30.0))
    write(tmp_path / "0.png", 0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 11)  # Pillow refuses twice as many
    with pytest.raises(DataError, match=r"0\.png cannot be read as an image \(.*pixels"):
        list(frames_from_folder(tmp_path, 30.0))
