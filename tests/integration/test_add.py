"""What `max_size` lets go: the lightest, when weights are known, whatever the chunks in which
samples came.
"""

import random
from collections.abc import Callable

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.commands import run
from helpers.samples import scores_of
from sqlbuffer.core import evict
from sqlbuffer.db.schema import buffers
from sqlbuffer.errors import SettingsMismatch
from sqlbuffer.store import SampleStore, open_store

NewStore = Callable[..., SampleStore]
TWO_HUNDRED = [f"s{i}" for i in random.Random(0).sample(range(1000), 200)]


def best(samples: list[str], n: int) -> set[str]:
    return set(sorted(samples, key=lambda sample: float(sample[1:]))[-n:])


def test_the_heavy_stay_where_the_light_come_later(new_store: NewStore) -> None:
    store = new_store(max_size=100)
    heavy = [f"s{i}" for i in range(1000, 1100)]
    store.add(heavy)
    store.score(scores_of)
    store.add([f"s{i}" for i in range(100)])
    store.score(scores_of)
    assert len(store) == 99, "a hundredth more than must"
    assert set(store.waiting().samples) < set(heavy)
    assert store.check() == []


@pytest.mark.parametrize("weighting", ["shift", "softmax"])
@pytest.mark.parametrize("chunk", [1, 10, 20, 24, 80])
@pytest.mark.parametrize("each", [True, False])
def test_what_stays_does_not_depend_on_the_chunks(
    new_store: NewStore, chunk: int, weighting: str, each: bool
) -> None:
    """Scored after each chunk, or all at once; by softmax most of them have one weight."""
    store = new_store(max_size=20, weighting=weighting)
    for start in range(0, 80, chunk):
        store.add(TWO_HUNDRED[start : min(start + chunk, 80)])
        if each:
            store.score(scores_of)
    store.score(scores_of)
    assert set(store.waiting().samples) == best(TWO_HUNDRED[:80], 20)
    assert store.check() == []


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_refresh_that_scores_what_is_new_evicts(new_store: NewStore, mode: str) -> None:
    store = new_store(max_size=50, mode=mode)
    store.add(TWO_HUNDRED[:60])
    store.score(scores_of, only="all")
    assert set(store.waiting().samples) == best(TWO_HUNDRED[:60], 50)
    store.add(TWO_HUNDRED[60:])
    store.score(lambda samples: -scores_of(samples), only="all")
    there = best(TWO_HUNDRED[:60], 50) | set(TWO_HUNDRED[60:])
    assert set(store.waiting().samples) == there - best(list(there), 140)
    assert store.check() == []


def test_what_cannot_be_drawn_goes_first(new_store: NewStore) -> None:
    store = new_store(max_size=3)
    store.add(["s1", "s2", "s3", "s4"])
    store.score(
        lambda samples: np.array([np.nan if s in ("s3", "s4") else float(s[1:]) for s in samples])
    )
    assert "s3" not in store.waiting().samples or "s4" not in store.waiting().samples
    store.add(["s0"])
    store.score(scores_of)
    assert sorted(store.waiting().samples) == ["s0", "s1", "s2"]
    assert store.stats().unscorable == 0
    assert store.check() == []


@pytest.mark.slow
@pytest.mark.parametrize(("most", "left"), [(5, 20), (30, 30)])
def test_unscored_samples_are_bounded(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch, most: int, left: int
) -> None:
    """By `max_size`, or by the least that may always wait; the scored ones stay."""
    monkeypatch.setattr(evict, "MOST_UNSCORED", most)
    store = new_store(max_size=20)
    store.add(TWO_HUNDRED[:10])
    store.score(scores_of)
    for sample in TWO_HUNDRED[10:]:
        store.add([sample])
    assert store.waiting().samples[-left:] == TWO_HUNDRED[-left:], "the oldest go"
    assert set(store.waiting().samples) == {*TWO_HUNDRED[:10], *TWO_HUNDRED[-left:]}
    store.score(scores_of)
    assert set(store.waiting().samples) == best([*TWO_HUNDRED[:10], *TWO_HUNDRED[-left:]], 20)
    assert store.check() == []


def test_a_released_batch_comes_on_top_until_the_next_score(new_store: NewStore) -> None:
    store = new_store(max_size=50)
    store.add(TWO_HUNDRED[:50])
    store.score(scores_of)
    batch = store.sample(20)
    store.add(TWO_HUNDRED[50:70])
    store.score(scores_of)
    batch.release()
    assert len(store) == 70
    store.add(TWO_HUNDRED[70:80])
    assert len(store) == 60
    store.score(scores_of)
    assert set(store.waiting().samples) == best(TWO_HUNDRED[:80], 50)
    assert store.check() == []


# -- the limit is the buffer's ---------------------------------------------------------------------


@pytest.mark.slow
def test_the_limit_is_stored_and_holds_for_all(new_store: NewStore) -> None:
    store, other = new_store(max_size=10, weighting="uniform"), new_store(weighting="uniform")
    assert store.stats().max_size == other.stats().max_size == 10
    for sample in TWO_HUNDRED:
        other.add([sample])
    assert store.waiting().samples == TWO_HUNDRED[-10:]
    with pytest.raises(
        SettingsMismatch, match=r"max_size=10, but was opened with max_size=11: .*without.*copy"
    ):
        new_store(max_size=11, weighting="uniform")
    assert new_store(max_size=10, weighting="uniform").stats().max_size == 10


def test_a_buffer_without_a_limit_takes_the_first_that_is_given(new_store: NewStore) -> None:
    """As those of older releases, which did not store it.

    Processes that have it open keep to it.
    """
    store = new_store(weighting="uniform")
    store.add(TWO_HUNDRED)
    assert store.stats().max_size is None
    new_store(weighting="uniform", max_size=50)
    assert len(store) == 200
    store.add(["s1.5"])
    assert len(store) == 50
    assert store.stats().max_size == 50


@pytest.mark.slow
def test_a_copy_keeps_the_limit_or_has_another(store_url: str) -> None:
    with open_store(store_url, max_size=50) as store:
        store.add(TWO_HUNDRED[:50])
        store.score(scores_of)
        with store.copy("same") as same, store.copy("less", max_size=20) as less:
            assert (same.stats().max_size, less.stats().max_size) == (50, 20)
            less.add(["s0.5"])
            less.score(scores_of)
            assert set(less.waiting().samples) == best(TWO_HUNDRED[:50], 20)
    done = run("copy", "default", "more", "--max-size", "70", url=store_url)
    assert done.code == 0, done
    with open_store(store_url, name="more", max_size=70) as more:
        assert more.check() == []
        more.sample(5).settle()


def test_a_limit_that_is_no_number_is_an_error_of_ours(sqlite_url: str) -> None:
    from sqlbuffer.errors import SqlBufferError

    with open_store(sqlite_url) as store:
        store.add(TWO_HUNDRED)
        wrong = sa.update(buffers).values(max_size=sa.literal_column("'x'"))
        inside.execute(store, wrong)
        for call in (lambda: store.add(["s1.5"]), lambda: hold(store.sample(1)), store.stats):
            with pytest.raises(SqlBufferError, match="buffer 'default'"):
                call()
    with pytest.raises(SettingsMismatch, match="max_size='x'"):
        open_store(sqlite_url, max_size=5)
