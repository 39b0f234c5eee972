"""A copy of a buffer in another database, in each direction: it is what the original is, and goes
on as the original does.
"""

import json
import pathlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold, wait_for_disposal
from helpers.lives import contents, live
from helpers.recycling import Recycled
from helpers.samples import scores_of
from sqlbuffer.core.attach import attach_existing
from sqlbuffer.db.backends.types import Json
from sqlbuffer.db.database import Database
from sqlbuffer.db.queries.buffers import UNFINISHED
from sqlbuffer.db.schema import buffers, measurements, samples
from sqlbuffer.errors import BufferNotFound, InconsistentDatabase, InvalidArgument, SchemaMismatch
from sqlbuffer.maintenance import rows, transfer
from sqlbuffer.store import SampleStore, open_store

TARGETS = ["postgresql", "sqlite"]  # by default each copies to the other one


@pytest.fixture(params=TARGETS)
def to_url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[str]:
    """Another database of each kind; the SQLite file is not there yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'other.db'}"
        wait_for_disposal()
        return
    databases: Recycled = request.getfixturevalue("recycled")
    url = databases.take()
    yield url
    wait_for_disposal()
    assert not databases.give_back(url)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 17)


def crowd(url: str) -> None:
    """Let a database have another buffer, so that the numbers of its rows are not the next."""
    with open_store(url, name="crowd", weighting="uniform") as other:
        other.add([f"s{i}" for i in range(0, 90, 2)])
        other.sample(3).settle(np.ones(3))


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "seed"), [("consume", 1), ("replay", 2)])
def test_a_copy_is_what_the_original_is_and_goes_on_as_it_does(
    new_store: Callable[..., SampleStore], to_url: str, mode: str, seed: int
) -> None:
    crowd(to_url)
    store = new_store(
        name="lived", mode=mode, seed=seed, max_size=60, budget=300, evict="oldest", max_attempts=5
    )
    live(store, seed)
    if mode == "consume":  # draws are dropped in one of the two
        store.prune(keep_draws=20)
    held = store.sample(3)
    held.report(held.ids[:1], [1.0])
    with store.copy(to_url=to_url) as copied:
        assert (copied.name, copied.stats().claimed) == ("lived", 0)
        held.release()
        assert copied.check() == store.check() == []
        drawn = live(store, seed + 10, 5)
        assert live(copied, seed + 10, 5) == drawn
        assert copied.check() == []
        ours, theirs = store.stats(), copied.stats()
        assert [getattr(theirs, name) for name in ours.__slots__ if name != "created_at"] == [
            getattr(ours, name) for name in ours.__slots__ if name != "created_at"
        ]
        assert copied.budget_left == store.budget_left


def test_a_round_trip_is_the_identity(
    new_store: Callable[..., SampleStore], store_url: str, to_url: str
) -> None:
    crowd(to_url)
    store = new_store(name="lived", seed=5, key=scores_key, keep_key=True, direction="minimize")
    live(store, 3)
    store.save_predictor(b"\0state", rows_trained=1, metrics={"loss": 1e-9})
    before = contents(store)
    assert all(before.values())
    with store.copy("there", to_url=to_url) as there, there.copy("back", to_url=store_url) as back:
        assert contents(there) == contents(back) == contents(store) == before
        assert (there.direction, back.name) == ("minimize", "back")
        assert there.add(["s1"], requeue=True) == back.add(["s1"], requeue=True)


def test_a_round_trip_changes_no_byte_but_the_order_of_names_in_json(
    sqlite_url: str, postgresql_url: str
) -> None:
    """jsonb sorts names, and writes numbers in full: the same values, another text."""
    value = {"zz": 1.5, "a": [1e22, 1e-7, None], "b": {"y": "\u2603", "x": True}}
    with open_store(sqlite_url, name="lived") as store:
        store.add(["a", 5, (1, "x"), b"\0\xff"], meta=value)
        store.record(["a"], [0.1], details=[value], seconds=[1e-300])
        store.record([5], [float("nan")], errors=["broken"])
        with (
            store.copy("there", to_url=postgresql_url) as there,
            there.copy("back", to_url=sqlite_url) as back,
        ):
            for table in (samples, measurements):
                before, after = raw_rows(store, table), raw_rows(back, table)
                assert len(before) == len(after) > 0
                columns = [column for column in table.c if column.name not in NUMBERS]
                is_json = [isinstance(column.type, Json) for column in columns]
                assert any(is_json)
                for one, other in zip(before, after, strict=True):
                    for a, b, may_differ in zip(one, other, is_json, strict=True):
                        same = json.loads(a) == json.loads(b) if may_differ and a else a == b
                        assert same, (a, b)


NUMBERS = ("id", "buffer_id", "sample_id", "batch_id")


def raw_rows(store: SampleStore, table: sa.Table) -> list[Any]:
    """Return the rows of a buffer as SQLite stores them, without numbers of rows."""
    names = ", ".join(column.name for column in table.c if column.name not in NUMBERS)
    sql = (
        f"SELECT {names} FROM {table.name} WHERE buffer_id = {inside.buffer_id(store)} ORDER BY id"
    )
    with store.connect() as connection:
        return list(connection.exec_driver_sql(sql))


def scores_key(sample: str) -> str:
    return sample


def test_the_copy_is_of_one_moment_while_others_write(
    store: SampleStore, to_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(store, 4)
    before, append = contents(store), transfer._append

    def writing_too(tx: Any, **given: Any) -> None:
        store.add([f"new {given['table'].name} {len(store)}"])
        with store.sample(1) as batch:
            batch.settle([9.0], metrics={"late": 1.0})
        append(tx, **given)

    monkeypatch.setattr(transfer, "_append", writing_too)
    with store.copy(to_url=to_url) as copied:
        assert contents(copied) == before != contents(store)
        assert copied.check() == store.check() == []


def test_samples_of_other_types_and_of_megabytes_travel(
    store: SampleStore, to_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BYTES_AT_ONCE", 300_000)
    given = [np.full((100, 100), i, dtype=np.float64) for i in range(12)] + [(1, "x", b"\0"), 2.5]
    store.add(given)
    with store.copy(to_url=to_url) as copied:
        found = copied.samples_of(copied.waiting().ids)
        for ours, theirs in zip(store.samples_of(store.waiting().ids), found, strict=True):
            np.testing.assert_array_equal(
                np.asarray(ours, dtype=object), np.asarray(theirs, dtype=object)
            )


# -- a copy that did not come to its end -----------------------------------------------------------


class Stop(Exception):
    """Ends a copy as a kill would: nothing is cleaned up."""


def stop_after(monkeypatch: pytest.MonkeyPatch, n: int) -> list[int]:
    """End each copy after it has written n chunks; return a list of the rows of the chunks."""
    written: list[int] = []
    append = transfer._append

    def stopping(tx: Any, *, rows: Any, **given: Any) -> None:
        if len(written) == n:
            raise Stop
        append(tx, rows=rows, **given)
        written.append(len(rows))

    monkeypatch.setattr(transfer, "_append", stopping)
    return written


@pytest.mark.slow
@pytest.mark.parametrize("has_changed", [False, True])
def test_an_unfinished_copy_goes_on_or_begins_again(
    new_store: Callable[..., SampleStore],
    to_url: str,
    monkeypatch: pytest.MonkeyPatch,
    has_changed: bool,
) -> None:
    store = new_store(name="lived")
    live(store, 4)
    with monkeypatch.context() as patch:
        written = stop_after(patch, 7)
        with pytest.raises(Stop):
            store.copy(to_url=to_url)
    if has_changed:
        store.add(["s500"])
    database = Database(to_url)
    with pytest.raises(InvalidArgument, match="did not come to its end"):
        open_store(to_url, name=UNFINISHED + "lived")
    with pytest.raises(InvalidArgument, match="did not come to its end"):
        attach_existing(database, UNFINISHED + "lived")
    database.close()
    n_rows = sum(
        len(each) for name, each in contents(store).items() if name not in ("buffers", "counters")
    )
    with monkeypatch.context() as patch:
        rest = stop_after(patch, 1000)
        with store.copy(to_url=to_url) as copied:
            assert contents(copied) == contents(store)
            assert copied.check() == []
            assert inside.scalars(copied, sa.select(buffers.c.name)) == ["lived"]
    assert sum(rest) == n_rows - (0 if has_changed else sum(written))


def test_a_copy_of_a_buffer_that_changed_without_a_count_begins_again(
    store: SampleStore, to_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(store, 4)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stop):
            store.copy(to_url=to_url)
    inside.execute(store, sa.update(samples).values(source="edited"))
    with store.copy(to_url=to_url) as copied:
        assert contents(copied) == contents(store)


def test_a_difference_is_an_error_and_nothing_stays(
    store: SampleStore, to_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(store, 4)
    append = transfer._append

    def losing(tx: Any, *, table: sa.Table, rows: Any, **given: Any) -> None:
        append(tx, table=table, rows=rows[1:] if table is samples else rows, **given)

    monkeypatch.setattr(transfer, "_append", losing)
    with pytest.raises(InconsistentDatabase, match=r"rows of \d+ in samples"):
        store.copy(to_url=to_url)
    with open_store(to_url, name="other") as other:
        assert inside.scalars(other, sa.select(buffers.c.name)) == ["other"]
        assert inside.scalar(other, sa.select(sa.func.count()).select_from(samples)) == 0


def test_another_process_may_go_on_with_a_copy(
    store: SampleStore, to_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    live(store, 4)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(Stop):
            store.copy(to_url=to_url)
    fill = transfer._fill

    def late(tx: Any, staged: Any, **given: Any) -> Any:
        monkeypatch.setattr(transfer, "_fill", fill)
        store.copy(to_url=to_url).close()
        return fill(tx, staged, **given)

    monkeypatch.setattr(transfer, "_fill", late)
    with pytest.raises(InvalidArgument, match="another process goes on"):
        store.copy(to_url=to_url)
    with open_store(to_url) as copied:
        assert contents(copied) == contents(store)


# -- refusals --------------------------------------------------------------------------------------


def test_the_same_database_is_refused(store: SampleStore, store_url: str) -> None:
    with pytest.raises(InvalidArgument, match="is the database that has"):
        store.copy("new", to_url=store_url)


def test_a_name_that_is_taken_is_refused(store: SampleStore, to_url: str) -> None:
    open_store(to_url).close()
    with pytest.raises(InvalidArgument, match="'default' already exists"):
        store.copy(to_url=to_url)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_what_cannot_be_is_refused(store: SampleStore, tmp_path: pathlib.Path) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    for given in ({"seed": 3}, {"at_iteration": 0}, {"predictors": False}, {"evict": "oldest"}):
        with pytest.raises(
            InvalidArgument, match=f"settings of its original, got {next(iter(given))}"
        ):
            store.copy("new", to_url=url, **given)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="needs a name"):
        store.copy()
    Database(url).close()
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("UPDATE sqlbuffer_version SET version_num = '0006'")
    connection.close()
    with pytest.raises(SchemaMismatch, match="sqlbuffer db upgrade"):
        store.copy(to_url=url)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", ["postgresql://me:secret@host/db", "sqlite:///run.db"])
def test_a_name_that_looks_like_a_url_is_refused_everywhere(
    store: SampleStore, store_url: str, name: str
) -> None:
    attempts: list[Callable[[], Any]] = [
        lambda: store.copy(name),
        lambda: store.rename(name),
        lambda: open_store(store_url, name=name),
        lambda: attach_existing(inside.database_of(store), name),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidArgument, match="--to-url") as raised:
            attempt()
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_a_deleted_buffer_is_not_copied_nor_is_another_of_its_number(
    new_store: Callable[..., SampleStore], tmp_path: pathlib.Path
) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    store = new_store(name="gone")
    new_store(name="gone").delete()
    for _ in range(2):
        with pytest.raises(BufferNotFound, match="it was deleted"):
            store.copy(to_url=url)
        new_store(name="new").add(["x"])


def test_a_copy_of_a_held_batch_draws_it_first(store: SampleStore, to_url: str) -> None:
    store.add([f"s{i}" for i in range(40)])
    store.score(scores_of)
    batch = hold(store.sample(5))
    with store.copy(to_url=to_url) as copied:
        assert hold(copied.sample(5)).samples == batch.samples
