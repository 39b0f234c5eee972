"""Rewards of a loop: measured in slots, stored as they come, each once."""

import contextlib
import io
import logging
import math
import pathlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest
import sqlalchemy as sa
from rich.console import Console

from helpers import inside
from helpers.loops import named, number
from helpers.rewards import CALLS, calls, dock, dock_all
from sqlbuffer.cli.claims import release_batches
from sqlbuffer.db.schema import measurements, samples
from sqlbuffer.errors import CannotMeasure, InvalidArgument
from sqlbuffer.looks.opening import handles, open_existing
from sqlbuffer.looks.overview import overview
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.callback import Callback
from sqlbuffer.training.environment import Environment
from sqlbuffer.training.log import Log
from sqlbuffer.training.rewards import RewardCallback
from sqlbuffer.training.samplers import FunctionSampler


@pytest.fixture
def loop(store_url: str) -> Iterator[Callable[..., Environment]]:
    """Makes loops over one buffer, in which the given samples wait."""
    opened: list[Buffer] = []

    def make(
        reward: RewardCallback, waiting: Any = (), p_total: float = 1.0, **options: Any
    ) -> Environment:
        settings = {"mode": options.pop("mode")} if "mode" in options else {}
        opened.append(Buffer(p_total, url=store_url, **settings))
        opened[-1].add(list(waiting))
        log = Log(console=Console(file=io.StringIO()))
        return Environment(rewards=[reward], buffer=opened[-1], log=log, **options)

    yield make
    for buffer in opened:
        buffer.close()


@pytest.fixture
def noted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv(CALLS, str(tmp_path / "calls"))
    return tmp_path / "calls"


def kept(store: SampleStore) -> list[tuple[Any, ...]]:
    """Sample, reward and error of all measurements, in the order of the samples."""
    m = measurements.c
    columns = (samples.c.text, m.reward, m.error)
    query = sa.select(*columns).join(samples, samples.c.id == m.sample_id)
    return sorted(
        ((str(row[0]).strip("'\""), *row[1:]) for row in inside.rows(store, query)), key=str
    )


HOW: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (lambda samples: [number(sample) for sample in samples], {}),
    "whole": (lambda samples: [number(sample) for sample in samples], {"on_error": "fail"}),
    "each": (number, {"each": True}),
    "children": (lambda sample: float(sample[1:]), {"each": True, "n_jobs": 2}),
    "chunks": (lambda samples: [float(sample[1:]) for sample in samples], {"n_jobs": 2}),
    "timeout": (lambda samples: [float(sample[1:]) for sample in samples], {"timeout_s": 60}),
    "executor": (number, {"each": True, "n_jobs": 3, "executor": ThreadPoolExecutor(3)}),
}


@pytest.mark.parametrize(
    ("how", "mode"),
    [*((how, "consume") for how in HOW), ("plain", "replay"), ("each", "replay")],
)
def test_each_reward_is_stored_once(loop: Callable[..., Environment], how: str, mode: str) -> None:
    """Also of samples that were not drawn; a reward that is reused is no measurement."""
    function, options = HOW[how]
    fresh = FunctionSampler(
        lambda n, rng: named(*(100 + rng.choice(40, n, replace=False))), "own", 0, 0.25
    )
    reward = RewardCallback(function, weight=2.0, **options)
    env = loop(reward, named(*range(30)), 0.75, samplers=[fresh], mode=mode)
    env.fit(12, iters=3, report=0)
    store = env.buffer.store
    found = env.log.df
    assert len(found) > 30
    assert found["rewards"].tolist() == [2 * number(sample) for sample in found["samples"]]
    distinct = sorted(set(found["samples"]))
    assert sorted(row[0] for row in kept(store)) == distinct
    assert sorted(store.labelled()[0]) == distinct
    assert store.stats().measured == len(distinct)
    assert (store.stats().claimed, store.check()) == (0, [])
    sources = {row["sample"]: row["source"] for row in store.top(100)}
    assert all((sources[sample] == "own") == (number(sample) >= 100) for sample in distinct)


BAD = ["raise", "none", "exit 3", "hang"]
REASONS = ["ValueError: no conformer", "the reward function returned None", "worker died", "timed"]


@pytest.mark.slow
@pytest.mark.parametrize("is_fresh", [False, True], ids=["drawn", "fresh"])
@pytest.mark.parametrize("each", [True, False], ids=["each", "chunks"])
def test_bad_samples_fail_with_their_reasons(
    loop: Callable[..., Environment], each: bool, is_fresh: bool, noted: pathlib.Path
) -> None:
    given = [*BAD, "a", "b", "c"]
    sampler = FunctionSampler(lambda n, rng: given, "own", 0, 1.0)
    options = {"n_jobs": 2, "timeout_s": 1.5, "each": each}
    reward = RewardCallback(dock if each else dock_all, **options)
    env = loop(
        reward,
        [] if is_fresh else given,
        float(not is_fresh),
        samplers=[sampler] if is_fresh else [],
    )
    env.fit(7, iters=1, report=0)
    store = env.buffer.store
    rewards = dict(zip(env.batch_state.samples, env.batch_state.rewards, strict=True))
    assert {sample for sample in given if math.isnan(rewards[sample])} == set(BAD)
    failed = {row["sample"]: row["error"] for row in store.failed()}
    assert failed.keys() == set(BAD)
    assert all(failed[sample].startswith(why) for sample, why in zip(BAD, REASONS, strict=True))
    times = "once" if is_fresh else "3 times"
    assert ("3 times" in failed["exit 3"]) == (times == "3 times")
    assert store.stats().measured == 3
    deaths_before_the_last = 0 if is_fresh else 2
    assert len(kept(store)) == len(given) + deaths_before_the_last
    assert (store.iteration, store.check()) == (1, [])


def test_retry_measures_again_until_the_attempts_are_used_up(
    loop: Callable[..., Environment],
) -> None:
    n_calls: dict[str, int] = {}

    def moody(sample: str) -> float:
        n_calls[sample] = n_calls.get(sample, 0) + 1
        if number(sample) < 2 and n_calls[sample] < 3 + number(sample):
            raise ValueError("no conformer")
        return number(sample)

    env = loop(RewardCallback(moody, each=True, on_error="retry"), named(0, 1, 2))
    env.fit(3, iters=1, report=0)
    assert n_calls == {"s0": 3, "s1": 3, "s2": 1}
    (failed,) = env.buffer.store.failed()
    assert failed["error"].startswith("ValueError: no conform")
    assert failed["error"].endswith(": tried 3 times")
    assert sorted(env.buffer.store.labelled()[0]) == named(0, 2)


@pytest.mark.slow
def test_an_error_that_is_raised_ends_the_fit_and_a_later_one_goes_on(
    loop: Callable[..., Environment], noted: pathlib.Path
) -> None:
    before = psutil.Process().children()  # of other tests
    given = ["a", "b", "c", "raise", "d"]
    reward = RewardCallback(dock, each=True, n_jobs=2, on_error="raise")
    env = loop(reward, given)
    with pytest.raises(CannotMeasure, match="sample 'raise' could not be measured: ValueError"):
        env.fit(5, iters=1, report=0)
    assert psutil.Process().children() == before
    store = env.buffer.store
    n_stored = len(store.labelled()[0])
    assert (len(store), store.stats().claimed) == (5, 0)
    env.buffer._filter_buffer([sample != "raise" for sample in env.buffer.buffer])
    env.fit(4, iters=1, report=0)
    assert psutil.Process().children() == before
    assert len(kept(store)) == store.stats().measured == 4
    times = [sample for _, sample in calls(noted)]
    assert sum(times.count(sample) for sample in "abcd") <= 4 + 2, "those that ran were killed"
    assert n_stored <= 4


def test_ctrl_c_keeps_the_rewards_that_came(loop: Callable[..., Environment]) -> None:
    seen: list[str] = []

    def interrupted(sample: str) -> float:
        seen.append(sample)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return number(sample)

    env = loop(RewardCallback(interrupted, each=True), named(*range(10)))
    with pytest.raises(KeyboardInterrupt):
        env.fit(10, iters=1, report=0)
    store = env.buffer.store
    assert sorted(store.labelled()[0]) == sorted(seen[:5])
    assert len(store) == 10
    env.fit(10, iters=1, report=0)
    assert len(seen) == 11
    assert env.batch_state.samples[:6] == seen[:6], "the same batch in the same order"
    assert len(kept(store)) == 10


@pytest.mark.slow
def test_a_batch_that_is_released_meanwhile_keeps_its_rewards(
    loop: Callable[..., Environment], store_url: str
) -> None:
    """Its samples are not measured again."""
    seen: list[str] = []

    def measure(sample: str) -> float:
        seen.append(sample)
        if len(seen) == 3:
            with open_store(store_url, weighting="uniform") as other:
                assert release_batches([inside.handle_of(other)], [env.buffer._batch.id]) == 1
        return number(sample)

    env = loop(RewardCallback(measure, each=True), named(*range(6)))
    store = env.buffer.store
    env.fit(6, iters=1, report=0)
    assert sorted(seen) == named(*range(6))
    assert (store.iteration, store.stats().measured, store.check()) == (1, 6, [])
    assert len(kept(store)) == 6


class Halved(Callback):
    """Changes measured rewards: before they are kept as measured, or after."""

    def __init__(self, event: str) -> None:
        super().__init__(name="halved", order=20)
        self.event = event

    def __call__(self, event: str) -> None:
        if event == self.event:
            self.environment.batch_state.rewards = self.environment.batch_state.rewards / 2


@pytest.mark.parametrize("how", ["plain", "each"])
@pytest.mark.parametrize(
    ("event", "factor"), [("reward_modification", 1.0), ("compute_reward", 0.5)]
)
def test_a_reward_that_another_callback_has_changed_is_stored(
    loop: Callable[..., Environment], how: str, event: str, factor: float
) -> None:
    function, options = HOW[how]
    env = loop(RewardCallback(function, **options), named(1, 2, 3), cbs=[Halved(event)])
    env.fit(3, iters=1, report=0)
    assert dict(zip(*env.buffer.store.labelled(), strict=True)) == {
        f"s{i}": factor * i for i in (1, 2, 3)
    }


@pytest.mark.parametrize("as_array", [list, lambda each: np.array(each, dtype=object)])
@pytest.mark.parametrize("p_total", [1.0, 0.0], ids=["drawn", "fresh"])
def test_none_is_a_failure_with_this_reason(
    loop: Callable[..., Environment], as_array: Any, p_total: float
) -> None:
    """As in `settle`."""
    found = {"s1": None, "s2": math.nan, "s3": 3.0}
    reward = RewardCallback(lambda samples: as_array([found[sample] for sample in samples]))
    sampler = FunctionSampler(lambda n, rng: list(found), "own", 0, 1.0 - p_total)
    env = loop(reward, found if p_total else [], p_total, samplers=[sampler])
    env.fit(3, iters=1, report=0)
    assert kept(env.buffer.store) == [
        ("s1", None, "the reward is None"),
        ("s2", None, "the reward is NaN"),
        ("s3", 3.0, None),
    ]


def test_details_and_seconds_are_kept(loop: Callable[..., Environment]) -> None:
    env = loop(RewardCallback(lambda s: (number(s), {"pose": s}), each=True), named(4))
    env.fit(1, iters=1, report=0)
    ((seconds, details),) = inside.rows(
        env.buffer.store, sa.select(measurements.c.seconds, measurements.c.details)
    )
    assert seconds >= 0
    assert details in ({"pose": "s4"}, '{"pose":"s4"}', '{"pose": "s4"}')


def test_what_is_refused(loop: Callable[..., Environment]) -> None:
    for options, rule in (
        ({"timeout_s": 0}, "timeout_s must be a positive number of seconds"),
        ({"n_jobs": 0}, "n_jobs must be from 1 to"),
        ({"on_error": "ignore"}, "on_error must be"),
        ({"executor": 3}, "executor must have the methods"),
        ({"each": 1}, "each must be"),
    ):
        with pytest.raises(InvalidArgument, match=rule):
            RewardCallback(number, **options)
    lock = threading.Lock()
    with pytest.raises(InvalidArgument, match="cannot be sent to child processes"):
        RewardCallback(lambda sample: lock.locked(), each=True, n_jobs=2)
    early = RewardCallback(number, "dock", each=True, reuse=False)
    other = RewardCallback(lambda samples: [1.0] * len(samples), "size", reuse=False)
    env = loop(early, named(1), cbs=[other])
    with pytest.raises(
        InvalidArgument, match="'dock' would store each reward as it comes, but 'si"
    ):
        env.fit(1, iters=1)


# -- the end of a fit ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["plain", "each"])
def test_a_budget_ends_the_fit(
    loop: Callable[..., Environment], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    function, options = HOW[how]
    env = loop(RewardCallback(function, **options), named(*range(40)))
    store = env.buffer.store
    store.set_budget(13)
    env.fit(5, iters=100, report=0)
    assert (store.stats().measured, len(kept(store)), store.iteration) == (13, 13, 3)
    assert "the budget of the buffer is used up: the fit ends" in caplog.text


def test_the_end_of_a_loop_is_not_that_of_its_pool(
    loop: Callable[..., Environment], store_url: str
) -> None:
    def look() -> dict[str, Any]:
        with contextlib.closing(open_existing(store_url, read_only=True)) as database:
            return handles(database, "default")[0].read(overview)

    env = loop(RewardCallback(HOW["plain"][0]), named(*range(9)))
    env.fit(3, iters=2, report=0)
    found = look()
    assert (found["seconds_left"], found["standstill"]) == (None, "a loop refills the pool")
    env.buffer.store.set_budget(9)
    assert look()["standstill"] is None


def test_a_finished_loop_says_so(
    loop: Callable[..., Environment], caplog: pytest.LogCaptureFixture
) -> None:
    function, options = HOW["plain"]
    reached = "2 are done, and the fit is for 2; Buffer(fresh=True) begins another run"
    with caplog.at_level(logging.WARNING):
        env = loop(RewardCallback(function, **options), named(*range(9)))
        env.fit(3, iters=2, report=0)
        assert reached not in caplog.text
        loop(RewardCallback(function, **options)).fit(3, iters=2, report=0)
        assert caplog.text.count(reached) == 1
        loop(RewardCallback(function, **options)).fit(3, iters=3, report=0)
    assert "3 of 3" not in caplog.text
    assert env.buffer.store.iteration == 3


@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [
        (lambda samples: [math.nan] * len(samples), {}, "the reward is NaN"),
        (lambda samples: [None] * len(samples), {}, "the reward is None"),
        (dict[str, float]().__getitem__, {"each": True, "on_error": "fail"}, "KeyError"),
        (dict[str, float]().__getitem__, {"each": True, "on_error": "retry"}, "KeyError"),
    ],
    ids=["nan", "none", "each", "retry"],
)
def test_a_batch_without_a_reward_has_no_mean_and_one_warning(
    loop: Callable[..., Environment],
    caplog: pytest.LogCaptureFixture,
    function: Any,
    options: dict[str, Any],
    reason: str,
) -> None:
    env = loop(RewardCallback(function, **options), named(*range(6)))
    env.fit(bs=3, iters=2, report=1)
    (warning,) = [line for line in caplog.messages if line.startswith("all 3 measurements")]
    assert reason in warning
    for name in ("rewards", "rewards_max", "reward"):
        assert all(map(math.isnan, env.log.metrics[name])), name
    words = env.log.console.file.getvalue().split()
    assert words.count("nan") == 6


def test_a_batch_with_one_reward_has_no_warning(
    loop: Callable[..., Environment], caplog: pytest.LogCaptureFixture
) -> None:
    env = loop(RewardCallback(lambda samples: [math.nan, 2.0, math.nan]), named(*range(3)))
    env.fit(bs=3, iters=1)
    assert "measurements of a batch failed" not in caplog.text
    assert env.log.metrics["rewards"] == env.log.metrics["rewards_max"] == [2.0]
