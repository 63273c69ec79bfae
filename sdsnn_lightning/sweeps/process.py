"""A command that is never left behind: it ends when this process ends, however that happens."""

import os
import subprocess
import sys
import time
from pathlib import Path

GRACE = 30.0
"""Seconds that a terminated command has to keep its state."""
GUARD = Path(__file__).with_name("guard.py")
KILLED = -9


class GuardedProcess:
    """A command under a guard, see `guard.py`. Its output is appended to a file."""

    def __init__(
        self, command: list[str], output: Path, lock: Path, environment: dict[str, str], folder: str | None = None
    ) -> None:
        """Starts the command.

        Args:
            command: The program and its arguments; no shell reads them.
            output: What it prints goes to the end of this file.
            lock: Held while it runs; it waits for an earlier one that still holds it.
            environment: Its whole environment.
            folder: Its current folder; None keeps this process's.
        """
        output.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-S", "-E", str(GUARD), str(lock.absolute()), str(output.absolute()), str(GRACE)]
        with output.open("ab") as errors:  # of the guard itself
            starter = subprocess.Popen(
                [*words, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        assert starter.stdin is not None
        assert starter.stdout is not None
        starter.wait()
        self._life, self._report = starter.stdin, starter.stdout
        os.set_blocking(self._report.fileno(), False)
        self._code: int | None = None
        self._said = b""

    def poll(self) -> int | None:
        """The exit code, None while it runs; negative for a signal."""
        while self._code is None:
            try:
                part = os.read(self._report.fileno(), 64)
            except BlockingIOError:
                return None
            self._said += part
            if not part:
                self._code = int(self._said) if self._said.strip() else KILLED
                self._life.close()
                self._report.close()
        return self._code

    def wait(self, period: float = 0.2) -> int:
        """Waits for the end, looking every `period` seconds, and returns the exit code. An interruption ends it."""
        try:
            while (code := self.poll()) is None:
                time.sleep(period)
        except BaseException:
            self.terminate()
            raise
        return code

    def terminate(self) -> int:
        """Ends it and all its children, at the latest after `GRACE` seconds, and returns the exit code."""
        if self.poll() is None and not self._life.closed:
            self._life.close()
        return self.wait()
