"""A refresh with a budget, and a refresh that processes share."""

import functools
import multiprocessing
import random
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.pool import assert_weights_are_those_of_the_scores, places
from helpers.samples import scores_of
from sqlbuffer import race
from sqlbuffer.core import refresh
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.weighting import Power, Softmax
from sqlbuffer.db.schema import buffers
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.store import SampleStore, open_store

THIRTY = [f"s{i}" for i in range(30)]
SAMPLES_BYTES = "SELECT pg_relation_size('sqlbuffer.samples')"


class Scorer:
    """Scores by name, a little differently with each version, and remembers whom it scored, call by
    call.
    """

    def __init__(self, plus: float = 0.0) -> None:
        self.plus = plus
        self.seen: list[list[str]] = []

    def __call__(self, samples: list[str]) -> np.ndarray:
        self.seen.append(list(samples))
        return scores_of(samples) + self.plus


@pytest.fixture
def thirty(store: SampleStore) -> SampleStore:
    """Thirty samples with scores of version 0, all of which are stale."""
    store.add(THIRTY)
    store.score(scores_of)
    store.save_predictor(b"", rows_trained=1)
    return store


def refresh_some(
    store: SampleStore, score_fn: Callable[[list[str]], Any], budget: int = 7, **options: Any
) -> int:
    return store.score(score_fn, only="stale", budget=budget, **options)


def test_the_highest_of_the_oldest_come_first(thirty: SampleStore) -> None:
    scorer = Scorer(plus=0.5)
    assert refresh_some(thirty, scorer, 10) == 10
    assert set(scorer.seen[0]) == set(THIRTY[20:])
    thirty.save_predictor(b"", rows_trained=1)
    assert refresh_some(thirty, scorer, 15) == 15
    assert set(scorer.seen[1]) == set(THIRTY[5:20]), "the oldest version is not used up yet"
    assert refresh_some(thirty, scorer, 7) == 7
    assert set(scorer.seen[2]) == {*THIRTY[:5], "s29", "s28"}
    assert thirty.check() == []


def test_score_weight_and_key_change_at_once(thirty: SampleStore) -> None:
    thirty.sample(3).settle()  # the clock stands somewhere
    before, clock = places(thirty), thirty.sample(0).clock
    assert refresh_some(thirty, Scorer(plus=2.5), 8) == 8
    after, waiting = places(thirty), thirty.waiting()
    rescored = {i for i in after if after[i] != before[i]}
    assert len(rescored) == 8
    for i, score in zip(waiting.ids.tolist(), waiting.scores.tolist(), strict=True):
        (old_key, old), (key, weight) = before[i], after[i]
        assert weight == pytest.approx(score + race.FLOOR)
        assert weight == pytest.approx(old + 2.5 * (i in rescored))
        (expected,) = race.rescaled(np.array([old_key]), clock, np.array([old]), np.array([weight]))
        assert key == pytest.approx(expected)
    assert thirty.check() == []


def test_a_refresh_comes_to_its_end(thirty: SampleStore) -> None:
    scorer = Scorer()
    done = [refresh_some(thirty, scorer, 12) for _ in range(3)]
    stats = thirty.stats()
    assert (done, stats.score_version, stats.refreshed_version) == ([12, 12, 6], 1, 0)
    assert refresh_some(thirty, scorer) == 0
    assert (thirty.stats().refreshed_version, thirty.is_refreshed(), len(scorer.seen)) == (
        1,
        True,
        3,
    )
    assert refresh_some(thirty, scorer) == 0
    assert thirty.score(scorer, only="all", budget=4) == 4
    assert (thirty.stats().score_version, thirty.is_refreshed()) == (2, True), (
        "no weight is out of step with its score"
    )
    assert thirty.score(scorer, only="stale") == 26


def test_staleness(store: SampleStore) -> None:
    assert store.staleness() == []
    store.add(THIRTY)
    store.score(scores_of)
    store.save_predictor(b"", rows_trained=1)
    refresh_some(store, scores_of, 10)
    store.add(["s99"])
    found = store.staleness()
    assert [(it.score_version, it.waiting) for it in found] == [(None, 1), (0, 20), (1, 10)]
    times = [it.oldest for it in found]
    assert times[0] is None
    assert times[1] < times[2]  # type: ignore[operator]
    assert found[1].oldest.tzinfo is not None  # type: ignore[union-attr]


def test_samples_drawn_during_a_refresh_are_left_alone(thirty: SampleStore) -> None:
    drawn: list[str] = []

    def draw_and_score(samples: list[str]) -> np.ndarray:
        drawn.extend(hold(thirty.sample(10, pct_argmax=0.5)).samples)
        return scores_of(samples) + 1

    n_rescored = refresh_some(thirty, draw_and_score, 10)
    assert n_rescored == 10 - len(set(drawn) & set(THIRTY[20:])) <= 5
    assert [(it.score_version, it.waiting) for it in thirty.staleness()] == [
        (0, 20 - n_rescored),
        (1, n_rescored),
    ]
    assert thirty.check() == []


def test_a_new_lowest_score_moves_every_key(thirty: SampleStore) -> None:
    refresh_some(thirty, lambda samples: scores_of(samples) - 100, 10)
    assert thirty.check() == []
    waiting = thirty.waiting()
    assert waiting.weights.tolist() == pytest.approx((waiting.scores + 80 + race.FLOOR).tolist())
    assert refresh_some(thirty, scores_of, 30) == 20
    assert refresh_some(thirty, scores_of, 30) == 0
    assert thirty.score(scores_of, only="all", budget=30) == 30
    assert refresh_some(thirty, scores_of) == 0
    assert thirty.waiting().weights.min() == pytest.approx(race.FLOOR), (
        "at its end weights count from the lowest"
    )
    assert hold(thirty.sample(3, pct_argmax=1.0)).samples == ["s29", "s28", "s27"]
    assert thirty.check() == []


def test_what_could_not_be_drawn_joins_the_race(thirty: SampleStore) -> None:
    refresh_some(thirty, lambda samples: np.full(len(samples), np.nan), 30)
    assert (thirty.stats().unscorable, len(thirty.sample(5))) == (30, 0)
    thirty.save_predictor(b"", rows_trained=1)
    assert refresh_some(thirty, scores_of, 20) == 20
    assert (thirty.stats().unscorable, len(thirty.sample(30))) == (10, 20)
    assert thirty.check() == []


@pytest.mark.parametrize("budget", [None, 30])
def test_without_any_score_the_next_one_is_the_lowest(
    thirty: SampleStore, budget: int | None
) -> None:
    """Either refresh forgets a lowest score that no waiting sample has."""
    thirty.score(lambda samples: np.full(len(samples), np.nan), only="stale", budget=budget)
    assert refresh_some(thirty, scores_of) == 0  # a refresh with a budget ends by this
    thirty.add(["s40", "s41"])
    thirty.score(scores_of)
    weights = [weight for weight in thirty.waiting().weights.tolist() if weight]
    assert sorted(weights) == pytest.approx([race.FLOOR, 1 + race.FLOOR])
    assert thirty.check() == []


@pytest.mark.slow
def test_a_full_refresh_that_was_interrupted_is_not_taken_for_done(thirty: SampleStore) -> None:
    def interrupted(samples: list[str]) -> np.ndarray:
        if "s3" in samples:
            raise KeyboardInterrupt
        return scores_of(samples)

    with pytest.raises(KeyboardInterrupt):
        thirty.score(interrupted, only="all", chunk=10)
    while refresh_some(thirty, scores_of):
        pass
    assert not thirty.is_refreshed()
    assert thirty.score(scores_of, only="stale") == 0
    assert (thirty.is_refreshed(), thirty.check()) == (True, [])


def test_wrong_budgets(thirty: SampleStore) -> None:
    for budget in (-1, 1.5, True, "all"):
        with pytest.raises(InvalidArgument, match="budget must be a number of samples"):
            refresh_some(thirty, scores_of, budget)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="a budget is for a refresh"):
        thirty.score(scores_of, budget=3)
    with pytest.raises(InvalidArgument, match="give budget=, too"):
        thirty.score(scores_of, only="all", checkpoint={"a": b""})


def test_a_checkpoint_is_stored_with_the_scores(thirty: SampleStore) -> None:
    assert refresh_some(thirty, scores_of, checkpoint={"some": b"7"}) == 7
    assert thirty.checkpoint("some") == (0, b"7")
    with pytest.raises(InvalidArgument):
        refresh_some(thirty, lambda samples: np.zeros(1), checkpoint={"some": b"14"})
    assert thirty.checkpoint("some") == (0, b"7")


# -- a queue found again ---------------------------------------------------------------------------


def run(stores: Iterator[SampleStore]) -> list[Any]:
    """Refresh, draw, release and add for a while; return what was rescored and drawn."""
    story: list[Any] = []
    rng = np.random.default_rng(1)
    store = next(stores)
    store.add([f"s{i}" for i in range(300)])
    store.score(lambda samples: scores_of(samples) % 7)  # many are equal
    for i in range(40):
        if i % 12 == 0:
            store.save_predictor(b"", rows_trained=1)
        # New lowest scores now and then, and weights so small that the clock jumps when they are
        # drawn.
        scorer = Scorer(plus=float(rng.normal()) - 3 * (i % 9 == 8))
        refresh_some(store, scorer, 11)
        story += [sorted(samples) for samples in scorer.seen]
        if i % 10 == 5:
            store.sample(9).release()
        if i % 8 == 3:
            store.add([f"s{500 + i}"])
            store.score(lambda samples: np.full(len(samples), -1e-9))
        batch = store.sample(5, pct_argmax=0.2 * (i % 3))
        story.append(batch.samples)
        batch.settle(np.zeros(len(batch)))
        if i == 20:
            inside.database_of(store).write(turn_back_of(store))
        store = next(stores)
    assert store.check() == []
    return story


def turn_back_of(store: SampleStore) -> Callable[[sa.Connection], None]:
    from sqlbuffer.core.clock import turn_back
    from sqlbuffer.core.transaction import Transaction

    return lambda connection: turn_back(Transaction(connection, inside.handle_of(store)))


@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.slow
def test_a_queue_found_again_goes_on_where_the_old_one_was(
    new_store: Callable[..., SampleStore], mode: str
) -> None:
    kept = new_store(name="kept", mode=mode)

    def the_same() -> Iterator[SampleStore]:
        while True:
            yield kept

    def another_each_time() -> Iterator[SampleStore]:
        store = new_store(name="again", mode=mode)
        while True:
            store._stale.forget()
            yield store

    assert run(the_same()) == run(another_each_time())


# -- shared by processes ---------------------------------------------------------------------------

MANY, CHUNK = 4000, 50


def take_part(url: str, barrier: Any, results: Any) -> None:
    def slow(samples: list[str]) -> np.ndarray:
        time.sleep(0.01)
        return scores_of(samples) / 2

    with open_store(url) as store:
        barrier.wait()
        results.put(store.score(slow, only="stale", chunk=CHUNK))


# -- what others do between the scores and the weights of a full refresh ---------------------------


def come_back_with_another_score(store: SampleStore) -> None:
    """Ten leave, and wait again under another score."""
    batch = store.sample(10, pct_argmax=0.5)
    batch.settle()
    store.add(batch.samples, requeue=True)
    store.score(lambda samples: scores_of(samples) + 100)


def refresh_anew(store: SampleStore) -> None:
    store.score(lambda samples: scores_of(samples)[::-1] * 3 + 1, only="all")


def refresh_to_what_was(store: SampleStore) -> None:
    """No key moves: all weights are what they have been."""
    store.score(scores_of, only="all")


def refresh_some_anew(store: SampleStore) -> None:
    store.score(lambda samples: scores_of(samples) * 5, only="all", budget=7)


def bring_lower_ones(store: SampleStore) -> None:
    store.add(["s-3", "s-5"])
    store.score(scores_of)


@pytest.mark.slow
@pytest.mark.parametrize(
    "others",
    [
        come_back_with_another_score,
        refresh_anew,
        refresh_to_what_was,
        refresh_some_anew,
        bring_lower_ones,
    ],
)
@pytest.mark.parametrize("n_swapped", [0, 2])
def test_samples_scored_by_others_during_a_refresh_have_their_own_weight(
    new_store: Callable[..., SampleStore],
    during_a_swap: Callable[..., None],
    others: Callable[[SampleStore], None],
    n_swapped: int,
) -> None:
    """Before the first weight is swapped, or after two chunks of them."""
    store, other = new_store(), new_store()
    store.add(THIRTY)
    store.score(scores_of)
    during_a_swap(lambda: others(other), n_swapped=n_swapped, chunk=4)
    assert store.score(lambda samples: scores_of(samples) * 7, only="all") == 30
    assert_weights_are_those_of_the_scores(store)
    store.score(Scorer(), only="stale")
    assert store.check() == []


@pytest.mark.slow
def test_the_first_score_counts_when_two_refresh_the_same(
    new_store: Callable[..., SampleStore],
) -> None:
    """What another process has scored, while we were at the same samples, keeps its score."""
    store, other = new_store(), new_store()
    store.add(THIRTY)
    store.score(scores_of)

    def overtaken(samples: list[str]) -> np.ndarray:
        if not other.is_refreshed():
            other.score(lambda them: scores_of(them) * 2, only="stale", chunk=10)
        return scores_of(samples) * 3

    assert store.score(overtaken, only="all", chunk=10) == 0
    waiting = store.waiting()
    assert waiting.scores.tolist() == (scores_of(waiting.samples) * 2).tolist()
    assert store.check() == []


def test_a_refresh_on_postgresql_writes_new_versions_where_the_old_ones_are(
    postgresql_url: str,
) -> None:
    """A transaction that changes every row of a page finds no room on it, and the table grows."""
    with open_store(postgresql_url) as store:
        store.add([f"s{i}" for i in range(20_000)])
        store.score(scores_of)
        read = functools.partial(
            inside.database_of(store).read, lambda c: c.scalar(sa.text(SAMPLES_BYTES))
        )
        before = read()
        assert store.score(scores_of, only="all", chunk=1000) == 20_000
        assert read() < 1.3 * before


def test_a_refresh_on_sqlite_goes_through_neighbours(sqlite_url: str) -> None:
    """A page that two transactions write is twice in the log."""
    with open_store(sqlite_url) as store:
        store.add(THIRTY)
        store.score(scores_of)
        scorer = Scorer()
        store.score(scorer, only="all", chunk=10)
        in_order = sa.text("SELECT text FROM samples ORDER BY id")
        stored = inside.scalars(store, in_order)
        assert sorted(scorer.seen) == sorted(list(stored[i : i + 10]) for i in (0, 10, 20))


@pytest.mark.slow
def test_two_processes_share_a_refresh(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add([f"s{i}" for i in range(MANY)])
        store.score(scores_of)
        store.save_predictor(b"", rows_trained=1)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=take_part, args=(store_url, barrier, results)) for _ in range(2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # other threads: a child uses nothing of theirs
        for process in processes:
            process.start()
    done = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert min(done) >= MANY // 4, done
    assert MANY <= sum(done) <= MANY * 1.2, "few are scored twice"
    with open_store(store_url) as store:
        waiting = store.waiting()
        assert waiting.scores.tolist() == (scores_of(waiting.samples) / 2).tolist()
        assert (store.is_refreshed(), store.check()) == (True, [])
        version = sa.select(buffers.c.refreshed_version)
        assert inside.scalar(store, version) == 1


def test_what_is_released_after_a_refresh_of_an_empty_pool_has_its_weights(
    store: SampleStore,
) -> None:
    """Such a refresh leaves no lowest score, from which weights would count."""
    store.add(["s3", "s1", "s2"])
    store.score(scores_of)
    first, second = store.sample(1, pct_argmax=1.0), store.sample(-1)
    store.score(scores_of, only="all")
    second.release()
    first.release()
    waiting = store.waiting()
    assert dict(zip(waiting.samples, waiting.weights.tolist(), strict=True)) == pytest.approx(
        {"s1": 1e-8, "s2": 1.0, "s3": 2.0}, rel=1e-6
    )
    assert store.check() == []


# -- keys that are moved at once -------------------------------------------------------------------


def draw_and_turn_back(store: SampleStore) -> None:
    """The clock comes back to where it was, and all that waits stands nearer."""
    store.sample(8).settle()
    inside.database_of(store).write(turn_back_of(store))


def come_and_go(store: SampleStore) -> None:
    """A lowest score comes, with which every key moves, and a refresh brings back the one there
    was.
    """
    store.add(["s-1"])
    store.score(scores_of)
    store.remove([int(i) for i in store.waiting().ids[-1:]])
    store.score(lambda samples: scores_of(samples) * 7, only="stale")


@pytest.mark.slow
@pytest.mark.parametrize("others", [draw_and_turn_back, come_and_go])
@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("n_swapped", [1, 3, 5])
def test_a_walk_notices_that_every_key_has_moved(
    new_store: Callable[..., SampleStore],
    during_a_swap: Callable[..., None],
    others: Callable[[SampleStore], None],
    mode: str,
    n_swapped: int,
) -> None:
    """Also where clock and lowest score are what they were when it began."""
    store, other = new_store(mode=mode), new_store(mode=mode)
    store.add(THIRTY)
    store.score(scores_of)
    during_a_swap(lambda: others(other), n_swapped=n_swapped, chunk=4)
    store.score(lambda samples: scores_of(samples) * 7, only="all")
    assert_weights_are_those_of_the_scores(store)
    assert (store.is_refreshed(), store.check()) == (True, [])


class History:
    """Does anything that changes scores or waiting samples, also while scores are predicted."""

    def __init__(self, store: SampleStore, seed: int) -> None:
        self.store, self.rng = store, random.Random(seed)
        self.open: list[Batch] = []
        self.done: list[str] = []
        self.n_added = self.depth = 0
        self.others = ALSO_WITHIN

    def step(self) -> None:
        name = self.rng.choice(["add", "score", "refresh", "some", "stale", *ALSO_WITHIN])
        self.done.append(name)
        getattr(self, name)()

    def predict(self, samples: list[str]) -> Any:
        self.do_another(0.7)
        return scores_of(samples) + self.store.stats().score_version

    def do_another(self, chance: float) -> None:
        """Do something else, perhaps, while a call is under way."""
        if self.depth == 1 and self.rng.random() < chance:
            name = self.rng.choice(self.others)
            self.done.append(f"({name})")
            getattr(self, name)()

    def within(self, call: Callable[..., Any], **options: Any) -> None:
        self.depth += 1
        call(self.predict, chunk=5, **options)
        self.depth -= 1

    def add(self) -> None:
        n = self.rng.randint(1, 8)
        self.store.add([f"s{self.n_added + i}" for i in range(n)])
        self.n_added += n

    def score(self) -> None:
        self.within(self.store.score)

    def refresh(self) -> None:
        self.within(self.store.refresh)

    def renew(self) -> None:
        self.stale()
        self.refresh()

    def some(self) -> None:
        self.within(self.store.refresh, budget=self.rng.randint(1, 6))

    def stale(self) -> None:
        self.store.mark_stale()

    def draw(self) -> None:
        if len(batch := self.store.sample(self.rng.randint(1, 4))):
            self.open.append(batch)

    def release(self) -> None:
        if self.open:
            self.open.pop(self.rng.randrange(len(self.open))).release()

    def fail(self) -> None:
        if self.open:
            batch = self.open.pop()
            if batch.fail(batch.ids[:2], "no conformer"):
                self.open.append(batch)

    def retry(self) -> None:
        self.store.retry()

    def requeue(self) -> None:
        self.store.add([f"s{self.rng.randrange(self.n_added + 1)}"], requeue=True)

    def score_late(self) -> None:
        self.store.score(scores_of)


ALSO_WITHIN = ["draw", "draw", "release", "fail", "retry", "requeue", "score_late", "stale"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_no_waiting_score_is_older_than_the_finished_refresh(
    new_store: Callable[..., SampleStore], mode: str, seed: int
) -> None:
    """Whatever came back to the pool while the refresh was under way."""
    store = new_store(mode=mode)
    history = History(store, seed)
    history.add()
    for _ in range(40):
        history.step()
        stats = store.stats()
        oldest = [it.score_version for it in store.staleness() if it.score_version is not None]
        assert min(oldest, default=stats.refreshed_version) >= stats.refreshed_version, history.done
        if history.done[-1] == "refresh":
            assert store.is_refreshed(), history.done
    assert store.check() == []
    for batch in history.open:
        batch.release()
    store.refresh(scores_of)
    newest = store.stats().score_version
    assert {it.score_version for it in store.staleness()} <= {newest, None}
    assert store.check() == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("weighting", ["shift", Softmax(0.1)], ids=["shift", "softmax"])
def test_refreshes_that_overlap_leave_versions_that_can_be(
    new_store: Callable[..., SampleStore],
    monkeypatch: pytest.MonkeyPatch,
    weighting: str | Softmax,
    mode: str,
    seed: int,
) -> None:
    """A refresh is under way while others begin and end, and while samples come back: also between
    two pages of its weights.
    """
    store = new_store(mode=mode, weighting=weighting)
    history = History(store, seed)
    history.others = [*ALSO_WITHIN, "refresh", "renew", "renew", "some"]
    pages = refresh._pages

    def pages_beside(*args: Any) -> Iterator[Any]:
        for page in pages(*args):
            history.do_another(0.4)
            yield page

    monkeypatch.setattr(refresh, "WEIGHTS_CHUNK", 4)
    monkeypatch.setattr(refresh, "_pages", pages_beside)
    history.add()
    for _ in range(30):
        history.step()
        stats = store.stats()
        oldest = [it.score_version for it in store.staleness() if it.score_version is not None]
        assert min(oldest, default=stats.refreshed_version) >= stats.refreshed_version, history.done
        assert store.check() == [], history.done
    n_left = sum(it.waiting for it in store.staleness())
    for _ in range(n_left + 2):
        store.refresh(scores_of, budget=5)
    assert store.is_refreshed()


@pytest.mark.parametrize("comes_back", ["waits", "is drawn again"])
def test_an_older_refresh_that_ends_after_a_newer_one(
    new_store: Callable[..., SampleStore],
    during_a_swap: Callable[..., None],
    comes_back: str,
) -> None:
    """A sample with an old score came back between both ends."""
    store, other = new_store(weighting=Power(1.0)), new_store(weighting=Power(1.0))
    store.add(THIRTY)
    store.score(scores_of)
    old = hold(store.sample(4))

    def overtake() -> None:
        other.mark_stale()
        other.refresh(scores_of)
        old.release()
        if comes_back == "is drawn again":
            assert sorted(hold(other.sample(4)).ids) == sorted(old.ids)

    store.mark_stale()
    during_a_swap(overtake, n_swapped=1, chunk=4)
    store.refresh(scores_of)
    oldest = min(it.score_version or 0 for it in store.staleness())
    assert (store.stats().refreshed_version <= oldest, store.check()) == (True, [])
    while not store.is_refreshed() or store.stats().refreshed_version < 2:
        assert store.refresh(scores_of, budget=5) or store.is_refreshed()
