"""Executors of other libraries as a place for calls."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

from sqlbuffer._messages import shown, summary
from sqlbuffer.errors import CannotMeasure, InvalidArgument
from sqlbuffer.measuring.calls import Answer, call
from sqlbuffer.measuring.places import Ended, Part

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.1


class Futures:
    """Runs each call as a future of an executor.

    Only `submit` of the executor is used, and `done`, `result`, `cancel` and, where there is one,
    `running` of its futures: dask, submitit and mpi4py have them. A future that cannot tell whether
    it runs may wait in a queue, and never times out.

    Attributes:
        broken: Why no call can be made any more; None while calls can be made.
    """

    falls_together = True
    begins_late = False

    def __init__(
        self,
        fn: Callable[[Any], Any],
        executor: Any,
        *,
        n_jobs: int,
        each: bool,
        timeout_s: float | None,
    ) -> None:
        if not callable(getattr(executor, "submit", None)):
            raise InvalidArgument(
                f"executor must have the methods of concurrent.futures.Executor; got "
                f"{shown(executor)}."
            )
        self._fn, self._executor, self._n_jobs, self._each = fn, executor, n_jobs, each
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._running: list[_Running] = []
        self.broken: CannotMeasure | None = None

    def free(self) -> int:
        """Return how many of `n_jobs` futures are left; 0 if the executor is broken."""
        return 0 if self.broken is not None else self._n_jobs - len(self._running)

    def running(self) -> int:
        """Return the number of futures."""
        return len(self._running)

    def start(self, part: Part) -> None:
        """Submit a call to the executor; one that is broken or shut down takes no call."""
        try:
            future = self._executor.submit(call, self._fn, part.samples, self._each)
        except RuntimeError as exc:
            self.broken = CannotMeasure(
                f"the executor is broken or shut down ({summary(exc)}): make a new one."
            )
        else:
            self._running.append(_Running(part, future))

    def wait(self, timeout_s: float) -> list[Ended]:
        """Return the calls that have ended; give up those that ran for too long."""
        end, pause_s = time.monotonic() + timeout_s, _SHORTEST_PAUSE_S
        while True:
            ended = self._collect()
            if ended or self.broken is not None:
                return ended
            left_s = end - time.monotonic()
            if left_s <= 0 or not self._running:
                return []
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def close(self) -> None:
        """Cancel the futures; the executor stays open, and a call that has begun goes on there."""
        for running in self._running:
            running.future.cancel()
        self._running.clear()

    def _collect(self) -> list[Ended]:
        ended: list[Ended] = []
        for running in list(self._running):
            try:
                answer = self._answer(running)
            except BrokenExecutor as exc:
                return ended + self._end_all(exc)
            if answer is not None:
                self._running.remove(running)
                ended.append(Ended(running.part, answer))
        return ended

    def _answer(self, running: _Running) -> Answer | None:
        """Return the answer of a call; None if there is none yet, or the function is to blame."""
        try:
            return running.answer(self._timeout_s)
        except (pickle.PicklingError, AttributeError, TypeError) as exc:
            if _travels(self._fn):
                return Answer.failure(
                    f"the sample cannot be sent to the executor: {summary(exc)}", 0.0
                )
            self.broken = CannotMeasure(
                f"the executor cannot run the reward function ({summary(exc)}): define it at the "
                "top level of a module."
            )
            return None

    def _end_all(self, error: BrokenExecutor) -> list[Ended]:
        """End all calls, because a process that died in one of them has broken the executor.

        It is not known in which call.
        """
        if isinstance(error, BrokenThreadPool):  # its initializer failed, and no call has begun
            self.broken = CannotMeasure(
                f"the executor is broken ({summary(error)}): make a new one, with an initializer "
                "that works."
            )
            return []
        self.broken = CannotMeasure(
            f"a process of the executor died, which has broken it ({summary(error)}): make a new "
            "executor and call again; each sample that it was measuring has had an attempt, and "
            "fails after max_attempts."
        )
        ended = [
            Ended(running.part, running.result_or_lost(summary(error))) for running in self._running
        ]
        self._running.clear()
        return ended


class _Running:
    """A call that an executor makes."""

    def __init__(self, part: Part, future: Any) -> None:
        self.part, self.future = part, future
        self._submitted = time.monotonic()
        self._begun: float | None = None

    def answer(self, timeout_s: float) -> Answer | None:
        """Return the answer of the future; None if there is none yet.

        Raises:
            BrokenExecutor: If a process of the executor has died, in this call or in another.
            AttributeError: See PicklingError, which pickle raises in some cases only.
            TypeError: See PicklingError.
            PicklingError: If the call cannot be sent.
        """
        if self.future.done():
            return self._result()
        if self._begun is None and getattr(self.future, "running", bool)():
            self._begun = time.monotonic()
        if self._begun is None or time.monotonic() < self._begun + timeout_s:
            return None
        self.future.cancel()
        return Answer.failure(f"timed out after {timeout_s:g} s", timeout_s)

    def result_or_lost(self, reason: str) -> Answer:
        """Return the result if there is one; otherwise the call has died."""
        try:
            return self._result() if self.future.done() else self._lost(reason)
        except Exception:
            return self._lost(reason)

    def _result(self) -> Answer:
        """Return the result; exceptions are those of the executor, since `call` catches all."""
        try:
            answer: Answer = self.future.result()
        except (BrokenExecutor, pickle.PicklingError, AttributeError, TypeError):
            raise
        except CancelledError:
            return self._lost("the executor cancelled the call")
        except Exception as exc:
            return self._lost(summary(exc))
        return answer

    def _lost(self, reason: str) -> Answer:
        seconds = time.monotonic() - self._submitted
        return Answer.failure(f"worker died, {reason}", seconds, died=True)


def _travels(function: Callable[[Any], Any]) -> bool:
    """Tell whether pickle alone can send a function to another process."""
    try:
        pickle.dumps(function)
    except Exception:
        return False
    return True
