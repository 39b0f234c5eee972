"""The predictor: a torch model with its loss and its data, and how it is trained."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from rich import get_console
from rich.markup import escape
from rich.progress import track
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
from sqlbuffer.predictor.metrics import rank_correlation
from sqlbuffer.predictor.weights import OPTIMISER, require_fit, require_storable

T = TypeVar("T")


_OF_ADAM = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of a parameter: a number, and two tensors of its shape."""


class PredictiveAgent:
    """A model that predicts the reward of a sample.

    Args:
        model: Maps features (n, ...) to (n,) or (n, 1) real numbers. It has parameters to train, dense and initialised,
            and all that its predictions depend on is in its `state_dict`, as tensors.
        loss_function: `loss_function(predictions (n,), rewards (n,))` returns the loss, a scalar or (n,).
        dataset: A `PredictiveDataset`, or the plain function that one is made from.
        opt_kwargs: Keywords of `torch.optim.Adam`.
        clip: Largest norm of the gradient; 0 or None for no clipping.
        name: Name of the agent.
        seed: Seed of what is random in training, dropout included. Global random state is left alone.
        n_draws: Draws of the dropout masks from which `predict_distribution` takes its standard deviation.

    Attributes:
        streams: It takes rows that are read from the database as they are needed.

    Raises:
        InvalidArgument: The model cannot be trained, or would not come back from storage as it is.
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
            loss_function, "loss_function must take predictions and rewards"
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
        """Where the model is."""
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def predict_tensor(self, x: Tensor) -> Tensor:
        """Return predictions (n,) for features (n, ...), with gradient, in the mode the model is in."""
        return one_number_each(self.model, x)

    def predict_data(self, samples: Sequence[Any]) -> Tensor:
        """Return predictions (n,) for samples, in evaluation mode and without gradient."""
        require_list(samples)
        if not len(samples):
            return torch.zeros(0, device=self.device)
        with in_mode(self.model, training=False), torch.no_grad():
            return self.predict_tensor(self.dataset.new(samples).tensors()[0])

    def predict_data_batch(self, samples: Sequence[Any], bs: int) -> Tensor:
        """Return predictions (n,) for samples, made `bs` at a time."""
        require_list(samples)
        bs = require_count(bs, "bs must be 1 or more", least=1)
        chunks = [self.predict_data(samples[i : i + bs]) for i in range(0, len(samples), bs)]
        return torch.cat(chunks) if chunks else self.predict_data([])

    def predict_online(self, samples: Sequence[Any], *, step: int) -> Tensor:
        """Return predictions (n,) with gradient, in training mode; `step` varies what is random in the model."""
        step = require_count(step, "step must be a number of steps")
        with in_mode(self.model, training=True), self._randomness(step):
            return _with_gradient(
                self.predict_tensor(self.dataset.new(samples).tensors()[0]), self.model
            )

    def require_uncertainty(self) -> None:
        """Refuse a model that cannot say how unsure it is.

        Raises:
            InvalidArgument: The model has no dropout.
        """
        dropouts_of(self.model)

    def predict_distribution(self, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Return the prediction (n,) for each sample, and how far it may be off, a standard deviation (n,).

        The deviation is that of `predict_samples` over `n_draws` draws, always the same ones.

        Raises:
            InvalidArgument: The model has no dropout.
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
        """Return the predictions (n_draws, n) of functions drawn from what the model believes, by its dropout.

        A draw is one set of masks for all samples, whatever others are predicted with them. The same step gives the
        same draws.

        Raises:
            InvalidArgument: The model has no dropout.
        """
        require_list(samples)
        n_draws, step = draws_from(n_draws, step)
        if not len(samples):
            return torch.zeros(n_draws, 0, device=self.device)
        with in_mode(self.model, training=False), torch.no_grad():
            return self._draw(self.dataset.new(samples).tensors()[0], n_draws, step=step)

    def update_dataset_from_inputs(self, samples: Sequence[Any], rewards: ArrayLike) -> None:
        """Take other samples and rewards to train on."""
        self.dataset = self.dataset.new(samples, rewards)

    def state_dict(self) -> dict[str, Any]:
        """Return the model's weights, and the optimiser's moments once it has taken a step."""
        slots = self.opt.state_dict()["state"]
        moments = {
            f"{OPTIMISER}{number}.{name}": torch.as_tensor(value)
            for number, slot in slots.items()
            for name, value in slot.items()
            if value is not None  # as the momentum of an SGD without one
        }
        return {**self.model.state_dict(), **moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            InvalidArgument: The moments are not those of these parameters. Nothing is taken.
        """
        moments = {key: value for key, value in state.items() if key.startswith(OPTIMISER)}
        slots: dict[int, dict[str, Tensor]] = {}
        expected: dict[str, Tensor] = {}
        parameters = (parameter for group in self.opt.param_groups for parameter in group["params"])
        for number, parameter in enumerate(parameters):
            start = f"{OPTIMISER}{number}."
            slot = {
                key.removeprefix(start): value
                for key, value in moments.items()
                if key.startswith(start)
            }
            if slot:  # a parameter without a gradient has none
                slots[number] = slot
                for name in {*slot, *(_OF_ADAM if isinstance(self.opt, torch.optim.Adam) else ())}:
                    is_number = name in slot and not slot[name].dim() and name not in _OF_ADAM[1:]
                    expected[start + name] = slot[name] if is_number else parameter
        require_fit(moments, expected)
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
        """Take a step of the optimiser, along the gradients there are."""
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

        The same weights and rows give the same result. A training that never had a finite loss leaves the weights as
        they were, and returns NaN for it.

        Args:
            bs: Rows a step; with 2 or more no step has a single row, on which batch norm cannot train.
            epochs: Passes over the rows.
            lr: Highest learning rate of the one-cycle schedule; the learning rate of a training of less than four
                steps, which has no room for a cycle.
            percent_valid: Share of rows held out to choose the best epoch, in [0, 1); 0 keeps the last epoch.
            silent: Without a progress bar, which needs a terminal anyhow.
            patience: Stop after so many epochs without a better one; None for never.

        Returns:
            `train_loss`, `valid_loss` and `valid_rank_correlation` (Spearman) of the epoch kept, `epochs`, those
            trained, and `seconds`; the measures on held-out rows are NaN where there are too few.
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
        start = time.perf_counter()
        shuffle = torch.Generator().manual_seed(self.seed)
        train, valid = self._split(percent_valid, shuffle)

        steps = _steps(len(train), bs)
        if len(train) // steps == 1 and any(map(_is_batch_norm, self.model.modules())):
            raise InvalidArgument(
                f"batch norm cannot train on single rows: there are {len(train)} rows and bs={bs}, "
                "and both must be 2 or more."
            )
        opt = torch.optim.Adam(self.model.parameters(), **{**self.opt_kwargs, "lr": lr})
        schedule = self._schedule(opt, lr, steps * epochs)
        best = {"train_loss": math.nan, "valid_loss": math.nan, "valid_rank_correlation": math.nan}
        best_loss, best_state, best_epoch = math.inf, copy.deepcopy(self.model.state_dict()), -1
        console = get_console()
        hidden = silent or not console.is_terminal
        passes = track(
            range(epochs),
            escape(f"training {self.name}"),
            console=console,
            disable=hidden,
            transient=True,
        )
        with in_mode(self.model, training=True), self._randomness(0):
            for epoch in passes:
                shuffled = train[torch.randperm(len(train), generator=shuffle)]
                train_loss = self._train_epoch(shuffled.tensor_split(steps), opt, schedule)
                measured = {"train_loss": train_loss, **self._validate(valid, bs)}
                # Without held-out rows each epoch that is finite counts as better than the one before.
                loss = measured["valid_loss"] if len(valid) else -math.inf
                if math.isfinite(train_loss) and loss <= best_loss:
                    best, best_loss = measured, loss
                    best_state, best_epoch = copy.deepcopy(self.model.state_dict()), epoch
                if patience is not None and epoch - best_epoch >= patience:
                    break
        self.model.load_state_dict(best_state)
        return {**best, "epochs": epoch + 1, "seconds": time.perf_counter() - start}

    def _schedule(
        self, opt: torch.optim.Optimizer, lr: float, total_steps: int
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the one-cycle schedule, which leaves betas that the user has given as they are."""
        if (
            total_steps < 4
        ):  # its first phase, 0.3 of the steps, would be over before the first step
            return torch.optim.lr_scheduler.ConstantLR(opt, factor=1.0, total_iters=0)
        return torch.optim.lr_scheduler.OneCycleLR(
            opt, max_lr=lr, total_steps=total_steps, cycle_momentum="betas" not in self.opt_kwargs
        )

    def _split(self, percent_valid: float, shuffle: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the rows to train on, and those held out: by their places where they have some, else by lot."""
        places = getattr(self.dataset, "places", None)
        if places is not None:
            is_valid = torch.from_numpy(np.asarray(places) < percent_valid)
            rows = torch.arange(len(is_valid))
            return (rows, rows[:0]) if is_valid.all() else (rows[~is_valid], rows[is_valid])
        rows = torch.randperm(len(self.dataset), generator=shuffle)
        n_valid = max(round(len(rows) * percent_valid), 1) if percent_valid and len(rows) > 1 else 0
        return rows[n_valid:], rows[:n_valid]

    def _train_epoch(
        self,
        parts: Sequence[Tensor],
        opt: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> float:
        """Return the mean loss of one pass over parts of the rows.

        Raises:
            InvalidArgument: It has changed what is not stored of the model. That is put back.
        """
        losses = []
        unstored = _unstored(self.model)
        for x, y in self.dataset.batches(parts):
            predictions = _with_gradient(self.predict_tensor(x), self.model)
            loss = self.loss_function(predictions, y.to(self.device)).mean()
            opt.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.before_step()
            opt.step()
            schedule.step()
            losses.append(loss.item())
        now = _unstored(self.model)
        if changed := [
            path for path, before in unstored.items() if not _is_same(before, now.get(path))
        ]:
            for path, before in unstored.items():
                module, _, name = path.rpartition(".")
                setattr(self.model.get_submodule(module), name, before)
            raise InvalidArgument(
                f"training changes the buffer {changed[0]}, which is not stored with the model, "
                "so a model loaded later would predict differently: register the buffer with "
                "persistent=True."
            )
        return sum(losses) / len(losses)

    def _validate(self, rows: Tensor, bs: int) -> dict[str, float]:
        if not len(rows):
            return {"valid_loss": math.nan, "valid_rank_correlation": math.nan}
        with in_mode(self.model, training=False), torch.no_grad():
            pairs = [
                (self.predict_tensor(x), y.to(self.device))
                for x, y in self.dataset.batches(torch.split(rows, bs))
            ]
            predictions, rewards = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            loss = self.loss_function(predictions, rewards).mean().item()
        return {
            "valid_loss": loss,
            "valid_rank_correlation": rank_correlation(predictions.cpu(), rewards.cpu()),
        }

    def _draw(self, x: Tensor, n_draws: int, *, step: int) -> Tensor:
        """Return the predictions (n_draws, n) of functions drawn by dropout, of a model in evaluation mode."""
        draws = []
        with one_function(self.model):
            for draw in range(1, n_draws + 1):
                with self._randomness(step, draw):
                    draws.append(self.predict_tensor(x))
        return torch.stack(draws)

    @contextlib.contextmanager
    def _randomness(self, step: int, draw: int = 0) -> Iterator[None]:
        """Draw torch's random numbers from a stream of the agent's own."""
        gpus = [self.device] if self.device.type == "cuda" else []
        seed = int(np.random.SeedSequence([self.seed % 2**64, step, draw]).generate_state(1)[0])
        with torch.random.fork_rng(devices=gpus):
            torch.default_generator.manual_seed(
                seed
            )  # torch.manual_seed would seed every GPU there is
            for gpu in gpus:
                with torch.cuda.device(gpu):
                    torch.cuda.manual_seed(seed)
            yield


def is_norm(number: float) -> bool:
    """Tell whether a number is 0 or more, infinity included."""
    return number >= 0.0


def draws_from(n_draws: Any, step: Any) -> tuple[int, int]:
    """Return how many functions are to be drawn, and at which step."""
    rule = "n_draws must be a number of draws, 1 or more"
    return require_count(n_draws, rule, least=1), require_count(
        step, "step must be a number of steps"
    )


def require_trainable(model: nn.Module) -> None:
    """Refuse a model that Adam cannot train.

    Raises:
        InvalidArgument: It has no parameters, all are frozen, or some have sparse gradients, less than 16 bits, or a
            name of the stored optimiser's.
    """
    name, parameters = type(model).__name__, list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        how = "frozen parameters only" if parameters else "no parameters"
        raise InvalidArgument(
            f"{name} has {how}, and nothing to train: give a model with parameters that require "
            "a gradient, or score with a function, such as store.score(function)."
        )
    for path, module in model.named_modules():
        if getattr(module, "sparse", False) is True and isinstance(
            module, (nn.Embedding, nn.EmbeddingBag)
        ):
            raise InvalidArgument(
                f"{path or name} has sparse gradients, which Adam cannot use: give it sparse=False."
            )
    for path, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            continue  # which `require_storable` refuses
        if any(
            n > 1 and step == 0 for n, step in zip(parameter.shape, parameter.stride(), strict=True)
        ):
            raise InvalidArgument(
                f"the values of {path} share their memory, like those of expand(), and would be "
                "trained as one: use a clone(), or expand in forward()."
            )
        if parameter.is_floating_point() and torch.finfo(parameter.dtype).bits < 16:
            raise InvalidArgument(
                f"{path} is of {parameter.dtype}, which cannot be trained: use bfloat16 or wider."
            )
    if odd := [path for path in model.state_dict() if path.startswith(OPTIMISER)]:
        raise InvalidArgument(
            f"{odd[0]} has the name of a part of the optimiser, {OPTIMISER}: rename that module."
        )


def _unstored(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers that `state_dict` leaves out, by path."""
    found = (
        (f"{path}.{name}".lstrip("."), module._buffers.get(name))
        for path, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    )
    return {path: buffer.detach().clone() for path, buffer in found if buffer is not None}


def _is_same(before: Tensor, now: Tensor | None) -> bool:
    """Tell whether a buffer has the values that it had, NaN included. One of another shape is a cache."""
    if now is None or now.shape != before.shape:
        return True
    return bool(torch.isclose(before, now, rtol=0.0, atol=0.0, equal_nan=True).all())


def _with_gradient(predictions: Tensor, model: nn.Module) -> Tensor:
    """Return predictions from which the model can learn.

    Raises:
        InvalidArgument: They have no gradient.
    """
    if torch.is_grad_enabled() and not predictions.requires_grad:
        raise InvalidArgument(
            f"the predictions of {type(model).__name__} have no gradient to learn from: remove "
            "the operation that cuts it in forward(), such as detach(), no_grad(), rounding or "
            "integers."
        )
    return predictions


def _steps(n: int, bs: int) -> int:
    """Return how many steps of nearly equal size a pass over n rows takes, so that no row is left over alone."""
    return math.ceil(n / bs) if bs == 1 else max(min(math.ceil(n / bs), n // 2), 1)


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def one_number_each(model: nn.Module, x: Tensor) -> Tensor:
    """Return what a model makes of features (n, ...), as (n,): on its device, and in its precision.

    Numbers that numpy has no type for come as float32, integers as float64.

    Raises:
        InvalidArgument: The model returned anything but a tensor of one real number for each sample.
    """
    parameter = next(model.parameters(), None)
    if parameter is not None:
        both_are_floats = x.is_floating_point() and parameter.is_floating_point()
        x = x.to(parameter.device, parameter.dtype if both_are_floats else x.dtype)
    output: Any = model(x)
    if not isinstance(output, Tensor):
        raise InvalidArgument(
            f"the model returned {shown(output)}: it must return a tensor of one number for each sample, "
            f"({len(x)},) or ({len(x)}, 1)."
        )
    if output.numel() != len(x):
        raise InvalidArgument(
            f"the model made {tuple(output.shape)} of features {tuple(x.shape)}: it must return one number for "
            f"each sample, ({len(x)},) or ({len(x)}, 1)."
        )
    if output.is_complex():
        raise InvalidArgument(
            f"the model made complex numbers ({output.dtype}): return real numbers, such as "
            "output.real or output.abs()."
        )
    if not output.is_floating_point():
        output = output.double()
    elif output.dtype not in (torch.float16, torch.float32, torch.float64):
        output = output.float()
    numbers: Tensor = output.reshape(len(x))
    return numbers


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put a model into training or evaluation mode, and every module back into the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def evaluate(
    agent: Any, function: Callable[[list[Any]], T], samples: Sequence[Any], bs: int
) -> list[T]:
    """Return what a function makes of `bs` samples at a time, the agent's model in evaluation mode."""
    require_list(samples)
    model = getattr(agent, "model", None)
    evaluating = (
        in_mode(model, training=False) if isinstance(model, nn.Module) else contextlib.nullcontext()
    )
    with evaluating, torch.no_grad():
        return [function(list(samples[i : i + bs])) for i in range(0, len(samples), bs)]


def predict(agent: Any, samples: Sequence[Any], bs: int) -> Tensor:
    """Return the agent's predictions (n,), made in evaluation mode without gradient, `bs` at a time."""
    parts = evaluate(
        agent, lambda chunk: torch.as_tensor(agent.predict_data(chunk)).reshape(-1), samples, bs
    )
    return torch.cat(parts) if parts else torch.zeros(0)
