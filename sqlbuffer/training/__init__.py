"""A small training loop, and the callbacks that run in it or in MRL's."""

from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.buffer_size import BufferSizeCallback
from sqlbuffer.training.callback import BatchState, Callback
from sqlbuffer.training.checkpoint import Checkpoint
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.predictive_buffer import PredictiveBuffer
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import DatasetSampler, FunctionSampler, Sampler
from sqlbuffer.training.weighted_buffer import WeightedBuffer

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
