"""`sqlbuffer measure` as processes that are killed while rewards raise, hang and kill."""

import collections
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from helpers.polling import until
from sqlbuffer.store import SampleStore, open_store

pytestmark = pytest.mark.slow

LAB = """
import os, pathlib, signal, time, zlib

HERE = pathlib.Path(__file__).parent


def dock(sample):
    kind = zlib.crc32(sample.encode()) % 100
    with open(HERE / "calls", "a") as file:
        file.write(f"{sample}\\n")
    time.sleep(0.005 + kind % 10 * 0.005)
    if kind < 5:
        raise ValueError("no conformer")
    if kind < 7:
        time.sleep(300)
    if kind < 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return float(kind)
"""


@pytest.fixture
def lab(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "lab.py").write_text(LAB)
    return tmp_path


class Crew:
    """Processes of `sqlbuffer measure` that are replaced when they are killed."""

    def __init__(self, lab: pathlib.Path, url: str, *options: str) -> None:
        self.command = [
            *(sys.executable, "-m", "sqlbuffer", "measure", "--url", url, "--reward", "lab:dock"),
            *options,
        ]
        self.lab, self.n_kills, self.rng = lab, 0, random.Random(0)
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command,
            cwd=self.lab,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def kill_one(self) -> None:
        """Kill a process, and start another in its place."""
        running = [process for process in self.processes if process.poll() is None]
        if running:
            victim = self.rng.choice(running)
            victim.kill()
            victim.wait()
            self.n_kills += 1
            self.start()

    @property
    def is_done(self) -> bool:
        return all(process.poll() is not None for process in self.processes)


@contextlib.contextmanager
def crew(lab: pathlib.Path, url: str, *options: str) -> Iterator[Crew]:
    found = Crew(lab, url, *options)
    try:
        yield found
    finally:
        for process in found.processes:
            process.kill()
            process.communicate()


def filled(url: str, n: int, budget: int | None = None) -> None:
    with open_store(url, weighting="uniform") as store:
        store.add([f"sample {i}" for i in range(n)])
        store.set_budget(budget)


@pytest.mark.parametrize(
    ("n", "budget", "n_processes", "pause_s", "n_kills"),
    [(150, 110, 2, 1.5, 2), pytest.param(2_000, 1_500, 4, 3.0, 1_000, marks=pytest.mark.soak)],
)
def test_what_is_started_ends_measured_or_failed_with_a_reason(
    store_url: str,
    lab: pathlib.Path,
    n: int,
    budget: int,
    n_processes: int,
    pause_s: float,
    n_kills: int,
) -> None:
    filled(store_url, n, budget)
    slots = 4
    with crew(
        lab, store_url, "--n-jobs", str(slots), "--timeout", "1s", "--batch", "8"
    ) as measuring:
        for _ in range(n_processes):
            measuring.start()
        while not measuring.is_done:
            time.sleep(pause_s)
            if used(store_url) < 0.8 * budget and measuring.n_kills < n_kills:
                measuring.kill_one()
        for process in measuring.processes:
            out, err = process.communicate()
            assert process.returncode in (0, -signal.SIGKILL), (out, err)
    with open_store(store_url, weighting="uniform") as store:
        account(store, lab, n=n, budget=budget, n_repeats=slots * measuring.n_kills)


def used(url: str) -> int:
    with open_store(url, weighting="uniform") as store:
        stats = store.stats()
        return stats.measured + stats.failed


def account(store: SampleStore, lab: pathlib.Path, *, n: int, budget: int, n_repeats: int) -> None:
    """Compare what is stored with the calls that were made."""
    stats = store.stats()
    assert (stats.measured + stats.failed, stats.claimed) == (budget, 0)
    assert store.budget_left == 0
    assert len(store) == n - budget
    calls = collections.Counter((lab / "calls").read_text().splitlines())
    failed = {it["sample"]: it["error"] for it in store.failed()}
    measured = set(store.labelled()[0])
    assert set(calls) == measured | set(failed)
    deaths = [error for error in failed.values() if "worker died" in error]
    reasons = [error for error in failed.values() if "no conformer" in error or "timed" in error]
    assert len(deaths) + len(reasons) == len(failed)
    by_themselves = sum(
        calls[sample] - 1 for sample, error in failed.items() if "worker died" in error
    )
    repeated = sum(calls.values()) - len(calls) - by_themselves
    assert repeated <= n_repeats
    assert store.check() == []


def test_sigterm_waits_for_what_runs_and_gives_back_the_rest(
    store_url: str, lab: pathlib.Path
) -> None:
    slow = LAB.replace("0.005 + kind % 10 * 0.005", "1.0").replace("kind <", "kind < -100 +")
    (lab / "lab.py").write_text(slow)
    filled(store_url, 20)
    with crew(lab, store_url, "--n-jobs", "2", "--drain", "30s") as measuring:
        process = measuring.start()
        until(lambda: used(store_url) >= 1)
        process.terminate()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert "SIGTERM: waiting at most 30 s for running measurements" in err
    with open_store(store_url, weighting="uniform") as store:
        stats = store.stats()
        n_calls = len((lab / "calls").read_text().splitlines())
        assert (stats.measured, stats.failed, stats.claimed) == (n_calls, 0, 0)
        assert f"measured {n_calls}, failed 0, released" in out
        assert stats.waiting == 20 - n_calls
        assert store.check() == []


SCRIPT = """
import sys
from sqlbuffer.store import open_store
from lab import dock

with open_store(sys.argv[1]) as store:
    store.measure(dock, n_jobs=int(sys.argv[2]), silent=True)
"""


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_sigterm_of_a_script_is_no_attempt(store_url: str, lab: pathlib.Path, n_jobs: int) -> None:
    """Not even when it comes three times: a preempted job sets no sample aside."""
    (lab / "lab.py").write_text(LAB.replace("0.005 + kind % 10 * 0.005", "60.0"))
    filled(store_url, 5)
    for i in range(3):
        command = [sys.executable, "-c", SCRIPT, store_url, str(n_jobs)]
        process = subprocess.Popen(
            command, cwd=lab, env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, "."])}
        )
        until(lambda n=i: n_calls(lab) >= n_jobs * (n + 1))  # type: ignore[misc]
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
        with open_store(store_url) as store:
            stats = store.stats()
            assert (stats.claimed, stats.waiting, store.failed()) == (0, 5, [])
            assert store.check() == []


def n_calls(lab: pathlib.Path) -> int:
    calls = lab / "calls"
    return len(calls.read_text().splitlines()) if calls.exists() else 0
