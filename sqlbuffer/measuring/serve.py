"""The loop of a child process: loads a reward function, and calls it until the parent closes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from sqlbuffer.measuring.calls import Answer, call
from sqlbuffer.measuring.outcome import reason_of


def serve(link: Connection) -> None:
    """Answer the calls that come through a connection."""
    signals = _heed_signals()
    function, own = _load(link), os.getpid()
    while function is not None:
        try:
            message = link.recv_bytes()
        except EOFError:
            return
        signals.clear()
        answer = _answer(function, message)
        if os.getpid() != own:  # a fork of the function has come back: it has no say
            os._exit(0)
        if signals and answer.values is None:
            _end_by(signals[0])  # the signal may have ended a program that the function called
        _flush()
        link.send_bytes(answer.encoded())


def _heed_signals() -> list[int]:
    """Outlive a signal that goes to all processes of a job: the parent decides when to end.

    A handler, not SIG_IGN, which the programs that a reward function starts would inherit.

    Returns:
        The signals, as they come.
    """
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: received.append(number))
    return received


def _load(link: Connection) -> Callable[[Any], Any] | None:
    """Load the reward function, and tell the parent why if it does not load."""
    function, error = None, None
    try:
        function = pickle.loads(link.recv_bytes())
    except BaseException as exc:
        error = reason_of(exc)
    link.send_bytes(json.dumps(error).encode())
    return function


def _answer(function: Callable[[Any], Any], message: bytes) -> Answer:
    try:
        each, samples = pickle.loads(message)
    except BaseException as exc:
        return Answer.failure(f"the sample cannot be loaded: {reason_of(exc)}", 0.0)
    return call(function, samples, each)


def _end_by(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _flush() -> None:
    """Show what a reward function has printed, which is lost when the process is killed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # closed by the function
            continue
