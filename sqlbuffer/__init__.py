"""A training buffer in a SQL database: durable, shared, without duplicates, with exact draws."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sqlbuffer import errors
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.weighting import Power, Shift, Softmax, Uniform
from sqlbuffer.errors import SqlBufferError
from sqlbuffer.records import AddResult, SampleInfo, Stats
from sqlbuffer.samples.hashing import register
from sqlbuffer.store import SampleStore, open_store

if TYPE_CHECKING:
    from sqlbuffer.predictor.acquisition import (
        ExpectedImprovement,
        ThompsonSampling,
        UpperConfidenceBound,
    )
    from sqlbuffer.predictor.agent import PredictiveAgent
    from sqlbuffer.predictor.ensemble import EnsembleAgent
    from sqlbuffer.training import (
        Buffer,
        BufferSizeCallback,
        Callback,
        Checkpoint,
        DatasetSampler,
        Environment,
        FunctionSampler,
        Log,
        PredictiveBuffer,
        RewardCallback,
        Sampler,
        WeightedBuffer,
    )

__all__ = [
    "AddResult",
    "Batch",
    "Buffer",
    "BufferSizeCallback",
    "Callback",
    "Checkpoint",
    "DatasetSampler",
    "EnsembleAgent",
    "Environment",
    "ExpectedImprovement",
    "FunctionSampler",
    "Log",
    "Power",
    "PredictiveAgent",
    "PredictiveBuffer",
    "RewardCallback",
    "SampleInfo",
    "SampleStore",
    "Sampler",
    "Shift",
    "Softmax",
    "SqlBufferError",
    "Stats",
    "ThompsonSampling",
    "Uniform",
    "UpperConfidenceBound",
    "WeightedBuffer",
    "errors",
    "open_store",
    "register",
]


_MODULES = {
    "EnsembleAgent": "predictor.ensemble",
    "ExpectedImprovement": "predictor.acquisition",
    "PredictiveAgent": "predictor.agent",
    "ThompsonSampling": "predictor.acquisition",
    "UpperConfidenceBound": "predictor.acquisition",
}
"""Modules of the public names that are imported when first used; the others are in `training`."""


def __getattr__(name: str) -> Any:
    """Import a class that needs torch when it is first used: the store does not need torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sqlbuffer.{_MODULES.get(name, 'training')}"), name)
