"""A training buffer that lives in a SQL database: durable, shared, without duplicates, with exact weighted draws."""

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


_ROOMS = {
    "EnsembleAgent": "predictor.ensemble",
    "ExpectedImprovement": "predictor.acquisition",
    "PredictiveAgent": "predictor.agent",
    "ThompsonSampling": "predictor.acquisition",
    "UpperConfidenceBound": "predictor.acquisition",
}
"""Where public names are that are imported only when asked for; the others are in `training`."""


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: the store alone starts in a fraction of the time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"sqlbuffer.{_ROOMS.get(name, 'training')}"), name)
