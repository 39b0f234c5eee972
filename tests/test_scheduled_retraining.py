"""The example of a loop that never trains, and a worker that does."""

import os
import pathlib
import subprocess
import sys

import numpy as np

from sqlbuffer.store import open_store

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "scheduled_retraining"


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=EXAMPLE, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_loop_draws_by_what_the_worker_has_learnt(store_url: str) -> None:
    loop = ("loop.py", "--url", store_url, "--iters")
    worker = ("-m", "sqlbuffer", "worker", "--url", store_url, "--name", "points", "--agent", "models:make_agent")
    assert "no predictor yet" in run(*loop, "20")
    run(*worker, "--when-new", "100", "--epochs", "200", "--lr", "0.01", "--bs", "32", "--once")
    assert "predictor 1, of" in run(*loop, "40")
    with open_store(store_url, name="points") as store:
        assert store.check() == []
        assert (store.iteration, store.stats().measured) == (40, 400)
        before, after = (
            np.mean([row["value"] for row in store.history() if row["name"] == "rewards" and row["iteration"] in when])
            for when in (range(20), range(20, 40))
        )
    assert after > before
