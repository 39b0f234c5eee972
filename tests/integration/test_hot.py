"""Hot statements go to the driver's cursor; answers and errors are those of SQLAlchemy."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from sqlbuffer import SampleStore, open_store
from sqlbuffer.core import pool
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import driver
from sqlbuffer.db.schema import draws
from sqlbuffer.errors import InvalidArgument


@pytest.fixture
def filled(store_url: str) -> Iterator[SampleStore]:
    with open_store(store_url, seed=7) as store:
        store.add([f"s {i}" for i in range(40)])
        store.score(lambda samples: np.arange(1.0, len(samples) + 1))
        yield store


def watch(store: SampleStore) -> list[str]:
    """Listen to the statements of a store."""
    heard: list[str] = []

    def note(_: Any, __: Any, sql: str, *___: Any) -> None:
        heard.append(sql)

    sa.event.listen(inside.engine_of(store), "before_cursor_execute", note)
    return heard


def test_a_listener_hears_all_statements_and_draws_are_the_same(filled: SampleStore) -> None:
    first = filled.sample(8)
    ids, keys = first.ids.tolist(), first.info.probability.tolist()
    first.release()
    heard = watch(filled)
    again = hold(filled.sample(8))
    assert (again.ids.tolist(), again.info.probability.tolist()) == (ids, keys)
    assert [sql.split()[0] for sql in heard].count("INSERT") >= 2
    assert any("FROM" in sql and "samples" in sql for sql in heard)


def test_a_listener_to_all_connections_and_an_echo_are_heard(
    filled: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def note(_: Any, __: Any, sql: str, *___: Any) -> None:
        heard.append(sql)

    sa.event.listen(sa.Connection, "before_cursor_execute", note)
    try:
        hold(filled.sample(8))
    finally:
        sa.event.remove(sa.Connection, "before_cursor_execute", note)
    assert any("INSERT INTO" in sql and "batches" in sql for sql in heard)
    logger, silent = logging.getLogger("sqlalchemy.engine.Engine"), logging.NullHandler()
    logger.addHandler(silent)  # else SQLAlchemy adds one that prints
    inside.engine_of(filled).echo = True
    hold(filled.sample(8))
    logger.removeHandler(silent)
    assert "batches (" in caplog.text


@pytest.mark.parametrize("is_watched", [False, True])
def test_an_error_of_the_driver_is_that_of_sqlalchemy(
    filled: SampleStore, is_watched: bool
) -> None:
    if is_watched:
        watch(filled)

    def fail(tx: Transaction) -> None:
        tx.execute(queries.claims.first_in_race(tx.backend), limit=object())

    with pytest.raises(sa.exc.ProgrammingError, match="race_key"):
        inside.handle_of(filled).write(fail)
    assert len(hold(filled.sample(8))) == 8


def test_a_time_that_python_does_not_have_is_told_with_the_database(postgresql_url: str) -> None:
    """The driver's error has one of Python behind it, which is not that of a signal handler."""
    with open_store(postgresql_url) as store:
        store.add(["s"])
        handle = inside.handle_of(store)
        inside.execute(store, sa.text("UPDATE sqlbuffer.buffers SET created_at = 'infinity'"))
        with pytest.raises(InvalidArgument, match="timestamp too large"):
            handle.peek(Transaction.race_state)


def test_another_error_is_raised_as_it_is(
    filled: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def execute(self, *_: Any) -> None:
            raise TimeoutError("of a signal handler")

        def close(self) -> None:
            pass

    monkeypatch.setattr(driver, "fetching_cursor", lambda _: Broken)
    with pytest.raises(TimeoutError, match="of a signal handler"):
        filled.sample(8)
    monkeypatch.undo()
    assert len(hold(filled.sample(8))) == 8


def test_an_interrupted_statement_drops_its_connection(
    filled: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def execute(self, *_: Any) -> None:
            raise KeyboardInterrupt

    seen: list[bool] = []

    def sample(tx: Transaction) -> None:
        monkeypatch.setattr(driver, "fetching_cursor", lambda _: Interrupted)
        try:
            tx.race_state()
        finally:
            monkeypatch.undo()
            seen.append(tx.connection.invalidated)

    with pytest.raises(KeyboardInterrupt):
        inside.handle_of(filled).write(sample)
    assert seen == [True]
    assert len(hold(filled.sample(8))) == 8


def test_values_are_converted_by_the_types_of_their_columns(filled: SampleStore) -> None:
    def both(tx: Transaction) -> tuple[Any, Any]:
        statement, given = queries.buffers.race_state(), {"buffer": tx.buffer.buffer_id}
        return tx.execute(statement).one(), tx.connection.execute(statement, given).one()

    ours, theirs = inside.handle_of(filled).read(both)
    assert tuple(ours) == tuple(theirs)
    assert ours.created_at == theirs.created_at
    assert ours._fields == tuple(theirs._fields)


def test_draws_are_numbered_in_the_order_of_their_batch(filled: SampleStore) -> None:
    """On SQLite by a counter of the connection, which goes on from draw to draw."""
    place = (draws.c.position, draws.c.sample_id)
    for share in (0.0, 0.5, 0.0):
        batch = hold(filled.sample(6, pct_argmax=share))
        found = sa.select(*place).where(draws.c.batch_id == batch.id).order_by(draws.c.position)
        rows = inside.rows(filled, found)
        assert [tuple(row) for row in rows] == list(enumerate(batch.ids.tolist()))


@pytest.mark.parametrize(
    "values", [(), (1.5, -0.0), (None, None), (1.5, None), (True, 2), (2**70, 0.5), ("2.5", 1)]
)
def test_numbers_become_the_arrays_that_numpy_makes_of_them(values: tuple[Any, ...]) -> None:
    expected = np.array(values, dtype=np.float64)
    found = pool.as_floats(values)
    assert found.tobytes() == expected.tobytes()
    assert found.flags.writeable


@pytest.mark.parametrize("values", [(), (1, 2**62, -3), (True, 2), (1.0, 2), ("7", 1)])
def test_integers_become_the_arrays_that_numpy_makes_of_them(values: tuple[Any, ...]) -> None:
    found = pool.as_ints(values)
    assert found.tolist() == np.array(values, dtype=np.int64).tolist()
    assert found.dtype == np.int64
    assert found.flags.writeable
