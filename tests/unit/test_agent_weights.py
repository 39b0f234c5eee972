"""What is stored of an agent comes back, and nothing else is loaded."""

import copy
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from helpers.agents import agent, featurize, network, rows, same, weights
from sqlbuffer.errors import InvalidArgument, InvalidPayload
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.predictor.ensemble import EnsembleAgent
from sqlbuffer.predictor.weights import dump_state, load_state


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
    assert not any(
        name.startswith("optimiser.") for name in safetensors.torch.load(dump_state(one))
    )
    online_step(one)
    load_state(other, dump_state(one))
    online_step(one)
    online_step(other)
    assert same(weights(one), weights(other))
    load_state(other, dump_state(agent()))
    assert not other.opt.state_dict()["state"], "moments that are not stored are forgotten"


@pytest.mark.parametrize(
    "kind", [torch.optim.SGD, torch.optim.RMSprop, torch.optim.AdamW, torch.optim.ASGD]
)
def test_state_of_another_optimiser_comes_back(kind: type[torch.optim.Optimizer]) -> None:
    one, other = agent(), agent()
    for each in (one, other):
        each.opt = kind(
            each.model.parameters(), **({"momentum": 0.9} if kind is torch.optim.SGD else {})
        )
    one.zero_grad()
    one.predict_online(["s5", "s7"], step=0).sum().backward()
    one.step()
    load_state(other, dump_state(one))
    slots, others = one.opt.state_dict()["state"], other.opt.state_dict()["state"]
    assert slots.keys() == others.keys() != set()
    for number, slot in slots.items():
        assert slot.keys() == others[number].keys()
        assert all(
            torch.equal(torch.as_tensor(slot[name]), torch.as_tensor(others[number][name]))
            for name in slot
        )


def test_state_of_tied_and_transposed_weights_comes_back() -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(
            nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 1)
        )
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
    with pytest.raises(
        InvalidArgument, match=r"0\.weight: stored \(99, 2\) float32, model \(16, 2\) float32"
    ):
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


class Scaled(nn.Module):
    """A linear layer with a scale, which `get_extra_state` takes along."""

    def __init__(self, scale: Any) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(2, 1), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x) * self.scale
        return out

    def get_extra_state(self) -> Any:
        return self.scale

    def set_extra_state(self, state: Any) -> None:
        self.scale = state


class Changed(nn.Module):
    """A linear layer of which a function makes something else."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.change = nn.Linear(2, 1), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(self.layer(x))


def with_buffer(buffer: torch.Tensor) -> nn.Module:
    model = nn.Linear(2, 1)
    model.register_buffer("other", buffer)
    return model


def half_frozen() -> nn.Module:
    model = network()
    model[0].requires_grad_(False)  # type: ignore[index]
    return model


def embedding(**options: Any) -> nn.Module:
    return nn.Sequential(
        Changed(lambda x: x.abs().long().reshape(-1) % 5), nn.Embedding(5, 1, **options)
    )


SOUND: dict[str, Callable[[], nn.Module]] = {
    "bfloat16": lambda: network().bfloat16(),
    "float16": lambda: network().half(),
    "float64": lambda: network().double(),
    "half frozen": half_frozen,
    "embedding": embedding,
    "scale as a tensor": lambda: Scaled(torch.tensor([3.0])),
    "buffers": lambda: with_buffer(torch.arange(3).bool()),
    "complex inside": lambda: Changed(lambda x: torch.complex(x, x).abs()),
    "complex weights": lambda: with_buffer(torch.ones(2, dtype=torch.complex64)),
    "batch norm": lambda: network(nn.BatchNorm1d(16)),
}


@pytest.mark.parametrize("make", SOUND.values(), ids=SOUND.keys())
def test_what_is_stored_and_loaded_predicts_the_same(make: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng():
        models = [make() for _ in range(3)]
        one, other = (
            PredictiveAgent(model, nn.functional.mse_loss, featurize) for model in models[:2]
        )
        many = EnsembleAgent(
            [copy.deepcopy(models[0]), models[2]], nn.functional.mse_loss, featurize
        )
    samples, rewards = rows(40)
    one.update_dataset_from_inputs(samples, rewards)
    one.train_supervised(8, 2, 1e-2)
    one.zero_grad()
    one.predict_online(samples, step=0).sum().backward()
    one.step()
    load_state(other, dump_state(one))
    assert dump_state(other) == dump_state(one)
    np.testing.assert_array_equal(
        other.predict_data(samples).numpy(), one.predict_data(samples).numpy()
    )
    mean, deviation = many.predict_distribution(samples)
    assert mean.numpy().shape == deviation.numpy().shape == (40,)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a dict as extra state": (
        lambda: Scaled({"by": 3.0}),
        r"_extra_state .* \{'by': 3\.0\}, not a tensor: give",
    ),
    "a number as extra state": (
        lambda: nn.Sequential(Scaled(3.0)),
        r"0\._extra_state .* 3\.0, not a tensor",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(1)),
        r"0\.weight .* not initialised yet: call the model once",
    ),
    "lazy buffers": (
        lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyBatchNorm1d()),
        "not initialised yet",
    ),
    "meta": (lambda: nn.Linear(2, 1, device="meta"), "on the meta device"),
    "sparse": (lambda: with_buffer(torch.eye(2).to_sparse()), "other .* a sparse tensor"),
    "sparse rows": (lambda: with_buffer(torch.eye(2).to_sparse_csr()), "other .* a sparse tensor"),
    "complex numbers of 32 bits": (
        lambda: with_buffer(torch.ones(2, dtype=torch.complex32)),
        "of type complex32",
    ),
    "sparse gradients": (lambda: embedding(sparse=True), "1 has sparse gradients.*sparse=False"),
    "frozen": (
        lambda: network().requires_grad_(False),
        "frozen parameters only, and nothing to train",
    ),
    "no parameters": (lambda: nn.Flatten(), "no parameters, and nothing to train"),
    "eight bits": (
        lambda: nn.Linear(2, 1).to(torch.float8_e4m3fn),
        "float8_e4m3fn, which cannot be trained",
    ),
    "optimiser": (
        lambda: nn.ModuleDict({"optimiser": nn.Linear(2, 1)}),
        r"optimiser\.weight has the name",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning", "ignore:ComplexHalf:UserWarning")
@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_model_that_would_not_come_back_is_refused_when_the_agent_is_made(
    make: Callable[[], nn.Module], reason: str
) -> None:
    with torch.random.fork_rng():
        model, sound = make(), network()
        with pytest.raises(InvalidArgument, match=reason):
            PredictiveAgent(model, nn.functional.mse_loss, featurize)
        with pytest.raises(InvalidArgument, match=reason):
            EnsembleAgent([sound, model], nn.functional.mse_loss, featurize)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda x: torch.complex(x, x),
            r"complex numbers \(torch\.complex64\): .* output\.real or output\.abs",
        ),
        (lambda x: (x > 0).long(), "no gradient to learn from"),
        (lambda x: x.detach(), "no gradient to learn from"),
    ],
)
def test_predictions_that_cannot_be_learned_from_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], reason: str
) -> None:
    with torch.random.fork_rng():
        one = PredictiveAgent(Changed(change), nn.functional.mse_loss, featurize)
    one.update_dataset_from_inputs(*rows(10))
    for act in (
        lambda: one.train_supervised(8, 1, 1e-2),
        lambda: one.predict_online(["s1"], step=0),
    ):
        with pytest.raises(InvalidArgument, match=reason):
            act()
    one.model.requires_grad_(False)
    with pytest.raises(InvalidArgument, match="frozen parameters only"):
        one.train_supervised(8, 1, 1e-2)


def test_the_state_of_another_agent_is_stored_whole_or_refused() -> None:
    state = {"weight": torch.ones(2), "epoch": 3}
    stateful = types.SimpleNamespace(state_dict=lambda: state)
    with pytest.raises(
        InvalidArgument, match="epoch of the model cannot be stored, because it is 3, not a tensor"
    ):
        dump_state(stateful)


def test_an_optimiser_without_momentum_has_a_state() -> None:
    one = agent()
    one.opt = torch.optim.SGD(one.model.parameters())
    one.predict_online(["s5", "s7"], step=0).sum().backward()
    one.step()
    load_state(one, dump_state(one))
