"""Training on stored rows: under a lease, on a schedule, in the background."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlbuffer.retraining.train import measure, retrain, split

__all__ = ["measure", "retrain", "split"]


def __getattr__(name: str) -> Any:
    """Import torch only for a training: a schedule does not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.train"), name)
