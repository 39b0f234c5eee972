"""Child processes that run a reward function: one for each slot, killed and replaced alone.

pebble's ProcessPool was tried: a call that ends its process with exit code 0 never ends there, and
a result that cannot be unpickled breaks the pool. `multiprocessing` runs the user's script again in
each child, so that every script needs a guard.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from sqlbuffer.errors import CannotMeasure, InvalidArgument
from sqlbuffer.measuring.calls import Answer
from sqlbuffer.measuring.functions import packed, packed_value
from sqlbuffer.measuring.outcome import exit_of, one_line, reason_of
from sqlbuffer.measuring.places import Ended, Part

_PROGRAM = str(pathlib.Path(__file__).with_name("child.py"))
_MOST_FAILED_STARTS = 3
_LOOK_S = 1.0
"""How often to look for dead children whose socket a process that they forked keeps open."""
_END_S = 1.0
"""How long a child that has nothing to do may take to end."""
_DEATH_S = 5.0
"""How long a killed process may take to end."""
_LOST = (EOFError, OSError)
"""What the connection to a process that has died raises."""


class ChildProcesses:
    """Runs each call in one of n child processes.

    A child that has loaded the function gets its first call: a child that dies before has begun no
    sample.

    Args:
        fn: The reward function.
        n_jobs: The number of child processes.
        each: See `Slots`.
        timeout_s: See `Slots`.

    Attributes:
        broken: Why no call can be made any more; None while calls can be made.
    """

    falls_together = False
    begins_late = True

    def __init__(
        self,
        fn: Callable[[Any], Any],
        *,
        n_jobs: int,
        each: bool,
        timeout_s: float | None,
    ) -> None:
        if os.name != "posix":
            raise InvalidArgument(
                "child processes need Linux or macOS: use n_jobs=1 without timeout_s, or an "
                "executor."
            )
        self._function = packed(fn)
        self._each = each
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._slots = [_Slot() for _ in range(n_jobs)]
        self._ended: list[Ended] = []
        self._n_failed_starts = 0
        self.broken: CannotMeasure | None = None

    def free(self) -> int:
        """Return the number of slots without a call."""
        return sum(slot.part is None for slot in self._slots)

    def running(self) -> int:
        """Return the number of calls that `wait` has not returned."""
        return len(self._slots) - self.free() + len(self._ended)

    def start(self, part: Part) -> None:
        """Hand a call to a free slot; a sample that cannot be pickled fails."""
        try:
            message = packed_value((self._each, list(part.samples)))
        except Exception as exc:
            reason = f"the sample cannot be sent to a child process: {reason_of(exc)}"
            self._ended.append(Ended(part, Answer.failure(reason, 0.0)))
            return
        slot = next(slot for slot in self._slots if slot.part is None)
        slot.part, slot.message, slot.begun = part, message, None
        self._hand_over(slot)

    def wait(self, timeout_s: float) -> list[Ended]:
        """Return the calls that have ended; kill those that ran for too long."""
        end = time.monotonic() + timeout_s
        while True:
            for slot in self._slots:
                self._look_at(slot)
            if self._ended or self.broken is not None:
                ended, self._ended = self._ended, []
                return ended
            now = time.monotonic()
            busy = [slot for slot in self._slots if slot.part is not None]
            if now >= end or not busy:
                return []
            soonest = min(slot.deadline(self._timeout_s) for slot in busy)
            connection.wait(
                [slot.child.link for slot in busy if slot.child is not None],
                max(0.0, min(end, soonest, now + _LOOK_S) - now),
            )

    def close(self) -> None:
        """Kill the children that are in a call; the others end by themselves."""
        for slot in self._slots:
            if slot.child is not None:
                slot.child.close_link() if slot.part is None else slot.child.kill()
        for slot in self._slots:
            if slot.child is not None:
                slot.child.end(_END_S)
            slot.child = slot.part = None
        self._ended.clear()

    def _hand_over(self, slot: _Slot) -> None:
        """Send a call to the child of its slot, once the child has loaded the function."""
        if slot.child is None or slot.child.has_ended():
            self._replace(slot)
        if slot.part is None or slot.child is None or not slot.child.is_ready:
            return
        slot.part.begin(slot.part.indices)
        try:
            slot.child.link.send_bytes(slot.message)
        except _LOST:  # killed while it was idle: the sample has no part in it
            self._replace(slot)
        else:
            slot.begun, slot.message = time.monotonic(), b""

    def _replace(self, slot: _Slot) -> None:
        if slot.child is not None:
            slot.child.kill()
            slot.child.end(_END_S)
            slot.child = None
        if self.broken is None:
            try:
                slot.child = _Child(self._function)
            except OSError as exc:
                self.broken = CannotMeasure(
                    f"no child process can be started for the reward function ({exc}): use a "
                    "smaller n_jobs."
                )

    def _look_at(self, slot: _Slot) -> None:
        part, child = slot.part, slot.child
        if part is None or child is None:
            return
        try:
            # A child that has ended may have answered before.
            has_ended = child.has_ended()
            message = child.link.recv_bytes() if child.link.poll() else None
        except _LOST:
            has_ended, message = True, None
        if message is not None and child.is_ready:
            slot.part = None
            self._ended.append(Ended(part, Answer.decoded(message)))
        elif message is not None:
            self._has_loaded(slot, child, json.loads(message))
        elif has_ended:
            self._has_died(slot, part, child)
        elif time.monotonic() >= slot.deadline(self._timeout_s):
            reason = f"timed out after {self._timeout_s:g} s"
            self._abandon(slot, part, Answer.failure(reason, self._timeout_s))

    def _has_loaded(self, slot: _Slot, child: _Child, error: str | None) -> None:
        if error is None:
            child.is_ready, self._n_failed_starts = True, 0
            self._hand_over(slot)
        else:
            self.broken = CannotMeasure(
                f"the reward function cannot be loaded in a child process: {one_line(error)}"
            )

    def _has_died(self, slot: _Slot, part: Part, child: _Child) -> None:
        code = exit_of(child.end(_END_S))
        if slot.begun is not None:
            seconds = time.monotonic() - slot.begun
            answer = Answer.failure(f"worker died, {code}", seconds, died=True)
            return self._abandon(slot, part, answer)
        if not child.is_ready:
            self._n_failed_starts += 1
        if self._n_failed_starts >= _MOST_FAILED_STARTS:
            self.broken = CannotMeasure(
                "child processes die while they load the reward function; the last one ended with "
                f"{code}: import its module in a new Python to see why."
            )
        self._replace(slot)

    def _abandon(self, slot: _Slot, part: Part, answer: Answer) -> None:
        """End a call with its child; the next call of the slot starts another child."""
        self._ended.append(Ended(part, answer))
        if slot.child is not None:
            slot.child.kill()
            slot.child.end(_END_S)
        slot.part = slot.child = None


class _Slot:
    """One call at a time, and the child process that makes it."""

    def __init__(self) -> None:
        self.child: _Child | None = None
        self.part: Part | None = None
        self.message = b""
        self.begun: float | None = None
        """When the call was sent; None while the child still loads the function."""

    def deadline(self, timeout_s: float) -> float:
        return math.inf if self.begun is None else self.begun + timeout_s


class _Child:
    """A child process in a session of its own."""

    def __init__(self, function: bytes) -> None:
        self.is_ready = False
        self.link, theirs = connection.Pipe()
        life, self._life = os.pipe()
        fds = (theirs.fileno(), life)
        try:
            self._process = subprocess.Popen(
                [sys.executable, _PROGRAM, *map(str, fds)],
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                start_new_session=True,
            )
        except OSError:
            self.link.close()
            os.close(self._life)
            raise
        finally:
            theirs.close()
            os.close(life)
        with contextlib.suppress(*_LOST):  # has died already, which `has_ended` tells
            self.link.send_bytes(json.dumps([os.fsdecode(path) for path in sys.path]).encode())
            self.link.send_bytes(function)

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def close_link(self) -> None:
        """Tell an idle child to end."""
        self.link.close()

    def kill(self) -> None:
        """Kill the process and all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: of a zombie
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self, patience_s: float) -> int:
        """Wait for the end of the process, kill it when it takes too long, return its exit code."""
        try:
            code = self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._killed()
        self.link.close()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
        return code

    def _killed(self) -> int:
        try:
            return self._process.wait(_DEATH_S)
        except subprocess.TimeoutExpired:  # in a system call that does not return, such as of NFS
            return -signal.SIGKILL
