"""Two PostgreSQL servers that change places. By hand: `pytest -m soak -n 0 -s
tests/process/test_failover.py`.

`SQLBUFFER_FAILOVERS` says how often an in-step standby is promoted while a crew works: 20 by
default.
"""

import itertools
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

from helpers.soak import predicted, reward_of, soak
from helpers.standbys import Pair, pair
from sqlbuffer.errors import ClaimLost, StaleIds
from sqlbuffer.store import SampleStore, open_store

pytestmark = pytest.mark.soak

FAILOVERS = int(os.environ.get("SQLBUFFER_FAILOVERS", "20"))
N = 500


@pytest.fixture
def servers() -> Iterator[Pair]:
    """A primary that as yet no process follows."""
    with pair() as both:
        yield both


def begin_in_step(servers: Pair) -> None:
    """Let no COMMIT end before the standby has it, whichever of the two is the standby."""
    servers.keep_in_step(in_step=True)  # before the copy, so that both servers have the setting
    servers.follow()
    servers.wait_for_standby()


def names(first: int, n: int = N) -> list[str]:
    return [f"s{i}" for i in range(first, first + n)]


def fill(store: SampleStore, samples: list[str]) -> None:
    store.add(samples)
    store.score(predicted)


def work_elsewhere(url: str, first: int) -> None:
    """What another process does after the failover: it stores and draws samples of its own, as
    many.
    """
    with open_store(url) as store:
        fill(store, names(first))
        batch = store.sample(N)
        batch.settle([reward_of(sample) for sample in batch.samples])
        fill(store, names(first + N))


def let_others_work(url: str, first: int) -> None:
    child = multiprocessing.get_context("spawn").Process(target=work_elsewhere, args=(url, first))
    child.start()
    child.join(300)
    assert child.exitcode == 0


def wrong_rewards(store: SampleStore) -> int:
    samples, values = store.labelled()
    return sum(
        value != reward_of(sample) for sample, value in zip(samples, values.tolist(), strict=True)
    )


def worker_lives_through(
    servers: Pair, before: Callable[[], None], go_back: Callable[[], None]
) -> None:
    """Lose a batch, its samples, and numbers that were read; nothing of it may touch what others
    store since.
    """
    with open_store(servers.url) as store:
        fill(store, names(0, 100))
        before()
        fill(store, names(1000))
        waiting = store.waiting()
        batch, parts = store.sample(300), store.sample(200)
        parts.report(parts.ids[:50], [reward_of(sample) for sample in parts.samples[:50]])
        go_back()
        let_others_work(servers.url, 10_000)
        with pytest.raises(ClaimLost, match="returned to an earlier state"):
            batch.settle([reward_of(sample) for sample in batch.samples])
        with pytest.raises(ClaimLost, match="returned to an earlier state"):
            parts.report(parts.ids[50:], [reward_of(sample) for sample in parts.samples[50:]])
        for use in (store.remove, store.samples_of):
            with pytest.raises(StaleIds):
                use(waiting.ids.tolist())
        measured = [*batch.samples, *parts.samples[50:]]
        assert store.rewards_of(measured) == [reward_of(sample) for sample in measured]
        assert wrong_rewards(store) == 0
        assert store.check() == []
        n_measured = store.stats().measured
        print(
            f"{n_measured} rewards are stored, none of them wrong; {len(measured)} came of "
            f"batches that were lost"
        )
        again = store.sample(100)
        again.settle([reward_of(sample) for sample in again.samples])
        assert (wrong_rewards(store), store.check()) == (0, [])


def test_a_standby_that_lagged_is_promoted(servers: Pair) -> None:
    def lag() -> None:
        servers.wait_for_standby()
        servers.let_lag()

    servers.follow()
    worker_lives_through(servers, lag, servers.fail_over)


def test_an_earlier_backup_is_restored_under_a_living_worker(servers: Pair) -> None:
    """The same server comes back on the same timeline: only the rows themselves show it."""
    backup = servers.folder / "backup"
    worker_lives_through(servers, lambda: servers.back_up(backup), lambda: servers.restore(backup))


def test_numbers_and_claims_outlive_the_promotion_of_a_standby_in_step(servers: Pair) -> None:
    begin_in_step(servers)
    with open_store(servers.url) as store:
        fill(store, names(0))
        numbers = store.waiting().ids.tolist()
        batch = store.sample(100)
        servers.fail_over()
        servers.follow()
        assert store.remove(numbers) == N - 100
        batch.settle([reward_of(sample) for sample in batch.samples])
        assert (store.iteration, wrong_rewards(store), store.check()) == (1, 0, [])


def test_a_standby_in_step_is_promoted_repeatedly_while_workers_write(
    servers: Pair, tmp_path: pathlib.Path
) -> None:
    """Nothing that was acknowledged is lost, no reward is on a wrong sample."""
    begin_in_step(servers)
    left = itertools.count()

    def fail_over() -> None:
        servers.fail_over()
        servers.follow()
        servers.wait_for_standby()
        assert servers.execute("SELECT sync_state FROM pg_stat_replication") == [("sync",)]
        print(f"promoted {next(left) + 1} times", flush=True)

    with open_store(servers.url):
        pass
    figures = soak(
        servers.url,
        tmp_path,
        seconds=FAILOVERS * 60.0,
        restart=fail_over,
        every_s=(3.0, 8.0),
        most=FAILOVERS,
    )
    assert figures.restarts == FAILOVERS
    print(figures)
