"""A training buffer in a SQL database: durable, shared, without duplicates, with exact draws."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sqlbuffer import errors
from sqlbuffer.errors import SqlBufferError

if TYPE_CHECKING:
    __version__: str

    from sqlbuffer.core.batch import Batch
    from sqlbuffer.core.weighting import Power, Shift, Softmax, Uniform
    from sqlbuffer.predictor.acquisition import (
        ExpectedImprovement,
        ThompsonSampling,
        UpperConfidenceBound,
    )
    from sqlbuffer.predictor.agent import PredictiveAgent
    from sqlbuffer.predictor.ensemble import EnsembleAgent
    from sqlbuffer.records import AddResult, SampleInfo, Stats
    from sqlbuffer.samples.hashing import register
    from sqlbuffer.store import SampleStore, open_store
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
    "AddResult": "records",
    "Batch": "core.batch",
    "EnsembleAgent": "predictor.ensemble",
    "ExpectedImprovement": "predictor.acquisition",
    "Power": "core.weighting",
    "PredictiveAgent": "predictor.agent",
    "SampleInfo": "records",
    "SampleStore": "store",
    "Shift": "core.weighting",
    "Softmax": "core.weighting",
    "Stats": "records",
    "ThompsonSampling": "predictor.acquisition",
    "Uniform": "core.weighting",
    "UpperConfidenceBound": "predictor.acquisition",
    "open_store": "store",
    "register": "samples.hashing",
}
"""Modules of the public names that are imported when first used; the others are in `training`."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    The store does not need torch, and a child process that measures needs no database.
    """
    if name == "__version__":
        return _installed_version()
    if name in ("plots", "records", "store"):  # modules that `import sqlbuffer` alone gives
        return importlib.import_module(f"sqlbuffer.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"sqlbuffer.{_MODULES.get(name, 'training')}")
    globals()[name] = found = getattr(module, name)
    return found


def __dir__() -> list[str]:
    """Tell an interactive session the public names, most of which are not imported yet."""
    return sorted({*globals(), *__all__})


def _installed_version() -> str:
    import importlib.metadata  # takes longer than all that `import sqlbuffer` does

    try:
        return importlib.metadata.version("sqlbuffer")
    except importlib.metadata.PackageNotFoundError:
        return "from a checkout"
