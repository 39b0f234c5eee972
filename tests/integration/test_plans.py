"""What the store's hot statements cost: every one goes by its index, and their number does not
depend on the pool.

Nothing is asked of statements by themselves: a store works, and each statement that it executes is
explained by the database just before, with the parameters it has.
"""

import contextlib
import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.engine.interfaces import CacheStats

from helpers import inside
from helpers.cleanup import hold
from sqlbuffer.core import attempts, reaper, refresh
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.clock import turn_back
from sqlbuffer.core.release import release
from sqlbuffer.db import queries
from sqlbuffer.db.backends.sqlite import _row_by_row
from sqlbuffer.db.schema import batches
from sqlbuffer.errors import ClaimLost
from sqlbuffer.integrations.slots import Slots
from sqlbuffer.store import SampleStore, open_store

pytestmark = pytest.mark.slow

BIG = 20_000
TABLES = {"pool", "samples", "draws", "batches"}


@dataclasses.dataclass
class Executed:
    """A statement that was executed, and how the database went about it."""

    name: str
    sql: str
    scans: list[str]
    """Tables of ours that are read from end to end."""
    sorts: list[str]
    """What is sorted, other than rows that came with the statement."""
    indexes: set[str]


ARGUMENTS = {
    (): [()],
    ("column",): [("settled_at",), ("released_at",)],
    ("direction",): [("maximize",), ("minimize",)],
    ("pruned",): [(True,), (False,)],
    ("table",): [(table,) for table in queries.transfer.ORDERS],
}


def first_words(sql: str) -> str:
    """What a statement does, and to which table."""
    table = re.search(r"(?:FROM|INTO|UPDATE) (?:sqlbuffer\.)?(\w+)", sql)
    return f"{sql.split()[0]}:{table[1]}" if table else sql


def built(store: SampleStore) -> dict[int, str]:
    """The name of its builder for every statement, by the statement's identity: each is
    built once.
    """
    backend = inside.backend_of(store)
    arguments = {
        **{key: [(given, {}) for given in values] for key, values in ARGUMENTS.items()},
        ("dialect",): [((backend,), {})],
        **{
            ("dialect", flag): [((backend,), {flag: value}) for value in (True, False)]
            for flag in ("evicted", "keyed")
        },
        ("dialect", "requeue", "keyed"): [
            ((backend,), {"requeue": requeue, "keyed": keyed})
            for requeue in (True, False)
            for keyed in (True, False)
        ],
    }
    return {
        id(builder(*given, **named)): name
        for module in queries.__all__
        for name, builder in vars(vars(queries)[module]).items()
        if hasattr(builder, "cache_info")
        for given, named in arguments[tuple(inspect.signature(builder).parameters)]
    }


def explain_on_sqlite(
    cursor: Any, sql: str, parameters: Any
) -> tuple[list[str], list[str], set[str]]:
    lines = [row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    scans = [line for line in lines if re.match(r"SCAN (\w+)", line) and line.split()[1] in TABLES]
    for line in lines:  # the scope of a user's condition is called as the table, and has one row
        if line.startswith(("CO-ROUTINE ", "MATERIALIZE ")) and f"SCAN {line.split()[1]}" in scans:
            scans.remove(f"SCAN {line.split()[1]}")
    reads_ours = any(
        line.split()[1] in TABLES for line in lines if line.startswith(("SCAN", "SEARCH"))
    )
    sorts = [line for line in lines if "TEMP B-TREE" in line and reads_ours]
    # A search of nothing but the buffer reads everything that waits in it, unless the order is that
    # of the index.
    narrow = any(re.match(r"SEARCH pool .*\(buffer_id=\? AND", line) for line in lines)
    scans += [line for line in lines if line.startswith("SEARCH pool") and sorts and not narrow]
    indexes = {
        match
        for line in lines
        for match in re.findall(r"USING (?:COVERING )?(INDEX \w+|PRIMARY KEY|INTEGER \w+)", line)
    }
    return scans, sorts, indexes


def walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from walk(child)


def explain_on_postgresql(
    cursor: Any, sql: str, parameters: Any
) -> tuple[list[str], list[str], set[str]]:
    (found,) = cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters).fetchone()
    nodes = list(walk((json.loads(found) if isinstance(found, str) else found)[0]["Plan"]))
    scans = [
        f"{node['Node Type']} on {node['Relation Name']}"
        for node in nodes
        if node.get("Relation Name") in TABLES
        and "Scan" in node["Node Type"]
        and not has_condition(node)
    ]
    sorts = [
        f"{node['Node Type']} by {node['Sort Key']}"
        for node in nodes
        if "Sort Key" in node and any(below.get("Relation Name") in TABLES for below in walk(node))
    ]
    if any("pool" in key for node in nodes for key in node.get("Sort Key", [])):
        scans.append("the pool, to sort it")
    return scans, sorts, {node["Index Name"] for node in nodes if "Index Name" in node}


def has_condition(scan: dict[str, Any]) -> bool:
    """True where an index narrows the scan down, or gives it an order of which only the first rows
    are taken.
    """
    return "Index Cond" in scan or any("Index Cond" in below for below in walk(scan))


@contextlib.contextmanager
def watched(store: SampleStore) -> Iterator[list[Executed]]:
    """Collect what the store executes, by name; what is not built by SQLAlchemy by its
    first word.
    """
    executed: list[Executed] = []
    names = built(store)
    database = inside.database_of(store)
    is_sqlite = database.dialect.schema is None
    explain = explain_on_sqlite if is_sqlite else explain_on_postgresql

    engines = [database._engine(kind) for kind in ("reader", "writer")]
    each: list[str] = []  # the statement that is being executed for each row, and on SQLite its SQL

    def before(
        connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool
    ) -> None:
        if context.compiled is None:
            if sql not in each:
                executed.append(Executed(sql.split()[0], sql, [], [], set()))
            return
        alongside = connection.connection.driver_connection.cursor()
        plan = explain(alongside, sql, parameters[0] if many else parameters)
        alongside.close()
        name = each[0] if each else names.get(id(context.invoked_statement)) or first_words(sql)
        executed.append(Executed(name, sql, *plan))

    def noted(execute: Callable[..., Any]) -> Callable[..., Any]:
        def execute_noted(
            connection: Any, statement: Any, rows: Any, columns: Any, constants: Any
        ) -> Any:
            if connection.engine not in engines:  # a store of another test drops a batch
                return execute(connection, statement, rows, columns, constants)
            if each:  # one of these is made of the other
                return execute(connection, statement, rows, columns, constants)
            each.append(names[id(statement)])
            if is_sqlite:
                sql, values = _row_by_row(connection.dialect, statement, rows, columns, constants)
                cursor = connection.connection.driver_connection.cursor()
                executed.append(Executed(each[0], sql, *explain(cursor, sql, values[0])))
                each.append(sql)
            try:
                return execute(connection, statement, rows, columns, constants)
            finally:
                each.clear()

        return execute_noted

    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", before)
    dialect = database.dialect
    with (
        mock.patch.object(dialect, "execute_each", noted(dialect.execute_each)),
        mock.patch.object(dialect, "changed_by_each", noted(dialect.changed_by_each)),
    ):
        yield executed
    for engine in engines:
        sa.event.remove(engine, "before_cursor_execute", before)


def score_by_name(samples: list[str]) -> np.ndarray:
    return np.array([float(sample.partition(" ")[2]) for sample in samples])


def fill(store: SampleStore, n: int, first: int = 0) -> None:
    store.add([f"s {i}" for i in range(first, first + n)], source="g")
    store.score(score_by_name)


def analyze(url: str) -> None:
    parsed = sa.make_url(url)
    is_server = parsed.drivername == "postgresql"
    engine = sa.create_engine(parsed.set(drivername="postgresql+psycopg") if is_server else parsed)
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    engine.dispose()


def work(store: SampleStore, first: int) -> None:
    """Do everything that a run does with every batch, and some more."""
    samples = [f"s {i}" for i in range(first, first + 500)]
    store.add(samples)
    store.score(score_by_name)
    store.sample(64).settle(
        np.arange(64.0),
        record=([f"r {first}"], [1.0], ""),
        metrics={"m": 1.0},
        checkpoint={"c": b""},
    )
    store.sample(64, pct_argmax=0.25).settle()
    store.sample(64).release()
    batch = store.sample(64)
    batch.report(batch.ids[:10], np.arange(10.0))
    batch.release()
    store.add(hold(store.sample(8, pct_argmax=0.5)).samples)
    with store.sample(8) as batch:
        batch.settle()
    store.add(batch.samples, requeue=True)
    stream = store.stream(16, commit_every=2)
    for i, _ in enumerate(stream):
        stream.commit()
        if i == 2:
            break
    stream.commit()
    store.record(samples[:8], np.zeros(8))
    store.record(samples[:8], np.ones(8))
    store.rewards_of(samples)
    store.top(10)
    store.stats()
    store.score(lambda samples: score_by_name(samples) + 1, only="all", chunk=1000)
    store.score(score_by_name, only="all", budget=64)
    store.score(score_by_name, only="stale", budget=64)


HOT = {
    "sqlite": {
        "newest_sample": set(),
        "put_samples": set(),
        "marked_samples": {"uq_samples_buffer_id_hash"},
        "unmark": {"samples"},
        "enter_unscored": {"samples"},
        "leave_up_to": {"pool"},
        "leave_pool": {"pool"},
    },
    "postgresql": {"add_unscored": set()},
    "both": {
        "insert_samples": set(),
        "enter_pool": set(),
        "unscored": {"ix_pool_unscored"},
        "move_keys": {"pool"},
        "store_scores": {"samples"},
        "store_newer_scores": {"samples"},
        "first_in_race": {"pool", "samples"},
        "first_by_score": {"ix_pool_top", "samples"},
        "store_first_rewards": {"samples"},
        "store_first_rewards_of_draws": {"samples"},
        "insert_measurements_of_batch": {"draws", "samples"},
        "measured_before": {"samples"},
        "store_rewards": {"samples"},
        "samples_by_hash": {"uq_samples_buffer_id_hash"},
        "dequeue_known": {"samples"},
        "draws_of_batch": {"draws", "samples"},
        "scored": {"samples"},
        "still_stale": {"samples", "pool"},
        "pool_page": {"pool"},
        "report_draws": {"draws"},
        "report_part": {"draws"},
        "dequeue_part": {"draws", "samples"},
        "unreported": {"draws"},
    },
}
"""The statements that every batch pays for, with the tables or indexes by which they find their
rows.
"""

SORT_WHAT_THEY_RETURN = {"measured_before", "draws_of_batch", "unscored", "scored"}
"""They look rows up, all of which they return: as many as a batch or a chunk has."""

INDEX_NAMES = {  # as each database calls them
    "pool": {"PRIMARY KEY", "pool_pkey"},
    "samples": {"INTEGER PRIMARY", "samples_pkey"},
    "draws": {"PRIMARY KEY", "draws_pkey"},
    "ix_pool_unscored": {"INDEX ix_pool_unscored", "ix_pool_unscored"},
    "ix_pool_top": {"INDEX ix_pool_top", "ix_pool_top"},
    "uq_samples_buffer_id_hash": {"INDEX sqlite_autoindex_samples_1", "uq_samples_buffer_id_hash"},
}


def test_hot_statements_go_by_their_index(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without statistics of the tables, and with them."""
    hot = HOT["both"] | HOT[store_url.partition(":")[0]]
    monkeypatch.setattr(
        refresh, "WEIGHTS_CHUNK", 400
    )  # as small next to this pool as the real one next to a million
    with open_store(store_url) as store:
        fill(store, BIG)
        store.record([f"measured {i}" for i in range(5000)], np.arange(5000.0) % 50)
        store.sample(64, pct_argmax=0.5).settle()
        for first in (BIG, BIG + 10_000):
            with watched(store) as executed:
                work(store, first)
            assert_by_their_index(executed, hot)
            analyze(store_url)


def assert_by_their_index(executed: list[Executed], hot: dict[str, set[str]]) -> None:
    problems = [
        f"{it.name} reads {it.scans or ''} and sorts {it.sorts or ''}: {it.sql}"
        for it in executed
        if it.name in hot and (it.scans or (it.sorts and it.name not in SORT_WHAT_THEY_RETURN))
    ]
    assert not problems, "\n".join(problems)
    for name, wanted in hot.items():
        seen = [it for it in executed if it.name == name]
        assert seen, f"{name} was not executed"
        for it in seen:
            missing = [index for index in wanted if not INDEX_NAMES[index] & it.indexes]
            assert not missing, f"{name} does not use {missing} but {it.indexes}: {it.sql}"


@pytest.mark.each_database
@pytest.mark.parametrize(
    ("direction", "order", "sign"), [("maximize", "DESC", 1.0), ("minimize", "ASC", -1.0)]
)
def test_the_best_are_found_by_an_index(
    store_url: str, direction: str, order: str, sign: float
) -> None:
    """Also where a third of all samples tie for the best: only among equals does the
    database sort. Without statistics of the tables, and with them.
    """
    with open_store(store_url, direction=direction) as store:
        fill(store, 1000)
        rewards = sign * np.minimum(np.arange(float(BIG)), 12_000)
        store.record([f"measured {i}" for i in range(BIG)], rewards)
        for _ in range(2):
            with watched(store) as executed:
                store.top(10)
                store.incumbent()
                store.stats()
            assert_best_by_an_index(executed, order)
            analyze(store_url)


AMONG_EQUALS = re.compile("RIGHT PART|LAST TERM|Incremental Sort")
"""A sort of rows that are equal by the index, in SQLite's words, old and new, and PostgreSQL's."""


def assert_best_by_an_index(executed: list[Executed], order: str) -> None:
    on_rewards = [it for it in executed if f"reward {order}" in it.sql]
    assert len(on_rewards) == 3
    for it in on_rewards:
        assert not it.scans, (it.scans, it.sql)
        sorts = [
            line for line in it.sorts if "hash DESC" not in it.sql or not AMONG_EQUALS.search(line)
        ]
        assert not sorts, (sorts, it.sql)
        assert any("ix_samples_reward" in index for index in it.indexes), it.sql


def test_a_page_of_the_table_is_found_by_indexes(store_url: str) -> None:
    """Also with a condition, without statistics of the tables, and with them."""
    with open_store(store_url) as store:
        store.record([f"measured {i}" for i in range(20_000)], np.arange(20_000.0))
        hold_some = store.add([f"s {i}" for i in range(100)])
        assert hold_some.added == 100
        for where in (None, ("reward", ">", 5.0), "state = 'measured' AND meta.mw IS NULL"):
            with watched(store) as executed:
                next(iter(store.table(where=where, chunk=100)))
            (page,) = (it for it in executed if "AS page" in it.sql)
            assert not [scan for scan in page.scans if "samples" in scan], page
            assert len(page.sorts) <= 1, page  # of the page itself
            assert INDEX_NAMES["samples"] & page.indexes, page
            assert not INDEX_NAMES["uq_samples_buffer_id_hash"] & page.indexes, page
            assert any("ix_measurements_sample" in index for index in page.indexes), page
            analyze(store_url)


def test_the_head_is_found_among_what_can_never_be_drawn(store_url: str) -> None:
    """Unscored samples and those of weight 0 stand behind the race; nothing walks over them."""
    with open_store(store_url) as store:
        store.add([f"nan {i}" for i in range(20_000)])
        store.score(lambda samples: np.full(len(samples), np.nan))
        store.add([f"new {i}" for i in range(20_000)])
        with watched(store) as executed:
            assert len(store.sample(10, pct_argmax=0.5)) == 0
            assert len(store.sample(10)) == 0
            store.set_budget(5)
            assert len(store.sample(10, pct_argmax=0.5)) == 0
        for it in executed:
            if it.name == "first_in_race":
                assert not it.scans
                assert not it.sorts
            if it.name == "costs_of_head":
                assert all(INDEX_NAMES[index] & it.indexes for index in ("pool", "ix_pool_top"))
                of_pool = [line for line in it.sorts if "ORDER BY" in line or "pool" in line]
                assert all(AMONG_EQUALS.search(line) for line in of_pool), it.sorts


def with_old_batches(store: SampleStore, n: int) -> None:
    """Give a buffer n settled batches, and as many in another one: copies of the first batch."""
    store.sample(4).settle()
    columns = [column for column in batches.c if column.name not in ("id", "token")]
    numbers = sa.select(sa.literal(1).label("i")).cte("numbers", recursive=True)
    numbers = numbers.union_all(sa.select(numbers.c.i + 1).where(numbers.c.i < n))
    copies = sa.select(*columns).join_from(batches, numbers, sa.true())
    inside.execute(store, sa.insert(batches).from_select([c.name for c in columns], copies))


def test_no_statement_reads_the_batches_of_a_buffer(store_url: str) -> None:
    """Of 10,000 batches a claim, its end and a heartbeat find theirs by an index, without
    statistics and with them.
    """
    with open_store(store_url, seed=1) as store:
        fill(store, 300)
        with_old_batches(store, 10_000)
        handle = inside.handle_of(store)
        for first in (1_000, 2_000):
            with watched(store) as executed:
                store.add([f"s {first + i}" for i in range(20)])
                store.score(score_by_name)
                store.sample(8, pct_argmax=0.5).settle(np.ones(8))
                seen = store.sample(8)
                store.sample(2, pct_argmax=1.0).settle()
                seen.release()
                assert store.remove(seen.ids[:2]) == 2
                reported = store.sample(4)
                reported.report(reported.ids[:2], np.ones(2))
                handle.write(release, batch=reported.id)
                with contextlib.suppress(ClaimLost):
                    reported.settle(np.ones(4))
                token = hold(store.sample(2, lease_s=600.0)).detach()
                handle.write(turn_back)
                store.batch(token).settle()
                store.set_budget(10**6)
                store.sample(2).settle()
                store.set_budget(None)
                reaper.release_dead(handle)
                for statement in (
                    queries.batches.claim_owners(),
                    queries.batches.count_open(),
                    queries.batches.expired_batches(),
                ):
                    handle.look(lambda tx, statement=statement: tx.rows(statement))
            found = {it.name: it for it in executed if "batches" in it.sql}
            wanted = {"insert_batch", "close_claim", "later_draw", "released_beyond", "used"}
            assert wanted | {"batch_of_token", "expired_batches"} <= set(found)
            for name, it in found.items():
                assert not {"SCAN batches", "Seq Scan on batches"} & set(it.scans), (name, it)
                assert not [index for index in it.indexes if "ix_batches_iteration" in index], name
            analyze(store_url)


ACTS: dict[str, Callable[[SampleStore, Batch], Any]] = {
    "start": lambda _, batch: batch._start(batch.ids.tolist()),
    "report": lambda _, batch: batch.report(batch.ids, np.ones(len(batch))),
    "count attempts": lambda store, batch: inside.handle_of(store).write(
        attempts.count_attempts, batch=batch.id, ids=batch.ids.tolist()
    ),
    "release": lambda _, batch: batch.release(),
    "remove": lambda store, batch: store.remove(batch.ids),
}


@pytest.mark.parametrize("act", list(ACTS))
def test_many_samples_are_found_in_one_pass(sqlite_url: str, act: str) -> None:
    """The steps of SQLite's machine grow with the samples, not with their square."""
    steps = {}
    mode = "replay" if act in ("release", "remove") else "consume"
    for n in (250, 1000):
        with open_store(sqlite_url, name=f"{n}", weighting="uniform", mode=mode) as store:
            store.add([f"s{i}" for i in range(n)])
            batch = hold(store.sample(n))
            batch._start(batch.ids.tolist())
            with counted_steps(store) as counted:
                ACTS[act](store, batch)
            steps[n] = len(counted)
    assert steps[1000] < 6 * steps[250]


@contextlib.contextmanager
def counted_steps(store: SampleStore) -> Iterator[list[int]]:
    """Collect an entry for each hundred steps that SQLite's machine takes to write."""
    counted: list[int] = []

    def watch(connection: Any, *_: Any) -> None:
        connection.connection.driver_connection.set_progress_handler(lambda: counted.append(1), 100)

    engine = inside.engine_of(store)
    sa.event.listen(engine, "before_cursor_execute", watch)
    yield counted
    sa.event.remove(engine, "before_cursor_execute", watch)
    inside.handle_of(store).write(
        lambda tx: tx.connection.connection.driver_connection.set_progress_handler(None, 100)
    )


# -- how many statements ---------------------------------------------------------------------------


def executed_by(store: SampleStore, action: Callable[[], Any]) -> list[str]:
    with watched(store) as executed:
        action()
    return [it.name for it in executed]


def statements_of_a_run(store: SampleStore, first: int) -> dict[str, list[str]]:
    """The statements of each action of a run, in their order."""
    new = [f"s {i}" for i in range(first, first + 1000)]
    found = {"add": executed_by(store, lambda: store.add(new))}
    found["add again"] = executed_by(store, lambda: store.add(new))
    found["score"] = executed_by(store, lambda: store.score(score_by_name))
    found["score nothing"] = executed_by(store, lambda: store.score(score_by_name))
    batches: list[Batch] = []
    found["sample"] = executed_by(store, lambda: batches.append(store.sample(64)))
    found["settle"] = executed_by(store, lambda: batches[0].settle(np.ones(64)))
    store.sample(64, pct_argmax=0.25).settle()  # after a refresh the top is marked again
    found["sample with argmax"] = executed_by(
        store, lambda: batches.append(store.sample(64, pct_argmax=0.25))
    )
    found["settle without rewards"] = executed_by(store, lambda: batches[1].settle())
    store.set_budget(10**9)
    store.set_budget(10**9 - (store.budget_left or 0) + 10)
    found["sample with a budget"] = executed_by(store, lambda: store.sample(64).settle())
    store.set_budget(None)
    batches.append(store.sample(64))
    more = {"metrics": {"a": 1.0, "b": 2.0}, "checkpoint": {"c": b""}, "record": (["r"], [1.0], "")}
    found["settle with everything"] = executed_by(
        store, lambda: batches[2].settle(np.ones(64), **more)
    )
    batches.append(store.sample(64))
    found["release"] = executed_by(store, lambda: batches[3].release())
    if (
        found["release"][-1] == "reopen_refresh"
    ):  # where one of its scores is older than the newest refresh
        found["release"].pop()
    stream = store.stream(16, commit_every=4)
    loop = iter(stream)
    found["stream"] = executed_by(store, lambda: [next(loop) for _ in range(5)])
    found["stream, a part"] = executed_by(store, lambda: stream.commit())
    loop.close()
    stream.commit()  # gives back the rest of the claim
    store.sample(64).settle()
    batches.append(store.sample(64))
    found["update priorities"] = executed_by(
        store, lambda: batches[4].update_priorities(np.arange(64.0))
    )
    batches[4].settle()
    store.save_predictor(b"", rows_trained=1)
    store.score(score_by_name, only="stale", budget=64)
    found["refresh some"] = executed_by(
        store, lambda: store.score(score_by_name, only="stale", budget=64)
    )
    found["len"] = executed_by(store, lambda: len(store))
    found["stats"] = executed_by(store, lambda: store.stats())
    return found


ON_THE_SIDE = {"BEGIN", "COMMIT", "ROLLBACK", "CREATE", "DELETE", "INSERT", "PRAGMA", "SET"}
"""Executed without SQLAlchemy's compiler: SQLite's transactions, and the temporary tables in which
rows travel.
"""

EXPECTED = {
    "add": "race_state newest_sample put_samples enter_unscored count",
    "add again": "race_state newest_sample put_samples enter_unscored count",
    "score": "unscored race_state store_scores move_keys count",
    "score nothing": "unscored stats staleness",  # `staleness` once for each version
    "sample": "race_state first_in_race insert_batch insert_arrivals leave_up_to count",
    "sample with argmax": (
        "race_state first_by_score leave_pool first_in_race insert_batch insert_arrivals "
        "insert_draws leave_up_to count"
    ),
    "sample with a budget": (
        "race_state used costs_of_head first_in_race insert_batch insert_arrivals leave_up_to "
        "count close_claim dequeue_known count"
    ),
    "settle": "close_claim store_first_rewards_of_draws insert_measurements_of_batch count",
    "settle without rewards": "close_claim dequeue_known count",
    "settle with everything": (
        "close_claim insert_metrics store_first_rewards_of_draws "
        "insert_measurements_of_batch totals "
        "insert_samples samples_by_hash next_tick store_first_rewards measured_before "
        "store_rewards objective insert_measurements count count delete_checkpoints "
        "upsert_checkpoint"
    ),
    "release": (
        "race_state close_claim draws_of_batch count later_draw take_back_clock enter_pool count "
        "oldest_version_of_batch"
    ),
    "stream": (  # a claim, then the same with the settling of the one before
        "race_state first_in_race insert_batch insert_arrivals leave_up_to count "
        "close_claim dequeue_part count "
        "race_state first_in_race insert_batch insert_arrivals leave_up_to count"
    ),
    "stream, a part": "open_batch report_part dequeue_part count",
    "update priorities": (  # of claimed samples
        "race_state stored_with claimed_with released_beyond store_priorities count"
    ),
    "refresh some": "refresh_state still_stale race_state move_keys count store_scores",
    "len": "own_totals",
    "stats": "stats",
}
EXPECTED_ON_POSTGRESQL = EXPECTED | {
    "add": "race_state add_unscored count",
    "add again": "race_state add_unscored count",
    "score": "unscored race_state store_scores race_state move_keys count",
    "sample": "race_state first_in_race insert_batch insert_draws count",
    "sample with argmax": "race_state first_by_score first_in_race insert_batch insert_draws count",
    "stream": (
        "race_state first_in_race insert_batch insert_draws count close_claim dequeue_part count "
        "race_state first_in_race insert_batch insert_draws count"
    ),
    "sample with a budget": (  # alone among draws, for which it begins again
        "race_state race_state used costs_of_head first_in_race insert_batch insert_draws count "
        "close_claim dequeue_known count"
    ),
}
"""On PostgreSQL a lock goes before each `race_state`."""


def test_old_draws_are_found_by_their_batch(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        fill(store, 1000)
        for _ in range(10):
            store.sample(20).settle()
        with watched(store) as executed:
            assert store.prune(keep_draws=20).draws == 180
    hot = {"old_batches": {"draws"}, "drop_draws": {"draws"}}
    assert_by_their_index(executed, hot)


def test_the_number_of_statements_is_known_and_does_not_grow(store_url: str) -> None:
    with open_store(store_url) as store:
        fill(store, 2000)
        for first in (
            2000,
            4000,
        ):  # what is prepared on first use, of what is new and of what is known
            statements_of_a_run(store, first)
        small = statements_of_a_run(store, 10_000)
        fill(store, 10_000, first=100_000)
        large = statements_of_a_run(store, 200_000)
    assert large == small
    locks = {
        action: [name for name in names if "advisory" in name] for action, names in small.items()
    }
    found = {
        action: [name for name in names if name not in ON_THE_SIDE and "advisory" not in name]
        for action, names in small.items()
    }
    expected = EXPECTED_ON_POSTGRESQL if store_url.startswith("postgresql") else EXPECTED
    assert found == {action: names.split() for action, names in expected.items()}
    for action in ("len", "stats"):  # one statement, without a transaction around it
        assert len(small[action]) == 1
    if store_url.startswith("postgresql"):
        assert all(
            len(locks[action]) == names.count("race_state") for action, names in found.items()
        )


def test_priorities_of_drawn_samples_go_by_their_keys(store_url: str) -> None:
    """In mode "replay", from the second update of a process on."""
    with open_store(store_url, mode="replay") as store:
        fill(store, 5_000)
        batch = store.sample(64)
        batch.update_priorities(np.arange(1.0, 65.0))
        analyze(store_url)
        with watched(store) as executed:
            assert batch.update_priorities(np.arange(2.0, 66.0)) == 64
        with watched(store) as settling:
            batch.settle(priorities=np.arange(3.0, 67.0))
    found, settled = (
        [it for it in some if it.name not in ON_THE_SIDE and "advisory" not in it.name]
        for some in (executed, settling)
    )
    names = ["at_places", "released_beyond", "move_keys", "store_priorities", "count"]
    assert [it.name for it in found] == ["race_state", *names]
    assert [it.name for it in settled] == ["race_state", "close_claim", *names]
    # There are few batches, which a server reads from end to end.
    hot = [it for it in found if it.name != "released_beyond"]
    assert [it.scans + it.sorts for it in hot] == [[]] * len(hot)


def test_slots_of_a_ring_go_by_their_keys(store_url: str) -> None:
    """From the second writing of a process on, which has read all keys by then."""
    slots = Slots(store_url, max_size=4_000)
    with slots.store:
        for first in range(0, 8_000, 2_000):
            slots.append(list(range(first, first + 2_000)))
        slots.update(range(64), np.ones(64))
        analyze(store_url)
        with watched(slots.store) as executed:
            slots.append(list(range(64)))
            slots.update(slots.draw(64).slots.tolist(), np.ones(64))
            slots.read(range(64))
    found = [it for it in executed if it.name not in ON_THE_SIDE and "advisory" not in it.name]
    ours = [it for it in found if it.name in vars(queries.ring)]
    assert [it.name for it in ours] == [
        *("slots_with", "put_slots", "slots_with", "slots_with", "contents_with")
    ]
    moving = [it for it in found if it.name in ("at_places", "move_keys")]
    assert [it.name for it in moving] == ["at_places", "move_keys"] * 2
    assert [it.scans + it.sorts for it in ours + moving] == [[]] * 9


def test_no_statement_is_compiled_twice(store_url: str) -> None:
    """An element of SQL without a cache key would have SQLAlchemy compile its statement at each
    execution.
    """
    with open_store(store_url) as store:
        fill(store, 2000)
        for first in (2000, 4000):
            statements_of_a_run(store, first)
        compiled = []

        def before(
            connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool
        ) -> None:
            if context.compiled is not None and context.cache_hit is not CacheStats.CACHE_HIT:
                compiled.append(sql)

        database = inside.database_of(store)
        for kind in ("reader", "writer"):
            sa.event.listen(database._engine(kind), "before_cursor_execute", before)
        statements_of_a_run(store, 6000)
    assert not compiled
