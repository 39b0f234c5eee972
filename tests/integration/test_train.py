"""Retraining: what is trained on, what is measured, what is stored, and what happens when it goes
wrong.
"""

import datetime as dt
import logging
import math
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from scipy import stats
from torch import nn

from helpers import inside
from helpers.agents import agent, featurize, network, rows, same, weights
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db.backends import now
from sqlbuffer.db.schema import samples as samples_table
from sqlbuffer.errors import InvalidArgument, TrainingDiverged
from sqlbuffer.predictor import dataset
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.retraining.train import retrain
from sqlbuffer.store import SampleStore

pytestmark = pytest.mark.usefixtures("global_random_state_stays")

FIT = {"bs": 16, "epochs": 5, "lr": 1e-2}


def database_time(store: SampleStore) -> dt.datetime:
    found: dt.datetime = inside.scalar(store, sa.select(now()))
    return found


@pytest.mark.slow
def test_retraining_stores_a_version_with_its_measures(
    store: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    samples, rewards = rows(200)
    rewards[7] = math.nan
    store.record(samples, rewards)
    a = agent()
    before = database_time(store)
    with caplog.at_level(logging.INFO, "sqlbuffer"):
        version = retrain(store, a, **FIT | {"epochs": 40}, percent_valid=0.1, percent_test=0.2)
    assert version is not None
    assert caplog.messages[-1] == (
        f"predictor 1 trained on {version.rows_trained} rows, {version.rows_held_out} held out: "
        f"train loss {version.train_loss:.4g}, valid loss {version.valid_loss:.4g}, "
        f"rank correlation {version.rank_correlation:.4g}, r2 {version.r2:.4g}"
    )
    assert version.worker_id == worker_id()
    assert before <= version.trained_at <= database_time(store)
    assert version == store.newest_predictor()
    assert [version] == store.predictors()
    assert version.rows_trained + version.rows_held_out == 199
    assert 20 <= version.rows_held_out <= 60
    assert version.rank_correlation is not None
    assert version.r2 is not None
    assert version.rank_correlation > 0.95
    assert 0.8 < version.r2 <= 1.0
    assert sum(group["rows"] for group in version.metrics["calibration"]) == version.rows_held_out
    assert set(version.metrics) == {"valid_rank_correlation", "calibration", "epochs", "seconds"}
    assert version.size_bytes > 0
    other = agent()
    assert store.load_predictor(other) == version.version
    assert same(weights(a), weights(other))


def test_rows_are_held_out_by_hash_and_never_change_sides(store: SampleStore) -> None:
    class Curious(PredictiveAgent):
        streams = True

        def update_dataset_from_inputs(self, samples: Any, rewards: Any) -> None:
            seen.append(set(samples))
            super().update_dataset_from_inputs(samples, rewards)

        def predict_data(self, samples: Any) -> torch.Tensor:
            measured.append(set(samples))
            return super().predict_data(samples)

    seen: list[set[str]] = []
    measured: list[set[str]] = []
    a = Curious(network(), nn.functional.mse_loss, featurize)
    names, rewards = rows(300)
    for n in (100, 200, 300):
        store.record(names[:n], rewards[:n])
        retrain(store, a, **FIT, percent_test=0.2)
    for trained, held_out, n in zip(seen, measured, (100, 200, 300), strict=True):
        assert trained | held_out == set(names[:n])
    assert seen[0] < seen[1] < seen[2]
    assert measured[0] < measured[1] < measured[2]
    assert not seen[2] & measured[2]


def test_retraining_takes_the_rows_that_are_asked_for(store: SampleStore) -> None:
    names, rewards = rows(40)
    store.record(names[:20], rewards[:20], "old")
    store.record(names[20:], rewards[20:], "new")
    taken = store.labelled_rows(where="source = 'old' -- but not the new ones")
    assert list(taken) == sorted_like_store(store, names[:20])
    expression = store.labelled_rows(where=samples_table.c.source == "new")
    assert set(expression) == set(names[20:])
    assert set(store.labelled_rows(newest=20)) == set(names[20:])
    assert set(store.labelled_rows(best=0.25)) == set(names[30:])
    assert set(store.labelled_rows(where="source = 'old'", newest=20, best=0.1)) == set(
        names[18:20]
    )
    version = retrain(store, agent(), **FIT, where="source = 'old'", percent_test=0.0)
    assert version is not None
    assert (version.rows_trained, version.rows_held_out) == (20, 0)


def test_the_best_rows_are_as_many_as_were_asked_for_where_rewards_tie(store: SampleStore) -> None:
    """The hash decides, by other bits than those that hold rows out."""
    names = [f"s{i}" for i in range(400)]
    store.record(names, [1.0] * 400)
    best = store.labelled_rows(best=0.25)
    assert len(best) == 100
    assert stats.kstest(best.places, "uniform").pvalue > 0.001
    again = store.copy("another order")
    assert list(again.labelled_rows(best=0.25)) == list(best)
    again.close()


def sorted_like_store(store: SampleStore, names: list[str]) -> list[str]:
    return [sample for sample in store.labelled()[0] if sample in names]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "sauce = 'old'"}, "where must be a condition on the columns of samples"),
        ({"where": "source ="}, "where must be a condition"),
        ({"where": "source = :name"}, "where must be a condition"),
        ({"newest": 0}, "newest must be a positive number"),
        ({"newest": 1.5}, "newest must be a positive number"),
        ({"best": 0.0}, "best must be a share"),
        ({"best": 1.5}, "best must be a share"),
        ({"percent_test": 1.0}, "percent_test is a share"),
        ({"keep": 0}, "keep must be 1 or more"),
    ],
)
def test_bad_requests_are_refused(
    store: SampleStore, options: dict[str, Any], message: str
) -> None:
    store.record(*rows(4))
    with pytest.raises(InvalidArgument, match=message):
        retrain(store, agent(), **FIT, **options)
    assert store.predictors() == []


def test_labelled_rows_are_a_sequence_that_is_read_when_looked_at(store: SampleStore) -> None:
    mixed = ["text", (1, 2), torch.tensor([1.5]), 7]
    store.record(mixed, [1.0, 2.0, 3.0, 4.0])
    found = store.labelled_rows()
    samples, rewards = store.labelled()
    assert len(found) == 4
    assert repr(list(found)) == repr(samples)
    assert found.rewards.tolist() == rewards.tolist()
    assert repr(found[1:3]) == repr(samples[1:3])
    assert repr(found[-1]) == repr(samples[-1])
    assert repr(found.take([3, 0, 3])) == repr([samples[3], samples[0], samples[3]])
    assert found.take([]) == []
    with pytest.raises(IndexError):
        found[4]
    assert ((found.places >= 0) & (found.places < 1)).all()


def test_a_version_can_be_loaded_by_its_number(store: SampleStore) -> None:
    store.record(*rows(40))
    a, kept = agent(), []
    assert store.load_predictor(a) is None
    for _ in range(3):
        version = retrain(store, a, **FIT)
        assert version is not None
        kept.append((version.version, weights(a)))
    for number, old in kept:
        other = agent()
        assert store.load_predictor(other, number) == number
        assert same(weights(other), old)
    with pytest.raises(InvalidArgument, match=r"no state of predictor 99: it has 1, 2, 3\."):
        store.load_predictor(a, 99)


@pytest.mark.slow
def test_only_so_many_states_are_kept_and_none_that_a_score_refers_to(store: SampleStore) -> None:
    store.record(*rows(40))
    store.add(["s100", "s101"])
    a = agent()

    def train() -> int:
        version = retrain(store, a, **FIT, keep=2)
        assert version is not None
        return version.version

    def with_state() -> list[int]:
        return [version.version for version in store.predictors() if version.size_bytes]

    first = train()
    store.score(
        lambda samples: np.ones(len(samples)), only="all"
    )  # a version of the scores, still of that predictor
    versions = [first, *(train() for _ in range(4))]
    assert [version.version for version in store.predictors()] == versions
    assert with_state() == [first, *versions[-2:]]
    store.score(lambda samples: np.ones(len(samples)), only="stale")
    versions.append(train())
    assert with_state() == versions[-2:]
    assert all(version.train_loss is not None for version in store.predictors()), (
        "how good they were stays"
    )
    with pytest.raises(InvalidArgument, match="no state of predictor"):
        store.load_predictor(a, first)


def test_rows_that_do_not_fit_into_memory_give_the_same_predictor(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.record(*rows(100))
    trained = []
    for cache_bytes in (0, dataset.CACHE_BYTES):
        monkeypatch.setattr("sqlbuffer.predictor.dataset.CACHE_BYTES", cache_bytes)
        trained.append(agent(nn.Dropout(0.1)))
        retrain(store, trained[-1], **FIT)
    assert same(weights(trained[0]), weights(trained[1]))


def test_retraining_without_enough_rows_does_nothing(
    store: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.record(["s1"], [1.0])
    a = agent()
    before = weights(a)
    with caplog.at_level(logging.INFO, "sqlbuffer"):
        assert retrain(store, a, **FIT) is None
    assert "1 labelled rows, at least 2" in caplog.text
    assert store.newest_predictor() is None
    assert same(before, weights(a))


def test_retraining_that_diverges_keeps_the_old_predictor(store: SampleStore) -> None:
    store.record(*rows(30))
    a = agent()
    a.loss_function = lambda predictions, rewards: (predictions - rewards).mean() / 0.0
    before = weights(a)
    with pytest.raises(TrainingDiverged, match="lower the learning rate"):
        retrain(store, a, **FIT)
    assert store.newest_predictor() is None
    assert same(before, weights(a))


class ForeignAgent:
    """The methods that are asked for, with a training that says nothing and may go wrong."""

    def __init__(self, *, fails: bool = False) -> None:
        self.model = network()
        self.fails = fails
        self.trained_on: list[Any] = []

    def update_dataset_from_inputs(self, samples: Any, rewards: Any) -> None:
        assert type(samples) is list, "an agent of another make gets a list"
        self.trained_on = list(zip(samples, rewards, strict=True))

    def train_supervised(self, bs: int, epochs: int, lr: float, silent: bool = False) -> None:
        with torch.no_grad():
            self.model[0].weight.fill_(math.nan if self.fails else 1.0)


def test_any_object_with_the_methods_can_be_retrained(store: SampleStore) -> None:
    store.record(["s1", "s2"], [1.0, 2.0])
    a = ForeignAgent()
    version = retrain(store, a, **FIT)
    assert sorted(a.trained_on) == [("s1", 1.0), ("s2", 2.0)]
    assert version is not None
    assert (version.train_loss, version.rank_correlation) == (None, None)
    other = ForeignAgent()
    store.load_predictor(other)
    assert same(weights(a), weights(other))


def test_weights_that_are_not_finite_are_not_stored(store: SampleStore) -> None:
    store.record(["s1", "s2"], [1.0, 2.0])
    a = ForeignAgent(fails=True)
    with pytest.raises(TrainingDiverged):
        retrain(store, a, **FIT)
    assert all(torch.isfinite(value).all() for value in weights(a))


def test_training_that_is_interrupted_leaves_the_weights_as_they_were(store: SampleStore) -> None:
    class Interrupted(ForeignAgent):
        def train_supervised(self, *args: Any, **options: Any) -> None:
            super().train_supervised(*args, **options)
            raise KeyboardInterrupt

    store.record(["s1", "s2"], [1.0, 2.0])
    a = Interrupted()
    before = weights(a)
    with pytest.raises(KeyboardInterrupt):
        retrain(store, a, **FIT)
    assert same(before, weights(a))


# -- labels that are hard to learn from ------------------------------------------------------------


def test_labels_that_are_all_equal_are_learned(store: SampleStore) -> None:
    store.record(rows(60)[0], np.full(60, 0.5))
    version = retrain(store, agent(), **FIT, percent_test=0.3)
    assert version is not None
    assert (version.rank_correlation, version.r2) == (None, None), (
        "undefined where all rewards are equal"
    )


def test_features_that_are_not_numbers_leave_the_predictor_alone(store: SampleStore) -> None:
    store.record(*rows(60))
    a = PredictiveAgent(
        network(), nn.functional.mse_loss, lambda samples: featurize(samples) * math.nan
    )
    before = weights(a)
    with pytest.raises(TrainingDiverged):
        retrain(store, a, **FIT)
    assert same(before, weights(a))
    assert store.predictors() == []


def test_an_agent_that_fails_in_the_middle_leaves_the_predictor_alone(store: SampleStore) -> None:
    def featurize_some(samples: list[str]) -> torch.Tensor:
        if "s50" in samples:
            raise KeyError("s50")
        return featurize(samples)

    store.record(*rows(60))
    a = PredictiveAgent(network(), nn.functional.mse_loss, featurize_some)
    before = weights(a)
    with pytest.raises(KeyError, match="s50"):
        retrain(store, a, **FIT)
    assert same(before, weights(a))
    assert store.predictors() == []


@pytest.mark.parametrize("n", [0, 1])
def test_no_rows_and_one_row_are_too_few(store: SampleStore, n: int) -> None:
    store.record(*rows(n))
    assert retrain(store, agent(), **FIT) is None
    assert store.predictors() == []
