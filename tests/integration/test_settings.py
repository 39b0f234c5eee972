"""What a server, a database, a role or a URL sets: the same draws, or one clear refusal when a
store is opened.
"""

import functools
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.proxies import proxy_before
from helpers.servers import server_execute
from sqlbuffer import open_store
from sqlbuffer.cli import sql as query
from sqlbuffer.errors import DatabaseUnavailable, InconsistentDatabase, InvalidArgument
from sqlbuffer.store import SampleStore

SAMPLES: list[Any] = [f"s{i}" for i in range(30)] + [
    "ünïcödé \u4f60 \\ '\"",
    (1, 2.5, b"\0\xff"),
    np.arange(3) / 7,
]

SETTINGS = [
    "extra_float_digits = 0",
    "extra_float_digits = -15",
    "datestyle = 'German, DMY'",
    "datestyle = 'SQL, MDY'",
    "intervalstyle = sql_standard",
    "timezone = 'Asia/Kathmandu'",
    "timezone = '<+03:17>-03:17'",
    "bytea_output = escape",
    "array_nulls = off",
    "client_encoding = LATIN1",
    "client_encoding = SQL_ASCII",
    "client_encoding = SJIS",
    "standard_conforming_strings = off",
    "quote_all_identifiers = on",
    "search_path = public, pg_catalog",
    "search_path = ''",
    "search_path = sqlbuffer",
    "default_transaction_isolation = serializable",
    "default_transaction_deferrable = on",
    "enable_seqscan = off",
    "enable_indexscan = off",
    "plan_cache_mode = force_generic_plan",
    "jit_above_cost = 0",
    "transform_null_equals = on",
    "synchronous_commit = off",
    "row_security = off",
    "idle_session_timeout = '700ms'",
    "client_min_messages = debug5",
    "work_mem = '64kB'",
]


def score(samples: list[Any]) -> list[float]:
    return [len(repr(sample)) / 7 + hash_of(sample) for sample in samples]


def hash_of(sample: Any) -> float:
    return sum(repr(sample).encode()) / 3


def everything(store: SampleStore) -> list[Any]:
    """Do all that a run does; return what it finds, to the last bit."""
    seen: list[Any] = [store.add(SAMPLES, source="ü", meta={"a": None, "b": "ö", "c": 0.1})]
    seen.append(store.score(score))
    for pct_argmax in (0.0, 0.5, 0.0):
        with store.sample(4, pct_argmax=pct_argmax) as batch:
            seen += [list(map(repr, batch.samples)), batch.info.probability.tolist()]
            batch.settle(
                [hash_of(sample) / 9 for sample in batch.samples],
                metrics={"x": 0.1},
                checkpoint={"c": b"\0\1"},
            )
    waiting = store.waiting()
    seen.append(store.remove(waiting.ids[:5].tolist()))
    seen += [
        store.score(lambda samples: [1 / value for value in score(samples)], only="all", chunk=7),
        len(store),
    ]
    seen.append(store.save_predictor(b"\0state", rows_trained=1))
    seen.append(store.score(score, only="stale", budget=3))
    with store.copy("copied", at_iteration=2) as copied:
        seen += [list(map(repr, copied.sample(5).samples)), copied.check()]
    rows = store.labelled_rows(where="source = 'ü'", newest=6)
    seen += [rows.rewards.tolist(), list(map(repr, rows)), store.history(), store.checkpoint("c")]
    stats = store.stats()
    assert abs(stats.created_at.timestamp() - time.time()) < 60
    seen += [stats.best_reward, stats.waiting, stats.measured, store.check()]
    return seen


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a run finds on SQLite, where nothing is set."""
    with open_store(f"sqlite:///{tmp_path_factory.mktemp('expected')}/buffer.db") as store:
        found = everything(store)
    assert found[-1] == []
    return found


def together(settings: list[str]) -> list[list[str]]:
    """Deal settings out to six groups, none of which sets anything twice."""
    groups: list[list[str]] = [[] for _ in range(6)]
    for setting in settings:
        name = setting.partition(" ")[0]
        free = (group for group in groups if not any(each.startswith(name) for each in group))
        min(free, key=len).append(setting)
    return groups


@pytest.mark.parametrize("settings", together(SETTINGS), ids=" ".join)
def test_a_database_may_set_what_it_likes(
    postgresql_url: str, expected: list[Any], settings: list[str]
) -> None:
    for setting in settings:
        server_execute(
            postgresql_url, f'ALTER DATABASE "{sa.make_url(postgresql_url).database}" SET {setting}'
        )
    with open_store(postgresql_url) as store:
        assert everything(store) == expected
        if any("idle" in setting for setting in settings):
            time.sleep(1)
        assert store.add(["more"]).added == 1


@pytest.fixture
def role(postgresql_url: str) -> Iterator[Callable[..., str]]:
    """Gives the URL by which a role that owns the database, and has some attributes and settings,
    reaches it.
    """
    url, name = sa.make_url(postgresql_url), f"role_{secrets.token_hex(4)}"

    def create(*settings: str, attributes: str = "") -> str:
        server_execute(postgresql_url, f"CREATE ROLE {name} LOGIN {attributes}")
        server_execute(postgresql_url, f"ALTER DATABASE {url.database} OWNER TO {name}")
        for setting in settings:
            server_execute(postgresql_url, f"ALTER ROLE {name} SET {setting}")
        return url.set(username=name).render_as_string(hide_password=False)

    yield create
    server_execute(postgresql_url, f"ALTER DATABASE {url.database} OWNER TO {url.username}")
    server_execute(postgresql_url, f"DROP OWNED BY {name} CASCADE")
    server_execute(postgresql_url, f"DROP ROLE {name}")


@pytest.mark.empty_database
def test_a_role_may_set_what_it_likes(role: Callable[..., str], expected: list[Any]) -> None:
    """It creates the schema, too."""
    with open_store(role(*SETTINGS[::2])) as store:
        assert everything(store) == expected


@pytest.mark.empty_database
def test_the_options_of_a_url_may_set_what_they_like(
    role: Callable[..., str], expected: list[Any]
) -> None:
    options = {"options": "-cextra_float_digits=0 -cdatestyle=German -carray_nulls=off"}
    with open_store(sa.make_url(role(*SETTINGS[1::2])).update_query_dict(options)) as store:
        assert everything(store) == expected


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII", "LATIN1", "WIN1252", "EUC_JP"])
def test_a_database_that_cannot_hold_every_text_is_refused(
    server_url: str, expected: list[Any], encoding: str
) -> None:
    name = f"test_{secrets.token_hex(4)}"
    server_execute(
        server_url, f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    )
    url = sa.make_url(server_url).set(database=name)
    try:
        if encoding == "UTF8":
            with open_store(url) as store:
                assert everything(store) == expected
        else:
            with pytest.raises(
                DatabaseUnavailable, match=rf"has the encoding {encoding}.*ENCODING 'UTF8'"
            ):
                open_store(url)
            assert (
                server_execute(
                    url.render_as_string(False), "SELECT 1 FROM pg_class WHERE relname = 'pool'"
                )
                == []
            )
    finally:
        server_execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.empty_database
def test_a_role_that_only_reads_is_refused_where_a_store_is_created(
    role: Callable[..., str],
) -> None:
    with pytest.raises(
        DatabaseUnavailable, match=r"read-only transaction.*read-only: use the primary"
    ):
        open_store(role("default_transaction_read_only = on"))


@pytest.mark.empty_database
@pytest.mark.parametrize("limit", [1, 3, 4])
def test_too_few_connections_are_refused_at_once(role: Callable[..., str], limit: int) -> None:
    url, start = role(attributes=f"CONNECTION LIMIT {limit}"), time.monotonic()
    if limit < 4:
        words = rf"may have {limit} connections.*CONNECTION LIMIT.*needs up to 4"
        with pytest.raises(DatabaseUnavailable, match=words):
            open_store(url)
        assert time.monotonic() - start < 5
        return
    with open_store(url, grace_s=0.4) as store:  # its heartbeat beats every 0.1 s
        store.add(SAMPLES)
        store.score(score)
        store.sample(3).settle([1.0, 2.0, 3.0])
        inside.database_of(store).write_from_one_state(
            lambda connection: connection.scalar(sa.text("SELECT 1"))
        )
        time.sleep(0.5)
        assert store.score(score, only="all") == len(SAMPLES) - 3


@pytest.mark.parametrize("setting", ["idle_in_transaction_session_timeout", "transaction_timeout"])
def test_a_transaction_that_takes_too_long_is_tried_once_more(
    postgresql_url: str, setting: str
) -> None:
    """The process may have been suspended; else the message names the setting."""
    open_store(postgresql_url).close()
    server_execute(
        postgresql_url,
        f'ALTER DATABASE "{sa.make_url(postgresql_url).database}" SET {setting} = 300',
    )
    runs: list[int] = []

    def work(connection: sa.Connection, *, n_slow: int) -> int:
        runs.append(1)
        if len(runs) <= n_slow:
            time.sleep(0.5)
        return int(connection.scalar(sa.text("SELECT 7")) or 0)

    with open_store(postgresql_url) as store:
        for transaction in (inside.database_of(store).read, inside.database_of(store).write):
            runs.clear()
            assert transaction(functools.partial(work, n_slow=1)) == 7
            runs.clear()
            with pytest.raises(DatabaseUnavailable, match=rf"{setting}: raise it"):
                transaction(functools.partial(work, n_slow=9))
            assert len(runs) == 2


def test_what_is_too_large_is_refused_before_it_is_sent(store: SampleStore) -> None:
    dialect = inside.backend_of(store)
    dialect.require_fits("this", 400_000_000)
    with pytest.raises(
        InvalidArgument, match=r"this takes 1,100 MB .* MB at most: keep the value in a file"
    ):
        dialect.require_fits("this", 1_100_000_000)


# -- options of URLs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("pool_size=5", r"does not know the option 'pool_size'.*libpq"),
        ("timeout=5", r"'timeout'.*did you mean connect_timeout"),
        ("ssl_mode=disable", r"'ssl_mode'.*did you mean sslmode"),
        ("port=abc", r"each port a number"),
        ("port=70000", r"each port a number"),
        ("port=0", r"each port a number"),
        ("host=a:1&host=b:x", r"each port a number"),
        ("host=a&host=b&port=1&port=2&port=3", r"each port a number"),
        ("row_factory=dict_row", r"'row_factory'"),
        ("autocommit=0", r"'autocommit'"),
        ("cursor_factory=x", r"'cursor_factory'"),
        ("context=x", r"'context'"),
        ("conninfo=host%3Dx", r"'conninfo'"),
        (
            "prepare_threshold=0",
            r"prepare_threshold .*positive number of executions, or none; got '0'",
        ),
        ("prepare_threshold=-1", r"positive number of executions, or none; got '-1'"),
        ("connect_timeout=soon", r"connect_timeout .*positive number of seconds; got 'soon'"),
        ("connect_timeout=0", r"positive number of seconds; got '0'"),
        ("application_name=mine", r"application_name .*sqlbuffer sets it"),
        ("client_encoding=latin1", r"client_encoding .*sqlbuffer sets it"),
        ("replication=database", r"replication .*sqlbuffer sets it"),
        ("sslmode=require&sslmode=disable", r"sslmode is given more than once"),
        ("%1b[31m=1", r"does not know the option"),
    ],
)
def test_an_option_without_effect_is_refused(postgresql_url: str, query: str, words: str) -> None:
    given = f"{postgresql_url}{'&' if '?' in postgresql_url else '?'}{query}"
    with pytest.raises(InvalidArgument, match=words) as caught:
        open_store(given)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "query",
    ["sslmode=bogus", "target_session_attrs=bogus", "channel_binding=bogus", "gssencmode=bogus"],
)
def test_an_option_with_a_value_that_libpq_does_not_know_is_said_to_be_wrong(
    postgresql_url: str, query: str
) -> None:
    given = f"{postgresql_url}{'&' if '?' in postgresql_url else '?'}{query}"
    with pytest.raises(
        DatabaseUnavailable, match=rf"{query.partition('=')[0]}.*correct this option of the URL"
    ):
        open_store(given)


@pytest.mark.parametrize(
    ("query", "setting", "expected"),
    [
        ("options=-cwork_mem%3D7MB", "work_mem", "7MB"),
        ("prepare_threshold=1", "work_mem", "4MB"),
        ("prepare_threshold=none", "work_mem", "4MB"),
        ("connect_timeout=3", "work_mem", "4MB"),
        ("target_session_attrs=read-write", "work_mem", "4MB"),
    ],
)
def test_an_option_that_is_known_is_heeded(
    postgresql_url: str, query: str, setting: str, expected: str
) -> None:
    given = f"{postgresql_url}{'&' if '?' in postgresql_url else '?'}{query}"
    with open_store(given, weighting="uniform") as store:
        for i in range(12):
            store.add([i])
        shown = inside.database_of(store).read(
            lambda connection: connection.exec_driver_sql(f"SHOW {setting}").scalar()
        )
        assert shown == expected
        driver: Any = inside.engine_of(store, "reader").raw_connection()
        if query.startswith("connect_timeout"):
            assert driver.driver_connection.info.get_parameters()["connect_timeout"] == "3"
        threshold = {"prepare_threshold=1": 1, "prepare_threshold=none": None}.get(query, 5)
        assert driver.driver_connection.prepare_threshold == threshold
        driver.close()


# -- what must match is counted --------------------------------------------------------------------


def keep_rows(store: SampleStore, command: str, table: str) -> None:
    """Let a database silently leave the rows of a table as they are, as one that does not find them
    does.
    """
    database = inside.database_of(store)
    if store.url.startswith("sqlite"):
        trigger = f"CREATE TRIGGER keep BEFORE {command} ON {table} BEGIN SELECT RAISE(IGNORE); END"
        database.write(lambda connection: connection.exec_driver_sql(trigger))
        return
    for sql in (
        (
            "CREATE FUNCTION sqlbuffer.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RETURN NULL; END $$"
        ),
        (
            f"CREATE TRIGGER keep BEFORE {command} ON sqlbuffer.{table} FOR EACH ROW EXECUTE "
            f"FUNCTION sqlbuffer.keep()"
        ),
    ):
        database.write(functools.partial(sa.Connection.exec_driver_sql, statement=sql))


@pytest.fixture
def filled(store: SampleStore) -> SampleStore:
    store.add(SAMPLES[:20])
    store.score(score)
    return store


@pytest.mark.parametrize(
    ("command", "table", "act"),
    [
        ("DELETE", "pool", lambda store: store.remove(store.waiting().ids[:3].tolist())),
        ("UPDATE", "samples", lambda store: store.remove(store.waiting().ids[:3].tolist())),
        ("INSERT", "draws", lambda store: store.sample(3)),
        ("UPDATE", "workers", lambda store: store.remove(store.waiting().ids[:3].tolist())),
    ],
)
def test_rows_that_are_not_found_again_are_an_error_and_nothing_is_stored(
    filled: SampleStore, command: str, table: str, act: Callable[[SampleStore], object]
) -> None:
    keep_rows(filled, command, table)
    before = filled.stats()
    with pytest.raises(InconsistentDatabase, match=r"were found again when .*db check"):
        act(filled)
    assert filled.stats() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "act"),
    [
        ("top_score", lambda store: store.sample(4, pct_argmax=0.5)),
        (
            "base_score",
            lambda store: store.score(lambda samples: [-x for x in score(samples)], only="all"),
        ),
    ],
)
def test_a_loop_over_chunks_that_makes_no_progress_is_an_error(
    filled: SampleStore, column: str, act: Callable[[SampleStore], object]
) -> None:
    keep_rows(filled, f"UPDATE OF {column}", "buffers")
    with pytest.raises(InconsistentDatabase, match="makes no progress"):
        act(filled)


# -- a pooler, as it is recognised -----------------------------------------------------------------


def test_behind_a_pooler_nothing_is_left_in_a_session(
    postgresql_url: str, expected: list[Any]
) -> None:
    """A pooler names a process of its own; what a transaction needs is set in it, and no statement
    is prepared.
    """
    name = sa.make_url(postgresql_url).database
    server_execute(postgresql_url, f"ALTER DATABASE {name} SET extra_float_digits = 0")
    with proxy_before(postgresql_url, renames=True) as proxy, open_store(proxy.url) as store:
        assert everything(store) == expected
        for _ in range(8):
            len(store)
        for kind in ("reader", "writer"):
            driver = inside.engine_of(store, kind).raw_connection()
            cursor = driver.cursor()
            assert cursor.execute("SHOW extra_float_digits").fetchone() == ("0",)
            assert cursor.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
            driver.close()


# -- SQL that is not ours --------------------------------------------------------------------------


def ask(url: str, sql: str, role: str | None = None) -> list[Any]:
    with query.ask(url, sql, role=role) as answer:
        return list(answer.rows)


POWERS = [
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
    "pg_signal_backend",
]


def test_a_superuser_runs_no_sql_of_others_but_as_another_role(postgresql_url: str) -> None:
    open_store(postgresql_url).close()
    with pytest.raises(
        InvalidArgument,
        match=r"'postgres' is a superuser.*with --role R; `sqlbuffer db grants --reader R`",
    ):
        ask(postgresql_url, "SELECT 1")
    assert ask(postgresql_url, "SELECT current_user", "pg_read_all_data") == [("pg_read_all_data",)]
    for role, words in (
        ("postgres", "superuser"),
        ("pg_signal_backend", "reaches the server"),
        ('no"body', "does not exist"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            ask(postgresql_url, "SELECT 1", role)


@pytest.mark.empty_database
@pytest.mark.parametrize("power", POWERS)
def test_a_role_that_reaches_the_server_runs_no_sql_of_others(
    role: Callable[..., str], power: str
) -> None:
    url = role(attributes=f"NOINHERIT IN ROLE {power}, pg_read_all_data")
    with open_store(url, weighting="uniform") as store:
        store.record(["a", "b"], [1.0, 2.0])
        with pytest.raises(InvalidArgument, match=f"is a member of {power}"):
            ask(url, "SELECT 1")
        assert ask(url, "SELECT count(*) FROM samples", "pg_read_all_data") == [(2,)]
        assert list(store.labelled_rows(where="reward > 1")) == ["b"]


def test_text_is_not_executed_by_a_function_that_a_scan_does_not_know(
    postgresql_url: str, tmp_path: Any
) -> None:
    """As tablefunc's `crosstab` does, in the transaction that only reads."""
    execute = functools.partial(server_execute, postgresql_url)
    execute(
        "CREATE FUNCTION public.run_text(sql text) RETURNS text LANGUAGE plpgsql STABLE AS "
        "$$ DECLARE found text; BEGIN EXECUTE sql INTO found; RETURN found; END $$"
    )
    execute("SELECT lo_from_bytea(4711, 'x')")
    with open_store(postgresql_url) as store:
        store.record(["a"], [1.0])
        written = tmp_path / "written"
        tmp_path.chmod(0o777)
        evil = f"public.run_text('SELECT lo_exp' || 'ort(4711, ''{written}'')')"
        for role in (None, "pg_read_all_data"):
            with pytest.raises(InvalidArgument):
                ask(postgresql_url, f"SELECT {evil}", role)
        with pytest.raises(InvalidArgument, match=r"run_text\(\) may do more than read"):
            store.labelled_rows(where=f"{evil} IS NULL")
        for where in ("pg_sleep(0) IS NULL", "source IN (SELECT pg_read_file('/etc/hostname'))"):
            with pytest.raises(InvalidArgument):
                store.labelled_rows(where=where)
        assert not written.exists()


def test_a_condition_in_text_can_do_no_more_than_read_on_sqlite(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        store.record(["a"], [1.0])
        for where in (
            "id IN (SELECT busy FROM pragma_wal_checkpoint('TRUNCATE'))",
            "load_extension('x') IS NULL",
            "fts3_tokenizer('simple') IS NULL",
        ):
            with pytest.raises(
                InvalidArgument, match=r"not authorized|no such|prohibited|there is no table '\w+'$"
            ):
                store.labelled_rows(where=where)
        assert list(store.labelled_rows(where="reward = 1 AND lower(source) = ''")) == ["a"]
        assert store.add(["b"]).added == 1
    with pytest.raises(InvalidArgument, match="no roles"):
        ask(sqlite_url, "SELECT 1", "reader")
