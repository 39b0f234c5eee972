"""The keys that a process remembers: the newest of each sample, of a bounded number of batches."""

import pickle

import numpy as np
import pytest

from sqlbuffer.core import places
from sqlbuffer.core.places import Places


def note(known: Places, ids: list[int], key: float) -> None:
    known.note(np.array(ids), np.full(len(ids), key))


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_BATCHES", 3)
    monkeypatch.setattr(places, "MOST_SAMPLES", 6)


@pytest.mark.parametrize("is_read", [False, True])
def test_the_newest_keys_of_the_last_batches_are_remembered(is_read: bool) -> None:
    known = Places()
    for key, ids in enumerate([[1, 2], [2, 3], [4, 1], [5, 6]]):
        note(known, ids, float(key))
        if is_read:
            known.find([])
    expected = {1: 2.0, 2: 1.0, 3: 1.0, 4: 2.0, 5: 3.0, 6: 3.0}
    assert known.find(range(10)) == expected
    known.correct({1: 7.0, 9: 7.0})
    assert known.find([1, 9]) == {1: 7.0}
    note(known, [2], 8.0)
    assert known.find(range(10)) == {1: 7.0, 2: 8.0, 4: 2.0, 5: 3.0, 6: 3.0}
    assert pickle.loads(pickle.dumps(known)).find([1]) == {}


def test_large_batches_push_out_more_than_one() -> None:
    known = Places()
    note(known, [1, 2, 3], 1.0)
    note(known, [4, 5, 6, 7], 2.0)
    assert known.find(range(20)) == dict.fromkeys([4, 5, 6, 7], 2.0)
    note(known, list(range(10)), 3.0)  # more than all that may be remembered
    assert sorted(known.all_ids()) == [4, 5, 6, 7]
