"""A job has one owner at a time; who lost it can store nothing; and its schedule is the same for
everybody.
"""

import contextlib
import datetime as dt
import functools
import logging
import math
import multiprocessing
import pathlib
import runpy
import subprocess
import sys
import threading
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from helpers import inside
from helpers.forked import Forked, train_in_forks
from helpers.interleaving import Gap
from helpers.jobs import job_of
from helpers.loops import environment, make_agent, named, predictive
from helpers.polling import until
from helpers.samples import scores_of
from helpers.workers import move_away
from sqlbuffer import PredictiveAgent
from sqlbuffer.core import workers
from sqlbuffer.core.leases import Job, Lease
from sqlbuffer.db.schema import jobs as table
from sqlbuffer.db.schema import samples
from sqlbuffer.db.schema import workers as workers_table
from sqlbuffer.errors import InvalidArgument, LeaseLost
from sqlbuffer.predictor.weights import dump_state
from sqlbuffer.retraining.background import Background
from sqlbuffer.retraining.schedule import Schedule
from sqlbuffer.retraining.train import retrain
from sqlbuffer.retraining.worker import RETRAIN, Worker, load_newer, retrain_alone
from sqlbuffer.store import SampleStore, open_store

OpenStore = Callable[..., SampleStore]
TINY: dict[str, Any] = {"bs": 8, "epochs": 1, "lr": 1e-2}
SAMPLES = [f"s{i}" for i in range(30)]


def change(store: SampleStore, **values: Any) -> None:
    """Change the row of the job."""
    inside.execute(store, sa.update(table).values(**values))


def measured(store: SampleStore, n: int = 10) -> SampleStore:
    """Some samples are measured, the others wait."""
    store.add(SAMPLES)
    store.score(scores_of)
    store.record(SAMPLES[:n], scores_of(SAMPLES[:n]) / 30)
    return store


@pytest.fixture
def act_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets this process be another worker."""

    def act(name: str) -> None:
        inside.act_as(monkeypatch, name)

    return act


# -- the lease -------------------------------------------------------------------------------------


def test_one_has_it_at_a_time(store: SampleStore) -> None:
    with store.leased("tidy") as lease, store.leased("other") as another:
        assert lease == Lease("tidy", workers.worker_id(), 1)
        assert another is not None
        with store.leased("tidy") as refused:
            assert refused is None
        held = job_of(store, "tidy")
        assert (held.owner, held.is_held, held.is_broken_off) == (workers.worker_id(), True, False)
        assert held.lease_until is not None
        assert held.lease_until > held.now
    ended = job_of(store, "tidy")
    assert (ended.owner, ended.lease_until, ended.last_error, ended.is_broken_off) == (
        None,
        None,
        None,
        False,
    )
    with store.leased("tidy") as lease:
        assert lease is not None
        assert lease.run == 2


def test_of_many_at_once_one_gets_it(store_url: str) -> None:
    n, start = 8, threading.Barrier(8)
    at_work: list[int] = []
    most: list[int] = []
    runs: list[int] = []

    def work() -> None:
        with open_store(store_url) as store:
            start.wait()
            for _ in range(6):
                with store.leased("tidy") as lease:
                    if lease is not None:
                        at_work.append(1)
                        most.append(len(at_work))
                        runs.append(lease.run)
                        at_work.pop()

    with open_store(store_url) as store:
        store.add(SAMPLES)  # this process is known as a worker
    threads = [threading.Thread(target=work) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert runs == list(range(1, len(runs) + 1))
    with open_store(store_url) as store:
        assert job_of(store, "tidy").runs == len(runs)


def test_a_worker_that_saw_too_little_gets_no_lease(store: SampleStore) -> None:
    """Two workers find the job due; the second one comes when the first has done it already."""
    with store.leased("tidy", seen=0) as lease:
        assert lease is not None
    with store.leased("tidy", seen=0) as lease:
        assert lease is None
    with store.leased("tidy", seen=1) as lease:
        assert lease is not None


def test_it_is_renewed_while_the_work_goes_on(store_url: str) -> None:
    with open_store(store_url, grace_s=0.4) as store, store.leased("tidy"):
        first = job_of(store, "tidy").lease_until
        assert first is not None
        until(lambda: (job_of(store, "tidy").lease_until or first) > first)
        until(lambda: job_of(store, "tidy").now > first)
        assert job_of(store, "tidy").is_held


def test_no_thread_is_left(store: SampleStore) -> None:
    store.add(SAMPLES)
    before = threading.active_count()
    with store.leased("tidy"):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


@pytest.fixture(params=["expired", "gone", "released"])
def lose(
    request: pytest.FixtureRequest, act_as: Callable[[str], None], look_on: Callable[..., int]
) -> Callable[[SampleStore], None]:
    """Lets another worker be the one that could take the job now."""

    def lose_it(store: SampleStore) -> None:
        if request.param == "expired":
            look_on(store, for_s=60)
        elif request.param == "gone":
            remove = sa.delete(workers_table).where(workers_table.c.id == workers.worker_id())
            inside.execute(store, remove)
        else:
            move_away(store, silent_for_s=100)
            look_on(store, for_s=60)
        act_as("another")

    return lose_it


def test_a_worker_that_lost_its_lease_can_store_nothing(
    store: SampleStore, lose: Callable[[SampleStore], None]
) -> None:
    state = dump_state(make_agent())
    with pytest.raises(LeaseLost, match="run 1 of the job 'tidy'"), store.leased("tidy") as lease:  # noqa: PT012
        lose(store)
        with store.leased("tidy") as another:
            assert another == Lease("tidy", "another", 2)
            with pytest.raises(LeaseLost):
                store.save_predictor(state, rows_trained=1, lease=lease)
            assert store.newest_predictor() is None
            assert store.stats().score_version == 0
            store.save_predictor(state, rows_trained=2, lease=another)
    assert store.newest_version() == 1
    ended = job_of(store, "tidy")
    assert (ended.runs, ended.owner, ended.last_error, ended.is_broken_off) == (
        2,
        None,
        None,
        False,
    )


def test_the_job_of_a_process_that_died_is_free_at_once(store: SampleStore) -> None:
    script = """
import os, signal, sys
from sqlbuffer import open_store
store = open_store(sys.argv[1])
with store.leased("retrain") as lease:
    print(lease.owner, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    url = inside.url_of(store)
    killed = subprocess.run(
        [sys.executable, "-c", script, url], capture_output=True, text=True, timeout=600
    )
    owner = killed.stdout.strip()
    left = job_of(store)
    assert (left.owner, left.is_held, left.is_broken_off) == (owner, False, True)
    with store.leased(RETRAIN) as lease:
        assert lease is not None
        assert lease.run == 2
        assert job_of(store).last_error == f"{owner} died in run 1"
    assert job_of(store).last_error is None


def test_an_error_is_stored_and_goes_on_its_way(store: SampleStore) -> None:
    with pytest.raises(ZeroDivisionError), store.leased("tidy"):
        raise ZeroDivisionError("nothing to share")
    failed = job_of(store, "tidy")
    assert (failed.owner, failed.last_error) == (None, "ZeroDivisionError: nothing to share")
    assert not failed.is_broken_off
    with store.leased("tidy"):
        pass
    assert job_of(store, "tidy").last_error is None


def test_what_is_interrupted_is_to_be_done_again(store: SampleStore) -> None:
    with pytest.raises(KeyboardInterrupt), store.leased("tidy"):
        raise KeyboardInterrupt
    left = job_of(store, "tidy")
    assert (left.owner, left.last_error, left.is_broken_off) == (
        None,
        "interrupted: KeyboardInterrupt",
        True,
    )


# -- the schedule ----------------------------------------------------------------------------------

NOON = dt.datetime(2030, 5, 1, 12, 0, 10, tzinfo=dt.timezone.utc)


def state(**changes: Any) -> Job:
    """A job that was done half an hour ago in a minute, by all clocks."""
    usual: dict[str, Any] = {
        **{
            "name": RETRAIN,
            "owner": None,
            "is_held": False,
            "lease_until": None,
            "last_error": None,
            "runs": 1,
        },
        **{
            "last_started_at": NOON - dt.timedelta(minutes=30),
            "last_finished_at": NOON - dt.timedelta(minutes=29),
        },
        **{"measured": 100, "measured_now": 150, "schedule": None, "now": NOON},
        **{"started_ago_s": 1800.0, "ended_run": 1},
    }
    return Job(**{**usual, **changes})


@pytest.mark.parametrize(
    ("schedule", "is_due"),
    [
        (Schedule("31m"), False),
        (Schedule("30m"), True),
        (Schedule("1800s"), True),
        (Schedule("1h"), False),
        (Schedule("1d"), False),
        (Schedule(cron="0 * * * *"), True),
        (Schedule(cron="15 * * * *"), False),
        (Schedule(cron="0 13 * * *"), False),
        (Schedule(when_new=50), True),
        (Schedule(when_new=51), False),
        (Schedule("1h", when_new=50), True),
        (Schedule("1h", "0 12 * * *", 51), True),
        (Schedule("1h", "0 13 * * *", 51), False),
    ],
    ids=str,
)
def test_when_it_is_due(schedule: Schedule, is_due: bool) -> None:
    assert schedule.is_due(state()) == is_due
    assert not schedule.is_due(state(owner="another", is_held=True)), "another worker runs it"
    assert schedule.is_due(state(ended_run=0)), "it was broken off"
    assert schedule.is_due(state(ended_run=None, last_finished_at=None)), (
        "it was, under an older release"
    )
    assert schedule.is_due(state(ended_run=None, last_finished_at=NOON - dt.timedelta(hours=1)))
    assert schedule.is_due(state(ended_run=None)) == is_due


@pytest.mark.parametrize("hours", [-5, -1 / 60, 2 / 60, 5])
def test_a_clock_that_is_set_between_start_and_end_breaks_nothing_off(hours: float) -> None:
    ended_at = NOON + dt.timedelta(hours=hours)
    assert not state(last_finished_at=ended_at).is_broken_off
    assert state(last_finished_at=ended_at, ended_run=0).is_broken_off


@pytest.mark.parametrize("hours", [-5, -1 / 60, 2 / 60, 5])
@pytest.mark.parametrize("schedule", [Schedule("31m"), Schedule(cron="15 * * * *")], ids=str)
def test_a_clock_that_is_set_after_the_start_postpones_nothing(
    schedule: Schedule, hours: float
) -> None:
    """What counts is how long ago this process saw it start."""
    started_at = NOON - dt.timedelta(minutes=30) + dt.timedelta(hours=hours)
    assert not schedule.is_due(state(last_started_at=started_at))
    assert schedule.is_due(state(last_started_at=started_at, started_ago_s=46 * 60.0))
    assert schedule.is_due(state(last_started_at=started_at, started_ago_s=math.inf)), (
        "that cannot be"
    )


CRONTABS = {
    "0 3 * * 0": "04 11 18",
    "0 3 * * 7": "04 11 18",
    "0 3 * * SUN": "04 11 18",
    "0 3 * * 1": "05 12 19",
    "0 3 * * 1-5": "01 02 05",
    "0 3 * * mon-fri": "01 02 05",
    "0 3 * * 6,0": "03 04 10",
    "0 3 * * 5-7": "02 03 04",
    "0 3 13 * 5": "02 09 13",
    "0 3 1,15 * 3": "01 07 14",
    "0 3 13 * *": "13",
    "0 3 */10 * 0": "11",
    "0 3 * 2 *": "",
    "0 3 L * *": "31",
}
"""The first three days of January 2032, of which the 1st is a Thursday, on which a crontab lets
something run.
"""


@pytest.mark.parametrize("cron", CRONTABS)
def test_days_of_a_crontab_are_those_of_cron(cron: str) -> None:
    """0 and 7 are Sunday.

    Where both days are restricted one is enough; where one begins with a star both must fit.
    """
    schedule, day = Schedule(cron=cron), dt.timedelta(days=1)
    found = []
    start = dt.datetime(2032, 1, 1, 3, tzinfo=dt.timezone.utc)
    for morning in (start + i * day for i in range(31)):
        before = state(
            last_started_at=morning - day, now=morning, started_ago_s=day.total_seconds()
        )
        found += [f"{morning:%d}"] if schedule.is_due(before) else []
    assert " ".join(found[:3]) == CRONTABS[cron]


@pytest.mark.parametrize(
    ("cron", "minutes"), [("*/15 * * * *", 15), ("7-59/20 0-2 * * *", 7), ("0 1 * * *", 60)]
)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize("day", [(2032, 3, 28), (2032, 10, 31), (2032, 3, 14), (2032, 11, 7)])
def test_times_are_utc_whatever_the_zone_of_the_database(
    cron: str, minutes: int, zone: str, day: tuple[int, int, int]
) -> None:
    """Also on the days on which summer time begins or ends somewhere."""
    midnight = dt.datetime(*day, tzinfo=dt.timezone.utc).astimezone(zoneinfo.ZoneInfo(zone))
    started = state(last_started_at=midnight, now=midnight, started_ago_s=0.0)
    assert Schedule(cron=cron).due_in_s(started) == minutes * 60.0
    later = midnight.astimezone(dt.timezone.utc) + dt.timedelta(hours=5)
    long_ago = state(
        last_started_at=midnight, now=later.astimezone(midnight.tzinfo), started_ago_s=5 * 3600.0
    )
    assert Schedule(cron=cron).due_in_s(long_ago) == minutes * 60.0 - 5 * 3600.0


@pytest.mark.parametrize("drift_s", [-20.0, -0.02, 0.02, 20.0])
def test_a_run_that_has_just_started_is_not_due_again(drift_s: float) -> None:
    """Clocks drift: what this process has seen would place the start before the time at which it
    was due.
    """
    start = dt.datetime(2032, 1, 1, 3, 0, 0, 10_000, tzinfo=dt.timezone.utc)
    now = start + dt.timedelta(seconds=25)
    just_started = state(last_started_at=start, now=now, started_ago_s=25.0 + drift_s)
    assert Schedule(cron="0 3 * * *").due_in_s(just_started) == pytest.approx(86400 - 25.01)


def test_what_never_ran_is_due_by_time_but_not_by_samples() -> None:
    never = state(
        **{
            "last_started_at": None,
            "last_finished_at": None,
            "started_ago_s": None,
            "ended_run": None,
        },
        **{"runs": 0, "measured": 0, "measured_now": 5},
    )
    assert Schedule("1d").is_due(never)
    assert Schedule(cron="0 0 1 1 *").is_due(never)
    assert not Schedule(when_new=6).is_due(never)
    assert Schedule(when_new=5).is_due(never)


def test_a_schedule_in_words() -> None:
    assert (
        str(Schedule("10m", "0 * * * *", 1000))
        == "every 10m, or at 0 * * * * UTC, or when 1,000 are new"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs every, cron or when_new"),
        ({"every": "10"}, "got '10'"),
        ({"every": "0s"}, "got '0s'"),
        ({"every": "-1m"}, "got '-1m'"),
        (
            {"cron": "every day"},
            r"five fields of a crontab.*30 3 \* \* MON-FRI.*; got 'every day' \(2 fields\)",
        ),
        ({"cron": ""}, r"got '' \(0 fields\)"),
        ({"cron": "0 0 3 * * *"}, r"got '0 0 3 \* \* \*' \(6 fields\)"),
        ({"cron": "61 * * * *"}, r"got '61 \* \* \* \*' \(Bad minute\)"),
        ({"cron": "0 3 * * 8"}, "0 and 7 are Sunday.*Bad day-of-week"),
        ({"cron": "0 3 * * FR"}, "Bad day-of-week"),
        ({"cron": "0 3 0 * *"}, "Bad day-of-month"),
        ({"cron": "0 3 30 2 *"}, "Bad day-of-month"),
        ({"cron": "0 3 * 13 *"}, "Bad month"),
        ({"cron": "*/0 * * * *"}, "Bad minute"),
        ({"cron": f"{'9' * 5000} * * * *"}, "five fields of a crontab"),
        ({"cron": 5}, "cron is a string"),
        ({"when_new": 0}, "got 0"),
    ],
)
def test_a_schedule_that_cannot_be_read(given: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Schedule(**given)


# -- retraining under the lease --------------------------------------------------------------------


class Interfering(PredictiveAgent):
    """An agent in whose training something happens."""

    def __init__(self, happens: Callable[[], object]) -> None:
        agent = make_agent()
        super().__init__(agent.model, agent.loss_function, agent.dataset)
        self.happens = happens

    def train_supervised(self, *args: Any, **options: Any) -> dict[str, float]:
        result = super().train_supervised(*args, **options)
        self.happens()
        return result


def test_a_version_that_lost_its_lease_is_not_stored(
    store: SampleStore, lose: Callable[[SampleStore], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that was paused for longer than its lease finds that another one has
    done the round.
    """
    measured(store)
    other = make_agent(seed=1)

    def sleep_too_long() -> None:
        lose(store)
        assert retrain_alone(store, other, **TINY) is not None

    agent = Interfering(sleep_too_long)
    before = dump_state(agent)
    with pytest.raises(LeaseLost):
        retrain_alone(store, agent, **TINY)
    assert dump_state(agent) == before
    newest = store.newest_predictor()
    assert newest is not None
    assert (newest.version, store.predictor_state()) == (1, dump_state(other))
    assert (job_of(store).runs, job_of(store).last_error) == (2, None)


def worker(
    store: SampleStore, agent: Any, *, schedule: Schedule | None = None, **options: Any
) -> Worker:
    return Worker(store, agent, schedule=schedule or Schedule("1h"), retraining=TINY, **options)


@pytest.mark.parametrize("refresh", [True, False])
def test_a_round_retrains_and_rescores(store: SampleStore, refresh: bool) -> None:
    measured(store)
    agent = make_agent()
    working = worker(store, agent, refresh=refresh, pred_bs=7)
    assert job_of(store).schedule == "every 1h"
    assert working.once()
    assert store.predictor_state() == dump_state(agent)
    waiting = store.waiting()
    predicted = agent.predict_data(waiting.samples).double().numpy()
    assert (abs(waiting.scores - predicted) < 1e-6).all() == refresh
    assert working.once()
    assert job_of(store).runs == 1, "it is not due again"


def test_a_worker_begins_with_the_newest_predictor(new_store: OpenStore) -> None:
    store = measured(new_store())
    first, second = make_agent(), make_agent(seed=1)
    retrain(store, first, **TINY)
    working = worker(store, second)
    assert dump_state(second) == dump_state(first)
    retrain(store, first, **TINY)
    loaded: list[bytes] = []
    second.update_dataset_from_inputs = lambda *_: (loaded.append(dump_state(second)), 1 / 0)  # type: ignore[assignment]
    assert not working.once()
    assert loaded == [dump_state(first)]


def test_errors_go_to_the_job_and_the_worker_goes_on(
    store: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    measured(store)
    errors = iter([RuntimeError("out of memory"), None])

    def happens() -> None:
        if (error := next(errors)) is not None:
            raise error

    agent = Interfering(happens)
    before = dump_state(agent)
    working = worker(store, agent, schedule=Schedule(when_new=1))
    assert not working.once()
    assert job_of(store).last_error == "RuntimeError: out of memory"
    assert "out of memory" in caplog.text
    assert dump_state(agent) == before
    store.record(["s29"], [1.0])
    told = iter([False, False, True])
    working.serve(lambda: next(told))
    assert (job_of(store).last_error, store.newest_version()) == (None, 1)


def test_too_few_rows_are_no_error(store: SampleStore) -> None:
    assert worker(store, make_agent()).once()
    done = job_of(store)
    assert (done.runs, done.last_error, done.is_broken_off, store.newest_version()) == (
        1,
        None,
        False,
        None,
    )


@pytest.mark.parametrize(
    "schedule", [Schedule("1m"), Schedule(cron="* * * * *"), Schedule(when_new=3)], ids=str
)
def test_what_has_been_missed_is_made_up_for_once(
    store: SampleStore, schedule: Schedule, look_on: Callable[..., int]
) -> None:
    measured(store)
    working = worker(store, make_agent(), schedule=schedule)
    assert working.once()
    assert working.once()
    assert job_of(store).runs == 1
    look_on(store, for_s=600)
    store.record(["s27", "s28", "s29"], [1.0, 1.0, 1.0])
    for _ in range(3):
        assert working.once()
    assert job_of(store).runs == 2


# -- loops elsewhere -------------------------------------------------------------------------------


@pytest.fixture
def opened(store_url: str) -> Iterator[Callable[..., Any]]:
    """Opens predictive buffers, and closes them in the end."""
    buffers = []

    def make(agent: Any = None, **options: Any) -> Any:
        buffers.append(predictive(agent, url=store_url, **options))
        return buffers[-1]

    yield make
    for buffer in buffers:
        buffer.close()


def test_a_loop_loads_what_another_process_has_trained(opened: Callable[..., Any]) -> None:
    buffer = opened(supervised_frequency=0, refresh_predictions=0)
    env = environment(buffer, waiting=60)
    env.fit(10, iters=2)
    mine = buffer.predictive_agent
    with open_store(inside.url_of(buffer.store)) as store:
        other = make_agent(seed=1)
        assert worker(store, other, refresh=False).once()
    assert dump_state(mine) != dump_state(other)
    buffer.add(named(900, 901), "late")
    env.fit(2, iters=1)
    assert dump_state(mine) == dump_state(other)
    scores = dict(zip(buffer.buffer, buffer.weights, strict=True))
    assert len(scores) > 30
    assert buffer._held is not None
    assert buffer._held.version == buffer.store.newest_version() == 1


def test_a_loop_loads_a_version_before_it_refreshes(opened: Callable[..., Any]) -> None:
    buffer = opened(supervised_frequency=0, refresh_predictions=2)
    env = environment(buffer, waiting=60)
    env.fit(10, iters=2)
    other = make_agent(seed=1)
    scored = buffer.store._score_by

    def train_elsewhere(version: int, score_fn: Any, only: str, **options: Any) -> int:
        if only == "missing":
            load_newer(buffer.store, other, None)
            retrain(buffer.store, other, **TINY)
        return int(scored(version, score_fn, only, **options))

    buffer.store._score_by = train_elsewhere
    env.fit(10, iters=1)
    assert dump_state(buffer.predictive_agent) == dump_state(other)


def assert_scores_are_of_their_versions(store: SampleStore) -> None:
    """Each score is what the newest predictor predicts that is not newer than the version of the
    score.
    """
    made: dict[int, Any] = {}
    for version in [each.version for each in store.predictors()]:
        made[version] = make_agent()
        store.load_predictor(made[version], version)
    waiting = store.waiting()
    query = sa.select(samples.c.score_version).where(samples.c.buffer_id == inside.buffer_id(store))
    versions = inside.scalars(store, query.where(samples.c.queued).order_by("id"))
    assert len(versions) == len(waiting.samples) > 0
    for sample, score, version in zip(
        waiting.samples, waiting.scores.tolist(), versions, strict=True
    ):
        maker = max(each for each in made if each <= version)
        assert made[maker].predict_data([sample]).item() == pytest.approx(score, abs=1e-6)


LOOP_WORK: dict[str, Callable[[Any], object]] = {
    "score": lambda buffer: buffer.before_batch(),
    "refresh": lambda buffer: buffer._do("refresh"),
    "end a refresh": lambda buffer: buffer._do("end_refresh"),
}


@pytest.mark.parametrize("work", LOOP_WORK)
def test_scores_of_a_loop_have_the_version_of_its_agent(
    opened: Callable[..., Any], store_url: str, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    """Whenever another process stores a predictor, before the loop has loaded the one before or
    since.
    """
    # On a server, which takes longer, after every third one, from another one on for each work.
    n, step = (0, 1) if store_url.startswith("sqlite") else (list(LOOP_WORK).index(work) - 2, 3)
    was_there = True
    while was_there:
        n += step
        name = f"gap {n}"
        buffer = opened(name=name, supervised_frequency=0, refresh_predictions=0)
        environment(buffer, waiting=20)
        with open_store(store_url, name=name) as worker:
            for seed in (1, 2):
                worker.save_predictor(dump_state(make_agent(seed=seed)), rows_trained=1)
            buffer.before_batch()
            worker.save_predictor(dump_state(make_agent(seed=3)), rows_trained=1)
            worker.add(named(*range(20, 30)))
            with monkeypatch.context() as patch:
                save = functools.partial(
                    worker.save_predictor, dump_state(make_agent(seed=4)), rows_trained=1
                )
                gap = Gap(buffer.store, n, save, patch)
                LOOP_WORK[work](buffer)
                was_there = gap.was_there
            buffer.before_batch()
            assert_scores_are_of_their_versions(worker)
            assert worker.check() == []
        buffer.close()
    assert n > 2


def test_scores_of_a_worker_have_the_version_of_its_agent(
    new_store: Callable[..., SampleStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has trained a version; before it rescores what waits another process stores one, or begins
    a refresh.
    """
    for other in ("store", "refresh"):
        store, alongside = (new_store(name=other) for _ in range(2))
        store.add(named(*range(20)))
        store.record(named(*range(30, 40)), [1.0] * 10)
        store.score(lambda samples: np.zeros(len(samples)))
        agent = make_agent()
        worker = Worker(store, agent, schedule=Schedule("1m"), retraining={**TINY})
        score_by = functools.partial(SampleStore._score_by, store)

        def overtaken(
            version: int,
            *args: Any,
            other: str = other,
            alongside: SampleStore = alongside,
            score_by: Any = score_by,
        ) -> int:
            if alongside.stats().score_version == 1:
                if other == "store":
                    alongside.save_predictor(dump_state(make_agent(seed=4)), rows_trained=1)
                else:
                    alongside.score(lambda samples: np.ones(len(samples)), only="all", budget=0)
            return int(score_by(version, *args))

        monkeypatch.setattr(store, "_score_by", overtaken)
        assert worker.once()
        assert [(row.score_version, row.waiting) for row in store.staleness()] == [(2, 20)]
        assert_scores_are_of_their_versions(store)
        newest = store.newest_predictor()
        assert newest is not None
        assert newest.version == (2 if other == "store" else 1)
        assert (store.is_refreshed(), store.check()) == (True, [])


def test_nothing_is_loaded_twice(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = opened(supervised_frequency=2)
    env = environment(buffer, waiting=100)
    loads: list[int] = []
    monkeypatch.setattr("sqlbuffer.retraining.worker.load_state", lambda *_: loads.append(1))
    env.fit(10, iters=7)
    assert (loads, buffer.store.newest_version() is not None) == ([], True)


def test_a_loop_does_not_wait_for_a_training_elsewhere(
    opened: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    buffer = opened(supervised_frequency=1, refresh_predictions=0)
    env = environment(buffer, waiting=60)
    with caplog.at_level(logging.INFO, "sqlbuffer"), buffer.store.leased(RETRAIN):
        env.fit(10, iters=3)
    assert buffer.store.newest_predictor() is None
    assert "another worker has the job" in caplog.text
    env.fit(10, iters=1)
    assert buffer.store.newest_version() is not None
    assert job_of(buffer.store).runs == 3, "what was due is made up for when the loop begins again"


def test_the_loop_runs_the_job(opened: Callable[..., Any]) -> None:
    buffer = opened(supervised_frequency=2)
    environment(buffer, waiting=100).fit(10, iters=7)
    done = job_of(buffer.store)
    assert (done.runs, done.owner, done.last_error, done.measured) == (3, None, None, 70)


# -- in the background -----------------------------------------------------------------------------


class Breaking(PredictiveAgent):
    """An agent whose training goes wrong."""

    def train_supervised(self, *args: Any, **options: Any) -> dict[str, float]:
        raise RuntimeError("out of memory")


@pytest.fixture
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a spawned child import the agents of the tests."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parent))


@pytest.mark.usefixtures("_importable")
@pytest.mark.parametrize(
    "store_url", ["postgresql"], indirect=True
)  # the other tests of training in the background have a file
def test_in_the_background_comes_to_the_same_predictor(opened: Callable[..., Any]) -> None:
    options: dict[str, Any] = {"supervised_frequency": 3, "refresh_predictions": 0}
    buffer, waiting = opened(in_background=True, **options), opened(name="waiting", **options)
    env = environment(buffer, waiting=100)
    for each in (env, environment(waiting, waiting=100)):
        each.fit(10, iters=4)
    assert env.log.iterations == 4
    until(
        lambda: buffer.store.newest_version() is not None and not job_of(buffer.store).is_held,
        timeout_s=600,
    )
    state = buffer.store.predictor_state()
    assert state == waiting.store.predictor_state()
    assert dump_state(buffer.predictive_agent) != state, "the loop has gone on with what it had"
    env.fit(10, iters=1)
    assert dump_state(buffer.predictive_agent) == state
    assert job_of(buffer.store).last_error is None


@pytest.mark.usefixtures("_importable")
@pytest.mark.parametrize(
    "store_url", ["sqlite"], indirect=True
)  # on both, an error is stored and goes on its way
def test_an_error_in_the_background_stops_nothing(
    opened: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_in_forks(monkeypatch)
    usual = make_agent()
    agent = Breaking(usual.model, usual.loss_function, usual.dataset)
    buffer = opened(agent, supervised_frequency=1, refresh_predictions=0, in_background=True)
    env = environment(buffer, waiting=60)
    env.fit(10, iters=2)
    buffer.close()
    assert "retraining in the background failed: RuntimeError: out of memory" in caplog.text
    assert job_of(buffer.store).last_error == "RuntimeError: out of memory"
    assert env.log.iterations == 2


@pytest.mark.usefixtures("_importable")
@pytest.mark.parametrize(
    "store_url", ["sqlite"], indirect=True
)  # on both, a dead worker's job is free at once
def test_a_trainer_that_is_killed_is_replaced(
    store: SampleStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_in_forks(monkeypatch)
    agent = make_agent()
    store.record(named(*range(40)), scores_of(named(*range(40))))
    with contextlib.closing(Background(store, agent)) as background:
        train = functools.partial(
            background.start, dump_state(agent), {"bs": 10, "epochs": 1, "lr": 1e-3}
        )
        until(lambda: train() or store.newest_version() == 1, timeout_s=600)
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        until(lambda: train() or store.newest_version() == 2, timeout_s=600)
    assert "a new process replaces it" in caplog.text


def test_what_cannot_be_sent_to_a_process_is_refused(opened: Callable[..., Any]) -> None:
    agent = PredictiveAgent(
        torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, lambda samples: torch.zeros(1)
    )
    with pytest.raises(InvalidArgument, match=r"cannot be pickled.*sqlbuffer worker"):
        opened(agent, in_background=True)
    with pytest.raises(InvalidArgument, match="cannot be pickled"):
        opened(key=lambda sample: sample, name="with a key", in_background=True)


def test_a_script_without_its_guard_is_refused(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from helpers.loops import environment, predictive\n"
        "buffer = predictive(url=sys.argv[1], supervised_frequency=1, in_background=True)\n"
        "environment(buffer, waiting=40).fit(10, iters=2)\n"
        "buffer.close()\n"
    )
    run = functools.partial(runpy.run_path, str(script), run_name="__main__")
    _, errors = Forked(run, [sqlite_url], tmp_path).communicate(timeout=600)
    assert "under `if __name__" in errors
    with open_store(sqlite_url) as store:
        assert store.iteration == 2, "the child has not run the loop"
