"""A run killed with SIGKILL at random moments, again and again, equals to the last bit one that was
never killed.

With a checkpoint every few iterations its agent goes back to the last one, and nothing else does.
"""

import contextlib
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
import torch

from helpers.forked import forkserver
from helpers.random_run import (
    DRAWS,
    ITERATIONS,
    VERSIONS,
    make_run,
    rows,
    story,
)
from sqlbuffer.db import database
from sqlbuffer.store import open_store

KILLS = 7


# -- the run ---------------------------------------------------------------------------------------


def live(
    url: str, name: str, passed: Connection, fatal: tuple[int, str] | None, every: int, iters: int
) -> None:
    """The life of a process.

    It dies at the first moment of a kind after so many, if not before by another hand.
    """
    n_passed = 0

    def come_by(moment: str) -> None:
        nonlocal n_passed
        n_passed += 1
        passed.send(moment)
        if fatal is not None and n_passed >= fatal[0] and fatal[1] in ("", moment):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    with open_store(url, name=name) as store:
        # Another start each time, from before the first batch on: only what is stored can make the
        # runs alike.
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


KINDS = [
    "before COMMIT",
    "",
    "training",
    "after COMMIT",
    "scoring",
    "before refresh",
    "before retrain",
]
"""Where it dies; where there is no kind it is killed from outside, wherever it is then."""


@pytest.mark.parametrize(
    ("kills", "iters"), [(KILLS, ITERATIONS), pytest.param(30, 60, marks=pytest.mark.soak)]
)
def test_killed_at_random_moments(store_url: str, kills: int, iters: int) -> None:
    whole = run_once(store_url, "whole", iters=iters)
    told = story(store_url, "whole", iters=iters)
    assert len(told["draws"]) == 6 * iters
    assert told["rows"].count("\n") > 9 * iters
    assert len(told["versions"]) == len(set(told["versions"])) == iters // 4 - 1

    rng = random.Random(store_url.partition(":")[0])
    deaths = []
    for kill in range(kills):
        kind = KINDS[kill % len(KINDS)]
        n_moments = rng.randrange(1, round(0.8 * len(whole) / kills))
        hand_s = rng.uniform(0.0, 0.02) if not kind and kill % 2 else None
        deaths.append(
            run_once(store_url, "killed", (n_moments, kind), hand_s=hand_s, iters=iters)[-1]
        )
    run_once(store_url, "killed", iters=iters)
    assert {kind for kind in KINDS if kind} <= set(deaths)
    found = story(store_url, "killed", iters=iters)
    assert {part for part in told if told[part] != found[part]} == set()


RARE = {"every": 3, "iters": 15}
"""A checkpoint after iterations 2, 5, 8 and so on."""

RESUMED = {7: (1, "step of 7"), 11: (1, "before_step of 11"), 13: (1, "before refresh")}
"""The iteration that a run goes on with, and where it was killed: during it, or when the one before
was settled.
"""


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
    # The agent is that of the last checkpoint, which is behind by one update, two, and one; all
    # else went on.
    policies = log.metrics["before the step"]
    for i in RESUMED:
        assert policies[i] == policies[i - i % 3]
    assert len(set(policies)) == len(policies) - len(RESUMED) == 15 - 3
    predictors = log.metrics["predictor"]
    assert [i for i in range(1, 15) if predictors[i] != predictors[i - 1]] == [5, 9, 13]
    assert [
        len(log.metrics[metric]) for metric in ("rewards", "policy_loss", "predictive_buffer_loss")
    ] == [15] * 3
