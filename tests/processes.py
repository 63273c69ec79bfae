"""Which processes still run."""

import time
from pathlib import Path


def of_session(number):
    """Numbers of the processes of a session that still run."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = file.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # ended meanwhile
            continue
        if int(session) == number and state not in "ZX":
            found.append(int(file.parent.name))
    return found


def left_of_session(number, seconds=60):
    """Those that still run although they were given some time to end."""
    until = time.monotonic() + seconds
    while (left := of_session(number)) and time.monotonic() < until:
        time.sleep(0.05)
    return left
