"""What a retraining costs the training loop that goes on beside it, on SQLite.

    python -m benchmarks.background

One loop adds, scores, draws and settles; meanwhile nothing else runs, or the same model is trained on another core: by
a process that knows of no database, which is what sharing the machine costs, by the loop's own background process, or
by `sqlbuffer worker`. They take turns, so that a busy machine is busy for all of them; steps count only where a
training was under way from their beginning to their end.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event

import numpy as np
import torch
import typer
from rich.console import Console

from sqlbuffer import Environment, FunctionSampler, Log, PredictiveAgent, PredictiveBuffer, RewardCallback

LABELLED = 20_000
WAITING = 50_000
WIDTH = 32
EPOCHS, BATCH, RATE = 20, 128, 1e-3
NAMES = ("alone", "without a database", "in_background", "sqlbuffer worker")


def featurize(samples: list[tuple[int, ...]]) -> torch.Tensor:
    """Return (n, WIDTH)."""
    return torch.tensor(samples, dtype=torch.float32) / 100


def make_agent() -> PredictiveAgent:
    """Make a model whose training takes seconds."""
    torch.set_num_threads(1)
    hidden = (torch.nn.Linear(WIDTH, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512), torch.nn.ReLU())
    return PredictiveAgent(
        torch.nn.Sequential(*hidden, torch.nn.Linear(512, 1)), torch.nn.functional.mse_loss, featurize
    )


def new_samples(n: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Make n samples."""
    return [tuple(row) for row in rng.integers(0, 100, (n, WIDTH)).tolist()]


def rewards_of(samples: list[tuple[int, ...]]) -> list[float]:
    """Measure samples."""
    return [sum(sample) / 100 for sample in samples]


@contextlib.contextmanager
def bystander() -> Iterator[None]:
    """Let a process train the same model all the time, on what it has in memory."""
    context = multiprocessing.get_context("spawn")
    trains = context.Event()
    process = context.Process(target=_train_for_ever, args=(trains,), daemon=True)
    process.start()
    try:
        trains.wait()
        yield
    finally:
        process.kill()
        process.join()


def _train_for_ever(trains: Event) -> None:
    agent, samples = make_agent(), new_samples(LABELLED, np.random.default_rng(0))
    agent.update_dataset_from_inputs(samples, rewards_of(samples))
    trains.set()
    while True:
        agent.train_supervised(BATCH, EPOCHS, RATE, silent=True)


@contextlib.contextmanager
def worker(url: str) -> Iterator[None]:
    """Let `sqlbuffer worker` retrain all the time."""
    command = [sys.executable, "-m", "sqlbuffer", "worker", "--url", url, "--agent", "benchmarks.background:make_agent"]
    options = ["--every", "1s", "--epochs", str(EPOCHS), "--bs", str(BATCH), "--no-refresh"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def is_training(buffer: PredictiveBuffer) -> bool:
    """Tell whether a retraining is under way."""
    return any(job.is_held for job in buffer.store.jobs())


def steps(name: str, n: int, folder: str) -> list[float]:
    """Return the seconds of each of n steps of a loop."""
    url = f"sqlite:///{folder}/{name.replace(' ', '_')}.db"
    beside = name == "in_background"
    buffer = PredictiveBuffer(
        1.0,
        refresh_predictions=0,
        predictive_agent=make_agent(),
        pred_bs=512,
        supervised_frequency=1 if beside else 0,
        supervised_epochs=EPOCHS,
        supervised_bs=BATCH,
        supervised_lr=RATE,
        in_background=beside,
        url=url,
    )
    fill(buffer)
    env = Environment(
        samplers=[FunctionSampler(new_samples, "new", buffer_size=128)],
        rewards=[RewardCallback(rewards_of)],
        buffer=buffer,
        log=Log(console=Console(file=io.StringIO())),
    )
    taken: list[float] = []
    with contextlib.ExitStack() as stack:
        stack.callback(buffer.close)
        if name == "sqlbuffer worker":
            stack.enter_context(worker(url))
        elif name == "without a database":
            stack.enter_context(bystander())
        env.fit(128, iters=5)  # the first ones open connections, and start the process
        has_job = name in ("in_background", "sqlbuffer worker")
        counts: Callable[[], bool] = (lambda: is_training(buffer)) if has_job else (lambda: True)
        while len(taken) < n:
            before = counts()
            start = time.perf_counter()
            env.fit(128, iters=1, buffer_frequency=1)
            seconds = time.perf_counter() - start
            taken += [seconds] if before and counts() else []
    return taken


def fill(buffer: PredictiveBuffer) -> None:
    """Let some samples be measured and others wait."""
    rng = np.random.default_rng(0)
    measured = new_samples(LABELLED, rng)
    buffer.store.record(measured, rewards_of(measured))
    buffer.add(new_samples(WAITING, rng))


def main(n: int = 60, rounds: int = 3) -> None:
    """Print median and 90th percentile of the seconds of a step, and how they compare."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(pathlib.Path(__file__).parent.parent)}
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:  # anew: a loop with a history goes on only where that ends
            for name in NAMES:
                seconds[name] += steps(name, n, folder)
    alone = float(np.median(seconds["alone"]))
    print("| retraining | step, median ms | 90th percentile ms | to alone |\n|---|---|---|---|")
    for name, found in seconds.items():
        median, late = np.quantile(found, [0.5, 0.9])
        print(f"| {name} | {median * 1e3:.1f} | {late * 1e3:.1f} | {median / alone:.2f} |")


if __name__ == "__main__":
    typer.run(main)
