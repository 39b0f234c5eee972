"""Loops of several processes on one buffer share its iterations."""

import io
import json
import pathlib
import sys
import time
from typing import Any

import pytest
from rich.console import Console

from helpers.forked import Forked
from helpers.loops import named, number
from helpers.polling import until
from sqlbuffer.store import open_store
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.rewards import RewardCallback

ITERS, N = 20, 3


def live() -> None:
    """Wait for the others, then run a loop, and print its numbers and mean rewards."""
    url, me, n = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def reward(samples: list[str]) -> list[float]:
        calls.append(len(samples))
        if me == "fails" and len(calls) == 3:
            raise ValueError("no licence")
        time.sleep(0.005)
        return [number(sample) for sample in samples]

    calls: list[int] = []
    buffer = Buffer(1.0, url=url)
    log = Log(console=Console(file=io.StringIO()))
    loop = Environment(rewards=[RewardCallback(reward)], buffer=buffer, log=log)
    pathlib.Path(f"{me}.ready").touch()
    until(lambda: len(list(pathlib.Path().glob("*.ready"))) == n)
    try:
        loop.fit(bs=4, iters=ITERS, report=0)
    except ValueError:
        loop.fit(bs=4, iters=ITERS - log.iterations, report=0)
    print(json.dumps([log._iterations_of["rewards"], log.metrics["rewards"]]), flush=True)
    buffer.close()


@pytest.mark.parametrize("names", [["a", "b", "c"], ["fails", "b", "c"]])
def test_iterations_are_shared_and_each_has_its_number(
    names: list[str], store_url: str, tmp_path: pathlib.Path
) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add(named(*range(4 * (ITERS + N))))
    runs = [Forked(live, [store_url, name, str(N)], tmp_path) for name in names]
    said: list[Any] = []
    for run in runs:
        out, err = run.communicate(60)
        assert run.returncode == 0, err
        said.append(json.loads(out.splitlines()[-1]))
    with open_store(store_url) as store:
        total = store.iteration
        assert ITERS <= total < ITERS + N
        stored = {
            row["iteration"]: row["value"] for row in store.history() if row["name"] == "rewards"
        }
        mine = {i: value for run in said for i, value in zip(*run, strict=True)}
        assert sum(len(numbers) for numbers, _ in said) == total
        assert sorted(stored) == list(range(total))
        assert mine == stored
        assert store.stats().claimed == 0
        assert store.check() == []
