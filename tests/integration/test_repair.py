"""Repair: whatever is broken by hand is sound afterwards, and no measured reward has changed."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.samples import scores_of
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.workers import LEDGER
from sqlbuffer.db.backends import now
from sqlbuffer.db.schema import batches, buffers, draws, measurements, pool, samples, workers
from sqlbuffer.maintenance import audit, repair
from sqlbuffer.store import SampleStore

OpenStore = Callable[..., SampleStore]
TWENTY = [f"s{i}" for i in range(20)]

BREAKS = {
    "a counter": sa.update(workers)
    .where(workers.c.id == LEDGER)
    .values(added=7, drawn=3, measured=-2),
    "no ledger": sa.delete(workers).where(workers.c.id == LEDGER),
    "no workers": sa.delete(workers),
    "an empty pool": sa.delete(pool),
    "no marks": sa.update(samples).values(queued=False),
    "wrong weights": sa.update(pool).values(weight=pool.c.weight * 2 + 1),
    "negative weights": sa.update(pool).values(weight=-1.0),
    "wrong scores": sa.update(pool).values(score=pool.c.score + 1),
    "no scores": sa.update(pool).values(score=None),
    "wrong marks": sa.update(buffers).values(top_score=-1.0),
    "no weights": sa.update(pool).values(weight=None),
    "no place": sa.update(pool).values(race_key=float("inf")),
    "claimed samples that wait": sa.insert(pool).from_select(
        ["buffer_id", "race_key", "sample_id", "weight", "top"],
        sa.select(
            batches.c.buffer_id, draws.c.race_key, draws.c.sample_id, draws.c.weight, sa.false()
        )
        .join_from(draws, batches, batches.c.id == draws.c.batch_id)
        .where(batches.c.settled_at.is_(None), batches.c.released_at.is_(None)),
    ),
    "samples that wait twice": sa.insert(pool).from_select(
        ["buffer_id", "race_key", "sample_id", "weight", "top"],
        sa.select(
            pool.c.buffer_id, pool.c.race_key + 1, pool.c.sample_id, pool.c.weight, sa.false()
        ),
    ),
    "ties of what is not top": sa.update(pool).values(tie=b"12345678"),
    "wrong ties": sa.update(pool).values(top=True, tie=b"12345678"),
    "marks without ties": sa.update(pool).values(top=True),
    "negative attempts": sa.update(samples).values(attempts=-1),
    "measurements of no sample": sa.insert(measurements).from_select(
        ["buffer_id", "sample_id", "worker_id", "objective", "reward", "measured_at"],
        sa.select(
            buffers.c.id,
            sa.literal(999),
            sa.literal(""),
            sa.literal("reward"),
            sa.literal(1.0),
            now(),
        ),
    ),
    "measurements with both": sa.update(measurements).values(error="why", reward=1.0),
    "measurements with neither": sa.update(measurements).values(error=None, reward=None),
    "failures without a reason": sa.update(samples).values(error=None),
    "reasons without a failure": sa.update(samples).values(error="why"),
    "other rewards": sa.update(samples).values(reward=samples.c.reward + 1),
    "a reward beyond its measurements": sa.update(samples)
    .where(samples.c.error.is_not(None))
    .values(reward=1.0, error=None),
    "no rewards": sa.update(samples).values(
        reward=None, error=None, rewarded_at=None, rewarded_tick=None
    ),
    "no measurements": sa.delete(measurements),
    "other measurements": sa.update(measurements).values(reward=measurements.c.reward + 1),
    "samples that are not there": sa.update(pool).values(sample_id=pool.c.sample_id + 1000),
}


@pytest.fixture(params=["consume", "replay"])
def buffer(new_store: OpenStore, request: pytest.FixtureRequest) -> BufferHandle:
    """A buffer with a settled batch, one of which a part was reported, and an open one."""
    store = new_store(mode=request.param)
    store.add(TWENTY)
    store.score(scores_of)
    store.sample(4).settle([1.0, 2.0, None, float("nan")])
    batch = store.sample(4)
    batch.report(batch.ids[:1], [3.0])
    batch.release()
    hold(store.sample(3))
    return inside.handle_of(store)


def problems(buffer: BufferHandle) -> list[str]:
    return buffer.read(audit.check)


def mend(buffer: BufferHandle) -> list[str]:
    return buffer.write(repair.repair)


def rewards(buffer: BufferHandle) -> list[tuple[int, float]]:
    query = sa.select(samples.c.id, samples.c.reward).order_by(samples.c.id)
    return buffer.database.read(
        lambda connection: [tuple(row) for row in connection.execute(query)]
    )


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_broken_is_mended(buffer: BufferHandle, what: str) -> None:
    measured = rewards(buffer)
    buffer.database.write(lambda connection: connection.execute(BREAKS[what]) and None)
    assert problems(buffer)
    assert mend(buffer)
    assert problems(buffer) == []
    assert rewards(buffer) == measured or "measurements" in what
    assert mend(buffer) == []


@pytest.mark.parametrize("setting", [{"budget": -1}, {"max_attempts": 0}, {"max_attempts": -3}])
def test_a_setting_that_cannot_be_is_found(buffer: BufferHandle, setting: dict[str, int]) -> None:
    buffer.database.write(
        lambda connection: connection.execute(sa.update(buffers).values(setting)) and None
    )
    ((name, value),) = setting.items()
    (problem,) = problems(buffer)
    assert f"{name} {value}" in problem


def test_what_is_sound_stays_as_it_is(buffer: BufferHandle) -> None:
    rows = sa.select(pool).order_by(pool.c.race_key)
    before = buffer.database.read(lambda connection: connection.execute(rows).all())
    assert mend(buffer) == []
    assert buffer.database.read(lambda connection: connection.execute(rows).all()) == before


# -- the logical time ------------------------------------------------------------------------------


def test_what_is_stored_in_the_future_is_found_and_caught_up_with(store: SampleStore) -> None:
    store.add(["a", "b", "c"])
    store.score(lambda samples: [1.0] * len(samples))
    batch = store.sample(2)
    batch.settle([1.0, 2.0])
    database = inside.database_of(store)
    database.write(lambda connection: connection.execute(sa.update(workers).values(tick=0)))
    (problem,) = store.check()
    assert problem.endswith("but the workers have only reached 0.")
    assert [done[:24] for done in mend(inside.handle_of(store))] == ["the logical time was set"]
    assert store.check() == []
    store.record(["a"], [5.0])
    assert list(store.labelled_rows(newest=1)) == ["a"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda: sa.update(batches).values(closed_tick=batches.c.drawn_tick),
            "1 batch was closed before",
        ),
        (
            lambda: sa.update(samples).values(rewarded_tick=0),
            "3 samples were scored or measured before",
        ),
        (
            lambda: sa.update(samples).values(scored_tick=0),
            "3 samples were scored or measured before",
        ),
    ],
)
def test_an_order_that_cannot_be_is_found(
    store: SampleStore, change: Callable[[], Any], problem: str
) -> None:
    store.add(["a", "b", "c"])
    store.score(lambda samples: [1.0] * len(samples))
    store.sample(3).settle([1.0, 2.0, 3.0])
    assert store.check() == []
    inside.execute(store, change())
    (found,) = store.check()
    assert found.startswith(problem)
