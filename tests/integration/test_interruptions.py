"""A COMMIT fails, or is interrupted, at every write of a store and of a loop, which then go on:
nothing is lost.

Unlike a kill this leaves the objects in memory, with all that they believe to be stored.
"""

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from helpers import inside
from helpers.actions import ACTIONS, TWENTY, account, drain, reward_of, start, take_up_the_job
from helpers.random_run import DRAWS, VERSIONS, digest, make_run, rows
from sqlbuffer.predictor.weights import dump_state
from sqlbuffer.store import SampleStore
from sqlbuffer.training.environment import Environment

pytestmark = pytest.mark.slow

KINDS: dict[str, tuple[str, type[BaseException]]] = {
    "fails": ("before", OSError),
    "is interrupted": ("before", KeyboardInterrupt),
    "is interrupted when done": ("after", KeyboardInterrupt),
}

NewStore = Callable[..., SampleStore]


class Commits:
    """Counts the COMMITs of this thread, and lets some of them fail."""

    def __init__(self, fatal: Iterator[tuple[int, str]]) -> None:
        self.n = 0
        self.n_failed = 0
        self._fatal = fatal
        self._next = next(fatal, None)

    def __call__(self, moment: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self.n += moment == "before"
        if self._next is None or self.n != self._next[0]:
            return
        when, error = KINDS[self._next[1]]
        if when == moment:
            self._next = next(self._fatal, None)
            self.n_failed += 1
            raise error(f"at COMMIT {self.n}")


# -- a store ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("store_url", "action", "kind"),
    [
        ("postgresql" if k == i % len(KINDS) else "sqlite", action, kind)
        for i, action in enumerate(ACTIONS)
        for k, kind in enumerate(KINDS)
    ],
    indirect=["store_url"],
)
@pytest.mark.parametrize("is_long", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_store_goes_on(
    store_url: str,
    new_store: NewStore,
    monkeypatch: pytest.MonkeyPatch,
    look_on: Callable[..., int],
    action: str,
    kind: str,
    is_long: bool,
) -> None:
    """At the first COMMIT, and at every third one after it, another third of them for each kind of
    failure. The long run takes each.
    """
    thirds = itertools.count(2 + [*KINDS].index(kind), len(KINDS))
    moments = itertools.count(1) if is_long else itertools.chain([1], thirds)
    n, has_failed = 0, True
    while has_failed:
        n = next(moments)
        start(store_url, f"fails at {n}")
        store = new_store(name=f"fails at {n}")
        with monkeypatch.context() as patch:
            commits = Commits(iter([(n, kind)]))
            inside.call_at_commits(patch, commits)
            try:
                ACTIONS[action](store)
            except KINDS[kind][1] as exc:
                assert str(exc) == f"at COMMIT {n}"  # noqa: PT017
                exc.__traceback__ = None  # it holds the batch of the action
            has_failed = bool(commits.n_failed)
        store._release_dropped()
        left = account(store)
        assert left.waiting | set(left.measured) >= set(TWENTY) or action == "remove"
        if action == "retrain" and has_failed:
            if kind == "fails" and any(job.is_held for job in store.jobs()):
                look_on(
                    store, for_s=inside.handle_of(store).grace_s
                )  # a lease that could not be ended runs out
            take_up_the_job(store)
        ACTIONS[action](store)
        store._release_dropped()
        again = drain(store)
        assert len(again) == len(set(again))
        measured = account(store).measured
        assert measured == {sample: reward_of(sample) for sample in measured}
        store.close()
    assert n > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_state_of_a_predictor_is_stored_at_last(
    store_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It is what a run that is killed before the first retraining begins with again."""
    env = seeded(store_url, "first state")
    with monkeypatch.context() as patch:
        inside.call_at_commits(patch, Commits(iter([(1, kind)])))
        with pytest.raises(KINDS[kind][1]):
            env.fit(10, iters=1, report=0)
    assert env.buffer.store.iteration == 0
    env.fit(10, iters=2, report=0)
    stored = env.buffer.store.checkpoint("predictive_buffer")
    assert stored is not None
    assert stored[1] == dump_state(env.buffer.predictive_agent)
    env.buffer.close()


# -- a loop ----------------------------------------------------------------------------------------

ITERATIONS = 6

APART = 23
"""COMMITs between two that fail: more than an iteration has, which is done again each time."""


def seeded(url: str, name: str) -> Environment:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    return make_run(url, name)


def told(env: Environment) -> dict[str, Any]:
    """What a run has come to: in memory, and in the database."""
    log, store = env.log, env.buffer.store
    assert store.check() == []
    return {
        "iterations": (log.iterations, store.iteration),
        "metrics": {
            key: repr(values)
            for key, values in log.metrics.items()
            if key not in ("policy", "noise")
        },
        "history": [row for row in store.history() if row["name"] != "noise"],
        "rows": log.df.to_csv(),
        "draws": rows(store, DRAWS),
        "versions": rows(store, VERSIONS),
        "waiting": sorted(
            zip(store.waiting().samples, store.waiting().scores.tolist(), strict=True)
        ),
        "checkpoint": store.checkpoint("checkpoint"),
        "first state": (store.checkpoint("predictive_buffer") or (0, b""))[1],
        "policy": digest(env.policy.model),
        "predictor": digest(env.buffer.predictive_agent.model),
    }


@pytest.mark.parametrize("is_long", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_loop_goes_on(store_url: str, monkeypatch: pytest.MonkeyPatch, is_long: bool) -> None:
    """To the last bit as one at which nothing ever failed. The long run fails at each COMMIT."""
    kinds = [*KINDS]
    env = seeded(store_url, "whole")
    env.fit(10, iters=ITERATIONS, report=0)
    whole = told(env)
    env.buffer.close()
    assert len(whole["versions"]) == 1
    every = 1 if is_long else 4  # no multiple of the number of kinds
    for first in range(1, APART + 1, every):
        env = seeded(store_url, f"first at {first}")
        with monkeypatch.context() as patch:
            commits = Commits((first + i * APART, kinds[(first + i) % 3]) for i in range(1000))
            inside.call_at_commits(patch, commits)
            while env.log.iterations < ITERATIONS:
                try:
                    env.fit(10, iters=ITERATIONS - env.log.iterations, report=0)
                except (OSError, KeyboardInterrupt) as exc:
                    assert str(exc).startswith("at COMMIT")  # noqa: PT017
        assert commits.n_failed
        found = told(env)
        assert {part for part in whole if whole[part] != found[part]} == set(), f"first at {first}"
        env.buffer.close()
