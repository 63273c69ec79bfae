"""Files and folders that are whole or not there."""

import json
import os
import subprocess
import sys
import time

import pytest

from sdsnn_lightning.whole import (
    folder_aside,
    sweep_leftovers,
    update_json,
    whole_file,
    whole_folder,
    whole_path,
    write_text,
)


def test_a_file_takes_its_name_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with whole_file(path) as file:
        file.write(b"new and longer")
        file.flush()
        assert path.read_bytes() == b"old"
        (aside,) = tmp_path.glob(".a.txt.partial-*")
        assert aside.read_bytes() == b"new and longer"
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("a.txt", b"new and longer")]
    assert path.stat().st_mode & 0o777 == 0o644


def fails(whole, path):
    with whole(path):
        assert len(list(path.parent.iterdir())) == (1 if whole is whole_path else 2)
        raise ZeroDivisionError


@pytest.mark.parametrize("whole", [whole_file, whole_path, whole_folder])
def test_a_failure_leaves_the_old_one_and_nothing_else(whole, tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError):
        fails(whole, tmp_path / "a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_writers_of_one_file_do_not_share_the_name_aside(tmp_path):
    with whole_path(tmp_path / "a.nir", ".nir") as one, whole_path(tmp_path / "a.nir", ".nir") as other:
        assert one != other
        assert one.suffix == other.suffix == ".nir"
        one.write_text("one")
        other.write_text("other")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nir"]
    assert (tmp_path / "a.nir").read_text() == "one"  # the outer block ended last


def test_errors_name_the_file_and_not_the_one_aside(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / "none" / "a.txt"):
        pass
    assert caught.value.filename == str(tmp_path / "none" / "a.txt")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="a directory") as caught:
        write_text(tmp_path / "folder", "x")
    assert caught.value.filename == str(tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="exists|directory"):
        write_text(tmp_path / "file" / "a.txt", "x")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_text_and_json_make_their_folder(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "µJ\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "µJ\n".encode()
    path = tmp_path / "c" / "d.json"
    update_json(path, one=1, two=2)
    update_json(path, two=[3], name="é")
    assert json.loads(path.read_text()) == {"one": 1, "two": [3], "name": "é"}
    path.write_text("{")
    with pytest.warns(UserWarning, match=r"d\.json is damaged \(Expecting .*\): it is kept as d\.json\.damaged"):
        update_json(path, one=1)
    assert json.loads(path.read_text()) == {"one": 1}
    assert path.with_name("d.json.damaged").read_text() == "{"
    assert len(list(path.parent.iterdir())) == 2


def test_a_folder_replaces_an_older_one_only_where_asked(tmp_path):
    path = tmp_path / "set"
    with whole_folder(path) as aside:
        assert aside.name.startswith(".set.partial-")
        assert aside.stat().st_mode & 0o777 == 0o755
        (aside / "old").touch()
        assert not path.exists()
    with pytest.raises(OSError, match="not empty"), whole_folder(path) as aside:
        (aside / "new").touch()
    assert os.listdir(path) == ["old"]
    with whole_folder(path, replace=True) as aside:
        (aside / "new").touch()
        assert os.listdir(path) == ["old"]
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["set"]


def test_leftovers_of_this_file_or_folder_are_swept_and_no_others(tmp_path):
    path = tmp_path / "set[1]"  # brackets mean something to a glob
    (tmp_path / ".set[1].partial-aaaa").mkdir()
    (tmp_path / ".set[1].partial-aaaa" / "half").touch()
    for name in (".set[1].partial-bbbb", ".set1.partial-cccc", ".set[1].lock", "set[1]"):
        (tmp_path / name).touch()
    sweep_leftovers(path)
    assert sorted(os.listdir(tmp_path)) == [".set1.partial-cccc", ".set[1].lock", "set[1]"]


def test_a_folder_of_a_killed_process_is_swept_and_that_of_a_running_one_stays(tmp_path):
    lines = """
import sys, time
from pathlib import Path
from sdsnn_lightning.whole import folder_aside
with folder_aside(Path(sys.argv[1])) as aside:
    (aside / "half").touch()
    print("made", flush=True)
    time.sleep(600)
"""
    path = tmp_path / "set.h5"
    with subprocess.Popen([sys.executable, "-c", lines, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "made\n"
            (aside,) = tmp_path.iterdir()
            os.utime(aside, (0, 0))  # long ago
            with folder_aside(path):
                assert (aside / "half").exists()
        finally:
            process.kill()
    os.utime(aside, (time.time() - 50,) * 2)
    with folder_aside(path):
        assert (aside / "half").exists()  # not yet: another one may be about to lock it
    os.utime(aside, (0, 0))
    with whole_folder(path) as new:
        assert not aside.exists()
        (new / "whole").touch()
    assert os.listdir(tmp_path) == ["set.h5"]
