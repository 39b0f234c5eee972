"""A run killed with SIGKILL at random moments, again and again, equals to the last bit one that was never killed.

With a checkpoint every few iterations its agent goes back to the last one, and nothing else does.
"""

import contextlib
import hashlib
import io
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import sqlalchemy as sa
import torch
from forked import forkserver
from rich.console import Console
from torch import nn

from sqlbuffer.db import database
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training.buffer_size import BufferSizeCallback
from sqlbuffer.training.callback import Callback
from sqlbuffer.training.checkpoint import Checkpoint
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.predictive_buffer import PredictiveBuffer
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import FunctionSampler

ITERATIONS = 60
KILLS = 20


def number(sample: str) -> float:
    return float(sample[1:])


def features(samples: list[str]) -> torch.Tensor:
    return torch.tensor([[number(sample) / 1000, 1.0] for sample in samples])


def digest(module: nn.Module) -> str:
    tensors = [value.numpy().tobytes() for value in module.state_dict().values()]
    return hashlib.blake2b(b"".join(tensors), digest_size=8).hexdigest()


# -- the run ----------------------------------------------------------------------------------------------------------


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
    url: str, name: str, come_by: Callable[[str], None] = lambda moment: None, every: int = 1
) -> Environment:
    """A loop with everything random that there is. The process it runs in has nothing seeded by itself."""

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
            FunctionSampler(lambda n, rng: named(rng.integers(0, 5000, n)), "its own", 12),
            FunctionSampler(lambda n, rng: named(np.random.randint(0, 5000, n)), "numpy", 12, 0.2),
            FunctionSampler(
                lambda n, rng: named(random.randrange(5000) for _ in range(n)), "python", 0, 0.1
            ),
            FunctionSampler(
                lambda n, rng: named(generator.integers(0, 5000, n)), "generator", 0, 0.1
            ),
        ],
        rewards=[RewardCallback(oracle)],
        cbs=[
            *(BufferSizeCallback, Witness(), Moments("first", -2000), Moments("last", 99)),
            Checkpoint(policy, every, generators=[generator]),
        ],
        buffer=buffer,
        log=Log(console=Console(file=io.StringIO())),
    )


def live(
    url: str, name: str, passed: Connection, fatal: tuple[int, str] | None, every: int, iters: int
) -> None:
    """The life of a process. It dies at the first moment of a kind after so many, if not before by another hand."""
    n_passed = 0

    def come_by(moment: str) -> None:
        nonlocal n_passed
        n_passed += 1
        passed.send(moment)
        if fatal is not None and n_passed >= fatal[0] and fatal[1] in ("", moment):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    with open_store(url, name=name) as store:
        # Another start each time, from before the first batch on: only what is stored can make the runs alike.
        seed = (
            0 if store.checkpoint("checkpoint") is None else random.SystemRandom().randrange(2**32)
        )
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    database.boundary = lambda moment: come_by(f"{moment} COMMIT")
    env = make_run(url, name, come_by, every)
    env.fit(10, iters=iters, report=0)
    env.buffer.close()


def run_once(
    url: str,
    name: str,
    fatal: tuple[int, str] | None = None,
    *,
    hand_s: float | None = None,
    every: int = 1,
    iters: int = ITERATIONS,
) -> list[str]:
    """Run in a process of its own; return the moments that it came by.

    Args:
        url: The database.
        name: The buffer.
        fatal: It kills itself at the first moment of a kind, "" for any, from such a number on.
        hand_s: It is killed from outside instead, so many seconds after that number of moments.
        every: How often it writes its checkpoint.
        iters: Iterations of the whole run.
    """
    processes = forkserver()
    read, write = processes.Pipe(duplex=False)
    its_own = fatal if hand_s is None else None
    process = processes.Process(target=live, args=(url, name, write, its_own, every, iters))
    process.start()
    write.close()
    moments: list[str] = []
    with read, contextlib.suppress(EOFError):
        while True:
            moments.append(read.recv())
            if hand_s is not None and fatal is not None and len(moments) == fatal[0]:
                time.sleep(hand_s)
                process.kill()
    process.join(120)
    assert process.exitcode == (0 if fatal is None else -signal.SIGKILL), moments[-5:]
    return moments


# -- what it leaves ---------------------------------------------------------------------------------------------------

DRAWS = """
    SELECT batches.iteration, draws.position, ranked.place, ranked.text, ranked.source, ranked.reward, draws.weight
    FROM draws JOIN batches ON batches.id = draws.batch_id JOIN (
        SELECT id, text, source, reward, rank() OVER (ORDER BY id) AS place FROM samples
        WHERE buffer_id = (SELECT id FROM buffers WHERE name = :name)
    ) AS ranked ON ranked.id = draws.sample_id
    WHERE batches.settled_at IS NOT NULL AND batches.buffer_id = (SELECT id FROM buffers WHERE name = :name)
    ORDER BY batches.iteration, draws.position
"""
# Ids are compared by rank: PostgreSQL numbers a row before it finds that it is there already, or before its transaction
# is killed, so what is added again leaves gaps in the numbers.
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

    return store._buffer.database.read(read)


def story(url: str, name: str) -> dict[str, Any]:
    """All that a run has left behind, as a run sees it that is started once more, and as SQL sees it."""
    resumed = make_run(url, name)
    resumed.fit(10, iters=ITERATIONS)
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


KINDS = [
    "",
    "before COMMIT",
    "training",
    "",
    "after COMMIT",
    "scoring",
    "",
    "before refresh",
    "before retrain",
    "",
]
"""Where it dies; half of the times where there is no kind it is killed from outside, wherever it is then."""


def test_killed_at_twenty_random_moments(store_url: str) -> None:
    whole = run_once(store_url, "whole")
    told = story(store_url, "whole")
    assert len(told["draws"]) == 6 * ITERATIONS
    assert told["rows"].count("\n") > 9 * ITERATIONS
    assert len(told["versions"]) == len(set(told["versions"])) == 14

    rng = random.Random(store_url.partition(":")[0])
    deaths = []
    for kill in range(KILLS):
        kind = KINDS[kill % len(KINDS)]
        n_moments = rng.randrange(1, round(1.1 * len(whole) / KILLS))
        hand_s = rng.uniform(0.0, 0.02) if not kind and kill % 2 else None
        deaths.append(run_once(store_url, "killed", (n_moments, kind), hand_s=hand_s)[-1])
    run_once(store_url, "killed")
    assert {kind for kind in KINDS if kind} <= set(deaths)
    found = story(store_url, "killed")
    assert {part for part in told if told[part] != found[part]} == set()


RARE = {"every": 3, "iters": 15}
"""A checkpoint after iterations 2, 5, 8 and so on."""

RESUMED = {7: (1, "step of 7"), 11: (1, "before_step of 11"), 13: (1, "before refresh")}
"""The iteration that a run goes on with, and where it was killed: during it, or when the one before was settled."""


def test_killed_between_two_checkpoints(store_url: str) -> None:
    """Where the checkpoint is written every three iterations, only the agent goes back."""
    earlier: dict[str, list[Any]] = {"draws": [], "versions": [], "history": []}
    known: set[str] = set()
    for settled, fatal in {**RESUMED, 15: None}.items():
        moments = run_once(store_url, "rare", fatal, **RARE)
        measured = [
            sample
            for moment in moments
            if moment.startswith("measured")
            for sample in moment.split()[1:]
        ]
        assert len(measured) == len(set(measured)), "no result is measured twice"
        assert known.isdisjoint(measured), "nor is one that was stored"
        with open_store(store_url, name="rare") as store:
            history = [
                (row["iteration"], row["name"], repr(row["value"])) for row in store.history()
            ]
            found = {
                "draws": rows(store, DRAWS),
                "versions": rows(store, VERSIONS),
                "history": history,
            }
            known = set(store.labelled()[0])
            assert (store.iteration, store.check()) == (settled, [])
        # What was settled before the last kill is there once, as it was.
        assert {
            part for part in found if found[part][: len(earlier[part])] != earlier[part]
        } == set()
        assert [row[:2] for row in found["draws"]] == [
            (i, place) for i in range(settled) for place in range(6)
        ]
        earlier = found

    env = make_run(store_url, "rare", every=3)
    env.buffer.close()
    log = env.log
    # The agent is that of the last checkpoint, which is behind by one update, two, and one; all else went on.
    policies = log.metrics["before the step"]
    for i in RESUMED:
        assert policies[i] == policies[i - i % 3]
    assert len(set(policies)) == len(policies) - len(RESUMED) == 15 - 3
    predictors = log.metrics["predictor"]
    assert [i for i in range(1, 15) if predictors[i] != predictors[i - 1]] == [5, 9, 13]
    assert [
        len(log.metrics[metric]) for metric in ("rewards", "policy_loss", "predictive_buffer_loss")
    ] == [15] * 3
