"""The predictor: a torch model with its loss and its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sqlbuffer._messages import shown
from sqlbuffer._validation import (
    as_mapping,
    as_name,
    is_learning_rate,
    is_part,
    require_count,
    require_flag,
    require_function,
    require_int,
    require_list,
    require_real,
)
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.predictor.dataset import PredictiveDataset
from sqlbuffer.predictor.dropout import dropouts_of, one_function
from sqlbuffer.predictor.models import (
    in_mode,
    one_number_each,
    random_stream,
    require_trainable,
    with_gradient,
)
from sqlbuffer.predictor.supervised import train
from sqlbuffer.predictor.weights import OPTIMISER, moments_from, require_storable


class PredictiveAgent:
    """A model that predicts the reward of a sample.

    Args:
        model: Maps features (n, ...) to (n,) or (n, 1) real numbers. Its parameters are dense,
            initialised and trainable. Everything that its predictions depend on is in its
            `state_dict`, as tensors.
        loss_function: `loss_function(predictions (n,), rewards (n,))` returns the loss, a scalar or
            (n,).
        dataset: A `PredictiveDataset`, or its featurize function.
        opt_kwargs: Keywords of `torch.optim.Adam`.
        clip: Largest norm of the gradient; 0 or None for no clipping.
        name: Name of the agent.
        seed: Seed of all randomness in training, dropout included. Global random state is not
            changed.
        n_draws: Draws of dropout masks for the standard deviation of `predict_distribution`, 2 or
            more.

    Attributes:
        streams: True: training can read rows from the database as it needs them.

    Raises:
        InvalidArgument: If the model cannot be trained, or cannot be stored without loss.

    Examples:
        >>> agent = PredictiveAgent(torch.nn.Linear(2, 1), loss, featurize)
        >>> agent.update_dataset_from_inputs(molecules, [len(sample) for sample in molecules])
        >>> measures = agent.train_supervised(bs=4, epochs=50, lr=0.2)
        >>> sorted(measures)
        ['epochs', 'seconds', 'train_loss', 'valid_loss', 'valid_rank_correlation']
        >>> agent.predict_data(["CCCC", "CO"]).round().tolist()
        [4.0, 2.0]
    """

    streams = True

    def __init__(
        self,
        model: nn.Module,
        loss_function: Callable[[Tensor, Tensor], Tensor],
        dataset: PredictiveDataset | Callable[[list[Any]], Tensor],
        opt_kwargs: Mapping[str, Any] | None = None,
        clip: float | None = 1.0,
        name: str = "agent",
        *,
        seed: int = 0,
        n_draws: int = 10,
    ) -> None:
        if isinstance(loss_function, type):
            kind = loss_function.__name__
            raise InvalidArgument(
                f"loss_function is the class {kind}: give an object of it, {kind}()."
            )
        rule = "n_draws must be 2 or more, because a standard deviation needs two"
        n_draws = require_count(n_draws, rule, least=2)
        if not isinstance(model, nn.Module):
            raise InvalidArgument(f"model must be a torch.nn.Module, got {shown(model)}.")
        require_trainable(model)
        require_storable(model.state_dict())
        self.model = model
        self.loss_function = require_function(
            loss_function, "loss_function must take predictions and rewards", takes=2
        )
        self.dataset: Any = dataset if hasattr(dataset, "new") else PredictiveDataset(dataset)
        self.opt_kwargs = {} if opt_kwargs is None else dict(as_mapping(opt_kwargs, "opt_kwargs"))
        self.opt = torch.optim.Adam(model.parameters(), **self.opt_kwargs)
        rule = "clip must be the largest norm of a gradient, or 0 or None for no clipping"
        self.clip = None if clip is None else require_real(clip, rule, is_norm)
        self.name = as_name(name, "the name of an agent")
        self.seed = require_int(seed, "seed must be an integer", most=None)
        self.n_draws = n_draws

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def predict_tensor(self, x: Tensor) -> Tensor:
        """Return predictions (n,) for features, with gradient, in the current mode of the model.

        Args:
            x: (n, ...) features, on the device of the model.
        """
        return one_number_each(self.model, x)

    def predict_data(self, samples: Sequence[Any]) -> Tensor:
        """Return predictions (n,) for samples, in evaluation mode and without gradient.

        Args:
            samples: n samples.
        """
        require_list(samples)
        if not len(samples):
            return torch.zeros(0, device=self.device)
        with in_mode(self.model, training=False), torch.no_grad():
            return self.predict_tensor(self.dataset.new(samples).tensors()[0])

    def predict_data_batch(self, samples: Sequence[Any], bs: int) -> Tensor:
        """Return predictions (n,) for samples, see `predict_data`, in parts that fit into memory.

        Args:
            samples: n samples.
            bs: Samples that are predicted at once.
        """
        require_list(samples)
        bs = require_count(bs, "bs must be 1 or more", least=1)
        chunks = [self.predict_data(samples[i : i + bs]) for i in range(0, len(samples), bs)]
        return torch.cat(chunks) if chunks else self.predict_data([])

    def predict_online(self, samples: Sequence[Any], *, step: int) -> Tensor:
        """Return predictions (n,) for samples, with gradient, in training mode.

        Args:
            samples: n samples.
            step: Number of the step; it selects the random numbers, such as dropout masks.
        """
        step = require_count(step, "step must be a number of steps")
        with in_mode(self.model, training=True), random_stream(self.device, self.seed, step):
            return with_gradient(
                self.predict_tensor(self.dataset.new(samples).tensors()[0]), self.model
            )

    def require_uncertainty(self) -> None:
        """Refuse a model without uncertainty.

        Raises:
            InvalidArgument: If the model has no dropout.
        """
        dropouts_of(self.model)

    def predict_distribution(self, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return the predictions (n,) for samples and their standard deviations (n,).

        The deviations are taken over `n_draws` draws of `predict_samples`, the same draws in every
        call.

        Args:
            samples: n samples.

        Raises:
            InvalidArgument: If the model has no dropout.
        """
        require_list(samples)
        if not len(samples):
            return self.predict_data([]), self.predict_data([])
        x = self.dataset.new(samples).tensors()[0]
        with in_mode(self.model, training=False), torch.no_grad():
            return self.predict_tensor(x), self._draw(x, self.n_draws, step=0).std(
                dim=0, correction=0
            )

    def predict_samples(self, samples: Sequence[Any], n_draws: int, *, step: int = 0) -> Tensor:
        """Return predictions (n_draws, n) of functions drawn from the posterior, by dropout.

        Each draw is one set of masks for all samples. A prediction does not depend on the other
        samples. The same step gives the same draws.

        Args:
            samples: n samples.
            n_draws: Number of functions.
            step: Number that selects the draws, 0 or more.

        Raises:
            InvalidArgument: If the model has no dropout.
        """
        require_list(samples)
        n_draws, step = draws_from(n_draws, step)
        if not len(samples):
            return torch.zeros(n_draws, 0, device=self.device)
        with in_mode(self.model, training=False), torch.no_grad():
            return self._draw(self.dataset.new(samples).tensors()[0], n_draws, step=step)

    def update_dataset_from_inputs(self, samples: Sequence[Any], rewards: ArrayLike) -> None:
        """Replace the samples and rewards of the dataset.

        Args:
            samples: n samples.
            rewards: (n,) floats.
        """
        self.dataset = self.dataset.new(samples, rewards)

    def state_dict(self) -> dict[str, Any]:
        """Return the model's weights, and the optimiser's moments after its first step."""
        slots = self.opt.state_dict()["state"]
        moments = {
            f"{OPTIMISER}{number}.{name}": torch.as_tensor(value)
            for number, slot in slots.items()
            for name, value in slot.items()
            if value is not None  # such as the momentum of SGD without momentum
        }
        return {**self.model.state_dict(), **moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of `state_dict`.

        Args:
            state: Tensors by name; moments that are missing are reset.

        Raises:
            InvalidArgument: If the moments do not fit the parameters; nothing is loaded.
        """
        slots = moments_from(state, self.opt)
        self.model.load_state_dict(
            {key: value for key, value in state.items() if not key.startswith(OPTIMISER)}
        )
        self.opt.load_state_dict({**self.opt.state_dict(), "state": slots})

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self.opt.zero_grad()

    def before_step(self) -> None:
        """Clip the gradients."""
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)

    def step(self) -> None:
        """Take a step of the optimiser."""
        self.opt.step()

    def train_supervised(
        self,
        bs: int,
        epochs: int,
        lr: float,
        percent_valid: float = 0.05,
        silent: bool = True,
        *,
        patience: int | None = None,
    ) -> dict[str, float]:
        """Train on the dataset, and keep the weights of the best epoch.

        The same weights and rows give the same result. If no epoch has a finite loss, the weights
        do not change, and the losses returned are NaN.

        Args:
            bs: Rows in a step. If 2 or more, no step has a single row, on which batch norm cannot
                train.
            epochs: Passes over the rows.
            lr: Highest learning rate of the one-cycle schedule; if there are less than four steps,
                too few for a cycle, the learning rate of all steps.
            percent_valid: Share of rows held out to choose the best epoch, in [0, 1); 0 keeps the
                last epoch.
            silent: False shows a progress bar on a terminal.
            patience: Epochs without improvement after which training stops; None for no limit.

        Returns:
            `train_loss`, `valid_loss` and `valid_rank_correlation` (Spearman) of the best epoch,
            the number of `epochs` trained, and `seconds`. Measures on held-out rows are NaN if
            there are too few rows.

        Raises:
            InvalidArgument: If an argument is out of range, the dataset is empty, or the model
                cannot be trained.
        """
        bs = require_count(bs, "bs must be 1 or more", least=1)
        epochs = require_count(epochs, "epochs must be 1 or more", least=1)
        lr = require_real(
            lr, "lr must be a learning rate, 0 or more and 1e30 at most", is_learning_rate
        )
        percent_valid = require_real(percent_valid, "percent_valid must be in [0, 1)", is_part)
        silent = require_flag(silent, "silent")
        if patience is not None:
            patience = require_count(
                patience, "patience must be 1 or more epochs, or None", least=1
            )
        if not len(self.dataset):
            raise InvalidArgument(
                "the dataset is empty: call update_dataset_from_inputs(samples, rewards) first."
            )
        require_trainable(self.model)
        return train(
            self,
            bs,
            epochs,
            lr,
            percent_valid=percent_valid,
            silent=silent,
            patience=patience,
        )

    def _draw(self, x: Tensor, n_draws: int, *, step: int) -> Tensor:
        """Return predictions (n_draws, n) of functions drawn by dropout, in evaluation mode."""
        draws = []
        with one_function(self.model):
            for draw in range(1, n_draws + 1):
                with random_stream(self.device, self.seed, step, draw):
                    draws.append(self.predict_tensor(x))
        return torch.stack(draws)


def is_norm(number: float) -> bool:
    """Tell whether a number is 0 or more, infinity included."""
    return number >= 0.0


def draws_from(n_draws: Any, step: Any) -> tuple[int, int]:
    """Return the number of draws and the step, checked."""
    rule = "n_draws must be a number of draws, 1 or more"
    return require_count(n_draws, rule, least=1), require_count(
        step, "step must be a number of steps"
    )
