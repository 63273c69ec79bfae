"""Spike trains of spoken words in HDF5, in the layout of the Heidelberg spiking data sets.

The layout of SHD and SSC (Cramer et al., 2020, arXiv 1910.07407)::

    spikes/times   one list a recording: seconds, 16-bit floats in the published files
    spikes/units   one list a recording: channel of every spike, 0 to 699
    labels         word of every recording
    extra/speaker  speaker of every recording: a number, or a name
    extra/keys     name of every word

`extra/meta_info` (age, sex and height of the speakers of SHD) is not read.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from sdsnn_lightning.data.hdf5_target import Hdf5Target
from sdsnn_lightning.data.spike_rules import SpikeChunk, check_spikes
from sdsnn_lightning.errors import DataError, first_line
from sdsnn_lightning.whole import whole_file

AT_ONCE = 256
"""Recordings read in one go."""


class SpikeSample(NamedTuple):
    """One recording.

    Attributes:
        times: Seconds of every spike, float `[N]`, ascending.
        units: Channel of every spike, integer `[N]`, 0 to 699.
        label: Index of the word.
        speaker: Number of the speaker; -1 where the file does not say.
        key: The word.
    """

    times: np.ndarray
    units: np.ndarray
    label: int
    speaker: int
    key: str


def write_spike_file(
    path: str | Path,
    samples: Iterable[SpikeSample],
    class_names: Sequence[str],
    times: Literal["float16", "float32"] = "float16",
) -> None:
    """Writes a file in the layout of SHD. It appears when it is whole.

    Args:
        path: The `.h5` file; its folder is made. An older one is replaced.
        samples: The recordings, in order; taken one by one. Their `key` must be `class_names[label]`.
        class_names: The words, in index order.
        times: Type of the times. The published files have 16 bits: steps of 0.5 ms from half a second on, of 1 ms from
            one second on.

    Raises:
        DataError: If a recording breaks the rules that `SpikeFile` reads by, or the file cannot be written. Nothing is
            left of it then.
    """
    import h5py

    path = Path(path)
    labels: list[int] = []
    speakers: list[int] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial, Hdf5Target(partial) as target, h5py.File(target, "w") as file:
            spikes = file.create_group("spikes")
            of_time, of_unit = h5py.vlen_dtype(np.dtype(times)), h5py.vlen_dtype(np.uint16)
            time_lists = spikes.create_dataset("times", (0,), of_time, maxshape=(None,), chunks=(AT_ONCE,))
            unit_lists = spikes.create_dataset("units", (0,), of_unit, maxshape=(None,), chunks=(AT_ONCE,))
            for sample in samples:
                number = len(labels)
                chunk = SpikeChunk(
                    np.asarray(sample.times, times), np.asarray(sample.units), np.array([len(sample.times)])
                )
                if not 0 <= sample.label < len(class_names) or sample.key != class_names[sample.label]:
                    raise DataError(
                        f"{path}: recording {number} has label {sample.label} and word '{sample.key}', which is not in "
                        f"the {len(class_names)} class_names at that place; give class_names[label] as its key"
                    )
                check_spikes(path, chunk, number, [len(sample.units)])
                time_lists.resize((number + 1,))
                unit_lists.resize((number + 1,))
                time_lists[number], unit_lists[number] = chunk.times, chunk.units.astype(np.uint16)
                labels.append(sample.label)
                speakers.append(sample.speaker)
                target.check()
            file["labels"] = np.array(labels, np.uint16)
            file["extra/speaker"] = np.array(speakers, np.int32)
            file["extra/keys"] = np.array([name.encode() for name in class_names])
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}); free space or mend its rights"
        ) from error


class SpikeFile:
    """Reads a file in the layout of SHD.

    The file is opened at the first access, once in every process: an open handle must not be shared with a forked
    loader process, nor be sent to a spawned one. What it holds is checked as it is read.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        """Creates the reader; the file is not touched yet.

        Args:
            path: The `.h5` file.
        """
        self.path = Path(path)
        self._handle: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        """The path alone; a copy opens the file anew."""
        return {"path": self.path, "_handle": None, "_process": 0}

    @property
    def _file(self) -> Any:
        """This process's handle, layout checked."""
        if self._handle is None or self._process != os.getpid():
            import h5py

            if not self.path.is_file():
                raise DataError(f"{self.path} does not exist; put the file there")
            with self._readable():
                handle = h5py.File(self.path, "r")
            try:
                self._check_layout(handle)
            except DataError:
                handle.close()
                raise
            self._handle, self._process = handle, os.getpid()
        return self._handle

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turns what HDF5 says about a broken file into one line."""
        try:
            yield
        except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.path} cannot be read as HDF5, it is truncated or another kind of file ({first_line(error)}); "
                "fetch it again and replace it"
            ) from None

    def _part(self, name: str, file: Any = None) -> Any:
        """A part of the file; None where there is none, which a damaged one is not."""
        file = self._file if file is None else file
        with self._readable():
            present = name in file  # `get` would take a damaged part for an absent one
            return file[name] if present else None

    def _check_layout(self, file: Any) -> None:
        """Checks that the file is one of spike trains: names, kinds and lengths of its parts."""
        import h5py

        def wrong(what: str) -> DataError:
            return DataError(f"{self.path} {what}: it has not the layout of SHD; replace the file")

        sizes = {}
        for name, kinds in (("spikes/times", "f"), ("spikes/units", "iu"), ("labels", "iu"), ("extra/speaker", "iu")):
            part = self._part(name, file)
            if part is None and name == "extra/speaker":
                continue
            if not isinstance(part, h5py.Dataset):
                raise wrong(f"has no {name}")
            with self._readable():
                kind = part.dtype
            inner = h5py.check_vlen_dtype(kind) if name.startswith("spikes/") else kind
            named = name == "extra/speaker" and h5py.check_string_dtype(kind)
            if part.ndim != 1 or inner is None or not (named or np.dtype(inner).kind in kinds):
                raise wrong(f"holds {kind} of shape {part.shape} in {name}")
            sizes[name] = len(part)
        if len(set(sizes.values())) > 1:
            raise wrong(
                "disagrees about the number of recordings (" + ", ".join(f"{k}: {n}" for k, n in sizes.items()) + ")"
            )
        if not sizes["labels"]:
            raise wrong("holds no recording")

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self._part("labels"))

    @cached_property
    def class_names(self) -> list[str]:
        """The words in index order; `0`, `1`, ... up to the highest label where the file does not name them."""
        keys = self._part("extra/keys")
        with self._readable():
            names = [] if keys is None else [_text(key) for key in keys[()]]
        return names or [str(k) for k in range(int(self._column("labels").max()) + 1)]

    @cached_property
    def labels(self) -> np.ndarray:
        """Word of every recording, int64 `[recordings]`.

        Raises:
            DataError: If one is beyond the words of `extra/keys`.
        """
        labels, words = self._column("labels"), len(self.class_names)
        bad = np.flatnonzero((labels < 0) | (labels >= words))
        if len(bad):
            raise DataError(
                f"{self.path}: recording {bad[0]} has label {labels[bad[0]]} but extra/keys has {words} words; "
                "replace the file"
            )
        return labels

    @cached_property
    def speakers(self) -> np.ndarray:
        """Speaker of every recording, int64 `[recordings]`; -1 throughout where the file does not say.

        Names become numbers by a hash, so that a speaker has the same number in every file.
        """
        part = self._part("extra/speaker")
        if part is None:
            return np.full(len(self), -1)
        with self._readable():
            if part.dtype.kind in "iu":
                return part[()].astype(np.int64)
            names, which = np.unique([_text(name) for name in part[()]], return_inverse=True)
        digests = (hashlib.sha256(name.encode()).digest() for name in names)
        return np.array([int.from_bytes(digest[:7]) for digest in digests])[which]

    def _column(self, name: str) -> np.ndarray:
        """One number a recording."""
        file = self._file
        with self._readable():
            return file[name][()].astype(np.int64)

    @property
    def times_dtype(self) -> np.dtype:
        """Type the times are served in: float16 as the published files have them, or float32."""
        import h5py

        part = self._part("spikes/times")
        with self._readable():
            return np.dtype("<f2" if h5py.check_vlen_dtype(part.dtype).itemsize == 2 else "<f4")

    def __getitem__(self, index: int) -> SpikeSample:
        """One recording, checked.

        Raises:
            IndexError: If there are fewer.
            DataError: If it is broken.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = self._read(index, index + 1)
        label = int(self.labels[index])
        return SpikeSample(chunk.times, chunk.units, label, int(self.speakers[index]), self.class_names[label])

    def chunks(self) -> Iterator[SpikeChunk]:
        """All recordings in order, some at a time, checked.

        Raises:
            DataError: At the first broken recording; the message names it.
        """
        for start in range(0, len(self), AT_ONCE):
            yield self._read(start, min(start + AT_ONCE, len(self)))

    def _read(self, start: int, stop: int) -> SpikeChunk:
        """Reads and checks neighbouring recordings."""
        file = self._file
        with self._readable():
            times, units = file["spikes/times"][start:stop], file["spikes/units"][start:stop]
        counts = np.array([len(values) for values in times])
        chunk = SpikeChunk(np.concatenate(times).astype(self.times_dtype), np.concatenate(units), counts)
        check_spikes(self.path, chunk, start, [len(values) for values in units])
        return chunk._replace(units=chunk.units.astype(np.int16))


def _text(key: Any) -> str:
    """A name as HDF5 gives it: bytes or text."""
    return key.decode("utf-8", errors="replace") if isinstance(key, bytes) else str(key)
