"""Priorities that a user writes: the draws stay exact, importance weights are unbiased, and what is
wrong stores nothing.
"""

import contextlib
import dataclasses
import math
import os
import signal
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
from helpers.interleaving import Interleaving
from helpers.pool import assert_weights_are_those_of_the_scores, places
from helpers.restored import save
from helpers.samples import scores_of
from helpers.servers import server_execute
from sqlbuffer.core import priorities, refresh, release
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.weighting import Power, Softmax, Weighting
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import database
from sqlbuffer.db.schema import batches
from sqlbuffer.errors import ClaimLost, InvalidArgument, StaleIds, UnknownProbability
from sqlbuffer.store import SampleStore, open_store

NewStore = Callable[..., SampleStore]
P_VALUE = 0.001
WEIGHTINGS: dict[str, Weighting | str] = {
    "shift": "shift",
    "softmax": Softmax(2.0),
    "power": Power(0.6),
}


def scored(store: SampleStore, n: int) -> list[int]:
    """Fill a store; return the ids, in the order of the names."""
    store.add([f"s{i}" for i in range(n)])
    store.score(scores_of)
    return [int(i) for i in store.waiting().ids]


def score_of(store: SampleStore) -> dict[int, float]:
    waiting = store.waiting()
    return dict(zip(waiting.ids.tolist(), waiting.scores.tolist(), strict=True))


# -- the draws stay exact --------------------------------------------------------------------------


def release_it(store: SampleStore, batch: Batch) -> None:
    batch.release()


def leave_its_block(store: SampleStore, batch: Batch) -> None:
    with batch:
        pass


def let_its_worker_die(store: SampleStore, batch: Batch) -> None:
    inside.handle_of(store).write(release.release_open, [worker_id()])
    batch._dropped.detach()  # a hundred thousand that are dropped at the end take minutes


WAYS_BACK: list[Callable[[SampleStore, Batch], None]] = [
    release_it,
    leave_its_block,
    let_its_worker_die,
]


@dataclasses.dataclass
class Clusters:
    """Counts which sample of a cluster of three goes first, given the weights of those that wait.

    Within a cluster the order of arrival is a sequential weighted draw, whatever else takes part.
    """

    events: Counter[tuple[tuple[float, ...], float]] = dataclasses.field(default_factory=Counter)

    def watch(self, drawn: list[int], weights: dict[int, float]) -> None:
        present: dict[int, list[int]] = {}
        for number, weight in weights.items():
            if weight > 0:
                present.setdefault(number // 3, []).append(number)
        for number in drawn:
            there = present[number // 3]
            self.events[tuple(sorted(weights[i] for i in there)), weights[number]] += 1
            there.remove(number)

    def assert_exact(self) -> None:
        statistic, freedom = 0.0, 0
        for given in {given for given, _ in self.events}:
            kinds = np.array(sorted(set(given)))
            observed = np.array([self.events[given, kind] for kind in kinds])
            expected = np.array([kind * given.count(kind) for kind in kinds])
            expected = observed.sum() * expected / expected.sum()
            if len(kinds) > 1 and expected.min() >= 5:
                statistic += float(((observed - expected) ** 2 / expected).sum())
                freedom += len(kinds) - 1
        assert freedom >= 2
        assert stats.chi2.sf(statistic, freedom) > P_VALUE, (statistic, freedom)


@pytest.mark.parametrize("n", [300, pytest.param(3_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.slow
def test_draws_are_exact_after_thousands_of_updates(
    new_store: NewStore, mode: str, weighting: str, n: int
) -> None:
    """What is drawn gets priorities that hang on what was drawn, and so does some of the rest."""
    store = new_store(mode=mode, weighting=WEIGHTINGS[weighting], seed=5)
    ids = scored(store, n)
    rng, clusters = np.random.default_rng(7), Clusters()
    assert store.update_priorities(ids, rng.choice([1.0, 4.0], n)) == n
    assert ids == list(range(ids[0], ids[0] + n))
    lowest = 1.0
    for turn in range(16):
        lowest = 0.5 if turn > 8 else lowest  # a new lowest score, in the middle
        weights = {i - ids[0]: weight for i, (_, weight) in places(store).items()}
        batch = store.sample(n // 10)
        clusters.watch((batch.ids - ids[0]).tolist(), weights)
        chosen = np.where(batch.scores > 2.0, lowest, rng.choice([0.0, 4.0, 4.0], len(batch)))
        assert batch.update_priorities(chosen) == len(batch)
        if turn % 3:
            batch.settle()
        else:
            WAYS_BACK[turn // 3 % 3](store, batch)
        if mode == "consume" and turn % 3 == 0:  # first in line now, whatever their weights
            first = store.sample(np.count_nonzero(chosen))
            assert set(first.ids) == set(batch.ids[chosen > 0])
            first.settle()
        others = rng.choice(store.waiting().ids, n // 20, replace=False)
        store.update_priorities(others, rng.choice([lowest, 4.0], len(others)))
        if mode == "consume":
            store.add(batch.samples, requeue=True)
            store.score(lambda samples: rng.choice([1.0, 4.0], len(samples)))
    clusters.assert_exact()
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []


@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_priority_of_0_is_never_drawn(new_store: NewStore, mode: str, weighting: str) -> None:
    store = new_store(mode=mode, weighting=WEIGHTINGS[weighting])
    ids = scored(store, 8)
    store.update_priorities(ids, [0.0, -0.0, 1e-3, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert store.stats().unscorable == 2
    batch = store.sample(8)
    assert sorted(batch.ids) == ids[2:]
    batch.update_priorities(np.zeros(6))
    batch.release()
    assert len(store.sample(8)) == 0
    assert store.update_priorities(ids[:1], [1.0]) == 1
    assert store.sample(8).ids.tolist() == ids[:1]
    assert store.check() == []


# -- importance weights ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, pytest.param(100_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_importance_weights_are_unbiased(kind: str, n: int, request: pytest.FixtureRequest) -> None:
    """The sum over a batch of weight * x estimates the sum of x over all, while priorities follow
    what is drawn, and half of the batches are given back after their priorities have changed. The
    soak tells after each tenth how far it has come.
    """
    url = request.getfixturevalue(f"{kind}_url")
    with open_store(url, mode="replay", weighting=Power(0.6), seed=3) as store:
        ids = scored(store, 200)
        rng = np.random.default_rng(1)
        errors = []
        x = dict(zip(ids, rng.exponential(1.0, 200), strict=True))
        store.update_priorities(ids, [0.1 + x[i] for i in ids])
        for turn in range(n):
            batch = store.sample(20)
            weights = batch.importance_weights(normalise=False)
            drawn = np.array([x[i] for i in batch.ids])
            errors.append((weights * drawn).sum() - sum(x.values()))
            priorities = 0.1 + drawn * rng.uniform(0.5, 1.5, 20)
            if turn % 2:
                batch.settle(priorities=priorities)
            else:
                batch.update_priorities(priorities)
                WAYS_BACK[turn // 2 % 3](store, batch)
            if (turn + 1) % 10_000 == 0:
                misses = np.mean(errors) / np.std(errors) * math.sqrt(turn + 1)
                print(f"{kind}: {turn + 1:,} batches, {misses:.2f} standard errors", flush=True)
            if kind == "postgresql" and (turn + 1) % 1_000 == 0:
                server_execute(url, "VACUUM ANALYZE")  # the server of the tests has no autovacuum
    assert abs(np.mean(errors)) < 3 * np.std(errors) / math.sqrt(n)
    assert np.std(errors) < sum(x.values()) / 2


@pytest.mark.slow
def test_draws_do_not_depend_on_a_batch_that_stayed(new_store: NewStore) -> None:
    """A batch of replay that was given back after its priorities had changed: the draws after it
    hang neither on it nor on each other, and their sizes estimate the pool. Two open batches, of
    which the first is given back first, with and without an argmax share.
    """
    store = new_store(mode="replay", weighting=Power(1.0), seed=6)
    ids = scored(store, 2_000)
    store.update_priorities(ids, np.ones(2_000))
    misses = []

    def draw(pct_argmax: float = 0.0) -> tuple[Batch, np.ndarray]:
        batch = store.sample(300, pct_argmax)
        p = batch.info.probability
        misses.append(((1 / p).sum() - 2_000) / np.sqrt(((1 - p) / p**2).sum()))
        return batch, np.isin(ids, batch.ids)

    for give_back, pct_argmax in zip(WAYS_BACK, (0.0, 0.3, 0.3), strict=True):
        (first, was_first), (second, was_second) = draw(pct_argmax), draw()
        first.update_priorities(np.full(300, 3.0))
        first.update_priorities(np.ones(300))
        give_back(store, first)
        if give_back is not let_its_worker_die:  # else both are given back
            second.release()
        (third, was_third), (fourth, was_fourth) = draw(), draw()
        third.settle()
        fourth.settle(priorities=np.ones(300))
        for was_in, is_drawn in (
            (was_first, was_third),
            (was_second, was_third),
            (was_third, was_fourth),
            (was_first & was_second, was_fourth),
        ):
            counts = [
                [np.sum(is_drawn & which), np.sum(~is_drawn & which)] for which in (was_in, ~was_in)
            ]
            assert stats.chi2_contingency(counts).pvalue > P_VALUE, counts
    assert np.abs(misses).max() < 4
    assert store.check() == []


def add_some(store: SampleStore, batch: Batch) -> None:
    store.add(["late", "later"])
    store.score(lambda samples: np.ones(len(samples)))


def draw_another(store: SampleStore, batch: Batch) -> None:
    store.sample(5, 0.4).settle()


def update_others(store: SampleStore, batch: Batch) -> None:
    others = np.setdiff1d(store.waiting().ids, batch.ids)
    store.update_priorities(others[:3], [2.0, 3.0, 4.0])


def report_a_part(store: SampleStore, batch: Batch) -> None:
    batch.report(batch.ids[:2], [1.0, 2.0])


@pytest.mark.parametrize("act", [add_some, draw_another, update_others, report_a_part])
def test_all_probabilities_are_known_after_a_release_in_replay(
    new_store: NewStore, act: Callable[[SampleStore, Batch], None]
) -> None:
    """Whatever has changed since the draw, so that it cannot be undone."""
    store = new_store(mode="replay", weighting=Power(1.0))
    scored(store, 40)
    batch = store.sample(10, 0.3)
    act(store, batch)
    batch.release()
    for n in (5, 5, 10, 30):
        assert (hold(store.sample(n)).importance_weights() > 0).all()
    assert store.check() == []


def die_with(store: SampleStore, batch: Batch) -> None:
    """Let a batch be that of another worker, which has died."""
    its_row = sa.update(batches).where(batches.c.id == batch.id).values(worker_id="gone")
    handle = inside.handle_of(store)
    handle.write(lambda tx: tx.connection.execute(its_row))
    assert handle.write(release.release_open, ["gone"]) == 1


@pytest.mark.parametrize("pct_argmax", [0.0, 0.3])
def test_probabilities_are_known_after_another_worker_has_died_in_replay(
    new_store: NewStore, pct_argmax: float
) -> None:
    """The samples of its batch may be in the open batch too."""
    store = new_store(mode="replay", weighting=Power(1.0))
    scored(store, 40)
    ours = store.sample(10, pct_argmax)
    die_with(store, hold(store.sample(10, pct_argmax)))
    ours.settle(priorities=np.full(10, 2.0))
    for n in (5, 10, 30):
        with store.sample(n) as batch:
            assert (batch.importance_weights() > 0).all()
            batch.settle()
    assert store.check() == []


def test_importance_weights_of_a_batch(store: SampleStore) -> None:
    scored(store, 50)
    batch = hold(store.sample(10, pct_argmax=0.2))
    p = batch.info.probability
    assert batch.importance_weights(normalise=False).tolist() == (1 / p).tolist()
    assert batch.importance_weights(0.0).tolist() == [1.0] * 10
    np.testing.assert_allclose(batch.importance_weights(0.4), (p / p.min()) ** -0.4, rtol=1e-12)
    batch.update_priorities(np.ones(10))
    batch.release()
    again = hold(store.sample(5))  # ends among released samples
    assert np.isnan(again.importance_weights(normalise=False)).all()
    with pytest.raises(
        UnknownProbability, match=r"settle it .* one weight by np\.ones\(len\(batch"
    ):
        again.importance_weights()
    with pytest.raises(
        InvalidArgument, match=r"priority 0 is nan: .* so its importance weights are"
    ):
        again.update_priorities(np.full(5, np.nan))
    assert len(hold(store.sample(0)).importance_weights()) == 0
    for beta in (-0.1, 1.1, math.nan, "1"):
        with pytest.raises(InvalidArgument, match="beta must be a number between 0 and 1"):
            batch.importance_weights(beta)  # type: ignore[arg-type]


# -- where a sample is -----------------------------------------------------------------------------


def test_samples_in_every_state(new_store: NewStore) -> None:
    store = new_store(weighting=Power(1.0))
    ids = scored(store, 12)
    settled, failed = store.sample(1), store.sample(1)
    settled.settle([1.0])
    failed.settle([math.nan])
    removed = int(store.waiting().ids[0])
    store.remove([removed])
    claimed = hold(store.sample(2))
    store.add(["s99"])
    (unscored,) = set(store.waiting().ids.tolist()) - set(ids)
    before = {row["sample_id"]: row["score"] for row in rows_of(store)}

    n = store.update_priorities([*ids, unscored], np.arange(1.0, 14.0))
    given = dict(zip([*ids, unscored], np.arange(1.0, 14.0), strict=True))
    out = {int(settled.ids[0]), int(failed.ids[0]), removed}
    assert n == 13 - len(out)
    after = {row["sample_id"]: row["score"] for row in rows_of(store)}
    assert after == {i: before[i] if i in out else given[i] for i in after}
    assert store.stats().unscored == 0
    assert [batch.update_priorities([5.0]) for batch in (settled, failed)] == [0, 0]
    claimed.release()
    assert score_of(store) == {i: given[i] for i in given if i not in out}
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []
    assert store.refresh(lambda samples: np.ones(len(samples))) == 0, "none is stale"


def rows_of(store: SampleStore) -> list[dict[str, Any]]:
    with store.connect() as connection:
        found = connection.execute(sa.text("SELECT sample_id, score FROM sample_overview"))
        return [dict(row._mapping) for row in found]


def test_measured_and_failed_samples_of_replay(new_store: NewStore) -> None:
    store = new_store(mode="replay", weighting=Power(1.0))
    scored(store, 6)
    batch = store.sample(4)
    batch.settle([1.0, 2.0, math.nan, None])
    assert batch.update_priorities([7.0, 8.0, 9.0, 10.0]) == 4, "after the batch was settled"
    assert batch.update_priorities([0.5], ids=batch.ids[1:2]) == 1
    found = score_of(store)
    assert [found[i] for i in batch.ids.tolist()] == [7.0, 0.5, 9.0, 10.0]
    assert store.update_priorities(batch.ids[[0, 0]], [1.0, 2.0]) == 1
    assert score_of(store)[int(batch.ids[0])] == 2.0, "the last one counts"
    assert store.check() == []


def test_samples_that_get_their_first_score_count_for_the_size(new_store: NewStore) -> None:
    store = new_store(mode="replay", weighting=Power(1.0), max_size=20)
    store.add([f"s{i}" for i in range(40)])
    ids = store.waiting().ids
    assert store.update_priorities(ids, np.arange(1.0, 41.0)) == 40
    assert sorted(score_of(store).values()) == list(range(21, 41))
    assert store.check() == []


# -- errors ----------------------------------------------------------------------------------------


WRONG: dict[str, tuple[Callable[[SampleStore, Any], object], str]] = {
    "too few": (lambda _, batch: batch.update_priorities([1.0]), r"shape \(1,\), but 4 samples"),
    "a column": (lambda _, batch: batch.update_priorities(np.ones((4, 1))), r"shape \(4, 1\)"),
    "one number": (lambda _, batch: batch.update_priorities(1.0), "must be 4 numbers"),
    "text": (lambda _, batch: batch.update_priorities(["a"] * 4), "must be 4 numbers"),
    "negative": (lambda _, batch: batch.update_priorities([1, 2, -0.5, 1]), "priority 2 is -0.5:"),
    "NaN": (lambda _, batch: batch.update_priorities([1, math.nan, 1, 1]), "priority 1 is nan:"),
    "None": (lambda _, batch: batch.update_priorities([1, None, 1, 1]), "priority 1 is nan:"),
    "infinite": (lambda _, batch: batch.update_priorities([math.inf] * 4), "priority 0 is inf:"),
    "another batch": (
        lambda _, batch: batch.update_priorities([1.0] * 2, ids=[*batch.ids[:1], 10**6]),
        "sample 1000000 is not in this batch: give ids of batch.ids",
    ),
    "no sample": (
        lambda store, batch: store.update_priorities([*batch.ids, 10**6], np.ones(5)),
        "has no sample 1000000: give ids of its samples, such as batch.ids",
    ),
    "another buffer": (
        lambda store, batch: store.update_priorities([1, *batch.ids], np.ones(5)),
        "'main' has no sample 1:",
    ),
    "no ids": (lambda store, _: store.update_priorities("ab", [1.0]), "ids must be a list"),
}


def test_a_batch_whose_priorities_are_refused_is_not_settled(new_store: NewStore) -> None:
    """Nothing is stored, and the batch stays open."""
    store = new_store(mode="replay", weighting=Power(1.0))
    scored(store, 10)
    batch = store.sample(4)
    before = rows_of(store), places(store)
    wrong = [[1.0], np.ones((4, 1)), 1.0, ["a"] * 4, [1, 2, -0.5, 1], [1, None, 1, 1]]
    for given in (*wrong, [1, math.nan, 1, 1], [math.inf] * 4):
        with pytest.raises(InvalidArgument, match="priorit"):
            batch.settle([1.0] * 4, priorities=given, checkpoint={"agent": b"1"})
    assert (rows_of(store), places(store)) == before
    assert (store.iteration, store.checkpoint("agent")) == (0, None)
    batch.settle([1.0] * 4, priorities=np.arange(4.0))
    found = score_of(store)
    assert [found[i] for i in batch.ids.tolist()] == [0.0, 1.0, 2.0, 3.0]
    assert store.check() == []


@pytest.mark.parametrize("weighting", ["uniform", Power(1.0)])
def test_priorities_of_samples_that_do_not_wait_again(
    new_store: NewStore, weighting: Weighting | str
) -> None:
    kind = "replay" if weighting == "uniform" else "consume"
    store = new_store(mode=kind, weighting=weighting)
    scored(store, 3)
    batch = hold(store.sample(2))
    message = "draws uniformly" if kind == "replay" else 'needs mode="replay"'
    with pytest.raises(InvalidArgument, match=message):
        batch.settle(priorities=[1.0, 2.0])
    assert store.iteration == 0


def test_a_batch_that_was_lost_gets_no_priorities(new_store: NewStore) -> None:
    """As its checkpoint is not stored; its rewards are."""
    store = new_store(mode="replay", weighting=Power(1.0))
    scored(store, 5)
    batch = hold(store.sample(2))
    let_its_worker_die(store, batch)
    before = score_of(store)
    with pytest.raises(ClaimLost, match="its rewards are stored, and nothing else"):
        batch.settle([1.0, 2.0], priorities=[7.0, 8.0], checkpoint={"agent": b"1"})
    assert (score_of(store), store.checkpoint("agent")) == (before, None)
    assert store.rewards_of(batch.samples) == [1.0, 2.0]
    store.sample(0).settle(priorities=[])
    assert store.check() == []


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_what_is_wrong_is_one_error_and_stores_nothing(store_url: str, mode: str) -> None:
    with open_store(store_url, name="other") as other:
        other.add(["first of all"])
    with open_store(store_url, name="main", mode=mode) as store:
        scored(store, 10)
        batch = hold(store.sample(4))
        before = rows_of(store), places(store)
        for write, message in WRONG.values():
            with pytest.raises(InvalidArgument, match=message):
                write(store, batch)
        assert (rows_of(store), places(store)) == before
        assert batch.update_priorities([], ids=[]) == store.update_priorities([], []) == 0
        assert store.check() == []


def test_a_uniform_buffer_has_no_priorities(store_url: str) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add(["a", "b"])
        batch = hold(store.sample(1))
        for write in (
            lambda: batch.update_priorities([1.0]),
            lambda: store.update_priorities(batch.ids, [1.0]),
        ):
            with pytest.raises(InvalidArgument, match=r"draws uniformly.*store\.copy\("):
                write()


def test_a_detached_batch_has_no_priorities(store: SampleStore) -> None:
    scored(store, 5)
    batch = store.sample(2, lease_s=600)
    token = batch.detach()
    with pytest.raises(ClaimLost, match=r"store\.batch\(token\)"):
        batch.update_priorities([1.0, 2.0])
    assert hold(store.batch(token)).update_priorities([1.0, 2.0]) == 2


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_ids_of_a_lost_state_get_no_priorities(store_url: str, mode: str) -> None:
    with open_store(store_url, mode=mode) as store, open_store(store_url) as others:
        scored(store, 5)
        restore = save(store_url)
        store.add(["s5", "s6"])
        store.score(scores_of)
        batch, kept = hold(store.sample(7)), store.samples_of(range(1, 8))
        restore()
        others.add(["s15", "s16"])
        others.score(scores_of)
        before = rows_of(others)
        for write in (
            lambda: batch.update_priorities(np.ones(7)),
            lambda: store.update_priorities(list(kept), np.ones(len(kept))),
        ):
            with pytest.raises(StaleIds, match="belong"):
                write()
        assert rows_of(others) == before


# -- remembered keys -------------------------------------------------------------------------------


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of samples that the pool was scanned for."""
    found: list[int] = []
    scan = priorities.scanned

    def counted(tx: Any, ids: set[int], *, epoch: int) -> Any:
        found.append(len(ids))
        return scan(tx, ids, epoch=epoch)

    monkeypatch.setattr(priorities, "scanned", counted)
    return found


def test_samples_of_earlier_batches_are_found_by_their_keys(
    new_store: NewStore, scans: list[int]
) -> None:
    store, other = (new_store(mode="replay", weighting=Power(1.0)) for _ in range(2))
    scored(store, 60)
    batches = [store.sample(6) for _ in range(5)]
    for batch in batches:
        assert batch.update_priorities(np.arange(1.0, 7.0)) == 6
        batch.settle()
    ids = sorted({int(i) for batch in batches for i in batch.ids})
    assert store.update_priorities(ids, np.ones(len(ids))) == len(ids)
    assert scans == []
    drawn = other.sample(60)  # moves all keys
    drawn.settle()
    assert store.update_priorities(ids, np.full(len(ids), 2.0)) == len(ids)
    assert store.update_priorities(ids, np.full(len(ids), 3.0)) == len(ids)
    assert scans == [len(ids)], "one scan for all, whose keys are then remembered"
    assert other.update_priorities(ids[:3], [1.0] * 3) == 3
    assert [score_of(store)[i] for i in ids] == [1.0] * 3 + [3.0] * (len(ids) - 3)
    assert store.check() == []


def test_a_base_that_moves_between_draw_and_update(new_store: NewStore, scans: list[int]) -> None:
    """All keys move: one scan finds those of all batches."""
    store, other = (new_store(mode="replay", weighting="shift") for _ in range(2))
    scored(store, 60)
    batches = [store.sample(6) for _ in range(4)]
    batches[0].update_priorities(np.full(6, 3.0))
    other.add(["s-9"])
    other.score(scores_of)
    for batch in batches:
        assert batch.update_priorities(np.full(6, 2.0)) == 6
        batch.settle()
    assert len(scans) == 1
    batches[0].update_priorities(np.full(6, 1e-3))
    batches[1].update_priorities(np.full(6, 1e-4))
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_priority_below_all_others_moves_the_base(new_store: NewStore, mode: str) -> None:
    store = new_store(mode=mode, weighting="shift")
    ids = scored(store, 20)
    store.update_priorities(ids, np.arange(10.0, 30.0))
    batch = store.sample(5)
    batch.update_priorities(np.arange(5.0, 10.0))
    assert_weights_are_those_of_the_scores(store)
    batch.release()
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []


# -- next to a refresh, and to other processes -----------------------------------------------------


def same_weight(store: SampleStore, ids: list[int]) -> None:
    store.update_priorities(ids, [4.0] * 3)


def there_and_back(store: SampleStore, ids: list[int]) -> None:
    store.update_priorities(ids, [2.0] * 3)
    store.update_priorities(ids, [4.0] * 3)


def claimed_and_released(store: SampleStore, ids: list[int]) -> None:
    batch = store.sample(3)
    batch.update_priorities([4.0] * 3)
    batch.release()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("change", [same_weight, there_and_back, claimed_and_released])
def test_a_priority_during_a_refresh_is_not_taken_for_its_score(
    new_store: NewStore,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    change: Callable[[SampleStore, list[int]], None],
) -> None:
    """After all scores were predicted, and before the weights of the refresh are written: keys may
    be those that the refresh remembers.
    """
    store, other = (new_store(mode=mode, weighting=Power(1.0)) for _ in range(2))
    ids = scored(store, 10)
    store.update_priorities(ids, np.full(10, 4.0))
    update = refresh._update_weights

    def changed_first(*args: Any) -> None:
        change(other, ids[:3])
        update(*args)

    monkeypatch.setattr(refresh, "_update_weights", changed_first)
    store.score(lambda samples: np.full(len(samples), 7.0), only="all")
    assert Counter(score_of(store).values()) == {4.0: 3, 7.0: 7}
    assert_weights_are_those_of_the_scores(store)
    assert store.is_refreshed()
    assert store.check() == []


@pytest.mark.slow
def test_a_draw_and_an_update_wait_for_each_other(
    new_store: NewStore, interleaving: Interleaving
) -> None:
    """On a server; on a file there is one writer at a time."""
    store, other = (new_store(mode="replay", weighting="shift") for _ in range(2))
    ids = scored(store, 40)
    batch = hold(store.sample(8))
    update = interleaving.stopped(lambda: batch.update_priorities(np.zeros(8) + 0.5))
    draw = interleaving.alongside(lambda: hold(other.sample(8)))
    also = interleaving.alongside(lambda: other.update_priorities(ids, np.ones(40)))
    assert draw.is_waiting
    update.go_on()
    assert (update.result(), len(draw.result()), also.result()) == (8, 8, 40)
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "n"), [(r"UPDATE \S*pool", 12), (r"UPDATE \S*samples", 20), (None, 20)]
)
def test_claimed_samples_are_updated_while_they_are_settled(
    new_store: NewStore, interleaving: Interleaving, after: str | None, n: int
) -> None:
    """Samples that are settled in the middle of the update keep their scores, and are not counted.
    On a file the settlement waits.
    """
    store, other = (new_store(weighting="shift") for _ in range(2))
    ids = scored(store, 20)
    batch = hold(store.sample(8))
    update = interleaving.stopped(lambda: other.update_priorities(ids, np.ones(20)), after=after)
    settled = interleaving.alongside(lambda: batch.settle([1.0], ids=batch.ids[3:4]))
    is_file = inside.url_of(store).startswith("sqlite")
    update.go_on()
    assert update.result() == (20 if is_file else n)
    settled.result()
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []


def learn(url: str, number: int, n: int, results: Any) -> None:
    """Draw, update and settle, as one of several processes; one dies in the middle."""
    rng = np.random.default_rng(number)
    n_commits = 0

    def die(moment: str) -> None:
        nonlocal n_commits
        n_commits += moment == "before"
        if number == 3 and n_commits == n:
            os.kill(os.getpid(), signal.SIGKILL)

    database.boundary = die
    with open_store(url, grace_s=1.0) as store:
        for _ in range(n):
            batch = store.sample(8)
            new = rng.exponential(1.0, len(batch))
            if store.stats().mode == "replay" and rng.random() < 0.5:
                batch.settle(priorities=new)
                continue
            batch.update_priorities(new)
            ids = rng.choice(range(1, 201), 4, replace=False).tolist()
            store.update_priorities(ids, rng.choice([0.0, 0.5, 2.0], 4))
            batch.settle() if rng.random() < 0.8 else batch.release()
    results.put(number)


@pytest.mark.parametrize("mode", ["replay", pytest.param("consume", marks=pytest.mark.soak)])
def test_four_processes_draw_and_update(postgresql_url: str, mode: str) -> None:
    with open_store(postgresql_url, mode=mode, weighting="shift", grace_s=1.0) as store:
        scored(store, 2_000)
        context = forkserver()
        results = context.Queue()
        processes = [
            context.Process(target=learn, args=(postgresql_url, number, 6, results), daemon=True)
            for number in range(4)
        ]
        for process in processes:
            process.start()
        assert sorted(results.get(timeout=120) for _ in range(3)) == [0, 1, 2]
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0, 0, -signal.SIGKILL]
        with contextlib.closing(open_store(postgresql_url, grace_s=1.0)) as again:
            assert again.check() == []
        assert_weights_are_those_of_the_scores(store)


@pytest.mark.parametrize("is_updated", [False, True])
def test_open_batches_of_replay_are_released_by_one_reading_of_the_pool(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch, is_updated: bool
) -> None:
    """Also where they have samples in common; once priorities have changed, all stay."""
    store = new_store(mode="replay", weighting=Power(1.0))
    ids = scored(store, 30)
    store.update_priorities(ids, np.ones(30))
    before = places(store)
    batches = [hold(store.sample(12)) for _ in range(4)]
    assert len(set(np.concatenate([batch.ids for batch in batches]))) < 48
    if is_updated:
        batches[2].update_priorities(np.full(12, 2.0))
        before = places(store)
    readings: list[int] = []
    places_of = release._places_of

    def counted(tx: Any, numbers: list[int]) -> Any:
        readings.append(len(numbers))
        return places_of(tx, numbers)

    monkeypatch.setattr(release, "_places_of", counted)
    assert inside.handle_of(store).write(release.release_open, [worker_id()]) == 4
    assert readings == [4]
    assert places(store) == before
    assert_weights_are_those_of_the_scores(store)
    assert store.check() == []
