"""Nothing is left behind, however a process that started another one ends. Real processes, real signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sdsnn_lightning.sweeps.process import GuardedProcess

PARENT_AND_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def guarded(program, folder, name="output.txt"):
    command = [sys.executable, "-c", program]
    return GuardedProcess(command, folder / name, folder / "lock", dict(os.environ))


def until(condition, seconds=60):
    """Waits for something that other processes do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def lives(pid):
    """Whether a process runs; one that nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("program", "code"), [("print('hello')", 0), ("raise SystemExit(7)", 7)])
def test_exit_code_and_output_come_through(tmp_path, program, code):
    process = guarded(program, tmp_path)
    assert process.wait() == code
    assert process.poll() == code
    assert (tmp_path / "output.txt").read_text() == ("hello\n" if code == 0 else "")


def test_a_signal_is_a_negative_code(tmp_path):
    assert guarded("import os; os.kill(os.getpid(), 9)", tmp_path).wait() == -9


def test_terminate_ends_children_too(tmp_path):
    process = guarded(PARENT_AND_CHILD, tmp_path)
    until(lambda: (tmp_path / "output.txt").read_text().endswith("\n"))
    child = int((tmp_path / "output.txt").read_text())
    assert lives(child)
    assert process.poll() is None
    assert process.terminate() == -signal.SIGTERM
    until(lambda: not lives(child))


def test_what_a_command_leaves_running_ends_with_it(tmp_path):
    process = guarded(PARENT_AND_CHILD.replace("time.sleep(600)\n", "\n"), tmp_path)
    assert process.wait() == 0
    until(lambda: not lives(int((tmp_path / "output.txt").read_text())))


def test_kill_9_of_the_starter_ends_all(tmp_path):
    program = f"""
import os, sys, time
from pathlib import Path
from sdsnn_lightning.sweeps.process import GuardedProcess
folder = Path(sys.argv[1])
command = [sys.executable, "-c", {PARENT_AND_CHILD!r}]
process = GuardedProcess(command, folder / "output.txt", folder / "lock", dict(os.environ))
time.sleep(600)
"""
    starter = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    until(lambda: (tmp_path / "output.txt").is_file() and (tmp_path / "output.txt").read_text().endswith("\n"))
    child = int((tmp_path / "output.txt").read_text())
    assert lives(child)
    starter.kill()
    starter.wait()
    until(lambda: not lives(child))


def test_who_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("sdsnn_lightning.sweeps.process.GRACE", 0.5)
    process = guarded(DEAF, tmp_path)
    until(lambda: (tmp_path / "output.txt").read_text() == "deaf\n")
    assert process.terminate() == -signal.SIGKILL


def test_two_of_one_trial_never_run_at_once(tmp_path):
    first = guarded("import time; print('first', flush=True); time.sleep(600)", tmp_path)
    until(lambda: (tmp_path / "output.txt").read_text() == "first\n")
    second = guarded("print('second')", tmp_path, "second.txt")
    third = guarded("print('third')", tmp_path, "third.txt")
    third.terminate()  # while it waits
    assert second.poll() is None
    assert (tmp_path / "second.txt").read_text() == ""
    first.terminate()
    assert second.wait() == 0
    assert (tmp_path / "second.txt").read_text() == "second\n"
    assert (tmp_path / "third.txt").read_text() == ""
