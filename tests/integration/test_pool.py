"""The pool: the argmax share goes by scores, and weights are those of the scores, to
the last bit.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from helpers import inside
from helpers.cleanup import hold
from helpers.samples import scores_of
from sqlbuffer import race
from sqlbuffer.db.schema import buffers, draws
from sqlbuffer.db.schema import pool as pool_table
from sqlbuffer.store import SampleStore, open_store

NewStore = Callable[..., SampleStore]

LOWEST = [-1.0, -1e6, -1e12, -1e17, -1e150, -1e300]
FOUR_HUNDRED = [f"s{i}.{i}" for i in range(400)]
NEEDS_SCORE = {
    "shift": race.Shift(),
    "softmax": race.Softmax(),
    "cold softmax": race.Softmax(1e-3),
    "hot softmax": race.Softmax(1e20),
    "power": race.Power(),
    "steep power": race.Power(200.0),
    "flat power": race.Power(1e-20),
}


def rows_of(store: SampleStore) -> list[Any]:
    """What waits, in the order of the race: `sample_id, race_key, weight, score, top`."""
    columns = [pool_table.c[name] for name in ("sample_id", "race_key", "weight", "score", "top")]
    query = (
        sa.select(*columns)
        .where(pool_table.c.buffer_id == inside.buffer_id(store))
        .order_by("race_key")
    )
    return list(inside.rows(store, query))


def base_of(store: SampleStore) -> float | None:
    query = sa.select(buffers.c.base_score).where(buffers.c.id == inside.buffer_id(store))
    return inside.scalar(store, query)


def assert_weights_are_exact(store: SampleStore) -> None:
    waiting = store.waiting()
    expected = inside.handle_of(store).settings.weights(waiting.scores, base_of(store))
    found = {row.sample_id: row.weight for row in rows_of(store)}
    assert [found[i] for i in waiting.ids.tolist()] == expected.tolist()


# -- argmax goes by score --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
@pytest.mark.parametrize("weighting", NEEDS_SCORE.values(), ids=NEEDS_SCORE)
def test_argmax_goes_by_score_where_weights_are_one(
    new_store: NewStore, weighting: race.Weighting, mode: str
) -> None:
    """Rounded (shift, flat power, hot softmax) or bounded (cold softmax, steep power): scores
    differ, weights tie.
    """
    store = new_store(weighting=weighting, mode=mode)
    store.add(FOUR_HUNDRED)
    store.score(scores_of)
    assert (
        hold(store.sample(5, pct_argmax=1.0)).samples == FOUR_HUNDRED[:-6:-1]
    )  # the top is marked
    store.add(["s-1e17", "s1e3", "s1.5"])
    store.score(scores_of)
    left = FOUR_HUNDRED[:-5] if mode == "consume" else FOUR_HUNDRED
    expected = sorted([*left, "s1e3", "s1.5"], key=lambda sample: -float(sample[1:]))[:100]
    batch = hold(store.sample(100, pct_argmax=1.0))
    assert batch.samples == expected
    assert len(set(batch.weights)) < 100 or isinstance(weighting, race.Power)
    assert store.check() == []
    store.score(lambda samples: -scores_of(samples) + 1e3, only="all")
    expected = sorted(store.waiting().samples, key=lambda sample: float(sample[1:]))
    expected = [
        sample for sample in expected if sample != "s1e3" or not isinstance(weighting, race.Power)
    ]
    assert hold(store.sample(50, pct_argmax=1.0)).samples == expected[:50]
    assert store.check() == []


@pytest.mark.parametrize("is_scored", [False, True])
def test_argmax_of_equal_weights_goes_by_hash(new_store: NewStore, is_scored: bool) -> None:
    """A uniform buffer has no scores, or has some that no weight comes from."""
    stores = [new_store(weighting="uniform", name=name) for name in ("plain", "scored")]
    for store in stores:
        store.add(FOUR_HUNDRED)
    if is_scored:
        stores[1].score(scores_of, only="all")
        assert sorted(stores[1].waiting().scores) == sorted(scores_of(FOUR_HUNDRED))
    batches = [hold(store.sample(40, pct_argmax=0.5)) for store in stores]
    assert batches[0].samples == batches[1].samples
    if is_scored:
        assert batches[1].scores.tolist() == scores_of(batches[1].samples).tolist()
    waiting = dict(zip(stores[0].waiting().samples, stores[0].waiting().hashes, strict=True))
    rest = hold(stores[0].sample(40, pct_argmax=1.0)).samples
    assert rest == sorted(waiting, key=lambda sample: waiting[sample][race.TIE])[:-41:-1]
    for store in stores:
        assert {row.score for row in rows_of(store)} == {None}
        assert store.check() == []


@pytest.mark.parametrize("weighting", NEEDS_SCORE.values(), ids=NEEDS_SCORE)
def test_what_cannot_be_drawn_is_never_top(new_store: NewStore, weighting: race.Weighting) -> None:
    store = new_store(weighting=weighting)
    scores = {"s1": 1.0, "s2": 2.0, "s3": math.nan, "s4": math.inf, "s5": -math.inf, "s6": 3.0}
    store.add(list(scores))
    store.score(lambda samples: np.array([scores[sample] for sample in samples]))
    store.add(["s7"])  # unscored
    assert store.sample(6, pct_argmax=1.0).samples == ["s6", "s2", "s1"]
    with_score = [row.score is not None for row in rows_of(store) if row.weight]
    assert all(with_score)
    assert store.check() == []


# -- weights are computed from scores --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("lowest", LOWEST)
def test_new_lowest_scores_leave_exact_weights(new_store: NewStore, lowest: float) -> None:
    store = new_store()
    store.add(["s0", "s1e-30", "s0.1", "s0.3", "s1e9", "s1e200", "s-1e-300", "s7.7"])
    store.score(scores_of)
    for share in (0.001, 0.3, 1.0, 1.5):
        store.add([f"s{lowest * share!r}"])
        store.score(scores_of)
        assert_weights_are_exact(store)
        assert store.check() == []


@pytest.mark.parametrize("outlier", [-1e6, -1e17])
def test_a_refresh_with_a_budget_leaves_exact_weights(new_store: NewStore, outlier: float) -> None:
    """The outlier gets an ordinary score, and the lowest score goes up again."""
    store = new_store()
    store.add([f"s{i}.{i}" for i in range(50)])
    store.score(scores_of)
    store.add(["out"])
    store.score(lambda samples: np.full(len(samples), outlier))
    store.save_predictor(b"", rows_trained=1)
    while store.score(
        lambda samples: [float(s[1:]) / 3 if s != "out" else 5.0 for s in samples],
        "stale",
        budget=7,
    ):
        assert_weights_are_exact(store)
    assert base_of(store) == 0.0
    assert_weights_are_exact(store)
    assert store.check() == []


@pytest.mark.slow
@pytest.mark.parametrize("clock", [0, 1])
@pytest.mark.parametrize("lowest", LOWEST)
def test_a_new_lowest_score_leaves_no_ties(new_store: NewStore, lowest: float, clock: int) -> None:
    store = new_store()
    store.add(FOUR_HUNDRED)
    store.score(scores_of)
    hold(store.sample(100))
    for _ in range(clock):  # a sample of weight 1e-8 that is drawn moves the clock to 1e8
        store.sample(400).release()
    store.add(["low"])
    store.score(lambda samples: np.full(len(samples), lowest))
    batch = hold(store.sample(100))
    keys = sa.select(draws.c.race_key).where(draws.c.batch_id == batch.id)
    drawn = inside.scalars(store, keys)
    if not clock:
        assert len(set(drawn)) == 100
        assert (batch.info.probability > 0.0).all()
        assert batch.ids.tolist() != sorted(batch.ids.tolist())
    rest = [row.race_key for row in rows_of(store)]
    assert len(set(rest)) == len(rest)
    assert store.check() == []


@pytest.mark.parametrize("while_open", [False, True])
def test_what_is_behind_a_late_clock_keeps_its_order_when_it_is_turned_back(
    new_store: NewStore, while_open: bool
) -> None:
    """Keys of about 1e-10 are released behind a clock of 1e8, from where float64 does not tell them
    apart.
    """
    store = new_store()
    store.add([f"s{i}e9" for i in range(20)])
    store.score(scores_of)
    first, last = store.sample(15), store.sample(5)  # at last the lightest: the clock is about 1e8
    assert first.clock < 1e-3 < 1e6 < last.clock
    if not while_open:
        store.add(["s50"])  # something has joined: the clock stays
        store.score(scores_of)
        first.release()
        last.release()
    store.add([f"s{i}" for i in range(100, 500)])
    store.score(scores_of)
    if while_open:
        last.release()
        first.release()
    keys = [row.race_key for row in rows_of(store)]
    assert len(set(keys)) == len(keys)
    assert hold(store.sample(20)).samples == [*first.samples, *last.samples]
    assert store.check() == []


def test_a_release_that_turns_the_clock_back_goes_back_with_its_keys(new_store: NewStore) -> None:
    """Its score is the lowest again, which moves every key; those of the batch are on their way
    back.
    """
    store = new_store()
    store.add([f"s{-i}e9" for i in range(1, 10)])
    store.score(scores_of)
    first = store.sample(5)
    store.sample(-1).settle()
    store.add(["s0", "s1", "s2"])
    store.score(scores_of)
    store.score(scores_of, only="all")  # counts from 0
    assert store.sample(3).clock > 1e6
    store.add([f"s0.{i}" for i in range(1, 6)])
    store.score(scores_of)  # weights that are not blurred by that clock
    first.release()
    assert hold(store.sample(5)).samples == first.samples
    assert store.check() == []


# -- scores of any size ----------------------------------------------------------------------------

ANY_SIZE = st.one_of(
    st.sampled_from(
        [
            0.0,
            1.0,
            -1.0,
            1e-300,
            -1e-300,
            1e17,
            -1e17,
            1e150,
            -1e150,
            1e300,
            -1e300,
            344.9,
            345.1,
            -400.0,
        ]
    ),
    st.floats(-1e300, 1e300),
    st.floats(-10, 10),
)
WEIGHTINGS = {**NEEDS_SCORE, "uniform": race.Uniform()}
COUNTER = itertools.count()


def assert_sound(store: SampleStore, scores: dict[str, float]) -> None:
    """No two samples of different weight have one key, as far as their keys differ by more than
    float64 resolves.
    """
    assert store.check() == []
    rows = [row for row in rows_of(store) if row.weight]
    for one, other in itertools.pairwise(rows):
        assert one.race_key < other.race_key or one.weight == other.weight, (one, other)
    waiting = store.waiting()
    assert waiting.scores.tolist() == [scores[sample] for sample in waiting.samples]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.slow
def test_scores_of_any_size_are_sound(kind: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue(f"{kind}_url")

    @settings(
        max_examples=10 if kind == "sqlite" else 4,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[
            Phase.explicit,
            Phase.generate,
        ],  # shrinking takes minutes; take `Phase.shrink` in to read a failure
    )
    @given(
        weighting=st.sampled_from(list(WEIGHTINGS.values())),
        mode=st.sampled_from(["consume", "replay"]),
        chunks=st.lists(st.lists(ANY_SIZE, min_size=1, max_size=6), min_size=2, max_size=4),
        seed=st.integers(0, 100),
    )
    def play(weighting: race.Weighting, mode: str, chunks: list[list[float]], seed: int) -> None:
        name = f"buffer {next(COUNTER)}"
        with open_store(url, name=name, weighting=weighting, mode=mode, seed=seed) as store:
            run_through(store, chunks)

    play()


def run_through(store: SampleStore, chunks: list[list[float]]) -> None:
    """Add, score, draw, release, refresh with a budget and without one; look at all that waits
    after each.
    """
    numbers, scores = itertools.count(), dict[str, float]()
    by_score = inside.handle_of(store).settings.weighting.needs_score

    def score(samples: list[str]) -> np.ndarray:
        return np.array([scores[sample] for sample in samples])

    for chunk in chunks:
        new = {f"s{next(numbers)}": value for value in chunk}
        scores |= new if by_score else dict.fromkeys(new, math.nan)
        store.add(list(new))
        store.score(score)
        settled = store.sample(1)
        assert (settled.info.probability > 0.0).all()
        settled.settle(is_iteration=False)
        drawable = [
            s
            for s, w in zip(store.waiting().samples, store.waiting().weights, strict=True)
            if w > 0.0
        ]
        with store.sample(3, pct_argmax=1.0) as batch:
            if by_score:
                ranked = sorted((scores[sample] for sample in drawable), reverse=True)
                assert [scores[sample] for sample in batch.samples] == ranked[:3]
        compared = {s: math.nan if math.isnan(scores[s]) else scores[s] for s in scores}
        assert_sound(store, compared) if by_score else None
    later = dict(zip(scores, itertools.cycle(np.concatenate(chunks)[::-1].tolist())))
    scores |= later
    if by_score:
        while store.score(score, "all" if store.stats().score_version == 0 else "stale", budget=3):
            assert store.check() == []
        assert_sound(store, scores)
    with store.sample(4) as batch:
        assert (batch.info.probability > 0.0).all()
    scores |= {sample: -value for sample, value in scores.items()}
    store.score(score, only="all")
    assert_sound(store, scores)
    hold(store.sample(2))
    assert store.check() == []
