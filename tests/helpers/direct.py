"""SQL on a database, without the library."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import sqlalchemy as sa

from sqlbuffer.db.backends import SCHEMA

Execute: TypeAlias = Callable[[str], list[Any]]


def sql_runner(url: str) -> Execute:
    """Return what runs any SQL."""
    address = sa.make_url(url)
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    engine = sa.create_engine(address, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def execute_sql(sql: str) -> list[Any]:
        with engine.connect() as connection:
            result = connection.execution_options(no_parameters=True).exec_driver_sql(sql)
            return list(result.all()) if result.returns_rows else []

    return execute_sql


@contextlib.contextmanager
def connect(url: str) -> Iterator[sa.Connection]:
    """A connection that is not ours, in whose eyes our tables are those of the default schema."""
    parsed = sa.make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
        parsed = parsed.update_query_dict({"options": f"-csearch_path={SCHEMA}"})
    engine = sa.create_engine(parsed, poolclass=sa.NullPool)
    with engine.begin() as connection:
        yield connection
    engine.dispose()
