"""The command line, on both databases: what it shows, what it refuses, and that looking never
changes anything.
"""

import contextlib
import csv
import io
import json
import math
import os
import pathlib
import re
import runpy
import shlex
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import types
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from rich.console import Console

import sqlbuffer
from helpers import inside
from helpers.cleanup import hold, wait_for_disposal
from helpers.commands import refused, run, unstyled
from helpers.direct import Execute, sql_runner
from helpers.forked import Forked
from helpers.servers import client_programs, new_database, server_execute
from sqlbuffer.cli import output, watch
from sqlbuffer.cli.commands import ENTRIES, unwrapped
from sqlbuffer.cli.main import main
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db.backends import PostgreSQL, SQLite, sqlite_lock, sqlite_sizes
from sqlbuffer.db.backends.backups import dump_postgresql
from sqlbuffer.db.database import Database
from sqlbuffer.db.queries.buffers import UNFINISHED
from sqlbuffer.db.schema import REVISION, buffers, metadata
from sqlbuffer.db.urls import read_url
from sqlbuffer.db.views import views
from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument
from sqlbuffer.looks.sql import ask
from sqlbuffer.looks.story import _scored_by
from sqlbuffer.store import open_store

HOSTILE_TEXT = "\x1b[31mred\x1b[0m [bold]x[/bold] :smile: \u202e\x9b2J\nline"
LONG_TEXT = "C" * 3000
COMMANDS = (
    "db version",
    "db check",
    "stats",
    "stats --name default",
    "top",
    "top --json",
    "stats --json",
)
COMMANDS += (
    "ls",
    "show 1",
    "batches",
    "batches --open",
    "history",
    "predictors",
    "compare default qed",
    "top --where \"source = 'first'\"",
    "workers",
    "workers --json",
    "claims list",
    "claims list --json",
    "jobs",
    "jobs --json",
)


def fill(url: str) -> None:
    """Make two buffers: one with rewards, an open and a settled batch, and one with texts not to be
    trusted.
    """
    with open_store(url) as store:
        store.add([f"s{i}" for i in range(40)], source="first", meta={"round": 1})
        store.score(lambda samples: [float(sample[1:]) / 3 for sample in samples])
        store.sample(4).settle([0.1, 0.2, 1 / 3, None])
        store.sample(3).release()
        store.record(["known"], [12.25])
        store.log_metrics(0, {"rewards": 0.25, "loss": math.nan})
    with open_store(url, name="qed", weighting="uniform", mode="replay") as store:
        store.add([(1, "two"), {"three": 4.5}])
        store.record(
            [HOSTILE_TEXT, LONG_TEXT], [2.0, 1.0], source="[red]hostile[/red]\x1b]0;title\x07"
        )


@pytest.fixture(scope="session")
def filled_file(sqlite_template: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An SQLite file with two buffers: to copy it takes no time, to fill it takes 60 ms."""
    file = tmp_path_factory.mktemp("filled") / "buffer.db"
    file.write_bytes(sqlite_template)
    fill(f"sqlite:///{file}")
    wait_for_disposal()
    assert not file.with_name("buffer.db-wal").exists()
    return file.read_bytes()


@pytest.fixture
def url(store_url: str, request: pytest.FixtureRequest) -> str:
    """A database with two buffers."""
    if store_url.startswith("sqlite"):
        file = pathlib.Path(store_url.removeprefix("sqlite:///"))
        file.write_bytes(request.getfixturevalue("filled_file"))
    else:
        fill(store_url)
    return store_url


@pytest.fixture
def execute(store_url: str) -> Execute:
    """Runs any SQL: the hand of another process."""
    return sql_runner(store_url)


def dump(url: str) -> list[Any]:
    """Return all that a statement could change: every row, every object, settings, roles, locks and
    files.
    """
    if url.startswith("sqlite"):
        file = pathlib.Path(sa.make_url(url).database or "")
        with sqlite3.connect(file) as connection:
            everything = list(connection.iterdump())
            pragmas = ("user_version", "application_id", "journal_mode", "auto_vacuum", "page_size")
            settings = [connection.execute(f"PRAGMA {name}").fetchall() for name in pragmas]
        connection.close()
        return [
            everything,
            settings,
            sorted(p.name for p in file.parent.iterdir() if p.suffix == ".db"),
        ]
    with psycopg.connect(url, autocommit=True) as session:

        def execute(sql: str) -> list[Any]:
            return session.execute(sql).fetchall()

        kept = "nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
        relations = execute(
            "SELECT n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON "
            "n.oid = c.relnamespace "
            f"WHERE {kept} ORDER BY 1, 2"
        )
        rows = [
            execute(f'SELECT t::text FROM "{schema}"."{name}" AS t ORDER BY 1')
            for schema, name, kind in relations
            if kind == "r"
        ]
        sequences = [
            execute(f'SELECT * FROM "{schema}"."{name}"')
            for schema, name, kind in relations
            if kind == "S"
        ]
        catalogues = [
            execute(statement)
            for statement in (
                (
                    f"SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace "
                    f"WHERE {kept} ORDER BY 1"
                ),
                "SELECT rolname, rolsuper, rolcanlogin, rolconfig FROM pg_roles ORDER BY 1",
                "SELECT setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
                "SELECT oid FROM pg_largeobject_metadata ORDER BY 1",
                "SELECT loid, pageno, data FROM pg_largeobject ORDER BY 1, 2",
                "SELECT slot_name FROM pg_replication_slots ORDER BY 1",
                "SELECT gid FROM pg_prepared_xacts ORDER BY 1",
                "SELECT objid FROM pg_locks WHERE locktype = 'advisory' ORDER BY 1",
                "SELECT extname FROM pg_extension ORDER BY 1",
                "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'",
            )
        ]
    return [relations, rows, sequences, catalogues]


# -- the schema ------------------------------------------------------------------------------------


def without_version(out: str) -> str:
    """What a command said, but for the line that tells the version of the database."""
    return "".join(
        line
        for line in out.splitlines(keepends=True)
        if not re.match(r"(SQLite|PostgreSQL) \d", line)
    )


def test_version_of_a_database_that_fits(url: str) -> None:
    result = run("db", "version", url=url)
    assert result.code == 0
    assert without_version(result.out).split() == ["database", "release", REVISION, REVISION]


@pytest.mark.parametrize(
    ("revision", "way_out"), [("0000", "db upgrade"), ("9999", "pip install -U sqlbuffer")]
)
def test_version_of_a_database_that_does_not_fit(
    url: str, execute: Execute, revision: str, way_out: str
) -> None:
    table = "sqlbuffer_version" if url.startswith("sqlite") else "sqlbuffer.sqlbuffer_version"
    execute(f"UPDATE {table} SET version_num = '{revision}'")
    before = dump(url)
    result = run("db", "version", url=url)
    assert without_version(result.out).split() == ["database", "release", revision, REVISION]
    assert way_out in refused(result)
    for command in ("stats", "top", "db check", "sql 'SELECT 1'"):
        assert way_out in refused(run(*shlex.split(command), url=url))
    if revision == "9999":
        assert way_out in refused(run("db", "upgrade", url=url))
    else:
        assert "0000" in refused(run("db", "upgrade", url=url))  # no release has ever had it
    assert dump(url) == before


@pytest.mark.empty_database
def test_upgrade_creates_the_schema_once(store_url: str) -> None:
    first = run("db", "upgrade", url=store_url)
    assert (first.code, first.out.endswith(f": from nothing to {REVISION}\n")) == (0, True)
    again = run("db", "upgrade", url=store_url)
    assert (again.code, again.out.endswith(f" is already at revision {REVISION}\n")) == (0, True)
    assert run("stats", url=store_url).code == 0
    assert without_version(run("db", "check", url=store_url).out) == "no buffers yet\n"


@pytest.mark.empty_database
def test_an_empty_server_is_not_filled_by_looking(postgresql_url: str) -> None:
    for command in ("stats", "top", "db check", "db version", "sql 'SELECT 1'"):
        assert "sqlbuffer db upgrade" in refused(run(*shlex.split(command), url=postgresql_url))
    assert not sql_runner(postgresql_url)("SELECT 1 FROM pg_namespace WHERE nspname = 'sqlbuffer'")


def test_the_database_of_another_program_is_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE birds (name)")
    connection.close()
    before = file.read_bytes()
    for command in (*COMMANDS, "db upgrade", "sql 'SELECT * FROM birds'"):
        assert "birds" in refused(run(*shlex.split(command), url=f"sqlite:///{file}"))
    assert file.read_bytes() == before


def test_a_missing_file_is_not_created(tmp_path: pathlib.Path) -> None:
    for command in (*COMMANDS, "sql 'SELECT 1'"):
        assert "sqlbuffer db upgrade" in refused(
            run(*shlex.split(command), url=f"sqlite:///{tmp_path}/none.db")
        )
    refused(run("db", "upgrade", url=f"sqlite:///{tmp_path}/no/folder/none.db"))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_one_line(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "noise.db"
    file.write_bytes(b"this is not a database at all, whatever its name says" * 100)
    for command in (*COMMANDS, "db upgrade", "sql 'SELECT 1'"):
        assert "not an SQLite database" in refused(
            run(*shlex.split(command), url=f"sqlite:///{file}")
        )


def test_check_finds_nothing_in_sound_buffers_and_says_what_is_wrong(
    url: str, execute: Execute
) -> None:
    assert without_version(run("db", "check", url=url).out) == "default: sound\nqed: sound\n"
    prefix = "" if url.startswith("sqlite") else "sqlbuffer."
    execute(f"UPDATE {prefix}workers SET added = added + 1 WHERE buffer_id = 1 AND id = 'ledger'")
    result = run("db", "check", url=url)
    assert result.code == 1
    assert "default: the counters have" in result.out
    assert result.out.endswith("qed: sound\n")
    assert run("db", "check", "--name", "qed", url=url).code == 0
    assert run("db", "check", "--name", "default", url=url).code == 1


def test_check_mends_and_says_what_it_did(url: str, execute: Execute) -> None:
    prefix = "" if url.startswith("sqlite") else "sqlbuffer."
    execute(f"DELETE FROM {prefix}pool WHERE buffer_id = 1")
    assert run("db", "check", url=url).code == 1
    result = run("db", "check", "--repair", url=url)
    assert (result.code, result.out.endswith("default: sound\nqed: sound\n")) == (0, True), result
    assert re.search(r"default: \d+ samples were put into the pool\.", result.out)
    assert (
        without_version(run("db", "check", "--repair", url=url).out)
        == "default: sound\nqed: sound\n"
    )


@pytest.mark.slow
def test_looking_changes_nothing(url: str, execute: Execute) -> None:
    before = dump(url)
    for command in (
        *COMMANDS,
        "db upgrade",
        "top --by score",
        "sql 'SELECT * FROM sample_overview' --csv",
    ):
        assert run(*shlex.split(command), url=url).code == 0
    assert dump(url) == before


# -- one sample, batches, metrics, two buffers ---------------------------------------------------


def test_ls_lists_the_buffers_with_those_at_work(url: str) -> None:
    with open_store(url, name="qed", weighting="uniform", mode="replay") as store:
        store.add(["now"])
        rows = {row["name"]: row for row in json.loads(run("ls", "--json", url=url).out)}
    assert rows["default"] | {"stored": 41, "waiting": 36, "best_reward": 12.25} == rows["default"]
    assert rows["qed"]["running"] >= 1
    assert list(rows) == ["default", "qed"]


def story(url: str, sample: str, *options: str) -> dict[str, Any]:
    """What `show` says of a sample."""
    shown = json.loads(run("show", sample, "--json", *options, url=url).out)
    assert isinstance(shown, dict)
    return shown


def test_show_tells_the_story_of_a_sample_by_number_hash_and_text(url: str) -> None:
    with open_store(url) as store:
        store.add(["told"], source="third", requeue=True)
        store.score(lambda samples: [1e6] * len(samples))
        store.sample(1, pct_argmax=1.0).release()
        with store.sample(1, pct_argmax=1.0) as batch:
            batch.report(batch.ids, [None], errors=["it boils"], settle=False)
            (number,) = batch.ids
        store.retry([int(number)])
        store.sample(1).settle([2.5], seconds=[1.5], details=[{"pose": 7}])
    told = story(url, "told")
    assert story(url, str(number)) == story(url, told["hash"]) == told
    assert (told["sample"], told["id"], told["reward"]) == ("told", number, 2.5)
    events = [event["event"] for event in told["story"]]
    assert events == [
        *("added", "scored", "drawn", "released", "drawn"),
        *events[5:-2],
        *("measured", "settled"),
    ]
    assert sorted(events[5:-2]) == ["drawn", "failed", "released"]
    details = {event["event"]: event["detail"] for event in told["story"]}
    assert details["failed"] == "it boils"
    assert details["measured"] == 'reward 2.5 in 1.5 s, {"pose": 7}'
    assert told["state"] == "measured"
    assert "it boils" in run("show", "told", url=url).out


def test_show_names_the_predictor_of_a_score(store_url: str) -> None:
    with open_store(store_url) as store:

        def scored() -> str:
            store.mark_stale()
            store.refresh(lambda samples: [1.5] * len(samples))
            return str(story(store_url, "s", "--name", "default")["story"][-1]["detail"])

        store.add(["s"])
        assert re.fullmatch(r"1\.5, score version \d+", scored())
        before = store.stats().score_version
        store.save_predictor(b"state", rows_trained=1)
        trained = store.predictors()[-1].version
        told = re.fullmatch(r"1\.5 by predictor (\d+) \(score version (\d+)\)", scored())
        assert told is not None
        assert (int(told[1]), int(told[2])) == (trained, store.stats().score_version)
        assert trained > before
    words = _scored_by(before, [trained])
    assert words == f"by the untrained predictor (score version {before})"


def test_claims_count_the_rewards_that_a_loop_has_stored(store_url: str) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add([f"s{i}" for i in range(5)])
        batch = store.sample(5)
        batch.report(batch.ids[:1], [1.0])
        batch.report(batch.ids[1:3], [2.0, math.nan], settle=False)
        (row,) = json.loads(run("claims", "list", "--json", url=store_url).out)
        (same,) = json.loads(run("batches", "--json", url=store_url).out)
        assert (row["size"], row["reported"]) == (5, 3)
        assert same["measured"] + same["failed"] == 3
        waiting = run("claims", "release", str(row["batch"]), url=store_url)
        assert waiting.code == 0
        assert store.stats().waiting == 4, "a report has settled one"


def test_show_finds_a_sample_by_its_key(sqlite_url: str) -> None:
    with open_store(sqlite_url, key=str.upper, keep_key=True, weighting="uniform") as store:
        store.add(["cco"])
    assert story(sqlite_url, "CCO")["sample"] == story(sqlite_url, "cco")["sample"] == "cco"


def test_buffers_of_different_directions_are_said_not_to_compare(sqlite_url: str) -> None:
    for name, direction in (("up", "maximize"), ("down", "minimize")):
        open_store(sqlite_url, name=name, direction=direction).close()
    result = run("compare", "up", "down", url=sqlite_url)
    assert result.err == "up is to maximize, down to minimize: their rewards do not compare\n"


@pytest.mark.parametrize(
    "words",
    [
        ("stats", "--name", "LONG"),
        ("show", "LONG"),
        ("sql", "SELECT LONG"),
        ("top", "--where", "LONG > meta.LONG"),
        ("compare", "LONG", "LONG"),
        ("top", "--out", "LONG"),
        ("LONG",),
        ("--LONG",),
        ("stats", "--LONG"),
        ("budget", "LONG"),
        ("measure", "--reward", "LONG"),
        ("import", "LONG"),
    ],
)
def test_no_message_is_as_long_as_what_was_typed(url: str, words: tuple[str, ...]) -> None:
    typed = [word.replace("LONG", "long" * 25_000) for word in words]
    result = run(*typed, url=url)
    assert result.code in (1, 2)
    assert 0 < len(result.err) < 3_000


def test_show_finds_what_digits_and_equal_texts_mean(url: str) -> None:
    with open_store(url, name="texts", weighting="uniform") as store:
        store.add(["99999", (1,), "(1,)"])
    assert story(url, "99999", "--name", "texts")["sample"] == "99999"
    result = run("show", "(1,)", "--name", "texts", "--json", url=url)
    assert "2 samples have this text" in result.err
    assert json.loads(result.out)["sample"] == "(1,)"
    for missing in ("none of them", "0" * 32, "9" * 30):
        result = run("show", missing, url=url)
        assert (result.code, "has no sample" in unstyled(result.err)) == (2, True)


def test_show_tells_of_more_equal_texts_than_it_names(url: str) -> None:
    with open_store(url, name="arrays", weighting="uniform") as store:
        for n, said in ((10, "10 samples have"), (11, "more than 10 samples have")):
            arrays = np.zeros((n, 1000))
            arrays[:, 500] = np.arange(n)
            store.add(list(arrays))
            text = store.to_arrow(["sample"])["sample"][0].as_py()
            result = run("show", text, "--name", "arrays", "--json", url=url)
            assert unstyled(result.err).startswith(f"{said} this text: ")
            assert (result.err.count(", "), ", ...;" in result.err) == (9 + n - 10, n > 10)


def test_batches_are_shown_with_what_was_measured(url: str) -> None:
    rows = json.loads(run("batches", "--json", url=url).out)
    assert [row["state"] for row in rows] == ["released", "settled"]
    assert rows[1] | {"size": 4, "measured": 3, "failed": 1} == rows[1]
    assert rows[1]["mean_reward"] == pytest.approx((0.1 + 0.2 + 1 / 3) / 3)
    assert rows[1]["best_reward"] == 1 / 3
    with open_store(url) as store, store.sample(2, lease_s=60) as batch:
        (row,) = json.loads(run("batches", "--open", "--json", url=url).out)
        assert (row["batch"], row["state"], row["measured"]) == (batch.id, "leased", 0)
        assert len(json.loads(run("batches", "-n", "1", "--json", url=url).out)) == 1
        store.prune(keep_draws=0)
    pruned = json.loads(run("batches", "--json", url=url).out)[-1]
    assert (pruned["size"], pruned["measured"], pruned["mean_reward"]) == (4, None, None)


def test_history_has_a_line_for_each_iteration(url: str) -> None:
    with open_store(url) as store:
        for iteration in range(1, 5):
            store.log_metrics(iteration, {"rewards": iteration / 8})
    rows = list(csv.DictReader(io.StringIO(run("history", "--csv", url=url).out)))
    assert rows[0] == {"iteration": "0", "loss": "", "rewards": "0.25"}
    assert [row["rewards"] for row in rows] == ["0.25", "0.125", "0.25", "0.375", "0.5"]
    assert run("history", "rewards", "-n", "2", url=url).out.split() == (
        "iteration rewards 3 0.375 4 0.5".split()
    )
    result = run("history", "los", url=url)
    assert (result.code, "no metric 'los'" in unstyled(result.err)) == (2, True)


CUT = {
    ("top",): "samples with a reward",
    ("top", "--by", "score"): "samples with a score",
    ("top", "--where", "meta.mw < 3"): "samples with a reward",
    ("top", "--objective", "reward"): "samples with a reward",
    ("failed",): "failed samples",
    ("failed", "--where", "state = 'failed' AND meta.mw < 3"): "failed samples",
    ("batches",): "batches",
    ("batches", "--open"): "open batches",
    ("history",): "iterations",
}


@pytest.mark.slow
def test_a_list_that_is_cut_tells_how_many_there_are(store_url: str) -> None:
    with open_store(store_url) as store:
        store.record([f"m{i}" for i in range(3)], [1.0, 2.0, 3.0], meta={"mw": 2})
        store.record([f"f{i}" for i in range(3)], [math.nan] * 3, errors=["x"] * 3, meta={"mw": 2})
        store.add([f"w{i}" for i in range(3)])
        store.score(lambda samples: [1.0] * len(samples))
        for i in range(3):
            hold(store.sample(1))
            store.log_metrics(i, {"loss": 1.0})
        for words, things in CUT.items():
            for n, told in ((2, f"2 of 3 {things}; -n 3 shows all\n"), (3, "")):
                result = run(*words, "-n", str(n), url=store_url)
                assert (result.code, result.err) == (0, told), (words, n)
        assert run("top", "-n", "2", "--json", url=store_url).err.startswith("2 of 3")
    options = {
        name
        for name, entry in ENTRIES.items()
        for parameter in getattr(entry.load(name), "params", ())
        if "-n" in parameter.opts
    }
    assert options == {words[0] for words in CUT}


def test_two_buffers_side_by_side(url: str) -> None:
    with open_store(url, name="qed", weighting="uniform", mode="replay") as store:
        store.add(["s1", "s2"])
        store.record(["known"], [3.0])
        store.record(["s1"], [math.nan])
    rows = json.loads(run("compare", "default", "qed", "--json", url=url).out)
    values = {row["field"]: (row["default"], row["qed"]) for row in rows}
    assert values["shared_samples"] == (3, 3)
    assert values["shared_measured"] == (1, 1)
    assert values["best_reward"] == (12.25, 3.0)
    assert values["mean_of_top_10"][1] == 2.0
    assert values["measurements"] == (4, 3), "without the failure"
    assert values["common_measurements"] == (3, 3)
    assert values["best_by_then"] == (1 / 3, 3.0)
    assert run("compare", "qed", "qed", url=url).code == 2


def test_top_of_some_rows(url: str) -> None:
    rows = json.loads(run("top", "--where", "source = 'first'", "--json", url=url).out)
    assert [row["reward"] for row in rows] == [1 / 3, 0.2, 0.1]
    result = run("top", "--where", "origin = 'first'", url=url)
    assert (result.code, "where must be a condition" in unstyled(result.err)) == (2, True)
    assert "there is no column 'origin'; columns are sample_id" in " ".join(
        unstyled(result.err).replace("│", " ").split()
    )


# -- files -----------------------------------------------------------------------------------------

READING = ("ls", "stats", "top", "batches", "history", "workers", "failed", "compare default qed")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_every_command_that_reads_writes_files(
    url: str, suffix: str, tmp_path: pathlib.Path
) -> None:
    for command in (*READING, "sql 'SELECT id, text, reward, hash FROM samples ORDER BY id'"):
        file = tmp_path / f"answer{suffix}"
        result = run(*shlex.split(command), "--out", str(file), url=url)
        assert (result.code, result.out, result.err) == (0, "", f"written to {file}\n"), command
        expected = json.loads(run(*shlex.split(command), "--json", url=url).out)
        if suffix == ".json":
            assert json.loads(file.read_text()) == expected
        elif suffix == ".csv":
            assert file.read_text() == run(*shlex.split(command), "--csv", url=url).out
        else:
            table = pq.read_table(file)
            assert table.num_rows == len(expected)
            assert set(table.column_names) == set(expected[0])
            assert not any(pa.types.is_null(field.type) for field in table.schema)
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".part"] == []


def test_a_file_of_another_kind_is_refused(url: str, tmp_path: pathlib.Path) -> None:
    result = run("top", "-o", str(tmp_path / "top.xlsx"), url=url)
    assert (result.code, ".parquet" in unstyled(result.err)) == (2, True)
    result = run("top", "-o", str(tmp_path / "no" / "top.csv"), url=url)
    assert (result.code, "there is no folder" in unstyled(result.err)) == (2, True)


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        ("report default --no-check -o", ".html"),
        ("plot --kind best -o", ".png"),
        ("top -o", ".json"),
        ("db backup", ".backup"),
        ("export", ".csv"),
    ],
)
def test_a_file_may_have_the_longest_name_and_no_longer(
    command: str, ending: str, sqlite_url: str, tmp_path: pathlib.Path
) -> None:
    open_store(sqlite_url).close()
    folder = tmp_path / "out"
    folder.mkdir()
    longest = folder / f"{'x' * (255 - len(ending))}{ending}"
    assert run(*command.split(), str(longest), url=sqlite_url).code == 0
    result = run(*command.split(), str(folder / f"x{longest.name}"), url=sqlite_url)
    assert result.code in (1, 2)
    message = " ".join(unstyled(result.err).replace("│", " ").split())
    assert "has 256 bytes, and file systems take 255" in message or "File name too long" in message
    assert list(folder.iterdir()) == [longest]


def test_tables_show_seconds_to_three_digits(sqlite_url: str) -> None:
    for name in ("a", "b"):
        with open_store(sqlite_url, name=name, direction="minimize") as store:
            store.record(["x"], [math.nan], seconds=[0.123456])
    failed = run("failed", "--name", "a", url=sqlite_url)
    assert "0.123 " in failed.out
    assert json.loads(run("failed", "--name", "a", "--json", url=sqlite_url).out)[0]["seconds"] == (
        0.123456
    )
    compared = run("compare", "a", "b", url=sqlite_url).out
    assert re.search(r"^seconds +0\.123 +0\.123$", compared, re.MULTILINE)
    assert re.search(r"^measurements +0 +0$", compared, re.MULTILINE)


def test_a_database_that_is_missing_at_the_default_place_can_be_named(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "name your database with --url or SQLBUFFER_URL, or create" in refused(run("stats"))
    assert "check the path, or create" in refused(run("stats", "--url", "sqlite:///other.db"))


@pytest.mark.parametrize(
    "command", ["measure --reward builtins:len", "import empty.csv", "worker --agent lab:make"]
)
def test_the_commands_that_write_pass_the_durability_on(
    command: str, sqlite_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sqlbuffer.cli.worker.make_agent", lambda path: object())
    (tmp_path / "empty.csv").write_text("sample\n")
    open_store(sqlite_url).close()
    without_torch = types.SimpleNamespace(Worker=None)
    monkeypatch.setitem(sys.modules, "sqlbuffer.retraining.worker", without_torch)
    opened: list[Any] = []
    init = Database.__init__

    def seen(self: Database, *args: Any, **options: Any) -> None:
        opened.append(options.get("durability"))
        init(self, *args, **options)

    monkeypatch.setattr(Database, "__init__", seen)
    extra = ["--every", "1h"] if command.startswith("worker") else []
    for given in ("full", "normal"):
        run(*command.split(), *extra, "--durability", given, url=sqlite_url)
    assert opened == ["full", "normal"]


@pytest.mark.parametrize("command", ["ls", "stats", "watch"])
def test_the_direction_of_each_buffer_is_shown(command: str, sqlite_url: str) -> None:
    for name, direction in (("up", "maximize"), ("down", "minimize")):
        open_store(sqlite_url, name=name, direction=direction).close()
    lines = run(command, url=sqlite_url).out.splitlines()
    for name, direction in (("up", "maximize"), ("down", "minimize")):
        assert [direction in line.split() for line in lines if name in line.split()] == [True]
    if command != "watch":
        rows = json.loads(run(command, "--json", url=sqlite_url).out)
        assert {row["name"]: row["direction"] for row in rows} == {
            "up": "maximize",
            "down": "minimize",
        }


def test_stats_are_shown_until_ctrl_c(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = iter([None, None])

    def wait(_: float) -> None:
        if next(waits, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr("sqlbuffer.cli.output.time.sleep", wait)
    once = run("watch", "--name", "qed", url=url)
    assert (once.code, once.out.count("the best samples"), list(waits)) == (0, 1, [None, None])
    for words in (("watch",), ("stats", "--watch")):
        waits = iter([None, None])
        result = run(*words, "--name", "qed", url=url, FORCE_COLOR="1", LINES="60", COLUMNS="120")
        assert (result.code, unstyled(result.out).count("the best samples")) == (0, 3)
        assert "waiting" in result.out


def test_a_glance_at_several_buffers(url: str) -> None:
    assert "qed" in run("watch", url=url).out
    assert "none" in refused(run("watch", "--name", "none", url=url))


@pytest.mark.parametrize(("width", "shown"), [(40, 5), (64, 7), (80, 8), (82, 9)])
def test_a_narrow_glance_at_buffers_keeps_names_and_states(width: int, shown: int) -> None:
    row = dict.fromkeys(watch._SUMMARY, 1) | {"name": "a" * 9, "direction": "minimize"}
    drawn = Console(width=width, file=io.StringIO(), legacy_windows=False)
    drawn.print(watch._buffers([row], width))
    head, line = drawn.file.getvalue().splitlines()[-2:]  # type: ignore[attr-defined]
    names = "name waiting claimed measured failed direction best iteration running".split()
    assert head.split() == names[:shown]
    assert len(line.split()) == shown


def test_a_narrow_glance_cuts_the_longest_text_only() -> None:
    drawn = Console(width=80, file=io.StringIO(), legacy_windows=False)
    row = {"reward": -7.125, "score": -0.5, "source": "mutation", "sample": "CC(=O)N" * 30}
    drawn.print(watch._best([row]))
    head, line = drawn.file.getvalue().splitlines()[-2:]  # type: ignore[attr-defined]
    assert head.split() == ["reward", "score", "source", "sample"]
    assert (line.split()[:3], line[-1]) == (["-7.125", "-0.5", "mutation"], "…")


def test_a_glance_names_the_untrained_predictor(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        store.add([f"s{i}" for i in range(40)])
        store.score(lambda samples: [float(sample[1:]) for sample in samples])
        store.sample(20).settle([float(i) for i in range(20)])
        store.save_predictor(
            b"state", rows_trained=20, rows_held_out=10, metrics={"rank_correlation": 0.5}
        )
    shown = run("watch", url=sqlite_url).out
    assert re.search(r"\buntrained +-?\d", shown)
    assert "-1" not in shown.split()


# -- backups ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_backup_of_an_sqlite_file_opens_as_it_is(
    sqlite_url: str, filled_file: bytes, tmp_path: pathlib.Path
) -> None:
    pathlib.Path(sqlite_url.removeprefix("sqlite:///")).write_bytes(filled_file)
    file = tmp_path / "monday.db"
    with open_store(sqlite_url) as store, store.sample(2) as batch:
        assert run("db", "backup", str(file), url=sqlite_url).code == 0
        batch.settle([1.0, 2.0])
    with open_store(f"sqlite:///{file}") as copied:
        assert (len(copied), copied.stats().measured, copied.check()) == (36, 4, [])
    assert "exists" in refused(run("db", "backup", str(file), url=sqlite_url))
    assert "no folder" in refused(run("db", "backup", f"{tmp_path}/no/x.db", url=sqlite_url))
    assert sorted(each.name for each in tmp_path.glob("*.part")) == []


def test_a_backup_of_postgresql_is_restored_by_pg_restore(
    postgresql_url: str, server_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = client_programs(server_execute(server_url, "SHOW server_version")[0][0])
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    fill(postgresql_url)
    file = tmp_path / "monday.backup"
    result = run("db", "backup", str(file), url=postgresql_url)
    assert result.code == 0, result
    address = new_database(server_url)
    restore = [str(programs / "pg_restore"), "--dbname", address, str(file)]
    subprocess.run(restore, check=True, capture_output=True)
    assert without_version(run("db", "check", url=address).out) == "default: sound\nqed: sound\n"
    server_execute(server_url, f"DROP DATABASE {sa.make_url(address).database} WITH (FORCE)")
    monkeypatch.setenv("PATH", str(tmp_path))
    again = str(tmp_path / "tuesday.backup")
    assert "pg_dump" in refused(run("db", "backup", again, url=postgresql_url))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "pg_dump: error: aborting because of server version mismatch\n"
            "pg_dump: detail: server version: 18.4 (Debian); pg_dump version: 15.20 (Debian)",
            "install the client programs of PostgreSQL 18 or newer, and put their folder first",
        ),
        (
            "pg_dump: error: query failed: ERROR:  permission denied for table jobs\n"
            "pg_dump: detail: Query was: LOCK TABLE sqlbuffer.jobs",
            "permission denied for table jobs: run the backup as the role that ran `sqlbuffer db",
        ),
        (
            'pg_dump: error: failed to get data for sequence "jobs_id_seq"; user may lack SELECT '
            "privilege on the sequence or the sequence may have been concurrently dropped",
            "may lack SELECT privilege: run the backup as the role that ran `sqlbuffer db upgrade`",
        ),
        ("pg_dump: error: disk full.", "pg_dump failed: pg_dump: error: disk full."),
        ("", "pg_dump failed: exit code 1."),
    ],
    ids=["older", "stranger", "reader", "other", "silent"],
)
def test_a_failure_of_pg_dump_names_the_way_out(
    said: str, told: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "pg_dump"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(DatabaseUnavailable) as caught:
        dump_postgresql(sa.make_url("postgresql://ann@server/lab"), tmp_path / "x.backup")
    assert told in str(caught.value)


def test_a_database_without_tables_has_nothing_to_back_up(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty.db").touch()
    done = run("db", "backup", f"{tmp_path}/x.db", url=f"sqlite:///{tmp_path}/empty.db")
    assert "holds no buffer yet" in refused(done)


# -- workers, claims, roles ------------------------------------------------------------------------


def test_workers_are_shown_alive_or_dead(url: str, execute: Execute) -> None:
    prefix = "" if url.startswith("sqlite") else "sqlbuffer."
    with open_store(url) as store:
        batch = store.sample(2)
        (row,) = json.loads(run("workers", "--name", "default", "--json", url=url).out)
        assert (row["state"], row["claims"], row["pid"]) == ("running", 1, os.getpid())
        # On a copied file this process is a new worker, which has added nothing.
        stored = execute(f"SELECT added, drawn FROM {prefix}workers WHERE id = '{worker_id()}'")
        assert (row["added"], row["drawn"]) in [tuple(each) for each in stored]
        assert row["drawn"] >= 2
        execute(f"UPDATE {prefix}workers SET host = 'elsewhere' WHERE id <> 'ledger'")
        assert (
            json.loads(run("workers", "--name", "default", "--json", url=url).out)[0]["state"]
            == "running"
        )
        execute(
            f"UPDATE {prefix}workers SET heartbeat_at = '2020-01-01T00:00:00.000+00:00' "
            f"WHERE id <> 'ledger'"
        )
        assert (
            json.loads(run("workers", "--name", "default", "--json", url=url).out)[0]["state"]
            == "silent"
        )
        assert (
            json.loads(run("claims", "list", "--name", "default", "--json", url=url).out)[0][
                "state"
            ]
            == "silent"
        )
        execute(f"UPDATE {prefix}workers SET pid = 4194305 WHERE id <> 'ledger'")
        assert "died" in run("workers", "--name", "default", "--grace", "0", url=url).out
        batch.settle()
    assert {row["buffer"] for row in json.loads(run("workers", "--json", url=url).out)} == {
        "default",
        "qed",
    }


def test_claims_are_listed_with_host_and_lease(store_url: str) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add(["a", "b"])
        batches = [store.sample(1), store.sample(1, lease_s=600)]
        (_, leased) = rows = json.loads(run("claims", "list", "--json", url=store_url).out)
        (worker,) = json.loads(run("workers", "--json", url=store_url).out)
        assert [(row["worker"], row["host"]) for row in rows] == [
            (worker["worker"], worker["host"])
        ] * 2
        assert [row["lease_until"] is None for row in rows] == [True, False]
        heads, first, second = run("claims", "list", url=store_url).out.splitlines()
        assert re.search(r"worker +host +state +lease_until", heads)
        assert first.split()[3:6] == [socket.gethostname(), "running", "-"]
        assert second.split()[4] == "leased"
        assert leased["lease_until"][:10] in second
        for batch in batches:
            batch.release()


def _released(url: str, *arguments: str) -> str:
    """Run `claims release` in a process of its own: it is not the worker that has the claims."""
    words = ["claims", "release", *arguments, "--url", url]
    return Forked(main, words, pathlib.Path.cwd()).communicate(60)[0]


@pytest.mark.slow
def test_claims_are_listed_and_released(url: str, execute: Execute) -> None:
    with open_store(url) as store:
        batches = [store.sample(3) for _ in range(3)]
        batches[0].report(batches[0].ids[:1], [1.0])
        rows = json.loads(run("claims", "list", "--json", url=url).out)
        assert [(row["batch"], row["size"], row["reported"], row["state"]) for row in rows] == [
            (batch.id, 3, int(i == 0), "running") for i, batch in enumerate(batches)
        ]
        waiting = len(store)
        assert _released(url, "--dead") == "0 released\n"
        assert _released(url, str(batches[0].id), str(batches[2].id)) == "2 released\n"
        assert len(store) == waiting + 5
        batches[1].settle([1.0] * 3)
        assert store.check() == []
        stale = [
            row
            for row in json.loads(run("workers", "--json", url=url).out)
            if row["pid"] != os.getpid()
        ]
        assert stale == []  # the command has signed off
        for wrong in (batches[1].id, batches[2].id, 10_000):
            line = refused(run("claims", "release", str(batches[1].id), str(wrong), url=url))
            assert "is not open: `sqlbuffer claims list`" in line


def test_a_batch_of_another_buffer_is_not_released(url: str) -> None:
    with open_store(url) as store:
        batch = store.sample(3)
        assert "is not open" in refused(
            run("claims", "release", str(batch.id), "--name", "qed", url=url)
        )
        batch.settle()


@pytest.mark.slow
def test_claims_of_dead_workers_are_released(url: str, execute: Execute) -> None:
    prefix = "" if url.startswith("sqlite") else "sqlbuffer."
    with open_store(url) as store:
        _held = store.sample(3)
        execute(f"UPDATE {prefix}workers SET host = 'elsewhere' WHERE id <> 'ledger'")
        execute(
            f"UPDATE {prefix}workers SET heartbeat_at = '2020-01-01T00:00:00.000+00:00' "
            f"WHERE id <> 'ledger'"
        )
        inside.handle_of(store).heartbeat.stop()
        began = time.monotonic()
        words = ["claims", "release", "--dead", "--grace", "1", "--url", url]
        out, errors = Forked(main, words, pathlib.Path.cwd()).communicate(60)
        assert out == "1 released\n"
        assert "1 worker of another host has batches: waiting for heartbeats, at most 1 s" in errors
        assert time.monotonic() - began > 1
    with open_store(url) as store:
        assert store.check() == []


def test_the_storage_is_checked_once_for_all_buffers(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reads the whole file for it."""
    for i in range(5):
        open_store(url, name=f"more {i}").close()
    asked: list[int] = []
    for dialect in (SQLite, PostgreSQL):
        damage = dialect.damage
        monkeypatch.setattr(
            dialect, "damage", lambda *given, damage=damage: asked.append(1) or damage(*given)
        )
    assert run("db", "check", url=url).out.count("sound") == 7
    assert asked == [1]
    with open_store(url) as store:
        assert store.check() == []
    assert asked == [1, 1]


def test_release_needs_batches_or_dead_workers(url: str) -> None:
    for wrong in (["claims", "release"], ["claims", "release", "1", "--dead"]):
        assert run(*wrong, url=url).code == 2


# -- stats and top ---------------------------------------------------------------------------------


def test_sizes_of_tables(url: str) -> None:
    with open_store(url, name="large") as store:
        store.add([f"{'x' * 200} {i}" for i in range(200)])
    found = json.loads(run("stats", "--sizes", "--json", url=url).out)
    assert {row["table"] for row in found} == {table.name for table in metadata.sorted_tables}
    sizes = [row["size_bytes"] for row in found]
    assert sizes == sorted(sizes, reverse=True)  # a database of a former test may have more
    (samples,) = (row for row in found if row["table"] == "samples")
    assert (samples["size_bytes"] > 200 * 200, samples["rows"] > 200) == (True, True)
    shown = run("stats", "--sizes", url=url)
    assert shown.out.splitlines()[0].split() == ["table", "rows", "mb"]
    assert re.search(r"^the (file|database) has [\d,]+\.\d MB", shown.err, re.MULTILINE)
    assert run("stats", "--sizes", "--name", "default", url=url).code == 2


def test_sizes_without_dbstat(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(sqlite_url).close()
    monkeypatch.setattr(sqlite_sizes, "_has_dbstat", lambda connection: False)
    shown = run("stats", "--sizes", url=sqlite_url)
    assert "this SQLite library has no dbstat" in shown.err
    assert {line.split()[-1] for line in shown.out.splitlines()[1:]} == {"-"}


def test_stats_of_all_buffers_and_of_one(url: str) -> None:
    lines = run("stats", url=url).out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "default", "qed"]
    assert lines[1].split() == "default 1 36 0 41 4 1 maximize 12.25".split()
    one = dict(
        line.split(maxsplit=1)
        for line in run("stats", "--name", "default", url=url).out.splitlines()
    )
    assert (one["waiting"], one["best_reward"], one["created_at"][-1:]) == ("36", "12.25", "Z")
    settings = ("direction", "objective", "budget", "max_attempts")
    assert [one[name] for name in settings] == ["maximize", "reward", "-", "3"]
    assert run("budget", "40", url=url).code == 0
    assert json.loads(run("stats", "--name", "default", "--json", url=url).out)["budget"] == 40


def test_stats_as_json(url: str) -> None:
    many = json.loads(run("stats", "--json", url=url).out)
    one = json.loads(run("stats", "--json", "--name", "qed", url=url).out)
    assert [each["name"] for each in many] == ["default", "qed"]
    assert one == many[1]
    assert (one["waiting"], one["mode"], one["kind"]) == (2, "replay", "uniform")


def test_stats_tell_how_stale_the_pool_is(url: str) -> None:
    with open_store(url) as store:
        store.save_predictor(b"", rows_trained=1)
        store.score(lambda samples: [0.0] * len(samples), only="stale", budget=10)
        store.add(["new"])
    lines = [line.split() for line in run("stats", "--stale", url=url).out.splitlines()]
    assert [line[:3] for line in lines[-4:]] == [
        *(["default", "-", "1"], ["default", "0", "26"], ["default", "1", "10"], ["qed", "-", "2"])
    ]
    one = json.loads(run("stats", "--stale", "--json", "--name", "default", url=url).out)
    assert (one["score_version"], one["refreshed_version"]) == (1, 0)
    assert [(row["score_version"], row["waiting"]) for row in one["staleness"]] == [
        (None, 1),
        (0, 26),
        (1, 10),
    ]
    assert one["staleness"][1]["oldest"].endswith("+00:00")
    assert "staleness" not in run("stats", "--name", "default", url=url).out


# -- copy ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_copy(url: str) -> None:
    with open_store(url) as store:
        _held = store.sample(2)
    assert run("copy", "default", "again", url=url).out == "default was copied to again\n"
    words = "copy default other --at-iteration 0 --seed 3 --weighting softmax --mode replay".split()
    assert run(*words, url=url).code == 0
    found = {row["name"]: row for row in json.loads(run("stats", "--json", url=url).out)}
    assert list(found) == ["default", "qed", "again", "other"]
    assert [found["again"][name] for name in ("waiting", "claimed", "measured", "mode")] == [
        36,
        0,
        4,
        "consume",
    ]
    assert [found["other"][name] for name in ("waiting", "iteration", "measured", "mode")] == [
        40,
        0,
        0,
        "replay",
    ]
    assert run("db", "check", url=url).code == 0
    assert {row["buffer"] for row in json.loads(run("workers", "--json", url=url).out)} <= {
        "default",
        "qed",
    }


def test_copy_refuses_a_name_that_is_taken_and_an_iteration_that_was_not(url: str) -> None:
    assert "give the copy another name" in refused(run("copy", "default", "qed", url=url))
    assert "from 0 to 1" in refused(run("copy", "default", "new", "--at-iteration", "2", url=url))
    assert "'default', 'qed'" in refused(run("copy", "none", "new", url=url))
    assert run("copy", "default", "new", "--mode", "eat", url=url).code == 2


@pytest.mark.slow
def test_copy_into_another_database(url: str, tmp_path: pathlib.Path) -> None:
    there = f"sqlite:///{tmp_path / 'there.db'}"
    copied = run("copy", "default", "--to-url", there, "--as", "first", url=url)
    assert copied.out == f"default was copied to first in {there}\n"
    assert run("copy", "qed", "--to-url", there, url=url).code == 0
    ours, theirs = (json.loads(run("ls", "--json", url=each).out) for each in (url, there))
    assert [row["name"] for row in theirs] == ["first", "qed"]
    assert [row["measured"] for row in theirs] == [row["measured"] for row in ours]
    assert run("db", "check", url=there).code == 0
    assert "already exists" in refused(run("copy", "qed", "--to-url", there, url=url))
    assert "--to-url" in refused(run("copy", "default", there, url=url))
    assert "needs a name" in refused(run("copy", "default", url=url))
    assert run("copy", "default", "new", "--to-url", there, url=url).code == 2
    assert run("copy", "default", "--as", "new", url=url).code == 2


def test_an_unfinished_copy_is_named_by_ls_and_deleted_by_rm(url: str) -> None:
    name = f"{UNFINISHED}run"
    with open_store(url, name="run") as store:
        inside.execute(store, sa.update(buffers).where(buffers.c.name == "run").values(name=name))
    listed = run("ls", "--json", url=url)
    assert [row["name"] for row in json.loads(listed.out)] == ["default", "qed"]
    assert f"'{name}' did not come to its end" in listed.err
    assert "did not come to its end" in refused(run("stats", "--name", name, url=url))
    assert run("rm", name, "--yes", url=url).code == 0
    assert run("ls", url=url).err == ""


def test_a_buffer_that_is_not_there_is_one_line(url: str) -> None:
    for command in ("stats", "top", "db check"):
        assert "'default', 'qed'" in refused(run(*command.split(), "--name", "none", url=url))


def test_top_by_reward_and_by_score(url: str) -> None:
    assert [line.split()[0] for line in run("top", url=url).out.splitlines()][:3] == [
        "reward",
        "12.25",
        "0.33333333",
    ]
    best = json.loads(run("top", "-n", "2", "--by", "score", "--json", url=url).out)
    assert [row["sample"] for row in best] == ["s39", "s38"]
    assert (best[0]["score"], best[0]["source"], best[0]["meta"]) == (13.0, "first", {"round": 1})
    assert best[0]["created_at"].endswith("+00:00")
    assert run("top", "--by", "luck", url=url).code == 2
    open_store(url, name="new").close()
    told = run("top", "--name", "new", "--json", url=url)
    assert (told.code, json.loads(told.out)) == (0, [])
    assert "buffer 'new' has a reward: it is empty, and `sqlbuffer import FILE --name" in told.err
    assert run("top", "-n", "0", url=url).code == 2


WAITING = "`sqlbuffer export - --format csv --columns sample --where \"state = 'waiting'\"%s` lists"


def test_top_without_rows_tells_what_waits_and_what_to_do(store_url: str) -> None:
    def told(*words: str) -> str:
        result = run("top", *words, url=store_url)
        assert result.code == 0
        assert len(result.out.splitlines()) == 1, "the names of the columns alone"
        return " ".join(result.err.split())

    with open_store(store_url, weighting="uniform") as store:
        store.add(["a", "b"])
        by_reward, by_score = told(), told("--by", "score")
        assert "2 samples wait for `sqlbuffer measure` or a loop; " in by_reward
        assert "2 samples wait, and the weighting 'uniform' needs no scores; " in by_score
        assert WAITING % "" in by_reward
        assert WAITING % "" in by_score
        store.score(lambda samples: [1.0] * len(samples), only="all")
        assert told().endswith("--by score shows 2 samples with a score")
        listed = run(*shlex.split((WAITING % "").split("`")[1])[1:], url=store_url)
        assert sorted(listed.out.split()) == ["a", "b", "sample"]
        store.remove(store.waiting().ids)
        store.record(["c"], [math.nan])
        assert told().endswith("no sample waits, 1 failed, as `sqlbuffer failed` shows")
        store.remeasure("other")
        assert "has a reward by objective 'other'" in told("--objective", "other")
    with open_store(store_url, name="by score") as store:
        store.add(["a"])
        shown = told("--by", "score", "--name", "by score")
        assert "1 sample waits for `store.score` or `sqlbuffer worker`; " in shown
        assert WAITING % " --name 'by score'" in shown
        assert told("--where", "reward > 1", "--name", "by score") == (
            "no sample of buffer 'by score' has a reward and meets the condition"
        )


def test_top_by_score_tells_which_samples_wait(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add([f"s{i}" for i in range(5)])
        store.score(lambda samples: [float(sample[1:]) for sample in samples])
        id_of = dict(zip(store.waiting().samples, store.waiting().ids.tolist(), strict=True))
        store.record(["s4"], [1.0])
        store.remove([id_of["s3"], id_of["s4"]])
        store.sample(1, pct_argmax=1.0).settle([None])
        hold(store.sample(1, pct_argmax=1.0))
        states = {"s4": "measured", "s3": "out", "s2": "failed", "s1": "claimed", "s0": "waiting"}
        words = ("top", "--by", "score")
        rows = json.loads(run(*words, "--json", url=store_url).out)
        assert {row["sample"]: row["state"] for row in rows} == states
        assert [row["sample"] for row in rows] == list(states)
        assert "state" in run(*words, url=store_url).out.splitlines()[0].split()
        assert "state" in run(*words, "--csv", url=store_url).out.splitlines()[0].split(",")
        left = run(*words, "--where", "state = 'waiting'", "--json", url=store_url)
        assert [row["sample"] for row in json.loads(left.out)] == ["s0"]
        assert [row["sample"] for row in store.top(by="score")] == list(states)
        left_in_python = store.top(by="score", where=("state", "=", "waiting"))
        assert [row["sample"] for row in left_in_python] == ["s0"]
        (best,) = json.loads(run("top", "--objective", "reward", "--json", url=store_url).out)
        assert (best["sample"], best["state"], best["reward"]) == ("s4", "measured", 1.0)


NAMED = {
    ("report", "--name", "qed"): "buffers are named without it, as in `sqlbuffer report NAME`",
    ("compare", "--name", "a", "b"): "named without it, as in `sqlbuffer compare A B`",
    ("rm", "--name", "qed"): "named without it, as in `sqlbuffer rm NAME`",
    ("copy", "--name", "qed"): "named without it, as in `sqlbuffer copy NAME`",
    ("top", "qed"): "a buffer is named by --name, as in `sqlbuffer top --name NAME`",
    ("claims", "list", "x"): "named by --name, as in `sqlbuffer claims list --name NAME`",
    ("ls", "qed"): "Got unexpected extra argument(s) (qed) ╰",
    ("top", "--nam", "qed"): "No such option: --nam",
    ("ls", "--name", "qed"): "No such option: --name (Possible options: --grace)",
}


def test_a_buffer_that_is_named_in_another_way_is_told_how(url: str) -> None:
    for words, message in NAMED.items():
        result = run(*words, url=url)
        said = unstyled(result.err).replace("│", " ").replace("`root", "`sqlbuffer")
        assert (result.code, message in " ".join(said.split())) == (2, True), said


def test_top_needs_none_of_the_users_types(url: str, execute: Execute) -> None:
    prefix = "" if url.startswith("sqlite") else "sqlbuffer."
    execute(f"UPDATE {prefix}samples SET codec = 'os.system' WHERE buffer_id = 2")
    assert (
        json.loads(run("top", "--name", "qed", "--json", url=url).out)[0]["sample"] == HOSTILE_TEXT
    )


# -- output ----------------------------------------------------------------------------------------


def test_pipes_get_everything_and_no_control_characters(url: str) -> None:
    out = run("top", "--name", "qed", url=url).out
    assert LONG_TEXT in out
    assert r"\x1b[31mred\x1b[0m [bold]x[/bold] :smile: \u202e\x9b2J\nline" in out
    assert len(out.splitlines()) == 3
    assert all(line.isprintable() for line in out.splitlines())


def test_terminals_get_short_lines_and_no_control_characters_of_others(url: str) -> None:
    for command in ("top --name qed", "sql 'SELECT text, source FROM samples WHERE buffer_id = 2'"):
        styled = run(*shlex.split(command), url=url, FORCE_COLOR="1", COLUMNS="70").out
        assert "\x1b[1m" in styled  # bold column heads
        assert "\x1b[31m" not in styled
        lines = unstyled(styled).splitlines()
        assert all(len(line) <= 70 and line.isprintable() for line in lines)
        assert any("CCC…" in line for line in lines)
        assert any("[red]hostile" in line for line in lines)


def test_what_is_too_wide_for_a_terminal_is_read_from_top_to_bottom(url: str) -> None:
    sql = (
        "SELECT id, text, source, created_at, scored_at, rewarded_at FROM samples WHERE "
        "buffer_id = 2 ORDER BY id"
    )
    lines = unstyled(run("sql", sql, url=url, FORCE_COLOR="1", COLUMNS="60").out).splitlines()
    assert [line.split()[:1] for line in lines[:8]] == [
        [name] for name in re.findall(r"\w+", sql)[1:7]
    ] + [[], ["id"]]
    assert max(map(len, lines)) == 60


def test_errors_are_red_on_terminals_only(url: str) -> None:
    assert "\x1b[1;31merror" in run("top", "--name", "x", url=url, FORCE_COLOR="1").err
    assert "\x1b" not in run("top", "--name", "x", url=url).err


def test_names_and_sql_cannot_smuggle_control_characters_into_errors(url: str) -> None:
    assert refused(run("top", "--name", "\x1b[2J\n[red]x", url=url)).isprintable()
    assert refused(run("sql", "SELECT \x1b[2J", url=url)).isprintable()
    for text in ("SELECT 1\0; DELETE FROM samples", "SELECT '\ud800'"):
        assert "not text" in refused(run("sql", text, url=url))


@pytest.mark.parametrize(
    ("value", "as_json", "as_cell"),
    [
        (0.1 + 0.2, 0.1 + 0.2, "0.3"),
        (float("nan"), "NaN", "NaN"),
        (float("-inf"), "-Infinity", "-Infinity"),
        (None, None, "-"),
        (True, True, "true"),
        (b"\x00\xff", "00ff", "00ff"),
        ({"a": [1.5, float("inf")]}, {"a": [1.5, "Infinity"]}, '{"a": [1.5, "Infinity"]}'),
        (uuid.UUID(int=1), str(uuid.UUID(int=1)), str(uuid.UUID(int=1))),
    ],
)
def test_values(value: Any, as_json: Any, as_cell: str) -> None:
    assert output.plain(value) == as_json
    assert output.cell(value) == as_cell


# -- any SELECT ------------------------------------------------------------------------------------


def test_the_same_sql_on_both_databases(url: str) -> None:
    result = run(
        "sql",
        "SELECT source, count(*) AS n, max(reward) AS best FROM samples GROUP BY 1 ORDER BY 2",
        url=url,
    )
    assert result.code == 0, result
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0] == ["source", "n", "best"]
    assert lines[-1] == ["first", "40", "0.33333333"]


def test_sql_is_passed_on_as_it_is(url: str) -> None:
    text = (
        "SELECT ':b' AS a, '%s %(x)s 100%' AS b, '{x}' AS c, 'semi;colon' AS \"a.d\", '--' AS e "
        "-- a comment; :f %"
    )
    (row,) = json.loads(run("sql", text + "\n;", "--json", url=url).out)
    assert row == {"a": ":b", "b": "%s %(x)s 100%", "c": "{x}", "a.d": "semi;colon", "e": "--"}
    assert (
        run("sql", "SELECT count(*) FROM samples WHERE text LIKE 's1%'", url=url).out.split()[-1]
        == "11"
    )


def test_sql_as_json_and_csv(url: str) -> None:
    sql = (
        "SELECT reward, 1 AS n, 2 AS n, hash, NULL AS blank, created_at FROM samples "
        "WHERE reward IS NOT NULL AND buffer_id = 1 ORDER BY id"
    )
    rows = json.loads(run("sql", sql, "--json", url=url).out)
    assert list(rows[0]) == ["reward", "n", "n:1", "hash", "blank", "created_at"]
    assert 1 / 3 in [row["reward"] for row in rows]
    table = list(csv.DictReader(io.StringIO(run("sql", sql, "--csv", url=url).out)))
    assert [float(row["reward"]) for row in table] == [row["reward"] for row in rows]
    assert all(row["blank"] == "" and len(row["hash"]) == 32 for row in table)
    assert [row["created_at"] for row in table] == [row["created_at"] for row in rows]
    assert all(row["created_at"].endswith("+00:00") for row in rows)
    assert json.loads(run("sql", "SELECT 1 AS a WHERE 1 = 0", "--json", url=url).out) == []
    assert run("sql", sql, "--json", "--csv", url=url).code == 2


def test_sql_limit(url: str) -> None:
    many = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT "
        "i FROM n ORDER BY i"
    )
    shown = run("sql", many, url=url)
    assert (len(shown.out.splitlines()), "--limit" in shown.err) == (1001, True)
    assert len(run("sql", many, "--limit", "7", url=url).out.splitlines()) == 8
    assert len(json.loads(run("sql", many, "--json", url=url).out)) == 1500
    assert len(json.loads(run("sql", many, "--json", "--limit", "7", url=url).out)) == 7
    for form in ((), ("--json",), ("--csv",)):
        said = run("sql", many, "--limit", "7", *form, url=url).err
        assert unstyled(said) == "the first 7 rows: a larger --limit shows more.\n"
        assert run("sql", many, "--limit", "1500", *form, url=url).err == ""
    endless = many.replace("WHERE i < 1500", "").replace("ORDER BY i", "")
    assert run("sql", endless, "--csv", "--limit", "3", url=url).out == "i\n1\n2\n3\n"


def test_sql_that_the_database_refuses_is_one_line(url: str) -> None:
    assert "rewrd" in refused(run("sql", "SELECT rewrd FROM samples", url=url))
    assert "nowhere" in refused(run("sql", "SELECT * FROM nowhere", url=url))
    for sql in ("SELECT FROM WHERE", "SELECT FROM samples", "", "  ", "/* nothing */", ";"):
        refused(run("sql", sql, url=url))


@pytest.mark.each_database
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT rewrd FROM samples", "'rewrd' (near to it: reward, rewarded_at): "),
        ("SELECT s.Txt FROM samples AS s", "xt' (near to it: text): "),
        ('SELECT "s"."rewrd" FROM sample_overview AS "s"', "'rewrd' (near to it: reward, "),
        ("SELECT state FROM samples", "'state' (near to it: sample_overview.state, "),
        ("SELECT zz FROM samples", "no column 'zz': `sqlbuffer sql --help` and "),
        ("SELECT * FROM sample", "no table 'sample' (near to it: samples): "),
        ("SELECT * FROM sample_view", "'sample_view' (near to it: sample_overview, "),
        ("SELECT * FROM nowhere", "no table 'nowhere': `sqlbuffer sql --help` and "),
    ],
)
def test_sql_with_an_unknown_name_shows_near_names(url: str, sql: str, expected: str) -> None:
    message = refused(run("sql", sql, url=url))
    assert expected in message
    assert "docs/schema.md list all." in message


def test_the_help_of_sql_lists_all_tables_and_views() -> None:
    help_page = run("sql", "--help").out
    listed = set(re.findall(r"\w+", help_page))
    assert {*metadata.tables, *views.tables} <= listed


def test_views_for_people(url: str) -> None:
    for view in views.tables:
        found = json.loads(run("sql", f"SELECT * FROM {view}", "--json", url=url).out)
        assert found or view == "predictor_overview"


# -- hostile SQL -----------------------------------------------------------------------------------

ANYWHERE = [
    "DELETE FROM samples",
    "UPDATE samples SET reward = 1",
    "INSERT INTO buffers (name) VALUES ('x')",
    "DROP TABLE pool",
    "DROP VIEW sample_overview",
    "ALTER TABLE samples ADD COLUMN x integer",
    "CREATE TABLE x (a integer)",
    "CREATE TEMPORARY TABLE x (a integer)",
    "CREATE VIEW x AS SELECT 1",
    "CREATE INDEX x ON samples (text)",
    "SELECT 1; DELETE FROM samples",
    "SELECT 1;; DELETE FROM samples",
    "SELECT 1 /* ; */ ; DELETE FROM samples -- ",
    "COMMIT; DELETE FROM samples; COMMIT",
    "COMMIT",
    "ROLLBACK; DELETE FROM samples",
    "END; DELETE FROM samples",
    "BEGIN; DELETE FROM samples; COMMIT",
    "SAVEPOINT x",
    "WITH x AS (SELECT 1) DELETE FROM samples",
    "WITH gone AS (DELETE FROM samples RETURNING id) SELECT count(*) FROM gone",
    "EXPLAIN ANALYZE DELETE FROM samples",
    "UPDATE sqlbuffer_version SET version_num = '9999'",
    "VACUUM",
    "REINDEX",
    "ANALYZE",
]

ON_SQLITE = [
    *ANYWHERE,
    "PRAGMA query_only = OFF",
    "PRAGMA query_only = OFF; DELETE FROM samples",
    "PRAGMA writable_schema = ON",
    "PRAGMA user_version = 7",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "SELECT * FROM pragma_journal_mode('DELETE')",
    "SELECT * FROM pragma_wal_checkpoint('TRUNCATE')",
    "ATTACH '{folder}/attached.db' AS other",
    "ATTACH 'file:{folder}/buffer.db?mode=rwc' AS again; DELETE FROM again.samples",
    "DETACH main",
    "VACUUM INTO '{folder}/copy.db'",
    "SELECT load_extension('{folder}/evil.so')",
    "SELECT fts3_tokenizer('simple', x'0000000000000000')",
    "SELECT writefile('{folder}/written.db', 'x')",
    "SELECT edit('x', 'touch {folder}/edited.db')",
    "REPLACE INTO buffers (id, name) VALUES (1, 'x')",
    "UPDATE sqlite_master SET sql = ''",
    "DELETE FROM sqlite_schema",
    "CREATE VIRTUAL TABLE x USING fts5(a)",
    "CREATE TRIGGER x AFTER INSERT ON samples BEGIN DELETE FROM pool; END",
    "INSERT INTO temp.sqlite_master VALUES (1, 2, 3, 4, 5)",
    "RELEASE x",
]

FILE = f"{tempfile.gettempdir()}/sqlbuffer-{uuid.uuid4().hex}"

ON_POSTGRESQL = [
    *ANYWHERE,
    "SET TRANSACTION READ WRITE",
    "SET TRANSACTION READ WRITE; DELETE FROM samples",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET default_transaction_read_only = off",
    "RESET ALL",
    "DISCARD ALL",
    "SET ROLE postgres",
    "ALTER SYSTEM SET work_mem = '1MB'",
    "ALTER DATABASE postgres SET work_mem = '1MB'",
    "ALTER ROLE CURRENT_USER SET work_mem = '1MB'",
    "CREATE ROLE intruder SUPERUSER LOGIN",
    "CREATE EXTENSION dblink",
    f"COPY samples TO PROGRAM 'touch {FILE}'",
    f"COPY (SELECT 1) TO '{FILE}'",
    f"COPY samples (text) FROM PROGRAM 'touch {FILE}'",
    "COPY samples TO STDOUT",
    "DO $$ BEGIN DELETE FROM sqlbuffer.samples; COMMIT; END $$",
    "CALL wipe()",
    "LOCK TABLE samples",
    "LOAD 'plpgsql'",
    "LISTEN x",
    "NOTIFY x",
    "PREPARE x AS DELETE FROM samples",
    "EXECUTE x",
    "DECLARE c CURSOR FOR SELECT 1",
    "SECURITY LABEL ON TABLE samples IS 'x'",
    "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM sqlbuffer.samples'",
    "SELECT * INTO stolen FROM samples",
    "SELECT * FROM samples FOR UPDATE",
    "SELECT * FROM pool FOR KEY SHARE",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT set_config('transaction_read_only', 'off', true), wipe()",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1, 2)",
    "SELECT pg_advisory_xact_lock_shared(1)",
    "SELECT pg_advisory_unlock_all()",
    f"SELECT lo_export(lo_from_bytea(0, 'x'), '{FILE}')",
    "SELECT lo_import('/etc/hostname')",
    "SELECT lo_create(0)",
    "SELECT lo_unlink(77)",
    "SELECT lo_put(77, 0, 'x')",
    "SELECT nextval('samples_id_seq')",
    "SELECT setval('samples_id_seq', 1)",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
    "SELECT pg_reload_conf()",
    "SELECT PG_Reload_Conf ()",
    'SELECT "pg_reload_conf"()',
    "SELECT pg_catalog.pg_reload_conf /* /* */ */ ()",
    "SELECT pg_reload_conf -- \n ()",
    'SELECT U&"pg\\005freload\\005fconf"()',
    "SELECT 1 LIMIT pg_reload_conf()::int",
    "SELECT pg_rotate_logfile()",
    "SELECT pg_switch_wal()",
    "SELECT pg_create_restore_point('x')",
    "SELECT pg_create_physical_replication_slot('x', true)",
    "SELECT pg_logical_emit_message(false, 'x', 'y')",
    "SELECT pg_notify('x', 'y')",
    "SELECT pg_stat_reset()",
    "SELECT pg_export_snapshot()",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_sleep(1000)",
    "SELECT query_to_xml('DELETE FROM sqlbuffer.samples', true, true, '')",
    "SELECT * FROM ts_stat('DELETE FROM sqlbuffer.samples RETURNING ''x''::tsvector')",
    "SELECT dblink_exec('', 'DELETE FROM sqlbuffer.samples')",
    "SELECT public.wipe()",
    'SELECT public."Wipe It"()',
    "SELECT * FROM public.wipe()",
    "SELECT text FROM samples ORDER BY public.wipe()",
    "VALUES (public.wipe())",
]


@pytest.mark.slow
def test_no_sql_can_write_on_sqlite(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    fill(sqlite_url)
    before = dump(sqlite_url)
    for sql in ON_SQLITE:
        refused(run("sql", sql.replace("{folder}", str(tmp_path)), url=sqlite_url))
    assert dump(sqlite_url) == before
    assert len(ON_SQLITE) >= 25


@pytest.fixture
def besieged(postgresql_url: str) -> tuple[str, Execute]:
    """A PostgreSQL database in which a process has put functions that write, opened by its
    superuser.
    """
    url, execute = postgresql_url, sql_runner(postgresql_url)
    fill(url)
    for name in ("wipe", '"Wipe It"'):
        execute(
            f"CREATE FUNCTION public.{name}() RETURNS integer LANGUAGE plpgsql AS "
            f"$$ BEGIN COPY (SELECT 1) TO PROGRAM 'touch {FILE}'; DELETE FROM "
            f"sqlbuffer.samples; RETURN 1; END $$"
        )
    execute("SELECT lo_create(77)")
    return url, execute


def test_no_sql_can_write_on_postgresql(besieged: tuple[str, Execute]) -> None:
    url, _ = besieged
    before = dump(url)
    for sql in ON_POSTGRESQL:
        refused(run("sql", sql, url=url))
        refused(run("sql", sql, "--role", "postgres", url=url))
    assert dump(url) == before
    assert not os.path.exists(FILE)
    assert len(ON_POSTGRESQL) >= 25


def test_the_transaction_alone_keeps_the_tables_as_they_are(
    besieged: tuple[str, Execute], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no list of functions knows cannot write either."""
    url, execute = besieged
    execute(
        "CREATE FUNCTION public.sly() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM set_config('transaction_read_only', 'off', false); DELETE FROM "
        "sqlbuffer.samples; RETURN 1; END $$"
    )
    before = dump(url)
    address = read_url(url)
    monkeypatch.setattr(
        "sqlbuffer.db.backends.PostgreSQL.guarded", lambda *_, **__: contextlib.nullcontext()
    )
    for sql in (
        "SELECT public.sly()",
        "SELECT nextval('samples_id_seq')",
        "SELECT lo_create(0)",
        "SELECT set_config('transaction_read_only', 'off', false)",
        "SELECT query_to_xml('DELETE FROM sqlbuffer.samples', true, true, '')",
    ):
        with (
            pytest.raises(ValueError, match="which cannot write"),
            ask(address, sql) as answer,
        ):
            list(answer.rows)
        assert dump(url) == before, sql


def test_harmless_functions_and_words_may_be_used(url: str) -> None:
    for sql in (
        "SELECT random()",
        "SELECT count(*) FROM samples WHERE source IN ('system', 'nextval', 'pg_reload_conf')",
        "SELECT max(reward) AS setval FROM samples",
    ):
        assert run("sql", sql, url=url).code == 0, sql


# -- errors and passwords --------------------------------------------------------------------------

SECRET = "hunter2pw"


def test_passwords_are_never_shown(postgresql_url: str) -> None:
    fill(postgresql_url)
    address = sa.make_url(postgresql_url).set(password=SECRET)
    in_front = address.render_as_string(hide_password=False)
    behind = (
        address.set(password=None)
        .update_query_dict({"password": SECRET})
        .render_as_string(hide_password=False)
    )
    for url in (in_front, behind):
        for command in (
            *COMMANDS,
            "db upgrade",
            "top --name none",
            "sql 'SELECT nothing'",
            "sql 'SELECT 1'",
            "top --help",
        ):
            result = run(*shlex.split(command), url=url)
            assert SECRET not in result.out + result.err, command
            given = run("--debug", *shlex.split(command), "--url", url)
            assert SECRET not in given.out + given.err, command


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/db",
        f"postgresql://me@127.0.0.1:1/db?password={SECRET}",
        f"postgresql://me:x@127.0.0.1:1/db?password={SECRET}&password={SECRET}",
        f"postgresql://me@127.0.0.1:1/db?sslpassword={SECRET}",
        f"postgresql://me:a@{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:a@{SECRET}:b/c@127.0.0.1:1/db",
        f"postgresql://me:@{SECRET}/c@127.0.0.1:1/db",
        f"postgresql://me:p@host:{SECRET}/db",
        f"postgres://me:{SECRET}@127.0.0.1:1/db",
        f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/db",
        f"mysql://me:{SECRET}@host/db",
        f"me:{SECRET}@host/db",
        f"postgresql:/me:{SECRET}@host/db",
        f"postgresql://me:{SECRET}@host:/db?connect_timeout=zero",
        SECRET,
        "",
    ],
)
def test_errors_do_not_show_passwords(url: str) -> None:
    for debug in ([], ["--debug"]):
        for command in ("stats", "db version", "db upgrade", "sql 'SELECT 1'"):
            result = run(*debug, *shlex.split(command), "--url", url)
            assert result.code == 1, result
            assert SECRET not in result.out + result.err, result
            assert result.err.splitlines()[-1].startswith("error: ")
            assert ("Traceback" in result.err) == bool(debug)


def test_an_at_sign_in_a_path_or_a_parameter_is_no_password() -> None:
    for url in (
        "sqlite:////tmp/me@home/a@b.db",
        "sqlite:///a@b@c.db",
        "postgresql://h/d?application_name=a@b@c",
    ):
        assert read_url(url).render_as_string() == sa.make_url(url).render_as_string()


def test_version_and_check_say_which_database_it_is(url: str) -> None:
    for command in ("db version", "db check"):
        said = run(*command.split(), url=url).out
        if url.startswith("sqlite"):
            assert f"SQLite {sqlite3.sqlite_version} (sqlite3), " in said
            is_affected = sqlite_lock.is_affected(sqlite3.sqlite_version_info)
            assert (
                "guarded: each writer of sqlbuffer holds FILE-lock" in " ".join(said.split())
            ) == is_affected
        else:
            assert re.search(r"^PostgreSQL 1\d", said, re.MULTILINE)


def test_tampered_rows_give_one_line(url: str, execute: Execute) -> None:
    prefix = "" if url.startswith("sqlite") else "sqlbuffer."
    execute(f"UPDATE {prefix}buffers SET settings = '{{}}' WHERE id = 1")
    for command in ("stats", "top", "db check"):
        refused(run(*command.split(), url=url))


def test_version_and_bare_command() -> None:
    result = run("--version")
    assert (result.code, result.out) == (
        0,
        f"sqlbuffer {sqlbuffer.__version__}, schema {REVISION}\n",
    )
    assert "Usage" in run().out + run().err


# -- plots -----------------------------------------------------------------------------------------


def test_plot_writes_a_file(url: str, tmp_path: pathlib.Path) -> None:
    result = run("plot", "rewards", "--url", url, "--out", f"{tmp_path}/m.png")
    assert (result.code, result.out.strip()) == (0, f"1 metric in {tmp_path}/m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_plot_says_what_is_wrong(url: str, tmp_path: pathlib.Path) -> None:
    result = run("plot", "typo", "--url", url)
    assert (result.code, "no numbers are logged as 'typo': the metrics are" in result.err) == (
        1,
        True,
    )
    (tmp_path / "m.png").mkdir()
    result = run("plot", "--url", url, "--out", f"{tmp_path}/m.png")
    assert (result.code, "cannot be written" in result.err) == (1, True)


def test_plot_leaves_a_picture_alone_where_there_is_nothing_to_draw(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    open_store(store_url, name="new").close()
    (tmp_path / "m.png").write_text("mine")
    result = run("plot", "--url", store_url, "--name", "new", "--out", f"{tmp_path}/m.png")
    assert "buffer 'new' has no logged metrics" in refused(result)
    assert (tmp_path / "m.png").read_text() == "mine"


@pytest.mark.parametrize("number", [str(2**31), str(2**63), str(10**30)])
def test_numbers_of_any_size_are_numbers(url: str, number: str) -> None:
    for command in (
        ["top", "-n", number],
        ["sql", "--limit", number, "SELECT 1"],
        ["top", "--by", "score", "-n", number],
    ):
        done = run(*command, url=url)
        assert done.code == 0, done
    assert "error" in refused(run("copy", "default", "other", "--at-iteration", number, url=url))


def test_sql_may_begin_with_a_comment(url: str) -> None:
    result = run("sql", "--csv", "-- how many\nSELECT count(*) AS n FROM buffers", url=url)
    assert (result.code, result.out.splitlines()) == (0, ["n", "2"])
    assert run("sql", "--url", url, "--cvs", "SELECT 1").code == 2


def test_a_table_shows_of_many_bytes_the_first() -> None:
    assert output.cell(bytes(range(100))) == f"{bytes(range(16)).hex()}... (100 bytes)"
    assert output.cell(b"\x01\xff") == "01ff"


# -- help ------------------------------------------------------------------------------------------


def _commands(commands: dict[str, Any], words: tuple[str, ...] = ()) -> Iterator[Any]:
    for name, command in commands.items():
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from _commands(command.commands, (*words, name))


DOCUMENTED = dict(_commands({name: entry.load(name) for name, entry in ENTRIES.items()}))


@pytest.mark.parametrize("name", ENTRIES)
def test_a_list_of_commands_shows_the_first_sentence_of_their_help(name: str) -> None:
    summary = ENTRIES[name].summary
    assert DOCUMENTED[name,].help.split("\n\n")[0] == summary


def test_every_command_is_on_a_page_of_commands() -> None:
    script = runpy.run_path(str(pathlib.Path(__file__).parents[2] / "docs" / "commands.py"))
    for path, text in script["pages"]().items():
        assert (script["FOLDER"] / path).read_text() == text, "run python docs/commands.py"


def test_all_commands_are_known() -> None:
    assert {" ".join(words) for words in DOCUMENTED} == {
        *("db", "db version", "db upgrade", "db backup", "db check", "db grants"),
        *("ls", "stats", "watch", "show", "history", "batches", "predictors", "compare", "serve"),
        *("copy", "top", "sql", "plot", "report", "workers", "worker", "jobs"),
        *("export", "import", "measure", "failed", "retry", "remeasure", "budget"),
        *("prune", "rename", "rm"),
        *("claims", "claims list", "claims release"),
    }


LAB = """
import torch
from sqlbuffer import PredictiveAgent


def make_agent():
    lengths = lambda samples: torch.tensor([[float(len(str(sample)))] for sample in samples])
    return PredictiveAgent(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, lengths)
"""


DOCK = """
def dock(sample):
    return 1.0


def dock_all(samples):
    return [1.0] * len(samples)
"""


@pytest.mark.parametrize("words", DOCUMENTED, ids=" ".join)
@pytest.mark.slow
def test_every_command_has_help_and_examples_that_run(
    words: tuple[str, ...],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    filled_file: bytes,
) -> None:
    (tmp_path / "run.db").write_bytes(filled_file)
    (tmp_path / "sqlbuffer.db").write_bytes(filled_file)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "models.py").write_text(LAB)
    (tmp_path / "lab" / "dock.py").write_text(DOCK)
    (tmp_path / "library.smi").write_text("CCO ethanol\nCCN\n")
    (tmp_path / "vendor.csv").write_text("smiles,mw,logp,vendor\nCCO,46.1,-0.1,acme\n")
    (tmp_path / "vendor.tsv").write_text("smiles\tmw\nCCO\t46.1\n")
    (tmp_path / "measured.csv").write_text("smiles,score\nCCO,0.5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    if words == ("retry",):
        with open_store("sqlite:///sqlbuffer.db") as store:
            batch = store.sample(-1)
            batch.fail(batch.ids, "crashed")
    shown = run(*words, "--help")
    assert shown.code == 0
    assert "Examples:" in shown.out
    assert not re.search(r"<[a-z][^>\n]*$", shown.out, re.MULTILINE), (
        "a value is broken over two lines"
    )
    assert "--install-completion" not in shown.out
    command = DOCUMENTED[words]
    assert all(option.help for option in command.params if option.name != "help")
    examples = [line for line in command.epilog.splitlines() if line.startswith("sqlbuffer ")]
    assert any(example.startswith(f"sqlbuffer {' '.join(words)}") for example in examples)
    for example in examples:
        assert example in shown.out  # in one line, so that it can be copied
        if (words == ("worker",) and "--once" not in example) or words == ("serve",):
            continue  # it would never end
        result = run(*shlex.split(example)[1:])
        assert result.code == 0, (example, result)


def test_a_help_text_wraps_to_the_terminal() -> None:
    text = """First line.

    A paragraph
    of two lines:

    - an item
      of two lines
    - another

        code
        code
    """
    assert unwrapped(text) == (
        "First line.\n\nA paragraph of two lines:\n\n- an item of two lines\n- another\n\n"
        "    code\n    code"
    )


# -- as a program ----------------------------------------------------------------------------------


def _program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), **options.pop("env", {})}
    environment.pop("FORCE_COLOR", None)
    command = [sys.executable, "-m", "sqlbuffer", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, **options
    )


@pytest.mark.slow
def test_the_program_in_a_pipe(sqlite_url: str) -> None:
    fill(sqlite_url)
    done = _program("top", "--name", "qed", env={"SQLBUFFER_URL": sqlite_url})
    assert (done.returncode, LONG_TEXT in done.stdout, "\x1b" in done.stdout) == (0, True, False)
    failed = _program("top", "--name", "none", env={"SQLBUFFER_URL": sqlite_url})
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)


@pytest.mark.slow
def test_commands_that_show_rows_import_what_they_need() -> None:
    """numpy, the codec and the other dialect take longer than all that such a command does."""
    names = "ls stats top show history batches predictors compare sql workers jobs".split()
    code = (
        "import sys\n"
        "from sqlbuffer.cli.commands import ENTRIES\n"
        f"for name in {names}: ENTRIES[name].load(name)\n"
        "heavy = {'numpy', 'cbor2', 'torch', 'sqlalchemy.dialects.postgresql', 'psycopg'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_a_warning_of_the_program_is_one_line(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    open_store(sqlite_url, key=str.lower, weighting="uniform").close()
    (tmp_path / "x.smi").write_text("CCO\n")
    words = ("import", str(tmp_path / "x.smi"), "--key", "builtins:ascii")
    done = _program(*words, env={"SQLBUFFER_URL": sqlite_url})
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"warning: [^\n]*key=[^\n]*\n", done.stderr), done.stderr


@pytest.mark.parametrize("arguments", [("db", "check"), ("stats",), ("stats", "--help")])
@pytest.mark.slow
def test_a_pipe_that_is_closed_is_no_error(arguments: tuple[str, ...], sqlite_url: str) -> None:
    open_store(sqlite_url).close()
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "sqlbuffer", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "SQLBUFFER_URL": sqlite_url,
            "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
        },
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.slow
def test_the_program_where_only_ascii_can_be_written(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        store.record(["größer"], [1.0])
    done = _program("top", env={"SQLBUFFER_URL": sqlite_url, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, r"gr\xf6\xdfer" in done.stdout) == (0, True)
    done = _program("top", "--json", env={"SQLBUFFER_URL": sqlite_url, "PYTHONIOENCODING": "ascii"})
    assert json.loads(done.stdout)[0]["sample"] == "größer"


def test_top_by_uncertainty_names_the_way_out(url: str) -> None:
    told = run("top", "--by", "uncertainty", url=url)
    assert told.code == 2
    assert "score by an acquisition" in " ".join(told.err.replace("│", " ").split())
    with (
        open_store(url) as store,
        pytest.raises(InvalidArgument, match="the database stores no uncertainty"),
    ):
        store.top(by="uncertainty")
    assert "top goes by" in run("top", "--by", "mood", url=url).err
