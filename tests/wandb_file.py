"""Reads W&B's own run files: LevelDB's log format around the records of wandb's protocol."""

import json
import struct
import time
from pathlib import Path
from typing import Any


def records(file: Path):
    """The records: 32 kB blocks of (checksum, length, type) and a payload, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = file.read_bytes(), 7, []
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if position + 7 + length > len(data):
            return  # still being written
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # whole, or last of several parts
            yield wandb_internal_pb2.Record.FromString(b"".join(parts))
            parts = []


def _entries(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *above, last = item.nested_key or [item.key]
        inner = found
        for key in above:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return found


class RunFile:
    """What one run file holds.

    Attributes:
        id, group, tags: Of the run.
        config: The configuration.
        history: All rows in order.
        summary: The last values set in the summary.
        artifacts: The artifact records.
        ended: Exit code of the run; None if it does not end.
    """

    def __init__(self, file: Path) -> None:
        self.config: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.artifacts: list[Any] = []
        self.id, self.group, self.tags, self.ended = "", "", set(), None
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.id, self.group = record.run.run_id, record.run.run_group
                self.tags |= set(record.run.tags)
                self.config |= _entries(record.run.config.update)
            elif kind == "config":
                self.config |= _entries(record.config.update)
            elif kind == "history":
                self.history.append(_entries(record.history.item))
            elif kind == "summary":
                self.summary |= _entries(record.summary.update)
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "exit":
                self.ended = record.exit.exit_code


def ended_run(file: Path, seconds: float = 20.0) -> RunFile:
    """A run once its end is in the file: W&B's process writes that a moment after the run was told it has ended."""
    until = time.monotonic() + seconds
    while (found := RunFile(file)).ended is None and time.monotonic() < until:
        time.sleep(0.1)
    return found


def run_files(folder: Path) -> list[Path]:
    """The run files of a run folder, oldest first."""
    return sorted(folder.glob("wandb/*run-*/run-*.wandb"), key=lambda path: path.parent.name)
