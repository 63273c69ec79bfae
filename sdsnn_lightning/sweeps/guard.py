"""Runs a command and outlives whoever started it just long enough to end it. Needs the standard library only.

`guard.py LOCK OUTPUT SECONDS COMMAND...`, started by `process.GuardedProcess`, which holds the other end of its
standard input: when that closes, because the starter wants it or was itself killed with -9, the command and all of its
children are terminated, and killed after SECONDS. A lock is held all the while, so that nobody starts the same trial
beside it, and whoever wants to know that all has ended can wait for it. The exit code is written to standard output.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

PERIOD = 0.2  # seconds between two looks at the command


def starter_gone(seconds: float) -> bool:
    """Waits so long for standard input to close, and says whether it did."""
    ready, _, _ = select.select([0], [], [], seconds)
    return bool(ready) and not os.read(0, 1024)


def end_group(process: subprocess.Popen, seconds: float) -> int:
    """Terminates a command with its children; kills what is left after so many seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = -signal.SIGKILL
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return code


def main() -> None:
    """Runs the command given as arguments."""
    # Ray kills the direct children of a worker that ends, this one among them: leave a grandchild to do the work.
    if os.fork():
        os._exit(0)
    lock, output, seconds, *command = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Path(lock).open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if starter_gone(PERIOD):
                    return
        with Path(output).open("ab") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
            code = process.poll()
            while code is None:
                code = end_group(process, float(seconds)) if starter_gone(PERIOD) else process.poll()
        finally:
            end_group(process, float(seconds))  # whatever the command left running
        with contextlib.suppress(BrokenPipeError):
            os.write(1, f"{code}\n".encode())


if __name__ == "__main__":
    main()
