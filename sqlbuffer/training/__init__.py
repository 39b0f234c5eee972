"""A small training loop, and the callbacks that run in it or in MRL's."""

from sqlbuffer.training.callback import BatchState, Callback
from sqlbuffer.training.callbacks import Buffer, BufferSizeCallback, PredictiveBuffer, WeightedBuffer
from sqlbuffer.training.checkpoint import Checkpoint
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import DatasetSampler, FunctionSampler, Sampler

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
