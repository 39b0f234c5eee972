"""Supervised training of an agent on its dataset; the weights of the best epoch are kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from rich import get_console
from rich.markup import escape
from rich.progress import track
from torch import Tensor, nn

from sqlbuffer.errors import InvalidArgument
from sqlbuffer.predictor.metrics import rank_correlation
from sqlbuffer.predictor.models import in_mode, random_stream, with_gradient

Schedule = torch.optim.lr_scheduler.LRScheduler

_BatchNorm = nn.modules.batchnorm._BatchNorm


class Trainable(Protocol):
    """The parts of a `PredictiveAgent` that training uses."""

    name: str
    seed: int
    model: nn.Module
    dataset: Any
    loss_function: Callable[[Tensor, Tensor], Tensor]
    opt_kwargs: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        ...

    def predict_tensor(self, x: Tensor) -> Tensor:
        """Return predictions (n,) for features (n, ...), with gradient."""
        ...

    def before_step(self) -> None:
        """Change the gradients before a step of the optimiser."""
        ...


def train(
    agent: Trainable,
    bs: int,
    epochs: int,
    lr: float,
    *,
    percent_valid: float,
    silent: bool,
    patience: int | None,
) -> dict[str, float]:
    """Train the model of an agent; for arguments and result see `train_supervised`."""
    start = time.perf_counter()
    shuffle = torch.Generator().manual_seed(agent.seed)
    rows, held_out = split_rows(agent.dataset, percent_valid, shuffle)
    steps = _steps(len(rows), bs)
    _require_pairs(agent.model, len(rows), bs, steps)
    opt = torch.optim.Adam(agent.model.parameters(), **{**agent.opt_kwargs, "lr": lr})
    schedule = _schedule(opt, lr, steps * epochs, has_betas="betas" in agent.opt_kwargs)
    best = {"train_loss": math.nan, "valid_loss": math.nan, "valid_rank_correlation": math.nan}
    best_loss, best_epoch = math.inf, -1
    best_state = copy.deepcopy(agent.model.state_dict())
    passes = _passes(epochs, f"training {agent.name}", silent=silent)
    with in_mode(agent.model, training=True), random_stream(agent.device, agent.seed):
        for epoch in passes:
            shuffled = rows[torch.randperm(len(rows), generator=shuffle)]
            train_loss = _train_epoch(agent, shuffled.tensor_split(steps), opt, schedule)
            measured = {"train_loss": train_loss, **validate(agent, held_out, bs)}
            # Without held-out rows each finite epoch counts as better than the one before.
            loss = measured["valid_loss"] if len(held_out) else -math.inf
            if math.isfinite(train_loss) and loss <= best_loss:
                best, best_loss, best_epoch = measured, loss, epoch
                best_state = copy.deepcopy(agent.model.state_dict())
            if patience is not None and epoch - best_epoch >= patience:
                break
    agent.model.load_state_dict(best_state)
    return {**best, "epochs": epoch + 1, "seconds": time.perf_counter() - start}


def split_rows(
    dataset: Any, percent_valid: float, shuffle: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the rows to train on and the rows held out.

    Args:
        dataset: A `PredictiveDataset`. If it has `places`, the rows below `percent_valid` are held
            out; otherwise the rows are drawn at random.
        percent_valid: Share of rows held out, in [0, 1).
        shuffle: Generator of the random draw.

    Returns:
        (n_train,) and (n_valid,) int64; if all rows would be held out, all are trained on.
    """
    places = getattr(dataset, "places", None)
    if places is not None:
        is_valid = torch.from_numpy(np.asarray(places) < percent_valid)
        rows = torch.arange(len(is_valid))
        return (rows, rows[:0]) if is_valid.all() else (rows[~is_valid], rows[is_valid])
    rows = torch.randperm(len(dataset), generator=shuffle)
    n_valid = max(round(len(rows) * percent_valid), 1) if percent_valid and len(rows) > 1 else 0
    return rows[n_valid:], rows[:n_valid]


def validate(agent: Trainable, rows: Tensor, bs: int) -> dict[str, float]:
    """Return the loss and the rank correlation on held-out rows, (n,) int64; NaN without rows."""
    if not len(rows):
        return {"valid_loss": math.nan, "valid_rank_correlation": math.nan}
    with in_mode(agent.model, training=False), torch.no_grad():
        pairs = [
            (agent.predict_tensor(x), y.to(agent.device))
            for x, y in agent.dataset.batches(torch.split(rows, bs))
        ]
        predictions, rewards = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        loss = agent.loss_function(predictions, rewards).mean().item()
    return {
        "valid_loss": loss,
        "valid_rank_correlation": rank_correlation(predictions.cpu(), rewards.cpu()),
    }


def _train_epoch(
    agent: Trainable, parts: Sequence[Tensor], opt: torch.optim.Optimizer, schedule: Schedule
) -> float:
    """Return the mean loss of one pass over parts of the rows.

    Raises:
        InvalidArgument: If the pass changes buffers that are not stored with the model. The buffers
            are restored first.
    """
    losses = []
    unstored = _unstored(agent.model)
    for x, y in agent.dataset.batches(parts):
        predictions = with_gradient(agent.predict_tensor(x), agent.model)
        loss = agent.loss_function(predictions, y.to(agent.device)).mean()
        opt.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        agent.before_step()
        opt.step()
        schedule.step()
        losses.append(loss.item())
    _require_unchanged(agent.model, unstored)
    return sum(losses) / len(losses)


def _unstored(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers that `state_dict` leaves out, by path."""
    found = (
        (f"{path}.{name}".lstrip("."), module._buffers.get(name))
        for path, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    )
    return {path: buffer.detach().clone() for path, buffer in found if buffer is not None}


def _require_unchanged(model: nn.Module, unstored: dict[str, Tensor]) -> None:
    """Restore and report buffers outside of `state_dict` that training has changed."""
    now = _unstored(model)
    changed = [path for path, before in unstored.items() if not _is_same(before, now.get(path))]
    if not changed:
        return
    for path, before in unstored.items():
        module, _, name = path.rpartition(".")
        setattr(model.get_submodule(module), name, before)
    raise InvalidArgument(
        f"training changes the buffer {changed[0]}, which is not stored with the model, so a model "
        "loaded later would predict differently: register the buffer with persistent=True."
    )


def _is_same(before: Tensor, now: Tensor | None) -> bool:
    """Tell whether a buffer has its old values; a buffer of another shape is a cache."""
    if now is None or now.shape != before.shape:
        return True
    return bool(torch.isclose(before, now, rtol=0.0, atol=0.0, equal_nan=True).all())


def _steps(n: int, bs: int) -> int:
    """Return the number of steps over n rows; if bs is 2 or more, no step has a single row."""
    return math.ceil(n / bs) if bs == 1 else max(min(math.ceil(n / bs), n // 2), 1)


def _require_pairs(model: nn.Module, n: int, bs: int, steps: int) -> None:
    """Refuse steps of a single row for a model with batch norm."""
    if n // steps == 1 and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise InvalidArgument(
            f"batch norm cannot train on single rows: there are {n} rows and bs={bs}, and both "
            "must be 2 or more."
        )


def _schedule(
    opt: torch.optim.Optimizer, lr: float, total_steps: int, *, has_betas: bool
) -> Schedule:
    """Return the one-cycle schedule; it does not change betas of the user."""
    # The first phase, 0.3 of the steps, would be over before the first of three steps.
    if total_steps < 4:
        return torch.optim.lr_scheduler.ConstantLR(opt, factor=1.0, total_iters=0)
    return torch.optim.lr_scheduler.OneCycleLR(
        opt, max_lr=lr, total_steps=total_steps, cycle_momentum=not has_betas
    )


def _passes(epochs: int, title: str, *, silent: bool) -> Iterable[int]:
    """Return the numbers of the epochs, with a progress bar on a terminal unless silent."""
    console = get_console()
    return track(
        range(epochs),
        escape(title),
        console=console,
        disable=silent or console.is_jupyter or not console.is_terminal,  # no widget
        transient=True,
    )
