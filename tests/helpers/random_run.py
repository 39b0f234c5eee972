"""A training loop with every source of random numbers, and what it has stored."""

import hashlib
import io
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch
from rich.console import Console
from torch import nn

from helpers import inside
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.store import SampleStore
from sqlbuffer.training.buffer_size import BufferSizeCallback
from sqlbuffer.training.callback import Callback
from sqlbuffer.training.checkpoint import Checkpoint
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.predictive_buffer import PredictiveBuffer
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import FunctionSampler

ITERATIONS = 28


def number(sample: str) -> float:
    return float(sample[1:])


def features(samples: list[str]) -> torch.Tensor:
    return torch.tensor([[number(sample) / 1000, 1.0] for sample in samples])


def digest(module: nn.Module) -> str:
    tensors = [value.numpy().tobytes() for value in module.state_dict().values()]
    return hashlib.blake2b(b"".join(tensors), digest_size=8).hexdigest()


class Policy(Callback):
    """What learns in the loop: its dropout and its noise come from torch's global generator."""

    def __init__(self) -> None:
        super().__init__(name="policy", order=2)
        self.model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.opt, T_max=2 * ITERATIONS)

    def compute_loss(self) -> None:
        state = self.environment.batch_state
        predictions = self.model(features(state.samples)).flatten()
        loss = ((predictions - torch.as_tensor(state.rewards, dtype=torch.float32)) ** 2).mean()
        state.loss = state.loss + loss + 0.1 * (predictions * torch.randn(len(predictions))).mean()
        self.environment.log.update_metric("policy_loss", loss)

    def zero_grad(self) -> None:
        self.opt.zero_grad()

    def step(self) -> None:
        self.opt.step()
        self.schedule.step()


class Witness(Callback):
    """Logs who predicts and what the policy has become, in words."""

    def __init__(self) -> None:
        super().__init__(name="witness", order=60)

    def before_batch(self) -> None:
        self.environment.log.update_metric(
            "predictor", digest(self.environment.predictive_buffer.predictive_agent.model)
        )

    def before_step(self) -> None:
        self.environment.log.update_metric("before the step", digest(self.environment.policy.model))

    def after_batch(self) -> None:
        """Draw from what all draw from, when the batch is settled."""
        self.environment.log.update_metric("policy", digest(self.environment.policy.model))
        self.environment.log.update_metric(
            "noise", torch.rand(()) + np.random.rand() + random.random()
        )


def make_run(
    url: str,
    name: str,
    come_by: Callable[[str], None] = lambda moment: None,
    every: int = 1,
    *,
    scale: int = 1,
    rewards: Sequence[RewardCallback] = (),
) -> Environment:
    """A loop with everything random that there is.

    The process it runs in has nothing seeded by itself.

    Args:
        url: The database.
        name: The buffer.
        come_by: Called with each moment.
        every: How often it writes its checkpoint.
        scale: It builds this much more.
        rewards: What measures; by default an oracle for a whole batch.
    """

    class Moments(Callback):
        def __call__(self, event: str) -> None:
            come_by(f"{event} of {self.environment.log.iterations}")

    class Predicting(PredictiveBuffer):
        def _do(self, job: str) -> None:
            come_by(f"before {job}")
            super()._do(job)

        def compute_weights(self, samples: list[str]) -> np.ndarray:
            come_by("scoring")
            return super().compute_weights(samples)

    def loss_function(predictions: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
        come_by("training" if torch.is_grad_enabled() else "measuring")
        return nn.functional.mse_loss(predictions, rewards)

    def named(numbers: Any) -> list[str]:
        come_by("generating")
        return [f"s{i}" for i in numbers]

    def oracle(samples: list[str]) -> list[float]:
        come_by(" ".join(["measured", *samples]))
        return [np.sin(number(sample) / 300) for sample in samples]

    generator = np.random.default_rng(5)
    model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
    agent = PredictiveAgent(model, loss_function, features)
    buffer = Predicting(0.6, 3, agent, 16, 4, 3, 16, 1e-2, pct_argmax=0.25, url=url, name=name)
    policy = Policy()
    return Environment(
        agent=policy,
        samplers=[
            FunctionSampler(lambda n, rng: named(rng.integers(0, 5000, n)), "its own", 12 * scale),
            FunctionSampler(
                lambda n, rng: named(np.random.randint(0, 5000, n)), "numpy", 12 * scale, 0.2
            ),
            FunctionSampler(
                lambda n, rng: named(random.randrange(5000) for _ in range(n)), "python", 0, 0.1
            ),
            FunctionSampler(
                lambda n, rng: named(generator.integers(0, 5000, n)), "generator", 0, 0.1
            ),
        ],
        rewards=list(rewards) or [RewardCallback(oracle)],
        cbs=[
            *(BufferSizeCallback, Witness(), Moments("first", -2000), Moments("last", 99)),
            Checkpoint(policy, every, generators=[generator]),
        ],
        buffer=buffer,
        log=Log(console=Console(file=io.StringIO())),
    )


DRAWS = """
    SELECT batches.iteration, draws.position, ranked.place, ranked.text, ranked.source,
        ranked.reward, draws.weight
    FROM draws JOIN batches ON batches.id = draws.batch_id JOIN (
        SELECT id, text, source, reward, rank() OVER (ORDER BY id) AS place FROM samples
        WHERE buffer_id = (SELECT id FROM buffers WHERE name = :name)
    ) AS ranked ON ranked.id = draws.sample_id
    WHERE batches.settled_at IS NOT NULL
        AND batches.buffer_id = (SELECT id FROM buffers WHERE name = :name)
    ORDER BY batches.iteration, draws.position
"""


VERSIONS = """
    SELECT iteration, version, state, rows_trained, train_loss, valid_loss FROM predictors
    WHERE buffer_id = (SELECT id FROM buffers WHERE name = :name) ORDER BY version
"""


def rows(store: SampleStore, query: str) -> list[tuple[Any, ...]]:
    """What SQL sees of a buffer."""

    def read(connection: sa.Connection) -> list[tuple[Any, ...]]:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL search_path TO sqlbuffer")
        found = connection.execute(sa.text(query), {"name": store.name})
        return [
            tuple(bytes(cell) if isinstance(cell, memoryview) else cell for cell in row)
            for row in found
        ]

    return inside.database_of(store).read(read)


# Ids are compared by rank: PostgreSQL numbers a row before it finds that it is there already, or
# before its transaction
# is killed, so what is added again leaves gaps in the numbers.


def story(
    url: str, name: str, *, bs: int = 10, iters: int = ITERATIONS, **options: Any
) -> dict[str, Any]:
    """All that a run has left behind, as a run sees it that is started once more, and as SQL sees
    it.
    """
    resumed = make_run(url, name, **options)
    resumed.fit(bs, iters=iters)
    log, store = resumed.log, resumed.buffer.store
    assert store.check() == []
    told = {
        "metrics": {
            key: repr(values)
            for key, values in log.metrics.items()
            if key not in ("policy", "noise")
        },
        "rows": log.df.to_csv(),
        "draws": rows(store, DRAWS),
        "versions": rows(store, VERSIONS),
        "waiting": sorted(
            zip(store.waiting().samples, store.waiting().scores.tolist(), strict=True)
        ),
        "checkpoint": store.checkpoint("checkpoint"),
        "policy": digest(resumed.policy.model),
        "predictor": digest(resumed.buffer.predictive_agent.model),
    }
    resumed.buffer.close()
    return told
