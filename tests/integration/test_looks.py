"""What a look costs the database: those who work share its processors."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa

from helpers import inside
from sqlbuffer.looks.opening import handles, open_existing
from sqlbuffer.store import open_store


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
