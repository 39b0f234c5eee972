"""A copy of a buffer: it goes on as the original would have, or from an earlier iteration in
another way.
"""

import concurrent.futures
import datetime as dt
import math
import os
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.samples import scores_of
from sqlbuffer.core.attach import attach_existing
from sqlbuffer.core.attempts import Ending
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.weighting import FLOOR, Softmax
from sqlbuffer.db import database
from sqlbuffer.db.schema import batches, buffers, draws, measurements, predictors, samples
from sqlbuffer.errors import BufferNotFound, ClaimLost, InvalidArgument
from sqlbuffer.maintenance import copy
from sqlbuffer.store import SampleStore, open_store


def measure(samples: list[str]) -> np.ndarray:
    return scores_of(samples) / 10


def go_on(store: SampleStore, iterations: int = 4, first: int = 1000) -> list[list[str]]:
    """Add, score, draw, settle, retrain and refresh; return what was drawn."""
    drawn = []
    for i in range(iterations):
        store.add([f"s{first + 10 * i + j}" for j in range(4)] + ["s3"], requeue=True)
        store.score(scores_of)
        with store.sample(7, pct_argmax=0.3) as batch:
            drawn.append(batch.samples)
            rewards = measure(batch.samples)
            batch.settle(
                rewards,
                metrics={"best": float(rewards.max())},
                checkpoint={"loop": b"%d" % batch.iteration},
            )
        if i % 2:
            store.save_predictor(b"state %d" % i, rows_trained=7 * i)
            store.score(lambda samples: scores_of(samples) % 17, only="all")
    return drawn


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "IDS_AT_ONCE", 13)


@pytest.fixture(params=["consume", "replay"])
def lived(request: pytest.FixtureRequest, new_store: Callable[..., SampleStore]) -> SampleStore:
    """A buffer with a history, between others, with samples of every kind."""
    store = new_store(name="lived", mode=request.param, seed=7)
    other = new_store(name="other")
    store.add([f"s{i}" for i in range(60)], source="first", meta={"a": 1})
    other.add([f"s{i}" for i in range(30)])
    store.score(lambda samples: np.where(scores_of(samples) == 13, np.nan, scores_of(samples)))
    go_on(store, 3)
    other.score(scores_of)
    other.sample(5).settle(np.ones(5))
    store.record(["s900", "s901"], [1.5, np.nan])
    store.remove(store.waiting().ids[:2].tolist())
    store.sample(4).release()
    batch = store.sample(4)
    batch.report(batch.ids[:1], [3.0])
    batch.release()
    store.add(["s902"])
    return store


def told(store: SampleStore) -> dict[str, Any]:
    """All that a store tells, but for numbers and times."""
    waiting, (samples, rewards), newest = (
        store.waiting(),
        store.labelled(),
        store.newest_predictor(),
    )
    stats = store.stats()
    return {
        "waiting": list(
            zip(
                waiting.samples,
                waiting.sources,
                waiting.scores.tolist(),
                waiting.weights.tolist(),
                strict=True,
            )
        ),
        "labelled": dict(zip(samples, rewards.tolist(), strict=True)),
        "history": [tuple(row.values()) for row in store.history()],
        "checkpoint": store.checkpoint("loop"),
        "predictor": newest
        and (newest.version, store.predictor_state(), newest.iteration, newest.rows_trained),
        "numbers": {
            name: getattr(stats, name)
            for name in stats.__slots__
            if name not in ("name", "created_at")
        },
    }


def history(store: SampleStore) -> list[tuple[Any, ...]]:
    """All batches and draws, but for their numbers."""
    columns = (
        batches.c.iteration,
        batches.c.clock,
        batches.c.settled_at,
        batches.c.released_at,
        draws.c.position,
    )
    rows = (
        sa.select(*columns, draws.c.race_key, draws.c.weight, draws.c.reported)
        .join_from(batches, draws, draws.c.batch_id == batches.c.id)
        .join(buffers, buffers.c.id == batches.c.buffer_id)
        .where(buffers.c.name == store.name)
        .order_by(batches.c.id, draws.c.position)
    )
    return inside.database_of(store).read(
        lambda connection: [tuple(row) for row in connection.execute(rows)]
    )


def test_a_copy_is_what_the_original_is(lived: SampleStore) -> None:
    with lived.copy("copied") as copied:
        assert repr(told(copied)) == repr(told(lived))
        assert history(copied) == history(lived)
        assert (copied.name, copied.check(), lived.check()) == ("copied", [], [])


@pytest.mark.slow
def test_a_copy_goes_on_as_the_original_does(lived: SampleStore) -> None:
    with lived.copy("copied") as copied, copied.copy("copied again") as again:
        drawn = go_on(lived)
        assert go_on(copied) == drawn
        assert go_on(again) == drawn
        assert repr(told(again)) == repr(told(lived))
        assert lived.check() == copied.check() == again.check() == []


def test_samples_of_open_batches_wait_again_in_the_copy(lived: SampleStore) -> None:
    first, second = lived.sample(5), lived.sample(6)
    second.report(second.ids[:2], [1.0, 2.0])
    with lived.copy("copied") as copied:
        assert (lived.stats().claimed, copied.stats().claimed) == (9, 0)
        assert copied.check() == []
        second.release()
        first.release()
        lived.score(scores_of)
        copied.score(scores_of)
        drawn = hold(lived.sample(12)).samples
        assert hold(copied.sample(12)).samples == drawn
        if lived.stats().mode == "consume":  # in replay the report has changed the race
            assert drawn[:5] == first.samples
        assert lived.check() == copied.check() == []


@pytest.mark.slow
def test_nothing_of_the_original_changes(lived: SampleStore) -> None:
    _held = lived.sample(3)
    before = repr(told(lived)), history(lived)
    with lived.copy("copied") as copied, lived.copy("then", at_iteration=1) as then:
        go_on(copied)
        go_on(then)
    assert (repr(told(lived)), history(lived)) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"seed": 8}, {"weighting": Softmax(9.0)}, {"weighting": "uniform"}], ids=str
)
def test_another_seed_or_weighting_makes_a_new_race(
    lived: SampleStore, options: dict[str, Any]
) -> None:
    _held = lived.sample(3)
    with lived.copy("copied", **options) as copied:
        ours, theirs = told(lived), told(copied)
        names = ("iteration", "stored", "measured", "failed", "score_version")
        assert {name: theirs["numbers"][name] for name in names} == {
            name: ours["numbers"][name] for name in names
        }
        assert theirs["labelled"] == ours["labelled"]
        assert theirs["history"] == ours["history"]
        assert (theirs["numbers"]["claimed"], copied.check()) == (0, [])
        assert go_on(copied) != go_on(lived)
        assert copied.check() == []
    with open_store(
        url_of(lived), name="copied", mode=ours["numbers"]["mode"], **{"seed": 7, **options}
    ):
        pass  # the settings are those it is stored with


def url_of(store: SampleStore) -> str:
    url: str = inside.url_of(store)
    return url


def test_another_mode_keeps_the_race(lived: SampleStore) -> None:
    mode = {"consume": "replay", "replay": "consume"}[lived.stats().mode]
    lived.score(scores_of)
    lived.sample(3).release()
    with lived.copy("copied", mode=mode) as copied:
        assert (copied.stats().mode, len(copied), copied.check()) == (mode, len(lived), [])
        assert hold(copied.sample(9)).samples == hold(lived.sample(9)).samples
        assert len(copied) - len(lived) == {"replay": 9, "consume": -9}[mode]
        go_on(copied)
        assert copied.check() == []


# -- from an earlier iteration ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_copy_has_what_there_was_when_an_iteration_began(
    new_store: Callable[..., SampleStore], mode: str
) -> None:
    store = new_store(name="lived", mode=mode)
    store.add([f"s{i}" for i in range(60)])
    store.score(scores_of)
    then: list[dict[str, Any]] = []
    for i in range(4):
        store.add([f"s{100 + 10 * i + j}" for j in range(4)])
        store.score(scores_of)
        then.append(told(store))
        go = store.sample(7)
        go.settle(
            measure(go.samples), metrics={"best": 1.0 * i}, record=([f"s{500 + i}"], [0.5], "r")
        )
        if i == 1:
            store.save_predictor(b"second", rows_trained=14)
    then.append(told(store))
    for i in range(5):
        with store.copy(f"at {i}", at_iteration=i) as copied:
            assert copied.check() == []
            found = told(copied)
            known = then[i]["labelled"].items()
            # In replay mode a sample may have been measured again since.
            assert (
                found["labelled"].items() <= known
                if mode == "replay"
                else found["labelled"].items() == known
            )
            for what in ("history", "predictor"):
                assert found[what] == then[i][what], (i, what)
            waits = [row[:3] for row in found["waiting"]]
            assert waits == [row[:3] for row in then[i]["waiting"]], i
            names = (
                "iteration",
                "waiting",
                "stored",
                "drawn",
                "unscored",
                "claimed",
                "score_version",
            )
            assert [found["numbers"][name] for name in names] == [
                then[i]["numbers"][name] for name in names
            ], i
            lowest = min(score for _, _, score, _ in found["waiting"])
            expected = [score - lowest + FLOOR for _, _, score, _ in found["waiting"]]
            assert [weight for *_, weight in found["waiting"]] == pytest.approx(expected)
            go_on(copied)
            assert copied.check() == []


def test_what_was_overwritten_since_is_missing(new_store: Callable[..., SampleStore]) -> None:
    store = new_store()
    store.add([f"s{i}" for i in range(9)])
    store.score(scores_of)
    first = store.sample(2)
    first.settle([1.0, 2.0])
    with store.sample(3) as batch:
        store.record(first.samples[:1], [9.0])  # measured again
        store.score(lambda samples: -scores_of(samples), only="all")
        batch.settle([3.0] * 3)
    with store.copy("then", at_iteration=1) as then:
        assert then.labelled()[0] == first.samples
        assert (len(then), then.stats().unscored, then.stats().score_version, then.check()) == (
            7,
            4,
            0,
            [],
        )


def results(store: SampleStore) -> dict[str, Any]:
    """What is known of each sample, of the buffer, and what waits."""
    columns = ("text", "reward", "error", "attempts", "rewarded_tick")
    own = samples.c.buffer_id == inside.buffer_id(store)
    rows = inside.rows(store, sa.select(*(samples.c[name] for name in columns)).where(own))
    return {
        "objective": store.objective,
        "samples": {row[0]: tuple(row[1:]) for row in rows if row.rewarded_tick is not None},
        "waiting": set(store.waiting().samples),
        "counted": (store.stats().measured, store.stats().failed),
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_rewards_errors_and_the_objective_are_those_of_then(
    new_store: Callable[..., SampleStore], mode: str
) -> None:
    """Also of samples that were measured again since, for the same or another reward function."""
    store = new_store(mode=mode, weighting="uniform")
    store.add([f"s{i}" for i in range(8)])
    then: list[dict[str, Any]] = []

    def draw(n: int) -> Batch:
        if len(then) == store.iteration:  # the first batch of an iteration
            then.append(results(store))
        return store.sample(n)

    def settle(rewards: list[float | None]) -> list[str]:
        batch = draw(len(rewards))
        batch.settle(rewards, errors=["bad" if reward is None else None for reward in rewards])
        return batch.samples

    first = settle([1.0, None, 3.0])
    late = draw(2)
    late.release()
    store.record(first, [4.0, None, math.nan])
    second = settle([None, 5.0])
    assert set(second) == set(late.samples) or mode == "replay"
    for rewards in ([6.0, 7.0], [8.0, 9.0]):
        with pytest.raises(ClaimLost):
            late.settle(rewards)
    settle([1.5])
    store.record(second, [2.0, 2.5])
    draw(1).release()
    draw(1).settle()
    store.remeasure("affinity")
    store.record(["new"], [0.5])
    settle([None, -1.0])
    settle([-2.0, None, -3.0])
    then.append(results(store))
    assert len({str(each) for each in then}) == len(then) == 7
    for i, expected in enumerate(then):
        with store.copy(f"at {i}", at_iteration=i) as copied:
            assert (i, results(copied), copied.check()) == (i, expected, [])
            if i == 4:
                with copied.copy("again", at_iteration=i) as again:
                    assert (results(again), again.check()) == (expected, [])


@pytest.mark.slow
def test_attempts_are_those_of_then(new_store: Callable[..., SampleStore]) -> None:
    """Of a sample that is measured after an attempt, and of one that fails and is retried."""
    store = new_store(weighting="uniform", max_attempts=2)
    then: dict[int, dict[str, int]] = {}

    def claim(name: str) -> Batch:
        store.add([name])
        return store.sample(1)

    def attempt(batch: Batch) -> None:
        batch._start(batch.ids.tolist())
        batch._ended(int(batch.ids[0]), Ending(error="no licence"))

    def iterate() -> None:
        then[store.iteration] = attempts_of(store)
        claim(f"t{len(then)}").settle([0.0])

    good, bad = claim("good"), claim("bad")
    iterate()
    attempt(good)
    attempt(bad)
    iterate()
    good.report(good.ids, [1.5])
    attempt(bad)
    iterate()
    store.retry()
    bad = store.sample(1)
    iterate()
    attempt(bad)
    iterate()
    bad.report(bad.ids, [2.5])
    iterate()
    assert [each.get("bad", 0) for each in then.values()] == [0, 1, 2, 0, 1, 1]
    numbers = list(then)
    del then[numbers[3]]  # a retry is known by what followed it
    for i, attempts in then.items():
        with store.copy(f"at {i}", at_iteration=i) as copied:
            assert (i, attempts_of(copied), copied.check()) == (i, attempts, [])
            assert len(copied.failed()) == (i == numbers[2])


def attempts_of(store: SampleStore) -> dict[str, int]:
    own = samples.c.buffer_id == inside.buffer_id(store)
    rows = inside.rows(store, sa.select(samples.c.text, samples.c.attempts).where(own))
    return {text: n for text, n in rows if n}


@pytest.mark.slow
def test_iterations_within_the_same_millisecond_are_told_apart(
    new_store: Callable[..., SampleStore],
) -> None:
    store = new_store()
    store.add([f"s{i}" for i in range(40)])
    store.score(scores_of)
    for i in range(40):
        store.sample(1).settle([float(i)])
    for i in [*range(0, 38, 7), 38, 39, 40]:
        with store.copy(f"at {i}", at_iteration=i) as then:
            assert sorted(then.labelled()[1].tolist()) == [float(reward) for reward in range(i)]
            assert (len(then), then.check()) == (40 - i, [])


@pytest.mark.slow
def test_times_of_older_files_are_compared_as_well(sqlite_url: str) -> None:
    """They were told to the millisecond, in text."""

    def cut(connection: sa.Connection) -> None:
        for table in (samples, batches):
            for column in (column for column in table.columns if column.name.endswith("_at")):
                short = sa.func.substr(sa.type_coerce(column, sa.Text), 1, 23) + "+00:00"
                connection.execute(
                    sa.update(table).where(column.is_not(None)).values({column: short})
                )

    with open_store(sqlite_url) as store:
        store.add([f"s{i}" for i in range(6)])
        store.score(scores_of)
        for i in range(2):
            time.sleep(0.003)
            batch = store.sample(2)
            for sample in batch.ids.tolist():
                time.sleep(0.003)
                batch.report([sample], [float(i)])
        inside.database_of(store).write(cut)
        for i in range(3):
            with store.copy(f"at {i}", at_iteration=i) as then:
                assert (len(then), sorted(then.labelled()[1].tolist())) == (
                    6 - 2 * i,
                    [0.0, 0.0, 1.0, 1.0][: 2 * i],
                )


def test_a_copy_of_a_copy_at_an_iteration(lived: SampleStore) -> None:
    with (
        lived.copy("second", at_iteration=2) as second,
        lived.copy("whole") as whole,
        second.copy("first", at_iteration=1) as first,
        whole.copy("also first", at_iteration=1) as also,
    ):
        assert first.labelled()[0] == also.labelled()[0] != []
        assert first.check() == also.check() == []
        assert [it.iteration for it in (first, also)] == [1, 1]


# -- refused, and killed ---------------------------------------------------------------------------


def test_what_is_refused(lived: SampleStore) -> None:
    with pytest.raises(
        InvalidArgument, match=r"buffer 'other' already exists in .*: give the copy another name"
    ):
        lived.copy("other")
    for iteration in (-1, 4, 1.0, True):
        with pytest.raises(InvalidArgument, match=r"from 0 to 3, the number of batches .* got"):
            lived.copy("copied", at_iteration=iteration)  # type: ignore[arg-type]
    for options in ({"mode": "eat"}, {"weighting": "heavy"}, {"seed": "x"}):
        with pytest.raises(InvalidArgument):
            lived.copy("copied", **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="needs a name"):
        lived.copy("")
    with pytest.raises(BufferNotFound):
        attach_existing(inside.database_of(lived), "copied")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_copy_is_whole_or_not_there(store_url: str, moment: str) -> None:
    with open_store(store_url) as store:
        store.add([f"s{i}" for i in range(40)])
        store.score(scores_of)
        go_on(store, 2)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # other threads: the child uses nothing of theirs
        pid = os.fork()
    if pid == 0:
        with open_store(store_url) as store:
            database.boundary = lambda at: (
                os.kill(os.getpid(), signal.SIGKILL) if at == moment else None
            )
            store.copy("copied")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with open_store(store_url) as store:
        names = inside.scalars(store, sa.select(buffers.c.name))
        assert sorted(names) == (["copied", "default"] if moment == "after" else ["default"])
        assert store.check() == []
        if moment == "before":
            store.copy("copied").close()
        with open_store(store_url, name="copied") as copied:
            assert (len(copied), copied.check()) == (len(store), [])


def test_a_copy_does_not_see_later_changes_of_others(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server lets others go on; a file has one writer."""
    with open_store(postgresql_url) as store, open_store(postgresql_url) as busy:
        store.add([f"s{i}" for i in range(40)])
        store.score(scores_of)
        take = copy._take

        def slow_take(*args: Any, **more: Any) -> int:
            with concurrent.futures.ThreadPoolExecutor() as another:  # this one is writing
                another.submit(be_busy).result()
            return take(*args, **more)

        def be_busy() -> None:
            with busy.sample(2) as batch:
                batch.settle([1.0, 2.0])
            busy.add([f"s{1000 + busy.iteration}"])

        monkeypatch.setattr(copy, "_take", slow_take)
        with store.copy("copied") as copied:
            assert (len(copied), copied.iteration, copied.stats().measured) == (40, 0, 0)
            assert busy.iteration > 5
            assert store.check() == copied.check() == []


# -- the order of events ---------------------------------------------------------------------------

TIMES = [
    *(samples.c.created_at, samples.c.scored_at, samples.c.rewarded_at),
    *(batches.c.drawn_at, batches.c.settled_at, batches.c.released_at, predictors.c.trained_at),
    measurements.c.measured_at,
]


def scramble_times(store: SampleStore) -> None:
    """Let every event have happened at another time, within a year of the true one."""
    rng = np.random.default_rng(3)

    def write(connection: sa.Connection) -> None:
        for column in TIMES:
            key = column.table.primary_key.columns.values()[-1]
            rows = sa.select(key).where(
                column.table.c.buffer_id == inside.buffer_id(store), column.is_not(None)
            )
            for value in connection.scalars(rows).all():
                time = dt.datetime(2030, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(
                    hours=float(rng.uniform(-4e3, 4e3))
                )
                changed = sa.update(column.table).where(
                    column.table.c.buffer_id == inside.buffer_id(store)
                )
                connection.execute(changed.where(key == value).values({column.name: time}))

    inside.database_of(store).write(write)


@pytest.mark.slow
def test_no_time_decides_what_came_first(lived: SampleStore) -> None:
    def what_came_first(round: str) -> list[Any]:
        found: list[Any] = [list(lived.labelled_rows(newest=n).ids) for n in (1, 5, 12)] + [
            lived.incumbent()
        ]
        for i in range(lived.iteration + 1):
            with lived.copy(f"{round} {i}", at_iteration=i) as copied:
                assert copied.check() == []
                found.append(repr(told(copied)))
                found.append((list(copied.labelled_rows(newest=3)), copied.incumbent()))
        return found

    first = what_came_first("true")
    scramble_times(lived)
    assert what_came_first("scrambled") == first


def forget_ticks(store: SampleStore) -> None:
    """Let all so far have been stored by a release that knew times only."""

    def write(connection: sa.Connection) -> None:
        for column in TIMES:
            tick = (
                column.name.replace("settled_at", "closed_at").replace("released_at", "closed_at")[
                    :-2
                ]
                + "tick"
            )
            connection.execute(sa.update(column.table).values({tick: None}))

    inside.database_of(store).write(write)


def test_what_an_older_release_has_stored_is_older_than_all_else(
    lived: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    forget_ticks(lived)
    iteration, before = lived.iteration, lived.labelled_rows(newest=3)
    with lived.copy("old", at_iteration=iteration - 1) as copied:
        assert copied.iteration == iteration - 1
        assert copied.check() == []
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"iteration {iteration - 1} of buffer 'lived' was begun by an older release" in said
    caplog.clear()
    scramble_times(lived)
    then = lived.labelled()
    again = {sample for drawn in go_on(lived, 2, first=2000) for sample in drawn}
    for at in (iteration + 1, iteration + 2):
        with lived.copy(f"at {at}", at_iteration=at) as copied:
            assert set(then[0]) - set(copied.labelled()[0]) <= again, (
                "what was not measured again has come first"
            )
            assert copied.check() == []
    assert caplog.records == []
    assert set(lived.labelled_rows(newest=3)) <= again
    assert len(before) == 3
    assert lived.check() == []
