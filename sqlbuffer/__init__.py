"""A training buffer that lives in a SQL database: durable, shared, without duplicates, with exact weighted draws."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sqlbuffer import errors
from sqlbuffer.batches import Batch
from sqlbuffer.errors import SqlBufferError
from sqlbuffer.hashing import register
from sqlbuffer.race import Power, Shift, Softmax, Uniform
from sqlbuffer.records import AddResult, SampleInfo, Stats
from sqlbuffer.store import SampleStore, open_store

if TYPE_CHECKING:
    from sqlbuffer.acquisition import ExpectedImprovement, ThompsonSampling, UpperConfidenceBound
    from sqlbuffer.ensemble import EnsembleAgent
    from sqlbuffer.predictor import PredictiveAgent
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


_ROOMS = {
    "EnsembleAgent": "ensemble",
    "ExpectedImprovement": "acquisition",
    "PredictiveAgent": "predictor",
    "ThompsonSampling": "acquisition",
    "UpperConfidenceBound": "acquisition",
}
"""Where public names are that are imported only when asked for; the others are in `training`."""


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: the store alone starts in a fraction of the time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sqlbuffer.{_ROOMS.get(name, 'training')}"), name)
