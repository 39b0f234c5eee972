"""What a look costs the database: those who work share its processors."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from sqlbuffer.looks.compare import compare
from sqlbuffer.looks.opening import handles, open_existing
from sqlbuffer.looks.workers import find_workers
from sqlbuffer.store import SampleStore, open_store


@contextmanager
def noted() -> Iterator[list[str]]:
    """The statements that all connections execute in the block."""
    executed: list[str] = []

    def note(connection: Any, cursor: Any, sql: str, *_: Any) -> None:
        executed.append(sql)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def opening(url: str, name: str | None) -> list[str]:
    with noted() as executed, closing(open_existing(url)) as database:
        assert handles(database, name)
    return executed


def test_opening_takes_as_many_statements_for_many_buffers_as_for_one(store_url: str) -> None:
    for name in ("a", "b", "c"):
        open_store(store_url, name=name).close()
    of_one, of_all = opening(store_url, "a"), opening(store_url, None)
    assert len(of_one) == len(of_all)
    if store_url.startswith("postgresql"):
        assert len(of_one) == 4, "BEGIN, the relations, the revision, the buffer"


def test_a_read_takes_one_process_of_the_server(postgresql_url: str) -> None:
    """The server may start others for a large table, which take processors from those who draw."""
    with open_store(postgresql_url) as store:
        setting = sa.text("SHOW max_parallel_workers_per_gather")
        found = inside.database_of(store).read(lambda connection: connection.scalar(setting))
    assert found == "0"


@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_stale_scores_are_counted_without_a_join_with_the_pool(store_url: str, mode: str) -> None:
    with open_store(store_url, mode=mode) as store:
        store.add([f"s{i}" for i in range(10)])
        store.score(lambda samples: np.ones(len(samples)))
        store.add(["unscored"])
        hold(store.sample(3))
        with noted() as executed:
            found = store.staleness()
        waiting = {row.score_version: row.waiting for row in found}
        assert waiting == {None: 1, 0: 7 if mode == "consume" else 10}
        assert sum(waiting.values()) == len(store)
        assert [row.oldest is None for row in found] == [True, False]
    assert not [sql for sql in executed if "pool" in sql]


def test_a_buffer_without_failures_is_not_searched_for_them(store: SampleStore) -> None:
    store.record(["a", "b"], [1.0, 2.0])
    with noted() as executed:
        assert store.failed() == []
    assert not [sql for sql in executed if "samples" in sql and "error IS NOT NULL" in sql]
    store.record(["c"], [None], errors=["it failed"])
    assert [row["error"] for row in store.failed()] == ["it failed"]


def test_the_best_by_then_of_many_measurements_is_exact(store_url: str) -> None:
    with (
        open_store(store_url, name="long") as long,
        open_store(store_url, name="short", direction="minimize") as short,
    ):
        for sample, reward in (("s0", 0.0), ("s1", 5.0), ("s2", 9.0)):
            long.record([sample], [reward])
        long.record([f"s{i}" for i in range(3, 5_002)], [0.0] * 4_999)
        short.record(["s0", "other", "third"], [3.0, 2.0, None], errors=[None, None, "it failed"])
        with noted() as executed:
            rows = compare(inside.handle_of(long), inside.handle_of(short))
    values = {row["field"]: (row["a"], row["b"]) for row in rows}
    assert values["measurements"] == (5_002, 2)
    assert values["common_measurements"] == (2, 2)
    assert values["best_by_then"] == (5.0, 2.0)
    assert (values["shared_samples"], values["shared_measured"]) == ((1, 1), (1, 1))
    assert not [sql for sql in executed if "RECURSIVE" in sql], "no walk over the measurements"


def test_a_condition_without_a_call_does_not_list_the_functions(postgresql_url: str) -> None:
    with open_store(postgresql_url) as store:
        store.record(["a"], [None], errors=["it failed"])
        with noted() as executed:
            assert len(store.failed(where="attempts = 0")) == 1
        assert not [sql for sql in executed if "pg_proc" in sql]
        with noted() as executed:
            assert len(store.failed(where="abs(attempts) = 0")) == 1
        assert [sql for sql in executed if "pg_proc" in sql]


@pytest.mark.slow
def test_a_table_of_few_samples_is_read_in_wide_pages(store: SampleStore) -> None:
    """A condition that few samples meet leaves a page empty, which costs as much as a full one."""
    samples = [f"s{i:04}" for i in range(2_000)]
    rewards = [float(i in (3, 500) or i >= 1_500) for i in range(2_000)]
    for start in range(0, 2_000, 500):
        store.record(samples[start : start + 500], rewards[start : start + 500])
    with noted() as executed:
        batches = list(store.table(["sample"], where="reward > 0.5", chunk=20))
    wanted = [sample for sample, reward in zip(samples, rewards, strict=True) if reward]
    found = [value for batch in batches for value in batch.column("sample").to_pylist()]
    assert sorted(found) == wanted
    assert max(batch.num_rows for batch in batches) <= 20
    pages = [sql for sql in executed if "reward > 0.5" in sql and "LIMIT" not in sql]
    assert len(pages) < 60, "100 pages of 20 ids without a wider one"


def test_a_second_look_compiles_no_statement(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of `sqlbuffer serve` and `sqlbuffer watch` look again and again."""
    with open_store(store_url) as store:
        store.add(["a"])
    with closing(open_existing(store_url)) as database:
        (buffer,) = handles(database, "default")
        buffer.read(find_workers)
        compiled: list[Any] = []
        compile_ = sa.sql.compiler.SQLCompiler.__init__

        def note(self: Any, dialect: Any, statement: Any, *given: Any, **named: Any) -> None:
            compiled.append(statement)
            compile_(self, dialect, statement, *given, **named)

        monkeypatch.setattr(sa.sql.compiler.SQLCompiler, "__init__", note)
        assert len(buffer.read(find_workers)) == 1
    assert compiled == []
