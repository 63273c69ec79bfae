"""The SEE layout on disk: clip names, the index file, and their writer.

SEE (Zhang et al., "In the Blink of an Eye: Event-based Emotion Recognition", SIGGRAPH 2023) holds two parallel trees of
grey JPGs, one image every 33 ms::

    <root>/event/<label>/<clip name>/00000.jpg ...      accumulated events: 0 negative, grey none, 255 positive
    <root>/frame/<label>/<clip name>/00000.jpg ...      the intensity frame of the same moment
    <root>/emotion.json                                 labels, and subset and segment of every clip

Sets with other names (DSEE-like) state the same facts in a `manifest.json` or `manifest.csv`; both ways end in one list
of `Clip` records, and nothing after the reader knows which way they came.
"""

import csv
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sdsnn_lightning.data.manifest import MANIFEST_FILES, Clip, read_manifest
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.whole import whole_folder, write_text

EMOTIONS = ("angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
LIGHTINGS = ("normal", "Overexposed", "Low", "HDR")
SUBSETS = ("training", "validation", "testing")
INDEX_FILES = ("emotion.json", "emotion_new_adjust2.json")
EVENT_TREES = ("event", "event_30")
FRAME_TREES = ("frame",)
_FIELDS = ("number", "subject", "sex", "age", "degree", "lighting", "emotion", "length", "take")


@dataclass(frozen=True)
class ClipName:
    """The nine fields of a SEE clip name, `1_001_man_24_Master_normal_angry_45_take000`.

    Attributes:
        number: Number of the clip in the set.
        subject: Volunteer id, three digits, kept as text.
        sex: `man` or `woman`.
        age: Age in years.
        degree: Highest degree, for instance `Master`.
        lighting: One of `LIGHTINGS`.
        emotion: One of `EMOTIONS`.
        length: Number of frames in the clip.
        take: Which take of this subject.
    """

    number: int
    subject: str
    sex: str
    age: int
    degree: str
    lighting: str
    emotion: str
    length: int
    take: int

    @classmethod
    def parse(cls, text: str) -> "ClipName":
        """Reads a clip name.

        Args:
            text: The name of the clip's folder.

        Returns:
            The name's fields; `str()` of them gives `text` back.

        Raises:
            DataError: If a field is missing or wrong; the message names the clip and the field.
        """
        parts = text.split("_")
        if len(parts) != len(_FIELDS):
            raise DataError(
                f"clip name {text}: {len(parts)} fields instead of 9; rename the clip to {'_'.join(_FIELDS)}"
            )
        fields = dict(zip(_FIELDS, parts, strict=True))
        for key, pattern in (("number", r"\d+"), ("age", r"\d+"), ("length", r"\d+"), ("take", r"take\d{3}")):
            if not re.fullmatch(pattern, fields[key]):
                raise DataError(f"clip name {text}: {key} is {fields[key]!r}; expected {pattern}; rename the folder")
        for key, known in (("sex", ("man", "woman")), ("lighting", LIGHTINGS), ("emotion", EMOTIONS)):
            if fields[key] not in known:
                raise DataError(
                    f"clip name {text}: unknown {key} {fields[key]!r}; rename the clip with one of {', '.join(known)}"
                )
        return cls(
            number=int(fields["number"]),
            subject=fields["subject"],
            sex=fields["sex"],
            age=int(fields["age"]),
            degree=fields["degree"],
            lighting=fields["lighting"],
            emotion=fields["emotion"],
            length=int(fields["length"]),
            take=int(fields["take"][4:]),
        )

    def __str__(self) -> str:
        return (
            f"{self.number}_{self.subject}_{self.sex}_{self.age}_{self.degree}_{self.lighting}_{self.emotion}"
            f"_{self.length}_take{self.take:03d}"
        )


class Index(NamedTuple):
    """A set's labels in class order, its clips in file order, and the file that stated them."""

    labels: list[str]
    clips: list[Clip]
    path: Path


def write_clip(root: Path, name: ClipName, frames: np.ndarray, events: np.ndarray, quality: int = 95) -> None:
    """Writes one clip into both trees; a folder appears under its name only when whole.

    Args:
        root: Folder of the set.
        name: Names the clip; `name.length` must be the number of images.
        frames: Intensity images, uint8 `[N, H, W]`.
        events: Event images, uint8 `[N, H, W]`.
        quality: JPEG quality.

    Raises:
        DataError: If the images' number, type or shape is not as stated.
    """
    for key, images in (("frames", frames), ("events", events)):
        if images.dtype != np.uint8 or images.ndim != 3 or len(images) != name.length:
            raise DataError(
                f"clip {name}: {key} are {images.dtype} {images.shape}; give uint8 [{name.length}, height, width]"
            )
    for tree, images in ((EVENT_TREES[0], events), (FRAME_TREES[0], frames)):
        folder = root / tree / name.emotion / str(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder, replace=True) as aside:
            for i, image in enumerate(images):
                Image.fromarray(image).save(aside / f"{i:05d}.jpg", quality=quality)


def write_index(
    root: Path,
    labels: list[str],
    clips: Iterable[tuple[ClipName, str, tuple[int, int]]],
    filename: str = "emotion.json",
) -> None:
    """Writes the index file in SEE's form, at once.

    Args:
        root: Folder of the set.
        labels: Class names in index order.
        clips: Name, subset (`training` or `testing`) and segment `(start, stop)` of every clip, stop exclusive.
        filename: Name of the file in `root`.
    """
    database = {
        str(name): {"subset": subset, "annotations": {"label": name.emotion, "segment": list(segment)}}
        for name, subset, segment in clips
    }
    write_text(root / filename, json.dumps({"labels": labels, "database": database}, indent=1))


def read_index(root: Path) -> Index:
    """Reads the set's index: SEE's JSON under either of its names, else a manifest.

    Args:
        root: Folder of the set.

    Returns:
        Labels and clips. Folders of clips are named, not looked into.

    Raises:
        DataError: If no index is found, or it cannot be read; the message names the file, clip and cure.
    """
    for filename in INDEX_FILES + MANIFEST_FILES:
        path = root / filename
        if path.is_file():
            break
    else:
        raise DataError(f"{root / INDEX_FILES[0]} does not exist; put the set's index there (or a {MANIFEST_FILES[0]})")
    try:
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin a file with a mark
                content: Any = list(csv.DictReader(file))
        else:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        labels, clips = _read_see(path, content) if filename in INDEX_FILES else read_manifest(path, content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: broken index ({type(error).__name__}: {error}); restore the file") from error
    for clip in clips:
        if clip.label not in labels:
            raise DataError(
                f"{path}: clip {clip.name} has the label {clip.label!r}, which is not in {labels}; correct one"
            )
        if clip.subset not in SUBSETS:
            raise DataError(
                f"{path}: clip {clip.name} has the subset {clip.subset!r}; set it to one of {', '.join(SUBSETS)}"
            )
        if not 0 <= clip.start < clip.stop or (clip.length is not None and clip.stop > clip.length):
            segment = f"[{clip.start}, {clip.stop}) of {clip.length} images"
            raise DataError(f"{path}: clip {clip.name} has the segment {segment}; correct it")
    if not clips:
        raise DataError(f"{path}: lists no clip; restore the file")
    return Index(labels, clips, path)


def _plain(label: str) -> str:
    """SEE's instructions print one folder and its label as `neutraL`."""
    return "neutral" if label == "neutraL" else label


def _tree(root: Path, names: tuple[str, ...]) -> Path:
    """The tree that exists under one of its names, else the first."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def _read_see(path: Path, content: Any) -> tuple[list[str], list[Clip]]:
    """Reads SEE's `{"labels": [...], "database": {name: {"subset", "annotations": {"label", "segment"}}}}`."""
    labels = [_plain(label) for label in content["labels"]]
    trees = [_tree(path.parent, names) for names in (FRAME_TREES, EVENT_TREES)]
    folders: dict[tuple[Path, str], Path] = {}
    for tree in trees:
        for label in labels:
            odd = label == "neutral" and not (tree / label).is_dir() and (tree / "neutraL").is_dir()
            folders[tree, label] = tree / ("neutraL" if odd else label)
    clips, empty = [], []
    for text, entry in content["database"].items():
        name = ClipName.parse(text)
        label = _plain(entry["annotations"]["label"])
        if label in labels and label != name.emotion:
            raise DataError(f"{path}: clip {text} has the label {label!r}, its name says {name.emotion!r}; correct one")
        start, stop = (int(i) for i in entry["annotations"]["segment"])
        if stop == 0:
            empty.append(text)
            continue
        frames, events = (folders.get((tree, label), tree / label) / text for tree in trees)
        clips.append(
            Clip(text, frames, events, label, entry["subset"], name.subject, name.lighting, start, stop, name.length)
        )
    if empty:  # the authors' loader leaves them out as well
        warnings.warn(f"{path}: left out {len(empty)} clips with an empty segment, first {empty[0]}", stacklevel=3)
    return labels, clips
