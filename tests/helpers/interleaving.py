"""Stops one transaction at a chosen moment while others go on, on a file and on a server."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside
from sqlbuffer.core import workers
from sqlbuffer.store import SampleStore

_PATIENCE_S = 60.0
_MOMENT_S = 0.2
"""How long something may take that nothing holds up."""


class GivenUp(Exception):
    """Raised in the middle of a transaction that is not to be committed."""


class Acting:
    """Does something in a thread, which is a worker of its own."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._found: list[object] = []
        self._error: BaseException | None = None
        self._action = action
        self._thread = threading.Thread(target=self._act)

    def _act(self) -> None:
        try:
            self._found.append(self._action())
        except BaseException as exc:
            self._error = exc

    def start(self) -> None:
        """Begin, and come back when it is done or seems to wait for a lock."""
        self._thread.start()
        self._thread.join(_MOMENT_S)

    @property
    def is_waiting(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Any:
        """Wait for the end; return what came out, or raise it."""
        self._thread.join(_PATIENCE_S)
        assert not self._thread.is_alive(), "it waits for ever"
        if self._error is not None:
            raise self._error
        (found,) = self._found
        return found


class Stopped(Acting):
    """Something that stops once, in its first writing transaction: before the COMMIT, or after a
    statement.
    """

    def __init__(self, action: Callable[[], object], after: str | None) -> None:
        super().__init__(action)
        self.after = after
        self.has_stopped = threading.Event()
        self._goes_on = threading.Event()
        self._is_given_up = False

    def start(self) -> None:
        self._thread.start()
        assert self.has_stopped.wait(_PATIENCE_S), f"it never came to its stop: {self._error!r}"

    def is_here(self) -> bool:
        return self._thread.ident == threading.get_ident() and not self.has_stopped.is_set()

    def stop(self) -> None:
        self.has_stopped.set()
        assert self._goes_on.wait(_PATIENCE_S)
        if self._is_given_up:
            raise GivenUp

    def go_on(self) -> None:
        self._goes_on.set()

    def give_up(self) -> None:
        """Let the transaction be rolled back."""
        self._is_given_up = True
        self._goes_on.set()
        with contextlib.suppress(GivenUp):
            self.result()


class Interleaving:
    """Starts transactions that stop, and others next to them."""

    def __init__(self) -> None:
        self._stopped: list[Stopped] = []
        self._acting: list[Acting] = []
        self.deadlocks: list[str] = []

    def stopped(self, action: Callable[[], object], *, after: str | None = None) -> Stopped:
        """Begin something; return when it has come to its stop.

        Args:
            action: What to do. Its first transaction that writes is the one that stops.
            after: Pattern of the statement after which it stops; None: before its COMMIT.
        """
        begun = Stopped(action, after)
        self._stopped.append(begun)
        begun.start()
        return begun

    def alongside(self, action: Callable[[], object]) -> Acting:
        """Begin something else, which may have to wait for what is stopped."""
        begun = Acting(action)
        self._acting.append(begun)
        begun.start()
        return begun

    def finish(self) -> None:
        for stopped in self._stopped:
            stopped.go_on()
        for acting in (*self._stopped, *self._acting):
            acting._thread.join(_PATIENCE_S)

    # -- hooks -------------------------------------------------------------------------------------

    def before_commit(self, moment: str) -> None:
        for stopped in self._stopped:
            if moment == "before" and stopped.after is None and stopped.is_here():
                stopped.stop()

    def after_statement(self, connection: Any, cursor: Any, sql: str, *_: Any) -> None:
        for stopped in self._stopped:
            if stopped.after is not None and re.search(stopped.after, sql) and stopped.is_here():
                stopped.stop()

    def on_error(self, context: Any) -> None:
        if getattr(context.original_exception, "sqlstate", None) == "40P01":
            self.deadlocks.append(str(context.statement))


@pytest.fixture
def threads_are_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread is a worker of its own, else they would wait for each other at the row of their
    counters.
    """

    worker_id = workers._worker_id

    def name(pid: int) -> str:
        thread = threading.current_thread()
        return worker_id(pid) + ("" if thread is threading.main_thread() else f"-{thread.name}")

    monkeypatch.setattr(workers, "_worker_id", name)


@pytest.fixture
def interleaving(
    monkeypatch: pytest.MonkeyPatch, threads_are_workers: None
) -> Iterator[Interleaving]:
    """Lets a test stop transactions; none of them may have ended in a deadlock."""
    made = Interleaving()
    inside.call_at_commits(monkeypatch, made.before_commit)
    hooks = {"after_cursor_execute": made.after_statement, "handle_error": made.on_error}
    for event, hook in hooks.items():
        sa.event.listen(sa.Engine, event, hook)
    try:
        yield made
    finally:
        made.finish()
        for event, hook in hooks.items():
            sa.event.remove(sa.Engine, event, hook)
    assert made.deadlocks == []


class Gap:
    """Lets something be done once, just before the n-th transaction of a store from now on; it may
    never come.
    """

    def __init__(
        self, store: SampleStore, n: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.was_there = False
        self._left = n
        database = inside.database_of(store)
        run = database._run

        def run_beside(kind: str, attempt: Callable[[Any], Any]) -> Any:
            self._left -= 1
            if self._left == 0:
                self.was_there = True
                act()
            return run(kind, attempt)

        monkeypatch.setattr(database, "_run", run_beside)
