"""Child processes that measure: they are killed, hang and crash, and every other sample is measured
once.
"""

import concurrent.futures
import contextlib
import gc
import math
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import rewards
from helpers.measuring import index_of, measured
from helpers.polling import until
from sqlbuffer.errors import CannotMeasure
from sqlbuffer.measuring.outcome import Outcome
from sqlbuffer.measuring.slots import Slots

BAD = {
    "kill": "worker died, exit code -9 (SIGKILL)",
    "exit 3": "worker died, exit code 3",
    "exit 0": "worker died, exit code 0",
    "crash": "worker died, exit code -11 (SIGSEGV)",
    "hang": "timed out after 0.4 s",
    "hang-in-c": "timed out after 0.4 s",
    "raise": "ValueError: no conformer (rewards.py, line ",
    "leave": "SystemExit: bye (rewards.py, line ",
    "none": "the reward function returned None",
}

TIMEOUT_S = 0.4


@pytest.fixture
def noted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The file to which reward functions write their calls."""
    monkeypatch.setenv(rewards.CALLS, str(tmp_path / "calls"))
    return tmp_path / "calls"


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """No child process and no open file is left."""
    resource_tracker.ensure_running()  # of multiprocessing, which does not end
    n_files = len(os.listdir("/dev/fd"))
    children = psutil.Process().children(recursive=True)
    yield
    until(lambda: set(psutil.Process().children(recursive=True)) <= set(children))
    until(lambda: gc.collect() >= 0 and len(os.listdir("/dev/fd")) <= n_files)  # pools end later


def processes_of(noted: pathlib.Path) -> list[psutil.Process]:
    """The processes that have noted a call, and those that they have started."""
    found = []
    for pid in {pid for pid, _ in rewards.calls(noted)}:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def is_over(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# -- calls that end badly --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_jobs", "each", "bad"),
    [
        (1, True, ["kill", "hang", "raise"]),
        (2, True, ["exit 3", "hang-in-c", "none"]),
        (4, True, list(BAD)),
        (1, False, ["kill", "raise"]),
        (2, False, ["exit 3", "hang", "leave"]),
        (4, False, ["crash", "hang-in-c", "none"]),
    ],
)
def test_bad_samples_fail_alone(
    n_jobs: int, each: bool, bad: list[str], noted: pathlib.Path
) -> None:
    samples = [f"say {i}" for i in range(7)]
    for i, sample in enumerate(bad):
        samples.insert(3 * i + 1, sample)
    fn = rewards.dock if each else rewards.dock_all
    with Slots(fn, n_jobs=n_jobs, each=each, timeout_s=TIMEOUT_S) as slots:
        outcomes = measured(slots, samples, None if each else 3)
    for sample, outcome in zip(samples, outcomes, strict=True):
        if sample in BAD:
            assert str(outcome.error).startswith(BAD[sample]), sample
            assert outcome.died == BAD[sample].startswith("worker died")
            assert outcome.reward is None if outcome.died else math.isnan(outcome.reward or 0)
        else:
            assert (outcome.reward, outcome.error) == (1.0, None), sample
    if each:
        assert Counter(sample for _, sample in rewards.calls(noted)) == Counter(samples)


def test_others_go_on_in_the_same_processes(noted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    long = f"await {tmp_path / 'gate'}"
    with Slots(rewards.dock, n_jobs=2) as slots:
        slots.submit([long, "a"])
        slots.wait()
        for bad in ("kill", "exit 3"):
            slots.submit([bad])
            [outcome] = slots.wait()
            assert (outcome.died, slots.unfinished) == (True, [0])
        (tmp_path / "gate").touch()
        [outcome] = slots.wait()
        assert (outcome.index, outcome.reward) == (0, 1.0)
    calls = rewards.calls(noted)
    assert sorted(sample for _, sample in calls) == ["a", long, "exit 3", "kill"]
    assert len({pid for pid, _ in calls}) == 3  # "a" and "kill" have one


def test_a_child_makes_many_calls_and_ends_by_itself(noted: pathlib.Path) -> None:
    with Slots(rewards.dock, n_jobs=2) as slots:
        measured(slots, ["a"] * 40)
        assert len({pid for pid, _ in rewards.calls(noted)}) == 2


def test_an_idle_child_that_is_killed_is_replaced(noted: pathlib.Path) -> None:
    with Slots(rewards.dock, timeout_s=60) as slots:
        for sample in "abc":
            slots.submit([sample])
            [outcome] = slots.wait()
            assert outcome.reward == 1.0
            process = psutil.Process(rewards.calls(noted)[-1][0])
            process.kill()
            until(lambda process=process: is_over(process))
            time.sleep(0.1)  # until the last of its threads has ended, too
    assert [sample for _, sample in rewards.calls(noted)] == ["a", "b", "c"]


def test_programs_of_a_killed_call_are_killed(noted: pathlib.Path) -> None:
    with Slots(rewards.dock, timeout_s=1.5) as slots:
        slots.submit(["hang-in-program"])
        until(lambda: not slots.wait(0.05) and len(processes_of(noted)) == 2)
        found = processes_of(noted)
        [outcome] = slots.wait()
    assert outcome.error == "timed out after 1.5 s"
    until(lambda: all(map(is_over, found)))


SAMPLES = st.sampled_from(["a", "kill", "exit 3", "raise", "none", "hang", "sleep 0.05"])


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(SAMPLES, max_size=6), st.booleans(), st.integers(1, 3), st.integers(0, 6))
def test_every_sample_has_one_outcome_or_is_unfinished(
    samples: list[str], each: bool, n_jobs: int, n_before_drain: int
) -> None:
    fn = rewards.dock if each else rewards.dock_all
    with Slots(fn, n_jobs=n_jobs, each=each, timeout_s=0.3) as slots:
        left, outcomes = list(samples), list[Outcome]()
        while (left or slots.unfinished) and len(outcomes) < n_before_drain:
            size = slots.free() if each else min(slots.free(), 1) * 3
            slots.submit(left[:size])
            left = left[size:]
            outcomes += slots.wait(0.5)
        outcomes += slots.drain(0)
        indices = [outcome.index for outcome in outcomes]
        assert sorted(indices + slots.unfinished) == list(range(len(samples) - len(left)))
        for outcome in outcomes:
            is_good = samples[outcome.index] not in BAD
            assert (outcome.error is None) == (outcome.reward == 1.0) == is_good


# -- the end ---------------------------------------------------------------------------------------


def test_drain_gives_what_comes_and_kills_the_rest(
    noted: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with Slots(rewards.dock, n_jobs=4) as slots:
        slots.submit([f"await {tmp_path / 'gate'}", "hang", "hang-in-c", "hang-in-program"])
        until(lambda: not slots.wait(0.02) and len(processes_of(noted)) == 5)
        found = processes_of(noted)
        slots.stop()
        assert slots.free() == 0
        (tmp_path / "gate").touch()
        assert [outcome.index for outcome in slots.drain(0.5)] == [0]
        assert slots.unfinished == [1, 2, 3]
        until(lambda: all(map(is_over, found)))
        assert slots.wait() == []


def test_an_error_of_the_caller_ends_the_children(noted: pathlib.Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), Slots(rewards.dock, n_jobs=2) as slots:
        slots.submit(["hang", "hang-in-c"])
        until(lambda: not slots.wait(0.05) and len(processes_of(noted)) == 2)
        found = processes_of(noted)
        raise KeyboardInterrupt
    assert slots.unfinished == [0, 1]
    assert all(map(is_over, found))


PARENT = """
import sys
from helpers import rewards
from helpers.measuring import index_of, measured
from sqlbuffer.measuring.slots import Slots

with Slots(rewards.dock, n_jobs=len(sys.argv) - 1, timeout_s=200) as slots:
    slots.submit(sys.argv[1:])
    try:
        outcomes = slots.wait()
    except KeyboardInterrupt:
        outcomes = list(slots.drain(20))
    print([outcome.reward for outcome in outcomes], slots.unfinished, flush=True)
"""


@contextlib.contextmanager
def parent(*samples: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", PARENT, *samples]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_children_end_with_a_parent_that_is_killed(noted: pathlib.Path) -> None:
    """Also while they hold the interpreter, and with the programs that they have started."""
    with parent("hang", "hang-in-c", "hang-in-program") as process:
        until(lambda: len(processes_of(noted)) == 4)
        found = processes_of(noted)
        process.kill()
        until(lambda: all(map(is_over, found)))


@pytest.mark.parametrize("system", ["Linux", "others"])
def test_a_process_ends_with_the_other_end_of_its_pipe(system: str) -> None:
    """By the kernel, or by a thread; also when the other end was closed before."""
    code = """
import fcntl, subprocess, sys, time
if sys.argv[2] == "others":
    del fcntl.F_SETSIG
from sqlbuffer.measuring.child import end_with_parent
program = subprocess.Popen(["sleep", "300"])
print(program.pid, flush=True)
if sys.argv[3] == "late":
    sys.stdin.read()
end_with_parent(int(sys.argv[1]))
print("alive", flush=True)
time.sleep(300)
"""
    for order in ("before", "late"):
        life, other_end = os.pipe()
        with subprocess.Popen(
            [sys.executable, "-c", code, str(life), system, order],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[life],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            program = psutil.Process(int(process.stdout.readline()))
            if order == "before":
                assert process.stdout.readline() == b"alive\n"
            os.close(life)
            os.close(other_end)
            process.stdin.close()
            assert process.wait(20) == -signal.SIGKILL
            until(lambda program=program: is_over(program))


def test_ctrl_c_is_for_the_parent_alone(noted: pathlib.Path, tmp_path: pathlib.Path) -> None:
    gate = tmp_path / "gate"
    with parent(f"await {gate}") as process:
        until(lambda: rewards.calls(noted))
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
        gate.touch()
        out, err = process.communicate(timeout=20)
    assert (out, err, process.returncode) == ("[1.0] []\n", "", 0)


def test_a_signal_to_all_processes_of_a_job_measures_nothing(
    noted: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A child goes on, and a call whose program was ended by the signal has not failed."""
    with Slots(rewards.dock, n_jobs=2) as slots:
        slots.submit([f"await {tmp_path / 'gate'}", "hang-in-program"])
        until(lambda: not slots.wait(0.02) and len(processes_of(noted)) == 3)
        for process in processes_of(noted):
            process.terminate()
        (tmp_path / "gate").touch()
        good, lost = sorted(slots.wait() + slots.wait(), key=index_of)
    assert (good.reward, good.error) == (1.0, None)
    assert (lost.died, lost.error) == (True, "worker died, exit code -15 (SIGTERM)")


# -- functions and samples that travel -------------------------------------------------------------


def test_a_script_needs_no_guard(tmp_path: pathlib.Path) -> None:
    """Functions and classes of a script travel with their code; a child never runs the script."""
    script = """
import dataclasses
from sqlbuffer.measuring.slots import Slots

print("the script begins", flush=True)

@dataclasses.dataclass
class Ligand:
    size: int

offset = 1

def dock(ligand):
    assert isinstance(ligand, Ligand)
    print("docked", ligand.size)
    return ligand.size + offset

with Slots(dock, timeout_s=60) as slots:
    for size in (1, 2):
        slots.submit([Ligand(size)])
        print("reward", slots.wait()[0].reward, flush=True)
"""
    (tmp_path / "script.py").write_text(script)
    for command in (["script.py"], ["-m", "script"], ["-c", script]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "the script begins",
            "docked 1",
            "reward 2.0",
            "docked 2",
            "reward 3.0",
        ]


def test_large_samples_and_functions_travel() -> None:
    table = np.arange(2_000_000, dtype=np.float64)
    with Slots(lambda sample: (table[-1] + sample.sum(), {"n": len(sample)}), n_jobs=2) as slots:
        outcomes = measured(slots, [np.ones(500_000), np.ones(1)])
    assert [outcome.reward for outcome in outcomes] == [2_499_999.0, 2_000_000.0]
    assert [outcome.details for outcome in outcomes] == [{"n": 500_000}, {"n": 1}]


class Awkward:
    """A sample that cannot be loaded where it comes from."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


@pytest.mark.parametrize("each", [True, False])
def test_a_sample_that_does_not_travel_fails_alone(each: bool) -> None:
    fn = rewards.dock if each else rewards.dock_all
    with Slots(fn, n_jobs=2, each=each) as slots:
        outcomes = measured(slots, ["a", threading.Lock(), Awkward(), "b"], None if each else 4)
    assert [outcome.error is None for outcome in outcomes] == [True, False, False, True]
    assert "cannot be sent to a child process: TypeError" in str(outcomes[1].error)
    assert "the sample cannot be loaded: ValueError" in str(outcomes[2].error)


@pytest.mark.parametrize(
    ("at_import", "message", "n_starts"),
    [
        ("raise ImportError('no licence')", "cannot be loaded .*ImportError: no licence", 1),
        ("sys.exit(4)", "cannot be loaded .*SystemExit: 4", 1),
        ("os._exit(7)", "die while they load the reward function.* exit code 7:", 3),
    ],
)
def test_a_module_that_does_not_load_in_a_child_is_one_error(
    at_import: str,
    message: str,
    n_starts: int,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = f"""
import os, sys
if os.getpid() != {os.getpid()}:
    open({str(tmp_path / "starts")!r}, "a").write("x")
    {at_import}
def dock(sample): return 1.0
"""
    (tmp_path / "licensed.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "licensed", raising=False)
    import licensed  # type: ignore[import-not-found]

    with Slots(licensed.dock, timeout_s=60) as slots:
        slots.submit(["a"])
        for _ in range(2):
            with pytest.raises(CannotMeasure, match=message):
                slots.wait(30)
        assert slots.unfinished == [0]
    monkeypatch.delitem(sys.modules, "licensed")
    assert len((tmp_path / "starts").read_text()) == n_starts


def test_a_child_loads_little() -> None:
    heavy = ["torch", "numpy", "cloudpickle", "sqlalchemy", "alembic", "pandas", "cbor2", "typer"]
    with Slots(rewards.loaded, timeout_s=60) as slots:
        outcomes = measured(slots, ["sqlbuffer", *heavy])
    assert [outcome.reward for outcome in outcomes] == [1.0] + [0.0] * len(heavy)


def test_a_function_that_travels_by_its_code_keeps_the_name_of_its_file() -> None:
    with Slots(lambda sample: 1 / sample, n_jobs=2) as slots:
        [outcome] = measured(slots, [0])
    name = f"{pathlib.Path(__file__).name}, line "
    assert str(outcome.error).startswith(f"ZeroDivisionError: division by zero ({name}")


def test_loading_takes_no_part_in_a_call(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout does not count it, and a child that is killed in it has not begun the sample."""
    starts = tmp_path / "starts"
    code = f"""
import os, time
if os.getpid() != {os.getpid()}:
    open({str(starts)!r}, "a").write(f"{{os.getpid()}}\\n")
    time.sleep(1)
def dock(sample): return 1.0
"""
    (tmp_path / "slow_to_load.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import slow_to_load  # type: ignore[import-not-found]

    with Slots(slow_to_load.dock, timeout_s=0.5) as slots:
        slots.submit(["a"])
        until(lambda: starts.exists() and starts.read_text())
        os.kill(int(starts.read_text()), signal.SIGKILL)
        [outcome] = slots.wait()
    assert (outcome.reward, outcome.error) == (1.0, None)
    assert len(starts.read_text().splitlines()) == 2


# -- pools of the standard library -----------------------------------------------------------------


def test_a_pool_that_breaks_is_one_error() -> None:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        with Slots(lambda sample: 1.0, executor=pool) as slots:
            slots.submit(["a"])
            with pytest.raises(CannotMeasure, match="top level of a module"):
                slots.wait(30)
        with Slots(rewards.dock, executor=pool) as slots:
            [outcome] = measured(slots, ["a"])
            assert outcome.reward == 1.0
            slots.submit([threading.Lock()])
            [outcome] = slots.wait(30)
            assert str(outcome.error).startswith("the sample cannot be sent to the executor: ")
            slots.submit(["kill"])
            [outcome] = slots.wait(30)
            assert outcome.died
            assert str(outcome.error).startswith("worker died, BrokenProcessPool: ")
            with pytest.raises(CannotMeasure, match="make a new executor and call again"):
                slots.free()
