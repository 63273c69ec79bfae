"""A bar comes after two seconds, on a terminal only, and passes everything on."""

import os
import pty
import re
import subprocess
import sys

import pytest

from sdsnn_lightning import progress

SCRIPT = """
from sdsnn_lightning import progress
progress.QUIET_SECONDS = {quiet}
print(sum(progress.watched(range(5), "Adding", total=5)))
"""


def on_terminal(quiet):
    """What a script writes to a terminal for its errors, and what it prints."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SCRIPT.format(quiet=quiet)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, timeout=120, env=environment)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # Linux says so at the end
        pass
    os.close(ours)
    return seen.decode(), done.stdout


def test_a_terminal_shows_a_bar_where_it_takes_long():
    seen, printed = on_terminal(quiet=-1)
    assert "Adding" in seen
    assert "100%" in seen
    assert printed == "10\n"


def test_what_is_quick_shows_nothing():
    assert on_terminal(quiet=1000) == ("", "10\n")


def test_a_file_holds_no_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1)
    assert list(progress.watched("abc", "Reading", total=3)) == ["a", "b", "c"]
    text = capsys.readouterr()
    assert not re.search(r"Reading|\x1b", text.out + text.err)


def test_an_error_of_the_items_comes_through():
    def items():
        yield 1
        raise KeyError("two")

    with pytest.raises(KeyError, match="two"):
        list(progress.watched(items(), "Reading", total=2))
