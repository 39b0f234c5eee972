"""What any agent predicts, some samples at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sqlbuffer._validation import require_list
from sqlbuffer.predictor.models import in_mode

T = TypeVar("T")


def evaluate(
    agent: Any, function: Callable[[list[Any]], T], samples: Sequence[Any], bs: int
) -> list[T]:
    """Return the results of a function for each `bs` samples, with the model in evaluation mode."""
    require_list(samples)
    model = getattr(agent, "model", None)
    evaluating = (
        in_mode(model, training=False) if isinstance(model, nn.Module) else contextlib.nullcontext()
    )
    with evaluating, torch.no_grad():
        return [function(list(samples[i : i + bs])) for i in range(0, len(samples), bs)]


def predict(agent: Any, samples: Sequence[Any], bs: int) -> Tensor:
    """Return predictions (n,) in evaluation mode and without gradient, `bs` at a time."""
    parts = evaluate(
        agent, lambda chunk: torch.as_tensor(agent.predict_data(chunk)).reshape(-1), samples, bs
    )
    return torch.cat(parts) if parts else torch.zeros(0)
