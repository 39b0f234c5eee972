"""How good predictions are, against scipy and by hand."""

import math

import numpy as np
import pytest
import scipy.stats

from sqlbuffer.predictor.metrics import calibration, measures, r2, rank_correlation


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_agrees_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 30), rng.normal(size=30)
    assert rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_rank_correlation_of_constants_is_undefined() -> None:
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_r2_is_one_for_the_truth_and_zero_for_the_mean() -> None:
    rewards = np.array([1.0, 2.0, 6.0])
    assert r2(rewards, rewards) == 1.0
    assert r2(np.full(3, 3.0), rewards) == 0.0
    assert r2([2.0, 2.0, 6.0], rewards) == pytest.approx(1 - 1 / 14)


def test_r2_of_constant_rewards_is_undefined() -> None:
    assert math.isnan(r2([1.0, 2.0], [3.0, 3.0]))


def test_calibration_compares_groups_of_equal_size() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=25)
    groups = calibration(predicted, 2 * predicted + 1)
    assert [group["rows"] for group in groups] == [3] * 5 + [2] * 5
    assert sorted(group["predicted"] for group in groups) == [
        group["predicted"] for group in groups
    ]
    for group in groups:
        assert group["measured"] == pytest.approx(2 * group["predicted"] + 1)


def test_few_rows_or_none_have_measures_too() -> None:
    assert calibration([], []) == []
    assert calibration([0.5], [1.0]) == [{"predicted": 0.5, "measured": 1.0, "rows": 1}]
    for predictions in ([], [0.5]):
        found = measures(predictions, predictions)
        assert math.isnan(found["rank_correlation"])
        assert math.isnan(found["r2"])


def test_predictions_that_are_not_finite_have_no_measures() -> None:
    found = measures([1.0, math.nan], [1.0, 2.0])
    assert math.isnan(found["rank_correlation"])
    assert math.isnan(found["r2"])
    assert found["calibration"] == []


@pytest.mark.parametrize("size", [1e-310, 1.0, 1e200, 1e308])
def test_measures_of_numbers_of_any_size_are_the_same_without_a_warning(size: float) -> None:
    rng = np.random.default_rng(0)
    rewards = rng.uniform(-1.0, 1.0, 40)
    predictions = np.clip(rewards + rng.normal(0.0, 0.1, 40), -1.0, 1.0)
    found, expected = measures(predictions * size, rewards * size), measures(predictions, rewards)
    assert found["rank_correlation"] == pytest.approx(expected["rank_correlation"], abs=1e-3)
    if size >= 1.0:
        assert found["r2"] == pytest.approx(expected["r2"])
        for group, other in zip(found["calibration"], expected["calibration"], strict=True):
            assert group["predicted"] / size == pytest.approx(other["predicted"])


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e300, -7e-300])
def test_equal_rewards_have_no_measures(value: float) -> None:
    """The mean of equal numbers is rounded: their spread about it may be above 0."""
    rewards = [value] * 49
    predictions = np.random.default_rng(0).normal(size=49)
    assert math.isnan(r2(predictions, rewards))
    assert math.isnan(rank_correlation(predictions, rewards))
    assert math.isnan(rank_correlation(rewards, predictions))


def test_r2_of_large_and_small_numbers_stays_in_range() -> None:
    rewards = np.array([1.0, 2.0, 4.0])
    for scale in (1e-200, 1e200):
        assert r2(rewards * scale, rewards * scale) == 1.0
        assert r2(rewards[::-1] * scale, rewards * scale) == pytest.approx(
            r2(rewards[::-1], rewards)
        )
