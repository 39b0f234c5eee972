"""The schema: what the migrations make is what the code expects, and no other database
is touched.
"""

import ast
import contextlib
import io
import os
import pathlib
import re
import sqlite3
import subprocess
import sys
import threading
from argparse import Namespace
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command as alembic_commands
from alembic.autogenerate import compare_metadata
from alembic.command import downgrade, upgrade
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql

from helpers.cleanup import hold
from helpers.direct import connect
from helpers.forked import forkserver
from helpers.samples import scores_of
from sqlbuffer.db import indexes, schema  # noqa: F401
from sqlbuffer.db.backends import VERSION_TABLE
from sqlbuffer.db.database import Database
from sqlbuffer.db.migrate import migrations_folder
from sqlbuffer.db.views import views
from sqlbuffer.errors import ForeignDatabase, SchemaMismatch, SchemaTooNew, SchemaTooOld
from sqlbuffer.store import open_store

pytestmark = pytest.mark.empty_database

ROOT = pathlib.Path(__file__).parents[2]


def execute(url: str, sql: str) -> list[Any]:
    with connect(url) as connection:
        result = connection.exec_driver_sql(sql)
        return list(result) if result.returns_rows else []


def file_of(url: str) -> pathlib.Path:
    return pathlib.Path(sa.make_url(url).database or "")


# -- the schema is that of the code ----------------------------------------------------------------


def test_migrations_make_what_the_code_expects(store_url: str) -> None:
    open_store(store_url).close()
    with connect(store_url) as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "version_table": VERSION_TABLE,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []


def test_migrations_make_exactly_what_the_metadata_makes_on_sqlite(tmp_path: pathlib.Path) -> None:
    """Also partial indexes, checks and storage, which Alembic does not compare."""
    migrated, created = f"sqlite:///{tmp_path}/migrated.db", f"sqlite:///{tmp_path}/created.db"
    open_store(migrated).close()
    with connect(created) as connection:
        schema.metadata.create_all(connection)
    query = (
        "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL"
    )
    found, expected = (
        {name: normal_sql(sql) for name, sql in execute(url, query)} for url in (migrated, created)
    )
    found.pop(VERSION_TABLE)
    assert found == expected
    assert "WITHOUT ROWID" in found["pool"][-1]
    assert "WITHOUT ROWID" in found["draws"][-1]


def normal_sql(sql: str) -> list[str]:
    """The clauses of a CREATE statement, whatever their order."""
    head, _, body = " ".join(sql.replace("'", "").split()).partition(" (")
    body, _, tail = body.rpartition(")")
    return [head, *sorted(part.strip() for part in re.split(r",(?![^(]*\))", body)), tail.strip()]


CATALOGUE = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'sqlbuffer'::regnamespace AND c.relkind = 'r'
            AND c.relname <> 'sqlbuffer_version'
        ORDER BY 1, 2""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'sqlbuffer' AND tablename <> 'sqlbuffer_version' ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'sqlbuffer'::regnamespace
            AND conrelid::regclass::text <> 'sqlbuffer_version'
        ORDER BY 1, 2""",
    "tables": """
        SELECT relname, obj_description(oid) FROM pg_class
        WHERE relnamespace = 'sqlbuffer'::regnamespace AND relkind = 'r'
              AND relname <> 'sqlbuffer_version'
        ORDER BY 1""",
    "options": """
        SELECT relname, reloptions FROM pg_class
        WHERE relnamespace = 'sqlbuffer'::regnamespace AND relkind IN ('r', 'i')
              AND relname NOT LIKE 'sqlbuffer_version%%'
        ORDER BY 1""",
}


def test_migrations_make_exactly_what_the_metadata_makes_on_postgresql(postgresql_url: str) -> None:
    open_store(postgresql_url).close()
    migrated = {what: execute(postgresql_url, sql) for what, sql in CATALOGUE.items()}
    execute(postgresql_url, "DROP SCHEMA sqlbuffer CASCADE")
    execute(postgresql_url, "CREATE SCHEMA sqlbuffer")
    with connect(postgresql_url) as connection:
        schema.metadata.create_all(connection)
    for what, sql in CATALOGUE.items():
        assert execute(postgresql_url, sql) == migrated[what], what
    assert all(comment for *_, comment in migrated["columns"] + migrated["tables"])


VIEW_COLUMNS = """
    SELECT c.relname, obj_description(c.oid), a.attname, format_type(a.atttypid, a.atttypmod),
           col_description(c.oid, a.attnum)
    FROM pg_class AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = 'sqlbuffer'::regnamespace AND c.relkind = 'v'
    ORDER BY c.relname, a.attnum"""


def test_views_are_those_of_the_code(store_url: str) -> None:
    """Names, order, types and comments: `\\d+` shows them, and SQLite keeps them in the text."""
    open_store(store_url).close()
    if store_url.startswith("postgresql"):
        kinds = postgresql.dialect()
        expected = [
            (name, view.comment, each.name, each.type.compile(kinds).lower(), each.comment)
            for name, view in sorted(views.tables.items())
            for each in view.columns
        ]
        assert execute(store_url, VIEW_COLUMNS) == expected
        return
    texts = dict(execute(store_url, "SELECT name, sql FROM sqlite_master WHERE type = 'view'"))
    assert texts.keys() == views.tables.keys()
    for name, view in views.tables.items():
        found = [row[1] for row in execute(store_url, f"PRAGMA table_info({name})")]
        assert found == view.columns.keys()
        comments = [view.comment, *(column.comment for column in view.columns)]
        assert re.findall(r"-- (.*)", texts[name]) == comments


@pytest.mark.slow
@pytest.mark.parametrize("view", views.tables)
def test_views_of_one_buffer_read_no_table_from_end_to_end(sqlite_url: str, view: str) -> None:
    """Measurements have no index by buffer: one would be written with each reward."""
    open_store(sqlite_url).close()
    sql = f"EXPLAIN QUERY PLAN SELECT * FROM {view} WHERE buffer = 'run' LIMIT 10"
    scans = {row[3] for row in execute(sqlite_url, sql) if row[3].startswith("SCAN")}
    of_open_batches = {each for each in scans if "INDEX ix_batches_open" in each}
    of_workers = {each for each in scans if re.match(r"SCAN (w|workers)\b", each)}
    of_measurements = {"SCAN m"} if view in ("measurement_overview", "failure_overview") else set()
    assert scans <= of_open_batches | of_workers | of_measurements


def test_one_name_means_one_thing_in_all_views() -> None:
    """The same column has the same type everywhere, and a former name says which one it is."""
    columns = [column for view in views.tables.values() for column in view.columns]
    kinds = {(column.name, str(column.type)) for column in columns}
    assert len(kinds) == len({name for name, _ in kinds})
    for column in columns:
        former = re.match(r"Same as (\w+); accepted until", column.comment or "")
        assert (column.name in {"id", "text", "rewarded_at"}) == bool(former), column
        assert not former or former[1] in column.table.columns


def test_every_column_has_a_comment_and_every_name_is_plain() -> None:
    for table in [*schema.metadata.tables.values(), *views.tables.values()]:
        assert table.comment
        for column in table.columns:
            assert column.comment, column
            assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name), column
        assert re.fullmatch(r"[a-z_]+", table.name)


@pytest.mark.slow
def test_views_answer(store_url: str) -> None:
    with open_store(store_url, name="run") as store:
        store.add(["s1", "s2", "s3", "s4", "s5"], source="g")
        store.score(scores_of)
        store.save_predictor(b"", rows_trained=1)
        store.sample(2).settle([1.0, 3.0])
        store.sample(1).release()
        _held = store.sample(1)
    with connect(store_url) as connection:
        assert set(sa.inspect(connection).get_view_names()) == views.tables.keys()

        def rows(view: str, order: str) -> list[dict[str, Any]]:
            return [
                dict(row)
                for row in connection.exec_driver_sql(
                    f"SELECT * FROM {view} ORDER BY {order}"
                ).mappings()
            ]

        (buffer,) = rows("buffer_overview", "1")
        assert buffer["name" if "name" in buffer else "buffer"] == "run"
        assert 2 in buffer.values(), "waiting"
        samples = rows("sample_overview", "id")
        assert [sample["buffer"] for sample in samples] == ["run"] * 5
        assert sorted(sample["reward"] for sample in samples if sample["reward"] is not None) == [
            1.0,
            3.0,
        ]
        assert [(batch["state"], batch["size"]) for batch in rows("batch_overview", "id")] == [
            *[("settled", 2), ("released", 1), ("open", 1)]
        ]
        assert rows("batch_overview", "id")[0]["mean_reward"] == 2.0
        draws = rows("draw_overview", "batch_id, position")
        assert [draw["iteration"] for draw in draws] == [0, 0, 1, 1]
        assert draws[2]["text"] == draws[3]["text"], "what was released came again"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_the_state_of_each_sample_is_that_of_the_store(store_url: str, mode: str) -> None:
    """In replay mode a measured sample stays in the pool, and the view calls it measured."""
    with open_store(store_url, mode=mode, weighting="uniform") as store:
        store.add([f"s{i}" for i in range(12)])
        batch = store.sample(4)
        batch.settle([1.0, 2.0, None], ids=batch.ids[:3].tolist())
        store.add(batch.samples[:1], requeue=True)
        store.remove([each for each in store.waiting().ids.tolist() if each not in batch.ids][-2:])
        held = hold(store.sample(3))
        held.report(held.ids[:1].tolist(), [3.0])
        expected = dict.fromkeys((f"s{i}" for i in range(12)), "out")
        expected |= dict.fromkeys(store.labelled()[0], "measured")
        expected |= dict.fromkeys((row["sample"] for row in store.failed()), "failed")
        for sample in store.waiting().samples:
            if mode == "consume" or expected[sample] == "out":
                expected[sample] = "waiting"
        expected |= dict.fromkeys(held.samples[1:], "claimed")
        used = store.stats().measured + store.stats().failed + len(held) - 1
    found = execute(store_url, "SELECT sample, state FROM sample_overview")
    assert dict(found) == expected
    assert set(expected.values()) == {"waiting", "claimed", "measured", "failed", "out"}
    assert execute(store_url, "SELECT budget_used FROM buffer_overview") == [(used,)]


def test_the_revision_is_the_head_and_there_is_one() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.REVISION]


def test_migrations_do_not_depend_on_the_code() -> None:
    files = list((ROOT / "migrations").rglob("*.py"))
    assert len(files) >= 2
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or "."] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("sqlbuffer", "")], file


# -- Alembic's own command -------------------------------------------------------------------------


def alembic(url: str, command: str, *revision: str) -> str:
    """Run a command of Alembic in this process; return what it printed."""
    said = io.StringIO()
    config = Config(ROOT / "alembic.ini", stdout=said, cmd_opts=Namespace(x=[f"url={url}"]))
    getattr(alembic_commands, command)(config, *revision)
    return said.getvalue()


def alembic_program(url: str, *arguments: str, cwd: pathlib.Path) -> str:
    command = [
        sys.executable,
        "-m",
        "alembic",
        "-c",
        str(ROOT / "alembic.ini"),
        "-x",
        f"url={url}",
        *arguments,
    ]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_program_alembic_works_in_any_folder(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    alembic_program(sqlite_url, "upgrade", "head", cwd=tmp_path)
    current = alembic_program(sqlite_url, "current", cwd=tmp_path)
    assert f"{schema.REVISION} (head)" in current


@pytest.mark.slow
def test_alembic_upgrades_and_downgrades(store_url: str) -> None:
    alembic(store_url, "upgrade", "head")
    assert f"{schema.REVISION} (head)" in alembic(store_url, "current")
    with open_store(store_url) as store:
        store.add(["a"])
        assert store.check() == []
    alembic(store_url, "downgrade", "base")
    with connect(store_url) as connection:
        assert set(sa.inspect(connection).get_table_names()) == {VERSION_TABLE}
        assert sa.inspect(connection).get_view_names() == []
    alembic(store_url, "upgrade", "head")
    with open_store(store_url) as store:
        assert len(store) == 0


@pytest.mark.slow
def test_the_best_reward_of_the_view_follows_the_direction_from_0006_on(store_url: str) -> None:
    with open_store(store_url, direction="minimize") as store:
        store.record(["a", "b"], [1.0, 2.0])

    def best() -> Any:
        with connect(store_url) as connection:
            view = sa.text("SELECT * FROM buffer_overview")
            (row,) = connection.execute(view).mappings()
            return row["best_reward"], "direction" in row

    assert best() == (1.0, True)
    alembic(store_url, "downgrade", "0005")
    assert best() == (2.0, False)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("0006", "0007"), ("0008", "0009")])
def test_a_downgrade_restores_the_views_and_comments(
    store_url: str, before: str, after: str
) -> None:
    """In this process: the command of Alembic takes a second to start."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    with connect(store_url) as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("CREATE SCHEMA sqlbuffer")
        config.attributes["connection"] = connection
        upgrade(config, before)
        defined = definitions(connection)
        upgrade(config, after)
        assert definitions(connection) != defined
        downgrade(config, before)
        assert definitions(connection) == defined


def definitions(connection: sa.Connection) -> Any:
    """The views as the database has understood them, and the comments of tables."""
    inspector = sa.inspect(connection)
    views = {
        name: " ".join(inspector.get_view_definition(name).split())
        for name in inspector.get_view_names()
    }
    if connection.dialect.name == "sqlite":
        return views
    columns = {
        (name, column["name"]): column["comment"]
        for name in (*views, *inspector.get_table_names())
        for column in inspector.get_columns(name)
    }
    tables = {name: inspector.get_table_comment(name) for name in inspector.get_table_names()}
    return views, tables, columns


def test_the_number_of_the_buffer_keeps_the_rights_to_views(postgresql_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    rights = sa.text(
        "SELECT table_name, grantee, privilege_type FROM information_schema.role_table_grants "
        "WHERE table_schema = 'sqlbuffer' ORDER BY 1, 2, 3"
    )
    with connect(postgresql_url) as connection:
        connection.exec_driver_sql("CREATE SCHEMA sqlbuffer")
        config.attributes["connection"] = connection
        upgrade(config, "0008")
        connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA sqlbuffer TO public")
        granted = connection.execute(rights).all()
        upgrade(config, "0009")
        assert connection.execute(rights).all() == granted
        assert ("sample_overview", "PUBLIC", "SELECT") in granted


@pytest.mark.slow
def test_a_database_that_was_emptied_is_empty(store_url: str) -> None:
    alembic(store_url, "upgrade", "head")
    alembic(store_url, "downgrade", "base")
    with open_store(store_url) as store:
        assert store.add(["a"]).added == 1


@pytest.mark.slow
def test_alembic_asks_for_a_database() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SQLBUFFER_URL"}
    command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), "current"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode != 0
    assert "-x url=" in done.stderr
    assert "Traceback" not in done.stderr


# -- opening ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_opening_an_empty_database_creates_the_schema(store_url: str) -> None:
    if store_url.startswith("sqlite"):
        assert not file_of(store_url).exists()
    with open_store(store_url) as store:
        assert len(store) == 0
    assert execute(store_url, f"SELECT version_num FROM {VERSION_TABLE}") == [(schema.REVISION,)]
    if store_url.startswith("sqlite"):
        assert execute(store_url, "PRAGMA journal_mode") == [("wal",)]


@pytest.mark.slow
def test_a_file_without_content_is_an_empty_database(sqlite_url: str) -> None:
    file_of(sqlite_url).touch()
    open_store(sqlite_url).close()


def test_without_create_nothing_is_created(store_url: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"no buffer yet.*open_store"):
        Database(store_url, create=False)
    if store_url.startswith("sqlite"):
        assert list(file_of(store_url).parent.iterdir()) == []
    else:
        assert execute(store_url, "SELECT * FROM pg_namespace WHERE nspname = 'sqlbuffer'") == []


def state_of(url: str) -> Any:
    """Every byte of a file and its folder; the rows and objects of a server's database."""
    if url.startswith("sqlite"):
        return {file.name: file.read_bytes() for file in sorted(file_of(url).parent.iterdir())}
    with connect(url) as connection:
        objects = connection.exec_driver_sql(
            "SELECT oid, relname, relfilenode FROM pg_class ORDER BY oid"
        ).all()
        spaces = connection.exec_driver_sql("SELECT nspname FROM pg_namespace ORDER BY 1").all()
        return [objects, spaces]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("revision", "error", "way_out"),
    [
        ("0000", SchemaTooOld, "`sqlbuffer db upgrade --url"),
        ("9999", SchemaTooNew, "`pip install -U sqlbuffer`"),
        ("abcdef", SchemaTooNew, "`pip install -U sqlbuffer`"),
    ],
)
def test_other_revisions_are_refused_and_left_alone(
    store_url: str, revision: str, error: type[Exception], way_out: str
) -> None:
    with open_store(store_url) as store:
        store.add(["a"])
    execute(store_url, f"UPDATE {VERSION_TABLE} SET version_num = '{revision}'")
    before = state_of(store_url)
    for _ in range(2):
        with pytest.raises(error, match=re.escape(way_out)) as caught:
            open_store(store_url, name="another")
    message = str(caught.value)
    assert f"({revision}, " in message
    assert schema.REVISION in message
    assert "***" in message or "@" not in message
    assert state_of(store_url) == before
    assert execute(store_url, f"SELECT version_num FROM {VERSION_TABLE}") == [(revision,)]


@pytest.mark.slow
def test_a_newer_schema_is_not_upgraded_either(store_url: str) -> None:
    open_store(store_url).close()
    execute(store_url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    database = Database(store_url, any_revision=True)
    before = state_of(store_url)
    with pytest.raises(SchemaTooNew):
        database.upgrade()
    database.close()
    if not store_url.startswith("sqlite"):
        assert state_of(store_url) == before
    assert execute(store_url, f"SELECT version_num FROM {VERSION_TABLE}") == [("9999",)]


@pytest.mark.parametrize("journal_mode", ["delete", "wal", "truncate"])
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE notes (text TEXT)",
        "CREATE TABLE samples (id INTEGER)",
        "CREATE TABLE alembic_version (version_num TEXT)",
        f"CREATE TABLE {VERSION_TABLE} (version_num TEXT); CREATE TABLE notes (text TEXT)",
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(
    sqlite_url: str, statement: str, journal_mode: str
) -> None:
    file = file_of(sqlite_url)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.executescript(statement)
        connection.commit()
    before = state_of(sqlite_url)
    for _ in range(2):
        with pytest.raises(
            ForeignDatabase, match=r"holds other tables.*(notes|samples|alembic_version).*empty"
        ) as caught:
            open_store(sqlite_url)
    assert str(file) in str(caught.value)
    assert state_of(sqlite_url) == before
    with contextlib.closing(sqlite3.connect(file)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    assert mode == ("wal" if journal_mode == "wal" else "delete")


def test_a_foreign_file_with_a_view_only_is_left_alone(sqlite_url: str) -> None:
    with contextlib.closing(sqlite3.connect(file_of(sqlite_url))) as connection:
        connection.execute("CREATE VIEW answer AS SELECT 42")
        connection.commit()
    before = state_of(sqlite_url)
    with pytest.raises(ForeignDatabase):
        open_store(sqlite_url)
    assert state_of(sqlite_url) == before


def test_a_foreign_schema_is_refused_and_left_alone(postgresql_url: str) -> None:
    execute(postgresql_url, "CREATE SCHEMA sqlbuffer")
    execute(postgresql_url, "CREATE TABLE sqlbuffer.notes (text TEXT)")
    before = state_of(postgresql_url)
    with pytest.raises(ForeignDatabase, match="notes"):
        open_store(postgresql_url)
    assert state_of(postgresql_url) == before


def test_other_schemas_are_left_alone(postgresql_url: str) -> None:
    execute(postgresql_url, "CREATE TABLE public.samples (id INTEGER)")
    execute(postgresql_url, "CREATE TABLE public.alembic_version (version_num TEXT)")
    execute(postgresql_url, "INSERT INTO public.alembic_version VALUES ('theirs')")
    with open_store(postgresql_url) as store:
        store.add(["a"])
        assert store.check() == []
    assert execute(postgresql_url, "SELECT * FROM public.samples") == []
    assert execute(postgresql_url, "SELECT * FROM public.alembic_version") == [("theirs",)]


def open_and_add(url: str, start: Any, sample: str, added: Any) -> None:
    start.wait()
    with open_store(url, weighting="uniform") as store:
        added.put(store.add([sample]).added)


@pytest.mark.slow
def test_many_processes_that_open_at_once_create_once(store_url: str) -> None:
    processes = forkserver()
    start, added = processes.Barrier(4), processes.Queue()
    opening = [
        processes.Process(target=open_and_add, args=(store_url, start, f"sample {i}", added))
        for i in range(4)
    ]
    for process in opening:
        process.start()
    assert [added.get(timeout=120) for _ in opening] == [1] * 4
    for process in opening:
        process.join(120)
    assert [process.exitcode for process in opening] == [0] * 4
    with open_store(store_url, weighting="uniform") as store:
        assert len(store) == 4
        assert store.check() == []
    assert execute(store_url, "SELECT count(*) FROM buffers") == [(1,)]
    assert execute(store_url, f"SELECT version_num FROM {VERSION_TABLE}") == [(schema.REVISION,)]


@pytest.mark.slow
def test_a_file_that_another_program_is_writing_for_the_first_time_is_waited_for(
    tmp_path: pathlib.Path,
) -> None:
    file = tmp_path / "new.db"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.5, other.close).start()
    with open_store(f"sqlite:///{file}") as store:
        assert store.add(["a"]).added == 1


# -- the wheel -------------------------------------------------------------------------------------


def run(*command: str, cwd: pathlib.Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder into which the wheel was installed, far from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-deps", "-w", str(folder), str(ROOT), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    run(*pip, "install", "--no-deps", "--target", str(target), str(wheel), cwd=folder)
    return target


def check_what_is_shipped(installed: pathlib.Path) -> None:
    package = installed / "sqlbuffer"
    shipped = {
        str(file.relative_to(package / "migrations"))
        for file in (package / "migrations").rglob("*.py")
    }
    assert shipped == {
        str(file.relative_to(ROOT / "migrations")) for file in (ROOT / "migrations").rglob("*.py")
    }
    assert (package / "py.typed").exists()
    assert {path.name.split("-")[0] for path in installed.iterdir()} <= {"sqlbuffer", "bin"}, (
        "nothing else is installed"
    )
    assert not list(package.rglob(".mypy_cache"))


AWAY = """
import pathlib, sys, sqlbuffer
from sqlbuffer.db.migrate import migrations_folder
from sqlbuffer.db.views import views
site = pathlib.Path(sys.argv[2])
assert pathlib.Path(sqlbuffer.__file__).is_relative_to(site), sqlbuffer.__file__
assert migrations_folder().is_relative_to(site), migrations_folder()
with sqlbuffer.open_store(sys.argv[1]) as store:
    store.add(["a", "b"])
    print(len(store), store.check())
"""


@pytest.mark.slow
def test_the_wheel_ships_the_migrations_and_creates_a_database(
    installed: pathlib.Path, sqlite_url: str, tmp_path: pathlib.Path
) -> None:
    """The migrations are those of the checkout, which are tested on PostgreSQL too."""
    check_what_is_shipped(installed)
    environment = {"PYTHONPATH": str(installed)}
    command = (sys.executable, "-m", "sqlbuffer", "db")
    first = run(*command, "upgrade", "--url", sqlite_url, cwd=tmp_path, **environment)
    assert schema.REVISION in first
    assert schema.REVISION in run(
        *command, "version", "--url", sqlite_url, cwd=tmp_path, **environment
    )
    away = run(
        sys.executable,
        "-W",
        "error",
        "-c",
        AWAY,
        sqlite_url,
        str(installed),
        cwd=tmp_path,
        **environment,
    )
    assert away.split() == ["2", "[]"]
