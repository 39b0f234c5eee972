"""The direction of a buffer: a run that minimizes is the mirror image of one that maximizes."""

import csv
import io
import json
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from rich.console import Console
from torch import Tensor, nn

from helpers import inside
from helpers.commands import refused, run
from helpers.direct import connect
from helpers.loops import named, number
from sqlbuffer.db.schema import buffers
from sqlbuffer.errors import InvalidArgument, InvalidPayload, SettingsMismatch
from sqlbuffer.predictor.acquisition import ExpectedImprovement, UpperConfidenceBound
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.predictor.ensemble import EnsembleAgent
from sqlbuffer.retraining.schedule import Schedule
from sqlbuffer.retraining.train import retrain
from sqlbuffer.retraining.worker import Worker
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training import (
    Buffer,
    Environment,
    FunctionSampler,
    Log,
    PredictiveBuffer,
    RewardCallback,
    WeightedBuffer,
)

SIGNS = {"maximize": 1.0, "minimize": -1.0}


# -- the setting -----------------------------------------------------------------------------------


def test_a_direction_is_stored_and_taken_as_stored(store_url: str) -> None:
    for name, direction in (("low", "minimize"), ("high", "maximize"), ("new", None)):
        with open_store(store_url, name=name, direction=direction) as store:
            assert store.direction == store.stats().direction == (direction or "maximize")
    for name, direction in (("low", "minimize"), ("high", "maximize"), ("new", "maximize")):
        for given in (None, direction):
            with open_store(store_url, name=name, direction=given) as store:
                assert store.direction == direction
                assert store.check() == []


@pytest.mark.parametrize(("stored", "other"), [SIGNS, list(SIGNS)[::-1]])
def test_another_direction_than_the_stored_one_is_refused_with_the_way_out(
    store_url: str, stored: str, other: str
) -> None:
    open_store(store_url, name="docking", direction=stored).close()
    expected = (
        f"buffer 'docking' is stored with direction='{stored}', but was opened with "
        f"direction='{other}': open it without direction, which takes the stored value, or store "
        "its samples under another name (`sqlbuffer export all.jsonl --name docking`, then "
        f"`sqlbuffer import all.jsonl --name OTHER --direction {other}`)."
    )
    with pytest.raises(SettingsMismatch, match=f"^{re.escape(expected)}$"):
        open_store(store_url, name="docking", direction=other)
    with open_store(store_url, name="docking") as store:
        assert store.direction == stored
    with open_store(store_url, name="docking", direction=other, fresh=True) as store:
        assert (store.name, store.direction) == ("docking-2", other)


@pytest.mark.parametrize("wrong", ["min", "MINIMIZE", "", 1, True, ["minimize"]])
def test_an_unknown_direction_is_refused_before_anything_is_created(
    tmp_path: pathlib.Path, wrong: Any
) -> None:
    with pytest.raises(InvalidArgument, match='direction must be "maximize" or "minimize"'):
        open_store(f"sqlite:///{tmp_path}/new.db", direction=wrong)
    assert not (tmp_path / "new.db").exists()


@pytest.mark.slow
def test_a_copy_has_the_direction_of_its_original(store_url: str) -> None:
    options: list[dict[str, Any]] = [{}, {"seed": 5}, {"at_iteration": 0}, {"mode": "replay"}]
    with open_store(store_url, direction="minimize") as store:
        store.add(named(*range(8)))
        store.score(lambda samples: np.zeros(len(samples)))
        store.sample(4).settle([3.0, -1.0, 2.0, math.nan])
        for i, given in enumerate(options):
            with store.copy(f"copy {i}", **given) as copied:
                assert copied.direction == copied.stats().direction == "minimize"
                assert copied.stats().best_reward == (None if "at_iteration" in given else -1.0)
                assert copied.check() == []
    assert run("copy", "default", "by command", url=store_url).code == 0
    with open_store(store_url, name="by command") as copied:
        assert copied.direction == "minimize"


def test_a_direction_that_cannot_be_is_reported(store_url: str) -> None:
    with open_store(store_url, direction="minimize") as store:
        inside.execute(store, sa.update(buffers).values(direction="sideways"))
        (problem,) = store.check()
        assert "stored with direction 'sideways', and was opened with 'minimize'" in problem
        with pytest.raises(
            InvalidPayload, match="direction of buffer 'default' is stored as 'side"
        ):
            open_store(store_url)
        assert "'sideways', which is neither 'maximize' nor" in refused(
            run("db", "check", url=store_url)
        )


def test_callbacks_open_their_buffer_with_a_direction(store_url: str) -> None:
    class Weighted(WeightedBuffer):
        def compute_weights(self, samples: list[str]) -> np.ndarray:
            return np.zeros(len(samples))

    made: list[Callable[..., Buffer]] = [
        lambda **options: Buffer(1.0, **options),
        lambda **options: Weighted(1.0, 2, **options),
        lambda **options: buffer_for(dropout_agent(1.0), **options),
    ]
    for i, make in enumerate(made):
        buffer = make(url=store_url, name=f"{i}", direction="minimize")
        assert buffer.store.direction == "minimize"
        buffer.close()
        with pytest.raises(SettingsMismatch, match="direction='maximize'"):
            make(url=store_url, name=f"{i}", direction="maximize")
        buffer = make(url=store_url, name=f"{i}")
        assert buffer.store.direction == "minimize"
        buffer.close()


# -- the best --------------------------------------------------------------------------------------


def told_of_rewards(store: SampleStore, sign: float) -> list[Any]:
    """Return all that a store tells of its best rewards, each times `sign`."""
    told: list[Any] = []
    rng = np.random.default_rng(0)
    for turn in range(3):
        rewards = np.round(rng.normal(0.0, 2.0, 40), 1)  # some are equal
        rewards[rng.random(40) < 0.2] = math.nan
        store.record(named(*range(40 * turn, 40 * turn + 40)), sign * rewards)
        for _ in range(2):
            incumbent, best = store.incumbent(), store.stats().best_reward
            assert incumbent is not None
            assert best is not None
            top = [(row["sample"], sign * row["reward"]) for row in store.top(50)]
            told.append((sign * incumbent, sign * best, top))
            for share in (0.01, 0.3, 1.0):
                rows = store.labelled_rows(best=share, newest=60)
                told.append((list(rows), (sign * rows.rewards).tolist()))
            store.save_predictor(b"", rows_trained=1)
    return told


def test_the_best_of_a_buffer_that_minimizes_mirror_those_of_one_that_maximizes(
    store_url: str,
) -> None:
    found = {}
    for direction, sign in SIGNS.items():
        with open_store(store_url, name=direction, direction=direction) as store:
            found[direction] = told_of_rewards(store, sign)
            rewards = [row["reward"] for row in store.top(200)]
            assert rewards == sorted(rewards, reverse=direction == "maximize")
            assert store.stats().best_reward == rewards[0]
    assert found["minimize"] == found["maximize"]


@pytest.mark.each_database
@pytest.mark.parametrize("direction", SIGNS)
def test_views_and_commands_follow_the_direction(store_url: str, direction: str) -> None:
    best = {"maximize": 7.5, "minimize": -9.25}[direction]
    open_store(store_url, name="other", direction="minimize").close()
    with open_store(store_url, name="docking", direction=direction) as store:
        store.add(["waits"])
        store.record(["a", "b", "c", "d"], [-3.0, 7.5, math.nan, -9.25])
    with connect(store_url) as connection:
        statement = sa.text(
            "SELECT direction, best_reward FROM buffer_overview WHERE buffer = 'docking'"
        )
        assert connection.execute(statement).all() == [(direction, best)]
    top = json.loads(run("top", "--name", "docking", "--json", url=store_url).out)
    assert [row["reward"] for row in top] == sorted(
        [-3.0, 7.5, -9.25], reverse=direction == "maximize"
    )
    stats = json.loads(run("stats", "--name", "docking", "--json", url=store_url).out)
    assert (stats["direction"], stats["best_reward"]) == (direction, best)
    listed = {row["name"]: row for row in json.loads(run("stats", "--json", url=store_url).out)}
    assert (listed["docking"]["best_reward"], listed["other"]["best_reward"]) == (best, None)
    sql = "SELECT best_reward FROM buffer_overview WHERE buffer = 'docking'"
    (row,) = csv.DictReader(io.StringIO(run("sql", "--csv", sql, url=store_url).out))
    assert float(row["best_reward"]) == best


@pytest.mark.slow
def test_the_highest_scores_are_the_best_and_are_drawn_first_in_either_direction(
    store_url: str,
) -> None:
    for direction in SIGNS:
        with open_store(store_url, name=direction, direction=direction) as store:
            store.add(named(*range(50)))
            store.score(lambda samples: np.array([number(sample) for sample in samples]))
            assert [row["sample"] for row in store.top(3, by="score")] == named(49, 48, 47)
            with store.sample(5, pct_argmax=1.0) as batch:
                assert batch.samples == named(49, 48, 47, 46, 45)
        top = run("top", "--name", direction, "--by", "score", "-n", "1", "--json", url=store_url)
        assert [row["sample"] for row in json.loads(top.out)] == ["s49"]


# -- the predictor ---------------------------------------------------------------------------------


def featurize(samples: list[str]) -> Tensor:
    pitches = (0.004, 0.03, 0.2, 1.3)
    return torch.tensor(
        [[math.sin(number(sample) * pitch) for pitch in pitches] for sample in samples]
    )


def network(sign: float, *layers: nn.Module, seed: int = 0) -> nn.Module:
    """A network that predicts `sign` times what it predicts for a sign of 1, exactly.

    Its gradients, and the steps of Adam, are those of the other network, or their negatives. After
    training on negated rewards it therefore predicts the negative, to the last bit.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        last = nn.Linear(16, 1)
        with torch.no_grad():
            last.weight *= sign
            last.bias *= sign
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), *layers, last)


def dropout_agent(sign: float) -> PredictiveAgent:
    return PredictiveAgent(network(sign, nn.Dropout(0.2)), nn.functional.mse_loss, featurize)


def ensemble_agent(sign: float) -> EnsembleAgent:
    models = [network(sign, seed=i) for i in range(3)]
    return EnsembleAgent(models, nn.functional.mse_loss, featurize)


def buffer_for(agent: Any, **options: Any) -> PredictiveBuffer:
    return PredictiveBuffer(1.0, 2, agent, 8, 2, 3, 16, 1e-2, **options)


AGENTS = pytest.mark.parametrize("make", [dropout_agent, ensemble_agent])
ACQUISITIONS = pytest.mark.parametrize(
    "acquisition",
    ["greedy", UpperConfidenceBound(1.5), ExpectedImprovement(0.01), "thompson"],
    ids=lambda it: getattr(it, "name", it),
)


def search(
    url: str, name: str, agent: Any, *, acquisition: Any, iterations: int = 8, **options: Any
) -> dict[str, Any]:
    """Run a small search; return its batches, their scores and times `sign` all that is measured.

    Some rewards are equal, and some measurements fail.
    """
    sign = SIGNS[options["direction"]]
    batches: list[Any] = []

    def reward(samples: list[str]) -> list[float]:
        values = [math.nan if number(it) % 11 == 0 else number(it) // 3 / 50 for it in samples]
        return [sign * value for value in values]

    class Noting(PredictiveBuffer):
        def compute_loss(self) -> None:
            super().compute_loss()
            state = self.environment.batch_state
            made = sign * state["predictive_buffer_preds"].detach()
            batches.append((list(state.samples), list(state.buffer_weights), made.tolist()))

    buffer = Noting(
        *(1.0, 2, agent, 8, 2, 3, 16, 1e-2),
        pct_argmax=0.4,
        acquisition=acquisition,
        supervised_kwargs={"best": 0.7},
        url=url,
        name=name,
        **options,
    )
    log = Log(console=Console(file=io.StringIO()))
    env = Environment(
        samplers=[FunctionSampler(lambda n, rng: named(*rng.integers(0, 400, n)), "gen", 40)],
        rewards=[RewardCallback(reward)],
        buffer=buffer,
        log=log,
    )
    env.fit(12, iters=iterations, report=0)
    store = buffer.store
    assert store.check() == []
    signed = ("rewards", "rewards_max", "rewards_min", "reward", "predictive_buffer_preds")
    metrics = {
        metric: [sign * value if metric in signed else value for value in values]
        for metric, values in log.metrics.items()
    }
    versions = [
        [it.version, it.train_loss, it.valid_loss, it.r2, it.rank_correlation]
        for it in store.predictors()
    ]
    waiting = store.waiting()
    told = {
        "batches": batches,
        "metrics": metrics,
        "versions": versions,
        "incumbent": sign * float(store.incumbent() or 0.0),
        "waiting": (waiting.samples, waiting.scores.tolist(), waiting.weights.tolist()),
        "top": [(row["sample"], sign * row["reward"]) for row in store.top(100)],
    }
    buffer.close()
    return told


@pytest.mark.slow
@AGENTS
@ACQUISITIONS
def test_a_loop_that_minimizes_mirrors_one_that_maximizes_bit_for_bit(
    store_url: str, make: Callable[[float], Any], acquisition: Any
) -> None:
    high, low = (
        search(store_url, name, make(sign), acquisition=acquisition, direction=name)
        for name, sign in SIGNS.items()
    )
    assert len(high["batches"]) == 8
    assert len(high["versions"]) >= 3
    low["metrics"]["rewards_max"] = low["metrics"].pop("rewards_min")
    for what in ("batches", "metrics", "incumbent", "waiting", "top"):
        assert low[what] == high[what], what
    # Sums of negated numbers are negated exactly; the sorting of ranks may not be.
    ours, theirs = (np.array(told["versions"], dtype=np.float64) for told in (low, high))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"online": True}, {"refresh_budget": 20}, {"mode": "replay"}])
def test_other_loops_mirror_each_other_too(store_url: str, options: dict[str, Any]) -> None:
    high, low = (
        search(store_url, name, dropout_agent(sign), acquisition="ucb", direction=name, **options)
        for name, sign in SIGNS.items()
    )
    for what in ("batches", "incumbent", "waiting", "top"):
        assert low[what] == high[what], what


@pytest.mark.slow
def test_a_loop_that_minimizes_finds_low_rewards(store_url: str) -> None:
    def docked(samples: list[str]) -> list[float]:
        return [-number(sample) / 100 for sample in samples]

    def features(samples: list[str]) -> Tensor:
        return torch.tensor([[number(sample) / 400] for sample in samples])

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
    agent = PredictiveAgent(model, nn.functional.mse_loss, features)
    buffer = PredictiveBuffer(
        *(1.0, 2, agent, 64, 2, 100, 16, 1e-2), pct_argmax=0.8, url=store_url, direction="minimize"
    )
    known = named(*range(0, 400, 8))
    buffer.store.record(known, docked(known))
    buffer.add([sample for sample in named(*range(400)) if sample not in known])
    log = Log(console=Console(file=io.StringIO()))
    Environment(rewards=[RewardCallback(docked)], buffer=buffer, log=log).fit(10, iters=6, report=0)
    assert max(log.metrics["rewards"][-3:]) < -3.0, "the mean of all samples is -2"
    assert min(log.metrics["rewards_min"]) == -3.99
    assert log.metrics["predictive_buffer_preds"][-1] < -3.0, "in the unit of the rewards"
    assert [row["reward"] for row in buffer.store.top(3)] == [-3.99, -3.98, -3.97]
    buffer.close()


class Guessing:
    """Not of this library: it returns lists, and predicts the number of a sample."""

    unit = "kcal/mol"

    def predict_data(self, samples: list[str]) -> list[float]:
        return [number(sample) for sample in samples]

    def predict_distribution(self, samples: list[str]) -> tuple[list[float], list[float]]:
        return self.predict_data(samples), [0.5] * len(samples)

    def predict_samples(self, samples: list[str], n_draws: int, *, step: int) -> list[list[float]]:
        return [self.predict_data(samples)] * n_draws


class Homemade:
    """An acquisition of a user, which maximizes."""

    name = "homemade"
    asks = "predict_data"

    def rule(self, agent: Any, store: Any) -> Callable[[list[str]], np.ndarray]:
        assert agent.unit == "kcal/mol"
        best, version = store.incumbent(), store.stats().score_version
        assert (best, version) == (4.0, 0)
        return lambda samples: np.asarray(agent.predict_data(samples)) - best


@pytest.mark.parametrize(
    ("acquisition", "expected"),
    [
        ("greedy", [-3.0, 5.0]),
        ("ucb", [-2.5, 5.5]),
        (ExpectedImprovement(), [0.0, 1.0]),
        ("thompson", [-3.0, 5.0]),
        (Homemade(), [-7.0, 1.0]),
    ],
)
def test_agents_and_acquisitions_of_users_need_not_know_the_direction(
    store_url: str, acquisition: Any, expected: list[float]
) -> None:
    buffer = buffer_for(
        Guessing(),
        acquisition=acquisition,
        url=store_url,
        direction="minimize",
    )
    buffer.store.record(["s-4", "s7"], [-4.0, 7.0])
    np.testing.assert_allclose(buffer.compute_weights(["s3", "s-5"]), expected, atol=0.01)
    buffer.close()


@pytest.mark.slow
def test_a_worker_scores_by_the_direction_and_measures_in_the_unit_of_the_rewards(
    store_url: str,
) -> None:
    with open_store(store_url, direction="minimize") as store:
        agent = dropout_agent(1.0)
        store.record(named(*range(60)), [-5.0 - number(it) / 10 for it in named(*range(60))])
        store.add(named(*range(100, 120)))
        worker = Worker(
            store,
            agent,
            schedule=Schedule(None, None, 1),
            retraining={"bs": 16, "epochs": 40, "lr": 1e-2},
        )
        assert worker.once()
        waiting = store.waiting()
        predicted = np.asarray(agent.predict_data(waiting.samples), dtype=np.float64)
        assert (predicted < -3.0).all(), "predictions have the unit of the rewards"
        np.testing.assert_array_equal(waiting.scores, -predicted)
        version = retrain(store, agent, bs=16, epochs=1, lr=0.0)
        assert version is not None
        assert version.rank_correlation is not None
