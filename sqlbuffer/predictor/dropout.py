"""Dropout as uncertainty: a network with one set of units dropped is one function drawn from what is believed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sqlbuffer.errors import InvalidArgument

KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def dropouts_of(model: nn.Module) -> list[nn.Module]:
    """Return the model's modules that drop out.

    Raises:
        InvalidArgument: It has none.
    """
    dropouts: list[nn.Module] = [
        module for module in model.modules() if isinstance(module, KINDS) and module.p > 0.0
    ]
    if not dropouts:
        raise InvalidArgument(
            f"{type(model).__name__} has no dropout, which its uncertainty needs: add "
            'torch.nn.Dropout(0.1) to it, use an EnsembleAgent, or acquisition="greedy".'
        )
    return dropouts


@contextlib.contextmanager
def one_function(model: nn.Module) -> Iterator[None]:
    """Let the model's dropout act, by the same mask on every row; all other modules keep their mode.

    The masks come from torch's random numbers and do not depend on how many rows there are: after the same seed,
    samples in any chunks pass through the same function. (Dropout in training mode draws a mask for each row, and so
    another function for each sample.)

    Args:
        model: In evaluation mode, with a dropout module of positive p whose input has a row for each sample. Dropout
            inside of other modules, as that between the layers of an LSTM, stays off.

    Raises:
        InvalidArgument: The model has no such module.

    Source:
        Gal and Ghahramani 2016, Dropout as a Bayesian approximation.
    """
    hooks = [module.register_forward_hook(_mask_all_rows_alike) for module in dropouts_of(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mask_all_rows_alike(module: nn.Module, inputs: tuple[Tensor], output: Any) -> Tensor:
    (x,) = inputs
    module.training = True
    try:
        mask: Tensor = module.forward(
            torch.ones_like(x[:1])
        )  # what it makes of one row of ones: 0 or 1 / (1 - p)
    finally:
        module.training = False
    return x * mask
