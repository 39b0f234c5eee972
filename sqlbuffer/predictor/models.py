"""Checks of a torch model, and one prediction for each sample."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sqlbuffer._messages import shown
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.predictor.weights import OPTIMISER


def require_trainable(model: nn.Module) -> None:
    """Refuse a model that Adam cannot train.

    Raises:
        InvalidArgument: If the model has no trainable parameters, or a parameter has sparse
            gradients, shared memory, less than 16 bits, or a name that begins with `OPTIMISER`.
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
            continue  # `require_storable` refuses it
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


def one_number_each(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output (n,) of a model for features (n, ...), on its device and in its precision.

    Floats of a type that numpy does not have become float32, integers float64.

    Raises:
        InvalidArgument: If the output is not a tensor of one real number for each sample.
    """
    parameter = next(model.parameters(), None)
    if parameter is not None:
        both_are_floats = x.is_floating_point() and parameter.is_floating_point()
        x = x.to(parameter.device, parameter.dtype if both_are_floats else x.dtype)
    output: Any = model(x)
    if not isinstance(output, Tensor):
        raise InvalidArgument(
            f"the model returned {shown(output)}: it must return a tensor of one number for each "
            f"sample, ({len(x)},) or ({len(x)}, 1)."
        )
    if output.numel() != len(x):
        raise InvalidArgument(
            f"the model made {tuple(output.shape)} of features {tuple(x.shape)}: it must return "
            f"one number for each sample, ({len(x)},) or ({len(x)}, 1)."
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


def with_gradient(predictions: Tensor, model: nn.Module) -> Tensor:
    """Return the predictions, checked.

    Raises:
        InvalidArgument: If the predictions have no gradient.
    """
    if torch.is_grad_enabled() and not predictions.requires_grad:
        raise InvalidArgument(
            f"the predictions of {type(model).__name__} have no gradient to learn from: remove "
            "the operation that cuts it in forward(), such as detach(), no_grad(), rounding or "
            "integers."
        )
    return predictions


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Switch a model to training or evaluation mode; restore the mode of every module at exit."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def random_stream(device: torch.device, seed: int, step: int = 0, draw: int = 0) -> Iterator[None]:
    """Take torch's random numbers from a stream of its own; global random state is restored.

    Args:
        device: Device of the model.
        seed: Seed of the agent.
        step: Number of the stream.
        draw: Number of the stream within the step.
    """
    gpus = [device] if device.type == "cuda" else []
    stream = int(np.random.SeedSequence([seed % 2**64, step, draw]).generate_state(1)[0])
    with torch.random.fork_rng(devices=gpus):
        # torch.manual_seed would seed every GPU.
        torch.default_generator.manual_seed(stream)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(stream)
        yield
