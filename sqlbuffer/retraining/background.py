"""Retraining in a process next to the loop.

A thread is unsuitable: dropout draws from torch's one global generator, which a training seeds and
restores, so two threads would corrupt each other's numbers. A fork is unsuitable: it may use
neither a GPU nor the threads that torch has started. One process is spawned and keeps a copy of the
agent.
"""

from __future__ import annotations

import copy
import functools
import logging
import multiprocessing
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from sqlbuffer._messages import summary
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.predictor.weights import load_state
from sqlbuffer.retraining.worker import retrain_alone

if TYPE_CHECKING:
    from sqlbuffer.store import SampleStore

logger = logging.getLogger(__name__)

_work: tuple[SampleStore, Any]
"""The store and the agent of the spawned process."""


class Background:
    """A process that retrains a copy of an agent, one training at a time.

    The process stores each new predictor; the loop loads it from the store.

    Args:
        store: The buffer.
        agent: The agent.

    Raises:
        InvalidArgument: If the store or the agent cannot be sent to another process.
    """

    def __init__(self, store: SampleStore, agent: Any) -> None:
        if getattr(multiprocessing.process.current_process(), "_inheriting", False):
            raise InvalidArgument(
                "in_background=True starts a process, which imports the script: put the code of "
                'the script under `if __name__ == "__main__":`.'
            )
        try:
            # Tensors are not pickled but moved to memory that both processes share. Without a copy
            # the training would change the weights that the loop draws by.
            agent = copy.deepcopy(agent)
            ForkingPickler.dumps((store, agent))
        except Exception as exc:
            raise InvalidArgument(
                "in_background=True sends agent and key to another process, but they cannot be "
                f"pickled ({summary(exc)}): define their classes and functions at the top of a "
                "module, or run `sqlbuffer worker` instead."
            ) from exc
        spawn = multiprocessing.get_context("spawn")
        self._new_executor = functools.partial(
            ProcessPoolExecutor, 1, spawn, initializer=_set_up, initargs=(store, agent)
        )
        self._executor = self._new_executor()
        self._pid = os.getpid()
        self._training: Future[None] | None = None

    def start(self, state: bytes, options: Mapping[str, Any]) -> None:
        """Begin a training from these weights, unless one is running; never wait for one.

        A process that has died, perhaps killed for its memory, is replaced.
        """
        if self._pid != os.getpid():  # a forked child cannot use its parent's process
            self._executor, self._pid, self._training = self._new_executor(), os.getpid(), None
        if self._training is not None and not self._training.done():
            logger.info("not retrained: the previous retraining is still running")
            return
        try:
            self._training = self._executor.submit(_train, state, dict(options))
        except BrokenProcessPool:
            logger.warning("the process that retrains has died: a new process replaces it")
            self._executor = self._new_executor()
            self._training = self._executor.submit(_train, state, dict(options))
        self._training.add_done_callback(_report)

    def close(self) -> None:
        """Wait for the current training, and end the process; a forked child does nothing."""
        if self._pid == os.getpid():
            self._executor.shutdown()


def _report(training: Future[None]) -> None:
    if not training.cancelled() and (error := training.exception()) is not None:
        logger.error("retraining in the background failed: %s", summary(error))


# -- in the spawned process -----------------------------------------------------------------------


def _set_up(store: SampleStore, agent: Any) -> None:
    global _work
    _work = store, agent
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """End this process when the loop has been killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(state: bytes, options: Mapping[str, Any]) -> None:
    store, agent = _work
    load_state(agent, state)
    retrain_alone(store, agent, **options)
