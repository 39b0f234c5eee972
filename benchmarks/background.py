"""What a retraining costs the training loop that goes on beside it, on SQLite.

    python -m benchmarks.background

A loop adds, scores, draws and settles, while the same model is trained on another core: by the loop's own background
process, or by `sqlbuffer worker`; and, to see what sharing the machine costs by itself, by a process that knows of no
database, or by `sqlbuffer worker` on another one. In turn the trainer is stopped for a few steps (SIGSTOP) and let run
for as many, so that both are measured within half a second; what counts is how the two compare. Steps beside it count
only where a training was under way all the time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import multiprocessing
import os
import pathlib
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event

import numpy as np
import psutil
import torch
import typer
from rich.console import Console

from benchmarks.measure import timed
from sqlbuffer import (
    Environment,
    FunctionSampler,
    Log,
    PredictiveAgent,
    PredictiveBuffer,
    RewardCallback,
    SampleStore,
    open_store,
)

LABELLED = 20_000
"""What is labelled at first, and trained on at any time."""

WAITING = 50_000
WIDTH = 32
EPOCHS, BATCH, RATE = 20, 128, 1e-3
STEPS = 4
"""Steps before the trainer is stopped, or let run, again."""


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


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Who trains meanwhile.

    Attributes:
        pids: Return the numbers of its processes.
        is_at_work: Tell whether a training is under way.
    """

    pids: Callable[[], list[int]]
    is_at_work: Callable[[], bool]


@contextlib.contextmanager
def bystander(_: SampleStore) -> Iterator[Trainer]:
    """Let a process train the same model all the time, on what it has in memory."""
    context = multiprocessing.get_context("spawn")
    trains = context.Event()
    process = context.Process(target=_train_for_ever, args=(trains,), daemon=True)
    process.start()
    try:
        trains.wait()
        yield Trainer(lambda: [process.pid or 0], lambda: True)
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
def worker(store: SampleStore) -> Iterator[Trainer]:
    """Let `sqlbuffer worker` retrain all the time on the rows of a store."""
    command = [sys.executable, "-m", "sqlbuffer", "worker", "--url", store.url]
    options = ["--agent", "benchmarks.background:make_agent", "--every", "1s", "--epochs", str(EPOCHS)]
    options += ["--bs", str(BATCH), "--newest", str(LABELLED), "--no-refresh"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    try:
        yield Trainer(lambda: [process.pid], functools.partial(is_training, store))
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def worker_elsewhere(_: SampleStore) -> Iterator[Trainer]:
    """Let `sqlbuffer worker` retrain on the same rows in another database."""
    with tempfile.TemporaryDirectory() as folder, open_store(f"sqlite:///{folder}/other.db") as other:
        fill(other)
        with worker(other) as trainer:
            yield trainer


@contextlib.contextmanager
def children(store: SampleStore) -> Iterator[Trainer]:
    """The loop has its own trainer, a process that it starts."""
    yield Trainer(
        lambda: [child.pid for child in psutil.Process().children(recursive=True)],
        functools.partial(is_training, store),
    )


TRAINERS = {
    "process without a database": bystander,
    "worker on another database": worker_elsewhere,
    "in_background": children,
    "sqlbuffer worker": worker,
}


@contextlib.contextmanager
def stopped(pids: list[int], file: pathlib.Path) -> Iterator[None]:
    """Stop processes, but none that holds the lock of the database."""
    processes = [psutil.Process(pid) for pid in pids]
    while True:
        for process in processes:
            process.suspend()
        if is_free(file):
            break
        for process in processes:
            process.resume()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def is_free(file: pathlib.Path) -> bool:
    """Tell whether nobody is writing."""
    with contextlib.closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True


def is_training(store: SampleStore) -> bool:
    """Tell whether a retraining is under way."""
    return any(job.is_held for job in store.jobs())


def pairs(name: str, n: int, file: pathlib.Path) -> list[tuple[float, float]]:
    """Return the seconds of a step, n times: while the trainer is stopped, and beside it."""
    buffer = PredictiveBuffer(
        1.0,
        refresh_predictions=0,
        predictive_agent=make_agent(),
        pred_bs=512,
        supervised_frequency=1 if name == "in_background" else 0,
        supervised_epochs=EPOCHS,
        supervised_bs=BATCH,
        supervised_lr=RATE,
        supervised_kwargs={"newest": LABELLED},
        in_background=name == "in_background",
        url=f"sqlite:///{file}",
    )
    fill(buffer.store)
    env = Environment(
        samplers=[FunctionSampler(new_samples, "new", buffer_size=128)],
        rewards=[RewardCallback(rewards_of)],
        buffer=buffer,
        log=Log(console=Console(file=io.StringIO())),
    )
    steps = functools.partial(env.fit, 128, buffer_frequency=1)
    order = random.Random(0)
    found: list[tuple[float, float]] = []
    with contextlib.ExitStack() as stack:
        stack.callback(buffer.close)
        trainer = stack.enter_context(TRAINERS[name](buffer.store))
        steps(iters=5)  # the first ones open connections, and start the process
        while len(found) < n:
            if not trainer.is_at_work():
                steps(iters=1)
                continue
            seconds = {}
            for is_stopped in order.sample((True, False), 2):
                with stopped(trainer.pids(), file) if is_stopped else contextlib.nullcontext():
                    seconds[is_stopped] = timed(functools.partial(steps, iters=STEPS)) / STEPS
            found += [(seconds[True], seconds[False])] if trainer.is_at_work() else []
    return found


def fill(store: SampleStore) -> None:
    """Let some samples be measured and others wait."""
    rng = np.random.default_rng(0)
    measured = new_samples(LABELLED, rng)
    store.record(measured, rewards_of(measured))
    store.add(new_samples(WAITING, rng))


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    rng = np.random.default_rng(0)
    low, high = np.quantile(np.median(rng.choice(ratios, (5000, len(ratios))), axis=1), [0.025, 0.975])
    return float(low), float(high)


def main(n: int = 40, rounds: int = 3) -> None:
    """Print the median seconds of a step, and how those beside a training compare to those just before or after."""
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(pathlib.Path(__file__).parent.parent)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in TRAINERS}
    for number in range(rounds):
        for name in random.Random(number).sample(list(found), len(found)):
            with tempfile.TemporaryDirectory() as folder:  # anew: a loop with a history goes on only where that ends
                found[name] += pairs(name, n, pathlib.Path(folder, "loop.db"))
    print("| retraining | step, trainer stopped, ms | trainer at work, ms | ratio | 95 % |\n|---|---|---|---|---|")
    for name, values in found.items():
        seconds = np.array(values)
        ratios = seconds[:, 1] / seconds[:, 0]
        still, beside = np.median(seconds, axis=0) * 1e3
        low, high = interval(ratios)
        print(f"| {name} | {still:.1f} | {beside:.1f} | {np.median(ratios):.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    typer.run(main)
