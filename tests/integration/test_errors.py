"""Bad input is refused with one of our errors, whose message has the value, the rule and the way
out.
"""

import dataclasses
import logging
import math
import pathlib
import pickle
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from helpers import inside
from helpers.cleanup import hold
from helpers.polling import until
from helpers.proxies import proxy_before
from helpers.samples import scores_of
from helpers.servers import in_transaction
from sqlbuffer import errors
from sqlbuffer._messages import listed, summary
from sqlbuffer.core.attach import attach_existing
from sqlbuffer.core.weighting import Power, Shift, Softmax
from sqlbuffer.db.database import Database
from sqlbuffer.db.schema import REVISION
from sqlbuffer.errors import (
    BufferNotFound,
    DatabaseUnavailable,
    InvalidArgument,
    InvalidReward,
    SettingsMismatch,
    SqlBufferError,
    UnsupportedType,
)
from sqlbuffer.store import SampleStore, open_store

PASSWORD = "hunter2-secret"


def is_one_sentence(message: str) -> bool:
    return message.endswith(".") and "\n" not in message.strip() and len(message) < 500


@pytest.fixture
def three(store: SampleStore) -> SampleStore:
    """A store with three scored samples."""
    store.add(["s1", "s2", "s3"])
    store.score(scores_of)
    return store


def test_every_error_is_ours_and_one_of_the_standard_library() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, SqlBufferError) for kind in kinds)
    standard = (
        ValueError,
        TypeError,
        LookupError,
        RuntimeError,
        ConnectionError,
        ImportError,
        ArithmeticError,
    )
    assert all(issubclass(kind, standard) for kind in kinds if kind is not SqlBufferError)


# -- scores ----------------------------------------------------------------------------------------


class Opaque:
    """A type that no process has registered."""


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (lambda samples: np.zeros((3, 1)), r"\(3, 1\).*3 samples.*\(3,\)"),
        (lambda samples: np.zeros((1, 3)), r"\(1, 3\).*3 samples.*\(3,\)"),
        (lambda samples: np.zeros(2), r"\(2,\).*3 samples"),
        (lambda samples: [1.0, 2.0, 3.0, 4.0], r"\(4,\).*3 samples"),
        (lambda samples: 1.0, r"3 numbers.*1\.0"),
        (lambda samples: None, "3"),
        (lambda samples: ["a", "b", "c"], "3 numbers.*'a'"),
        (lambda samples: [Opaque()] * 3, "3 numbers.*Opaque"),
        (lambda samples: [1.0, [2.0], 3.0], "3 numbers"),
        (lambda samples: [10**400] * 3, "3 numbers"),
        (lambda samples: (1.0 for _ in samples[1:]), r"\(2,\).*3 samples"),
        (lambda samples: np.ones(3) * 1j, "3 numbers"),
    ],
)
def test_scores_of_the_wrong_kind(
    store: SampleStore, scores: Callable[[list[str]], Any], words: str
) -> None:
    store.add(["s1", "s2", "s3"])
    for only in ("missing", "all", "stale"):
        with pytest.raises(InvalidArgument, match=words) as caught:
            store.score(scores, only=only)
        assert is_one_sentence(str(caught.value))
    assert store.stats().unscored == 3
    assert store.check() == []
    assert store.score(scores_of) == 3


def test_scores_that_are_not_finite_are_counted_and_never_drawn(store: SampleStore) -> None:
    store.add(["s1", "s2", "s3", "s4"])
    unscorable = {"s1": math.nan, "s2": math.inf, "s3": -math.inf, "s4": 1.0}
    store.score(lambda samples: [unscorable[sample] for sample in samples])
    assert store.stats().unscorable == 3
    assert hold(store.sample(4, pct_argmax=0.5)).samples == ["s4"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"only": "new"}, "missing.*'new'"),
        ({"chunk": 0}, "chunk.*0"),
        ({"chunk": "all"}, "chunk.*'all'"),
        ({"score_fn": np.ones(3)}, "score_fn.*function.*array"),
    ],
)
def test_score_arguments(three: SampleStore, more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        three.score(**{"score_fn": scores_of, **more})


# -- rewards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ([1.0, 2.0], "2 rewards for 3 samples"),
        ([1.0, 2.0, 3.0, 4.0], "4 rewards for 3 samples"),
        ([], "0 rewards for 3 samples"),
        ([1.0, math.inf, 2.0], "reward 1 is inf.*finite.*NaN"),
        ([1.0, 2.0, -math.inf], "reward 2 is -inf.*finite.*NaN"),
        (torch.tensor([1.0, math.inf, 2.0]), "reward 1 is inf"),
        (np.zeros((3, 1)), "3 numbers"),
        (torch.zeros(3, 1), "3 numbers"),
        (torch.zeros(3, 3), "3 numbers"),
        (torch.tensor(1.0), "3 numbers"),
        (1.0, "3 numbers.*1.0"),
        ("123", "3 numbers.*'123'"),
        (["a", "b", "c"], "3 numbers.*'a'"),
        ([1.0, [2.0], 3.0], "3 numbers"),
        ([1.0, 2.0, 10**400], "3 numbers"),
        ([1.0, 2.0, 1j], "3 numbers"),
        ({0: 1.0, 1: 2.0, 2: 3.0}, "3 numbers"),
        ({1.0, 2.0, 3.0}, "3 numbers"),
    ],
)
def test_rewards_of_the_wrong_kind(three: SampleStore, rewards: Any, words: str) -> None:
    batch = three.sample(3)
    attempts: list[Callable[[], Any]] = [
        lambda: batch.settle(rewards),
        lambda: batch.settle(record=(["a", "b", "c"], rewards, "")),
        lambda: three.record(["a", "b", "c"], rewards),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidReward, match=words) as caught:
            attempt()
        assert is_one_sentence(str(caught.value))
    stats = three.stats()
    assert (stats.measured, stats.failed, stats.claimed, stats.iteration, stats.stored) == (
        0,
        0,
        3,
        0,
        3,
    )
    batch.settle([1.0, None, math.nan])


def test_nan_rewards_are_failures(three: SampleStore) -> None:
    three.sample(3).settle([math.nan, np.float32("nan"), 1.0])
    stats = three.stats()
    assert (stats.failed, stats.measured) == (2, 1)
    three.record(["x"], torch.tensor([math.nan]))
    assert three.stats().failed == 3


def test_a_reward_of_none_is_a_failure(three: SampleStore) -> None:
    three.record(["a", "b"], [1.0, None])
    batch = three.sample(3)
    batch.report(batch.ids[:1], [None])
    batch.settle([None, 1.0], ids=batch.ids[1:])
    stats = three.stats()
    assert (stats.failed, stats.measured) == (3, 2)


# -- samples ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sample", [Opaque(), object(), lambda: None, [Opaque()], {"a": (1, Opaque())}, open]
)
def test_a_type_that_is_not_registered(store: SampleStore, sample: Any) -> None:
    for attempt in (store.add, lambda samples: store.record(samples, [1.0] * 2), store.rewards_of):
        with pytest.raises(UnsupportedType, match="register") as caught:
            attempt(["good", sample])
        assert len(str(caught.value)) < 500
    assert store.stats().stored == 0


@pytest.mark.parametrize("samples", ["CCO", b"CCO", 5, None, 1.5, {"x": 1}, {"CCO", "CCN"}])
def test_one_sample_where_a_list_is_expected(store: SampleStore, samples: Any) -> None:
    batch = store.sample(0)
    attempts: list[Callable[[], Any]] = [
        lambda: store.add(samples),
        lambda: store.record(samples, [1.0]),
        lambda: store.rewards_of(samples),
        lambda: batch.settle(record=(samples, [1.0, 2.0, 3.0], "")),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidArgument, match=f"list.*{type(samples).__name__}.*list"):
            attempt()
    assert store.stats().stored == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"source": ["a"]}, "2 samples.*1 sources.*one for each"),
        ({"source": ["a", 3]}, "source.*3"),
        ({"source": 3}, "source.*one name for each.*got 3"),
        ({"source": None}, "source.*one name for each.*got None"),
        ({"meta": [{}]}, "2 samples.*1 metas.*one for each"),
        ({"meta": {"x": object()}}, "meta.*JSON"),
        ({"meta": {"x": math.inf}}, "meta.*'x'.*JSON"),
        ({"meta": 5}, "meta.*mapping"),
    ],
)
def test_sources_and_metas_that_do_not_fit(
    store: SampleStore, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        store.add(["a", "b"], **more)
    assert len(store) == 0


def test_ids_and_samples_that_do_not_fit(three: SampleStore) -> None:
    with pytest.raises(InvalidArgument, match=r"2 ids.*1 samples.*one for each"):
        three.replace([1, 2], ["a"])
    assert len(three) == 3


# -- sizes and shares ------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [-2, 1.0, "3", None, True, math.nan])
def test_n_out_of_range(three: SampleStore, n: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"n must be .*-1.*got"):
        _held = three.sample(n)


@pytest.mark.parametrize("pct_argmax", [-0.1, 1.0001, math.nan, math.inf, 10, "0.5", None])
def test_pct_argmax_out_of_range(three: SampleStore, pct_argmax: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"pct_argmax .* between 0 and 1; got"):
        _held = three.sample(2, pct_argmax)
    assert three.stats().claimed == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_size": 0}, "max_size.*positive.*0"),
        ({"max_size": -3}, "max_size.*positive.*-3"),
        ({"max_size": 1.5}, "max_size.*1.5"),
        ({"max_size": True}, "max_size.*True"),
        ({"mode": "replays"}, '"consume".*"replay".*replays'),
        ({"key": "canonical"}, "key.*function.*'canonical'"),
        ({"seed": "1"}, "seed.*integer.*'1'"),
        ({"seed": 1.0}, "seed.*integer.*1.0"),
        ({"seed": True}, "seed.*integer.*True"),
        ({"weighting": "sofmax"}, "'sofmax'.*'softmax'"),
        ({"weighting": Shift}, "weighting.*Shift"),
        ({"weighting": lambda scores: scores}, "weighting.*lambda"),
        ({"durability": "some"}, '"normal".*"full".*some'),
        ({"name": ""}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": 3}, "name.*3"),
        ({"name": None}, "name.*None"),
    ],
)
def test_settings_out_of_range(
    tmp_path: pathlib.Path, settings: dict[str, Any], words: str
) -> None:
    file = tmp_path / "x.db"
    with pytest.raises(InvalidArgument, match=words):
        open_store(f"sqlite:///{file}", **settings)


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf, "1", None])
def test_parameters_of_weightings_out_of_range(wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"temperature.*positive"):
        Softmax(wrong)
    with pytest.raises(InvalidArgument, match=r"alpha.*positive"):
        Power(wrong)


def test_numpy_numbers_will_do(new_store: Callable[..., SampleStore]) -> None:
    store = new_store(seed=np.int64(3), weighting=Softmax(np.float32(0.5)))  # type: ignore[arg-type]
    store.add(np.array(["s1", "s2"]))  # type: ignore[arg-type]
    store.score(scores_of)
    batch = store.sample(np.int32(2), np.float32(0.5))  # type: ignore[arg-type]
    batch.settle(np.array([1, 2], dtype=np.int8))
    new_store(seed=3, weighting=Softmax(0.5))


def test_settings_that_differ_show_both_values(new_store: Callable[..., SampleStore]) -> None:
    new_store(name="run", seed=3, mode="replay", weighting=Softmax(0.5))
    stored = {"seed": 3, "mode": "replay", "weighting": Softmax(0.5)}
    for field, other in (
        ("seed", 4),
        ("mode", "consume"),
        ("weighting", "shift"),
        ("weighting", Softmax(0.25)),
    ):
        with pytest.raises(SettingsMismatch) as caught:
            new_store(name="run", **{**stored, field: other})
        message = str(caught.value)
        shown = {"shift": "Shift()", "consume": "'consume'"}.get(str(other), repr(other))
        assert f"{field}={stored[field]!r}" in message
        assert f"{field}={shown}" in message
        assert "'run'" in message
        assert "make a copy with another one" in message
        assert is_one_sentence(message)


# -- URLs and files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:hunter2-secret@host/db",
        "redis://host",
        "sqlite",
        "",
        "::::",
        "not a url",
        "postgresql://user:hunter2-secret@host:port/db",
        "postgresql://user:hunter2-secret@@host/db",
        "sqlite://",
        "sqlite://x.db",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?cache=shared&uri=true",
        5,
    ],
)
def test_urls_that_are_none(
    url: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument, match=r"sqlite:///FILE|%40") as caught:
        open_store(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in shown.split("open_store(url)")[-1]
    assert is_one_sentence(str(caught.value))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def closed_port() -> int:
    """A port of this host on which no process listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def refused(url: Any, words: str, **more: Any) -> str:
    with pytest.raises(DatabaseUnavailable, match=words) as caught:
        open_store(url, **more)
    message = str(caught.value)
    assert is_one_sentence(message)
    shown = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in shown
    return message


def test_a_server_that_cannot_be_reached(closed_port: int) -> None:
    message = refused(
        f"postgresql://me:{PASSWORD}@127.0.0.1:{closed_port}/db",
        "(?i)refused.*check that the server runs",
    )
    assert f"postgresql://me:***@127.0.0.1:{closed_port}/db" in message


def test_a_database_that_is_not_there(postgresql_url: str) -> None:
    url = sa.make_url(postgresql_url).set(database="no_such_database", password=PASSWORD)
    refused(url, '"no_such_database" does not exist.*create it first')


@pytest.mark.empty_database
def test_a_server_that_only_reads(postgresql_url: str) -> None:
    url = sa.make_url(postgresql_url).update_query_dict(
        {"options": "-cdefault_transaction_read_only=on"}
    )
    refused(url, "read-only.*primary")
    open_store(postgresql_url).close()
    with open_store(url) as store:
        assert len(store) == 0
        with pytest.raises(DatabaseUnavailable, match=r"read-only.*primary"):
            store.add(["a"])


def test_a_role_without_rights(postgresql_url: str) -> None:
    open_store(postgresql_url).close()
    url = sa.make_url(postgresql_url)
    role = f"guest_{url.database}"
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        try:
            refused(url.set(username=role, password=PASSWORD), "permission denied.*grant")
        finally:
            connection.exec_driver_sql(f"DROP ROLE {role}")
    engine.dispose()


def test_a_server_that_goes_away(postgresql_url: str) -> None:
    """Connections that have died are noticed; work that was under way is refused, what follows goes
    on.
    """
    with open_store(postgresql_url) as store:
        store.add(["a"])
        engine = sa.create_engine(sa.make_url(postgresql_url).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        engine.dispose()
        assert len(store) == 1
        assert store.add(["b"]).added == 1


def test_a_folder_that_is_not_there(tmp_path: pathlib.Path) -> None:
    message = refused(f"sqlite:///{tmp_path}/none/x.db", "unable to open.*folder must exist")
    assert "none/x.db" in message


def test_a_folder_where_a_file_is_expected(tmp_path: pathlib.Path) -> None:
    refused(f"sqlite:///{tmp_path}", "unable to open.*folder")


def valid_file(file: pathlib.Path) -> bytes:
    with open_store(f"sqlite:///{file}") as store:
        store.add([f"s{i}" for i in range(2000)])
        store.score(scores_of)
    return file.read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Dear diary, today I wrote a text file.\n" * 100, "not a database.*another file"),
        (b"Dear diary", "not a database.*another file"),
        (bytes(8192), "not a database.*another file"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "not a database|malformed"),
    ],
)
def test_a_file_that_is_no_database(tmp_path: pathlib.Path, content: bytes, words: str) -> None:
    file = tmp_path / "x.db"
    file.write_bytes(content)
    refused(f"sqlite:///{file}", words)
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.95])
def test_a_file_that_was_cut_off(tmp_path: pathlib.Path, keep: float) -> None:
    """Wherever it is noticed, it is one of our errors, or the audit says so."""
    file = tmp_path / "x.db"
    whole = valid_file(file)
    left = whole[: int(len(whole) * keep)]
    file.write_bytes(left)
    with pytest.raises(DatabaseUnavailable, match=r"corrupt|truncated|not a database") as caught:  # noqa: PT012
        with open_store(f"sqlite:///{file}") as store:
            assert "damaged" in " ".join(store.check()) or store.waiting()
            store.add([f"n{i}" for i in range(5000)])
            store.score(scores_of, only="all")
        raise AssertionError("nothing was noticed")
    assert is_one_sentence(str(caught.value))
    assert file.read_bytes() == left, "what is left may still be of use for a repair"


def test_damage_in_the_middle(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "x.db"
    whole = bytearray(valid_file(file))
    for page in range(10, len(whole) // 4096, 3):
        whole[page * 4096 : page * 4096 + 200] = random.Random(page).randbytes(200)
    file.write_bytes(whole)
    try:
        with open_store(f"sqlite:///{file}") as store:
            found = " ".join(store.check())
    except DatabaseUnavailable as exc:
        found = str(exc)
    assert "is damaged" in found or "is corrupt" in found


AS_SOMEBODY_ELSE = """
import os, sys
from sqlbuffer.errors import SqlBufferError
from sqlbuffer.store import open_store
import alembic.command, alembic.config, alembic.runtime.migration, sqlbuffer.samples.codec
import sqlbuffer.db.backends.sqlite, numpy
if os.geteuid() == 0:  # to root everything is writable
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    with open_store(sys.argv[1]) as store:
        store.add(["new"])
except SqlBufferError as exc:
    print(type(exc).__name__, exc)
"""


@pytest.fixture
def public_folder() -> Iterator[pathlib.Path]:
    """A folder to which everybody's path leads."""
    folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o777)
    shutil.rmtree(folder)


@pytest.mark.parametrize("what", ["file", "folder", "both", "unreadable", "new"])
@pytest.mark.slow
def test_a_file_that_cannot_be_written(public_folder: pathlib.Path, what: str) -> None:
    file = public_folder / "x.db"
    content = None
    if what != "new":
        content = valid_file(file)
        file.chmod({"unreadable": 0, "folder": 0o666}.get(what, 0o444))
    if what in ("folder", "both", "new"):
        public_folder.chmod(0o555)
    command = [sys.executable, "-W", "error", "-c", AS_SOMEBODY_ELSE, f"sqlite:///{file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith("DatabaseUnavailable"), done.stdout
    assert "writable" in done.stdout
    assert str(file) in done.stdout
    assert is_one_sentence(done.stdout.strip())
    public_folder.chmod(0o777)
    if content is None:
        assert list(public_folder.iterdir()) == []
    else:
        file.chmod(0o666)
        assert file.read_bytes() == content


def test_a_file_that_sql_runner_holds(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:

    inside.shorten_patience(monkeypatch, 0.1)
    with open_store(sqlite_url) as store:
        store.add(["before"])
        holder = sqlite3.connect(sa.make_url(sqlite_url).database or "", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert len(store) == 1, "reading never waits"
        with pytest.raises(DatabaseUnavailable, match=r"locked.*another program"):
            store.add(["a database is locked", "the disk is full"])
        holder.execute("ROLLBACK")
        holder.close()
        assert list(store.waiting().samples) == ["before"]
        assert store.add(["a"]).added == 1
        assert store.stats().stored == 2
        assert store.check() == []


def test_advice_does_not_follow_from_what_samples_say(postgresql_url: str) -> None:
    with open_store(postgresql_url, weighting="uniform") as store:
        engine = sa.create_engine(sa.make_url(postgresql_url).set(drivername="postgresql+psycopg"))
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE sqlbuffer.samples RENAME TO gone")
        engine.dispose()
        with pytest.raises(Exception, match=r"gone|samples") as caught:
            store.add(["password", "read-only"])
        assert "check user and password" not in str(caught.value)


def test_a_driver_error_among_many_rows_names_one(sqlite_url: str) -> None:
    """Keys are moved row by row through the driver itself."""
    with open_store(sqlite_url) as store:
        store.add(["a", "bb"])
        store.score(lambda samples: np.array([1.0, 2.0]))
        with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as other:
            other.execute(
                "CREATE TRIGGER full BEFORE UPDATE ON pool BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        other.close()
        with pytest.raises(sa.exc.IntegrityError, match="no"):
            store.score(lambda samples: np.array([3.0, 2.0]), only="all")


def test_a_buffer_that_is_not_there(store_url: str) -> None:
    open_store(store_url, name="there").close()
    database = Database(store_url)
    with pytest.raises(BufferNotFound, match=r"'not there'.*'there'"):
        attach_existing(database, "not there")
    database.close()


# -- passwords -------------------------------------------------------------------------------------


def test_passwords_are_in_no_message_and_no_repr(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sa.make_url(postgresql_url).set(password=PASSWORD)
    secret = url.render_as_string(hide_password=False)
    assert PASSWORD in secret
    monkeypatch.setenv("SQLBUFFER_URL", secret)
    with open_store(weighting="uniform") as store:
        shown = [
            repr(store),
            str(store),
            store.url,
            repr(inside.handle_of(store)),
            repr(inside.database_of(store)),
        ]
        store.add(["a"])
        batch = store.sample(1)
        shown += [repr(batch), repr(store.stats()), repr(batch.info), repr(store.top())]
        shown += [repr(dataclasses.asdict(store.stats()))]
        for wrong in (
            lambda: open_store(seed=1),
            lambda: attach_existing(inside.database_of(store), "none"),
            lambda: open_store(url.set(database="none")),
            lambda: open_store(secret.replace("postgresql://", "mysql://")),
            lambda: batch.settle([math.inf]),
        ):
            with pytest.raises(SqlBufferError) as caught:
                wrong()
            shown += traceback.format_exception(caught.value)
    assert not [text for text in shown if PASSWORD in text]


@pytest.mark.empty_database
def test_passwords_are_in_no_log(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The schema is created and upgraded, transactions are run again, a heartbeat fails: the
    drivers' logs included.
    """
    caplog.set_level(logging.DEBUG)
    inside.shorten_patience(monkeypatch, 0.3)
    with proxy_before(postgresql_url) as proxy:
        url = sa.make_url(proxy.url).set(password=PASSWORD)
        secret, masked = (
            url.render_as_string(hide_password=False),
            url.render_as_string(hide_password=True),
        )
        with open_store(secret, weighting="uniform", grace_s=0.2) as store:
            inside.database_of(store).upgrade()
            assert caplog.messages.count(f"schema of {masked} is now at revision {REVISION}") == 2
            proxy.cut = ["answer", "request"]
            store.add(["a"])
            assert proxy.n_cut == 2
            proxy.close()
            until(lambda: "a heartbeat failed" in caplog.text)
            assert [
                line
                for line in caplog.messages
                if line.startswith("a heartbeat failed") and masked in line
            ]
    until(lambda: in_transaction(postgresql_url) == 0)  # the server notices soon what was cut off
    assert PASSWORD in secret
    assert PASSWORD not in caplog.text
    assert not [record for record in caplog.records if PASSWORD in str(vars(record))]


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)])
def test_a_message_shows_control_characters_as_escapes(kind: type[Exception]) -> None:
    error = kind("stored as \x1b[2J\x9b31m\x00\n\u202e")
    said = "".join(traceback.format_exception_only(error)).removesuffix("\n")
    assert said.isprintable(), said
    assert str(error) == r"stored as \x1b[2J\x9b31m\x00\n\u202e"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_summary_is_one_line_that_every_log_and_database_takes() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert summary(Mute()) == "Mute: the message cannot be read"
    assert (
        summary(ValueError("a\0b\x1b[2J\ud800\nsecond line")) == r"ValueError: a\x00b\x1b[2J\ud800"
    )
    assert summary(ValueError()) == "ValueError"
    assert len(summary(ValueError("x" * 10**6))) == 1000


def test_a_list_of_names_is_short() -> None:
    assert listed([]) == "none"
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(3000))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."
    assert len(listed(["x" * 10**6])) == 80
