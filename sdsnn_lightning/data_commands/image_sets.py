"""Images by class, in folders or in tar archives, as `sdsnn data to-events` takes them."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sdsnn_lightning.errors import DataError
from sdsnn_lightning.images import by_number

SPLITS = ("train", "valid", "val", "validation", "test")
"""Folders of these names are parts of a split, each with its classes."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""Ends of the names of images, in any case."""


@dataclass(frozen=True)
class ImageClass:
    """The images of one class in one part of a split.

    Attributes:
        split: Name of the part; empty where the set has none.
        name: Name of the class.
        path: Its folder, or its tar archive.
        images: Names of its images within, in order: by number where the names hold numbers.
    """

    split: str
    name: str
    path: Path
    images: tuple[str, ...]

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Reads the images.

        Yields:
            Name within the class and content, in the order of `images`.

        Raises:
            DataError: If a file cannot be read.
        """
        try:
            if self.path.is_dir():
                for image in self.images:
                    yield image, (self.path / image).read_bytes()
                return
            with tarfile.open(self.path) as archive:
                for image in self.images:
                    file = archive.extractfile(image)
                    yield image, file.read() if file else b""
        except (OSError, tarfile.TarError, EOFError) as error:
            raise DataError(f"{self.path} cannot be read ({error}); fetch it again") from error


def find_classes(root: Path, limit: int | None = None, test_limit: int | None = None) -> list[ImageClass]:
    """Looks at a set of images: `[<split>/]<class>/<image>` or `[<split>/]<class>.tar`.

    Args:
        root: Folder of the set.
        limit: Take this many images of every class, from the first; all where None.
        test_limit: The same for the part `test`; `limit` where None.

    Returns:
        The classes of every part, by name.

    Raises:
        DataError: If there is no image, a tar archive is broken or has none, or a class is there twice.
    """
    try:
        found = []
        for split in (name for name in SPLITS if (root / name).is_dir()):
            found += _classes(root / split, split, test_limit if split == "test" and test_limit else limit)
        found = found or _classes(root, "", limit)
    except OSError as error:
        raise DataError(f"{error.filename or root} cannot be read ({error.strerror}); mend its rights") from error
    if not found:
        raise DataError(f"{root} holds no images by class; it needs <class>/<image> or <class>.tar, or these in train/")
    names = [(c.split, c.name) for c in found]
    if len(set(names)) < len(names):
        raise DataError(f"{root} has class {max(names, key=names.count)[1]} as folder and as .tar; take one out")
    return found


def _classes(folder: Path, split: str, limit: int | None) -> list[ImageClass]:
    """The classes in one folder."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            images = [file.name for file in path.iterdir() if _is_image(file.name)]
        elif path.suffix == ".tar":
            images = _members(path)
        else:
            continue
        if images:
            chosen = tuple(sorted(images, key=by_number)[:limit])
            found.append(ImageClass(split, path.stem if path.suffix == ".tar" else path.name, path, chosen))
    return found


def _members(path: Path) -> list[str]:
    """Names of the images in a tar archive."""
    try:
        with tarfile.open(path) as archive:
            names = [member.name for member in archive if member.isfile() and _is_image(member.name)]
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} is no whole tar archive ({error}); fetch it again") from error
    if not names:
        raise DataError(f"{path} holds no images ({', '.join(SUFFIXES[:3])}, ...); give another archive")
    return names


def _is_image(name: str) -> bool:
    name = PurePosixPath(name).name
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)
