"""Measure a refresh with a model against its two parts, side by side: the model alone, and the SQL alone.

    OMP_NUM_THREADS=1 python -m benchmarks.refresh_rate --size 1000000

The model alone predicts for the same samples, already decoded. The SQL alone rewrites the same scores and keys through
`sqlite3`, all of it known beforehand, each table in the order in which it is stored, in transactions of the same size.
"""

from __future__ import annotations

import contextlib
import gc
import pathlib
import sqlite3
import tempfile
import time
from collections.abc import Callable
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.contenders import raw
from benchmarks.contenders.raw_sqlite import MOVE, PRAGMAS, SCORE
from benchmarks.data import LENGTH, Items
from sqlbuffer import SampleStore, open_store

CHUNK = 10_000
"""Samples predicted at a time, as in the library."""


def featurize(samples: list[str]) -> torch.Tensor:
    """Return the letters of n samples as numbers, (n, LENGTH) float32."""
    letters = np.frombuffer("".join(samples).encode(), dtype=np.uint8).reshape(len(samples), LENGTH)
    return torch.from_numpy(letters.astype(np.float32) / 128.0)


class Predictor:
    """A small network on the letters of a sample; each version has other weights."""

    def __init__(self, hidden: int) -> None:
        self.hidden = hidden
        self.renew(0)

    def renew(self, version: int) -> None:
        """Take other weights, as after a training."""
        with torch.random.fork_rng():
            torch.manual_seed(version)
            layers = (torch.nn.Linear(LENGTH, self.hidden), torch.nn.ReLU(), torch.nn.Linear(self.hidden, 1))
        self.model = torch.nn.Sequential(*layers).eval()

    def __call__(self, samples: list[str]) -> NDArray[np.float64]:
        """Return (n,) float64 scores."""
        with torch.no_grad():
            scores: NDArray[np.float64] = self.model(featurize(samples)).ravel().double().numpy()
        return scores


def predict(predictor: Predictor, samples: list[str]) -> NDArray[np.float64]:
    """Return the scores of all samples, chunk by chunk."""
    return np.concatenate([predictor(samples[i : i + CHUNK]) for i in range(0, len(samples), CHUNK)])


def rewrite(file: pathlib.Path, predicted: NDArray[np.float64], *, version: int) -> None:
    """Write scores, weights and keys of the samples, which are in the order of their ids."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        run = connection.execute
        rows = run("SELECT sample_id, race_key, weight FROM pool WHERE buffer_id = 1").fetchall()
        ids, keys, old = (np.array(column) for column in zip(*rows, strict=True))
        scores = predicted[np.argsort(np.argsort(ids))]
        base = float(predicted.min())
        new = raw.shifted(scores, base)
        moved = raw.rescaled(keys, 0.0, old, new)
        changes = sorted(zip(ids.tolist(), scores.tolist(), strict=True))
        for start in range(0, len(ids), CHUNK):
            run("BEGIN IMMEDIATE")
            connection.executemany(SCORE, [(score, version, i) for i, score in changes[start : start + CHUNK]])
            run("COMMIT")
        for start in range(0, len(ids), raw.SWAP_CHUNK):
            part = slice(start, start + raw.SWAP_CHUNK)
            columns = [column[part].tolist() for column in (moved, new, scores, keys, ids)]
            run("BEGIN IMMEDIATE")
            connection.executemany(MOVE, [(to, w, s, 0, 1, at, i) for to, w, s, at, i in zip(*columns, strict=True)])
            run("COMMIT")
        run("UPDATE buffers SET base_score = ?, top_score = NULL", (base,))


def fill(store: SampleStore, size: int) -> list[str]:
    """Put distinct samples into a store, with scores; return those that wait, in the order of their ids."""
    for start in range(len(store), size, 100_000):
        store.add(Items.make(start, min(100_000, size - start)).texts)
    store.score(lambda samples: np.random.default_rng(0).random(len(samples)))
    return store.waiting().samples


class Seconds(NamedTuple):
    """What a call took."""

    clock: float
    cpu: float


def timed(call: Callable[[], object]) -> Seconds:
    """Measure a call: by the clock, and what it took of processors, which other programs lengthen less."""
    gc.collect()
    gc.freeze()
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.perf_counter() - clock, time.process_time() - cpu)


def measure(file: pathlib.Path, *, size: int, rounds: int, hidden: int) -> dict[str, Seconds]:
    """Return the median seconds of each, measured in turn."""
    predictor = Predictor(hidden)
    with open_store(f"sqlite:///{file}") as store:
        samples = fill(store, size)
        known = predict(predictor, samples)
        found: dict[str, list[Seconds]] = {"model alone": [], "SQL alone": [], "refresh": []}
        for i in range(rounds):
            predictor.renew(i + 1)
            scores = np.roll(known, 1000 * (i + 1))
            found["model alone"].append(timed(lambda: predict(predictor, samples)))
            found["SQL alone"].append(timed(lambda scores=scores: rewrite(file, scores, version=0)))
            found["refresh"].append(timed(lambda: store.score(predictor, only="all", chunk=CHUNK)))
        if problems := store.check():
            raise SystemExit("\n".join(problems))
    return {what: Seconds(*np.median(values, axis=0).tolist()) for what, values in found.items()}


def main(
    size: Annotated[int, typer.Option(min=1000, help="Samples that wait.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is measured.")] = 3,
    hidden: Annotated[int, typer.Option(min=1, help="Width of the network.")] = 256,
    folder: Annotated[
        pathlib.Path | None, typer.Option(help="Where the database stays, to be used again; else it is deleted.")
    ] = None,
) -> None:
    """Print the median seconds of the three, and the rate of the refresh against the slower of its parts."""
    with tempfile.TemporaryDirectory() as anywhere:
        file = pathlib.Path(anywhere if folder is None else folder, f"refresh-{size}.db")
        found = measure(file, size=size, rounds=rounds, hidden=hidden)
    print(f"{size:,} samples, {rounds} rounds, network of {hidden}\n\n| | s | s of processor |\n|---|---|---|")
    for what, seconds in found.items():
        print(f"| {what} | {seconds.clock:.1f} | {seconds.cpu:.1f} |")
    parts = (found["model alone"], found["SQL alone"])
    slower = [max(part[i] for part in parts) / found["refresh"][i] for i in range(2)]
    print(f"| rate of the refresh against the slower | {slower[0]:.2f} | {slower[1]:.2f} |")


if __name__ == "__main__":
    typer.run(main)
