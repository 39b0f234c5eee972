"""A store in other processes: forked, pickled, in the workers of a DataLoader."""

import contextlib
import copy
import multiprocessing
import pathlib
import pickle
import warnings
from collections.abc import Iterator

import pytest
import torch

from helpers import inside
from helpers.cleanup import wait_for_disposal
from helpers.programs import lower, work
from helpers.samples import scores_of
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.workers import worker_id
from sqlbuffer.store import SampleStore, open_store

TEN = [f"s{i}" for i in range(10)]


@contextlib.contextmanager
def forks_are_meant() -> Iterator[None]:
    """Forking with threads that others have started is what a user of DataLoader does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@pytest.mark.parametrize(
    ("store_url", "method"),
    [("sqlite", "spawn"), ("postgresql", "fork"), ("sqlite", "forkserver")],
    indirect=["store_url"],
)
def test_a_store_is_sent_to_a_child(
    store_url: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent))
    context = multiprocessing.get_context(method)
    with open_store(store_url, key=lower, grace_s=30) as store:
        store.add([*TEN, "S1"])
        store.score(scores_of)
        ours = store.sample(2)
        results = context.Queue()
        children = [context.Process(target=work, args=(store, results)) for _ in range(2)]
        with forks_are_meant():
            for child in children:
                child.start()
        found = [results.get(timeout=60) for _ in children]
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        ours.settle([2.0, 2.0])
        assert len({name for name, _ in found} | {worker_id()}) == 3
        assert len({sample for _, samples in found for sample in samples} | set(ours.samples)) == 8
        assert (len(store), store.iteration, store.check()) == (2, 3, [])


class Drawn(torch.utils.data.Dataset[str]):
    """Each item is a draw of its own, wherever it is asked for."""

    def __init__(self, store: SampleStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> str:
        batch = self.store.sample(1)
        batch.settle([float(index)])
        return str(batch.samples[0])


@pytest.mark.parametrize(
    ("store_url", "method"), [("sqlite", "fork"), ("postgresql", "spawn")], indirect=["store_url"]
)
def test_the_workers_of_a_dataloader_hold_a_store(
    store_url: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent))
    with open_store(store_url, weighting="uniform") as store:
        store.add(TEN)
        loader = torch.utils.data.DataLoader(
            Drawn(store), batch_size=2, num_workers=2, multiprocessing_context=method
        )
        with forks_are_meant():
            drawn = [sample for samples in loader for sample in samples]
        assert len(set(drawn)) == 8
        assert (len(store), store.stats().measured, store.check()) == (2, 8, [])


def test_a_batch_is_settled_by_another_process(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add(TEN)
        store.score(scores_of)
        batch: Batch = pickle.loads(pickle.dumps(store.sample(3)))
        wait_for_disposal()  # the one that was pickled is garbage, and gives nothing back
        batch.settle([1.0, 2.0, 3.0])
        inside.database_of(batch).close()
        assert (store.iteration, store.stats().requeued, store.check()) == (1, 0, [])
        batch = copy.copy(store.sample(3))
        wait_for_disposal()
        batch.settle([1.0, 2.0, 3.0])
        assert store.iteration == 2


def test_what_is_pickled_has_neither_connections_nor_threads(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add(TEN)
        copied = pickle.loads(pickle.dumps(store))
        assert inside.database_of(copied)._engines == {}
        assert inside.backend_of(copied) is inside.backend_of(store)
        assert inside.handle_of(copied).heartbeat._threads == {}
        copied.close()
        assert len(store) == 10
