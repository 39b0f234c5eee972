"""A process is killed at every boundary of a transaction, just before and just after each COMMIT: nothing is lost."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest
from conftest import scores_of

from sqlbuffer import database
from sqlbuffer.store import SampleStore, open_store

TWENTY = [f"s{i}" for i in range(20)]
LATE = ["s20", "s21", "s22"]


def reward_of(sample: str) -> float:
    """What an experiment measures."""
    return float(sample[1:]) / 7


def report_one_by_one(store: SampleStore) -> None:
    with store.sample(3) as batch:
        for i, sample in zip(batch.ids, batch.samples, strict=True):
            batch.report([i], [reward_of(sample)])


def report_and_release(store: SampleStore) -> None:
    batch = store.sample(4, pct_argmax=0.25)
    batch.report(batch.ids[:2], [reward_of(sample) for sample in batch.samples[:2]])
    batch.release()


def settle(store: SampleStore) -> None:
    with store.sample(3) as batch:
        rewards = [reward_of(sample) for sample in batch.samples]
        batch.settle(rewards, metrics={"loss": 1.0}, checkpoint={"loop": b"state"})


def retrain(store: SampleStore) -> None:
    store.save_predictor(b"weights", rows_trained=4)
    store.score(scores_of, only="stale", chunk=7)


def refresh_some(store: SampleStore) -> None:
    store.save_predictor(b"weights", rows_trained=4)
    store.score(lambda samples: scores_of(samples) + 1, only="stale", budget=7, checkpoint={"mark": b""})
    store.score(lambda samples: scores_of(samples) - 20, only="stale", budget=7)  # moves every key
    while store.score(scores_of, only="stale", budget=7):
        pass
    store.score(scores_of, only="stale", budget=7)


ACTIONS: dict[str, Callable[[SampleStore], object]] = {
    "add": lambda store: store.add([*LATE, *TWENTY[:5]]),
    "score": lambda store: (store.add(LATE), store.score(scores_of, chunk=2)),
    "sample": lambda store: store.sample(3, pct_argmax=0.5),
    "settle": settle,
    "report": report_one_by_one,
    "release": report_and_release,
    "refresh": lambda store: store.score(lambda samples: -scores_of(samples), only="all", chunk=7),
    "refresh some": refresh_some,
    "retrain": retrain,
    "record": lambda store: store.record([*LATE, TWENTY[0]], [reward_of(sample) for sample in [*LATE, TWENTY[0]]]),
    "remove": lambda store: store.remove(store.waiting().ids[:2].tolist()),
}


class Account(NamedTuple):
    """Where every sample of a buffer is."""

    waiting: set[str]
    measured: dict[str, float]


def start(url: str, name: str) -> None:
    """Fill a buffer: four of its samples are measured."""
    with open_store(url, name=name) as store:
        store.add(TWENTY)
        store.score(scores_of)
        with store.sample(4) as batch:
            batch.settle([reward_of(sample) for sample in batch.samples])


def run_until(url: str, name: str, action: str, *, fatal: int | None) -> int:
    """Do something in a process of its own, which is killed at a boundary; return at how many it has come by."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads: the child uses nothing of theirs
        pid = os.fork()
    if pid == 0:
        live(url, name, action, fatal=fatal, passed=write)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        n_passed = len(said.read())
    status = os.waitpid(pid, 0)[1]
    assert os.waitstatus_to_exitcode(status) == (0 if fatal is None else -signal.SIGKILL)
    return n_passed


def live(url: str, name: str, action: str, *, fatal: int | None, passed: int) -> None:
    """The life of the child, which does not return."""
    n_passed = 0

    def come_by(_: str) -> None:
        nonlocal n_passed
        if n_passed == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        n_passed += 1
        os.write(passed, b".")

    try:
        database.boundary = come_by
        ACTIONS[action](open_store(url, name=name))
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        os._exit(1)


def account(store: SampleStore) -> Account:
    assert store.check() == []
    assert store.stats().claimed == 0
    samples, rewards = store.labelled()
    return Account(set(store.waiting().samples), dict(zip(samples, rewards.tolist(), strict=True)))


def drain(store: SampleStore) -> list[str]:
    """Measure whatever waits; return it."""
    store.score(scores_of)
    seen: list[str] = []
    while len(store):
        with store.sample(5) as batch:
            batch.settle([reward_of(sample) for sample in batch.samples])
            seen += batch.samples
    return seen


@pytest.mark.parametrize("action", ACTIONS)
def test_killed_at_every_boundary(store_url: str, action: str) -> None:
    start(store_url, "undisturbed")
    n_boundaries = run_until(store_url, "undisturbed", action, fatal=None)
    assert n_boundaries >= 2
    assert n_boundaries % 2 == 0
    for fatal in range(n_boundaries):
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
            again = drain(store)
            assert sorted(again) == sorted(left.waiting)
            assert account(store).measured == {sample: reward_of(sample) for sample in stored}
