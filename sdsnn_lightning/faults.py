"""What can go wrong while a run runs, told in one line; and how several processes end together."""

import errno
import faulthandler
import mmap
import os
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import distributed

from sdsnn_lightning.cli import INTERRUPTED
from sdsnn_lightning.errors import ConfigError, DataError, ProcessLostError, first_line, one_line

# What a full disk, a folder without rights or a file in the place of a folder answers.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
# What a file answers that was there before: deleted, or on a disk or server that went away.
GONE = (errno.ENOENT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENXIO, errno.ENODEV)
LOADER_DIED = r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)"
NO_MEMORY = r"DefaultCPUAllocator: (can't|not enough) "
BATCH_OF_ONE = "Expected more than 1 value per channel when training"  # torch's batch norm
PEER_DIED = r"gloo|NCCL|Connection (closed|reset|refused) by peer|Broken pipe|TCPStore"
_GO_ON = "then go on with --ckpt_path last"
_FIRST_PROCESS = "SDSNN_FIRST_PROCESS"
_STUDENT_PROCESS = "SDSNN_STUDENT_PROCESS"
_GRACE = 10.0  # seconds a process has to end by itself when the first one has ended


@contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """Turns what the machine does to a run, and Lightning's complaints about a configuration, into one line.

    Args:
        folder: Where the run writes; named where the error names no file.

    Raises:
        ConfigError: If a file cannot be written, Lightning refuses the configuration, a batch is too small to
            normalise, or memory does not suffice.
        DataError: If a file that was there before is gone.
        ProcessLostError: If a loader process, or another process of a distributed run, died.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        if error.errno in DISK:
            raise ConfigError(
                f"{error.filename or folder}: cannot write ({error.strerror}); "
                "free space there, mend its rights, or give another folder with --runs"
            ) from error
        if error.errno in GONE or isinstance(error, FileNotFoundError):  # from a loader process it has no number
            what = f"{error.filename} cannot be read ({error.strerror})" if error.filename else one_line(error)
            raise DataError(f"{what}; restore the data, {_GO_ON}") from error
        raise
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or re.search(NO_MEMORY, str(error)):
            raise ConfigError(
                f"no memory is left ({first_line(error)}); lower data.init_args.batch_size or the network's "
                "width, or set model.init_args.lean_memory: true"
            ) from error
        if re.search(LOADER_DIED, str(error)):
            if lost := lost_files():
                raise DataError(_lost(lost)) from error
            raise ProcessLostError(
                f"a loader process died ({first_line(error)}), as the system does it where memory is short; "
                f"lower data.init_args.num_workers or batch_size, {_GO_ON}"
            ) from error
        if distributed.is_available() and distributed.is_initialized() and re.search(PEER_DIED, str(error)):
            raise ProcessLostError(
                f"another process of this run is gone ({first_line(error)}); see what it said, {_GO_ON}"
            ) from error
        if _complaint_of_lightning(error):
            raise ConfigError(one_line(error)) from error
        raise
    except (ValueError, ImportError, AttributeError) as error:
        if BATCH_OF_ONE in str(error):
            raise ConfigError(
                f"a batch norm was given one number a channel ({one_line(error)}): "
                "set data.init_args.batch_size to at least 2, or use more time steps"
            ) from error
        if _complaint_of_lightning(error):
            raise ConfigError(one_line(error)) from error
        raise


def _complaint_of_lightning(error: Exception) -> bool:
    """Whether it is the Trainer or a callback of Lightning's that raised an error, about what it was configured to."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__", "").startswith("lightning.")


def lost_files() -> list[str]:
    """Files mapped into memory that cannot be read any more: cut short since, or away with their disk.

    A file that is only deleted stays readable for those who have it mapped. Known on Linux alone.
    """
    lost = []
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.is_file() else ():
        span, rights, offset, _, _, *name = line.split(maxsplit=5)
        if not name or not name[0].startswith("/") or name[0].endswith("(deleted)") or rights[3] != "s":
            continue  # data are mapped as they are shared; programs are private
        start, stop = (int(number, 16) for number in span.split("-"))
        try:
            facts = os.stat(name[0])
        except OSError:
            lost.append(name[0])
            continue
        last_page = int(offset, 16) + stop - start - mmap.PAGESIZE
        if stat.S_ISREG(facts.st_mode) and facts.st_size <= last_page:
            lost.append(name[0])
    return lost


def _lost(files: list[str]) -> str:
    return f"{files[0]} cannot be read any more: it was cut short, or its disk is gone; restore the data, {_GO_ON}"


def tell_lost_files() -> None:
    """Has this process end in one line where a file that it has mapped into memory is lost.

    The system then sends SIGBUS, for which Python has no exception; the process would end without a word. Nothing is
    changed where Python's own report of such ends is wanted (`PYTHONFAULTHANDLER`), or there is no such signal.
    """
    if not hasattr(signal, "SIGBUS") or faulthandler.is_enabled():
        return
    import ctypes

    def tell(_: int) -> None:
        # Python's own handlers run between two instructions, of which there is no next one here.
        lost = lost_files()
        line = _lost(lost) if lost else f"a bus error, as where shared memory is full or a disk is gone; {_GO_ON[5:]}"
        os.write(2, f"\nerror: {line}\n".encode())
        os._exit(2)

    _KEPT.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(tell))
    ctypes.CDLL(None).signal(signal.SIGBUS, _KEPT[-1])


_KEPT: list[Any] = []
"""Functions that C calls: they must not be collected."""


def follow_first_process(rank: int) -> None:
    """Ends this process soon after the one that started it, so that none is left waiting for what never comes.

    For all ranks but the first of a run. One that ends by itself meanwhile is left in peace.

    Args:
        rank: Rank of this process. The first one leaves its number to those it will start: one of them may look for it
            when it is gone already.
    """
    if rank == 0:
        os.environ[_FIRST_PROCESS] = str(os.getpid())
        return
    parent = os.getppid()
    if parent == 1 and os.environ.get(_FIRST_PROCESS, "1") != "1":  # handed to the system's first process already
        parent = 0

    def end() -> None:
        time.sleep(_GRACE)
        print(
            f"error: the first process of this run is gone, so this one ends, too; see what it said, {_GO_ON}",
            file=sys.stderr,
        )
        os._exit(1)

    _when_gone(parent, end)


def teacher_environment() -> dict[str, str]:
    """Environment variables for a teacher's run that this process starts and waits for; see `follow_student`."""
    return {_STUDENT_PROCESS: str(os.getpid())}


def follow_student() -> None:
    """Ends a teacher's run, as SIGTERM does, when the student's that waits for it is gone: nobody would take it.

    Killed with -9, a student cannot end its teacher itself. Does nothing in a run that no student started.
    """
    student = os.environ.pop(_STUDENT_PROCESS, None)  # not for processes that this one starts
    if student is None:
        return

    def end() -> None:
        print("the run that this teacher is trained for is gone, so its training ends, too", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGTERM)

    _when_gone(int(student), end)


def _when_gone(parent: int, end: Callable[[], None]) -> None:
    """Calls `end`, in a thread, once the process that started this one is not `parent` any more."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        end()

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


class StopTogether(Callback):
    """Ends a run on SIGTERM or Ctrl-C between two steps; several processes at the same one, whichever got the signal.

    The one place where SIGTERM is handled: one process alone is left to Lightning, which ends it after the batch, but
    for one that accumulates gradients: it goes on to the next step, as those since the last are in no checkpoint.
    For several, Lightning's handler talks to the others in the middle of whatever they are talking about, and waits for
    ever where they wait for it. Ours only notes the signal; after every batch all of them ask each other.

    Ctrl-C is taken the same way: Python would raise it in the middle of a step, where some weights are new and some
    old. A second one does end the run at once.

    Attributes:
        notices: The signals this process has received and noted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notices: set[int] = set()
        self._agreed = self._handles = False

    def _listen(self, handler: Callable[[int, FrameType | None], Any], *signals: int) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in signals:
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.notices.add(number)

    def _interrupt(self, trainer: Trainer, number: int, frame: FrameType | None) -> None:
        """Ctrl-C."""
        if number in self.notices:
            raise KeyboardInterrupt
        self.notices.add(number)
        if trainer.is_global_zero:
            print("\nstopping after this step; Ctrl-C again stops at once, without its state", file=sys.stderr)
        if not self._handles:
            self._tell(trainer, True)

    def _tell(self, trainer: Trainer, stop: bool) -> None:
        """Has Lightning's loops raise their SIGTERMException, at their next opportunity, or not yet."""
        trainer._signal_connector.received_sigterm = stop

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the place of the handlers that Lightning knows, which it puts back at the end."""
        self._handles = trainer.world_size > 1 or trainer.accumulate_grad_batches > 1
        if self._handles:
            self._listen(self._note, signal.SIGTERM)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a command in the background ignores it
            self._listen(partial(self._interrupt, trainer), signal.SIGINT)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Has the process end with the code of Ctrl-C where that was the reason."""
        if signal.SIGINT in self.notices and isinstance(exception, SIGTERMException):
            exception.code = INTERRUPTED

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Asks all processes after a step whether one was told to stop; they then stop."""
        if self._handles and not trainer.fit_loop._should_accumulate():
            self._agreed = trainer.strategy.reduce_boolean_decision(bool(self.notices), all=False)
            self._tell(trainer, self._agreed)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets a validation that is due run to its end: processes with unequal shares would leave it apart."""
        if self._agreed:
            self._tell(trainer, False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops after it."""
        if self._agreed:
            self._tell(trainer, True)
