"""A folder of images as a video: in the order of their names, 30 a second."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sdsnn_lightning.errors import DataError
from sdsnn_lightning.images import by_number, check_depth

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def list_images(folder: Path) -> list[Path]:
    """Lists the images of a folder as people count: `eye_2.png` before `eye_10.png`.

    Args:
        folder: The folder; folders within and hidden files are left out.

    Returns:
        The files.

    Raises:
        DataError: If there is none.
    """
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = [path for path in paths if path.suffix.lower() in ENDINGS and path.is_file()]
    if not found:
        raise DataError(f"{folder} holds no image ({', '.join(ENDINGS)}); give a folder of images or a video file")
    return sorted(found, key=lambda path: by_number(path.name))


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Reads an image as grey values `[H, W]`.

    Raises:
        DataError: If it cannot be read, or holds more than 8 bits a value.
    """
    try:
        with Image.open(path) as image:
            check_depth(image)
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace it or take it out") from None


def frames_from_folder(folder: Path, fps: float) -> Iterator[tuple[NDArray[np.uint8], float]]:
    """Reads the images one by one.

    Args:
        folder: The folder.
        fps: Images a second.

    Yields:
        Grey image `[H, W]` uint8 and its time in microseconds.

    Raises:
        DataError: If there is none, one cannot be read, or one is of another size than the first.
    """
    size = None
    for k, path in enumerate(list_images(folder)):
        image = read_grey(path)
        if image.shape != (size := size or image.shape):
            raise DataError(
                f"{path} is {image.shape[1]}x{image.shape[0]}, the first {size[1]}x{size[0]}; make them equal"
            )
        yield image, k * 1e6 / fps
