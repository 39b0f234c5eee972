"""What is stored of an agent comes back, and nothing else is loaded."""

import types

import pytest
import safetensors.torch
import torch
from test_predictor import agent, featurize, network, rows, same, weights
from torch import nn

from sqlbuffer.errors import InvalidArgument, InvalidPayload
from sqlbuffer.predictor import PredictiveAgent
from sqlbuffer.state import dump_state, load_state


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


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.AdamW, torch.optim.ASGD])
def test_state_of_another_optimiser_comes_back(kind: type[torch.optim.Optimizer]) -> None:
    one, other = agent(), agent()
    for each in (one, other):
        each.opt = kind(each.model.parameters(), **({"momentum": 0.9} if kind is torch.optim.SGD else {}))
    one.zero_grad()
    one.predict_online(["s5", "s7"], step=0).sum().backward()
    one.step()
    load_state(other, dump_state(one))
    slots, others = one.opt.state_dict()["state"], other.opt.state_dict()["state"]
    assert slots.keys() == others.keys() != set()
    for number, slot in slots.items():
        assert slot.keys() == others[number].keys()
        assert all(torch.equal(torch.as_tensor(slot[name]), torch.as_tensor(others[number][name])) for name in slot)


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
    with pytest.raises(InvalidArgument, match=r"0\.weight: stored \(99, 2\) float32, model \(16, 2\) float32"):
        load_state(agent(), dump_state(wide))
    with pytest.raises(InvalidArgument, match=r"3\.weight: stored None, model \(1, 16\) float32"):
        load_state(agent(nn.Identity()), dump_state(agent()))


def test_what_is_not_safetensors_is_refused() -> None:
    with pytest.raises(InvalidPayload, match="not safetensors"):
        load_state(agent(), b"\x80\x04 pickled")


def test_any_object_with_a_model_or_with_nothing_has_a_state() -> None:
    one, other = (types.SimpleNamespace(model=network(seed=seed)) for seed in range(2))
    load_state(other, dump_state(one))
    assert same(weights(one), weights(other))
    load_state(object(), dump_state(object()))
