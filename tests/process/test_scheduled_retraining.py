"""The example of a loop that never trains, and a worker that does."""

import pathlib
import runpy
import sys
from collections.abc import Callable

import numpy as np
import pytest

from helpers.forked import Forked
from sqlbuffer.cli.main import main
from sqlbuffer.store import open_store

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "scheduled_retraining"


def loop() -> None:
    sys.path.insert(0, str(EXAMPLE))
    runpy.run_path(str(EXAMPLE / "loop.py"), run_name="__main__")


def run(program: Callable[[], object], *words: str) -> str:
    process = Forked(program, [*words], EXAMPLE)
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return said


@pytest.mark.parametrize(
    "store_url",
    ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)],
    indirect=True,
)
def test_the_loop_draws_by_what_the_worker_has_learnt(store_url: str) -> None:
    worker = (
        "worker",
        "--url",
        store_url,
        "--name",
        "points",
        "--agent",
        "models:make_agent",
        "--when-new",
        "100",
    )
    assert "no predictor yet" in run(loop, "--url", store_url, "--iters", "20")
    run(main, *worker, "--epochs", "200", "--lr", "0.01", "--bs", "32", "--once")
    assert "predictor 1, of" in run(loop, "--url", store_url, "--iters", "40")
    with open_store(store_url, name="points") as store:
        assert store.check() == []
        assert (store.iteration, store.stats().measured) == (40, 400)
        before, after = (
            np.mean(
                [
                    row["value"]
                    for row in store.history()
                    if row["name"] == "rewards" and row["iteration"] in when
                ]
            )
            for when in (range(20), range(20, 40))
        )
    assert after > before
