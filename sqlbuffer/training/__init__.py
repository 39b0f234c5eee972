"""A small training loop, and the callbacks that run in it or in MRL's."""

from sqlbuffer.training.callback import BatchState, Callback
from sqlbuffer.training.checkpoint import Checkpoint
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import DatasetSampler, FunctionSampler, Sampler
from sqlbuffer.training.weighted_buffer import (
    Buffer,
    BufferSizeCallback,
    PredictiveBuffer,
    WeightedBuffer,
)

__all__ = [
    "BatchState",
    "Buffer",
    "BufferSizeCallback",
    "Callback",
    "Checkpoint",
    "DatasetSampler",
    "Environment",
    "FunctionSampler",
    "Log",
    "PredictiveBuffer",
    "RewardCallback",
    "Sampler",
    "WeightedBuffer",
]
