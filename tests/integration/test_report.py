"""Rewards that come one by one: what is reported is measured, the rest goes back when its worker
gives up or dies.
"""

import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.samples import scores_of
from sqlbuffer.core import workers
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db.backends import from_now
from sqlbuffer.db.schema import workers as workers_table
from sqlbuffer.errors import ClaimLost, InvalidArgument, InvalidReward
from sqlbuffer.records import AddResult
from sqlbuffer.store import SampleStore, open_store

OpenStore = Callable[..., SampleStore]
TEN = [f"s{i}" for i in range(10)]


def scored(store: SampleStore) -> SampleStore:
    store.add(TEN)
    store.score(scores_of)
    return store


def account(store: SampleStore) -> tuple[int, ...]:
    stats = store.stats()
    return stats.waiting, stats.claimed, stats.drawn, stats.measured, stats.iteration


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_the_last_report_settles(new_store: OpenStore, mode: str) -> None:
    store = scored(new_store(mode=mode))
    batch = store.sample(3)
    waiting = len(store)
    for i, left in enumerate([2, 1, 0]):
        assert account(store) == (waiting, 3 - i, 3, i, 0)
        assert store.check() == []
        assert batch.report(batch.ids[i : i + 1], [float(i)]) == left
    assert account(store) == (waiting, 0, 3, 3, 1)
    assert store.rewards_of(batch.samples) == [0.0, 1.0, 2.0]
    for closed in (batch.settle, batch.release, lambda: batch.report(batch.ids[:1], [5.0])):
        with pytest.raises(ClaimLost):
            closed()
    assert store.check() == []


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_release_gives_back_what_has_no_reward(new_store: OpenStore, mode: str) -> None:
    store = scored(new_store(mode=mode))
    with store.sample(5) as batch:
        assert batch.report(batch.ids[[1, 3]], [1.0, math.nan]) == 3
    assert batch.samples[1] not in store.waiting().samples or mode == "replay"
    assert (store.iteration, store.stats().claimed, store.check()) == (0, 0, [])
    assert len(store) == (8 if mode == "consume" else 10)
    stats = store.stats()
    assert (stats.measured, stats.failed) == (1, 1)
    again = store.sample(3)
    if mode == "consume":
        assert again.samples == [batch.samples[i] for i in (0, 2, 4)], "first in line"
    else:
        assert (again.importance_weights() > 0).all(), "as if it had been settled"


def test_settling_stores_the_rest(store: SampleStore) -> None:
    batch = scored(store).sample(4)
    batch.report(batch.ids[:2], [1.0, 2.0])
    batch.settle([9.0, 3.0], ids=batch.ids[1:3], metrics={"loss": 1.0})
    assert store.rewards_of(batch.samples) == [1.0, 9.0, 3.0, None]
    assert account(store) == (6, 0, 4, 3, 1)
    assert store.add(batch.samples, requeue=True) == AddResult(requeued=4)
    assert store.check() == []


def test_what_is_reported_may_be_added_again_at_once(store: SampleStore) -> None:
    """It waits again; neither the end of its old batch nor another reward for it ends that."""
    for end in ("settle", "release", "report"):
        store.add(TEN, requeue=True)
        store.score(scores_of)
        batch = store.sample(4)
        batch.report(batch.ids[:2], [1.0, 2.0])
        assert store.add(batch.samples, requeue=True) == AddResult(requeued=2, duplicates=2)
        batch.report(batch.ids[:1], [3.0])
        rewards = {
            "settle": ([4.0, 2.0, 5.0, 6.0],),
            "release": (),
            "report": (batch.ids, [4.0, 2.0, 5.0, 6.0]),
        }[end]
        getattr(batch, end)(*rewards)
        assert set(batch.samples[:2]) <= set(store.waiting().samples)
        assert store.check() == []


def test_the_later_of_two_rewards_counts(store: SampleStore) -> None:
    batch = scored(store).sample(3)
    first = int(batch.ids[0])
    for store_rewards in (batch.report, batch.settle):
        with pytest.raises(InvalidArgument, match=f"sample {first} is given 2 times: report each"):
            store_rewards(ids=[first, first], rewards=[1.0, 2.0])
    assert store.rewards_of(batch.samples[:1]) == [None]
    assert batch.report([first], [1.0]) == 2
    assert batch.report([first], [7.0]) == 2
    assert store.rewards_of(batch.samples[:1]) == [7.0]
    assert batch.report([], []) == 2
    assert store.check() == []


def test_an_empty_batch_has_nothing_to_report(store: SampleStore) -> None:
    batch = store.sample(3)
    assert batch.report([], []) == 0
    batch.settle()
    assert store.iteration == 1


@pytest.mark.parametrize(
    ("ids", "rewards", "error"),
    [
        ([10**9], [1.0], InvalidArgument),
        (["a"], [1.0], InvalidArgument),
        ([1.5], [1.0], InvalidArgument),
        ([[1]], [1.0], InvalidArgument),
        (1, 1.0, InvalidArgument),
        (None, [1.0], InvalidArgument),
        ("own", [1.0], InvalidReward),
        ("own", [math.inf, 1.0], InvalidReward),
        ("own", None, InvalidReward),
    ],
)
def test_wrong_reports_store_nothing(
    store: SampleStore, ids: Any, rewards: Any, error: type[Exception]
) -> None:
    batch = scored(store).sample(3)
    with pytest.raises(error) as caught:
        batch.report(batch.ids[:2] if ids == "own" else ids, rewards)
    assert str(caught.value).endswith(".")
    assert account(store) == (7, 3, 3, 0, 0)


@pytest.mark.slow
def test_dead_workers_give_back_unreported_samples(
    store_url: str, look_on: Callable[..., int]
) -> None:
    """And who was only taken for dead stores what it measures, but settles nothing."""
    with open_store(store_url) as store:
        batch = scored(store).sample(4)
        batch.report(batch.ids[:1], [1.0])
        mine = sa.update(workers_table).where(workers_table.c.id == workers.worker_id())
        away = mine.values(host="elsewhere", heartbeat_at=from_now(sa.literal(-100, sa.Double)))
        inside.execute(store, away)
        with open_store(store_url) as other:
            assert look_on(other, for_s=60) == 1
            assert account(other) == (9, 0, 1, 1, 0)
            assert other.check() == []
            with pytest.raises(ClaimLost, match="rewards are stored"):
                batch.report(batch.ids[1:3], [2.0, 3.0])
            with pytest.raises(ClaimLost):
                batch.report(batch.ids[3:], [4.0])
            assert other.rewards_of(batch.samples) == [1.0, 2.0, 3.0, 4.0]
            assert account(other) == (6, 0, 1, 4, 0), "what is measured waits no more"
            assert not set(hold(other.sample(3)).samples) & set(batch.samples)
            assert other.check() == []


def test_threads_report_one_batch(new_store: OpenStore) -> None:
    store = scored(new_store())
    batch = store.sample(8)
    left: list[int] = []
    threads = [
        threading.Thread(
            target=lambda i=i: left.append(batch.report(batch.ids[i : i + 1], np.ones(1)))
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(left) == list(range(8))
    assert account(store) == (2, 0, 8, 8, 1)
    assert store.check() == []


def test_the_last_report_closes_a_batch_whichever_thread_hears_of_it_first(
    new_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before is committed before the last, and comes back after it: the batch
    stays closed.
    """
    store = scored(new_store())
    batch = store.sample(4)
    first_is_committed, go_on = threading.Event(), threading.Event()

    def slow(moment: str) -> None:
        if moment == "after" and threading.current_thread().name == "slow":
            first_is_committed.set()
            assert go_on.wait(20)

    inside.call_at_commits(monkeypatch, slow)
    thread = threading.Thread(target=batch.report, args=(batch.ids[:3], np.ones(3)), name="slow")
    thread.start()
    assert first_is_committed.wait(20)
    other = threading.Thread(target=batch.report, args=(batch.ids[3:], np.ones(1)))
    other.start()
    other.join(5)  # on SQLite it has to wait for the connection
    go_on.set()
    for each in (thread, other):
        each.join(20)
    with batch:
        pass  # nothing to release
    assert not batch._is_open
    assert (account(store)[1], store.iteration, store.check()) == (0, 1, [])


@pytest.mark.parametrize("is_pickled", [False, True])
def test_settling_counts_what_others_have_reported(new_store: OpenStore, is_pickled: bool) -> None:
    """By a pickled copy, or by a report whose answer was lost to a signal."""
    store = scored(new_store())
    batch = store.sample(6)
    if is_pickled:
        pickle.loads(pickle.dumps(batch)).report(batch.ids[:2], [1.0, 2.0])
    else:
        with pytest.MonkeyPatch.context() as patch:
            inside.call_at_commits(patch, interrupt)
            with pytest.raises(KeyboardInterrupt):
                batch.report(batch.ids[:2], [1.0, 2.0])
    batch.settle()
    assert store.rewards_of(batch.samples[:2]) == [1.0, 2.0]
    assert (store.stats().claimed, store.check()) == (0, [])


def interrupt(moment: str) -> None:
    if moment == "after":
        raise KeyboardInterrupt


def test_a_batch_reported_in_part_remains_a_turn_of_the_race(new_store: OpenStore) -> None:
    """In replay mode what it drew stands at keys of that turn: no other draw may use the turn's
    variates again.
    """
    store = scored(new_store(mode="replay", weighting="uniform"))
    batch = store.sample(3)
    batch.report(batch.ids[:1], [1.0])
    batch.release()
    whole = store.sample(3)
    whole.release()
    assert inside.handle_of(store).read(Transaction.race_state).turn == 1
    assert store.check() == []
