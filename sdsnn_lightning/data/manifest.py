"""Clips as records, and the manifest in which a set without SEE's index states them."""

from pathlib import Path
from typing import Any, NamedTuple

from sdsnn_lightning.errors import DataError

MANIFEST_FILES = ("manifest.json", "manifest.csv")


class Clip(NamedTuple):
    """One recording as every later stage sees it.

    Attributes:
        name: What messages call it.
        frames: Folder of the intensity images.
        events: Folder of the event images, or None in a set of frames only.
        label: Emotion, one of the index's labels.
        subset: One of `see_layout.SUBSETS`.
        subject: Who is seen; splits by subject keep equal ones together.
        lighting: Light condition.
        start: First image used.
        stop: End of the images used, exclusive.
        length: Images the folder must hold, or None where nothing states it.
    """

    name: str
    frames: Path
    events: Path | None
    label: str
    subset: str
    subject: str
    lighting: str
    start: int
    stop: int
    length: int | None


def read_manifest(path: Path, content: Any) -> tuple[list[str], list[Clip]]:
    """Reads rows `frames, events, label, subset, subject, lighting` and `length` or `segment`.

    Folders are relative to the manifest's. A CSV is the rows; a JSON is the rows, or `{"labels": [...], "clips": rows}`
    to fix the class order, which else is the sorted labels. `segment` is `[start, stop]`, in a CSV `start:stop`.

    Args:
        path: The file, for messages and for where folders are.
        content: What is in it.

    Returns:
        Labels in class order, and the clips.

    Raises:
        DataError: If a row states no length. What is missing otherwise raises `KeyError`, `TypeError` or `ValueError`.
    """
    rows = content if isinstance(content, list) else content["clips"]
    labels = sorted({row["label"] for row in rows}) if isinstance(content, list) else list(content["labels"])
    clips = []
    for row in rows:
        length = int(row["length"]) if row.get("length") else None
        segment = row.get("segment") or [0, length]
        start, stop = segment.split(":") if isinstance(segment, str) else segment
        if stop is None:
            raise DataError(f"{path}: clip {row['frames']} has neither a length nor a segment; add one")
        frames, events = path.parent / row["frames"], row.get("events")
        clips.append(
            Clip(
                name=row["frames"],
                frames=frames,
                events=path.parent / events if events else None,
                label=row["label"],
                subset=row["subset"],
                subject=str(row["subject"]),
                lighting=row["lighting"],
                start=int(start),
                stop=int(stop),
                length=length,
            )
        )
    return labels, clips
