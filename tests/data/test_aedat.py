import struct

import numpy as np
import pytest
from places import SHARED

from sdsnn_lightning.data.aedat import read_aedat, read_aedat4, unwrap, write_aedat
from sdsnn_lightning.errors import DataError
from sdsnn_lightning.simulate.event_camera import EVENT_DTYPE

REAL = sorted((SHARED / "dvs128_objects").glob("*/*.aedat"))
HEADER = b"#!AER-DAT2.0\r\n# a comment\r\n"


def make_events(rows):
    return np.array(rows, EVENT_DTYPE)


def raw(*pairs):
    return np.array(pairs, ">u4").tobytes()


def put(path, data):
    path.write_bytes(data)
    return path


def test_an_address_is_split_as_on_the_dvs128(tmp_path):
    # bit 0 = 1: darker; column bits 3 -> 127 - 3 from the left; row bits 100 -> 127 - 100 from the top
    address = 1 | 3 << 1 | 100 << 8
    file = put(tmp_path / "a.aedat", HEADER + raw((address, 7), (0, 9), (0x7FFF, 9)))
    events = read_aedat(file)
    assert events.dtype == EVENT_DTYPE
    assert events.tolist() == [(7, 124, 27, 0), (9, 127, 127, 1), (9, 0, 0, 0)]


def test_what_is_written_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    events = np.empty(5000, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.integers(0, 50, 5000)) + 2**32 - 60_000  # runs over on the way
    events["x"], events["y"], events["p"] = (rng.integers(0, n, 5000) for n in (128, 128, 2))
    write_aedat(tmp_path / "new" / "a.aedat", events, ["made by a test"])
    data = (tmp_path / "new" / "a.aedat").read_bytes()
    assert data.startswith(b"#!AER-DAT2.0\r\n")
    assert b"# made by a test\r\n" in data
    back = read_aedat(tmp_path / "new" / "a.aedat")
    assert back.tolist() == events.tolist()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.aedat"]


def test_unwrap_by_hand():
    times = np.array([2**32 - 5, 3, 10, 2**32 - 1, 0], np.int64)
    assert unwrap(times).tolist() == [2**32 - 5, 2**32 + 3, 2**32 + 10, 2**33 - 1, 2**33]
    assert unwrap(np.array([5, 4], np.int64)).tolist() == [5, 4]


def test_marks_of_the_sync_input_are_no_events(tmp_path):
    file = put(tmp_path / "a.aedat", HEADER + raw((0, 1), (0x8000, 2), (2, 3)))
    assert read_aedat(file)["t"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin with #!AER-DAT2.0"),
        (raw((0, 1)), "does not begin with #!AER-DAT2.0"),
        (b"#!AER-DAT3.1\r\n" + raw((0, 1)), "is AER-DAT3.1; save it as AER-DAT2.0"),
        (b"#!AER-DAT2.0\r\n# no end", "ends within its header"),
        (HEADER, "holds no event"),
        (HEADER + raw((0x8000, 1)), "holds no event"),
        (HEADER + raw((0, 1)) + b"\0\0\0", "breaks off within an event: 3 bytes"),
        (HEADER + raw((0, 1), (0x10000, 2)), "event 1 has address 0x10000, outside the 128x128"),
        (HEADER + raw((0, 10), (0, 4), (0, 9)), "time goes back by 6 us at event 1, 1 times"),
    ],
)
def test_bad_files_are_named_with_a_cure(tmp_path, data, message):
    file = put(tmp_path / "bad.aedat", data)
    with pytest.raises(DataError, match=message) as error:
        read_aedat(file)
    assert "bad.aedat" in str(error.value)
    assert "\n" not in str(error.value)


def test_disorder_is_sorted_where_asked(tmp_path):
    file = put(tmp_path / "a.aedat", HEADER + raw((0, 10), (2, 4), (4, 10)))
    events = read_aedat(file, sort=True)
    assert events["t"].tolist() == [4, 10, 10]
    assert events["x"].tolist() == [126, 127, 125]


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "no.aedat", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_aedat(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no event to write"),
        ([(0, 128, 0, 1)], "x leaves the 128x128"),
        ([(0, 0, -1, 1)], "y leaves the 128x128"),
        ([(5, 0, 0, 1), (4, 0, 0, 1)], "time goes back or leaps"),
        ([(0, 0, 0, 1), (2**31, 0, 0, 1)], "time goes back or leaps"),
    ],
)
def test_the_writer_refuses_what_could_not_be_read(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        write_aedat(tmp_path / "a.aedat", make_events(rows))
    assert not list(tmp_path.iterdir())


def test_aedat4_needs_its_library_and_a_whole_file(tmp_path):
    file = put(tmp_path / "a.aedat4", b"#!AER-DAT4.0\r\nbroken")
    with pytest.raises(DataError, match="pip install aedat|cannot be read as AEDAT4"):
        read_aedat4(file)


def write_aedat4(path, *packets):
    """An uncompressed AEDAT4 file, byte by byte: text, FlatBuffer IOHE with the streams in XML, FlatBuffers EVTS."""
    node = "/mainloop/Recorder/outInfo/"
    xml = (
        f'<dv version="2.0"><node name="outInfo" path="{node}"><node name="0" path="{node}0/">'
        '<attr key="compression" type="string">NONE</attr><attr key="typeIdentifier" type="string">EVTS</attr>'
        f'<node name="info" path="{node}0/info/"><attr key="sizeX" type="int">128</attr>'
        '<attr key="sizeY" type="int">128</attr></node></node></node></dv>'
    ).encode()
    # root at 24; vtable at 8 with three fields; the table; then the string its third field points at
    head = struct.pack("<I4s5H6x", 24, b"IOHE", 10, 20, 4, 12, 8) + struct.pack("<iiIq", 16, 0, 12, -1)
    head += struct.pack("<I", len(xml)) + xml + b"\0"
    data = b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(head)) + head
    for events in packets:
        body = struct.pack("<I4s3H2xiI8xI", 16, b"EVTS", 6, 8, 4, 8, 12, len(events))
        body += b"".join(struct.pack("<qhh?3x", *event) for event in events)
        data += struct.pack("<iiI", 0, len(body) + 4, len(body)) + body
    path.write_bytes(data)
    return path


def test_aedat4(tmp_path):
    pytest.importorskip("aedat", reason="the library is optional")
    first, second = [(10, 1, 2, True), (11, 127, 0, False)], [(20, 0, 127, True)]
    events = read_aedat4(write_aedat4(tmp_path / "a.aedat4", first, second))
    assert events.dtype == EVENT_DTYPE
    assert events.tolist() == [(10, 1, 2, 1), (11, 127, 0, 0), (20, 0, 127, 1)]
    for packets, message in (
        ([], "holds no event"),
        ([second, first], "time goes back by 10 us"),
        ([[(0, 128, 0, True)]], "outside 128x128"),
    ):
        with pytest.raises(DataError, match=message):
            read_aedat4(write_aedat4(tmp_path / "a.aedat4", *packets))


@pytest.mark.skipif(not REAL, reason="no real recordings")
@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.name[-5:]}-{path.stem}")
def test_real_recordings_agree_with_tonic(path):
    from tonic.io import get_aer_events_from_file, read_aedat_header_from_file

    version, start, _ = read_aedat_header_from_file(str(path))
    theirs = get_aer_events_from_file(str(path), version, start)
    events = read_aedat(path)
    assert len(events) == len(theirs)
    assert (events["t"] == theirs["timeStamp"]).all()
    # tonic's read_dvs_128 gives the bits as they are: its x is our row from below, its y our column from the right
    assert (events["y"] == 127 - ((theirs["address"] >> 8) & 0x7F)).all()
    assert (events["x"] == 127 - ((theirs["address"] >> 1) & 0x7F)).all()
    assert (events["p"] == 1 - (theirs["address"] & 1)).all()


@pytest.mark.skipif(not REAL, reason="no real recordings")
def test_brighter_events_are_those_that_idle_pixels_leak():
    # A DVS pixel left alone drifts towards "brighter", so pixels of the far corners, where no object passes, must
    # fire mostly with polarity 1 (0.67 to 0.72 of the time here). This fixes the meaning of bit 0.
    for path in REAL:
        events = read_aedat(path)
        corner = ((events["x"] < 20) | (events["x"] > 107)) & (events["y"] < 20)
        assert corner.sum() > 500
        assert events["p"][corner].mean() > 0.6


@pytest.mark.skipif(not REAL, reason="no real recordings")
def test_a_real_recording_survives_writing(tmp_path):
    events = read_aedat(REAL[0])
    write_aedat(tmp_path / "a.aedat", events)
    assert (read_aedat(tmp_path / "a.aedat") == events).all()
    ours, theirs = (tmp_path / "a.aedat").read_bytes(), REAL[0].read_bytes()
    assert ours[-8 * len(events) :] == theirs[-8 * len(events) :]
