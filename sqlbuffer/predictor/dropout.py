"""Uncertainty by dropout: a network with one set of dropped units is a draw from the posterior."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sqlbuffer.errors import InvalidArgument

KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def dropouts_of(model: nn.Module) -> list[nn.Module]:
    """Return the dropout modules of a model.

    Raises:
        InvalidArgument: If there are none.
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
    """Apply dropout with the same mask on every row; all other modules keep their mode.

    The masks come from torch's random numbers and do not depend on the number of rows: after the
    same seed, samples in chunks of any size pass through the same function. (Dropout in training
    mode draws a mask for each row, and therefore another function for each sample.)

    Args:
        model: A model in evaluation mode, with a dropout module of positive p whose input has a row
            for each sample. Dropout inside of other modules, such as between the layers of an LSTM,
            stays off.

    Raises:
        InvalidArgument: If the model has no such module.

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
        # The output for one row of ones: each is 0 or 1 / (1 - p).
        mask: Tensor = module.forward(torch.ones_like(x[:1]))
    finally:
        module.training = False
    return x * mask
