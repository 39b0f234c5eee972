"""Labelled rows as a dataset of torch."""

import pickle

import pytest
import sqlalchemy as sa
from torch.utils.data import DataLoader

from helpers import inside
from sqlbuffer.errors import StaleIds
from sqlbuffer.store import SampleStore

NAMES = [f"s{i}" for i in range(40)]
PAIRS = [(name, float(i)) for i, name in enumerate(NAMES)]


def as_they_are(batch: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return batch


@pytest.fixture
def labelled(store: SampleStore) -> SampleStore:
    store.record(NAMES, range(40))
    return store


def test_a_dataset_is_a_snapshot_of_labelled_rows(labelled: SampleStore) -> None:
    dataset = labelled.dataset()
    labelled.add(["waiting"])
    labelled.record(["later", "s1"], [1.0, 7.0])
    assert len(dataset) == 40
    pairs = list(dataset)
    assert sorted(pairs) == sorted(PAIRS), "those of the moment, with their rewards"
    assert (dataset[-1], dataset[3]) == (pairs[-1], pairs[3])
    assert dataset.__getitems__([5, 0, 5]) == [pairs[5], pairs[0], pairs[5]]
    assert dataset.__getitems__([]) == []
    assert list(labelled.dataset(where="reward > 38")) == [PAIRS[39]]
    assert dict(labelled.dataset())["s1"] == 7.0
    labelled.remeasure("another")
    assert len(labelled.dataset()) == 0, "no reward of this objective yet"
    with pytest.raises(IndexError, match="row 40 is out of range: the buffer had 40 labelled rows"):
        dataset[40]
    assert repr(dataset) == "LabelledDataset(LabelledRows('default', size=40))"


def test_a_batch_is_read_by_one_query(labelled: SampleStore) -> None:
    dataset, statements = labelled.dataset(), []
    note = lambda *given: statements.append(given[2])  # noqa: E731
    sa.event.listen(inside.engine_of(labelled, "reader"), "before_cursor_execute", note)
    dataset.__getitems__(range(32))
    assert sum("samples.payload" in statement for statement in statements) == 1


@pytest.mark.slow
def test_workers_read_with_connections_of_their_own(labelled: SampleStore) -> None:
    dataset = pickle.loads(pickle.dumps(labelled.dataset()))
    loader = DataLoader(dataset, batch_size=16, num_workers=1, collate_fn=as_they_are)
    assert [pair for batch in loader for pair in batch] == list(labelled.dataset())


def test_a_dataset_tells_of_deleted_rows(labelled: SampleStore) -> None:
    dataset = pickle.loads(pickle.dumps(labelled.dataset()))
    pairs = list(dataset)
    labelled.forget(dataset.rows.ids[:2].tolist())
    assert dataset[2] == pairs[2]
    with pytest.raises(StaleIds, match=r"a sample was deleted .* call dataset or labelled_rows"):
        dataset.__getitems__([1, 2])
