"""Measure the memory that retraining takes, and how fast it reads: a million labelled rows, more features than fit.

    python benchmarks/training_memory.py --rows 1000000

Fills an SQLite file with labelled samples once, then trains in a process of its own and prints its peak of resident
memory, beside that of a process that has only imported torch.
"""

import pathlib
import subprocess
import sys
import time
from typing import Annotated

import numpy as np
import typer

from sqlbuffer import open_store

FILL_AT_ONCE = 50_000

IDLE = """
import resource, torch
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 0, 0)
"""

TRAIN = """
import resource, sys, time
import torch
from sqlbuffer import PredictiveAgent, open_store
from sqlbuffer.retraining import retrain

url, width, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)


def featurize(samples):
    # uint8 codes of the characters, repeated to the width: cheap, so that reading is what takes the time.
    codes = torch.frombuffer(bytearray("".join(samples).encode()), dtype=torch.uint8).reshape(len(samples), -1)
    return codes.float().repeat(1, -(-width // codes.shape[1]))[:, :width] / 128


store = open_store(url)
model = torch.nn.Sequential(torch.nn.Linear(width, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
agent = PredictiveAgent(model, torch.nn.functional.mse_loss, featurize)
start = time.perf_counter()
version = retrain(store, agent, bs=512, epochs=epochs, lr=1e-3)
seconds = time.perf_counter() - start
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, version.rows_trained, seconds)
"""


def fill(url: str, rows: int) -> None:
    """Store labelled samples of 40 characters until there are so many."""
    with open_store(url) as store:
        for start in range(store.stats().measured, rows, FILL_AT_ONCE):
            numbers = range(start, min(start + FILL_AT_ONCE, rows))
            store.record([f"{number:040d}" for number in numbers], np.sin(np.array(numbers) / 1e4))


def run(code: str, *arguments: str) -> tuple[float, int, float]:
    """Run a process; return its peak of memory in MB, the rows it trained on, and the seconds."""
    command = [sys.executable, "-c", code, *arguments]
    peak, trained, seconds = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(peak), int(trained), float(seconds)


def measure(
    rows: Annotated[int, typer.Option(help="Labelled samples.")] = 1_000_000,
    epochs: Annotated[int, typer.Option(help="Passes over them.")] = 2,
    file: Annotated[pathlib.Path, typer.Option(help="The SQLite file; filled where it is not.")] = pathlib.Path(
        "training_memory.db"
    ),
) -> None:
    """Print a Markdown table: peak memory of training with features that fit into the cache, and that do not."""
    url = f"sqlite:///{file}"
    start = time.perf_counter()
    fill(url, rows)
    print(f"filled in {time.perf_counter() - start:.0f} s\n")
    print("| features | all of them | peak memory | rows/s in training |\n|---|---|---|---|")
    print(f"| only torch, imported | | {run(IDLE)[0]:.0f} MB | |")
    for width in (16, 512):
        peak, trained, seconds = run(TRAIN, url, str(width), str(epochs))
        size = rows * width * 4 / 2**20
        print(f"| {width} float32 | {size:.0f} MB | {peak:.0f} MB | {trained * epochs / seconds:,.0f} |")


if __name__ == "__main__":
    typer.run(measure)
