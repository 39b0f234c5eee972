"""A claim belongs to the process that made it: what a forked child does, or how it ends, takes none
from its parent.
"""

import pathlib
import subprocess
import sys
import textwrap

import pytest

from sqlbuffer.store import open_store

ROOT = pathlib.Path(__file__).parents[2]
TEN = [f"s{i}" for i in range(10)]

FORK = """
import gc, multiprocessing, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from sqlbuffer import open_store
from sqlbuffer.errors import ClaimLost, LeaseLost

def wait(child):
    status = os.waitpid(child, 0)[1]
    assert status == 0, status

def refused(error, function, *given):
    try:
        function(*given)
    except error as exc:
        assert "belongs to" in str(exc), exc
    else:
        raise AssertionError("this was not refused")

def leave_block(store):
    with store.sample(5) as batch:
        if not (child := os.fork()):
            sys.exit()
        wait(child)
        assert store.stats().claimed == 5
        batch.settle([1.0] * 5)

def leave_block_by_an_error(store):
    with store.sample(5) as batch:
        if not (child := os.fork()):
            try:
                with batch:
                    1 / 0
            except ZeroDivisionError:
                sys.exit()
        wait(child)
        batch.settle([1.0] * 5)

def close_store(store):
    with store:
        batch = store.sample(5)
        if not (child := os.fork()):
            store.close()
            sys.exit()
        wait(child)
        batch.settle([1.0] * 5)

def drop_batch(store):
    batch = store.sample(5)
    if not (child := os.fork()):
        del batch
        gc.collect()
        from sqlbuffer.db import disposal
        disposal.wait()
        sys.exit()
    wait(child)
    batch.settle([1.0] * 5)

def use_the_claim(store):
    batch = store.sample(5)
    if not (child := os.fork()):
        refused(ClaimLost, batch.settle, [7.0] * 5)
        refused(ClaimLost, batch.report, batch.ids, [8.0] * 5)
        refused(ClaimLost, batch.release)
        assert store.rewards_of(batch.samples) == [7.0] * 5, "the first that was measured"
        sys.exit()
    wait(child)
    assert (store.stats().claimed, store.iteration) == (5, 0)
    batch.settle([1.0] * 5)

def child_of_multiprocessing(store):
    batch = store.sample(5)
    def child():
        with batch:
            refused(ClaimLost, batch.settle, [7.0] * 5)
    for process in [multiprocessing.get_context("fork").Process(target=child) for _ in range(2)]:
        process.start()
        process.join()
        assert process.exitcode == 0
    batch.settle([1.0] * 5)

def claim_of_the_child(store):
    batch = store.sample(5)
    if not (child := os.fork()):
        with store.sample(2) as own:
            own.settle([3.0, 3.0])
        kept = store.sample(1)
        sys.exit()
    wait(child)
    batch.settle([1.0] * 5)
    assert (store.iteration, store.stats().claimed) == (2, 0), "claims of the child were released"
    store.settled_elsewhere = True

def leave_lease(store):
    batch = store.sample(5)
    with store.leased("job") as lease:
        if not (child := os.fork()):
            refused(LeaseLost, lambda: store.save_predictor(b"x", rows_trained=1, lease=lease))
            sys.exit()
        wait(child)
        (job,) = store.jobs()
        assert job.is_held and job.last_finished_at is None and job.last_error is None, job
        store.save_predictor(b"x", rows_trained=1, lease=lease)
    (job,) = store.jobs()
    assert job.last_finished_at is not None and job.last_error is None
    batch.settle([1.0] * 5)

def loop(store):
    # with torch, whose import and end cost more than all the rest
    from sqlbuffer import Buffer, Environment
    def fork_once(batch_state):
        pass
    buffer = Buffer(1.0, url=url, name="loop")
    env = Environment(buffer=buffer)
    env.bs = 5
    env("before_train")
    env("sample_batch")
    if not (child := os.fork()):
        env._abort()
        sys.exit()
    wait(child)
    assert buffer.store.stats().claimed == 5
    buffer._batch.settle([1.0] * 5)
    buffer.close()

folder, ways = sys.argv[1], sys.argv[2:]
# each in a process of its own, forked from one that has imported everything, has compiled the
# statements, and has nothing open
url = open(f"{folder}/url").read()
if url.startswith("sqlite"):
    url = f"sqlite:///{folder}/compiled.db"
with open_store(url, name="compiled", weighting="uniform") as store:
    store.add(["s0", "s1"])
    store.sample(1).settle([1.0])
    store.sample(1).release()
    with store.leased("job"):
        store.stats(), store.check()
del store
gc.freeze()  # the end of a process looks for garbage among what is not frozen
for way in ways:
    if not (child := os.fork()):
        os.dup2(os.open(f"{folder}/{way}", os.O_WRONLY | os.O_CREAT), 2)
        url = open(f"{folder}/url").read()
        store = open_store(url, name=way, weighting="uniform")
        store.add([f"s{i}" for i in range(10)])
        globals()[way](store)
        assert (store.stats().claimed, store.iteration >= 1, store.check()) == (0, True, [])
        sys.exit()
    print(way, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

WAYS = [
    line.split("(")[0].removeprefix("def ")
    for line in FORK.splitlines()
    if line.endswith("(store):")
]


def test_a_forked_child_takes_nothing_from_its_parent(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "url").write_text(store_url)
    # Whose claim it is, and whose lease, is decided before a database is asked.
    on_a_server = ["leave_block", "use_the_claim", "claim_of_the_child", "leave_lease"]
    ways = WAYS if store_url.startswith("sqlite") else on_a_server
    command = [sys.executable, "-c", FORK, str(tmp_path), *ways]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    said = {way: (tmp_path / way).read_text() for way in ways}
    assert (done.stdout.splitlines(), done.stderr) == ([f"{way} 0" for way in ways], ""), said
    del said["claim_of_the_child"]  # its own batch is dropped as it ends, perhaps with a warning
    assert not any(said.values()), said
    for way in ways:
        with open_store(store_url, name=way, weighting="uniform") as store:
            assert (store.stats().claimed, store.check()) == (0, []), way
            assert store.stats().measured >= 5, way


TRAINER = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from sqlbuffer import open_store
from sqlbuffer.retraining.background import Background

class Agent:
    def state_dict(self): return {}

def main():
    store = open_store(sys.argv[1])
    trainer = Background(store, None)
    trainer._executor.submit(os.getpid).result()
    if not (child := os.fork()):
        trainer.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    other = trainer._executor.submit(os.getpid).result()
    assert other != os.getpid(), "the parent's trainer goes on"
    trainer.close()

if __name__ == "__main__":
    main()
"""


def test_a_forked_child_leaves_the_trainer_of_its_parent_alone(
    sqlite_url: str, tmp_path: pathlib.Path
) -> None:
    script = tmp_path / "trainer.py"
    script.write_text(textwrap.dedent(TRAINER))
    done = subprocess.run(
        [sys.executable, script, sqlite_url], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


LOSES = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from sqlbuffer import open_store
store = open_store(sys.argv[1], weighting="uniform")
store.add(["first"])
read, write = os.pipe()
if not os.fork():
    store.add(["second"])
    os.read(read, 1)  # the parent has ended, and another process has opened and closed the file
    store.add(["third"])
    print(len(store), flush=True)
    os._exit(0)
print(write, flush=True)
input()
os._exit(0)
"""


def test_a_child_that_outlives_its_parent_keeps_the_log_of_the_file(sqlite_url: str) -> None:
    """SQLite's locks are not inherited, but a child that found its parent's connections would take
    them for its own.
    """
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    script = LOSES.replace("read, write = os.pipe()", "read = sys.stdin.fileno()").replace(
        "print(write", "print(0"
    )
    script = script.replace(
        "input()\n",
        "import time\nwhile open_store(sys.argv[1]) and len(store) < 2: time.sleep(0.1)\n",
    )
    with subprocess.Popen([sys.executable, "-c", script, sqlite_url], cwd=ROOT, **pipe) as parent:  # type: ignore[call-overload]
        assert parent.stdout.readline() == "0\n"
        parent.wait(60)
        with open_store(sqlite_url, weighting="uniform") as other:
            assert len(other) == 2
        parent.stdin.write("x")
        parent.stdin.close()
        assert parent.stdout.readline() == "3\n"
    with open_store(sqlite_url, weighting="uniform") as other:
        assert (len(other), other.check()) == (3, [])


BUSY = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from sqlbuffer import open_store
from sqlbuffer.errors import DatabaseUnavailable

def work(number):
    while not done.is_set():
        store.add([f"{number} {time.monotonic()}" for _ in range(50)])
        with store.sample(20) as batch:
            batch.settle([1.0] * len(batch))

def by_busy_threads():
    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(3)]
    for thread in threads:
        thread.start()
    for i in range(5):
        time.sleep(0.1)
        if not (child := os.fork()):
            start = time.monotonic()
            store.add([f"child {i}"])
            store.sample(3).settle([2.0] * 3)
            os._exit(time.monotonic() - start > 30)
        assert os.waitpid(child, 0)[1] == 0
    done.set()
    for thread in threads:
        thread.join()

def by_an_open_look():
    with store.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        if not (child := os.fork()):
            try:
                open_store(sys.argv[1], weighting="uniform")
            except DatabaseUnavailable as error:
                assert "was open in the process from which this one was forked" in str(error), error
                os._exit(7)
            os._exit(0)
        status = 7 if sys.argv[1].startswith("sqlite") else 0
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    store.add(["child of no process"])

done = threading.Event()
store = open_store(sys.argv[1], weighting="uniform")
store.add([f"s{i}" for i in range(100)])
globals()[sys.argv[2]]()
assert store.check() == []
"""


@pytest.mark.parametrize("way", ["by_busy_threads", "by_an_open_look"])
def test_a_fork_finds_no_transaction_of_another_thread(store_url: str, way: str) -> None:
    """SQLite has a table of locks in the memory of the process: a child would find it with those of
    its parent.
    """
    command = [sys.executable, "-c", BUSY, store_url, way]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
