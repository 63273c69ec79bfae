"""AEDAT files: AER-DAT2.0 of the DVS128, read and written whole, and AEDAT4 through a library.

AER-DAT2.0 is what jAER records with a DVS128, and what CIFAR10-DVS and MNIST-DVS are published in: header lines that
begin with `#`, the first of them `#!AER-DAT2.0`; then eight bytes an event, a 32-bit address and a 32-bit time in
microseconds, both big-endian. Of the address, bit 0 is the polarity (0 brighter, 1 darker), bits 1 to 7 the column
counted from the right, bits 8 to 14 the row counted from below; bit 15 marks an edge of the synchronisation input,
which belongs to no pixel.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE
from sdsnn_lightning.whole import whole_file

SENSOR = 128
"""Pixels of a DVS128 on each side."""

_MAGIC, _VERSION = b"#!AER-DAT", b"2.0"
_END_OF_HEADER = b"#End Of ASCII Header"
_SYNC = 0x8000
_WRAP = 1 << 32
_RECORD = np.dtype(">u4")
_HEADER = (
    "!AER-DAT2.0",
    " This is a raw AE data file - do not edit",
    " Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event",
    " Timestamps tick: 1 us",
    " AEChip: ch.unizh.ini.jaer.chip.retina.DVS128",
)


def read_aedat(path: str | Path, sort: bool = False) -> NDArray[np.void]:
    """Reads a recording of a DVS128 in AER-DAT2.0, with x from the left and y from the top, as jAER shows it.

    Args:
        path: The `.aedat` file.
        sort: Put events that are out of order in order, instead of refusing them.

    Returns:
        Events of dtype `EVENT_DTYPE` in order of time: microseconds as recorded, unwrapped where the 32-bit counter
        ran over; polarity 1 brighter, 0 darker.

    Raises:
        DataError: If the file is missing, has another header, breaks off within an event, holds no event, an address
            outside the sensor, or a time before its predecessor's.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); put the recording there") from error
    start = _data_start(path, data)
    if (len(data) - start) % 8:
        raise DataError(
            f"{path} breaks off within an event: {(len(data) - start) % 8} bytes follow the last whole one; "
            "fetch the recording again"
        )
    records = np.frombuffer(data, _RECORD, offset=start).reshape(-1, 2)
    addresses, times = records[:, 0].astype(np.uint32), records[:, 1].astype(np.int64)
    sync = (addresses & _SYNC) != 0
    if sync.any():
        addresses, times = addresses[~sync], times[~sync]
    if not len(addresses):
        raise DataError(f"{path} holds no event; take it out of the set or record it again")
    outside = np.flatnonzero(addresses > 0x7FFF)
    if len(outside):
        raise DataError(
            f"{path}: event {outside[0]} has address {int(addresses[outside[0]]):#x}, outside the {SENSOR}x{SENSOR} "
            "pixels of a DVS128; the file is damaged or of another sensor: replace it"
        )
    events = np.empty(len(addresses), EVENT_DTYPE)
    events["x"] = SENSOR - 1 - ((addresses >> 1) & 0x7F)
    events["y"] = SENSOR - 1 - ((addresses >> 8) & 0x7F)
    events["p"] = 1 - (addresses & 1)
    events["t"] = unwrap(times)
    return in_order(path, events, sort)


def _data_start(path: Path, data: bytes) -> int:
    """Where the events begin, in bytes, after a header that has been checked."""
    if not data.startswith(_MAGIC):
        raise DataError(
            f"{path} does not begin with {(_MAGIC + _VERSION).decode()}: it has no header or is no recording of jAER; "
            "replace it"
        )
    end = data.find(b"\n")
    version = data[len(_MAGIC) : end if end >= 0 else len(data)].strip()
    if version != _VERSION:
        raise DataError(
            f"{path} is AER-DAT{version.decode('ascii', 'replace')[:8]}; save it as AER-DAT2.0 with jAER, "
            "or as AEDAT4 (.aedat4)"
        )
    start = 0
    while data[start : start + 1] == b"#":  # a pixel's address begins with a zero byte, never with `#`
        end = data.find(b"\n", start)
        line, start = data[start:end], end + 1
        if end < 0:
            raise DataError(f"{path} ends within its header; fetch the recording again")
        if line.startswith(_END_OF_HEADER):
            break
    return start


def unwrap(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Undoes the overflow of a 32-bit counter.

    Args:
        times: Counter readings `[N]` in [0, 2^32), int64.

    Returns:
        The same with 2^32 added after every step back by more than half the range, which no disorder of a recording
        explains. Smaller steps back stay.
    """
    wraps = np.diff(times, prepend=times[:1]) < -_WRAP // 2
    return times + np.cumsum(wraps) * _WRAP if wraps.any() else times


def in_order(path: str | Path, events: NDArray[np.void], sort: bool = False) -> NDArray[np.void]:
    """Checks that time never goes back.

    Args:
        path: Named in the message.
        events: Fields t, ...
        sort: Sort instead of refusing; equal times keep their order.

    Returns:
        The events, in order.

    Raises:
        DataError: If they are out of order and `sort` is not set.
    """
    back = np.flatnonzero(np.diff(events["t"]) < 0)
    if not len(back):
        return events
    if sort:
        return events[np.argsort(events["t"], kind="stable")]
    i = int(back[0])
    raise DataError(
        f"{path}: time goes back by {int(events['t'][i] - events['t'][i + 1])} us at event {i + 1}, {len(back)} times "
        "in all; restore the recording, or set data.init_args.sort_events: true"
    )


def write_aedat(path: str | Path, events: NDArray[np.void], comments: Iterable[str] = ()) -> None:
    """Writes events as a DVS128 recording in AER-DAT2.0, which `read_aedat` and jAER read. It appears when whole.

    Args:
        path: The `.aedat` file; its folder is made. An older one is replaced.
        events: Fields t (microseconds, in order), x (column from the left), y (row from the top), p (above 0:
            brighter). Times are stored modulo 2^32.
        comments: Further header lines.

    Raises:
        DataError: If there is no event, one lies outside the sensor, time goes back or stands still for half an hour
            (2^31 us, which a reader could not tell from an overflow), or the file cannot be written.
    """
    path = Path(path)
    if not len(events):
        raise DataError(f"{path}: there is no event to write; check what made the recording")
    for axis in ("x", "y"):
        if events[axis].min() < 0 or events[axis].max() >= SENSOR:
            raise DataError(f"{path}: {axis} leaves the {SENSOR}x{SENSOR} sensor of AER-DAT2.0; crop or scale first")
    steps = np.diff(events["t"])
    if len(steps) and (steps.min() < 0 or steps.max() >= _WRAP // 2):
        raise DataError(f"{path}: time goes back or leaps by more than 2^31 us between two events; sort or cut them")
    records = np.empty((len(events), 2), _RECORD)
    column = (SENSOR - 1 - events["x"].astype(np.uint32)) << 1
    row = (SENSOR - 1 - events["y"].astype(np.uint32)) << 8
    records[:, 0] = row | column | (events["p"] <= 0)
    records[:, 1] = events["t"] % _WRAP
    lines = [*_HEADER, *(f" {line}" for text in comments for line in text.splitlines()), _END_OF_HEADER[1:].decode()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write("".join(f"#{line}\r\n" for line in lines).encode())
            file.write(records.tobytes())
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}); free space or mend its rights"
        ) from error


def read_aedat4(path: str | Path, sort: bool = False) -> NDArray[np.void]:
    """Reads the first stream of events of an AEDAT4 file, with the library `aedat`.

    Args:
        path: The `.aedat4` file, of any sensor up to 128x128.
        sort: Put events that are out of order in order, instead of refusing them.

    Returns:
        Events of dtype `EVENT_DTYPE`, as `read_aedat`.

    Raises:
        DataError: If the library is not installed, or the file is missing, broken or without events.
    """
    try:
        import aedat
    except ImportError as error:
        raise DataError(f"{path} is AEDAT4, which needs the library aedat; run `pip install aedat`") from error
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist; put the recording there")
    try:
        decoder = aedat.Decoder(str(path))
        streams = [key for key, stream in decoder.id_to_stream().items() if stream["type"] == "events"]
        packets = [p["events"] for p in decoder if streams and p["stream_id"] == min(streams)]
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{path} cannot be read as AEDAT4 ({error}); fetch the recording again") from error
    found = np.concatenate(packets) if packets else np.empty(0)
    if not len(found):
        raise DataError(f"{path} holds no event; take it out of the set or record it again")
    events = np.empty(len(found), EVENT_DTYPE)
    for name, field in zip(("t", "x", "y", "p"), found.dtype.names or (), strict=True):
        events[name] = found[field]
    if events["x"].max() >= SENSOR or events["y"].max() >= SENSOR:
        raise DataError(f"{path}: an event lies outside {SENSOR}x{SENSOR} pixels; crop or scale the recording first")
    return in_order(path, events, sort)
