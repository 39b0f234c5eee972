"""The torch model, its uncertainty and its metrics; no database."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlbuffer.predictor.acquisition import (
        ExpectedImprovement,
        ThompsonSampling,
        UpperConfidenceBound,
    )
    from sqlbuffer.predictor.agent import PredictiveAgent
    from sqlbuffer.predictor.ensemble import EnsembleAgent
    from sqlbuffer.predictor.evaluation import evaluate, predict

__all__ = [
    "EnsembleAgent",
    "ExpectedImprovement",
    "PredictiveAgent",
    "ThompsonSampling",
    "UpperConfidenceBound",
    "evaluate",
    "predict",
]

_MODULES = {
    "EnsembleAgent": "ensemble",
    "ExpectedImprovement": "acquisition",
    "PredictiveAgent": "agent",
    "ThompsonSampling": "acquisition",
    "UpperConfidenceBound": "acquisition",
    "evaluate": "evaluation",
    "predict": "evaluation",
}
"""Modules of the names."""


def __getattr__(name: str) -> Any:
    """Import a module when one of its names is first used: acquisitions need no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
