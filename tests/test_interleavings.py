"""What processes do to each other at the worst moment: each test stops one of them there, and lets another one act."""

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from conftest import scores_of
from test_refreshing import assert_weights_are_those_of_the_scores

from sqlbuffer import adding, attachment, claims, pool, scoring, workers
from sqlbuffer.schema import buffers
from sqlbuffer.store import SampleStore

THIRTY = [f"s{i}" for i in range(30)]

NewStore = Callable[..., SampleStore]


class Meanwhile:
    """Does something once, in a thread, when it is called, and gives it a moment: a lock may make it wait for us."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._found: list[object] = []
        self._thread = threading.Thread(target=lambda: self._found.append(action()))

    def __call__(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
            self._thread.join(0.5)

    def result(self) -> Any:
        self._thread.join(60)
        (found,) = self._found
        return found


@pytest.fixture(autouse=True)
def _a_thread_is_another_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would wait for each other at the row of their counters."""

    def name() -> str:
        return workers.worker_id() + ("" if threading.current_thread() is threading.main_thread() else "-other")

    for module in (attachment, claims):
        monkeypatch.setattr(module, "worker_id", name)


def before(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, act: Callable[[], object]) -> None:
    """Let something be done each time that a function is called, just before it."""
    function = getattr(module, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        act()
        return function(*args, **options)

    monkeypatch.setattr(module, name, wrapped)


def base_of(store: SampleStore) -> float | None:
    this = sa.select(buffers.c.base_score).where(buffers.c.id == store._attachment.buffer_id)
    found: float | None = store._attachment.database.read(lambda connection: connection.scalar(this))
    return found


def test_a_top_that_is_used_up_is_widened_and_nothing_of_it_is_lost(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_LEAST_TOP", 10)
    store = new_store()
    store.add([f"s{i}" for i in range(400)])
    store.score(scores_of)
    left = [f"s{i}" for i in range(400)]
    for n in (6, *[7] * 17):
        with store.sample(n, pct_argmax=1.0) as batch:
            batch.settle([1.0] * n)
        assert batch.samples == [left.pop() for _ in range(n)]
    assert sorted(store.waiting().samples) == sorted(left)
    assert store.check() == []


def test_what_is_scored_while_it_is_evicted(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding, "MOST_UNSCORED", 10)
    store, other = new_store(max_size=10), new_store()
    store.add(["s-1"])  # the others, when they are scored, need not wait for anybody
    store.score(scores_of)
    store.add([f"s{i}" for i in range(9)])
    meanwhile = Meanwhile(lambda: other.score(scores_of))
    before(monkeypatch, pool, "remove", meanwhile)
    store.add([f"s{i}" for i in range(100, 106)])
    meanwhile.result()
    assert store.check() == []
    store.add([f"s{i}" for i in range(5)])
    assert store.check() == []


def test_two_that_evict_at_once(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = new_store(max_size=10), new_store(max_size=10)
    store.add(THIRTY[:10])
    store.score(scores_of)

    def others() -> None:
        other.add(["s200", "s201", "s202"])
        other.score(scores_of)

    meanwhile = Meanwhile(others)
    before(monkeypatch, pool, "remove", meanwhile)
    store.add(["s100", "s101", "s102"])
    store.score(scores_of)
    meanwhile.result()
    assert store.check() == []


@pytest.mark.parametrize("budget", [None, 25])
def test_a_claim_amid_a_swap_is_whole(new_store: NewStore, monkeypatch: pytest.MonkeyPatch, budget: int | None) -> None:
    """It waits for the rows whose keys are being moved, instead of passing over them."""
    store, other = new_store(), new_store()
    store.add(THIRTY)
    store.score(scores_of)
    claim = Meanwhile(lambda: other.sample(20).settle([0.0] * 20))
    move = pool.move

    def move_beside(*args: Any) -> Any:
        moved = move(*args)
        claim()
        return moved

    monkeypatch.setattr(pool, "move", move_beside)
    store.score(lambda samples: scores_of(samples) * 3 + 1, only="all", budget=budget)
    claim.result()
    assert store.stats().drawn == 20
    store.score(scores_of, only="stale")
    assert store.check() == []


def test_what_joins_below_all_others_while_they_are_rescored_counts(new_store: NewStore) -> None:
    store, other = new_store(), new_store()
    store.add(THIRTY)
    store.score(scores_of)

    def beside_a_loop(samples: list[str]) -> np.ndarray:
        if other.add(["s-3", "s-2"]).added:
            other.score(scores_of)
        return scores_of(samples) + 0.5

    store.score(beside_a_loop, only="all")
    assert base_of(store) == -3.0
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []


def test_weights_of_an_emptied_pool_count_from_what_comes_next(store: SampleStore) -> None:
    store.add(["s5", "s7"])
    store.score(scores_of)
    store.sample(2).settle([1.0, 1.0])
    store.score(scores_of, only="all")
    assert base_of(store) is None
    store.add(["s105", "s107"])
    store.score(scores_of)
    assert base_of(store) == 105.0
    assert store.check() == []


@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize(("chunk", "n_swapped"), [(20, 0), (4, 2)])
def test_what_is_drawn_amid_a_swap_has_its_new_weight(
    new_store: NewStore, amid_a_swap: Callable[..., None], mode: str, chunk: int, n_swapped: int
) -> None:
    store, other = new_store(mode=mode), new_store(mode=mode)
    store.add(THIRTY)
    store.score(scores_of)

    def draw() -> None:
        other.sample(15, pct_argmax=0.2).settle()
        other.sample(9, pct_argmax=0.5).release()

    amid_a_swap(draw, n_swapped=n_swapped, chunk=chunk)
    store.score(lambda samples: scores_of(samples)[::-1] * 2 + 1, only="all")
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []


def test_a_refresh_that_found_nothing_stale_and_was_interrupted_goes_on(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store()
    store.add(THIRTY)
    store.score(scores_of, only="all")
    store.remove(store.waiting().ids[:10].tolist())  # the lowest
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "swap_all", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.score(scores_of, only="stale")
    assert not store.is_refreshed()
    store.score(scores_of, only="stale")
    assert store.is_refreshed()
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []


def test_scores_of_an_older_predictor_do_not_replace_newer_ones(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = new_store(), new_store()
    store.add(THIRTY)
    store.score(scores_of)
    store.save_predictor(b"", rows_trained=1)

    def overtaken(samples: list[str]) -> np.ndarray:
        with monkeypatch.context() as patch:
            patch.setattr(scoring, "swap_all", lambda *_: 1 / 0)  # scores are stored, no key has moved yet
            with pytest.raises(ZeroDivisionError):
                other.score(lambda them: scores_of(them) * 2, only="all")
        return scores_of(samples) + 100

    assert store.score(overtaken, only="stale", budget=10) == 0
    assert store.score(scores_of, only="stale") == 0
    assert store.waiting().scores.tolist() == (scores_of(store.waiting().samples) * 2).tolist()
    assert store.check() == []


def test_what_joins_with_a_score_of_an_older_predictor_is_stale(new_store: NewStore) -> None:
    store, other = new_store(), new_store()
    store.add(THIRTY)

    def overtaken(samples: list[str]) -> np.ndarray:
        other.save_predictor(b"", rows_trained=1)
        return scores_of(samples) + 100

    store.score(overtaken)
    assert store.score(scores_of, only="stale") == 30
    assert store.waiting().scores.tolist() == scores_of(store.waiting().samples).tolist()
    assert store.check() == []


@pytest.mark.parametrize("value", [math.nan, 1.0])
def test_two_that_score_the_same_count_it_once(new_store: NewStore, value: float) -> None:
    store, other = new_store(), new_store()
    store.add(THIRTY[:5])

    def overtaken(samples: list[str]) -> np.ndarray:
        other.score(lambda them: np.full(len(them), value))
        return np.full(len(samples), value)

    store.score(overtaken)
    assert store.check() == []
