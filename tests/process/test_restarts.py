"""A script that begins with `store.add(library)` is killed and run again; processes that add the
same library at the same time.
"""

import multiprocessing
import os
import pathlib
import random
import signal
from multiprocessing.connection import Connection
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.forked import forkserver
from helpers.samples import scores_of
from sqlbuffer.core import add
from sqlbuffer.db import database
from sqlbuffer.db.schema import batches, draws, samples
from sqlbuffer.store import SampleStore, open_store

LIBRARY = [f"s{i}" for i in random.Random(0).sample(range(1000), 90)]
N_ITERATIONS, N_DRAWN = 8, 7


def script(url: str, name: str, journal: pathlib.Path, fatal: int | None) -> None:
    """Search a library; the process is killed at a boundary of a transaction, before or after."""
    n_passed = 0

    def come_by(moment: str) -> None:
        nonlocal n_passed
        n_passed += 1
        if n_passed == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    database.boundary = come_by
    with open_store(url, name=name, weighting="shift") as store:
        store.add(LIBRARY, source="library")
        store.score(scores_of)
        while store.iteration < N_ITERATIONS:
            with store.sample(N_DRAWN, pct_argmax=0.3) as batch, journal.open("a") as calls:
                rewards = scores_of(batch.samples) % 17
                print(*batch.samples, sep="\n", file=calls, flush=True)
                batch.settle([reward if reward else None for reward in rewards])


def ran(url: str, name: str, journal: pathlib.Path, fatal: int | None = None) -> None:
    process = forkserver().Process(target=script, args=(url, name, journal, fatal))
    process.start()
    process.join()
    assert process.exitcode == (0 if fatal is None else -signal.SIGKILL)


def what_is_left(store: SampleStore) -> dict[str, Any]:
    """The rewards, the batches that were settled, and the pool."""
    mine = batches.c.buffer_id == inside.buffer_id(store)
    drawn = (
        sa.select(samples.c.text)
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .join(samples, samples.c.id == draws.c.sample_id)
        .where(mine, batches.c.settled_at.is_not(None))
        .order_by(batches.c.id, draws.c.position)
    )
    given, rewards = store.labelled()
    return {
        "rewards": dict(zip(given, rewards.tolist(), strict=True)),
        "drawn": inside.scalars(store, drawn),
        "waiting": store.waiting().samples,
        "requeued": store.stats().requeued,
        "added": store.stats().stored,
        "problems": store.check(),
    }


def test_a_killed_script_that_adds_its_library_again_equals_an_undisturbed_one(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    ran(store_url, "undisturbed", tmp_path / "undisturbed")
    killed = tmp_path / "killed"
    for fatal in (3, 8, 11, 7, 10):  # after the library, in a batch, and between batches
        ran(store_url, "killed", killed, fatal)
    ran(store_url, "killed", killed)
    with (
        open_store(store_url, name="undisturbed") as one,
        open_store(store_url, name="killed") as other,
    ):
        left = what_is_left(one)
        assert left == what_is_left(other)
    assert len(left["drawn"]) == len(set(left["drawn"])) == N_ITERATIONS * N_DRAWN
    assert (left["requeued"], left["added"], left["problems"]) == (0, len(LIBRARY), [])
    assert None in {left["rewards"].get(sample) for sample in left["drawn"]}, "some have no reward"
    calls = killed.read_text().split()
    assert set(calls) == set(left["drawn"])
    assert len(calls) - len(set(calls)) <= 5 * N_DRAWN, "a killed batch alone is measured again"


# -- several processes -----------------------------------------------------------------------------

N_PROCESSES, N_ADDS = 4, 4


def add_again_and_again(url: str, seed: int, weighting: str, found: Connection) -> None:
    """Add a library in one's own order, some of it twice, while others do the same."""
    rng = random.Random(seed)
    add.CHUNK = 40
    with open_store(url, key=has_a_key, weighting=weighting) as store:
        for _ in range(N_ADDS):
            given = [*rng.sample(LIBRARY, len(LIBRARY)), *rng.choices(LIBRARY, k=9), "s13"]
            requeue = rng.random() < 0.3
            result = store.add(given, requeue=requeue)
            found.send((len(given), requeue, result))
            if weighting == "shift":
                store.score(scores_of)
            with store.sample(4) as batch:
                rng.choice([batch.settle, batch.release])()
    found.close()


def has_a_key(sample: str) -> str | None:
    return None if sample == "s13" else sample


@pytest.mark.parametrize("kind", ["lightest", "oldest"])
@pytest.mark.parametrize("weighting", ["shift", "uniform"])
def test_processes_that_add_one_library_count_each_sample_once(
    postgresql_url: str, weighting: str, kind: str
) -> None:
    assert "s13" not in LIBRARY
    with open_store(
        postgresql_url, key=has_a_key, weighting=weighting, max_size=20, evict=kind
    ) as store:
        processes, ends = [], []
        for seed in range(N_PROCESSES):
            read, write = multiprocessing.Pipe(duplex=False)
            process = forkserver().Process(
                target=add_again_and_again, args=(postgresql_url, seed, weighting, write)
            )
            process.start()
            write.close()
            processes.append(process)
            ends.append(read)
        found = [end.recv() for end in ends for _ in range(N_ADDS)]
        for process in processes:
            process.join()
            assert process.exitcode == 0
        for n, requeue, it in found:
            assert it.added + it.requeued + it.duplicates + it.known + it.refused == n
            assert it.refused_at == (n - 1,)
            assert not (requeue and it.known)
        results = [result for _, _, result in found]
        stats = store.stats()
        assert sum(it.added for it in results) == stats.stored == len(LIBRARY)
        assert sum(it.requeued for it in results) == stats.requeued > 0
        assert sum(it.refused for it in results) == stats.refused == N_PROCESSES * N_ADDS
        assert any(it.known for it in results)
        assert stats.removed > 0
        assert store.check() == []
