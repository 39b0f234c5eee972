"""The arithmetic of the race; `test_draw.py` shows that draws through the database follow it."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sqlbuffer import race
from sqlbuffer._typing import Floats
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.store import SampleStore, open_store


def test_variates_are_exponential_and_reproducible() -> None:
    hashes = np.random.default_rng(0).integers(0, 256, (200_000, 16), dtype=np.uint8)
    requeues = np.zeros(len(hashes), dtype=np.int64)
    variates = race.exponentials(7, hashes, turn=3, requeues=requeues)
    assert stats.kstest(variates, "expon").pvalue > 0.001
    shuffled = np.random.default_rng(1).permutation(len(hashes))
    again = race.exponentials(7, hashes[shuffled], turn=3, requeues=requeues)
    assert np.array_equal(variates[shuffled], again)


@pytest.mark.parametrize("change", ["seed", "turn", "requeues"])
def test_every_entry_into_the_race_is_independent(change: str) -> None:
    hashes = np.random.default_rng(0).integers(0, 256, (50_000, 16), dtype=np.uint8)
    arguments = {"seed": 0, "turn": 0, "requeues": 0}
    first, second = (
        race.exponentials(
            values["seed"],
            hashes,
            turn=values["turn"],
            requeues=np.full(len(hashes), values["requeues"]),
        )
        for values in (arguments, arguments | {change: 1})
    )
    assert abs(stats.spearmanr(first, second).statistic) < 0.02


GOLDEN_VARIATES = [0.34579158642758, 1.3573418036720823, 1.0596664354240106]


def test_golden_variates() -> None:
    hashes = np.arange(48, dtype=np.uint8).reshape(3, 16)
    variates = race.exponentials(42, hashes, turn=1, requeues=np.array([0, 1, 2]))
    assert variates.tolist() == pytest.approx(GOLDEN_VARIATES, rel=1e-15)


GOLDEN_REPLAYED = [2.4840724138774224, 0.49172239660157885, 0.5749194415433648]


def test_golden_variates_of_replay() -> None:
    hashes = np.arange(48, dtype=np.uint8).reshape(3, 16)
    counts = {"requeues": np.array([0, 0, 1]), "entries": np.array([1, 2, 1])}
    variates = race.replayed_exponentials(42, hashes, **counts)
    assert variates.tolist() == pytest.approx(GOLDEN_REPLAYED, rel=1e-15)


@pytest.mark.parametrize("change", ["seed", "requeues", "entries"])
def test_every_entry_in_replay_mode_is_independent(change: str) -> None:
    hashes = np.random.default_rng(0).integers(0, 256, (50_000, 16), dtype=np.uint8)
    arguments = {"seed": 0, "requeues": 0, "entries": 1}

    def variates(seed: int, requeues: int, entries: int) -> Floats:
        counts = {
            "requeues": np.full(len(hashes), requeues),
            "entries": np.full(len(hashes), entries),
        }
        return race.replayed_exponentials(seed, hashes, **counts)

    first, second = variates(**arguments), variates(**(arguments | {change: 2}))
    assert stats.kstest(first, "expon").pvalue > 0.001
    assert abs(stats.spearmanr(first, second).statistic) < 0.02
    consumed = race.exponentials(0, hashes, turn=0, requeues=np.zeros(len(hashes), dtype=np.int64))
    assert abs(stats.spearmanr(first, consumed).statistic) < 0.02


def test_a_weight_of_zero_never_arrives() -> None:
    keys = race.joined(5.0, np.ones(3), np.array([2.0, 0.0, math.nan]))
    assert keys.tolist() == [5.5, math.inf, math.inf]


def test_a_changed_weight_stretches_what_is_left() -> None:
    keys = race.rescaled(np.array([12.0, 9.0]), 10.0, np.array([1.0, 1.0]), np.array([4.0, 4.0]))
    assert keys.tolist() == [10.5, 9.0]


@pytest.mark.parametrize("clock", [0.0, 1.0, 1e8, 1e150])
def test_keys_behind_the_clock_keep_their_order_when_it_is_turned_back(clock: float) -> None:
    keys = np.array([-3.0, 1e-160, 1e-150, 1e-8, 0.25, 0.25, 0.5, 1.0, 3e7, 1e8, 1e149])
    keys = keys[keys <= clock]
    back = race.turned_back(keys, clock)
    assert (np.sign(np.diff(back)) == np.sign(np.diff(keys))).all()
    assert (back <= 0.0).all()
    assert np.allclose(back, keys - clock, rtol=1e-14)


def test_probabilities_are_unbiased_importance_weights() -> None:
    rng = np.random.default_rng(3)
    weights, values = rng.uniform(0.1, 3.0, 20), rng.normal(size=20)
    estimates = []
    for _ in range(20_000):
        keys = rng.exponential(size=20) / weights
        order = np.argsort(keys)
        drawn, threshold = order[:6], keys[order[6]]
        probability = race.inclusion_probability(weights[drawn], 0.0, threshold)
        estimates.append((values[drawn] / probability).sum())
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - values.sum()) < 4 * error


def test_weight_functions() -> None:
    scores = np.array([-1.0, 0.0, 2.0])
    assert race.Shift()(scores, -1.0).tolist() == [1e-8, 1.0 + 1e-8, 3.0 + 1e-8]
    assert race.Softmax(2.0)(scores, 0.0).tolist() == pytest.approx(np.exp(scores / 2).tolist())
    assert race.Power(2.0)(scores, 0.0).tolist() == [0.0, 0.0, 4.0]
    assert race.Uniform()(scores, 0.0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "weighting", [race.Shift(), race.Softmax(0.3), race.Power(2), race.Uniform()]
)
def test_weightings_are_stored_and_read_back(weighting: race.Weighting) -> None:
    assert race.weighting_from_settings(race.weighting_settings(weighting)) == weighting
    assert race.weighting_from(weighting) == weighting


@pytest.mark.parametrize("wrong", ["sofmax", race.Shift])
def test_an_unknown_weighting_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidArgument, match="weighting"):
        race.weighting_from(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_parameters_out_of_range_are_refused(wrong: float) -> None:
    with pytest.raises(InvalidArgument, match="temperature"):
        race.Softmax(wrong)
    with pytest.raises(InvalidArgument, match="alpha"):
        race.Power(wrong)


HUGE: dict[str, Any] = {
    "huge": [1e308, -1e308, 1.7e308, 0.0],
    "tiny": [5e-324, -5e-324, 1e-310, 0.0],
    "both": [1e308, 5e-324, -1e308, 1.0],
    "not finite": [math.inf, 1.0, 2.0, math.nan],
    "longdouble": np.array(["1e4000", "1", "-1e308", "2"], dtype=np.longdouble),
}
WEIGHTINGS = (
    *(race.Shift(), race.Uniform(), race.Softmax(), race.Softmax(1e-300), race.Softmax(1e300)),
    *(race.Power(0.5), race.Power(1e-3), race.Power(1e3)),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "mode", "size"),
    [
        *(("sqlite", ("consume", "replay")[i % 2], size) for i, size in enumerate(HUGE)),
        *(("postgresql", ("replay", "consume")[i % 2], size) for i, size in enumerate(HUGE)),
    ],
)
def test_scores_of_any_size_give_draws_without_a_warning(
    request: pytest.FixtureRequest, kind: str, mode: str, size: str
) -> None:
    scores, url = HUGE[size], request.getfixturevalue(f"{kind}_url")
    for number, weighting in enumerate(WEIGHTINGS):
        with open_store(url, name=str(number), weighting=weighting, mode=mode) as store:
            assert_draws(store, scores)


def assert_draws(store: SampleStore, scores: Any) -> None:
    store.add(list("abcd"))
    store.score(lambda samples: np.asarray(scores))
    with store.sample(2, pct_argmax=0.5) as batch:
        batch.settle([1.0] * len(batch))
    store.add(["e", "f"])
    store.score(lambda samples: np.array([-1.7e308, 1e308])[: len(samples)])
    assert store.check() == []
    store.score(
        lambda samples: np.array([(-1) ** i * 1e308 for i in range(len(samples))]), only="all"
    )
    store.score(
        lambda samples: np.array([(-1) ** i * -1e308 for i in range(len(samples))]),
        only="all",
        budget=3,
    )
    probabilities = store.sample(2).info.probability
    assert ((probabilities > 0.0) & (probabilities <= 1.0)).all()
    assert store.check() == []


def test_shifted_weights_stay_in_bounds_and_in_order() -> None:
    scores = np.array([-1.7e308, -1e200, -1.0, 0.0, 1.0, 1e100, 1e200, 1.7e308])
    for base in scores:
        weights = race.Shift()(scores, base)
        assert (np.diff(weights) >= 0).all()
        assert np.isfinite(weights).all()
        assert (weights <= 2 * race.MOST).all()
    assert race.Shift()(np.array([3.5]), -1.0)[0] == 4.5 + race.FLOOR
