"""Graceful stops: a signal requests one, and the training loop stops after the current step.

A signal handler runs at any point of the program, so it must neither save nor communicate with other ranks. Here it
only records the request. A thread reads the system's signal pipe, so that a process that waits in a collective can be
ended, and so that no rank outlives the process that launched it. No torch: it is in place before slow imports.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from vit_attn.files import remove_pending

PARENT_VARIABLE = "VIT_ATTN_PARENT"
"""Process that launched this rank; when it is gone, the rank ends."""
REQUEUE = getattr(signal, "SIGUSR1", None)
"""Signal that SLURM sends, on request, before a job's time is over: save, and queue the job again."""
DEADLINE = 40.0
"""Seconds within which one of several ranks must end its step; after that it ends without saving."""
GONE = 137
"""Exit code of a rank whose launcher is gone."""


class Stopped(BaseException):
    """The training was stopped by a signal, and its state is saved.

    Args:
        signum: The signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """Exit code as of a shell: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signum


class StopRequest:
    """Stop request by a signal.

    Before training and after it, a signal ends the process at once. While training is under way, the first signal is
    recorded in ``signum`` and the second ends the process.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.under_way = False
        self.deadline = float("inf")
        self._noted_at = float("inf")

    def note(self, signum: int) -> None:
        """Record a signal, or end the process."""
        if not self.under_way or self.signum:
            leave(128 + signum, "" if self.signum else _nothing_saved(signum))
        self.signum, self._noted_at = signum, time.monotonic()

    def clear(self) -> None:
        """Drop the deadline: the request is being handled, and the next signal ends the process."""
        self._noted_at = float("inf")

    @property
    def overdue(self) -> bool:
        """True if the request was not handled within the deadline."""
        return time.monotonic() - self._noted_at > self.deadline


_request: StopRequest | None = None


def current() -> StopRequest:
    """Get the stop request of the running command; without a command, one that is never made."""
    return _request or StopRequest()


@contextlib.contextmanager
def listening() -> Iterator[StopRequest]:
    """Handle signals inside the ``with`` block: SIGINT, SIGTERM, SIGHUP unless it is ignored (``nohup``), and SIGUSR1.

    Python allows that in the main thread only; in another one, signals are left as they are.
    """
    global _request
    if threading.current_thread() is not threading.main_thread() or _request is not None:
        yield current()
        return
    request = _request = StopRequest()
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    before = {number: signal.signal(number, _do_nothing) for number in _signals()}
    pipe = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(request, reader, over, set(before)), name="signals", daemon=True)
    watcher.start()
    try:
        yield request
    finally:
        over.set()
        watcher.join()
        signal.set_wakeup_fd(pipe)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()
        _request = None


def is_listening() -> bool:
    """Return true if a command of this process handles signals."""
    return _request is not None


def ignore_signals(_worker: int = 0) -> None:
    """Ignore signals in a data loading worker, which a signal to all processes would kill before the training stops."""
    for number in _signals():
        signal.signal(number, signal.SIG_IGN)


def _forget() -> None:
    """Restore the default handlers in a forked child, whose pipe would be that of its parent."""
    if _request is None:
        return
    signal.set_wakeup_fd(-1)
    for number in _signals():
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def leave(code: int, line: str = "") -> None:
    """End the process at once, with a last line on stderr, and without half-written files."""
    remove_pending()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        os.write(2, f"vit-attn: {line}\n".encode() if line else b"")
    os._exit(code)


def _signals() -> list[int]:
    known = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None), REQUEUE]
    return [int(each) for each in known if each is not None and signal.getsignal(each) is not signal.SIG_IGN]


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    """Handle nothing: Python writes a signal to the pipe only if it has a handler."""


def _watch(request: StopRequest, pipe: socket.socket, over: threading.Event, signals: set[int]) -> None:
    launcher = int(os.environ.get(PARENT_VARIABLE, "0")) if "LOCAL_RANK" in os.environ else 0
    launcher = 0 if launcher == os.getpid() else launcher
    while not over.wait(0.05):
        with contextlib.suppress(BlockingIOError):
            for signum in pipe.recv(64):
                if signum in signals:
                    request.note(signum)
        if request.overdue:
            leave(128 + request.signum, f"no step ended within {request.deadline:.0f} s: stopped without saving")
        if launcher and os.getppid() != launcher:
            leave(GONE, "the process that started this one is gone")


def _nothing_saved(signum: int) -> str:
    return f"stopped by {signal.Signals(signum).name} while nothing was being trained"
