"""Draws through a database are exact: chi-square, p > 0.001 at 30,000 samples, fixed seeds.

Within any subset of a race the order of arrival is itself a sequential weighted draw from that
subset, whatever else takes part. So one pool of 6,000 clusters of five samples gives 6,000
independent repetitions (20,000 in the soak): whenever a cluster whose members in the race are S
loses one by the race, it is member i with probability w_i / sum of w over S. A history draws,
counts those events, and compares them with the reference: first draws, later draws, late arrivals,
changed weights, a new lowest score, shares by argmax, replay. Each is played on SQLite, and a
smaller one of each draws the same samples from both databases.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from scipy import stats

from helpers import inside
from helpers.cleanup import hold
from helpers.forked import forkserver
from helpers.samples import scores_of
from sqlbuffer.core.clock import turn_back
from sqlbuffer.core.weighting import Power, Softmax
from sqlbuffer.store import SampleStore, open_store

pytestmark = pytest.mark.slow

CLUSTERS = 20_000
FEW_CLUSTERS = 600
SCORES = np.array([1.0, 2.0, 3.0, 5.0, 9.0])
P_VALUE = 0.001


def name(cluster: int, member: int) -> str:
    return f"{cluster}/{member}"


def is_file(store: SampleStore) -> bool:
    """Tell a file, where long series take less time, from a server, which draws the same."""
    return inside.url_of(store).startswith("sqlite")


def member_of(sample: str) -> int:
    return int(sample.rpartition("/")[2])


def scorer(scores: np.ndarray) -> Callable[[list[str]], np.ndarray]:
    return lambda samples: scores[[member_of(sample) for sample in samples]]


@dataclasses.dataclass
class Observer:
    """Follows each cluster through the draws and counts which member went, given who was there."""

    clusters: int
    events: Counter[tuple[tuple[int, ...], int]] = dataclasses.field(default_factory=Counter)
    drawn: list[list[str]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.present = [set(range(len(SCORES))) for _ in range(self.clusters)]

    def everybody(self, members: range = range(len(SCORES))) -> list[str]:
        return [name(cluster, member) for cluster in range(self.clusters) for member in members]

    def watch(
        self, store: SampleStore, n: int, pct_argmax: float = 0.0, *, returns: bool = False
    ) -> None:
        """Draw as many as a test with all the clusters draws n."""
        n = n * self.clusters // CLUSTERS
        batch = store.sample(n, pct_argmax)
        self.drawn.append(batch.samples)
        assert len(batch) == n
        drawn = []
        for sample, by_argmax in zip(batch.samples, batch.info.argmax, strict=True):
            cluster, member = map(int, sample.split("/"))
            if not by_argmax:
                self.events[tuple(sorted(self.present[cluster])), member] += 1
            self.present[cluster].remove(member)
            drawn.append((cluster, member))
        batch.settle()
        for cluster, member in drawn if returns else []:
            self.present[cluster].add(member)

    def assert_exact(self, weights: np.ndarray) -> None:
        """Compare the counts with the reference, and start counting again."""
        statistic, freedom = 0.0, 0
        for present in {present for present, _ in self.events}:
            if len(present) < 2:
                continue
            observed = np.array([self.events[present, member] for member in present])
            expected = observed.sum() * weights[list(present)] / weights[list(present)].sum()
            can_be_drawn = expected > 0
            assert not observed[~can_be_drawn].any(), "a sample of weight 0 was drawn"
            observed, expected = observed[can_be_drawn], expected[can_be_drawn]
            if len(expected) > 1 and expected.min() >= 5:
                statistic += ((observed - expected) ** 2 / expected).sum()
                freedom += len(expected) - 1
        assert freedom > 0
        assert stats.chi2.sf(statistic, freedom) > P_VALUE, (statistic, freedom)
        self.events.clear()


class Recorder(Observer):
    """Remembers what was drawn; its clusters are too few to be judged."""

    def assert_exact(self, weights: np.ndarray) -> None:
        self.events.clear()


OpenStore = Callable[..., SampleStore]


def filled(new_store: OpenStore, observer: Observer, **options: object) -> SampleStore:
    store = new_store(weighting=Power(1.0), **options)
    store.add(observer.everybody())
    store.score(scorer(SCORES))
    return store


def first_draws_and_later_draws(new_store: OpenStore, observer: Observer) -> None:
    store = filled(new_store, observer, seed=1)
    for n in (10_000, 20_000, 20_000):
        observer.watch(store, n)
        observer.assert_exact(SCORES)
    observer.watch(store, 49_000)
    observer.assert_exact(SCORES)


def late_arrivals(new_store: OpenStore, observer: Observer) -> None:
    store = new_store(weighting=Power(1.0), seed=2)
    store.add(observer.everybody(range(4)))
    store.score(scorer(SCORES))
    observer.present = [set(range(4)) for _ in observer.present]
    observer.watch(store, 30_000)
    store.add(observer.everybody(range(4, 5)))
    for present in observer.present:
        present.add(4)
    store.score(scorer(SCORES))
    observer.events.clear()
    observer.watch(store, 40_000)
    observer.assert_exact(SCORES)


def requeued_samples(new_store: OpenStore, observer: Observer) -> None:
    store = filled(new_store, observer, seed=3)
    observer.watch(store, 40_000)
    again = [
        (cluster, member)
        for cluster, present in enumerate(observer.present)
        for member in {3, 4} - present
    ]
    store.add([name(*one) for one in again], requeue=True)
    for cluster, member in again:
        observer.present[cluster].add(member)
    store.score(scorer(SCORES))
    observer.events.clear()
    observer.watch(store, 40_000)
    observer.assert_exact(SCORES)


def changed_weights(new_store: OpenStore, observer: Observer) -> None:
    store = filled(new_store, observer, seed=4)
    observer.watch(store, 30_000)
    for scores in (np.array([6.0, 0.5, 0.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0, 2.0, 1.0])):
        observer.events.clear()
        store.score(scorer(scores), only="all")
        observer.watch(store, 15_000)
        observer.assert_exact(scores)


def a_new_lowest_score_shifts_all_weights(new_store: OpenStore, observer: Observer) -> None:
    store = new_store(weighting="shift", seed=5)
    store.add(["lowest/0"])
    store.score(lambda samples: np.zeros(len(samples)))
    store.add(observer.everybody())
    store.score(scorer(SCORES))
    observer.watch(store, 30_000)
    observer.assert_exact(SCORES)
    store.add(["lower/0"])
    store.score(lambda samples: np.full(len(samples), -4.0))
    observer.watch(store, 30_000)
    observer.assert_exact(SCORES + 4.0)


def a_share_by_argmax_leaves_the_rest_exact(
    new_store: OpenStore, observer: Observer, pct_argmax: float
) -> None:
    store = filled(new_store, observer, seed=6)
    for _ in range(5):
        observer.watch(store, 6_000, pct_argmax)
    observer.assert_exact(SCORES)


def late_arrivals_after_a_share_by_argmax(new_store: OpenStore, observer: Observer) -> None:
    """The clock is that of the race alone: what left by its weight may have been far behind."""
    store = new_store(weighting=Power(1.0), seed=10)
    store.add(observer.everybody(range(4)))
    store.score(scorer(SCORES))
    observer.present = [set(range(4)) for _ in observer.present]
    observer.watch(store, 15_000, 0.5)
    store.add(observer.everybody(range(4, 5)))
    for present in observer.present:
        present.add(4)
    store.score(scorer(SCORES))
    observer.events.clear()
    observer.watch(store, 40_000)
    observer.assert_exact(SCORES)


def all_by_argmax_is_the_top(new_store: OpenStore, observer: Observer) -> None:
    store = filled(new_store, observer, seed=7)
    n = len(observer.present)
    batch = hold(store.sample(n + n // 2, pct_argmax=1.0))
    assert Counter(map(member_of, batch.samples)) == {4: n, 3: n // 2}
    assert np.all(np.diff(batch.weights) <= 0)
    observer.drawn.append(batch.samples)


def replay_draws_independent_batches(new_store: OpenStore, observer: Observer) -> None:
    store = filled(new_store, observer, seed=8, mode="replay")
    for _ in range(5):
        observer.watch(store, 10_000, returns=True)
    observer.assert_exact(SCORES)


def replay_with_a_share_by_argmax(new_store: OpenStore, observer: Observer) -> None:
    store = filled(new_store, observer, seed=9, mode="replay")
    for _ in range(5):
        observer.watch(store, 10_000, 0.1, returns=True)
    observer.assert_exact(SCORES)


def a_race_turned_back_goes_on_exactly(new_store: OpenStore, observer: Observer) -> None:
    # Drawing a sample of weight 1e-12 moves the clock to 1e12, where float64 no longer resolves
    # these keys.
    store = new_store(weighting=Power(1.0), seed=10)
    store.add(["slow/0"])
    store.score(lambda samples: np.full(len(samples), 1e-12))
    store.sample(1).settle()
    store.add(observer.everybody())
    store.score(scorer(SCORES))
    store.sample(1).release()
    observer.watch(store, 20_000)
    observer.events.clear()
    observer.watch(store, 40_000)
    observer.assert_exact(SCORES)


def softmax_weights(new_store: OpenStore, observer: Observer) -> None:
    store = new_store(weighting=Softmax(4.0), seed=11)
    store.add(observer.everybody())
    store.score(scorer(SCORES))
    observer.watch(store, 50_000)
    observer.assert_exact(np.exp(SCORES / 4.0))


HISTORIES: dict[str, Callable[[OpenStore, Observer], None]] = {
    history.__name__: history
    for history in (
        first_draws_and_later_draws,
        late_arrivals,
        requeued_samples,
        changed_weights,
        a_new_lowest_score_shifts_all_weights,
        late_arrivals_after_a_share_by_argmax,
        all_by_argmax_is_the_top,
        replay_draws_independent_batches,
        replay_with_a_share_by_argmax,
        a_race_turned_back_goes_on_exactly,
        softmax_weights,
    )
} | {
    f"a share of {share} by argmax": functools.partial(
        a_share_by_argmax_leaves_the_rest_exact, pct_argmax=share
    )
    for share in (0.1, 0.5)
}


@pytest.mark.parametrize("clusters", [3_000, pytest.param(CLUSTERS, marks=pytest.mark.soak)])
@pytest.mark.parametrize("history", HISTORIES)
def test_draws_are_exact_on_sqlite(sqlite_url: str, history: str, clusters: int) -> None:
    with contextlib.ExitStack() as stack:
        HISTORIES[history](functools.partial(opened, stack, sqlite_url), Observer(clusters))


@pytest.mark.soak
@pytest.mark.parametrize("history", HISTORIES)
def test_draws_are_exact_on_postgresql(postgresql_url: str, history: str) -> None:
    with contextlib.ExitStack() as stack:
        HISTORIES[history](functools.partial(opened, stack, postgresql_url), Observer(CLUSTERS))


@pytest.mark.parametrize("history", HISTORIES)
def test_a_history_draws_the_same_on_both_databases(
    sqlite_url: str, postgresql_url: str, history: str
) -> None:
    """Sample for sample: what chi-square says of the draws from SQLite holds for those from
    PostgreSQL.
    """
    observers = [Recorder(FEW_CLUSTERS), Recorder(FEW_CLUSTERS)]
    with contextlib.ExitStack() as stack:
        for url, observer in zip((sqlite_url, postgresql_url), observers, strict=True):
            HISTORIES[history](functools.partial(opened, stack, url), observer)
    assert observers[0].drawn
    assert observers[0].drawn == observers[1].drawn


def opened(stack: contextlib.ExitStack, url: str, **options: Any) -> SampleStore:
    return stack.enter_context(open_store(url, **options))


def assert_independent(was_in: np.ndarray, is_drawn: np.ndarray) -> None:
    """Membership in a draw does not depend on membership in the draws before: chi-square of a 2 x 2
    table.
    """
    counts = [[np.sum(is_drawn & group), np.sum(~is_drawn & group)] for group in (was_in, ~was_in)]
    assert np.min(counts) >= 5, counts
    assert stats.chi2_contingency(counts).pvalue > P_VALUE, counts


def test_replay_draws_are_independent_after_a_release(
    new_store: Callable[..., SampleStore],
) -> None:
    """The turn goes down by a release: entries that are named by it would share their variates with
    later ones.
    """
    store = new_store(weighting="uniform", seed=14, mode="replay")
    samples = [str(i) for i in range(10_000)]
    store.add(samples)

    def draw(n: int, *, settle: bool = True) -> np.ndarray:
        batch = store.sample(n)
        if settle:
            batch.settle()
        return np.isin(samples, batch.samples)

    for _ in range(3):
        first, second = store.sample(1_000), store.sample(1_000)
        b = np.isin(samples, second.samples)
        first.release()
        second.settle()
        c, d = draw(2_000), draw(1_000)
        assert_independent(b & c, d)
        assert_independent(c, d)
        assert_independent(b, draw(1_000))


@pytest.mark.soak
def test_twenty_thousand_replay_rounds_are_independent(
    new_store: Callable[..., SampleStore],
) -> None:
    """Draw A and B, release A, settle B; draw C and D: being in D does not depend on being in B and
    C.
    """
    store = new_store(weighting="uniform", seed=19, mode="replay")
    samples = [str(i) for i in range(40)]
    store.add(samples)
    was_in, is_drawn = [], []
    for _ in range(20_000):
        first, second = store.sample(4), store.sample(4)
        first.release()
        second.settle()
        with store.sample(8) as third:
            third.settle()
        with store.sample(4) as fourth:
            fourth.settle()
        was_in.append(np.isin(samples, np.intersect1d(second.samples, third.samples)))
        is_drawn.append(np.isin(samples, fourth.samples))
    assert_independent(np.concatenate(was_in), np.concatenate(is_drawn))
    assert store.check() == []


def replay(url: str, rounds: int) -> None:
    with open_store(url, weighting="uniform", seed=15, mode="replay") as store:
        for _ in range(rounds):
            store.sample(200).settle()


def test_replay_draws_of_four_processes_are_independent(postgresql_url: str) -> None:
    """Draws that overlap shared a turn, and entries that were named by it their variates;
    membership is independent.

    A key is the clock at which its sample entered, after the draw before, and a variate, since all
    weights are 1.
    """
    n, rounds = 2_000, 60
    with open_store(postgresql_url, weighting="uniform", seed=15, mode="replay") as store:
        store.add([str(i) for i in range(n)])
        started = forkserver()
        processes = [
            started.Process(target=replay, args=(postgresql_url, rounds)) for _ in range(4)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
        assert [process.exitcode for process in processes] == [0] * 4
        assert store.check() == []
    engine = sa.create_engine(
        sa.make_url(postgresql_url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        drawn = connection.exec_driver_sql(
            "SELECT d.sample_id, t.id, d.race_key, t.clock FROM sqlbuffer.draws d "
            "JOIN sqlbuffer.batches t ON t.id = d.batch_id ORDER BY d.sample_id, t.id"
        ).all()
    engine.dispose()
    assert len(drawn) == 4 * rounds * 200
    repeats = 0
    for _, rows in itertools.groupby(drawn, key=lambda row: row[0]):
        history = list(rows)
        own = np.sort([after[2] - before[3] for before, after in itertools.pairwise(history)])
        repeats += int(np.sum(np.diff(own) < 1e-10))
    assert repeats == 0, f"{repeats} of {len(drawn)} entries have the variate of an earlier one"
    batch_of = {number: place for place, number in enumerate(sorted({row[1] for row in drawn}))}
    members = np.zeros((4 * rounds, n), dtype=bool)
    members[[batch_of[row[1]] for row in drawn], [row[0] - drawn[0][0] for row in drawn]] = True
    assert_independent((members[:-2] & members[1:-1]).ravel(), members[2:].ravel())
    assert_independent(members[:-1].ravel(), members[1:].ravel())


@pytest.mark.parametrize(
    ("mode", "pct_argmax"), [("consume", 0.0), ("consume", 1.0), ("replay", 0.5), ("replay", 1.0)]
)
def test_ties_do_not_depend_on_the_order_of_insertion(
    sqlite_url: str, postgresql_url: str, mode: str, pct_argmax: float
) -> None:
    """Equal weights, equal scores, equal rewards: the hash decides on both databases, in draws,
    `top` and refreshes.
    """
    samples = [f"C{'CN'[i % 2] * (i // 3)}{i}" for i in range(300)]
    histories = []
    for url in (sqlite_url, postgresql_url):
        for order in (samples, samples[::-1], sorted(samples, key=hash_of_text)):
            with open_store(url, name=f"order {len(histories)}", seed=3, mode=mode) as store:
                for start in range(0, len(order), 70):
                    store.add(order[start : start + 70])
                store.score(lambda these: np.array([float(len(one)) for one in these]), chunk=37)
                history: list[object] = []
                for i in range(4):
                    batch = store.sample(20, pct_argmax)
                    history.append(batch.samples)
                    if i == 1:
                        batch.release()
                    else:
                        batch.settle([float(len(one) // 2) for one in batch.samples])
                    rescored: list[str] = []

                    def rescore(these: list[str], rescored: list[str] = rescored) -> np.ndarray:
                        rescored += these
                        return np.array([float(-len(one)) for one in these])

                    store.score(rescore, only="all" if i == 0 else "stale", budget=30)
                    history.append(sorted(rescored))
                history += [
                    [row["sample"] for row in store.top(7)],
                    [row["sample"] for row in store.top(7, by="score")],
                ]
                history.append(hold(store.sample(-1)).samples)
                histories.append(history)
    for history in histories:
        assert history == histories[0]


def hash_of_text(sample: str) -> bytes:
    return hashlib.blake2b(sample.encode()).digest()


def test_equal_keys_are_drawn_in_the_order_of_the_hash(
    sqlite_url: str, postgresql_url: str
) -> None:
    """Also where the end of a batch falls between them."""
    samples = [f"s{i}" for i in range(50)]
    found = []
    for url in (sqlite_url, postgresql_url):
        for order in (samples, samples[::-1]):
            with open_store(url, name=f"{order[0]}", seed=4, weighting="uniform") as store:
                store.add(order)
                parsed = sa.make_url(url)
                is_server = parsed.drivername == "postgresql"
                engine = sa.create_engine(
                    parsed.set(drivername="postgresql+psycopg") if is_server else parsed
                )
                with engine.begin() as connection:
                    connection.exec_driver_sql(
                        f"UPDATE {'sqlbuffer.' if is_server else ''}pool SET race_key = 2.5"
                    )
                engine.dispose()
                drawn = [hold(store.sample(n)).samples for n in (7, 1, 20, 30)]
                assert [len(batch) for batch in drawn] == [7, 1, 20, 22]
                assert store.check() == []
                found.append(drawn)
    assert all(drawn == found[0] for drawn in found)


def test_replay_over_many_decades_of_weight_goes_on_exactly(
    new_store: Callable[..., SampleStore],
) -> None:
    """A draw of everything ends at the lightest, at a clock that resolves none of the
    others' keys.
    """
    store = new_store(weighting="softmax", mode="replay", seed=16)
    scores = {"a": -3.0, "b": -3.0, "c": -3.0, "d": 0.0, "e": 0.0, "f": -60.0}
    store.add(list(scores))
    store.score(lambda samples: np.array([scores[sample] for sample in samples]))
    first: Counter[str] = Counter()
    n_rounds = 250 if is_file(store) else 60
    for _ in range(n_rounds):
        with store.sample(-1) as batch:
            batch.settle()
        with store.sample(1) as batch:
            first[batch.samples[0]] += 1
            batch.settle()
    expected = np.exp(list(scores.values())) / np.exp(list(scores.values())).sum() * n_rounds
    likely = expected > 5
    observed = np.array([first[name] for name in scores])
    assert (
        stats.chisquare(
            observed[likely], expected[likely] * observed[likely].sum() / expected[likely].sum()
        ).pvalue
        > P_VALUE
    )
    assert store.check() == []


@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("lowest", [0.0, -1.0, -100.0, -10_000.0])
def test_a_released_argmax_share_has_the_weights_of_today(
    new_store: Callable[..., SampleStore], mode: str, lowest: float
) -> None:
    store = new_store(seed=17, mode=mode)
    samples = [f"s{i}" for i in range(4_000)]
    store.add(samples)
    store.score(lambda these: np.ones(len(these)))
    batch = store.sample(2_000, pct_argmax=1.0)
    heaviest = set(batch.samples)
    store.add(["lowest"])
    store.score(lambda these: np.full(len(these), lowest))
    batch.release()
    with store.sample(1_000) as batch:
        released = sum(sample in heaviest for sample in batch.samples)
        batch.settle()
    assert stats.binomtest(released, 1_000, 0.5).pvalue > P_VALUE, released


@pytest.mark.parametrize("lowest", [-1e12, -1e17, -1e100])
def test_one_very_low_score_leaves_all_keys_distinct(
    new_store: Callable[..., SampleStore], lowest: float
) -> None:
    store = new_store(seed=18)
    store.add([f"s{i}" for i in range(500)])
    store.score(lambda these: scores_of(these) / 1e6)
    store.sample(100).settle()
    store.add(["lowest"])
    store.score(lambda samples: np.full(len(samples), lowest))
    with store.sample(100) as batch:
        assert (batch.info.probability > 0).all()
        assert len(set(batch.samples)) == 100
        in_order = stats.spearmanr(batch.ids, np.arange(100)).pvalue
        assert in_order > P_VALUE, "not the oldest first"
        batch.settle()
    assert store.check() == []


def test_probabilities_are_unbiased(new_store: Callable[..., SampleStore]) -> None:
    store = new_store(weighting=Power(1.0), seed=12, mode="replay")
    scores = np.random.default_rng(0).uniform(0.1, 3.0, 400)
    store.add([name(0, i) for i in range(400)])
    store.score(scorer(scores))
    estimates = []
    for _ in range(300 if is_file(store) else 100):
        batch = store.sample(64, pct_argmax=0.1)
        estimates.append((1.0 / batch.info.probability).sum())
        batch.settle()
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - 400) < 4 * error


# -- what is given back ----------------------------------------------------------------------------


def totals_in_parts(store: SampleStore, n: int, parts: list[int]) -> list[float]:
    """Draw and settle; return by how many standard errors each sum of 1/p misses what waited."""
    misses = []
    for size in parts:
        with store.sample(size) as batch:
            p = batch.info.probability
            misses.append(float(((1 / p).sum() - n) / np.sqrt(((1 - p) / p**2).sum())))
            batch.settle()
        n -= size
    return misses


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_released_batch_that_is_drawn_in_parts(
    new_store: Callable[..., SampleStore], mode: str
) -> None:
    """The race is as if it had never been drawn: all is known of the chances in the batches after
    it.
    """
    store = new_store(weighting=Power(1.0), seed=21, mode=mode)
    store.add([str(i) for i in range(3_000)])
    store.score(lambda samples: np.random.default_rng(1).uniform(0.5, 2.0, len(samples)))
    before = store.sample(512)
    drawn, chances = before.samples, before.info.probability
    before.release()
    with store.sample(512) as again:
        assert again.samples == drawn
        assert np.array_equal(again.info.probability, chances)
        again.release()
    if mode == "consume":
        assert np.abs(totals_in_parts(store, 3_000, [128] * 4)).max() < 4
    else:
        assert np.abs([totals_in_parts(store, 3_000, [128]) for _ in range(4)]).max() < 4
    assert store.check() == []


@pytest.mark.parametrize(
    "settles", [True, False], ids=["a later draw is left", "a sample has joined"]
)
def test_a_released_batch_that_cannot_be_undone(
    new_store: Callable[..., SampleStore], settles: bool
) -> None:
    """It is first in line.

    A batch that takes all of it has the rest by chance; one that ends in it can have none.
    """
    store = new_store(weighting=Power(1.0), seed=22)
    store.add([str(i) for i in range(3_000)])
    store.score(lambda samples: np.random.default_rng(1).uniform(0.5, 2.0, len(samples)))
    released = store.sample(200)
    waiting = 3_000
    if settles:
        store.sample(100).settle()
        waiting -= 100
    else:
        store.add(["late"])
        store.score(lambda samples: np.ones(len(samples)))
        waiting += 1
    released.release()
    drawn = []
    for n in (50, 100):
        with store.sample(n) as batch:
            assert np.isnan(batch.info.probability).all()
            drawn += batch.samples
            batch.settle()
    with store.sample(150) as batch:
        assert (batch.info.probability[:50] == 1.0).all()
        p = batch.info.probability
        assert abs((1 / p).sum() - (waiting - 150)) < 4 * np.sqrt(((1 - p) / p**2).sum())
        drawn += batch.samples[:50]
        batch.settle()
    assert drawn == released.samples
    store.sample(100).release()
    with store.sample(3_000) as batch:
        assert (batch.info.probability == 1.0).all()
        batch.settle()
    assert store.check() == []


def test_an_end_of_what_is_overdue_is_no_chance_for_the_rest(
    new_store: Callable[..., SampleStore],
) -> None:
    store = new_store(weighting="uniform", seed=23)
    store.add([str(i) for i in range(100)])
    released = store.sample(20)
    store.add(["late"])
    released.release()
    with store.sample(20) as batch:
        assert batch.samples == released.samples
        assert np.isnan(batch.info.probability).all()
        batch.settle()


@pytest.mark.parametrize(
    ("kind", "mode", "order"),
    [
        ("sqlite", "consume", [0, 1, 2]),
        ("sqlite", "consume", [2, 1, 0]),
        ("sqlite", "replay", [2, 1, 0]),
        ("postgresql", "consume", [1, 2, 0]),
    ],
)
def test_draws_that_are_all_given_back_leave_the_race_exact(
    request: pytest.FixtureRequest, kind: str, mode: str, order: list[int]
) -> None:
    """In whatever order; what joins afterwards joins at the clock of then."""
    url = request.getfixturevalue(f"{kind}_url")
    with open_store(url, weighting=Power(1.0), seed=24, mode=mode) as store:
        give_back_and_watch(store, mode, order)


def give_back_and_watch(store: SampleStore, mode: str, order: list[int]) -> None:
    observer, n_clusters = Observer(CLUSTERS), CLUSTERS // 5
    store.add([name(cluster, member) for cluster in range(n_clusters) for member in range(4)])
    store.score(scorer(SCORES))
    observer.present = [set(range(4)) for _ in range(n_clusters)]
    given = [hold(store.sample(600)) for _ in range(3)]
    for i in order:
        given[i].release()
    if order == [2, 1, 0]:
        for batch in given:
            with store.sample(600) as again:
                assert again.samples == batch.samples
                again.release()
            observer.watch(store, 600, returns=mode == "replay")
    else:
        observer.watch(store, 1_800)
    store.add([name(cluster, 4) for cluster in range(n_clusters)])
    for present in observer.present:
        present.add(4)
    store.score(scorer(SCORES))
    observer.events.clear()
    for _ in range(3):
        observer.watch(store, 1_200, returns=mode == "replay")
    observer.assert_exact(SCORES)
    assert store.check() == []


def test_no_draw_looks_for_what_was_released(store: SampleStore) -> None:
    """A buffer's batches are many, and no index finds the one that was released last."""
    store.add([str(i) for i in range(100)])
    store.score(lambda samples: np.ones(len(samples)))
    store.sample(10).release()
    executed: list[str] = []

    def note(connection: Any, cursor: Any, sql: str, *_: Any) -> None:
        executed.append(sql)

    engine = inside.engine_of(store, "writer")
    sa.event.listen(engine, "before_cursor_execute", note)
    store.sample(5).settle()
    batch = store.sample(5)
    assert any("batches" in sql for sql in executed)
    assert not [sql for sql in executed if "FROM batches" in sql or "FROM sqlbuffer.batches" in sql]
    batch.release()
    looks = [sql for sql in executed if "FROM batches" in sql or "FROM sqlbuffer.batches" in sql]
    assert all("batches.id > " in sql for sql in looks), "a release looks for later ones only"


def test_both_databases_and_any_order_draw_the_same(sqlite_url: str, postgresql_url: str) -> None:
    samples = Observer(FEW_CLUSTERS).everybody()[:3_000]
    histories = []
    for url in (sqlite_url, postgresql_url):
        for shuffle in (False, True):
            with open_store(url, name=f"{shuffle}", seed=13) as store:
                order = (
                    np.random.default_rng(0).permutation(len(samples))
                    if shuffle
                    else np.arange(len(samples))
                )
                drawn = []
                for part in range(3):
                    chosen = [samples[i] for i in order if i % 3 == part]
                    for start in range(0, len(chosen), 300 if shuffle else 1_000):
                        store.add(chosen[start : start + 300 if shuffle else start + 1_000])
                        store.score(
                            lambda these: np.array([hash_of(one) for one in these]), chunk=170
                        )
                    with store.sample(100) as batch:
                        drawn.append(batch.samples)
                        batch.settle()
                    store.score(
                        lambda these: np.array([-hash_of(one) for one in these]),
                        only="all",
                        chunk=210,
                    )
                histories.append(drawn)
    assert all(history == histories[0] for history in histories)


def hash_of(sample: str) -> float:
    cluster, member = map(int, sample.split("/"))
    return float((cluster * 7919 + member * 104729) % 10007) / 10007


def _removes_what_it_saw(store: SampleStore) -> None:
    batch = store.sample(1_000)
    batch.release()
    assert store.remove(batch.ids) == 1_000


def _removes_it_after_the_clock_was_turned_back(store: SampleStore) -> None:
    store.sample(300).settle()
    batch = store.sample(1_000)
    batch.release()
    inside.handle_of(store).write(turn_back)
    assert store.remove(batch.ids) == 1_000


def _replaces_what_it_saw(store: SampleStore) -> None:
    batch = store.sample(1_000)
    batch.release()
    assert store.replace(batch.ids, [f"t{i}" for i in range(1_000)]) == 1_000


def _draws_the_best_of_the_rest(store: SampleStore) -> None:
    batch = store.sample(1_000)
    store.sample(900, pct_argmax=1.0).settle()
    batch.release()


def _removes_the_rest(store: SampleStore) -> None:
    batch = store.sample(1_000)
    assert store.remove(store.waiting().ids[:900]) == 900
    batch.release()


@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize(
    ("act", "n"),
    [
        (_removes_what_it_saw, 200),
        (_removes_it_after_the_clock_was_turned_back, 200),
        (_replaces_what_it_saw, 200),
        (_draws_the_best_of_the_rest, 1_050),
        (_removes_the_rest, 1_050),
    ],
)
def test_what_depends_on_a_released_draw_makes_no_total_wrong(
    new_store: Callable[..., SampleStore], mode: str, act: Callable[[SampleStore], None], n: int
) -> None:
    """A draw tells which keys are the first: where others act on that, it cannot be as if it had
    never been.
    """
    store = new_store(mode=mode, weighting="uniform")
    store.add([f"s{i}" for i in range(2_000)])
    act(store)
    waiting = len(store)
    batch = store.sample(n)
    probability = batch.info.probability
    n_uncertain = int((probability < 1.0).sum())
    error = waiting / np.sqrt(max(n_uncertain, 1))
    assert abs((1.0 / probability).sum() - waiting) < 4.0 * error
    batch.release()
    assert store.check() == []


def _adds_by_what_it_saw(store: SampleStore, seen: set[str]) -> None:
    store.add([f"t{i}" for i in range(200)])
    store.score(lambda samples: np.full(len(samples), 4.0 if "s0" in seen else 0.25))


def _scores_by_what_it_saw(store: SampleStore, seen: set[str]) -> None:
    store.score(
        lambda samples: np.array([0.25 if sample in seen else 4.0 for sample in samples]),
        only="all",
    )


@pytest.mark.parametrize(
    ("act", "mode", "is_open"),
    [
        (_adds_by_what_it_saw, "consume", True),
        (_scores_by_what_it_saw, "consume", True),
        (_scores_by_what_it_saw, "replay", True),
        (_scores_by_what_it_saw, "consume", False),
    ],
)
def test_totals_hold_if_what_depends_on_a_draw_is_done_before_its_release(
    sqlite_url: str, act: Callable[[SampleStore, set[str]], None], mode: str, is_open: bool
) -> None:
    """Afterwards the draw counts as if it had never been: the last case is the limit that the
    docstring of `SampleInfo` states.
    """
    with open_store(sqlite_url, mode=mode, weighting=Power(1.0), seed=9) as store:
        store.add([f"s{i}" for i in range(600)])
        store.score(lambda samples: np.ones(len(samples)))
        batch = store.sample(300)
        if is_open:
            act(store, set(batch.samples))
            batch.release()
        else:
            batch.release()
            act(store, set(batch.samples))
        p = hold(store.sample(360)).info.probability
        total, error = (1.0 / p).sum(), np.sqrt(((1.0 - p) / p**2).sum())
        assert (
            abs(total - len(store) - (360 if mode == "consume" else 0)) < 4.0 * error
        ) == is_open


def test_new_samples_do_not_come_before_those_that_a_released_draw_had_left(
    new_store: Callable[..., SampleStore],
) -> None:
    """A batch is looked at, released and removed; what is added then has no better chance than what
    has waited.
    """
    store = new_store(weighting="uniform")
    store.add([f"s{i}" for i in range(2_000)])
    _removes_what_it_saw(store)
    store.add([f"t{i}" for i in range(1_000)])
    with store.sample(300) as batch:
        n_new = sum(sample.startswith("t") for sample in batch.samples)
    assert stats.hypergeom.sf(n_new - 1, 2_000, 1_000, 300) > P_VALUE, n_new
