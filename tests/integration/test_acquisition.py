"""Acquisitions: their arithmetic, what they ask of the agent and the store, and the buffer that
draws by them.
"""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from rich.console import Console
from torch import Tensor, nn

from sqlbuffer.errors import InvalidArgument
from sqlbuffer.predictor.acquisition import (
    ExpectedImprovement,
    ThompsonSampling,
    UpperConfidenceBound,
    acquisition_from,
    expected_improvement,
    upper_confidence_bound,
)
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.predictor.ensemble import EnsembleAgent
from sqlbuffer.store import SampleStore
from sqlbuffer.training import Environment, FunctionSampler, Log, PredictiveBuffer, RewardCallback

MEANS, STDS = (grid.ravel() for grid in np.meshgrid([-3.0, -0.5, 0.0, 0.2, 2.0], [0.01, 0.5, 3.0]))


# -- the arithmetic --------------------------------------------------------------------------------


def test_the_upper_confidence_bound_is_a_quantile_of_a_normal() -> None:
    bound = upper_confidence_bound(MEANS, STDS, scipy.stats.norm.ppf(0.9))
    np.testing.assert_allclose(bound, scipy.stats.norm(MEANS, STDS).ppf(0.9))
    np.testing.assert_array_equal(upper_confidence_bound(MEANS, STDS, 0.0), MEANS)


@pytest.mark.parametrize(("best", "xi"), [(0.0, 0.0), (1.0, 0.25)])
def test_the_expected_improvement_is_the_integral(best: float, xi: float) -> None:
    def gain(mean: float, std: float) -> float:
        low = best + xi
        density = scipy.stats.norm(mean, std).pdf
        return scipy.integrate.quad(
            lambda r: (r - low) * density(r), low, max(low, mean) + 12 * std, points=[mean]
        )[0]

    expected = [gain(mean, std) for mean, std in zip(MEANS, STDS, strict=True)]
    np.testing.assert_allclose(
        expected_improvement(MEANS, STDS, best, xi), expected, rtol=1e-6, atol=1e-12
    )


def test_the_expected_improvement_is_what_a_million_normal_rewards_improve() -> None:
    rewards = 0.3 + 0.8 * np.random.default_rng(0).standard_normal(1_000_000)
    gains = np.maximum(rewards - 0.5, 0.0)
    margin = 4.0 * gains.std() / 1000.0  # four standard errors
    assert expected_improvement([0.3], [0.8], 0.5)[0] == pytest.approx(gains.mean(), abs=margin)


def test_the_expected_improvement_at_the_edges() -> None:
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        sure = expected_improvement([0.5, 1.0, 2.5], [0.0, 0.0, 0.0], 1.0)
        hopeless = expected_improvement([-1e3, -40.0, -1e300], [1.0, 1.0, 1e-300], 0.0)
    np.testing.assert_array_equal(sure, [0.0, 0.0, 1.5])
    assert ((hopeless >= 0.0) & (hopeless < 1e-300)).all()
    assert np.isnan(expected_improvement([math.nan, 0.0], [1.0, math.nan], 0.0)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, "1", None, True])
def test_parameters_are_finite_numbers(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="beta must be a finite number"):
        UpperConfidenceBound(beta=value)
    with pytest.raises(InvalidArgument, match="xi must be a finite number"):
        ExpectedImprovement(xi=value)


# -- agents ----------------------------------------------------------------------------------------


def number(sample: str) -> float:
    return float(sample[1:])


def named(*numbers: int) -> list[str]:
    return [f"s{i}" for i in numbers]


def featurize(samples: list[str]) -> Tensor:
    return torch.tensor(
        [
            [math.sin(number(sample) * pitch) for pitch in (0.004, 0.03, 0.2, 1.3)]
            for sample in samples
        ]
    )


def network(*layers: nn.Module, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), *layers, nn.Linear(16, 1))


def dropout_agent(seed: int = 0) -> PredictiveAgent:
    return PredictiveAgent(
        network(nn.Dropout(0.2), seed=seed), nn.functional.mse_loss, featurize, seed=seed
    )


def ensemble_agent(seed: int = 0) -> EnsembleAgent:
    models = [network(seed=10 * seed + i) for i in range(3)]
    return EnsembleAgent(models, nn.functional.mse_loss, featurize, seed=seed)


class GuessingAgent:
    """Not of this library: the mean of a sample is its number, its standard deviation a tenth of
    that.
    """

    def predict_distribution(self, samples: list[str]) -> tuple[list[float], list[float]]:
        means = [number(sample) for sample in samples]
        return means, [mean / 10 for mean in means]

    def predict_data(self, samples: list[str]) -> list[float]:
        return self.predict_distribution(samples)[0]


AGENTS = pytest.mark.parametrize("make", [dropout_agent, ensemble_agent])
KINDS = pytest.mark.parametrize("acquisition", ["ucb", "ei", "thompson"])


def buffer_for(agent: Any, url: str, acquisition: Any, **options: Any) -> PredictiveBuffer:
    return PredictiveBuffer(
        1.0, 2, agent, 8, 2, 2, 16, 1e-2, acquisition=acquisition, url=url, **options
    )


# -- errors ----------------------------------------------------------------------------------------


def test_greedy_asks_for_nothing() -> None:
    assert acquisition_from("greedy", object()) is None


@pytest.mark.parametrize("acquisition", ["UCB", "", ThompsonSampling, 3, None])
def test_an_unknown_acquisition_is_refused_with_those_that_there_are(
    acquisition: Any, sqlite_url: str
) -> None:
    with pytest.raises(
        InvalidArgument,
        match=r"'greedy', 'ucb', 'ei', 'thompson', or an object such as Upper.*; got",
    ):
        buffer_for(dropout_agent(), sqlite_url, acquisition)


@pytest.mark.parametrize(
    ("acquisition", "asked"),
    [("ucb", "predict_distribution"), ("ei", "predict_dist"), ("thompson", "predict_samples")],
)
def test_an_agent_without_uncertainty_is_refused_with_the_way_out(
    acquisition: str, asked: str, sqlite_url: str
) -> None:
    with pytest.raises(
        InvalidArgument, match=rf"needs an agent with {asked}.*object lacks: .*EnsembleAgent"
    ):
        buffer_for(object(), sqlite_url, acquisition)


@KINDS
def test_a_model_without_dropout_is_refused_with_the_way_out(
    acquisition: str, sqlite_url: str
) -> None:
    agent = PredictiveAgent(network(nn.Dropout(0.0)), nn.functional.mse_loss, featurize)
    with pytest.raises(
        InvalidArgument,
        match=r"Sequential has no dropout.*add torch.nn.Dropout\(0.1\).*EnsembleAgent",
    ):
        buffer_for(agent, sqlite_url, acquisition)


# -- what they ask of the store --------------------------------------------------------------------


def test_the_incumbent_is_the_best_reward_that_the_predictor_knew(store: SampleStore) -> None:
    assert store.incumbent() is None
    store.record(named(1, 2, 3), [1.0, math.nan, -3.0])
    assert store.incumbent() == 1.0
    store.record(named(4), [4.0])
    assert store.incumbent() == 4.0, "before the first predictor it is the best of all"
    store.save_predictor(b"", rows_trained=3)
    store.record(named(5), [5.0])
    assert store.incumbent() == 4.0
    store.save_predictor(b"", rows_trained=4)
    assert store.incumbent() == 5.0


def test_an_agent_of_another_make_will_do(store: SampleStore) -> None:
    agent, samples = GuessingAgent(), named(10, 20)
    bound = UpperConfidenceBound(beta=2.0).rule(agent, store)
    np.testing.assert_allclose(bound(samples), [12.0, 24.0])
    improvement = ExpectedImprovement(xi=1.0)
    np.testing.assert_array_equal(
        improvement.rule(agent, store)(samples), [10.0, 20.0], "nothing to improve on yet"
    )
    store.record(named(15), [15.0])
    expected = expected_improvement([10.0, 20.0], [1.0, 2.0], 15.0, 1.0)
    np.testing.assert_array_equal(improvement.rule(agent, store)(samples), expected)


@AGENTS
def test_one_function_is_drawn_for_each_score_version(
    store: SampleStore, make: Callable[..., Any]
) -> None:
    thompson, samples = ThompsonSampling(), named(*range(20))

    def drawn(agent: Any) -> np.ndarray:
        rule = thompson.rule(agent, store)
        whole = rule(samples)
        np.testing.assert_allclose(
            np.concatenate([rule(samples[:7]), rule(samples[7:])]), whole, rtol=1e-4, atol=1e-6
        )
        return whole

    versions = []
    for _ in range(8):
        versions.append(drawn(make()))
        np.testing.assert_array_equal(drawn(make()), versions[-1])
        store.score(lambda samples: np.zeros(len(samples)), only="all")
    assert len({version.tobytes() for version in versions}) >= 2
    assert any(not np.array_equal(drawn(make(seed=seed)), drawn(make())) for seed in (1, 2))


# -- in the buffer ---------------------------------------------------------------------------------


def test_greedy_scores_are_the_predictions_bit_for_bit(store_url: str) -> None:
    agent, samples = dropout_agent(), named(*range(40))
    buffer = buffer_for(agent, store_url, "greedy")
    chunks = [agent.predict_data(samples[i : i + 8]) for i in range(0, 40, 8)]
    np.testing.assert_array_equal(
        buffer.compute_weights(samples), torch.cat(chunks).double().numpy()
    )
    buffer.close()


@pytest.mark.slow
@KINDS
@AGENTS
def test_scores_are_what_the_acquisition_says(
    store_url: str, make: Callable[..., Any], acquisition: str
) -> None:
    agent, samples = make(), named(*range(40))
    buffer = buffer_for(agent, store_url, acquisition)
    buffer.store.record(named(90), [0.1])
    buffer.add(samples)
    samples = buffer.buffer
    before = torch.get_rng_state()
    buffer.before_batch()
    assert torch.equal(before, torch.get_rng_state()), "global random state is left alone"
    rule = acquisition_from(acquisition, agent).rule(agent, buffer.store)
    np.testing.assert_allclose(buffer.weights, rule(samples), rtol=1e-4, atol=1e-6)
    assert not np.allclose(buffer.weights, agent.predict_data(samples))
    assert buffer.compute_weights([]).shape == (0,)
    buffer.close()


def run(
    url: str, acquisition: Any, agent: Any, *, iterations: int, noted: list[Any] | None = None
) -> None:
    """A small search; notes down its batches and their predictions."""

    class Noting(PredictiveBuffer):
        def compute_loss(self) -> None:
            super().compute_loss()
            state = self.environment.batch_state
            made = state["predictive_buffer_preds"]
            torch.testing.assert_close(made, self.predictive_agent.predict_data(state.samples))
            if noted is not None:
                noted.append((list(state.samples), list(state.buffer_weights), made.tolist()))

    buffer = Noting(
        1.0, 2, agent, 8, 2, 2, 16, 1e-2, pct_argmax=0.3, acquisition=acquisition, url=url
    )
    env = Environment(
        samplers=[FunctionSampler(lambda n, rng: named(*rng.integers(0, 500, n)), "gen", 30)],
        rewards=[RewardCallback(lambda samples: [number(sample) / 100 for sample in samples])],
        buffer=buffer,
        log=Log(console=Console(file=io.StringIO())),
    )
    env.fit(10, iters=iterations, report=0)
    assert buffer.store.check() == []
    buffer.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("store_url", "make", "acquisition"),
    [
        ("postgresql", dropout_agent, "ucb"),
        ("sqlite", dropout_agent, "thompson"),
        ("sqlite", ensemble_agent, ExpectedImprovement(xi=0.01)),
        ("postgresql", ensemble_agent, "thompson"),
    ],
    indirect=["store_url"],
)
def test_a_resumed_run_draws_the_same_batches(
    store_url: str, tmp_path: Any, make: Callable[..., Any], acquisition: Any
) -> None:
    whole: list[Any] = []
    run(f"sqlite:///{tmp_path}/whole.db", acquisition, make(), iterations=6, noted=whole)
    parts: list[Any] = []
    run(store_url, acquisition, make(), iterations=3, noted=parts)
    run(
        store_url, acquisition, make(), iterations=6, noted=parts
    )  # a new process, as far as it can tell
    assert len(whole) == 6
    assert [samples for samples, _, _ in parts] == [samples for samples, _, _ in whole]
    assert parts == whole
    greedy: list[Any] = []
    run(f"sqlite:///{tmp_path}/greedy.db", "greedy", make(), iterations=6, noted=greedy)
    assert [samples for samples, _, _ in greedy] != [samples for samples, _, _ in whole]


@pytest.mark.slow
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_thompson_sampling_draws_a_bandit_arm_as_often_as_it_is_the_best(
    store: SampleStore,
) -> None:
    """One in a thousand such tests sees fewer than 43 wins or more than 75.

    With the mean of each arm, or with one step for all draws, there are 0 or 100.
    """

    class Posterior:
        """Two arms with independent normal posteriors; each step is another draw."""

        def predict_samples(self, samples: list[str], n_draws: int, *, step: int) -> np.ndarray:
            rng = np.random.default_rng(step)
            values = {"a": rng.normal(0.0, 1.0, n_draws), "b": rng.normal(0.5, 2.0, n_draws)}
            return np.stack([values[sample] for sample in samples], axis=1)

    n, wins = 100, 0
    for _ in range(n):
        a, b = ThompsonSampling().rule(Posterior(), store)(["a", "b"])
        wins += b > a
        store.score(lambda samples: np.zeros(len(samples)), only="all")
    expected = scipy.stats.norm.cdf(0.5 / math.sqrt(5.0))
    assert scipy.stats.binomtest(int(wins), n, expected).pvalue > 0.001


def test_huge_predictions_give_no_warning() -> None:
    mean, std = np.array([1.7e308, -1.7e308, 0.0]), np.array([1.7e308, 0.0, 1e308])
    assert upper_confidence_bound(mean, std, 2.0)[1] == -1.7e308
    assert expected_improvement(mean, std, -1.7e308)[1] == 0.0
