"""What processes do to each other at the worst moment: each test stops one of them there, and lets
another one act.
"""

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from scipy import stats

from helpers import inside
from helpers.cleanup import hold
from helpers.interleaving import Gap, Interleaving
from helpers.pool import assert_weights_are_those_of_the_scores
from helpers.samples import scores_of
from sqlbuffer.core import evict, pool, refresh
from sqlbuffer.core.weighting import Power
from sqlbuffer.db.schema import buffers
from sqlbuffer.maintenance import audit
from sqlbuffer.store import SampleStore, open_store

THIRTY = [f"s{i}" for i in range(30)]

NewStore = Callable[..., SampleStore]


class Interleaved:
    """Does something once, in a thread, when it is called, and gives it a moment: a lock may make
    it wait for us.
    """

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
def _threads_are_workers(threads_are_workers: None) -> None:
    """In all tests of this file."""


def before(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, act: Callable[[], object]
) -> None:
    """Let something be done each time that a function is called, just before it."""
    function = getattr(module, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        act()
        return function(*args, **options)

    monkeypatch.setattr(module, name, wrapped)


def base_of(store: SampleStore) -> float | None:
    this = sa.select(buffers.c.base_score).where(buffers.c.id == inside.buffer_id(store))
    found: float | None = inside.scalar(store, this)
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


@pytest.mark.slow
def test_what_is_scored_while_it_is_evicted(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evict, "MOST_UNSCORED", 10)
    store, other = new_store(max_size=10), new_store()
    store.add(["s-1"])  # the others, when they are scored, need not wait for anybody
    store.score(scores_of)
    store.add([f"s{i}" for i in range(9)])
    interleaved = Interleaved(lambda: other.score(scores_of))
    before(monkeypatch, pool, "remove", interleaved)
    store.add([f"s{i}" for i in range(100, 106)])
    interleaved.result()
    assert store.check() == []
    store.add([f"s{i}" for i in range(5)])
    assert store.check() == []


@pytest.mark.slow
def test_two_that_evict_at_once(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = new_store(max_size=10), new_store(max_size=10)
    store.add(THIRTY[:10])
    store.score(scores_of)

    def others() -> None:
        other.add(["s200", "s201", "s202"])
        other.score(scores_of)

    interleaved = Interleaved(others)
    before(monkeypatch, pool, "remove", interleaved)
    store.add(["s100", "s101", "s102"])
    store.score(scores_of)
    interleaved.result()
    assert store.check() == []


@pytest.mark.slow
@pytest.mark.parametrize("budget", [None, 25])
def test_a_claim_during_a_swap_is_whole(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch, budget: int | None
) -> None:
    """It waits for the rows whose keys are being moved, instead of passing over them."""
    store, other = new_store(), new_store()
    store.add(THIRTY)
    store.score(scores_of)
    claim = Interleaved(lambda: other.sample(20).settle([0.0] * 20))
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
def test_samples_drawn_during_a_swap_have_their_new_weights(
    new_store: NewStore, during_a_swap: Callable[..., None], mode: str, chunk: int, n_swapped: int
) -> None:
    store, other = new_store(mode=mode), new_store(mode=mode)
    store.add(THIRTY)
    store.score(scores_of)

    def draw() -> None:
        other.sample(15, pct_argmax=0.2).settle()
        other.sample(9, pct_argmax=0.5).release()

    during_a_swap(draw, n_swapped=n_swapped, chunk=chunk)
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
        patch.setattr(refresh, "update_weights", lambda *_: 1 / 0)
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
            patch.setattr(
                refresh, "update_weights", lambda *_: 1 / 0
            )  # scores are stored, no key has moved yet
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


# -- draws, and what joins, leaves or draws while one of them is not committed ---------------------


def names(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


def ones(samples: list[str]) -> np.ndarray:
    return np.ones(len(samples))


@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("pct_argmax", [0.0, 0.5])
@pytest.mark.parametrize("way", ["added", "scored"])
def test_what_joins_while_a_draw_is_under_way_joins_after_it(
    new_store: NewStore, interleaving: Interleaving, way: str, pct_argmax: float, mode: str
) -> None:
    """At the clock that the draw leaves; at the one before, nearly all of the next batch would be
    new.
    """
    options: dict[str, Any] = {
        "weighting": "uniform" if way == "added" else Power(1.0),
        "mode": mode,
    }
    store, other = new_store(**options), new_store(**options)
    store.add(names("old", 200))
    store.score(ones)
    if way == "scored":
        store.add(names("new", 200))
    draw = interleaving.stopped(lambda: hold(store.sample(100, pct_argmax)))
    joining = interleaving.alongside(
        lambda: other.add(names("new", 200)) if way == "added" else other.score(ones)
    )
    draw.go_on()
    draw.result().settle()
    joining.result()
    with store.sample(100) as batch:
        n_new = sum(sample.startswith("new") for sample in batch.samples)
        batch.settle()
    waiting = stats.hypergeom(300 if mode == "consume" else 400, 200, 100)
    assert min(waiting.cdf(n_new), waiting.sf(n_new - 1)) > 1e-4, n_new
    assert store.check() == []


@pytest.mark.slow
def test_a_full_pool_stays_full_where_four_add_at_once(
    new_store: NewStore, interleaving: Interleaving
) -> None:
    """Each evicts what is too much once the others are done, and nothing twice."""
    stores = [new_store(weighting="uniform", max_size=200) for _ in range(4)]
    first = stores[0]
    first.add(names("a", 200))
    batch = first.sample(60)
    first.add(names("b", 60))
    batch.release()
    assert len(first) == 260
    adding = interleaving.stopped(lambda: first.add(names("c", 5)))
    others = [
        interleaving.alongside(lambda store=store, i=i: store.add(names(f"d{i} ", 5)))
        for i, store in enumerate(stores[1:])
    ]
    adding.go_on()
    for each in (adding, *others):
        each.result()
    assert 190 <= len(first) <= 200
    assert first.check() == []


@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("way", ["remove", "replace"])
def test_what_a_draw_holds_is_not_passed_over(
    new_store: NewStore, interleaving: Interleaving, mode: str, way: str
) -> None:
    store, other = new_store(mode=mode), new_store(mode=mode)
    store.add(THIRTY)
    store.score(scores_of)
    ids = store.waiting().ids[5:25].tolist()
    draw = interleaving.stopped(lambda: hold(store.sample(15)))
    leaving = interleaving.alongside(
        lambda: other.remove(ids) if way == "remove" else other.replace(ids, [f"n{i}" for i in ids])
    )
    draw.go_on()
    batch = draw.result()
    n_drawn = int(np.isin(ids, batch.ids).sum()) if mode == "consume" else 0
    assert leaving.result() == 20 - n_drawn
    assert not set(store.waiting().ids.tolist()) & set(ids)
    batch.settle()
    assert store.check() == []


def assert_totals(batch: Any, n: int) -> None:
    """The sum of 1/p estimates the number of the samples that might have been in the batch."""
    p = batch.info.probability
    assert abs((1 / p).sum() - n) < 4 * math.sqrt(((1 - p) / p**2).sum()), ((1 / p).sum(), n)


@pytest.mark.slow
@pytest.mark.parametrize("pct_argmax", [0.0, 0.5])
@pytest.mark.parametrize("after", ["race_key", None], ids=["claimed", "before COMMIT"])
def test_concurrent_draws_know_their_probabilities(
    new_store: NewStore, interleaving: Interleaving, after: str | None, pct_argmax: float
) -> None:
    """Each saw what the other has claimed: it counts from there, or up to there."""
    store, other = new_store(weighting="uniform"), new_store(weighting="uniform")
    store.add(names("s", 4_000))
    hold(store.sample(2, 0.5)).settle()  # the top is marked
    draw = interleaving.stopped(lambda: hold(store.sample(400, pct_argmax)), after=after)
    alongside = interleaving.alongside(lambda: hold(other.sample(400)))
    draw.go_on()
    batches = [draw.result(), alongside.result()]
    assert_totals(batches[0], 3_998)
    assert_totals(batches[1], 3_598)
    third = hold(store.sample(400))
    assert_totals(third, 3_198)
    for batch in (*batches, third):
        batch.settle()
    assert store.check() == []


def test_a_draw_among_those_of_others_does_not_know_its_probabilities(
    postgresql_url: str, interleaving: Interleaving
) -> None:
    """One fails, and leaves a gap before the other one: the next draw is from both
    sides of that.
    """
    with contextlib.ExitStack() as stack:
        stores = [
            stack.enter_context(open_store(postgresql_url, weighting="uniform")) for _ in range(4)
        ]
        stores[0].add(names("s", 400))
        failing = interleaving.stopped(lambda: stores[0].sample(10))
        draw = interleaving.stopped(lambda: hold(stores[1].sample(10)))
        failing.give_up()
        around = hold(stores[2].sample(30))
        draw.go_on()
        between = draw.result()
        assert np.isnan(around.info.probability).all()
        assert_totals(between, 390)
        assert_totals(hold(stores[3].sample(60)), 360)
        around.release()  # does not take the clock back to where the other one began
        assert np.isnan(hold(stores[3].sample(20)).info.probability).all()
        rest = hold(stores[3].sample(60))
        assert (rest.info.probability[:10] == 1.0).all()
        assert_totals(rest, 310)
        assert stores[0].check() == []


@pytest.mark.parametrize("weighting", ["uniform", "shift"])
def test_a_sample_added_again_while_it_is_evicted(
    new_store: NewStore, interleaving: Interleaving, weighting: str
) -> None:
    """One holds rows of samples and waits to evict; the other one evicts, and passes over these
    rows.
    """
    store, other = (new_store(weighting=weighting, max_size=40) for _ in range(2))
    store.add(names("s", 40))
    store.score(scores_of)
    again = interleaving.stopped(
        lambda: store.add([*names("s", 20), "s100"]), after=r"INSERT INTO (sqlbuffer\.)?samples"
    )
    new = interleaving.alongside(lambda: other.add(["s101", "s102"]))
    again.go_on()
    assert again.result().duplicates == 20
    assert new.result().added == 2
    store.score(scores_of)
    assert len(store) <= 40
    assert store.check() == []


# -- what others do between two transactions -------------------------------------------------------


def store_a_predictor(store: SampleStore) -> None:
    store.save_predictor(b"", rows_trained=1)


def refresh_all(store: SampleStore) -> None:
    store.score(lambda samples: scores_of(samples) - 40, only="all")


def lower_ones_join(store: SampleStore) -> None:
    """Below all that waits, and above the lowest score that is stored."""
    store.add(["s1000", "s1001"])
    store.score(lambda samples: scores_of(samples) / 100)


def draw_and_release(store: SampleStore) -> None:
    store.sample(8, pct_argmax=0.25).release()


def draw_all_and_add_again(store: SampleStore) -> None:
    batch = store.sample(-1)
    batch.settle([1.0] * len(batch))
    store.add(batch.samples[::2], requeue=True)


def remove_the_lowest(store: SampleStore) -> None:
    waiting = store.waiting()
    store.remove(waiting.ids[scores_of(waiting.samples) < 8].tolist())


def prioritise(store: SampleStore) -> None:
    """New priorities for all that waits, some as they were, one lower than all others."""
    waiting = store.waiting()
    given = np.where(waiting.ids % 3 == 0, np.maximum(waiting.scores, 0.0), 7.0)
    given[:1] = 0.25
    store.update_priorities(waiting.ids, np.nan_to_num(given, nan=1.0))


OTHERS = [
    *(
        store_a_predictor,
        refresh_all,
        lower_ones_join,
        draw_and_release,
        draw_all_and_add_again,
        remove_the_lowest,
        prioritise,
    )
]


def end_a_budget(store: SampleStore) -> None:
    """The last samples of a refresh that raises the lowest score."""
    for _ in range(3):
        store.score(lambda samples: scores_of(samples) + 50, only="stale", budget=20)


def prioritise_a_batch(store: SampleStore) -> None:
    batch = store.sample(6)
    batch.update_priorities(np.arange(len(batch)) + 1.0)
    batch.release()
    batch.update_priorities(np.arange(len(batch)) + 2.0)


WORK: dict[str, Callable[[SampleStore], object]] = {
    "score": lambda store: (store.add(["s-3", "s40", "s41"]), store.score(scores_of, chunk=1)),
    "refresh": lambda store: store.score(
        lambda samples: scores_of(samples) * 2 + 1, only="all", chunk=15
    ),
    "refresh some": end_a_budget,
    "argmax": lambda store: store.sample(5, pct_argmax=1.0).settle(),
    "prioritise": prioritise_a_batch,
}


@pytest.mark.parametrize(
    ("store_url", "work", "other"),
    [
        (kind, work, other)
        for kind in ("sqlite", "postgresql")
        for i, work in enumerate(WORK)
        for k, other in enumerate(OTHERS)
        if kind == "sqlite" or (i + k) % 3 == 0
    ],
    indirect=["store_url"],
)
@pytest.mark.parametrize("is_long", [False, pytest.param(True, marks=pytest.mark.soak)])
@pytest.mark.slow
def test_what_was_read_in_one_transaction_is_still_true_in_the_next(
    new_store: NewStore,
    monkeypatch: pytest.MonkeyPatch,
    work: str,
    other: Callable[[SampleStore], None],
    is_long: bool,
) -> None:
    """Whatever others have done in between, weights are those of the scores, and what is stale is
    found.

    After every fourth transaction, from another one on for each kind of work of the others: after
    each for one or two of them. The long run takes each.
    """
    step = 1 if is_long else 4
    n = OTHERS.index(other) % step - step + 1
    was_there = True
    while was_there:
        n += step
        store, alongside = (new_store(name=f"gap {n}") for _ in range(2))
        store.add(THIRTY)
        store.score(scores_of)
        store.save_predictor(b"", rows_trained=1)
        with monkeypatch.context() as patch:
            gap = Gap(store, n, lambda alongside=alongside: other(alongside), patch)  # type: ignore[misc]
            WORK[work](store)
            was_there = gap.was_there
        alongside.score(scores_of)
        while store.score(scores_of, only="stale", budget=9):
            pass
        versions = {row.score_version for row in store.staleness()}
        assert versions <= {store.stats().score_version}, f"something is stale after gap {n}"
        waiting, base = store.waiting(), base_of(store)
        assert waiting.weights.tolist() == pytest.approx(
            inside.handle_of(store).settings.weights(waiting.scores, base).tolist()
        )
        assert len(waiting.scores) == 0 or base <= waiting.scores.min()  # type: ignore[operator]
        assert inside.handle_of(store).read(audit.check_buffer) == []
        store.close()
        alongside.close()
    assert n > 2


def test_the_end_of_a_refresh_with_a_budget_sees_what_joins(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample that joined while weights came to count from a higher score had weight 1e-8 instead
    of 1.
    """
    for n in range(1, 5):
        store, other = (new_store(name=f"end {n}") for _ in range(2))
        store.add(THIRTY)
        store.score(scores_of)
        store.save_predictor(b"", rows_trained=1)
        assert store.score(lambda samples: scores_of(samples) + 50, only="stale", budget=30) == 30

        def join(other: SampleStore = other) -> None:
            other.add(["s1000", "s1001"])
            other.score(lambda samples: scores_of(samples) - 990)

        with monkeypatch.context() as patch:
            Gap(store, n, join, patch)
            store.score(scores_of, only="stale", budget=30)
        store.score(scores_of, only="stale", budget=30)
        weight = dict(zip(store.waiting().samples, store.waiting().weights.tolist(), strict=True))
        if "s1000" in weight:
            assert weight["s1001"] - weight["s1000"] == pytest.approx(1.0)
        assert store.check() == []


# -- the version of a score ------------------------------------------------------------------------


@pytest.mark.parametrize("n_before", [0, 1, 2])
def test_all_scores_of_a_walk_have_the_version_it_began_with(
    new_store: NewStore, n_before: int
) -> None:
    """A worker stores a predictor during a chunk: it has made neither these scores nor those of the
    chunks after it.
    """
    store, worker = new_store(), new_store()
    store.add(THIRTY)
    store.save_predictor(b"", rows_trained=1)
    chunks = []

    def overtaken(samples: list[str]) -> np.ndarray:
        if len(chunks) == n_before:
            worker.save_predictor(b"", rows_trained=1)
        chunks.append(samples)
        return scores_of(samples)

    assert store.score(overtaken, chunk=10) == 30
    assert [(row.score_version, row.waiting) for row in store.staleness()] == [(1, 30)]
    assert store.score(lambda samples: scores_of(samples) + 1, only="stale") == 30
    assert store.check() == []


def test_a_budget_finds_what_has_joined_with_an_older_version(new_store: NewStore) -> None:
    store, worker = new_store(), new_store()
    store.add(THIRTY)

    def overtaken(samples: list[str]) -> np.ndarray:
        if worker.stats().score_version == 0:
            worker.save_predictor(b"", rows_trained=1)
            worker.score(scores_of, only="stale", budget=9)  # it comes to its end at once
        return scores_of(samples)

    store.score(overtaken, chunk=10)
    assert [worker.score(scores_of, only="stale", budget=20) for _ in range(3)] == [20, 10, 0]
    assert (worker.stats().refreshed_version, worker.is_refreshed(), worker.check()) == (
        1,
        True,
        [],
    )


def test_a_budget_finds_what_was_released_after_the_refresh(new_store: NewStore) -> None:
    store = new_store()
    store.add(THIRTY)
    store.score(scores_of)
    batch = store.sample(10)
    store.save_predictor(b"", rows_trained=1)
    assert [store.score(scores_of, only="stale", budget=20) for _ in range(2)] == [20, 0]
    assert store.stats().refreshed_version == 1
    batch.release()
    assert [store.score(scores_of, only="stale", budget=20) for _ in range(2)] == [10, 0]
    assert (store.stats().refreshed_version, store.check()) == (1, [])
