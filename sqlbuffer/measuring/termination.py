"""SIGTERM during a measurement: release what is claimed, then end as the signal asks."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class _Terminated(BaseException):
    """SIGTERM has come; `except Exception` in a reward function does not catch it."""


@contextlib.contextmanager
def terminated_in_order() -> Iterator[None]:
    """Leave the block at SIGTERM as by an exception, and end the process afterwards.

    Without this a process that is preempted or shut down would die with its claims, which counts as
    an attempt at the samples that it measures. A handler of the user's own stays in force.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # until the samples are released
    raise _Terminated
