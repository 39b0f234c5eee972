"""`sqlbuffer worker`, as processes: one of them trains at a time, and what one leaves undone
another one does.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.forked import Forked
from helpers.jobs import job_of
from helpers.polling import until
from helpers.samples import scores_of
from sqlbuffer.cli.main import main
from sqlbuffer.db.backends import from_now, now
from sqlbuffer.db.queries.buffers import COUNTERS
from sqlbuffer.db.schema import jobs, workers
from sqlbuffer.store import SampleStore, open_store

ROUNDS = 5
ROUNDS_ON_POSTGRESQL = 2
PATIENCE_S = 600.0

# Each training says that it begins and ends, and waits in between until it is told to go on. It
# holds a lock of the
# system's in between, which goes with the process: who cannot get it trains next to another one.
LAB = """
import fcntl, os, pathlib, time
import torch
from sqlbuffer import PredictiveAgent

HERE = pathlib.Path(__file__).parent


def say(word):
    with (HERE / "log").open("a") as log:
        log.write(f"{word} {os.getpid()}\\n")


def featurize(samples):
    return torch.tensor([[float(sample[1:])] for sample in samples])


class Waiting(PredictiveAgent):
    def train_supervised(self, *args, **options):
        with (HERE / "lock").open("a") as lock:
            for _ in range(100):  # of who was killed, threads that hold the lock may be dying still
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.01)
            else:
                say("alongside")
            say("begin")
            while not (HERE / "go").exists():
                time.sleep(0.01)
            result = super().train_supervised(*args, **options)
            say("end")
            return result


def make_agent():
    return Waiting(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, featurize)


def broken():
    raise RuntimeError("no GPU here")


def leaving():
    raise SystemExit(0)


def generator():
    raise GeneratorExit


def loud():
    raise RuntimeError("\\x1b[2J\\x00\\x9b31m first line\\nsecond line")


class Exiting(PredictiveAgent):
    def train_supervised(self, *args, **options):
        raise SystemExit(0)


def exiting():
    return Exiting(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, featurize)


class Loaded(PredictiveAgent):
    @property
    def streams(self):
        return False

    def update_dataset_from_inputs(self, *args):
        raise ValueError("\\x1b[2J\\x00\\x9b31m\\nERROR forged")


def hostile():
    return Loaded(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, featurize)


def nothing():
    return None


number = 7
"""


class Lab:
    """A folder with the agent, and the workers that were started in it."""

    def __init__(self, folder: pathlib.Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.workers: list[Forked] = []
        (folder / "lab.py").write_text(LAB)
        self.go = folder / "go"

    def hire(self, *options: str, agent: str = "lab:make_agent") -> Forked:
        command = ["worker", "--url", self.url, "--agent", agent, "--epochs", "1", *options]
        self.workers.append(Forked(main, command, self.folder))
        return self.workers[-1]

    def run(self, *options: str, **agent: str) -> subprocess.CompletedProcess[str]:
        process = self.hire(*options, **agent)
        said = process.communicate(PATIENCE_S)
        return subprocess.CompletedProcess(options, process.returncode or 0, *said)

    def said(self, word: str) -> list[int]:
        """The processes that have said a word."""
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == word]

    def amid_training(self, n: int) -> int:
        """Wait until the n-th training has begun; return whose it is."""
        until(lambda: len(self.said("begin")) >= n, timeout_s=PATIENCE_S)
        return self.said("begin")[n - 1]


@pytest.fixture
def lab(tmp_path: pathlib.Path, store_url: str) -> Iterator[Lab]:
    found = Lab(tmp_path, store_url)
    yield found
    for process in found.workers:
        process.kill()
        process.communicate()


@pytest.fixture
def buffer(store_url: str) -> Iterator[SampleStore]:
    """Some samples are measured, the others wait."""
    with open_store(store_url) as store:
        store.add([f"s{i}" for i in range(50)])
        store.score(scores_of)
        store.record([f"s{i}" for i in range(10)], [float(i) for i in range(10)])
        yield store


def test_rounds_with_a_kill_in_each(
    lab: Lab, buffer: SampleStore, agents: Callable[[], Any]
) -> None:
    due = ("--when-new", "1", "--bs", "8")
    hired = {lab.hire(*due).pid, lab.hire(*due).pid}
    rounds = ROUNDS if lab.url.startswith("sqlite") else ROUNDS_ON_POSTGRESQL
    for i in range(rounds):
        if i:
            buffer.record([f"s{10 + i}"], [1.0])
        killed = lab.amid_training(2 * i + 1)
        os.kill(killed, signal.SIGKILL)
        hired.remove(killed)
        assert lab.amid_training(2 * i + 2) in hired
        lab.go.touch()
        until(
            lambda i=i: len(lab.said("end")) == i + 1 and not job_of(buffer).is_held,
            timeout_s=PATIENCE_S,
        )
        lab.go.unlink()
        done = job_of(buffer)
        assert (done.runs, done.measured, done.last_error) == (2 * i + 2, 10 + i, None)
        assert not done.is_broken_off
        newest = buffer.newest_predictor()
        assert newest is not None
        assert buffer.load_predictor(agents()) == newest.version
        assert newest.version == i + 1, "one version for each round"
        hired.add(lab.hire(*due).pid)
    assert lab.said("alongside") == []
    assert len(lab.said("begin")) == 2 * rounds
    assert buffer.check() == []


@pytest.fixture
def agents(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Makes agents as the workers have them."""
    monkeypatch.syspath_prepend(str(lab.folder))
    monkeypatch.delitem(sys.modules, "lab", raising=False)
    import lab as module

    monkeypatch.delitem(sys.modules, "lab")
    make: Callable[[], Any] = module.make_agent  # type: ignore[attr-defined]
    return make


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=lambda sign: sign.name)
def test_a_signal_ends_the_training_and_lets_the_job_go(
    lab: Lab, buffer: SampleStore, sign: signal.Signals
) -> None:
    process = lab.hire("--every", "1h")
    assert lab.amid_training(1) == process.pid
    process.send_signal(sign)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, log
    assert f"{sign.name}: releasing the job" in log
    left = job_of(buffer)
    assert (left.owner, left.is_broken_off, left.last_error) == (
        None,
        True,
        f"interrupted: Stop {sign.name}",
    )
    assert buffer.newest_predictor() is None

    lab.go.touch()
    done = lab.run("--every", "1h", "--once")
    assert done.returncode == 0, done.stderr
    assert (job_of(buffer).runs, job_of(buffer).last_error, buffer.newest_version()) == (2, None, 1)
    assert "waiting samples rescored" in done.stderr
    assert buffer.is_refreshed()


def test_a_worker_that_waits_is_told_to_go(lab: Lab, buffer: SampleStore) -> None:
    process = lab.hire("--when-new", "1000")
    until(
        lambda: any(job.schedule == "when 1,000 are new" for job in buffer.jobs()),
        timeout_s=PATIENCE_S,
    )
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, log
    assert (job_of(buffer).runs, buffer.newest_predictor()) == (0, None)


def test_once_does_what_is_due_and_nothing_else(lab: Lab, buffer: SampleStore) -> None:
    lab.go.touch()
    for _ in range(2):
        done = lab.run("--cron", "0 0 1 1 *", "--once", "--no-refresh")
        assert done.returncode == 0, done.stderr
    assert "not due" in done.stderr
    assert (job_of(buffer).runs, buffer.newest_version()) == (1, 1)
    assert not buffer.stats().unscored
    shown = subprocess.run(
        [sys.executable, "-m", "sqlbuffer", "jobs", "--json", "--url", lab.url],
        capture_output=True,
        text=True,
    )
    (row,) = json.loads(shown.stdout)
    assert (row["job"], row["state"], row["runs"], row["new"]) == ("retrain", "idle", 1, 0)
    assert row["schedule"] == "at 0 0 1 1 * UTC"


def test_once_fails_where_the_training_does(lab: Lab, buffer: SampleStore) -> None:
    (lab.folder / "lab.py").write_text(
        LAB.replace("super().train", "self.no_such_method; super().train")
    )
    lab.go.touch()
    failed = lab.run("--every", "1d", "--once")
    assert failed.returncode == 1
    assert "no_such_method" in failed.stderr
    assert "no_such_method" in (job_of(buffer).last_error or "")


@pytest.fixture
def url_beside_lab(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with a buffer, in the folder with the agent, which is where this
    process is too.
    """
    url = f"sqlite:///{tmp_path}/x.db"
    with contextlib.closing(open_store(url)):
        (tmp_path / "lab.py").write_text(LAB)
        (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lab", raising=False)
    return url


@pytest.mark.parametrize(
    ("agent", "options", "message"),
    [
        ("nowhere:make_agent", ["--every", "1m"], "No module named 'nowhere'"),
        ("lab:missing", ["--every", "1m"], "lab has no function 'missing'"),
        ("lab:number", ["--every", "1m"], "lab has no function 'number'"),
        ("lab:broken", ["--every", "1m"], "lab:broken() raised RuntimeError: no GPU here"),
        ("lab:leaving", ["--every", "1m"], "lab:leaving() raised SystemExit: 0"),
        ("lab:generator", ["--every", "1m"], "lab:generator() raised GeneratorExit"),
        ("lab:loud", ["--every", "1m"], r"raised RuntimeError: \x1b[2J\x00\x9b31m first line"),
        ("leaves:make_agent", ["--every", "1m"], "leaves cannot be imported: SystemExit: 3"),
        ("lab:nothing", ["--every", "1m"], "made a NoneType without update_dataset_from_inputs"),
        ("lab", ["--every", "1m"], "give MODULE:FUNCTION"),
        ("lab:make_agent", [], "a schedule needs every"),
        ("lab:make_agent", ["--every", "soon"], "got 'soon'"),
        ("lab:make_agent", ["--cron", "never"], "got 'never'"),
    ],
)
def test_what_cannot_work_is_one_message(
    agent: str, options: list[str], message: str, url_beside_lab: str
) -> None:
    from helpers.commands import run, unstyled

    result = run("worker", "--agent", agent, *options, url=url_beside_lab, COLUMNS="300")
    assert result.code == 2, result
    assert message in unstyled(result.err)
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "origin = 'x'"], "origin"),
        (["--best", "5"], "best"),
        (["--lr", "-1"], "lr must be a learning rate, 0 or more and 1e30 at most; got -1.0"),
        (["--acquisition", "ucb"], "has no dropout"),
    ],
)
def test_what_every_round_would_fail_of_is_refused_at_the_start(
    options: list[str], message: str, url_beside_lab: str
) -> None:
    from helpers.commands import refused, run

    assert message in refused(
        run("worker", "--agent", "lab:make_agent", "--every", "1m", *options, url=url_beside_lab)
    )


def test_a_buffer_that_is_not_there_is_one_line(lab: Lab, buffer: SampleStore) -> None:
    refused = lab.run("--every", "1m", "--name", "missing")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "no buffer 'missing'" in refused.stderr


def test_once_says_in_one_line_that_nothing_is_due(lab: Lab, buffer: SampleStore) -> None:
    for owner, said in (
        ("", r"0 samples were measured since the last run, \d+ s ago; it runs when 1,000 are new"),
        ("\x1b[2J\x9b31m\nx", re.escape("\\x1b[2J\\x9b31m\\nx runs it")),
    ):
        hold(buffer, owner)
        done = lab.run("--when-new", "1000", "--once")
        assert done.returncode == 0, done.stderr
        assert re.search(f" INFO not due: {said}\n$", done.stderr), done.stderr
        assert "Traceback" not in done.stderr


def hold(buffer: SampleStore, owner: str) -> None:
    """Have a job that another host's worker is at."""
    with buffer.leased("retrain"):
        pass
    if not owner:
        return
    row = {"host": "elsewhere", "pid": 1, "process_started_at": 0.0, "clock": 0.0}
    row |= {"buffer_id": inside.buffer_id(buffer), "id": owner, **dict.fromkeys(COUNTERS, 0)}
    times = {"created_at": now(), "heartbeat_at": now()}
    held = sa.update(jobs).values(owner=owner, lease_until=from_now(3600.0))

    def write(connection: sa.Connection) -> None:
        connection.execute(sa.insert(workers).values(**row, **times))
        connection.execute(held)

    inside.database_of(buffer).write(write)


def test_an_agent_that_exits_fails_its_round_and_is_said(lab: Lab, buffer: SampleStore) -> None:
    failed = lab.run("--every", "1h", "--once", agent="lab:exiting")
    assert failed.returncode == 1, failed.stderr
    assert "the agent's code raised SystemExit: 0" in failed.stderr
    left = job_of(buffer)
    assert (left.owner, left.is_broken_off, left.runs) == (None, False, 1), (
        "it is not due at once again"
    )
    assert (
        left.last_error
        == "RuntimeError: the agent's code raised SystemExit: 0: raise an error instead"
    )
    process = lab.hire("--every", "1s", agent="lab:exiting")
    until(lambda: job_of(buffer).runs >= 3, timeout_s=PATIENCE_S)
    assert process.is_alive()


def test_what_an_agent_raises_forges_no_line_of_the_log(lab: Lab, buffer: SampleStore) -> None:
    failed = lab.run("--every", "1h", "--once", agent="lab:hostile")
    assert failed.returncode == 1
    lines = failed.stderr.splitlines()
    assert all(line.isprintable() for line in lines), failed.stderr
    assert not any(line.startswith("ERROR forged") for line in lines)
    assert r"ValueError: \x1b[2J\x00\x9b31m" in failed.stderr
    assert job_of(buffer).last_error == r"ValueError: \x1b[2J\x00\x9b31m"
