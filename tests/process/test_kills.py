"""A process is killed at every boundary of a transaction, just before and just after each COMMIT:
nothing is lost.

Just after a COMMIT the database is as it is just before the next one, whose transaction will be
rolled back. So each "before", and the last "after", leave every state that there is; the long runs
kill at each "after" too.
"""

import contextlib
import os
import signal
from collections.abc import Iterable
from multiprocessing.connection import Connection

import pytest
import torch

from helpers.actions import (
    ACTIONS,
    TWENTY,
    account,
    drain,
    reward_of,
    start,
    take_up_the_job,
)
from helpers.forked import forkserver
from sqlbuffer.db import database
from sqlbuffer.store import open_store


def run_until(url: str, name: str, action: str, *, fatal: int | None) -> int:
    """Do something in a process of its own, which is killed at a boundary; return at how many it
    has come by.
    """
    processes = forkserver()
    read, write = processes.Pipe(duplex=False)
    process = processes.Process(target=live, args=(url, name, action, fatal, write))
    process.start()
    write.close()
    n_passed = 0
    with read, contextlib.suppress(EOFError):
        while read.recv():
            n_passed += 1
    process.join()
    assert process.exitcode == (0 if fatal is None else -signal.SIGKILL)
    return n_passed


def live(url: str, name: str, action: str, fatal: int | None, passed: Connection) -> None:
    """The life of the child."""
    n_passed = 0

    def come_by(moment: str) -> None:
        nonlocal n_passed
        if n_passed == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        n_passed += 1
        passed.send(moment)

    torch.set_num_threads(1)
    database.boundary = come_by
    with open_store(url, name=name) as store:
        done = ACTIONS[action](store)  # a batch that is dropped would be released at any moment
    del done


ACTS = [
    *(("sqlite", action) for action in ACTIONS),
    *(("postgresql", action) for action in ("add", "sample", "settle", "retrain")),
]


@pytest.mark.parametrize(("kind", "action"), ACTS)
def test_killed_at_every_boundary(kind: str, action: str, request: pytest.FixtureRequest) -> None:
    store_url = request.getfixturevalue(f"{kind}_url")
    n_boundaries = undisturbed(store_url, action)
    check_kills(store_url, action, [*range(0, n_boundaries, 2), n_boundaries - 1])


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "action"), ACTS)
def test_killed_after_every_commit(kind: str, action: str, request: pytest.FixtureRequest) -> None:
    store_url = request.getfixturevalue(f"{kind}_url")
    check_kills(store_url, action, range(1, undisturbed(store_url, action), 2))


def undisturbed(url: str, action: str) -> int:
    """Return the number of boundaries that an action comes by."""
    start(url, "undisturbed")
    n_boundaries = run_until(url, "undisturbed", action, fatal=None)
    assert n_boundaries >= 2
    assert n_boundaries % 2 == 0
    return n_boundaries


def check_kills(store_url: str, action: str, boundaries: Iterable[int]) -> None:
    for fatal in boundaries:
        name = f"killed at {fatal}"
        start(store_url, name)
        assert run_until(store_url, name, action, fatal=fatal) == fatal
        with open_store(store_url, name=name) as store:
            left = account(store)
            assert len(left.measured) >= 4
            stored = left.waiting | set(left.measured)
            assert stored >= set(TWENTY) or action == "remove"
            assert left.measured == {sample: reward_of(sample) for sample in left.measured}
            if action != "record":  # which may store a reward for a sample that goes on waiting
                assert not left.waiting & set(left.measured)
            if action == "retrain":
                take_up_the_job(store)
            again = drain(store)
            assert sorted(again) == sorted(left.waiting)
            assert account(store).measured == {sample: reward_of(sample) for sample in stored}
