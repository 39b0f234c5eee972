"""Ranks of a training with workers of their own, killed and started again as another number of
ranks: each row is committed once.
"""

import collections
import contextlib
import multiprocessing
import os
import pathlib
import signal
import time
from typing import NamedTuple

import psutil
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import wait_for_disposal
from helpers.forked import forkserver
from helpers.polling import until
from sqlbuffer.db.schema import batches, draws
from sqlbuffer.store import SampleStore, open_store


class Size(NamedTuple):
    n_rows: int
    batch_size: int
    commit_every: int
    before: tuple[int, int]
    """Ranks until the kill, and workers of each."""
    after: tuple[int, int]
    seconds: float
    """How long a rank works on a batch."""


SMALL = Size(60, 2, 4, (2, 2), (3, 1), 0.002)
LARGE = Size(60_000, 16, 64, (8, 2), (4, 2), 0.001)


def as_it_is(batch: list[str]) -> list[str]:
    return batch


def rank(url: str, journal: pathlib.Path, size: Size, n_workers: int) -> None:
    """Train for an epoch; write down each batch before its work, and each commit after it."""
    os.setsid()  # the process and its workers are killed together
    with open_store(url, create=False) as store, journal.open("a", buffering=1) as said:
        stream = store.stream(size.batch_size, commit_every=size.commit_every)
        loader = stream.loader(
            num_workers=n_workers, collate_fn=as_it_is, multiprocessing_context="fork"
        )
        for i, batch in enumerate(loader):
            print(time.monotonic_ns(), "had", *batch, file=said)
            time.sleep(size.seconds)
            if i % size.commit_every == 1:
                loader.state_dict()
                print(time.monotonic_ns(), "committed", file=said)
        loader.state_dict()
        print(time.monotonic_ns(), "committed", file=said)


def start(
    url: str, folder: pathlib.Path, size: Size, ranks: tuple[int, int]
) -> list[multiprocessing.context.ForkServerProcess]:
    n_ranks, n_workers = ranks
    names = [folder / f"{n_ranks} ranks, {i}" for i in range(n_ranks)]
    started = [
        forkserver().Process(target=rank, args=(url, name, size, n_workers)) for name in names
    ]
    for process in started:
        process.start()
    return started


class Journal:
    """What the loops of all ranks had, by the clock of the host that all processes share."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.had: dict[str, list[int]] = collections.defaultdict(list)
        self.committed: dict[str, list[int]] = collections.defaultdict(list)
        for file in folder.iterdir():
            pending: list[str] = []
            for line in file.read_text().splitlines():
                at, what, *samples = line.split()
                for sample in samples:
                    self.had[sample].append(int(at))
                pending += samples
                if what == "committed":
                    for sample in pending:
                        self.committed[sample].append(int(at))
                    pending = []

    def assert_once(self) -> None:
        """Nothing came again after its commit, or was committed twice."""
        for sample, times in self.committed.items():
            assert len(times) == 1, f"{sample} was committed {len(times)} times"
            assert max(self.had[sample]) < times[0], f"{sample} came again after its commit"


def settled(store: SampleStore) -> collections.Counter[str]:
    """How often each sample was settled."""
    is_settled = sa.or_(draws.c.reported, batches.c.settled_at.is_not(None))
    query = sa.select(draws.c.sample_id).join(batches, draws.c.batch_id == batches.c.id)
    ids = list(inside.scalars(store, query.where(is_settled)))
    names = store.samples_of(ids)
    return collections.Counter(names[number] for number in ids)


def killed_and_changed(url: str, folder: pathlib.Path, size: Size) -> None:
    with open_store(url, weighting="uniform") as store:
        names = [f"s{i}" for i in range(size.n_rows)]
        store.add(names)
        first = start(url, folder, size, size.before)
        until(lambda: len(Journal(folder).had) > size.n_rows / 3, timeout_s=300)
        for process in first:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
        for process in first:
            process.join()
        at_kill = settled(store)
        assert set(at_kill) <= set(Journal(folder).had), "settled, and no loop had it"
        assert 0 < len(at_kill) < size.n_rows
        Journal(folder).assert_once()
        second = start(url, folder, size, size.after)
        for process in second:
            process.join()
        assert [process.exitcode for process in second] == [0] * len(second)
        assert settled(store) == collections.Counter(names)
        journal = Journal(folder)
        assert set(journal.had) == set(names)
        journal.assert_once()
        stats = store.stats()
        assert (stats.waiting, stats.claimed) == (0, 0)
        assert store.check() == []
    wait_for_disposal()


def test_killed_ranks_come_back_as_another_number(store_url: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "journals").mkdir()
    killed_and_changed(store_url, tmp_path / "journals", SMALL)


@pytest.mark.soak
def test_eight_killed_ranks_come_back_as_four(store_url: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "journals").mkdir()
    killed_and_changed(store_url, tmp_path / "journals", LARGE)


def loop_that_never_ends(url: str, folder: pathlib.Path, context: str) -> None:
    """Take a batch, and name the workers."""
    from torch.utils.data._utils import worker

    worker.MP_STATUS_CHECK_INTERVAL = 600.0  # a fork looks for its parent no more
    with open_store(url, create=False) as store:
        loader = store.stream(2, commit_every=4).loader(
            num_workers=2, collate_fn=as_it_is, multiprocessing_context=context
        )
        for _ in loader:
            time.sleep(1.0)  # the workers live longer than they take to look for their parent
            found = [process.pid for process in psutil.Process().children(recursive=True)]
            (folder / "workers").write_text(" ".join(map(str, found)))
            time.sleep(600)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_workers_of_a_killed_loop_end_with_it(
    store_url: str, tmp_path: pathlib.Path, context: str
) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add([f"s{i}" for i in range(40)])
        loop = forkserver().Process(
            target=loop_that_never_ends, args=(store_url, tmp_path, context)
        )
        loop.start()
        until((tmp_path / "workers").exists, timeout_s=120)
        until((tmp_path / "workers").read_text, timeout_s=10)
        workers = (tmp_path / "workers").read_text().split()
        assert len(workers) >= 2
        os.kill(loop.pid or 0, signal.SIGKILL)
        loop.join()
        until(lambda: not any(psutil.pid_exists(int(pid)) for pid in workers), timeout_s=60)
        assert sum(map(len, store.stream(4))) == 40, "their claims went back"
