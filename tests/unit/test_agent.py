"""The predictor: scoring, training, stored state."""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from helpers.agents import agent, featurize, network, rows, same, weights
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.predictor.dataset import PredictiveDataset
from sqlbuffer.predictor.models import in_mode
from sqlbuffer.predictor.supervised import split_rows

pytestmark = pytest.mark.usefixtures("global_random_state_stays")


def taught(n: int = 200, **options: Any) -> PredictiveAgent:
    """An agent with n samples whose reward is twice their number."""
    made = agent(nn.Dropout(0.1), **options)
    made.update_dataset_from_inputs(*rows(n))
    return made


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


@pytest.mark.parametrize(
    "features", [lambda samples: torch.ones(1, 2), lambda samples: np.ones((len(samples), 2))]
)
def test_features_of_the_wrong_shape_are_refused(features: Callable[[list[Any]], Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"featurize must return a Tensor \(2, ...\)"):
        PredictiveDataset(features, ["s1", "s2"]).tensors()


def test_features_come_to_the_precision_of_the_model() -> None:
    one, other = (
        agent(),
        PredictiveAgent(
            network(), nn.functional.mse_loss, lambda samples: featurize(samples).double()
        ),
    )
    samples, rewards = rows(20)
    for each in (one, other):
        each.update_dataset_from_inputs(samples, rewards)
        each.train_supervised(8, 2, 1e-2)
    assert torch.equal(one.predict_data(samples), other.predict_data(samples))


def test_indices_stay_what_they_are() -> None:
    with torch.random.fork_rng():
        letters = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 1))
    made = PredictiveAgent(
        letters,
        nn.functional.mse_loss,
        lambda samples: torch.ones(len(samples), 3, dtype=torch.int64),
    )
    assert made.predict_data(["a", "b"]).shape == (2,)


def test_a_loss_given_as_a_class_is_refused() -> None:
    with pytest.raises(
        InvalidArgument, match=r"the class MSELoss: give an object of it, MSELoss\(\)"
    ):
        PredictiveAgent(network(), nn.MSELoss, featurize)


def test_rewards_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="3 samples came with rewards of shape"):
        agent().update_dataset_from_inputs(["s1", "s2", "s3"], [1.0, 2.0])


def test_features_are_made_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlbuffer.predictor.dataset.CHUNK", 4)
    sizes: list[int] = []
    dataset = PredictiveDataset(
        lambda samples: (sizes.append(len(samples)), featurize(samples))[1], *rows(10)
    )
    assert torch.equal(dataset.tensors()[0], featurize(rows(10)[0]))
    assert sizes == [4, 4, 2]


def test_training_learns() -> None:
    a = taught()
    metrics = a.train_supervised(32, 30, 1e-2, 0.1)
    assert metrics["valid_loss"] < 0.05
    assert metrics["valid_rank_correlation"] > 0.95
    assert set(metrics) == {
        "train_loss",
        "valid_loss",
        "valid_rank_correlation",
        "epochs",
        "seconds",
    }
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


def test_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    a = taught()
    losses, after_epoch = iter([3.0, 1.0, math.nan, 2.0]), []

    def validate(*_: Any) -> dict[str, float]:
        after_epoch.append(weights(a))
        return {"valid_loss": next(losses), "valid_rank_correlation": 0.5}

    monkeypatch.setattr("sqlbuffer.predictor.supervised.validate", validate)
    metrics = a.train_supervised(8, 4, 1e-2)
    assert (metrics["valid_loss"], metrics["epochs"]) == (1.0, 4)
    assert [same(epoch, weights(a)) for epoch in after_epoch] == [False, True, False, False]


def test_training_stops_when_it_gets_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    a = taught()
    losses = iter([3.0, 1.0, 2.0, 2.0, 0.0])
    monkeypatch.setattr(
        "sqlbuffer.predictor.supervised.validate",
        lambda *_: {"valid_loss": next(losses), "valid_rank_correlation": 0.5},
    )
    metrics = a.train_supervised(8, 5, 1e-2, patience=2)
    assert (metrics["valid_loss"], metrics["epochs"]) == (1.0, 4)
    with pytest.raises(InvalidArgument, match="patience must be 1 or more"):
        a.train_supervised(8, 5, 1e-2, patience=0)


def test_without_held_out_rows_the_last_epoch_is_kept() -> None:
    metrics = taught(5).train_supervised(2, 2, 1e-3, 0.0)
    assert math.isfinite(metrics["train_loss"])
    assert math.isnan(metrics["valid_loss"])


@pytest.mark.parametrize("n", [1, 2, 3, 5, 33])
def test_training_copes_with_few_and_odd_numbers_of_rows(n: int) -> None:
    a = agent(*([nn.BatchNorm1d(16)] if n > 2 else []))
    a.update_dataset_from_inputs(*rows(n))
    assert math.isfinite(a.train_supervised(4, 2, 1e-3)["train_loss"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 1, 1e-3, 0.1), "bs must be 1 or more; got 0"),
        ((1, 0, 1e-3, 0.1), "epochs must be 1 or more; got 0"),
        ((1, 1, -1e-3, 0.1), "lr must be a learning rate, 0 or more and 1e30 at most; got -0.001"),
        ((1, 1, 1e-3, 1.0), "percent_valid must be in .*; got 1.0"),
        ((1, 1, 1e-3, -0.1), "percent_valid must be in .*; got -0.1"),
    ],
)
def test_training_refuses_bad_arguments(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        taught(5).train_supervised(*arguments)


@pytest.mark.parametrize("n_steps", range(1, 12))
def test_the_learning_rate_is_reached_in_however_few_steps(n_steps: int) -> None:
    """A step of Adam is as long as the learning rate: a schedule that begins past its peak would
    hardly move.
    """
    made = agent()
    made.update_dataset_from_inputs(rows(4 * n_steps)[0], [5.0] * (4 * n_steps))
    before = [parameter.detach().clone() for parameter in made.model.parameters()]
    made.train_supervised(4, 1, 0.01, percent_valid=0.0)
    moved = max(
        float((a.detach() - b).abs().max())
        for a, b in zip(made.model.parameters(), before, strict=True)
    )
    assert moved > 0.008


def test_betas_given_to_the_optimiser_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *args: (seen.append(self.param_groups[0]["betas"]), step(self, *args))[1],
    )
    for opt_kwargs in ({"betas": (0.5, 0.9)}, {}):
        made = agent(opt_kwargs=opt_kwargs)
        made.update_dataset_from_inputs(*rows(40))
        made.train_supervised(4, 2, 0.01)
    half = len(seen) // 2
    assert set(seen[:half]) == {(0.5, 0.9)}
    assert len(set(seen[half:])) > 1, "by default the schedule moves them"


@pytest.mark.slow
@pytest.mark.parametrize("n", range(2, 12))
@pytest.mark.parametrize("bs", [2, 3, 5])
def test_batch_norm_trains_on_any_number_of_rows(n: int, bs: int) -> None:
    made = agent(nn.BatchNorm1d(16))
    made.update_dataset_from_inputs(*rows(n))
    assert math.isfinite(made.train_supervised(bs, 2, 0.01, percent_valid=0.0)["train_loss"])


@pytest.mark.parametrize(("n", "bs"), [(1, 4), (3, 1)])
def test_batch_norm_on_single_rows_is_refused(n: int, bs: int) -> None:
    made = agent(nn.BatchNorm1d(16))
    made.update_dataset_from_inputs(*rows(n))
    with pytest.raises(InvalidArgument, match=f"batch norm .*there are {n} rows and bs={bs}"):
        made.train_supervised(bs, 2, 0.01, percent_valid=0.0)


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
def test_progress_is_shown_on_a_terminal_when_asked(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    console = Console(file=io.StringIO(), force_terminal=is_terminal)
    monkeypatch.setattr("sqlbuffer.predictor.supervised.get_console", lambda: console)
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


class Stored(list):
    """Rows as a database gives them: by place, read in parts."""

    def __init__(self, n: int) -> None:
        super().__init__(rows(n)[0])
        self.places = np.random.default_rng(0).random(n)
        self.asked: list[int] = []

    def take(self, wanted: Any) -> list[str]:
        self.asked.append(len(wanted))
        return [self[i] for i in wanted.tolist()]


@pytest.mark.parametrize("cache_bytes", [0, 2**28], ids=["streamed", "cached"])
def test_what_does_not_fit_is_read_in_parts_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, cache_bytes: int
) -> None:
    monkeypatch.setattr("sqlbuffer.predictor.dataset.CHUNK", 32)
    trained = []
    for limit in (cache_bytes, 2**28):
        monkeypatch.setattr("sqlbuffer.predictor.dataset.CACHE_BYTES", limit)
        stored, a = Stored(200), agent(nn.Dropout(0.1))
        a.update_dataset_from_inputs(stored, rows(200)[1])
        a.train_supervised(16, 3, 1e-2, 0.1)
        trained.append(weights(a))
        assert max(stored.asked) <= 32 + 16
        assert (sum(stored.asked) > 3 * 200) == (limit == 0)
    assert same(*trained)


def test_rows_with_places_are_held_out_by_them() -> None:
    a = agent()
    stored = Stored(50)
    a.update_dataset_from_inputs(stored, rows(50)[1])
    train, valid = split_rows(a.dataset, 0.3, torch.Generator())
    assert valid.tolist() == np.flatnonzero(stored.places < 0.3).tolist()
    assert sorted(train.tolist() + valid.tolist()) == list(range(50))
    stored.places[:] = 0.0
    train, valid = split_rows(a.dataset, 0.3, torch.Generator())
    assert (len(train), len(valid)) == (50, 0), "where all would be held out, none is"


class Unstored(nn.Module):
    """A buffer that `state_dict` leaves out, and that training changes or does not."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.linear = nn.Linear(2, 1)
        self.register_buffer("seen", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.how == "in place":
            self.seen += 1
        elif self.training and self.how == "another":
            self.seen = self.seen + 1
        elif self.training and self.how == "grows":
            self.seen = torch.zeros(len(self.seen) + 1)
        return self.linear(x) + self.seen[0]


@pytest.mark.parametrize("how", ["in place", "another", "grows", "constant"])
def test_what_is_not_stored_may_not_be_trained(how: str) -> None:
    """A loaded model would predict otherwise than the one that was stored."""
    with torch.random.fork_rng():
        made = PredictiveAgent(nn.Sequential(Unstored(how)), nn.functional.mse_loss, featurize)
    made.update_dataset_from_inputs(*rows(20))
    if how in ("grows", "constant"):
        assert made.train_supervised(8, 2, 1e-3)["epochs"] == 2
        return
    with pytest.raises(InvalidArgument, match=r"changes the buffer 0\.seen, .* persistent=True"):
        made.train_supervised(8, 2, 1e-3)
    assert made.model[0].seen.tolist() == [0.0, 0.0]  # type: ignore[index]


@pytest.mark.parametrize(
    "output",
    [
        lambda x: (x, x),
        lambda x: {"y": x},
        lambda x: None,
        lambda x: x.detach().numpy(),
        lambda x: 1.0,
    ],
)
def test_what_is_no_tensor_is_no_prediction(output: Callable[[Tensor], Any]) -> None:
    class Model(nn.Linear):
        def forward(self, input: Tensor) -> Any:
            return output(super().forward(input))

    with torch.random.fork_rng():
        made = PredictiveAgent(Model(2, 1), nn.functional.mse_loss, featurize)
    made.update_dataset_from_inputs(*rows(20))
    for use in (lambda: made.predict_data(["s1", "s2"]), lambda: made.train_supervised(8, 1, 1e-3)):
        with pytest.raises(
            InvalidArgument, match=r"it must return a tensor of one number for each sample"
        ):
            use()


def test_parameters_that_share_their_memory_are_refused() -> None:
    with torch.random.fork_rng():
        model = nn.Linear(2, 1)
    model.weight = nn.Parameter(torch.zeros(1, 1).expand(1, 2))
    with pytest.raises(InvalidArgument, match=r"weight share their memory.*clone\(\)"):
        PredictiveAgent(model, nn.functional.mse_loss, featurize)
