"""The predictor: scoring, training, stored state."""

import io
import logging
import math
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import scipy.stats
import torch
from rich.console import Console
from torch import Tensor, nn

from sqlbuffer.errors import InvalidArgument, InvalidPayload
from sqlbuffer.predictor import (
    PredictiveAgent,
    PredictiveDataset,
    dump_state,
    in_mode,
    load_state,
    rank_correlation,
    retrain,
)
from sqlbuffer.store import SampleStore


def featurize(samples: list[str]) -> Tensor:
    """Two features of samples named `s<number>`."""
    numbers = torch.tensor([float(sample[1:]) for sample in samples])
    return torch.stack([numbers / 100, torch.ones_like(numbers)], dim=1)


def network(*layers: nn.Module, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), *layers, nn.Linear(16, 1))


def agent(*layers: nn.Module, **options: Any) -> PredictiveAgent:
    return PredictiveAgent(network(*layers), nn.functional.mse_loss, featurize, **options)


def taught(n: int = 200, **options: Any) -> PredictiveAgent:
    """An agent with n samples whose reward is twice their number."""
    made = agent(nn.Dropout(0.1), **options)
    made.update_dataset_from_inputs(*rows(n))
    return made


def rows(n: int) -> tuple[list[str], np.ndarray]:
    return [f"s{i}" for i in range(n)], np.arange(n) * 0.02


def weights(of: Any) -> list[Tensor]:
    return [value.clone() for value in of.model.state_dict().values()]


def same(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.fixture(autouse=True)
def _global_random_state_stays() -> Iterator[None]:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_predictions_are_one_number_a_sample() -> None:
    a = agent()
    assert a.predict_data(["s1", "s2", "s3"]).shape == (3,)
    assert a.predict_data(["s1"]).shape == (1,)
    assert a.predict_data([]).shape == (0,)
    assert not a.predict_data(["s1"]).requires_grad
    assert a.predict_data(np.array(["s1", "s2"], dtype=object)).shape == (2,)


def test_predictions_in_chunks_are_the_same() -> None:
    a, (samples, _) = agent(), rows(10)
    assert torch.allclose(a.predict_data_batch(samples, 3), a.predict_data(samples))
    assert a.predict_data_batch([], 3).shape == (0,)


def test_scoring_is_done_in_evaluation_mode_and_every_mode_put_back() -> None:
    a = agent(nn.Dropout(0.9), nn.BatchNorm1d(16))
    a.model.train()
    a.model[3].eval()  # frozen by its owner
    first, second = a.predict_data(["s1", "s2"]), a.predict_data(["s1", "s2"])
    assert torch.equal(first, second)
    assert [module.training for module in a.model] == [True, True, True, False, True]


def test_modes_come_back_after_an_exception() -> None:
    model = network(nn.Dropout())
    with pytest.raises(ZeroDivisionError), in_mode(model, training=False):
        _ = 1 / 0
    assert all(module.training for module in model.modules())


def test_a_model_of_the_wrong_shape_is_refused() -> None:
    with torch.random.fork_rng():
        a = PredictiveAgent(nn.Linear(2, 3), nn.functional.mse_loss, featurize)
    with pytest.raises(InvalidArgument, match=r"\(2, 3\) of features \(2, 2\)"):
        a.predict_data(["s1", "s2"])


@pytest.mark.parametrize("features", [lambda samples: torch.ones(1, 2), lambda samples: np.ones((len(samples), 2))])
def test_features_of_the_wrong_shape_are_refused(features: Callable[[list[Any]], Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"featurize must return a Tensor \(2, ...\)"):
        PredictiveDataset(features, ["s1", "s2"]).tensors()


def test_rewards_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="3 samples came with rewards of shape"):
        agent().update_dataset_from_inputs(["s1", "s2", "s3"], [1.0, 2.0])


def test_features_are_made_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlbuffer.predictor.CHUNK", 4)
    sizes: list[int] = []
    dataset = PredictiveDataset(lambda samples: (sizes.append(len(samples)), featurize(samples))[1], *rows(10))
    assert torch.equal(dataset.tensors()[0], featurize(rows(10)[0]))
    assert sizes == [4, 4, 2]


def test_training_learns() -> None:
    a = taught()
    metrics = a.train_supervised(32, 30, 1e-2, 0.1)
    assert metrics["valid_loss"] < 0.05
    assert metrics["valid_rank_correlation"] > 0.95
    assert set(metrics) == {"train_loss", "valid_loss", "valid_rank_correlation", "seconds"}
    assert all(module.training for module in a.model.modules())


def test_training_on_the_same_rows_gives_the_same_weights() -> None:
    one, other = taught(), taught()
    one.train_supervised(16, 3, 1e-2)
    torch.rand(3, generator=torch.Generator())
    other.train_supervised(16, 3, 1e-2)
    assert same(weights(one), weights(other))
    different = taught(seed=1)
    different.train_supervised(16, 3, 1e-2)
    assert not same(weights(one), weights(different))


def test_the_best_epoch_is_kept() -> None:
    a = taught()
    losses, after_epoch = iter([3.0, 1.0, math.nan, 2.0]), []

    def validate(*_: Any) -> dict[str, float]:
        after_epoch.append(weights(a))
        return {"valid_loss": next(losses), "valid_rank_correlation": 0.5}

    a._validate = validate
    assert a.train_supervised(8, 4, 1e-2)["valid_loss"] == 1.0
    assert [same(epoch, weights(a)) for epoch in after_epoch] == [False, True, False, False]


def test_without_held_out_rows_the_last_epoch_is_kept() -> None:
    metrics = taught(5).train_supervised(2, 2, 1e-3, 0.0)
    assert math.isfinite(metrics["train_loss"])
    assert math.isnan(metrics["valid_loss"])


@pytest.mark.parametrize("n", [1, 2, 3, 5, 33])
def test_training_copes_with_few_and_odd_numbers_of_rows(n: int) -> None:
    a = agent(*([nn.BatchNorm1d(16)] if n > 2 else []))
    a.update_dataset_from_inputs(*rows(n))
    assert math.isfinite(a.train_supervised(4, 2, 1e-3)["train_loss"])


@pytest.mark.parametrize("arguments", [(0, 1, 1e-3, 0.1), (1, 0, 1e-3, 0.1), (1, 1, 1e-3, 1.0), (1, 1, 1e-3, -0.1)])
def test_training_refuses_bad_arguments(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidArgument, match="bs and epochs must be 1 or more"):
        taught(5).train_supervised(*arguments)


def test_training_on_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="the dataset is empty"):
        agent().train_supervised(1, 1, 1e-3)


def test_gradients_are_clipped() -> None:
    a = agent(clip=0.5)
    a.zero_grad()
    (a.predict_online(["s100"], step=0).sum() * 1e6).backward()
    a.before_step()
    norm = torch.stack([parameter.grad.norm() for parameter in a.model.parameters()]).norm()
    assert norm <= 0.5 + 1e-4


def test_diverged_training_leaves_the_weights_as_they_were() -> None:
    a = taught()
    a.loss_function = lambda predictions, rewards: (predictions - rewards).mean() * math.nan
    before = weights(a)
    assert math.isnan(a.train_supervised(16, 2, 1e-2)["train_loss"])
    assert same(before, weights(a))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_on_a_terminal_when_asked(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal)
    monkeypatch.setattr("sqlbuffer.predictor.get_console", lambda: console)
    taught(20, name="scout").train_supervised(4, 2, 1e-3)
    assert console.file.getvalue() == ""
    taught(20, name="scout").train_supervised(4, 2, 1e-3, silent=False)
    assert ("scout" in console.file.getvalue()) == is_terminal


def test_online_predictions_have_a_gradient_and_randomness_of_their_own() -> None:
    a = agent(nn.Dropout(0.5))
    first, again, later = (a.predict_online(["s1", "s2"], step=step) for step in (3, 3, 4))
    assert first.requires_grad
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_agrees_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 30), rng.normal(size=30)
    assert rank_correlation(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)


def test_rank_correlation_of_constants_is_undefined() -> None:
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


# -- stored state -----------------------------------------------------------------------------------------------------


def test_state_comes_back() -> None:
    one, other = agent(nn.BatchNorm1d(16)), agent(nn.BatchNorm1d(16))
    one.update_dataset_from_inputs(*rows(40))
    one.train_supervised(8, 2, 1e-2)
    load_state(other, dump_state(one))
    assert same(weights(one), weights(other))


def test_state_has_the_optimiser_once_it_has_stepped() -> None:
    def online_step(a: PredictiveAgent) -> None:
        a.zero_grad()
        a.predict_online(["s5", "s7"], step=0).sum().backward()
        a.before_step()
        a.step()

    one, other = agent(), agent()
    assert not any(name.startswith("optimiser.") for name in safetensors.torch.load(dump_state(one)))
    online_step(one)
    load_state(other, dump_state(one))
    online_step(one)
    online_step(other)
    assert same(weights(one), weights(other))
    load_state(other, dump_state(agent()))
    assert not other.opt.state_dict()["state"], "moments that are not stored are forgotten"


def test_state_of_tied_and_transposed_weights_comes_back() -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 1))
        model[1].weight = model[0].weight
        model[2].weight = nn.Parameter(torch.ones(1, 2).t().contiguous().t())
        return model

    with torch.random.fork_rng():
        one, other = (PredictiveAgent(tied(), nn.functional.mse_loss, featurize) for _ in range(2))
    load_state(other, dump_state(one))
    assert same(weights(one), weights(other))


def test_state_of_another_model_is_refused_with_both_shapes() -> None:
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Linear(2, 99), nn.ReLU(), nn.Linear(99, 1))
    wide = PredictiveAgent(model, nn.functional.mse_loss, featurize)
    with pytest.raises(InvalidArgument, match=r"0\.weight: stored \(99, 2\), model \(16, 2\)"):
        load_state(agent(), dump_state(wide))
    with pytest.raises(InvalidArgument, match=r"3\.weight: stored None, model \(1, 16\)"):
        load_state(agent(nn.Identity()), dump_state(agent()))


def test_what_is_not_safetensors_is_refused() -> None:
    with pytest.raises(InvalidPayload, match="not safetensors"):
        load_state(agent(), b"\x80\x04 pickled")


def test_any_object_with_a_model_or_with_nothing_has_a_state() -> None:
    one, other = (types.SimpleNamespace(model=network(seed=seed)) for seed in range(2))
    load_state(other, dump_state(one))
    assert same(weights(one), weights(other))
    load_state(object(), dump_state(object()))


# -- retraining -------------------------------------------------------------------------------------------------------

FIT = {"bs": 16, "epochs": 5, "lr": 1e-2}


def test_retraining_stores_a_version_with_its_metrics(store: SampleStore) -> None:
    samples, rewards = rows(60)
    rewards[7] = math.nan
    store.record(samples, rewards)
    a = agent()
    version = retrain(store, a, **FIT, percent_valid=0.25)
    newest = store.newest_predictor()
    assert version is not None
    assert newest is not None
    assert version == newest
    assert version.rows_trained == 59
    assert version.valid_loss is not None
    assert set(version.metrics) == {"valid_rank_correlation", "seconds"}
    other = agent()
    load_state(other, version.state)
    assert same(weights(a), weights(other))


def test_retraining_without_enough_rows_does_nothing(store: SampleStore, caplog: pytest.LogCaptureFixture) -> None:
    store.record(["s1"], [1.0])
    a = agent()
    before = weights(a)
    with caplog.at_level(logging.INFO, "sqlbuffer"):
        assert retrain(store, a, **FIT) is None
    assert "1 labelled rows, at least 2" in caplog.text
    assert store.newest_predictor() is None
    assert same(before, weights(a))


def test_retraining_that_diverges_keeps_the_old_predictor(store: SampleStore, caplog: pytest.LogCaptureFixture) -> None:
    store.record(*rows(30))
    a = agent()
    a.loss_function = lambda predictions, rewards: (predictions - rewards).mean() / 0.0
    before = weights(a)
    assert retrain(store, a, **FIT) is None
    assert "diverged" in caplog.text
    assert store.newest_predictor() is None
    assert same(before, weights(a))


class ForeignAgent:
    """The methods that are asked for, with a training that says nothing and may go wrong."""

    def __init__(self, *, fails: bool = False) -> None:
        self.model = network()
        self.fails = fails
        self.trained_on: list[Any] = []

    def update_dataset_from_inputs(self, samples: Any, rewards: Any) -> None:
        self.trained_on = list(zip(samples, rewards, strict=True))

    def train_supervised(self, bs: int, epochs: int, lr: float, silent: bool = False) -> None:
        with torch.no_grad():
            self.model[0].weight.fill_(math.nan if self.fails else 1.0)


def test_any_object_with_the_methods_can_be_retrained(store: SampleStore) -> None:
    store.record(["s1", "s2"], [1.0, 2.0])
    a = ForeignAgent()
    version = retrain(store, a, **FIT)
    assert a.trained_on == [("s1", 1.0), ("s2", 2.0)]
    assert version is not None
    assert version.train_loss is None
    assert "0.weight" in safetensors.torch.load(version.state)


def test_weights_that_are_not_finite_are_not_stored(store: SampleStore) -> None:
    store.record(["s1", "s2"], [1.0, 2.0])
    a = ForeignAgent(fails=True)
    assert retrain(store, a, **FIT) is None
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
