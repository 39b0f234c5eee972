"""The predictor: a torch model with its loss and its data, how it is trained, and how its state is stored."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import ArrayLike, NDArray
from rich import get_console
from rich.progress import track
from torch import Tensor, nn

from sqlbuffer.errors import InvalidArgument, InvalidPayload

if TYPE_CHECKING:
    from sqlbuffer.progress import PredictorVersion
    from sqlbuffer.store import SampleStore

logger = logging.getLogger(__name__)

CHUNK = 4096
"""Samples turned into features at a time."""

OPTIMISER = "optimiser."
"""What the names of the optimiser's tensors begin with in a stored state."""


class PredictiveDataset:
    """Samples with their rewards, made into tensors by a plain function.

    Args:
        featurize: `featurize(list of n samples)` returns a Tensor (n, ...).
        samples: n samples.
        rewards: (n,) floats; without them, zeros.
    """

    def __init__(
        self,
        featurize: Callable[[list[Any]], Tensor],
        samples: Sequence[Any] = (),
        rewards: ArrayLike | None = None,
    ) -> None:
        self.featurize = featurize
        self.samples = list(samples)
        self.rewards = np.zeros(len(self.samples)) if rewards is None else np.array(rewards, dtype=np.float64)
        if self.rewards.shape != (len(self.samples),):
            raise InvalidArgument(
                f"{len(self.samples)} samples came with rewards of shape {self.rewards.shape}: give one for each."
            )

    def __len__(self) -> int:
        return len(self.samples)

    def new(self, samples: Sequence[Any], rewards: ArrayLike | None = None) -> PredictiveDataset:
        """Return other samples, featurized the same way."""
        return PredictiveDataset(self.featurize, samples, rewards)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return features (n, ...) and rewards (n,) float32; n must be 1 or more."""
        chunks = [self._features(self.samples[i : i + CHUNK]) for i in range(0, len(self.samples), CHUNK)]
        return torch.cat(chunks), torch.from_numpy(self.rewards).float()

    def _features(self, samples: list[Any]) -> Tensor:
        rows = self.featurize(samples)
        if not isinstance(rows, Tensor) or rows.shape[:1] != (len(samples),):
            got = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise InvalidArgument(f"featurize must return a Tensor ({len(samples)}, ...), one row each, got {got}.")
        return rows


class PredictiveAgent:
    """A model that predicts the reward of a sample.

    Args:
        model: Maps features (n, ...) to (n,) or (n, 1).
        loss_function: `loss_function(predictions (n,), rewards (n,))` returns the loss, a scalar or (n,).
        dataset: A `PredictiveDataset`, or the plain function that one is made from.
        opt_kwargs: Keywords of `torch.optim.Adam`.
        clip: Largest norm of the gradient; 0 or None for no clipping.
        name: Name of the agent.
        seed: Seed of what is random in training, dropout included. Global random state is left alone.
    """

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
    ) -> None:
        self.model = model
        self.loss_function = loss_function
        self.dataset: Any = dataset if hasattr(dataset, "new") else PredictiveDataset(dataset)
        self.opt_kwargs = {} if opt_kwargs is None else dict(opt_kwargs)
        self.opt = torch.optim.Adam(model.parameters(), **self.opt_kwargs)
        self.clip = clip
        self.name = name
        self.seed = seed

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def predict_tensor(self, x: Tensor) -> Tensor:
        """Return predictions (n,) for features (n, ...), with gradient, in the mode the model is in."""
        output: Tensor = self.model(x.to(self.device))
        if output.numel() != len(x):
            raise InvalidArgument(
                f"the model made {tuple(output.shape)} of features {tuple(x.shape)}: it must return one number for "
                f"each sample, ({len(x)},) or ({len(x)}, 1)."
            )
        return output.reshape(len(x))

    def predict_data(self, samples: Sequence[Any]) -> Tensor:
        """Return predictions (n,) for samples, in evaluation mode and without gradient."""
        if not len(samples):
            return torch.zeros(0, device=self.device)
        with in_mode(self.model, training=False), torch.no_grad():
            return self.predict_tensor(self.dataset.new(samples).tensors()[0])

    def predict_data_batch(self, samples: Sequence[Any], bs: int) -> Tensor:
        """Return predictions (n,) for samples, made `bs` at a time."""
        chunks = [self.predict_data(samples[i : i + bs]) for i in range(0, len(samples), bs)]
        return torch.cat(chunks) if chunks else self.predict_data([])

    def predict_online(self, samples: Sequence[Any], *, step: int) -> Tensor:
        """Return predictions (n,) with gradient, in training mode; `step` varies what is random in the model."""
        with in_mode(self.model, training=True), self._randomness(step):
            return self.predict_tensor(self.dataset.new(samples).tensors()[0])

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
        }
        return {**self.model.state_dict(), **moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        slots: dict[int, dict[str, Tensor]] = {}
        for key in (key for key in state if key.startswith(OPTIMISER)):
            number, name = key.removeprefix(OPTIMISER).split(".", 1)
            slots.setdefault(int(number), {})[name] = state[key]
        self.model.load_state_dict({key: value for key, value in state.items() if not key.startswith(OPTIMISER)})
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
        self, bs: int, epochs: int, lr: float, percent_valid: float = 0.05, silent: bool = True
    ) -> dict[str, float]:
        """Train on the dataset, and keep the weights of the best epoch.

        The same weights and rows give the same result. A training that never had a finite loss leaves the weights as
        they were, and returns NaN for it.

        Args:
            bs: Rows a step.
            epochs: Passes over the rows.
            lr: Highest learning rate of the one-cycle schedule.
            percent_valid: Share of rows held out to choose the best epoch, in [0, 1); 0 keeps the last epoch.
            silent: Without a progress bar, which needs a terminal anyhow.

        Returns:
            `train_loss`, `valid_loss` and `valid_rank_correlation` (Spearman) of the epoch kept, and `seconds`; the
            measures on held-out rows are NaN where there are too few.
        """
        if bs < 1 or epochs < 1 or not 0.0 <= percent_valid < 1.0:
            raise InvalidArgument(
                f"bs and epochs must be 1 or more and percent_valid in [0, 1), got {bs}, {epochs}, {percent_valid}."
            )
        if not len(self.dataset):
            raise InvalidArgument("the dataset is empty: call update_dataset_from_inputs(samples, rewards) first.")
        start = time.perf_counter()
        data = self.dataset.tensors()
        shuffle = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(len(data[1]), generator=shuffle)
        n_valid = max(round(len(rows) * percent_valid), 1) if percent_valid and len(rows) > 1 else 0
        valid, train = rows[:n_valid], rows[n_valid:]

        steps = math.ceil(len(train) / bs)
        opt = torch.optim.Adam(self.model.parameters(), **{**self.opt_kwargs, "lr": lr})
        schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=lr, total_steps=steps * epochs)
        best = {"train_loss": math.nan, "valid_loss": math.nan, "valid_rank_correlation": math.nan}
        best_loss, best_state = math.inf, copy.deepcopy(self.model.state_dict())
        console = get_console()
        hidden = silent or not console.is_terminal
        passes = track(range(epochs), f"training {self.name}", console=console, disable=hidden, transient=True)
        with in_mode(self.model, training=True), self._randomness(0):
            for _ in passes:
                # Steps of nearly equal size: batch norm cannot train on a lone row left over.
                shuffled = train[torch.randperm(len(train), generator=shuffle)]
                train_loss = self._train_epoch(data, shuffled.tensor_split(steps), opt, schedule)
                measured = {"train_loss": train_loss, **self._validate(data, valid, bs)}
                # Without held-out rows each epoch that is finite counts as better than the one before.
                loss = measured["valid_loss"] if n_valid else -math.inf
                if math.isfinite(train_loss) and loss <= best_loss:
                    best, best_loss, best_state = measured, loss, copy.deepcopy(self.model.state_dict())
        self.model.load_state_dict(best_state)
        return {**best, "seconds": time.perf_counter() - start}

    def _train_epoch(
        self,
        data: tuple[Tensor, Tensor],
        batches: Sequence[Tensor],
        opt: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> float:
        """Return the mean loss of one pass over batches of rows."""
        losses = []
        for rows in batches:
            predictions, rewards = self._predict_rows(data, rows)
            loss = self.loss_function(predictions, rewards).mean()
            opt.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.before_step()
            opt.step()
            schedule.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    def _validate(self, data: tuple[Tensor, Tensor], rows: Tensor, bs: int) -> dict[str, float]:
        if not len(rows):
            return {"valid_loss": math.nan, "valid_rank_correlation": math.nan}
        with in_mode(self.model, training=False), torch.no_grad():
            pairs = [self._predict_rows(data, rows[i : i + bs]) for i in range(0, len(rows), bs)]
            predictions, rewards = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            loss = self.loss_function(predictions, rewards).mean().item()
        return {"valid_loss": loss, "valid_rank_correlation": rank_correlation(predictions.cpu(), rewards.cpu())}

    def _predict_rows(self, data: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
        x, y = data
        return self.predict_tensor(x[rows]), y[rows].to(self.device)

    @contextlib.contextmanager
    def _randomness(self, step: int) -> Iterator[None]:
        """Draw torch's random numbers from a stream of the agent's own."""
        gpus = [self.device] if self.device.type == "cuda" else []
        seed = int(np.random.SeedSequence([self.seed % 2**64, step]).generate_state(1)[0])
        with torch.random.fork_rng(devices=gpus):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU there is
            for gpu in gpus:
                with torch.cuda.device(gpu):
                    torch.cuda.manual_seed(seed)
            yield


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


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Return Spearman's rank correlation of two (n,) arrays, ties sharing their mean rank; NaN where undefined."""
    ranks_a, ranks_b = _ranks(a), _ranks(b)
    spread = float(ranks_a.std() * ranks_b.std())
    if not spread:
        return math.nan
    return float(((ranks_a - ranks_a.mean()) * (ranks_b - ranks_b.mean())).mean() / spread)


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], dtype=np.float64)


# -- stored state -----------------------------------------------------------------------------------------------------


def dump_state(agent: Any) -> bytes:
    """Return the agent's weights as safetensors, empty for an agent that has no state."""
    holder = _state_holder(agent)
    tensors = {} if holder is None else _tensors(holder.state_dict())
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    return safetensors.torch.save({key: value.cpu().contiguous().clone() for key, value in tensors.items()})


def load_state(agent: Any, state: bytes) -> None:
    """Give the agent the weights that `dump_state` returned.

    Raises:
        InvalidArgument: They are another model's: other names or other shapes.
        InvalidPayload: The bytes are not safetensors.
    """
    holder = _state_holder(agent)
    if holder is None:
        return
    try:
        stored = safetensors.torch.load(state)
    except safetensors.SafetensorError as exc:
        raise InvalidPayload(f"the stored predictor is not safetensors: {exc}.") from exc
    ours, theirs = _shapes(_tensors(holder.state_dict())), _shapes(stored)
    if ours != theirs:
        odd = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        shown = "; ".join(f"{key}: stored {theirs.get(key)}, model {ours.get(key)}" for key in odd[:5])
        raise InvalidArgument(
            f"the stored predictor does not fit the model ({shown}): "
            f"give the model it was trained with, or another buffer."
        )
    # What is not a tensor is not stored and stays; moments that are not stored are forgotten.
    others = {key: value for key, value in holder.state_dict().items() if not isinstance(value, Tensor)}
    holder.load_state_dict({**others, **stored})


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight; the optimiser has moments or has none."""
    return {key: tuple(value.shape) for key, value in tensors.items() if not key.startswith(OPTIMISER)}


def _state_holder(agent: Any) -> Any:
    """Return what has the agent's state: itself, its model, or None."""
    return next((holder for holder in (agent, getattr(agent, "model", None)) if hasattr(holder, "state_dict")), None)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value.detach() for key, value in state.items() if isinstance(value, Tensor)}


# -- retraining -------------------------------------------------------------------------------------------------------


def retrain(
    store: SampleStore,
    agent: Any,
    *,
    bs: int,
    epochs: int,
    lr: float,
    percent_valid: float | None = None,
    silent: bool = True,
    min_rows: int = 2,
) -> PredictorVersion | None:
    """Train the agent on the stored labelled rows, and store the new predictor version with its metrics.

    Args:
        store: The buffer.
        agent: A `PredictiveAgent`, or any object with `update_dataset_from_inputs` and `train_supervised`.
        bs: Rows a step.
        epochs: Passes over the rows.
        lr: Learning rate.
        percent_valid: Share of rows held out; None for the agent's own default.
        silent: Without a progress bar.
        min_rows: With fewer labelled rows, nothing is trained.

    Returns:
        The version, or None where there were too few rows, or where the training diverged: the agent then keeps its
        old weights.
    """
    samples, rewards = store.labelled()
    if len(samples) < min_rows:
        logger.info("predictor not trained: %d labelled rows, at least %d are needed", len(samples), min_rows)
        return None
    before = dump_state(agent)
    agent.update_dataset_from_inputs(samples, rewards)
    shares = {} if percent_valid is None else {"percent_valid": percent_valid}
    try:
        metrics = dict(agent.train_supervised(bs, epochs, lr, silent=silent, **shares) or {})
    except BaseException:  # Ctrl-C, too, must not leave a model that no stored version knows
        load_state(agent, before)
        raise
    if math.isnan(metrics.get("train_loss", 0.0)) or not _is_finite(agent):
        load_state(agent, before)
        logger.warning("training diverged on %d rows: the predictor keeps its old weights", len(samples))
        return None
    losses = {name: metrics.pop(name, None) for name in ("train_loss", "valid_loss")}
    version = store.save_predictor(dump_state(agent), rows_trained=len(samples), metrics=metrics, **losses)
    logger.info("predictor %d trained on %d rows: %s", version, len(samples), {**losses, **metrics})
    return store.newest_predictor()


def _is_finite(agent: Any) -> bool:
    holder = _state_holder(agent)
    tensors = {} if holder is None else _tensors(holder.state_dict())
    return all(bool(torch.isfinite(value).all()) for value in tensors.values())
