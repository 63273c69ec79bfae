"""Folders of event recordings: which files there are, of which class, and their events, whatever the format.

Formats: `.aedat` (AER-DAT2.0, or AEDAT4 under that name), `.aedat4`, `.mat` (what `dat2mat.m` of MNIST-DVS makes of a
CIFAR10-DVS recording, saved as `out1`), `.npz` (arrays t, x, y, p, as spikingjelly and our simulator write) and `.npy`
(a structured array with these fields, or four columns t, x, y, p). In spikingjelly's files of CIFAR10-DVS x and y are
swapped already: what `transpose: true` makes of the `.aedat` files.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.data.aedat import SENSOR, in_order, read_aedat, read_aedat4
from sdsnn_lightning.errors import ConfigError, DataError
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The classes of CIFAR10-DVS."""
SUFFIXES = (".aedat", ".aedat4", ".mat", ".npy", ".npz")
ClassFrom = Literal["folder", "file"]


class Recording(NamedTuple):
    """One file of a set.

    Attributes:
        file: Path below the set's folder, with `/`.
        label: Name of its class.
    """

    file: str
    label: str


def read_recording(path: str | Path, sort: bool = False) -> NDArray[np.void]:
    """Reads the events of one file, x from the left and y from the top.

    Args:
        path: A file with one of `SUFFIXES`.
        sort: Put events that are out of order in order, instead of refusing them.

    Returns:
        Events of dtype `EVENT_DTYPE`, polarity 1 brighter and 0 darker, within 128x128 pixels, in order of time.

    Raises:
        DataError: If the file is missing or broken, holds no event or one outside the sensor, or time goes back.
    """
    path = Path(path)
    if path.suffix == ".aedat4" or (path.suffix == ".aedat" and _starts_with(path, b"#!AER-DAT4")):
        return read_aedat4(path, sort)
    if path.suffix == ".aedat":
        return read_aedat(path, sort)
    try:
        columns = _read_mat(path) if path.suffix == ".mat" else _read_arrays(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the recording there") from error
    except Exception as error:  # SciPy and NumPy raise many kinds on a broken file
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read ({error}); convert the recording again") from error
    return in_order(path, _pack(path, *columns), sort)


def _starts_with(path: Path, magic: bytes) -> bool:
    """Whether a file begins with these bytes; no if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def _read_mat(path: Path) -> list[NDArray[Any]]:
    """Columns t, x, y, p of `out1`: four columns, six (`t _ _ x y p`), or a struct with these fields.

    `dat2mat.m` counts rows from below; here they are turned over, so that the picture is that of the `.aedat` file.
    """
    from scipy.io import loadmat

    content = loadmat(path, squeeze_me=True)
    table = content.get("out1")
    if table is None:
        raise DataError(f"{path} has no matrix out1 as dat2mat.m makes it; convert the recording again")
    columns = _columns(path, table)
    columns[2] = SENSOR - 1 - columns[2].astype(np.int64)
    return columns


def _read_arrays(path: Path) -> list[NDArray[Any]]:
    """Columns t, x, y, p of a `.npz` or `.npy` file, as they stand."""
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return _columns(path, content)
    with content:
        if missing := [name for name in "txyp" if name not in content]:
            raise DataError(f"{path} has no array {missing[0]}; it needs t, x, y and p: convert the recording again")
        return [content[name] for name in "txyp"]


def _columns(path: Path, table: NDArray[Any]) -> list[NDArray[Any]]:
    """Splits a structured array, or one of four or six columns."""
    if table.dtype.names:
        if missing := [name for name in "txyp" if name not in table.dtype.names]:
            raise DataError(f"{path} has no field {missing[0]}; it needs t, x, y and p: convert the recording again")
        fields = [table[name] for name in "txyp"]
        # MATLAB's struct of four vectors arrives as one record of four arrays.
        return [np.atleast_1d(field[()] if field.dtype == object else field).ravel() for field in fields]
    table = np.atleast_2d(table) if table.size else table.reshape(0, 4)
    if table.ndim != 2 or table.shape[1] not in (4, 6) or table.dtype.kind not in "iuf":
        raise DataError(
            f"{path} holds an array of {table.dtype} of shape {table.shape}; it needs the columns t, x, y, p: "
            "convert the recording again"
        )
    return [table[:, k] for k in ((0, 1, 2, 3) if table.shape[1] == 4 else (0, 3, 4, 5))]


def _pack(path: Path, t: NDArray, x: NDArray, y: NDArray, p: NDArray) -> NDArray[np.void]:
    """Makes events of columns, checked. Polarities may be 0 and 1, -1 and 1, or truth values."""
    if len({len(column) for column in (t, x, y, p)}) > 1:
        raise DataError(f"{path}: t, x, y and p differ in length; convert the recording again")
    if not len(t):
        raise DataError(f"{path} holds no event; take it out of the set or record it again")
    for name, column in (("x", x), ("y", y)):
        if column.min() < 0 or column.max() >= SENSOR:
            raise DataError(
                f"{path}: {name} runs from {column.min()} to {column.max()}, outside the {SENSOR}x{SENSOR} sensor; "
                "crop or scale the recording first"
            )
    events = np.empty(len(t), EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p > 0
    return events


def list_files(root: Path) -> list[Path]:
    """Lists the recordings below a folder, whatever their classes, by name; hidden files and folders are left out."""
    paths = [path for path in root.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.relative_to(root).parts))


def find_recordings(
    root: Path,
    class_from: ClassFrom = "folder",
    classes: Sequence[str] | None = None,
    match: Sequence[str] = (),
) -> tuple[list[str], list[Recording]]:
    """Lists the recordings of a set.

    Args:
        root: Folder of the set.
        class_from: `folder`: the class is the name of the folder a file lies in (`airplane/cifar10_airplane_0.aedat`);
            `file`: the file's own name without its ending (`session_2018-10-06/Caixa.aedat`).
        classes: Classes to use, in index order; others are left out. By default all there are, by name; and a set
            whose folders are all of CIFAR-10's classes must have all ten.
        match: Patterns (`session_2018-10-06/*`); files that match none are left out. None given: all files.

    Returns:
        The classes in index order, and the recordings in order of their names, as plain text sorts them: what
        spikingjelly's folders do, so that its "first 900" are ours.

    Raises:
        ConfigError: If a class is named twice or is one only.
        DataError: If the folder, the recordings, or those of a class are missing, or a recording is there twice.
    """
    if not root.is_dir():
        raise DataError(f"{root} does not exist; put the recordings there")
    files = [path.relative_to(root) for path in list_files(root)]
    found = [
        Recording(file.as_posix(), file.stem if class_from == "file" else file.parent.name)
        for file in files
        if not match or any(fnmatchcase(file.as_posix(), pattern) for pattern in match)
    ]
    if not found:
        what = f"that match {' or '.join(match)}" if match else "of events (" + ", ".join(SUFFIXES) + ")"
        raise DataError(f"{root} holds no recordings {what}; correct data.init_args.root or the patterns")
    labels = {recording.label for recording in found}
    if "" in labels:
        raise DataError(f"{root} holds recordings that lie in no class folder; set data.init_args.class_from: file")
    if classes is None and class_from == "folder" and labels & set(CIFAR10):
        classes = CIFAR10 if labels <= set(CIFAR10) else None
    names = sorted(labels) if classes is None else list(classes)
    if len(set(names)) < 2 or len(set(names)) != len(names):
        raise ConfigError(f"{root}: the classes are {names}; name two or more, each once, in data.init_args.classes")
    if missing := [name for name in names if name not in labels]:
        kind = "folder" if class_from == "folder" else "recording"
        raise DataError(
            f"{root} has no {kind} of class {missing[0]} ({len(missing)} of {len(names)} classes are missing); "
            "restore it, or name the classes there are in data.init_args.classes"
        )
    found = [recording for recording in found if recording.label in set(names)]
    _refuse_copies(root, found)
    return names, found


def _refuse_copies(root: Path, recordings: Sequence[Recording]) -> None:
    """Refuses a recording that is there twice: in two formats of one name, or by a link.

    Converters leave the first format behind (`extract/airplane/1.aedat` and `events_np/airplane/1.npz` by
    spikingjelly, `1.mat` beside `1.aedat` by `dat2mat.m`), and a split would train on what it tests. Recordings of one
    name and format in two folders are two sessions.

    Raises:
        DataError: Naming both files.
    """
    known: dict[tuple[str, str], str] = {}
    for file, label in recordings:
        path = Path(file)
        first = known.setdefault((label, path.stem), file)
        if first != file and (path.suffix != Path(first).suffix or (root / file).samefile(root / first)):
            raise DataError(
                f"{root}: {first} and {file} are one recording twice, which training and test would share; set "
                "data.init_args.root to the folder of one of them, or move the other away"
            )


def ordered_split(labels: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """Cuts the first part of every class off, rounded up, but leaves one recording of each for the rest.

    Args:
        labels: Class of every recording, in order.
        share: Share of the first part.

    Returns:
        Positions of the first and of the second part, in order.
    """
    first = set()
    for label in set(labels):
        members = [i for i, other in enumerate(labels) if other == label]
        first.update(members[: min(ceil(share * len(members)), len(members) - 1)])
    return [i for i in range(len(labels)) if i in first], [i for i in range(len(labels)) if i not in first]


def random_split(labels: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Draws a part of every class: `share` of it, rounded, at least one recording and not all.

    Args:
        labels: Class of every recording, in order.
        share: Share of the second part.
        seed: Chooses them; the same on any machine.

    Returns:
        Positions of the first and of the second part, in order.
    """
    rng, second = np.random.default_rng(seed), set()
    for label in sorted(set(labels)):
        members = [i for i, other in enumerate(labels) if other == label]
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        second.update(rng.permutation(members)[:count].tolist())
    return [i for i in range(len(labels)) if i not in second], [i for i in range(len(labels)) if i in second]
