"""The roles of PostgreSQL: what `sqlbuffer db grants` prints suffices, and gives nothing that is
not needed.
"""

import contextlib
import itertools
import pathlib
import secrets
from collections.abc import Callable, Iterator, Sequence

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from helpers.samples import scores_of
from sqlbuffer import open_store, plots
from sqlbuffer.cli.main import app
from sqlbuffer.db.database import Database
from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument, SqlBufferError
from sqlbuffer.looks.sql import ask
from sqlbuffer.store import SampleStore

TEN = [f"s{i}" for i in range(10)]
MANUAL = pathlib.Path(__file__).parents[2] / "docs" / "roles.md"


def execute(url: str, *commands: str) -> None:
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool
    )
    with engine.execution_options(
        isolation_level="AUTOCOMMIT", no_parameters=True
    ).connect() as connection:
        for command in commands:
            connection.exec_driver_sql(command)


def run(*arguments: str) -> list[str]:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result
    return result.stdout.splitlines()


@pytest.fixture
def role_urls(postgresql_url: str) -> Iterator[tuple[str, str]]:
    """A buffer of ten samples, as a reader and as a worker reach it; their names need quotes."""
    reader, worker = (f'{kind} "{secrets.token_hex(4)}' for kind in ("reader", "worker"))
    quoted = ['"{}"'.format(name.replace('"', '""')) for name in (reader, worker)]
    with open_store(postgresql_url) as store:
        store.add(TEN)
        store.score(scores_of)
    execute(postgresql_url, *(f"CREATE ROLE {name} LOGIN" for name in quoted))
    execute(
        postgresql_url,
        *run("db", "grants", "--url", postgresql_url, "--reader", reader, "--worker", worker),
    )
    server = sa.make_url(postgresql_url)
    yield tuple(
        server.set(username=name).render_as_string(hide_password=False) for name in (reader, worker)
    )  # type: ignore[misc]
    execute(postgresql_url, *(f"DROP OWNED BY {name}; DROP ROLE {name}" for name in quoted))


def test_a_worker_may_do_all_that_a_run_does(role_urls: tuple[str, str]) -> None:
    with open_store(role_urls[1], max_size=12) as store:
        store.add([*TEN, "s11", "s12", "s13"], meta={"a": 1})
        store.score(scores_of)
        batch = store.sample(3, pct_argmax=0.5)
        batch.report(batch.ids[:1], [1.0])
        batch.settle([1.0, 2.0, 3.0], metrics={"loss": 1.0}, checkpoint={"x": b"1"})
        store.sample(2).release()
        store.record(["new"], [1.0])
        store.remove(store.waiting().ids[:1].tolist())
        store.save_predictor(b"state", rows_trained=1)
        store.score(scores_of, only="stale", budget=3)
        store.score(scores_of, only="stale")
        store.copy("copied").close()
        store.copy("then", at_iteration=1).close()
        assert store.check() == []
    with open_store(role_urls[1], name="another") as store:
        store.add(TEN)
    run("db", "check", "--repair", "--url", role_urls[1])
    run("claims", "release", "--dead", "--url", role_urls[1])


def test_a_reader_may_look(role_urls: tuple[str, str]) -> None:
    for command in ("stats", "top", "workers", "claims list", "db check", "db version"):
        run(*command.split(), "--url", role_urls[0])
    assert (
        run("sql", "SELECT count(*) FROM sample_overview", "--url", role_urls[0])[-1].strip()
        == "10"
    )


def test_a_reader_reads_no_hashes_of_passwords(
    postgresql_url: str, role_urls: tuple[str, str]
) -> None:
    """As `pg_read_all_data` does, which the manual therefore does not recommend."""

    def read(table: str, role: str | None) -> list[Sequence[object]]:
        with ask(postgresql_url, f"SELECT count(*) FROM {table}", role=role) as found:
            return list(found.rows)

    reader = sa.make_url(role_urls[0]).username
    assert read("samples", reader) == [(10,)]
    with pytest.raises(InvalidArgument, match="permission denied for table pg_authid"):
        read("pg_authid", reader)
    assert read("pg_authid", "pg_read_all_data")


def test_the_first_statement_on_a_server_may_be_a_query(role_urls: tuple[str, str]) -> None:
    """Its cursor needs a transaction, and the question for the server's version comes before."""
    url = sa.make_url(role_urls[0])
    unseen = url.set(port=url.port or 5432)  # the version is known for each address
    with ask(unseen, "SELECT 1 AS one") as found:
        assert list(map(tuple, found.rows)) == [(1,)]


def test_a_reader_may_draw_and_report(role_urls: tuple[str, str], tmp_path: pathlib.Path) -> None:
    with open_store(role_urls[0], read_only=True) as store:
        plots.best(store)
    run("plot", "--kind", "scores", "-o", f"{tmp_path}/x.png", "--url", role_urls[0])
    run("report", "default", "-o", f"{tmp_path}/x.html", "--url", role_urls[0])
    assert "The stored data is sound" in (tmp_path / "x.html").read_text()


WRITES: dict[str, Callable[[SampleStore], object]] = {
    "add": lambda store: store.add(["new"]),
    "score": lambda store: store.score(scores_of, only="all"),
    "sample": lambda store: store.sample(1),
    "record": lambda store: store.record(["new"], [1.0]),
    "remove": lambda store: store.remove([1]),
    "retrain": lambda store: store.save_predictor(b"state", rows_trained=1),
}


def test_a_reader_cannot_write(role_urls: tuple[str, str]) -> None:
    for write in WRITES.values():
        with (
            open_store(role_urls[0]) as store,
            pytest.raises(DatabaseUnavailable, match=r"denied.*grant.*a command that writes needs"),
        ):
            write(store)


TABLES = (
    "buffers samples pool batches draws workers predictors jobs checkpoints metrics receipts"
).split()


def test_a_reader_has_no_right_to_write_in_any_table(role_urls: tuple[str, str]) -> None:
    engine = sa.create_engine(sa.make_url(role_urls[0]).set(drivername="postgresql+psycopg"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table, command in itertools.product(
            [*TABLES, "sqlbuffer_version"],
            [
                "INSERT INTO {} DEFAULT VALUES",
                "DELETE FROM {}",
                "TRUNCATE {}",
                "DROP TABLE {}",
            ],
        ):
            with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"):
                connection.exec_driver_sql(command.format(f"sqlbuffer.{table}"))
    engine.dispose()


def test_a_worker_cannot_change_the_schema(role_urls: tuple[str, str]) -> None:
    for command in (
        "UPDATE sqlbuffer.sqlbuffer_version SET version_num = '0'",
        "DROP TABLE sqlbuffer.pool",
        "CREATE TABLE sqlbuffer.mine (x int)",
        "TRUNCATE sqlbuffer.samples",
    ):
        with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"):
            execute(role_urls[1], command)
    with (
        contextlib.closing(Database(role_urls[1])) as database,
        pytest.raises((SqlBufferError, sa.exc.DBAPIError)),
    ):
        database.write(
            lambda connection: connection.exec_driver_sql("DROP SCHEMA sqlbuffer CASCADE")
        )


def test_the_page_has_what_the_command_prints() -> None:
    printed = run("db", "grants", "--url", "postgresql://ann@server/lab")
    assert "\n".join(printed) in MANUAL.read_text()


@pytest.mark.parametrize("kind", ["reader", "worker"])
def test_the_rights_of_one_role_name_no_other(postgresql_url: str, kind: str) -> None:
    """They can be run where the roles of the defaults do not exist."""
    open_store(postgresql_url).close()
    role = f"only_{kind}_{secrets.token_hex(4)}"
    printed = run("db", "grants", "--url", postgresql_url, f"--{kind}", role)
    execute(postgresql_url, f"CREATE ROLE {role} LOGIN")
    try:
        execute(postgresql_url, *printed)
        url = sa.make_url(postgresql_url).set(username=role)
        with open_store(url, read_only=kind == "reader") as store:
            assert len(store) == 0
    finally:
        execute(postgresql_url, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_role_without_rights_is_told_so(postgresql_url: str) -> None:
    open_store(postgresql_url).close()
    role = f"stranger_{secrets.token_hex(4)}"
    execute(postgresql_url, f"CREATE ROLE {role}")
    try:
        with (
            pytest.raises(InvalidArgument, match=r"that this role may see.*db grants --reader"),
            ask(postgresql_url, "SELECT * FROM sample_overview", role=role),
        ):
            pass
    finally:
        execute(postgresql_url, f"DROP ROLE {role}")


def test_a_file_has_no_roles() -> None:
    result = CliRunner().invoke(app, ["db", "grants", "--url", "sqlite:///x.db"])
    assert (result.exit_code, "rights on the file" in result.stderr) == (1, True)
