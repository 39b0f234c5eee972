"""Loops on a buffer callback, with an agent small enough to be trained in milliseconds."""

import io
from typing import Any

import torch
from rich.console import Console
from torch import nn

from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.predictive_buffer import PredictiveBuffer
from sqlbuffer.training.rewards import RewardCallback


def number(sample: str) -> float:
    return float(sample[1:])


def named(*numbers: int) -> list[str]:
    return [f"s{i}" for i in numbers]


def featurize(samples: list[str]) -> torch.Tensor:
    return torch.tensor([[number(sample) / 100, 1.0] for sample in samples])


def make_agent(*layers: nn.Module, seed: int = 0, **options: Any) -> PredictiveAgent:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), *layers, nn.Linear(8, 1))
    return PredictiveAgent(model, nn.functional.mse_loss, featurize, **options)


def predictive(agent: Any = None, **options: Any) -> PredictiveBuffer:
    settings: dict[str, Any] = {
        "p_total": 1.0,
        "refresh_predictions": 2,
        "predictive_agent": make_agent() if agent is None else agent,
        "pred_bs": 8,
        "supervised_frequency": 3,
        "supervised_epochs": 2,
        "supervised_bs": 16,
        "supervised_lr": 1e-2,
    }
    return PredictiveBuffer(**{**settings, **options})


def environment(
    buffer: Buffer, *, waiting: int = 0, reward: Any = None, **options: Any
) -> Environment:
    """An environment without samplers, on a buffer in which some samples wait."""
    buffer.add(named(*range(waiting)), "gen")
    oracle = reward or (lambda samples: [number(sample) for sample in samples])
    options.setdefault("rewards", [RewardCallback(oracle, reuse=False)])
    return Environment(buffer=buffer, log=Log(console=Console(file=io.StringIO())), **options)
