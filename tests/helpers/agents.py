"""Predictive agents, their rows and their weights."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sqlbuffer.predictor.agent import PredictiveAgent


def featurize(samples: list[str]) -> Tensor:
    """Two features of samples named `s<number>`."""
    numbers = torch.tensor([float(sample[1:]) for sample in samples])
    return torch.stack([numbers / 100, torch.ones_like(numbers)], dim=1)


def network(*layers: nn.Module, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 16), nn.ReLU(), *layers, nn.Linear(16, 1))


def agent(*layers: nn.Module, **options: Any) -> PredictiveAgent:
    return PredictiveAgent(network(*layers), nn.functional.mse_loss, featurize, **options)


def rows(n: int) -> tuple[list[str], np.ndarray]:
    return [f"s{i}" for i in range(n)], np.arange(n) * 0.02


def weights(of: Any) -> list[Tensor]:
    return [value.clone() for value in of.model.state_dict().values()]


def same(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))
