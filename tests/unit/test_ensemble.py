"""Where uncertainty comes from: dropout with one mask for all rows, and the disagreement of an
ensemble.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sqlbuffer.errors import InvalidArgument
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.predictor.dropout import one_function
from sqlbuffer.predictor.ensemble import EnsembleAgent
from sqlbuffer.predictor.weights import dump_state, load_state
from sqlbuffer.retraining.train import retrain
from sqlbuffer.store import SampleStore


def featurize(samples: list[str]) -> Tensor:
    numbers = torch.tensor([float(sample[1:]) for sample in samples])
    return torch.stack([numbers / 100, torch.ones_like(numbers)], dim=1)


def rows(n: int) -> tuple[list[str], np.ndarray]:
    return [f"s{i}" for i in range(n)], np.arange(n) * 0.02


def network(*layers: nn.Module, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), *layers, nn.Linear(16, 1))


def agent(*layers: nn.Module, **options: Any) -> PredictiveAgent:
    return PredictiveAgent(network(*layers), nn.functional.mse_loss, featurize, **options)


def ensemble(n: int = 3, *, start: int = 0, **options: Any) -> EnsembleAgent:
    return EnsembleAgent(
        [network(seed=start + i) for i in range(n)], nn.functional.mse_loss, featurize, **options
    )


@pytest.fixture(autouse=True)
def _global_random_state_stays() -> Iterator[None]:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    yield
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


# -- dropout ---------------------------------------------------------------------------------------


def test_a_draw_of_dropout_is_one_function() -> None:
    a, (samples, _) = agent(nn.Dropout(0.5)), rows(20)
    draws = a.predict_samples(samples, 6, step=3)
    assert draws.shape == (6, 20)
    assert not draws.requires_grad
    parts = [
        a.predict_samples(part, 6, step=3) for part in (samples[:1], samples[1:9], samples[9:])
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), draws)
    torch.testing.assert_close(a.predict_samples(samples, 2, step=3), draws[:2])
    assert not torch.allclose(draws[0], draws[1])
    assert not torch.allclose(a.predict_samples(samples, 6, step=4), draws)
    assert not torch.allclose(
        agent(nn.Dropout(0.5), seed=1).predict_samples(samples, 6, step=3), draws
    )


def test_a_draw_has_the_weights_of_the_units_that_are_kept() -> None:
    a = agent(nn.Dropout(0.25))
    (first, relu, _, last), x = a.model, featurize(["s1", "s70"])
    hidden = relu(first(x))
    made = a.predict_samples(["s1", "s70"], 400)
    # Each unit is dropped with p and the others scaled up: the mean over masks is the network
    # without dropout.
    contributions = hidden * last.weight / 0.75
    variance = (contributions**2 * 0.25 * 0.75).sum(dim=1)
    torch.testing.assert_close(made.var(dim=0), variance, rtol=0.3, atol=0.0)
    error = (made.mean(dim=0) - a.predict_data(["s1", "s70"])).abs()
    assert (error < 4.0 * (variance / 400).sqrt()).all()


def test_the_distribution_is_the_prediction_and_the_spread_of_the_draws() -> None:
    a, (samples, _) = agent(nn.Dropout(0.5), n_draws=7), rows(9)
    mean, std = a.predict_distribution(samples)
    assert torch.equal(mean, a.predict_data(samples))
    torch.testing.assert_close(std, a.predict_samples(samples, 7).std(dim=0, correction=0))
    assert (std > 0).all()


def test_no_samples_have_an_empty_distribution() -> None:
    for a in (agent(nn.Dropout(0.5)), ensemble()):
        assert [part.shape for part in a.predict_distribution([])] == [(0,), (0,)]
        assert a.predict_samples([], 4).shape == (4, 0)


def test_dropout_alone_acts_and_every_mode_comes_back() -> None:
    a, (samples, _) = agent(nn.BatchNorm1d(16), nn.Dropout(0.5)), rows(8)
    a.model.train()
    a.model[2].eval()  # frozen by its owner
    running = a.model[2].running_mean.clone()
    draws = a.predict_samples(samples, 2)
    torch.testing.assert_close(a.predict_samples(samples[:1], 2), draws[:, :1])
    assert [module.training for module in a.model] == [True, True, False, True, True]
    assert torch.equal(a.model[2].running_mean, running)
    assert not any(module._forward_hooks for module in a.model)
    a.model[4].forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        a.predict_samples(samples, 2)
    assert not any(module._forward_hooks for module in a.model)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Dropout(inplace=True), (3, 50)),
        (nn.Dropout1d(), (3, 50, 4)),
        (nn.Dropout2d(), (3, 50, 4, 4)),
    ],
)
def test_dropout_of_every_kind_has_one_mask(module: nn.Module, shape: tuple[int, ...]) -> None:
    with torch.random.fork_rng(), one_function(module.eval()):
        masked = module(torch.ones(shape))
    assert torch.equal(masked, masked[:1].expand(shape))
    assert set(masked.unique().tolist()) == {0.0, 2.0}
    if len(shape) > 2:
        assert torch.equal(masked, masked[..., :1].expand(shape)) or len(shape) == 4
    assert not module.training


def test_at_least_two_draws_make_a_spread() -> None:
    with pytest.raises(InvalidArgument, match="n_draws must be 2 or more"):
        agent(n_draws=1)


# -- an ensemble -----------------------------------------------------------------------------------


def test_an_ensemble_predicts_the_mean_and_the_disagreement() -> None:
    e, (samples, _) = ensemble(), rows(12)
    alone = [
        PredictiveAgent(model, e.loss_function, featurize).predict_data(samples)
        for model in e.model.members
    ]
    each = torch.stack(alone)
    mean, std = e.predict_distribution(samples)
    torch.testing.assert_close(e.predict_data(samples), each.mean(dim=0))
    torch.testing.assert_close(mean, each.mean(dim=0))
    torch.testing.assert_close(std, each.std(dim=0, correction=0))
    draws = e.predict_samples(samples, 60, step=2)
    assert torch.equal(draws, e.predict_samples(samples, 60, step=2))
    chosen = [[i for i in range(3) if torch.allclose(draw, each[i])] for draw in draws]
    assert {i for (i,) in chosen} == {0, 1, 2}


@pytest.mark.slow
def test_members_agree_where_there_are_labels_and_less_where_there_are_none() -> None:
    e = ensemble(5)
    e.update_dataset_from_inputs(*rows(100))
    metrics = e.train_supervised(16, 30, 1e-2)
    assert metrics["valid_rank_correlation"] > 0.9
    _, std = e.predict_distribution(["s50", "s2000"])
    assert std[1] > 5 * std[0]


def test_each_member_is_trained_as_an_agent_alone() -> None:
    e = ensemble(seed=4)
    e.update_dataset_from_inputs(*rows(50))
    metrics = e.train_supervised(8, 2, 1e-2, 0.2)
    states = [
        torch.cat([value.ravel() for value in model.state_dict().values()])
        for model in e.model.members
    ]
    found = []
    for number in range(3):
        alone = ensemble(seed=4)._alone(number)
        alone.update_dataset_from_inputs(*rows(50))
        found.append(alone.train_supervised(8, 2, 1e-2, 0.2))
        assert torch.equal(
            torch.cat([value.ravel() for value in alone.model.state_dict().values()]),
            states[number],
        )
    assert len({e._alone(number).seed for number in range(3)}) == 3
    for name in ("train_loss", "valid_loss", "valid_rank_correlation"):
        assert metrics[name] == pytest.approx(np.mean([measured[name] for measured in found]))
    assert metrics["seconds"] > 0


def test_an_ensemble_is_stored_and_comes_back(store: SampleStore) -> None:
    store.record(*rows(60))
    one, other = ensemble(), ensemble(start=10)
    assert retrain(store, one, bs=16, epochs=3, lr=1e-2) is not None
    store.load_predictor(other)
    for ours, theirs in zip(
        one.predict_distribution(rows(9)[0]), other.predict_distribution(rows(9)[0]), strict=True
    ):
        assert torch.equal(ours, theirs)
    with pytest.raises(InvalidArgument, match=r"members\.3\.0\.bias: stored None, model \(16,\)"):
        store.load_predictor(ensemble(4))


def test_an_ensemble_trains_online_too() -> None:
    def step(e: EnsembleAgent) -> None:
        e.zero_grad()
        e.predict_online(["s5", "s7"], step=0).sum().backward()
        e.before_step()
        e.step()

    one, other = ensemble(), ensemble()
    step(one)
    load_state(other, dump_state(one))
    step(one)
    step(other)
    assert torch.equal(one.predict_data(["s5"]), other.predict_data(["s5"]))


def test_one_member_that_diverges_lets_the_ensemble_diverge() -> None:
    e = ensemble()
    e.update_dataset_from_inputs(*rows(20))
    with torch.no_grad():
        e.model.members[1][0].weight.fill_(math.nan)
    assert math.isnan(e.train_supervised(8, 1, 1e-3)["train_loss"])


def test_a_member_of_the_wrong_shape_is_refused() -> None:
    with torch.random.fork_rng():
        e = EnsembleAgent([nn.Linear(2, 3), nn.Linear(2, 3)], nn.functional.mse_loss, featurize)
    with pytest.raises(InvalidArgument, match=r"\(2, 3\) of features \(2, 2\)"):
        e.predict_data(["s1", "s2"])


@pytest.mark.parametrize("models", [[], [network()], [network()] * 5])
def test_an_ensemble_of_one_is_refused(models: list[nn.Module]) -> None:
    with pytest.raises(InvalidArgument, match="2 or more models, each a separate object"):
        EnsembleAgent(models, nn.functional.mse_loss, featurize)
