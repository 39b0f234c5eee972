"""The clock of one process is set, by hours and minutes, with libfaketime: no promise hangs on it.

On SQLite that process tells the time; on PostgreSQL the server does, so its clock is set as well.
"""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from helpers.polling import until
from helpers.servers import new_database, start_server
from helpers.workers import rows
from sqlbuffer.retraining.schedule import Schedule
from sqlbuffer.retraining.worker import RETRAIN
from sqlbuffer.store import SampleStore, open_store

SPEC = importlib.util.find_spec("libfaketime")  # not imported, which would change the environment
LIBRARY = SPEC and next(pathlib.Path(str(SPEC.origin)).parent.rglob("libfaketime.so.1"))
SHIFTS = ["-5h", "-1m", "+2m", "+5h"]
NOT_SET = "+0"
GRACE_S = 1.2

pytestmark = pytest.mark.skipif(
    LIBRARY is None, reason="libfaketime has a wheel for Linux on x86-64 only"
)


class Clock:
    """A clock that can be set while processes run by it."""

    def __init__(self, file: pathlib.Path) -> None:
        self.file = file
        self.set(NOT_SET)
        self.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, shift: str) -> None:
        """Let it be so much before or behind the true time from now on."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{shift}\n")
        new.chmod(0o644)
        new.replace(self.file)


@pytest.fixture(scope="module")
def module_clock() -> Iterator[Clock]:
    folder = tempfile.mkdtemp(prefix="sb")
    pathlib.Path(folder).chmod(0o755)
    yield Clock(pathlib.Path(folder, "clock"))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def moved_server(module_clock: Clock) -> Iterator[str]:
    """A PostgreSQL server that goes by the clock."""
    folder = tempfile.mkdtemp(prefix="sb")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in module_clock.environment.items():
            patch.setenv(name, value)
        server = start_server(pathlib.Path(folder, "pg"))
    server.psql("ALTER SYSTEM SET fsync = off;")
    server.psql("SELECT pg_reload_conf();")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def clock(module_clock: Clock) -> Iterator[Clock]:
    yield module_clock
    module_clock.set(NOT_SET)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'buffer.db'}"
    return new_database(request.getfixturevalue("moved_server"))


class Moved:
    """A process by the clock that is set. It runs what it is sent, and says when that is done."""

    def __init__(self, clock: Clock) -> None:
        path = os.pathsep.join(sys.path)
        environment = {**os.environ, **clock.environment, "PYTHONPATH": path}
        command = [sys.executable, "-c", _MOVED]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def run(self, code: str) -> str:
        """Run a statement, and return what it prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(code.replace("\n", "\r") + "\n")
        self.process.stdin.flush()
        said = ""
        while not (line := self.process.stdout.readline()).startswith("done"):
            assert line, "it has ended"
            said += line
        return said


_MOVED = """
import os, sys
import numpy as np
from helpers.inside import handle_of
from sqlbuffer.core import workers
workers.host = lambda: "elsewhere"  # of another host: nothing is known of its process
from sqlbuffer.store import open_store
def scores(samples):
    return np.array([float(sample[1:]) for sample in samples])
for line in sys.stdin:
    exec(line.replace("\\r", "\\n"))
    print("done", flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def started() -> Iterator[list[Moved]]:
    """Processes that have been started: one is enough for all tests that do not kill it."""
    processes: list[Moved] = []
    yield processes
    for each in processes:
        each.process.kill()
        each.process.communicate()


@pytest.fixture
def moved(clock: Clock, store_url: str, started: list[Moved]) -> Iterator[Moved]:
    if not started or not started[-1].is_alive:
        started.append(Moved(clock))
    running = started[-1]
    running.run(f"store = open_store({store_url!r}, grace_s={GRACE_S})")
    yield running
    if running.is_alive:
        running.run("store.close()")


ITERATION = """
store.add([f"s{{number}}" for number in range({first}, {first} + 8)])
store.score(scores)
with store.sample(5) as batch:
    batch.settle(scores(batch.samples), is_iteration=True)
    print(*batch.ids)
"""


def told(store: SampleStore) -> tuple[Any, ...]:
    """What a store knows of its samples."""
    waiting, (samples, rewards) = store.waiting(), store.labelled()
    return (
        sorted(waiting.samples),
        dict(zip(samples, rewards.tolist(), strict=True)),
        store.incumbent(),
    )


@pytest.mark.parametrize(("shift", "back"), [("-5h", False), ("+2m", False), ("+5h", True)])
def test_copies_labels_and_incumbent(
    clock: Clock, store_url: str, moved: Moved, shift: str, back: bool
) -> None:
    """The clock is set before the fourth of six batches, and set back, perhaps, before
    the fifth.
    """
    with open_store(store_url, grace_s=GRACE_S) as store:
        then, drawn = [], []
        for i in range(6):
            clock.set(
                {3: shift, 4: NOT_SET if back else shift}.get(i, clock.file.read_text().strip())
            )
            if i in (2, 3, 5):
                moved.run(f"store.save_predictor(b'state', rows_trained={i})")
            then.append(told(store))
            drawn.append(
                [int(number) for number in moved.run(ITERATION.format(first=8 * i)).split()]
            )
            then[i] = (*then[i], len(store) + 5)
        for i in range(6):
            with store.copy(f"at {i}", at_iteration=i) as copied:
                waiting, rewards, incumbent = told(copied)
                assert (rewards, incumbent, len(copied)) == (then[i][1], then[i][2], then[i][3]), i
                assert set(then[i][0]) <= set(waiting), i
                assert copied.check() == []
                newest = copied.labelled_rows(newest=5)
                assert len(newest) == min(i, 1) * 5
                assert set(newest) == set(store.samples_of(drawn[i - 1]).values()) or not i
        assert sorted(store.labelled_rows(newest=5).ids) == sorted(drawn[5])
        assert sorted(store.labelled_rows(newest=10).ids) == sorted(drawn[4] + drawn[5])
        assert store.check() == []


FAR = ["-5h", "+5h", NOT_SET]


def test_claims_and_leases(clock: Clock, store_url: str, moved: Moved) -> None:
    """A worker of another host keeps its claim and its job while its clock jumps, and loses both
    once it is dead. It takes none from the others either.
    """
    moved.run('store.add(["s1", "s2", "s3", "s4"]); store.score(scores); batch = store.sample(4)')
    moved.run('work = store.leased("tidy"); lease = work.__enter__(); print(lease.run)')
    with open_store(store_url, grace_s=GRACE_S) as store:
        store.add(["s5", "s6"])  # from now on its heartbeat looks on
        store.score(lambda samples: [float(sample[1:]) for sample in samples])
        batch = store.sample(2)
        moved.run('store.add(["s9"])')

        def is_taken() -> bool:
            with store.leased("tidy") as lease:
                return lease is not None

        for shift in FAR:
            clock.set(shift)
            ends = time.monotonic() + 1.5 * GRACE_S
            while time.monotonic() < ends:
                assert not is_taken(), shift
                assert store.stats().claimed == 6, shift
                time.sleep(0.1)
            moved.run(
                "from sqlbuffer.core.reaper import release_dead; release_dead(handle_of(store))"
            )
            assert store.stats().claimed == 6, shift
        clock.set("-5h")
        moved.process.kill()
        moved.process.wait()
        clock.set(NOT_SET)
        killed_at = time.monotonic()
        assert store.stats().claimed == 6
        until(is_taken, timeout_s=60)
        until(lambda: store.stats().claimed == 2, timeout_s=60)
        assert time.monotonic() - killed_at > GRACE_S / 2
        batch.settle([1.0] * 2)
        assert store.check() == []


@pytest.mark.parametrize(
    ("who", "shift"),
    [("started", "-5h"), ("started", "+2m"), ("looks on", "-1m"), ("looks on", "+5h")],
)
def test_schedules(clock: Clock, store_url: str, moved: Moved, shift: str, who: str) -> None:
    """A job is due `every` seconds after it started, whichever process asks, and not before."""
    schedule = Schedule("1s")
    moved.run("from sqlbuffer.retraining.schedule import Schedule; schedule = Schedule('1s')")
    with open_store(store_url, grace_s=GRACE_S) as store:

        def take_here() -> None:
            with store.leased(RETRAIN) as lease:
                assert lease is not None

        def is_due_here() -> bool:
            return schedule.is_due(next(job for job in store.jobs() if job.name == RETRAIN))

        def take_there() -> None:
            moved.run(f"with store.leased({RETRAIN!r}) as lease: assert lease is not None")

        def is_due_there() -> bool:
            said = moved.run("print(schedule.is_due(next(job for job in store.jobs())))")
            return said.strip() == "True"

        take_here()
        is_due_here(), is_due_there()
        looked_at = time.monotonic()
        is_due_here(), is_due_there()
        clock.set(shift)
        (take_there if who == "started" else take_here)()
        started_at = time.monotonic()
        is_due: Callable[[], bool] = is_due_here if who == "started" else is_due_there
        while not is_due():
            assert time.monotonic() < started_at + 15.0, "it was postponed"
            time.sleep(0.05)
        assert time.monotonic() > looked_at + 1.0, "that it had not started by then was seen"


@pytest.mark.parametrize("shift", ["-5h", "+5h"])
def test_a_run_that_has_ended_is_not_broken_off(
    clock: Clock, store_url: str, moved: Moved, shift: str
) -> None:
    moved.run("work = store.leased('tidy'); lease = work.__enter__()")
    clock.set(shift)
    moved.run("work.__exit__(None, None, None)")
    with open_store(store_url, grace_s=GRACE_S) as store:
        (job,) = store.jobs()
        assert (job.is_held, job.is_broken_off, job.runs) == (False, False, 1)


def test_a_heartbeat_goes_on(clock: Clock, store_url: str, moved: Moved) -> None:
    """It pauses for no longer when its clock is set back."""
    moved.run('store.add(["s1"])')
    with open_store(store_url, grace_s=GRACE_S) as store:
        for shift in (*SHIFTS, NOT_SET):
            clock.set(shift)
            before = beats(store)
            until(lambda before=before: beats(store) != before, timeout_s=10)


def beats(store: SampleStore) -> list[Any]:
    return [row.heartbeat_at for row in rows(store).values()]
