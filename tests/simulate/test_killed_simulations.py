"""A simulation that is killed leaves no process and no set, and the next one clears up; a killed worker is told."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import left_of_session, of_session

from sdsnn_lightning.simulate.eye import write_simulated_see
from sdsnn_lightning.simulate.shapes import write_simulated_recordings

SEE = """
import sys
from pathlib import Path
from sdsnn_lightning.simulate.eye import write_simulated_see
write_simulated_see(Path(sys.argv[1]), subjects=2, clips_per_class=1, size=32, workers=2)
"""
SHAPES = """
import sys
from pathlib import Path
from sdsnn_lightning.simulate.shapes import write_simulated_recordings
write_simulated_recordings(Path(sys.argv[1]), recordings=2, workers=2)
"""


def writes(root):
    """Whether the first file of a set stands there, aside."""
    try:
        return any(path.is_file() for path in root.parent.glob(f".{root.name}.partial-*/**/*"))
    except FileNotFoundError:  # a folder took its name meanwhile
        return False


@pytest.mark.parametrize(
    ("program", "again"),
    [
        (SEE, lambda root: write_simulated_see(root, subjects=2, clips_per_class=1, size=32, workers=1)),
        (SHAPES, lambda root: write_simulated_recordings(root, recordings=2, workers=1)),
    ],
)
def test_a_killed_simulation_leaves_no_process_and_no_set(tmp_path, program, again):
    root = tmp_path / "set"
    process = subprocess.Popen([sys.executable, "-c", program, str(root)], start_new_session=True)
    while not writes(root):
        assert process.poll() is None
        time.sleep(0.01)
    assert len(of_session(process.pid)) > 2  # itself and its workers
    process.kill()
    process.wait()
    assert left_of_session(process.pid) == []
    assert not root.exists()
    again(root)
    assert (root / "simulated.json").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["set"]


MAIN = """
import sys
from sdsnn_lightning.cli import main
from sdsnn_lightning.simulate import eye
eye.usable_cores = lambda: 2
main(["data", "simulate", "see", sys.argv[1], "--subjects", "2", "--clips", "1"])
"""


def test_a_killed_worker_is_told_in_one_line(tmp_path):
    command = [sys.executable, "-c", MAIN, str(tmp_path / "set")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not writes(tmp_path / "set"):
        assert process.poll() is None
        time.sleep(0.01)
    for number in of_session(process.pid):
        if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes():
            os.kill(number, signal.SIGKILL)
    said = process.communicate(timeout=120)[1].strip()
    assert process.returncode == 2
    assert said.startswith("error: a working process was killed")
    assert "\n" not in said
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
