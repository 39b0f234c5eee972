"""Databases as older releases have left them: refused, brought up to date, and gone on with.

`frozen/freeze.py` makes them, and each stays for good.
"""

import contextlib
import os
import pathlib
import sqlite3
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
import torch
from alembic import command
from alembic.config import Config

from helpers import inside
from helpers.commands import refused, run
from helpers.direct import sql_runner
from helpers.servers import client_programs, new_database, server_execute, url_of_database
from sqlbuffer import PredictiveAgent
from sqlbuffer.db.database import Database
from sqlbuffer.db.migrate import migrations_folder
from sqlbuffer.db.schema import REVISION
from sqlbuffer.errors import SchemaTooOld
from sqlbuffer.store import SampleStore, open_store

pytestmark = pytest.mark.slow

FOLDER = pathlib.Path(__file__).parents[1] / "frozen"
FILES = sorted(FOLDER.glob("*.sql"))


def test_every_older_revision_is_frozen_for_both_databases() -> None:
    revisions = sorted(
        file.name[:4] for file in (FOLDER.parent.parent / "migrations" / "versions").glob("0*.py")
    )
    wanted = [
        f"{revision}.{kind}.sql" for revision in revisions[:-1] for kind in ("postgresql", "sqlite")
    ]
    assert [file.name for file in FILES if file.name[:4] != revisions[-1]] == wanted


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[str]:
    """A database of each kind and revision."""
    statements = request.param.read_text()
    if request.param.stem.endswith("sqlite"):
        file = tmp_path / "frozen.db"
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.executescript(statements)
        yield f"sqlite:///{file}"
        return
    server_url = request.getfixturevalue("server_url")
    address = new_database(server_url)
    with psycopg.connect(address, autocommit=True) as session:
        session.execute(statements.encode())
    yield address
    server_execute(server_url, f"DROP DATABASE {sa.make_url(address).database} WITH (FORCE)")


class Rows:
    """What SQL sees."""

    def __init__(self, url: str) -> None:
        self.execute = sql_runner(url)
        self.prefix = "" if url.startswith("sqlite") else "sqlbuffer."

    def __call__(self, columns: str, table: str, rest: str = "") -> list[tuple[Any, ...]]:
        found = self.execute(f"SELECT {columns} FROM {self.prefix}{table} {rest}")
        return [
            tuple(bytes(cell) if isinstance(cell, memoryview) else cell for cell in row)
            for row in found
        ]

    def content(self) -> dict[str, Any]:
        """All that no upgrade may change."""
        return {
            "samples": self(
                "id, buffer_id, hash, text, payload, codec, source, score, reward",
                "samples",
                "ORDER BY id",
            ),
            "batches": self(
                "id, iteration, size, settled_at, released_at", "batches", "ORDER BY id"
            ),
            "draws": self(
                "batch_id, position, sample_id, race_key, weight", "draws", "ORDER BY 1, 2"
            ),
            "pool": self("buffer_id, race_key, sample_id, weight", "pool", "ORDER BY 1, 2, 3"),
            "predictors": self(
                "buffer_id, version, state, rows_trained", "predictors", "ORDER BY 1, 2"
            ),
            "checkpoints": self(
                "buffer_id, name, iteration, data", "checkpoints", "ORDER BY 1, 2, 3"
            ),
            "metrics": self("buffer_id, iteration, name, value", "metrics", "ORDER BY 1, 2, 3"),
            "jobs": self("buffer_id, name, last_error", "jobs", "ORDER BY 1, 2"),
        }


def upgrade(url: str) -> None:
    with contextlib.closing(Database(url, any_revision=True)) as database:
        database.upgrade()


def is_of_this_release(url: str) -> bool:
    return Rows(url)("version_num", "sqlbuffer_version") == [(REVISION,)]


def test_an_older_database_is_refused_with_the_command_and_left_alone(url: str) -> None:
    if is_of_this_release(url):
        return
    before = Rows(url).content()
    with pytest.raises(SchemaTooOld, match=r"db backup`, then run `sqlbuffer db upgrade --url "):
        open_store(url, name="new")
    assert "sqlbuffer db upgrade" in refused(run("stats", url=url))
    assert Rows(url).content() == before
    assert not is_of_this_release(url)


@pytest.mark.parametrize("url", FILES[:2], ids=lambda file: file.stem, indirect=True)
def test_an_older_database_is_backed_up_as_it_is(
    url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "old.backup"
    if not url.startswith("sqlite"):
        programs = client_programs(server_execute(url, "SHOW server_version")[0][0])
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    done = run("db", "backup", str(file), url=url)
    assert done.code == 0, done
    if url.startswith("sqlite"):
        assert Rows(f"sqlite:///{file}").content() == Rows(url).content()
    assert not is_of_this_release(url)


def test_an_upgrade_keeps_all_that_is_stored(url: str) -> None:
    before = Rows(url).content()
    for _ in range(2):
        done = run("db", "upgrade", url=url)
        assert done.code == 0, done
    assert is_of_this_release(url)
    assert Rows(url).content() == before
    checked = run("db", "check", url=url)
    assert checked.code == 0, checked
    sound = [f"{name}: sound" for (name,) in Rows(url)("name", "buffers", "ORDER BY id")]
    assert checked.out.splitlines()[-len(sound) :] == sound


def test_rewards_of_older_releases_are_measurements_of_the_first_objective(url: str) -> None:
    rows = Rows(url)
    if rows("version_num", "sqlbuffer_version") >= [("0006",)]:
        return  # it has measurements of its own
    upgrade(url)
    stored = rows("id, reward, error", "samples", "WHERE rewarded_at IS NOT NULL ORDER BY id")
    assert {error for _, reward, error in stored if reward is None} == {"the reward is NaN"}
    kept = rows("sample_id, reward, error, objective", "measurements", "ORDER BY sample_id")
    assert kept == [(*row, "reward") for row in stored]
    of_batches = "JOIN draws AS d ON d.batch_id = m.batch_id AND d.sample_id = m.sample_id"
    if rows.prefix:
        of_batches = of_batches.replace("draws", "sqlbuffer.draws")
    drawn = rows("m.sample_id", "measurements AS m", of_batches)
    (with_batch,) = rows("count(*)", "measurements", "WHERE batch_id IS NOT NULL")
    assert len(drawn) == with_batch[0] > 0


@pytest.fixture(scope="module")
def new_shapes(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: bytes, server_url: str, template: str
) -> dict[str, Any]:
    """The shape of a new database of each kind."""
    file = tmp_path_factory.mktemp("new") / "new.db"
    file.write_bytes(sqlite_template)
    new = {"sqlite": f"sqlite:///{file}", "postgresql": url_of_database(server_url, template)}
    return {kind: shape(url) for kind, url in new.items()}


def test_an_upgraded_schema_is_that_of_a_new_database(url: str, new_shapes: dict[str, Any]) -> None:
    upgrade(url)
    assert shape(url) == new_shapes[sa.make_url(url).drivername]


def shape(url: str) -> Any:
    """Tables, columns, indexes, constraints and views."""
    is_file = url.startswith("sqlite")
    engine = sa.create_engine(
        url if is_file else sa.make_url(url).set(drivername="postgresql+psycopg")
    )
    schema = None if is_file else "sqlbuffer"
    inspector = sa.inspect(engine)
    told: dict[str, Any] = {}
    for table in inspector.get_table_names(schema=schema):
        where = {"table_name": table, "schema": schema}
        columns = inspector.get_columns(**where)
        foreign, indexes = inspector.get_foreign_keys(**where), inspector.get_indexes(**where)
        told[table] = {
            "columns": sorted(
                (each["name"], str(each["type"]), each["nullable"]) for each in columns
            ),
            "indexes": sorted(
                (each["name"], each["unique"], each["column_names"]) for each in indexes
            ),
            "key": inspector.get_pk_constraint(**where)["constrained_columns"],
            "unique": sorted(
                each["column_names"] for each in inspector.get_unique_constraints(**where)
            ),
            "foreign": sorted(
                (each["constrained_columns"], each["referred_table"]) for each in foreign
            ),
        }
    told["views"] = {
        view: [each["name"] for each in inspector.get_columns(view, schema=schema)]
        for view in inspector.get_view_names(schema=schema)
    }
    engine.dispose()
    return told


def agent() -> PredictiveAgent:
    """What made the frozen predictors."""
    return PredictiveAgent(
        torch.nn.Linear(1, 1),
        torch.nn.functional.mse_loss,
        lambda samples: torch.tensor([[float(len(str(sample)))] for sample in samples]),
    )


def opened(url: str) -> Iterator[SampleStore]:
    """Every buffer, with the settings it is stored with."""
    for name, mode, seed, kind in Rows(url)("name, mode, seed, kind", "buffers", "ORDER BY id"):
        with open_store(url, name=name, mode=mode, seed=int(seed), weighting=kind) as store:
            yield store


def test_an_upgraded_run_is_read(url: str) -> None:
    upgrade(url)
    rows = Rows(url)
    for store in opened(url):
        assert store.check() == []
        stats, ours = store.stats(), f"WHERE buffer_id = {inside.buffer_id(store)}"
        assert rows("count(*)", "samples", ours) == [(stats.stored,)]
        assert rows("count(*)", "samples", f"{ours} AND reward IS NOT NULL") == [(stats.measured,)]
        assert len(store.waiting().samples) == len(store)
        samples, rewards = store.labelled()
        assert (len(samples), np.isfinite(rewards).all()) == (stats.measured, True)
        assert store.direction == "maximize"
        assert store.top(1)[0]["reward"] == store.stats().best_reward == max(rewards)
        assert store.load_predictor(agent()) == store.predictors()[-1].version
        assert {row["name"] for row in store.history()} == {"loss"}
        assert len(store.jobs()) == len(rows("name", "jobs", ours))
        (name, iteration), *_ = rows("name, iteration", "checkpoints", ours)
        found = store.checkpoint(name)
        assert found is not None
        assert found[0] == iteration
        with store.copy(f"{store.name} copied") as copied:
            assert (len(copied) >= len(store), copied.check()) == (True, [])
    assert (
        run("jobs", url=url).code
        == run("workers", url=url).code
        == run("claims", "list", url=url).code
        == 0
    )


def test_an_upgraded_run_goes_on(url: str) -> None:
    """With the claims that its processes had; the next draws are those that the older release would
    have made.
    """
    upgrade(url)
    claims = {
        number
        for (number,) in Rows(url)(
            "id", "batches", "WHERE settled_at IS NULL AND released_at IS NULL"
        )
    }
    assert claims, "a batch was out"
    for store in opened(url):
        if left := open_batches(url, store):
            assert (
                run("claims", "release", "--name", store.name, *map(str, left), url=url).code == 0
            )
        assert store.stats().claimed == 0
        assert store.check() == []
        store.score(lambda samples: np.array([float(len(str(sample))) for sample in samples]))
        ours = f"WHERE buffer_id = {inside.buffer_id(store)}"
        first = [
            number
            for (number,) in Rows(url)(
                "sample_id", "pool", f"{ours} AND weight > 0 ORDER BY race_key LIMIT 6"
            )
        ]
        before = store.iteration
        for expected in (first[:3], first[3:] if inside.handle_of(store).consumes else None):
            with store.sample(3) as batch:
                assert expected is None or batch.ids.tolist() == expected
                batch.settle([1.0, 2.0, 3.0])
        assert store.iteration == before + 2
        assert store.add(["new", *batch.samples]).added == 1
        assert store.score(lambda samples: np.ones(len(samples)), only="all") == len(store)
        with store.leased("retrain") as lease:
            assert lease is not None
            version = store.save_predictor(b"", rows_trained=1, lease=lease)
        assert version > store.predictors()[0].version
        store.sample(4, pct_argmax=0.5).release()
        store.sample(-1).settle()
        assert store.check() == []


def open_batches(url: str, store: SampleStore) -> list[int]:
    """The batches of a buffer that are out: those of another host's dead workers may still be."""
    ours = (
        f"WHERE buffer_id = {inside.buffer_id(store)} AND settled_at IS NULL AND released_at IS "
        f"NULL"
    )
    return [number for (number,) in Rows(url)("id", "batches", ours)]


def test_what_freezes_a_release_runs_with_this_one(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next revision will need it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "freeze", raising=False)
    import freeze

    freeze.run(store_url)
    for store in opened(store_url):
        assert (store.check(), store.stats().claimed) == ([], 4)
    monkeypatch.delitem(sys.modules, "freeze")


# -- down and up again -----------------------------------------------------------------------------


def downgrade(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    address = (
        url if url.startswith("sqlite") else sa.make_url(url).set(drivername="postgresql+psycopg")
    )
    engine = sa.create_engine(address)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    engine.dispose()


def test_down_to_0005_and_up_again_loses_only_what_0005_cannot_hold(store_url: str) -> None:
    """Of measurements the rewards stay, of failures that they were; the run goes on."""
    names = [f"s{i}" for i in range(30)]
    with open_store(store_url, direction="minimize", budget=25, max_attempts=2) as store:
        store.add(names, source="gen", meta={"round": 1})
        store.score(lambda samples: [float(sample[1:]) for sample in samples])
        batch = store.sample(8, pct_argmax=0.25)
        batch.settle([1.0, 2.0, None, *[3.0] * 5], details=[{"pose": 1}, *[None] * 7])
        partly = store.sample(4)
        partly.report(partly.ids[:2], [4.0, None], errors=[None, "crashed"])
        partly.release()
        store.record(["known"], [0.5])
        store.remove([int(store.waiting().ids[0])])
        store.remeasure("affinity", where="reward < 3")
        store.sample(2).settle([7.0, None])
        store.forget([int(store.waiting().ids[-1])])
        waiting, leased = store.waiting().samples, store.sample(2, lease_s=600)
        leased.detach()
        measured = store.rewards_of([*names, "known"])
        failed = sorted(it["sample"] for it in store.failed())
        store.save_predictor(b"", rows_trained=3)
        store.log_metrics(0, {"loss": 0.5})
        store.save_checkpoints({"loop": b"state"}, iteration=1)
    rows, before = Rows(store_url), Rows(store_url).content()
    shaped = shape(store_url)
    downgrade(store_url, "0005")
    assert rows("version_num", "sqlbuffer_version") == [("0005",)]
    assert rows.content() == before
    with pytest.raises(SchemaTooOld):
        open_store(store_url)
    rows.execute(f"UPDATE {rows.prefix}workers SET heartbeat_at = '2026-01-01 00:00:00'")
    upgrade(store_url)
    assert shape(store_url) == shaped
    assert rows.content() == before
    with open_store(store_url) as store:
        assert store.check() == []
        assert (store.direction, store.objective) == ("maximize", "reward")
        assert run("claims", "release", str(leased.id), url=store_url).code == 0
        assert sorted(store.waiting().samples) == sorted(waiting)
        assert store.rewards_of([*names, "known"]) == pytest.approx(measured, nan_ok=True)
        assert {it["sample"]: it["error"] for it in store.failed()} == dict.fromkeys(
            failed, "the reward is NaN"
        )
        assert store.retry() == len(failed)
        store.sample(5).settle([1.0] * 5)
        assert store.check() == []
