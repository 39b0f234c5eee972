"""One outcome for each sample: values, reasons, arguments, this process, and executors."""

import concurrent.futures
import decimal
import fractions
import functools
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import rewards
from helpers.measuring import measured
from sqlbuffer.errors import CannotMeasure, InvalidArgument
from sqlbuffer.measuring.calls import value_of
from sqlbuffer.measuring.functions import function_from
from sqlbuffer.measuring.outcome import Outcome, one_line, reason_of
from sqlbuffer.measuring.slots import Slots

# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "returned",
    [
        2.0,
        2,
        np.float32(2),
        np.int8(2),
        np.array(2),
        torch.tensor(2.0, requires_grad=True),
        torch.tensor(2, dtype=torch.bfloat16),
        fractions.Fraction(4, 2),
        decimal.Decimal(2),
    ],
)
def test_numbers_are_rewards(returned: Any) -> None:
    value = value_of(returned)
    assert value == (2.0, None, None)
    assert type(value.reward) is float


def test_flags_are_rewards() -> None:
    assert value_of(True).reward == value_of(np.bool_(True)).reward == 1.0
    assert value_of(False).reward == 0.0


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "2.0",
        b"2",
        2j,
        np.complex64(1),
        math.inf,
        -math.inf,
        np.float32(math.inf),
        10**400,
        [2.0],
        (2.0, 3.0),
        np.array([2.0]),
        torch.zeros(1),
        {"reward": 2.0},
        np.datetime64("2026-01-01"),
        pd.NA,
        object(),
        torch.zeros((), device="meta"),
    ],
)
def test_other_values_are_failures(returned: Any) -> None:
    value = value_of(returned)
    assert value.reward is None
    assert value.error is not None
    assert value.error.startswith("the reward function returned ")
    assert value.error.isprintable()


def test_nan_is_a_failure_that_was_measured() -> None:
    assert value_of(math.nan) == value_of(np.float32("nan")) == (None, "the reward is NaN", None)


def test_details_come_with_the_reward() -> None:
    assert value_of((1, {"pose": np.int64(3), "gap": math.nan})) == (
        1.0,
        None,
        {"pose": 3, "gap": None},
    )
    assert value_of((math.nan, {"stage": 2})) == (None, "the reward is NaN", {"stage": 2})


def test_a_reward_is_not_lost_for_its_details() -> None:
    for details in ({"file": object()}, {"nul": "\0"}, {(1, 2): 3}):
        reward, error, kept = value_of((1.0, details))
        assert (reward, error) == (1.0, None)
        assert kept is not None
        assert list(kept) == ["error"]


# -- reasons ---------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=60)
@given(st.text(st.characters(codec=None)) | st.text("a\n\0\x1b\ud800", min_size=1500))
def test_a_reason_is_one_printable_line(message: str) -> None:
    reason = reason_of(ValueError(message))
    assert reason.startswith("ValueError")
    assert len(reason) <= 2000
    assert reason.isprintable()
    assert one_line(reason) == reason


def test_a_reason_tells_where() -> None:
    [outcome] = measured_here(rewards.dock, ["raise"])
    assert outcome.error is not None
    assert outcome.error.startswith("ValueError: no conformer (rewards.py, line ")


def test_an_error_without_text_has_a_reason() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert reason_of(KeyError()) == "KeyError"
    assert reason_of(Mute()) == "Mute: the message cannot be read"


# -- in this process -------------------------------------------------------------------------------


def measured_here(fn: Callable[[Any], Any], samples: list[Any], **options: Any) -> list[Outcome]:
    with Slots(fn, **options) as slots:
        return measured(slots, samples, None if options.get("each", True) else 4)


def test_one_slot_runs_here_and_lazily() -> None:
    called: list[Any] = []
    with Slots(lambda sample: called.append((sample, threading.get_ident())) or 1.0) as slots:
        assert slots.free() == 1
        assert slots.submit(["a"]) == range(1)
        assert (slots.free(), called, slots.unfinished) == (0, [], [0])
        [outcome] = slots.wait()
        assert (outcome.index, outcome.reward, outcome.error) == (0, 1.0, None)
        assert called == [("a", threading.get_ident())]
        assert (slots.free(), slots.unfinished, slots.wait()) == (1, [], [])
        with pytest.raises(InvalidArgument, match="2 calls were submitted to 1 free slots"):
            slots.submit(["b", "c"])
        assert slots.submit([]) == range(1, 1)
        assert slots.submit(["b"]) == range(1, 2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_exits_go_through_here(error: type[BaseException]) -> None:
    def leave(_: Any) -> float:
        raise error

    with Slots(leave) as slots:
        slots.submit(["a"])
        with pytest.raises(error):
            slots.wait()
        assert slots.unfinished == [0]
        assert slots.wait() == []


def test_drain_without_time_calls_nothing_here() -> None:
    called: list[Any] = []
    with Slots(called.append) as slots:
        slots.submit(["a"])
        assert list(slots.drain(0)) == []
        assert (slots.unfinished, slots.free(), called) == ([0], 0, [])
    with Slots(called.append) as slots:
        slots.submit(["a"])
        assert [outcome.index for outcome in slots.drain(5)] == [0]
        assert (slots.unfinished, slots.free(), called) == ([], 0, ["a"])


def test_details_and_seconds_come_with_the_outcome() -> None:
    def slow(sample: float) -> tuple[float, dict[str, float]]:
        time.sleep(sample)
        return sample, {"half": sample / 2}

    [outcome] = measured_here(slow, [0.05])
    assert outcome.details == {"half": 0.025}
    assert 0.05 <= outcome.seconds < 1


# -- chunks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_kind", [list, tuple, np.array, torch.tensor, pd.Series, iter])
def test_a_chunk_is_one_call(as_kind: Callable[[list[float]], Any]) -> None:
    sizes: list[int] = []

    def measure(samples: list[float]) -> Any:
        sizes.append(len(samples))
        return as_kind([2 * sample for sample in samples])

    outcomes = measured_here(measure, [1.0, 2.0, 3.0, 4.0, 5.0], each=False)
    assert [outcome.reward for outcome in outcomes] == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert sizes == [4, 1]


def test_one_bad_sample_of_a_chunk_fails_alone() -> None:
    sizes: list[int] = []

    def measure(samples: list[int]) -> list[float]:
        sizes.append(len(samples))
        return [1 / sample for sample in samples]

    outcomes = measured_here(measure, [1, 2, 0, 4], each=False)
    assert [outcome.reward for outcome in outcomes if outcome.error is None] == [1.0, 0.5, 0.25]
    assert str(outcomes[2].error).startswith("ZeroDivisionError: division by zero")
    assert math.isnan(outcomes[2].reward or 0.0)
    assert sizes == [4, 1, 1, 1, 1]


def test_values_of_a_chunk_fail_alone_without_another_call() -> None:
    called: list[Any] = []

    def measure(samples: list[Any]) -> list[Any]:
        called.append(samples)
        return [1.0, None, (2.0, {"a": 1}), math.nan]

    outcomes = measured_here(measure, list("abcd"), each=False)
    assert [outcome.error for outcome in outcomes] == [
        None,
        "the reward function returned None",
        None,
        "the reward is NaN",
    ]
    assert outcomes[2].details == {"a": 1}
    assert len(called) == 1


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ([1.0, 2.0], "the reward function returned 2 values for 1 sample"),
        ([], "the reward function returned 0 values for 1 sample"),
        (np.ones((1, 1)), "the reward function returned array([[1.]]) for 1 sample"),
        (1.0, "the reward function returned 1.0 for 1 sample"),
        (None, "the reward function returned None for 1 sample"),
        ("abcd", "the reward function returned 'abcd' for 1 sample"),
        ({"a": 1}, "the reward function returned {'a': 1} for 1 sample"),
    ],
)
def test_a_wrong_number_of_values_is_a_failure(returned: Any, reason: str) -> None:
    for outcome in measured_here(lambda samples: returned, ["a", "b", "c"], each=False):
        assert str(outcome.error).startswith(f"{reason}: return one number for each")


# -- executors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("each", [True, False])
def test_an_executor_makes_the_calls(each: bool) -> None:
    samples = ["a", "raise", "b", "none", "leave", "c"]
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        outcomes = measured_here(
            rewards.dock if each else rewards.dock_all,
            samples,
            n_jobs=2,
            each=each,
            executor=executor,
        )
        assert executor.submit(int).result() == 0  # it stays open
    assert [outcome.reward for outcome in outcomes if outcome.error is None] == [1.0] * 3
    assert [str(outcomes[i].error).split(" (")[0] for i in (1, 3, 4)] == [
        "ValueError: no conformer",
        "the reward function returned None",
        "SystemExit: bye",
    ]


def test_a_future_that_runs_for_too_long_is_given_up() -> None:
    gate = threading.Event()
    with (
        concurrent.futures.ThreadPoolExecutor(1) as executor,
        Slots(
            lambda sample: float(gate.wait(20)), n_jobs=2, timeout_s=0.2, executor=executor
        ) as slots,
    ):
        slots.submit(["runs", "waits in the queue"])
        [outcome] = slots.wait(10)
        assert (outcome.index, outcome.error) == (0, "timed out after 0.2 s")
        gate.set()
        [outcome] = slots.wait(10)
        assert (outcome.index, outcome.reward) == (1, 1.0)


def test_futures_need_no_more_than_done_and_result() -> None:
    class Job:
        def __init__(self, answer: Any) -> None:
            self.result = lambda: answer
            self.looks = 0

        def done(self) -> bool:
            self.looks += 1
            return self.looks > 3

        def cancel(self) -> None: ...

    class Cluster:
        def submit(self, fn: Any, *arguments: Any) -> Job:
            return Job(fn(*arguments))

    outcomes = measured_here(rewards.dock, ["a", "raise"], executor=Cluster(), timeout_s=1e-9)
    assert [outcome.error is None for outcome in outcomes] == [True, False]


def test_an_executor_that_loses_a_call_has_not_measured() -> None:
    class Lost(concurrent.futures.Executor):
        def submit(self, fn: Any, /, *args: Any, **options: Any) -> Any:
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            future.set_exception(OSError("node 7 is down"))
            return future

    [outcome] = measured_here(rewards.dock, ["a"], executor=Lost())
    assert (outcome.died, outcome.reward) == (True, None)
    assert outcome.error == "worker died, OSError: node 7 is down"


def test_an_executor_that_is_shut_down_is_an_error() -> None:
    executor = concurrent.futures.ThreadPoolExecutor(1)
    executor.shutdown()
    with Slots(rewards.dock, executor=executor) as slots:
        slots.submit(["a"])
        for use in (slots.wait, slots.free, lambda: slots.submit(["b"])):
            with pytest.raises(CannotMeasure, match="shut down"):
                use()
        assert slots.unfinished == [0]
    assert slots.wait() == []


class Breaks(concurrent.futures.Executor):
    """Breaks at its nth call, as a pool does whose process has died: all open calls end with it."""

    def __init__(self, n: int) -> None:
        self._left, self._futures = n, list[concurrent.futures.Future[Any]]()

    def submit(self, fn: Any, /, *args: Any, **options: Any) -> Any:
        if self._left == 0:
            raise concurrent.futures.BrokenExecutor("a child died")
        self._futures.append(concurrent.futures.Future())
        self._left -= 1
        if self._left == 0:
            for future in self._futures:
                future.set_exception(concurrent.futures.BrokenExecutor("a child died"))
        return self._futures[-1]


@pytest.mark.parametrize(("n", "each"), [(1, True), (2, True), (3, True), (1, False)])
def test_a_broken_executor_has_lost_the_calls_that_it_had(n: int, each: bool) -> None:
    """Also if it breaks while calls are handed to it; later calls have not begun."""
    with Slots(rewards.dock, n_jobs=3, each=each, executor=Breaks(n)) as slots:
        slots.submit(["a", "b", "c"])
        lost = slots.wait(5)
        assert [outcome.index for outcome in lost] == list(range(n if each else 3))
        assert {(it.died, it.error) for it in lost} == {
            (True, "worker died, BrokenExecutor: a child died")
        }
        for use in (slots.wait, slots.free):
            if slots.unfinished or use == slots.free:
                with pytest.raises(CannotMeasure, match=r"died.*make a new executor and call"):
                    use()


def test_an_executor_whose_threads_do_not_start_has_begun_nothing() -> None:
    def no_licence() -> None:
        raise OSError("no licence")

    with (
        concurrent.futures.ThreadPoolExecutor(1, initializer=no_licence) as executor,
        Slots(rewards.dock, executor=executor) as slots,
    ):
        slots.submit(["a"])
        with pytest.raises(CannotMeasure, match="with an initializer that works"):
            slots.wait(5)
        assert slots.unfinished == [0]


# -- any sequence ----------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "raise", "none"]), max_size=12),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
    st.integers(0, 12),
)
def test_every_sample_has_one_outcome_or_is_unfinished(
    samples: list[str], each: bool, in_executor: bool, n: int, n_before_stop: int
) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        options = {"executor": executor, "n_jobs": n} if in_executor else {}
        fn = rewards.dock if each else rewards.dock_all
        with Slots(fn, each=each, **options) as slots:  # type: ignore[arg-type]
            left, outcomes = list(samples), list[Outcome]()
            while (left or slots.unfinished) and len(outcomes) < n_before_stop:
                size = slots.free() if each else min(slots.free(), 1) * n
                slots.submit(left[:size])
                left = left[size:]
                outcomes += slots.wait(1)
            outcomes += slots.drain(0)
            indices = [outcome.index for outcome in outcomes]
            assert sorted(indices + slots.unfinished) == list(range(len(samples) - len(left)))
            for outcome in outcomes:
                is_good = samples[outcome.index] == "a"
                assert (outcome.error is None) == (outcome.reward == 1.0) == is_good


# -- arguments -------------------------------------------------------------------------------------


async def later(sample: str) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("fn", "options", "message"),
    [
        ("dock", {}, "a reward function must take a sample"),
        (later, {}, "is async"),
        (rewards.dock, {"n_jobs": 0}, "n_jobs must be from 1 to 10,000; got 0"),
        (rewards.dock, {"n_jobs": 1.5}, "n_jobs must be from 1 to 10,000; got 1.5"),
        (rewards.dock, {"timeout_s": 0}, "timeout_s must be a positive number of seconds"),
        (rewards.dock, {"timeout_s": math.inf}, "timeout_s must be a positive number of seconds"),
        (rewards.dock, {"each": 1}, "each must be True or False; got 1"),
        (rewards.dock, {"executor": 4}, "executor must have the methods"),
        (
            functools.partial(rewards.dock, lock=threading.Lock()),
            {"n_jobs": 2},
            "cannot be sent to child processes .*lock.*top level of a module.*n_jobs=1",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    fn: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Slots(fn, **options)


def test_a_function_is_found_by_its_path(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["nowhere"])
    (tmp_path / "lab_of_slots.py").write_text("number = 1\ndef dock(sample): return 1.0\n")
    (tmp_path / "broken_lab.py").write_text("import sys; sys.exit(3)")
    (tmp_path / "lab_folder").mkdir()
    (tmp_path / "lab_folder" / "dock.py").write_text("def dock(sample): return 1.0\n")
    assert function_from("lab_of_slots:dock")("a") == 1.0
    for path, message in [
        ("lab_of_slots", "give MODULE:FUNCTION, such as lab.dock:dock; got 'lab_of_slots'"),
        ("lab_of_slots:number", "lab_of_slots has no function 'number'"),
        ("lab_of_slots:missing", "lab_of_slots has no function 'missing'"),
        ("no_lab:dock", "no_lab cannot be imported: ModuleNotFoundError"),
        ("broken_lab:dock", "broken_lab cannot be imported: SystemExit: 3"),
        ("lab_of_slots.py:dock", "is named without .py: give lab_of_slots:dock"),
        (f"{tmp_path}/lab_of_slots.py:dock", "give lab_of_slots:dock"),
        ("./lab_folder/dock.py:dock", "give lab_folder.dock:dock"),
        ("no_lab.py:dock", r"No module named 'no_lab'\.$"),
        ("../lab_of_slots.py:dock", r"cannot be imported: .*'\.$"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            function_from(path)
