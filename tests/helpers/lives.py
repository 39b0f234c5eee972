"""A random life of a buffer, and all that a database says of the buffer, but for its numbers."""

from typing import Any

import numpy as np
import sqlalchemy as sa

from helpers import inside
from helpers.samples import scores_of
from sqlbuffer.db.schema import (
    batches,
    buffers,
    checkpoints,
    draws,
    measurements,
    metrics,
    pool,
    predictors,
    samples,
    workers,
)
from sqlbuffer.store import SampleStore


def live(store: SampleStore, seed: int, n_steps: int = 8) -> list[list[str]]:
    """Do random things with a buffer; return what was drawn."""
    rng, drawn = np.random.default_rng(seed), []
    store.add([f"s{i}" for i in rng.integers(0, 90, 40)], source="first", meta={"x": 1e22, "y": -0})
    for step in range(n_steps):
        store.add([f"s{i}" for i in rng.integers(0, 90, 6)], requeue=bool(rng.random() < 0.5))
        store.score(scores_of)
        if rng.random() < 0.2:
            store.save_predictor(b"state %d" % step, rows_trained=step)
            store.score(lambda texts: scores_of(texts) % 17, only="all")
        with store.sample(int(rng.integers(1, 7)), pct_argmax=0.3) as batch:
            drawn.append(batch.samples)
            choice = rng.random()
            if choice < 0.2:
                batch.release()
                continue
            if choice < 0.4 and len(batch) > 1:
                batch.fail(batch.ids[:1], "broken \N{SNOWMAN} \x1b")
                batch.release()
                continue
            batch.settle(
                scores_of(batch.samples) / 7,
                metrics={"step": float(step)},
                checkpoint={"loop": b"\0%d" % step},
            )
        if rng.random() < 0.3:
            name = f"s{rng.integers(90, 99)}"
            store.record([name], [-0.0], details=[{"energy": 1e22}], seconds=[1.5])
        if rng.random() < 0.3:
            store.remove(store.waiting().ids[:2].tolist())
    return drawn


def contents(store: SampleStore) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of a buffer: samples by their hashes, batches by their places."""
    buffer = inside.buffer_id(store)

    def rows(table: sa.Table, *more: Any, without: set[str]) -> Any:
        kept = [column for column in table.c if column.name not in without]
        return sa.select(*kept, *more).where(_belongs(table))

    def _belongs(table: sa.Table) -> Any:
        if table is draws:
            return draws.c.batch_id.in_(
                sa.select(batches.c.id).where(batches.c.buffer_id == buffer)
            )
        return table.c.buffer_id == buffer

    hash_of = sa.select(samples.c.hash).correlate(draws, pool, measurements)
    earlier = batches.alias("earlier")
    place = (
        sa.select(sa.func.count())
        .select_from(earlier)
        .where(earlier.c.buffer_id == buffer)
        .correlate(draws, measurements)
    )

    def parts(table: sa.Table) -> list[Any]:
        more = [hash_of.where(samples.c.id == table.c.sample_id).scalar_subquery()]
        if "batch_id" in table.c:
            more.append(place.where(earlier.c.id <= table.c.batch_id).scalar_subquery())
        return more

    ids = {"id", "buffer_id", "sample_id", "batch_id"}
    queries = {
        "samples": rows(samples, without=ids).order_by(samples.c.id),
        "batches": rows(batches, without=ids).order_by(batches.c.id),
        **{
            table.name: rows(table, *parts(table), without=ids).order_by(*order)
            for table, order in (
                (draws, (draws.c.batch_id, draws.c.position)),
                (measurements, (measurements.c.id,)),
                (pool, (pool.c.race_key, pool.c.sample_id)),
            )
        },
        **{
            table.name: rows(table, without={"buffer_id"}).order_by(*table.primary_key.columns)
            for table in (predictors, checkpoints, metrics)
        },
        "buffers": sa.select(
            *(each for each in buffers.c if each.name not in ("id", "name", "created_at"))
        ).where(buffers.c.id == buffer),
        "counters": sa.select(
            *(sa.func.sum(workers.c[name]) for name in ("batches", "added", "drawn", "measured")),
            *(sa.func.max(workers.c[name]) for name in ("clock", "touched", "tick")),
        ).where(workers.c.buffer_id == buffer),
    }
    return {
        name: [_even(row) for row in inside.rows(store, query)] for name, query in queries.items()
    }


def _even(row: Any) -> tuple[Any, ...]:
    """Numbers as numbers: sums and JSON have types of their own on PostgreSQL."""
    return tuple(
        float(value)
        if hasattr(value, "as_integer_ratio") and not isinstance(value, bool)
        else value
        for value in row
    )
