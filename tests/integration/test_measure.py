"""`store.measure`: what it stores, when it ends, and what it refuses; and the budget."""

import concurrent.futures
import math
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside, rewards
from helpers.cleanup import hold
from helpers.commands import run
from helpers.forked import Forked
from helpers.polling import until
from sqlbuffer.core import workers
from sqlbuffer.db.schema import draws, measurements
from sqlbuffer.errors import CannotMeasure, InvalidArgument
from sqlbuffer.measuring.progress import Progress
from sqlbuffer.records import MeasureResult
from sqlbuffer.store import SampleStore, open_store

OpenStore = Callable[..., SampleStore]

BAD = {
    "raise 1": "ValueError: no conformer",
    "none 1": "the reward function returned None",
    "hang 1": "timed out after 1 s",
    "kill 1": "worker died 3 times, last exit code -9 (SIGKILL)",
    "exit 3": "worker died 3 times, last exit code 3",
}
GOOD = [f"good {i}" for i in range(12)]


@pytest.fixture
def store(new_store: OpenStore) -> SampleStore:
    return new_store(weighting="uniform")


def n_measured(result: MeasureResult) -> tuple[int, int, int]:
    return result.measured, result.failed, result.released


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"each": True}, {"each": False}], ids=["each", "all"])
def test_bad_samples_fail_alone_with_their_reasons(
    store: SampleStore,
    options: dict[str, Any],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(rewards.CALLS, str(tmp_path / "calls"))
    store.add([*GOOD, *BAD])
    fn = rewards.dock if options["each"] else rewards.dock_all
    done = store.measure(fn, n_jobs=3, batch=4, timeout_s=1, silent=True, **options)
    assert n_measured(done) == (len(GOOD), len(BAD), 0)
    errors = {it["sample"]: it["error"] for it in store.failed()}
    assert set(errors) == set(BAD)
    for sample, reason in BAD.items():
        assert errors[sample].startswith(reason)
    assert store.rewards_of(GOOD) == [1.0] * len(GOOD)
    called = [sample for _, sample in rewards.calls(tmp_path / "calls")]
    if options["each"]:
        assert {sample: called.count(sample) for sample in called} == {
            **dict.fromkeys([*GOOD, "raise 1", "none 1", "hang 1"], 1),
            **dict.fromkeys(["kill 1", "exit 3"], 3),
        }
    assert store.check() == []


def test_every_reward_is_stored_before_the_next_is_measured(store: SampleStore) -> None:
    store.add(GOOD)
    stored: list[int] = []

    def fn(sample: str) -> tuple[float, dict[str, Any]]:
        stored.append(store.stats().measured)
        return float(len(stored)), {"after": stored[-1]}

    assert n_measured(store.measure(fn, silent=True)) == (12, 0, 0)
    assert stored == list(range(12))
    m = measurements.c
    rows = inside.rows(store, sa.select(m.reward, m.details, m.seconds).order_by(m.id))
    assert [(row.reward, row.details) for row in rows] == [
        (float(i + 1), {"after": i}) for i in range(12)
    ]
    assert all(row.seconds > 0 for row in rows)


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (math.nan, "NaN"),
        (None, "None"),
        ("high", "'high'"),
        (math.inf, "inf"),
        ([1.0, 2.0], "[1.0, 2.0]"),
        (np.zeros(2), "array"),
    ],
)
def test_what_is_no_reward_is_a_failure_that_says_so(
    store: SampleStore, returned: Any, reason: str
) -> None:
    store.add(["s"])
    assert n_measured(store.measure(lambda sample: returned, silent=True)) == (0, 1, 0)
    assert reason in store.failed()[0]["error"]


def test_on_error(store: SampleStore) -> None:
    def fn(sample: str) -> float:
        calls.append(sample)
        raise OSError("no licence")

    calls: list[str] = []
    store.add(["a"])
    with pytest.raises(CannotMeasure, match=r"sample \d+.*'a'.*no licence"):
        store.measure(fn, on_error="raise", silent=True)
    assert (store.stats().claimed, len(store), store.failed()) == (0, 1, [])
    assert n_measured(store.measure(fn, on_error="retry", silent=True)) == (0, 1, 0)
    assert len(calls) == 4
    error = store.failed()[0]["error"]
    assert error.startswith("OSError: no licence (")
    assert error.endswith("): tried 3 times")
    m = measurements.c
    rows = inside.rows(store, sa.select(m.error, m.seconds, m.details, m.batch_id).order_by(m.id))
    tries = [(row.error.partition(" (")[0], row.details) for row in rows]
    assert tries[:2] == [("OSError: no licence", {"failed_try": n}) for n in (1, 2)]
    assert tries[2][1] == {"failed_tries": 3}
    assert all(row.seconds >= 0 for row in rows)
    assert len({row.batch_id for row in rows}) == 1
    assert (store.stats().failed, store.check()) == (1, [])


def test_a_try_is_no_failure_and_costs_no_second_sample(new_store: OpenStore) -> None:
    def fn(sample: str) -> float:
        if sample in tried:
            return 1.5
        tried.add(sample)
        raise OSError("no licence")

    tried: set[str] = set()
    store = new_store(weighting="uniform", budget=2)
    store.add(["a", "b", "c"])
    assert n_measured(store.measure(fn, on_error="retry", silent=True)) == (2, 0, 0)
    numbers = store.stats()
    assert (numbers.measured, numbers.failed, store.budget_left) == (2, 0, 0)
    frame = store.to_arrow(["state", "error", "reward", "attempts"], [("reward", "=", 1.5)])
    assert frame.to_pylist()[0] == {
        "state": "measured",
        "error": None,
        "reward": 1.5,
        "attempts": 1,
    }
    assert store.check() == []


def test_ctrl_c_gives_back_what_has_no_reward(store: SampleStore) -> None:
    def fn(sample: str) -> float:
        if store.stats().measured == 5:
            raise KeyboardInterrupt
        return 1.0

    store.add(GOOD)
    with pytest.raises(KeyboardInterrupt):
        store.measure(fn, silent=True)
    stats = store.stats()
    assert (stats.measured, stats.waiting, stats.claimed) == (5, 7, 0)
    assert store.check() == []


def test_sys_exit_in_this_process_is_a_failure(store: SampleStore) -> None:
    store.add(["a"])
    assert n_measured(store.measure(lambda sample: sys.exit("no licence"), silent=True)) == (
        0,
        1,
        0,
    )
    assert store.failed()[0]["error"].startswith("SystemExit: no licence")


def test_details_that_json_can_hold_are_kept(store: SampleStore) -> None:
    """Arrays as lists; what else JSON cannot hold is named."""
    store.add(["a"])
    details = {"rmsd": np.float32(0.5), "pose": np.eye(2), "tool": object()}
    store.measure(lambda sample: (1.0, details), silent=True)
    (kept,) = [row.details for row in inside.rows(store, sa.select(measurements.c.details))]
    error = kept.pop("error")
    assert kept == {"rmsd": 0.5, "pose": [[1.0, 0.0], [0.0, 1.0]]}
    assert "tool" in error


@pytest.mark.slow
def test_a_process_measures_one_objective(store: SampleStore) -> None:
    """Not the next one with the old reward function."""

    def fn(sample: str) -> float:
        if sample == "last":
            timer.start()
        return 1.0

    store.add(["last"])
    timer = threading.Timer(0.5, lambda: store.remeasure("affinity"))
    with pytest.raises(CannotMeasure, match=r"now measured for 'affinity'.*measures 'reward'"):
        store.measure(fn, until_empty=False, silent=True)
    stats = store.stats()
    assert (store.objective, stats.measured, stats.waiting, stats.claimed) == ("affinity", 0, 1, 0)


def test_max_calls_and_executors(store: SampleStore) -> None:
    store.add(GOOD)
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        done = store.measure(
            lambda sample: 2.0, executor=executor, n_jobs=2, max_calls=5, silent=True
        )
    assert n_measured(done) == (5, 0, 0)
    stats = store.stats()
    assert (stats.measured, stats.waiting, stats.claimed) == (5, 7, 0)


@pytest.mark.slow
def test_it_waits_for_samples_that_others_have_claimed(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be released, as here, or die."""
    store.add(GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_worker_id", lambda pid: "another")
        theirs = store.sample(6)
    timer = threading.Timer(0.5, theirs.release)
    timer.start()
    assert n_measured(store.measure(lambda sample: 1.0, silent=True)) == (12, 0, 0)
    timer.join()


def test_samples_without_scores_are_named(
    new_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    store = new_store()
    store.add(GOOD)
    assert n_measured(store.measure(lambda sample: 1.0, silent=True)) == (0, 0, 0)
    assert "12 samples" in caplog.text
    assert "wait without a score" in caplog.text


def test_a_command_that_can_draw_nothing_of_what_waits_has_failed(store_url: str) -> None:
    words = ("measure", "--reward", "helpers.rewards:exact")
    with open_store(store_url) as store:
        assert run(*words, url=store_url).code == 0, "nothing waits"
        store.add(GOOD)
        result = run(*words, url=store_url)
        assert (result.code, result.out[:10]) == (1, "measured 0")
        store.score(lambda samples: [math.nan] * len(samples))
        result = run(*words, url=store_url)
        assert (result.code, result.out[:10]) == (1, "measured 0")
        assert "12 samples of buffer 'default' wait with weight 0" in result.err
        store.set_budget(0)
        assert run(*words, url=store_url).code == 0, "nothing may be drawn"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_jobs": 0}, "n_jobs must be from 1 to"),
        ({"timeout_s": 0}, "timeout_s must be a positive number"),
        ({"batch": 0}, "batch must be"),
        ({"on_error": "ignore"}, "on_error must be"),
        ({"max_calls": -1}, "max_calls must be"),
        ({"until_empty": 2}, "until_empty"),
        ({"executor": 3}, "executor must"),
    ],
)
def test_wrong_arguments_claim_nothing(
    store: SampleStore, options: dict[str, Any], words: str
) -> None:
    store.add(GOOD)
    with pytest.raises(InvalidArgument, match=words):
        store.measure(len, silent=True, **options)
    assert store.stats().drawn == 0


def test_a_replaying_buffer_never_becomes_empty(new_store: OpenStore) -> None:
    store = new_store(mode="replay", weighting="uniform")
    store.add(GOOD)
    with pytest.raises(InvalidArgument, match=r"replays.*max_calls"):
        store.measure(len, silent=True)
    assert n_measured(store.measure(len, max_calls=20, silent=True)) == (20, 0, 0)
    assert store.check() == []


def test_lists_of_samples_are_claims(store: SampleStore) -> None:
    lengths: list[int] = []

    def fn(samples: list[str]) -> list[float]:
        lengths.append(len(samples))
        return [1.0] * len(samples)

    store.add(GOOD)
    assert n_measured(store.measure(fn, each=False, batch=5, silent=True)) == (12, 0, 0)
    assert lengths == [5, 5, 2]


def forks(sample: str) -> float:
    """A fork that returns answers for its own parent, later than that."""
    if sample == "good 3" and os.fork() == 0:
        time.sleep(0.2)
        return -1.0
    time.sleep(0.1)
    return float(sample.split()[1])


@pytest.mark.slow
def test_a_fork_of_the_reward_function_has_no_say(store: SampleStore) -> None:
    store.add(GOOD)
    assert n_measured(store.measure(forks, timeout_s=30, silent=True)) == (12, 0, 0)
    assert store.rewards_of(GOOD) == [float(i) for i in range(12)]


# -- deaths ----------------------------------------------------------------------------------------


class Breakable:
    """An executor that a sample breaks for good, as a pool whose process dies; it never hangs."""

    is_broken = False

    def submit(self, fn: Callable[..., Any], *args: Any) -> Any:
        if self.is_broken:
            raise concurrent.futures.BrokenExecutor("a child died")
        return BreakableCall(self, fn, *args)


class BreakableCall:
    def __init__(self, executor: Breakable, fn: Callable[..., Any], *args: Any) -> None:
        self.executor, self.fn, self.args, self.n_looks = executor, fn, args, 0

    def done(self) -> bool:
        self.n_looks += 1
        return self.n_looks > 2

    def result(self) -> Any:
        self.executor.is_broken |= "kill 1" in self.args[1]
        if self.executor.is_broken:
            raise concurrent.futures.BrokenExecutor("a child died")
        return self.fn(*self.args)

    def cancel(self) -> None: ...


def test_a_sample_that_breaks_an_executor_fails_alone(store: SampleStore) -> None:
    """Each call of `measure` ends with the executor; the samples with it only have an attempt."""
    store.add([*GOOD[:5], "kill 1"])
    for _ in range(3):
        with pytest.raises(CannotMeasure, match="make a new executor and call again"):
            store.measure(rewards.dock, executor=Breakable(), n_jobs=3, silent=True)
    store.measure(rewards.dock, silent=True)
    (failed,) = store.failed()
    assert (failed["sample"], failed["attempts"]) == ("kill 1", 3)
    assert failed["error"].startswith("worker died 3 times, last BrokenExecutor: a child")
    assert store.rewards_of(GOOD[:5]) == [1.0] * 5
    assert store.check() == []


def measure_lists() -> None:
    with open_store(sys.argv[1]) as store:
        store.measure(rewards.dock_all, each=False, silent=True)


@pytest.mark.slow
def test_a_sample_that_kills_this_process_fails_alone(
    store: SampleStore, store_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list that the process died with is measured one by one."""
    monkeypatch.setenv(rewards.CALLS, str(tmp_path / "calls"))
    store.add([*GOOD[:5], "kill 1"])
    n_killed = 0
    while store.stats().waiting and n_killed < 5:
        run = Forked(measure_lists, [store_url], tmp_path)
        run.communicate(30)
        n_killed += run.returncode == -9
        open_store(store_url).close()  # finds the dead worker
    (failed,) = store.failed()
    assert (failed["sample"], failed["error"], n_killed) == ("kill 1", "worker died 3 times", 3)
    assert store.rewards_of(GOOD[:5]) == [1.0] * 5
    assert store.check() == []


@pytest.mark.slow
def test_a_measurement_starts_when_its_function_is_loaded(
    store: SampleStore, tmp_path: pathlib.Path
) -> None:
    def started() -> list[Any]:
        return [row.started_at for row in inside.rows(store, sa.select(draws.c.started_at))]

    (path := tmp_path / "held").touch()
    fn = rewards.SlowToLoad(path)
    store.add(["sleep 0.5"])
    run = threading.Thread(target=lambda: store.measure(fn, timeout_s=30, silent=True))
    run.start()
    until(path.with_suffix(".loading").exists)
    assert started() == [None]
    path.unlink()
    until(lambda: started() != [None])
    run.join()
    assert store.stats().measured == 1


class AtOnce(concurrent.futures.Executor):
    """Makes each call when it is submitted, so that all answers come together."""

    def submit(self, fn: Any, /, *args: Any, **options: Any) -> Any:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        future.set_result(fn(*args, **options))
        return future


def test_what_is_measured_is_stored_though_another_raises(store: SampleStore) -> None:
    store.add(["raise 1", *GOOD[:3]])
    options = {"n_jobs": 4, "on_error": "raise", "silent": True}
    with pytest.raises(CannotMeasure, match="no conformer"):
        store.measure(rewards.dock, executor=AtOnce(), **options)  # type: ignore[arg-type]
    assert store.stats().measured == 3


def test_a_process_does_not_wait_for_itself(store: SampleStore) -> None:
    store.add(GOOD)
    hold(store.sample(2))
    assert n_measured(store.measure(lambda sample: 1.0, silent=True)) == (10, 0, 0)


# -- budget ----------------------------------------------------------------------------------------


def test_a_budget_counts_what_is_measured_failed_or_claimed(
    store: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.add(GOOD)
    assert store.budget_left is None
    store.set_budget(7)
    batch = hold(store.sample(4))
    assert (len(batch), store.budget_left) == (4, 3)
    assert batch.report(batch.ids[:2], [1.0, None]) == 2
    assert store.budget_left == 3
    batch.release()
    assert store.budget_left == 5
    assert store.retry() == 1
    assert store.budget_left == 6
    second = hold(store.sample(-1, pct_argmax=0.5))
    assert (len(second), store.budget_left, len(store.sample(1))) == (6, 0, 0)
    for _ in range(3):
        assert len(store.sample(5)) == 0
    assert caplog.text.count("is used up") == 1
    second.settle([1.0] * 6)
    store.record(["known", "too"], [1.0, 2.0])
    assert (store.budget_left, store.stats().measured) == (0, 9)
    with pytest.raises(InvalidArgument, match=r"cannot be 8, because 9"):
        store.set_budget(8)
    store.set_budget(None)
    assert len(hold(store.sample(1))) == 1
    assert store.check() == []


@pytest.mark.parametrize("weighting", ["uniform", "shift"])
def test_everything_is_everything_with_a_large_budget(new_store: OpenStore, weighting: str) -> None:
    store = new_store(weighting=weighting)
    store.add(GOOD)
    store.set_budget(50)
    with store.sample(-1) as batch:
        assert len(batch) == 12
        batch.fail(batch.ids[:1], "crashed")
        assert (store.retry(), store.budget_left) == (1, 39)
    store.set_budget(5)
    if weighting == "uniform":
        assert len(hold(store.sample(-1, pct_argmax=0.9))) == 5
    assert store.check() == []


@pytest.mark.parametrize("budget", [-1, 1.5, "many", True])
def test_a_wrong_budget(store: SampleStore, budget: Any) -> None:
    with pytest.raises(InvalidArgument, match="budget must be a number of samples"):
        store.set_budget(budget)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_budget_holds_among_threads(new_store: OpenStore, mode: str) -> None:
    """They claim, report, release and retry at the same time."""
    store = new_store(weighting="uniform", mode=mode)
    store.add([f"s{i}" for i in range(200)])
    store.set_budget(60)
    most: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(25):
            with store.sample(int(rng.integers(1, 9)), pct_argmax=float(rng.choice([0, 0.5]))) as b:
                n = int(rng.integers(0, len(b) + 1))
                if n:
                    b.report(b.ids[:n], [rng.choice([1.0, None]) for _ in range(n)])
                most.append(used(store))
            if rng.random() < 0.2:
                store.retry()

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work, seed) for seed in range(4)]:
            done.result()
    assert max(most) <= 60
    if mode == "consume":
        assert max(most) == 60
    assert store.check() == []


def used(store: SampleStore) -> int:
    from sqlbuffer.db import queries

    found = inside.handle_of(store).read(lambda tx: tx.own_row(queries.budget.used()).used)
    return int(found)


@pytest.mark.parametrize("mode", ["consume"])
def test_measuring_ends_with_the_budget(new_store: OpenStore, mode: str) -> None:
    store = new_store(weighting="uniform", mode=mode)
    store.add(GOOD)
    store.set_budget(5)
    assert n_measured(store.measure(lambda sample: 1.0, until_empty=False, silent=True)) == (
        5,
        0,
        0,
    )
    assert (store.budget_left, len(store)) == (0, 7)


def test_the_progress_counts_to_the_calls_that_are_left(
    new_store: Callable[..., SampleStore],
) -> None:
    store = new_store(weighting="uniform")
    store.add(["a", "b", "c", "d", "e"])
    for most, left in ((math.inf, 5), (3, 3), (9, 5), (0, 0)):
        assert Progress(inside.handle_of(store), silent=True, most=most)._left() == left
    shown = Progress(inside.handle_of(store), silent=True, most=3)
    shown.advance(has_failed=False)
    assert shown._left() == 2
