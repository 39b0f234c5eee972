"""Loops that are killed with SIGKILL while they measure a batch."""

import contextlib
import io
import os
import pathlib
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from helpers import rewards
from helpers.forked import forkserver
from helpers.polling import until
from helpers.random_run import make_run, number, story
from helpers.rewards import CALLS, calls, note
from sqlbuffer.store import open_store
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.rewards import RewardCallback

BS = 50
DEADLY = "s7"


@pytest.fixture
def noted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The file to which reward functions append their calls."""
    monkeypatch.setenv(CALLS, str(tmp_path / "calls"))
    return tmp_path / "calls"


# -- a run with a Checkpoint -----------------------------------------------------------------------


def noisy(sample: str) -> float:
    """A reward with random numbers of this process."""
    note(sample)
    time.sleep(0.002)
    return float(np.sin(number(sample) / 300) + np.random.rand() + random.random())


KINDS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "in this process": (noisy, {"each": True}, 1),
    "in children": (rewards.exact, {"each": True, "n_jobs": 3, "timeout_s": 60}, 3),
}
"""Reward function, arguments, and calls at a time."""


def options_of(kind: str) -> dict[str, Any]:
    function, options, _ = KINDS[kind]
    return {"scale": 5, "rewards": [RewardCallback(function, **options)]}


def live(url: str, name: str, kind: str, iters: int, path: str) -> None:
    """The life of a process: another random state each time, from the first batch on."""
    os.environ[CALLS] = path
    torch.set_num_threads(1)
    with open_store(url, name=name) as store:
        is_new = store.checkpoint("checkpoint") is None
    seed = 0 if is_new else random.SystemRandom().randrange(2**32)
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    env = make_run(url, name, **options_of(kind))
    env.fit(BS, iters=iters, report=0)
    env.buffer.close()


def run(target: Any, *args: Any, noted: pathlib.Path, after: int | None = None) -> int:
    """Run in a process of its own, which is killed after so many calls; return its exit code."""
    process = forkserver().Process(target=target, args=(*args, str(noted)))
    n_before = len(calls(noted))
    process.start()
    if after is not None:
        until(lambda: len(calls(noted)) >= n_before + after or not process.is_alive())
        time.sleep(random.uniform(0.0, 0.008))
        process.kill()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def check_kills(url: str, noted: pathlib.Path, kind: str, n_kills: int, iters: int) -> None:
    n_at_once = KINDS[kind][2]
    whole = noted.with_name("whole calls")
    assert run(live, url, "whole", kind, iters, noted=whole) == 0
    n_calls = len(calls(whole))
    assert n_calls > 0.8 * BS * iters
    told = story(url, "whole", bs=BS, iters=iters, **options_of(kind))

    for _ in range(n_kills):
        # Beyond the calls at a time, so that no sample is killed again and again.
        after = random.randint(n_at_once + 1, max(round(0.8 * n_calls / n_kills), n_at_once + 1))
        assert run(live, url, "killed", kind, iters, noted=noted, after=after) == -signal.SIGKILL
    assert run(live, url, "killed", kind, iters, noted=noted) == 0

    found = story(url, "killed", bs=BS, iters=iters, **options_of(kind))
    assert {part for part in told if told[part] != found[part]} == set()
    again = Counter(sample for _, sample in calls(noted)) - Counter(
        sample for _, sample in calls(whole)
    )
    assert again.total() <= n_kills * n_at_once
    assert len(calls(noted)) == n_calls + again.total()


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_killed_in_its_batches_equals_one_that_was_not(
    kind: str, store_url: str, noted: pathlib.Path
) -> None:
    check_kills(store_url, noted, kind, n_kills=3, iters=3)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_killed_twenty_times(kind: str, store_url: str, noted: pathlib.Path) -> None:
    check_kills(store_url, noted, kind, n_kills=20, iters=8)


# -- attempts --------------------------------------------------------------------------------------


def deadly(sample: str) -> float:
    note(sample)
    if sample == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return number(sample)


LOOPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (rewards.slow_list, {}),
    "whole batch": (rewards.slow_list, {"on_error": "fail"}),
    "whole batch in a child": (rewards.slow_list, {"timeout_s": 60}),
    "each": (rewards.slow, {"each": True}),
    "deadly": (deadly, {"each": True}),
}


@contextlib.contextmanager
def looping(url: str, loop: str) -> Iterator[Environment]:
    function, options = LOOPS[loop]
    buffer = Buffer(1.0, url=url)
    log = Log(console=Console(file=io.StringIO()))
    yield Environment(rewards=[RewardCallback(function, **options)], buffer=buffer, log=log)
    buffer.close()


def loop_through(url: str, loop: str, iters: int, path: str) -> None:
    os.environ[CALLS] = path
    with looping(url, loop) as env:
        if not len(env.buffer.store) and not env.log.iterations:
            env.buffer.add([f"s{i}" for i in range(40)])
        env.fit(20, iters=iters, report=0)


@pytest.mark.parametrize(
    ("kind", "loop", "n_kills"),
    [
        ("sqlite", "plain", 4),
        ("postgresql", "plain", 4),
        ("sqlite", "whole batch", 4),
        ("sqlite", "whole batch in a child", 4),
        ("sqlite", "each", 4),
    ],
)
def test_a_loop_killed_in_the_same_batch_sets_nothing_aside(
    kind: str, loop: str, n_kills: int, noted: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    store_url = request.getfixturevalue(f"{kind}_url")
    for _ in range(n_kills):
        # With a call for each sample the runs come further, and a kill meets another sample.
        after = 2 if loop == "each" else 1
        assert run(loop_through, store_url, loop, 2, noted=noted, after=after) == -signal.SIGKILL
    with open_store(store_url, weighting="uniform") as store:
        assert store.iteration == 0
    assert run(loop_through, store_url, loop, 2, noted=noted) == 0
    with open_store(store_url, weighting="uniform") as store:
        assert store.failed() == []
        assert (store.stats().measured, store.iteration, store.check()) == (40, 2, [])


def test_a_sample_that_kills_the_loop_fails_and_the_run_goes_on(
    store_url: str, noted: pathlib.Path
) -> None:
    codes = [run(loop_through, store_url, "deadly", 2, noted=noted) for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 3 + [0]
    with open_store(store_url, weighting="uniform") as store:
        (failed,) = store.failed()
        assert (failed["sample"], failed["error"]) == (DEADLY, "worker died 3 times")
        assert (store.stats().measured, store.iteration, store.check()) == (39, 2, [])
    n_calls = Counter(sample for _, sample in calls(noted))
    assert n_calls.pop(DEADLY) == 3
    assert set(n_calls.values()) == {1}
