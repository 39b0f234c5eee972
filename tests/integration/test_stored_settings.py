"""Settings are taken as stored unless they are given; stores that create nothing, or only read."""

import inspect
import logging
import pathlib
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside, workers
from helpers.servers import server_execute
from sqlbuffer.core import release
from sqlbuffer.core.weighting import Shift, Softmax, Uniform
from sqlbuffer.db import schema
from sqlbuffer.errors import (
    BufferNotFound,
    InvalidArgument,
    NoSchema,
    ReadOnlyStore,
    SettingsMismatch,
)
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training import Buffer, WeightedBuffer

# -- settings --------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[Any, Any, Any, str]] = {
    "mode": (
        "consume",
        "replay",
        "consume",
        "make a copy with another one (store.copy(name, mode=",
    ),
    "seed": (0, 7, 8, "make a copy with another one (store.copy(name, seed="),
    "weighting": (
        Shift(),
        Softmax(2.0),
        Uniform(),
        "make a copy with another one (store.copy(name, weighting=...))",
    ),
    "max_size": (None, 10, 11, "make a copy with another one (store.copy(name, max_size=11))"),
    "direction": (
        *("maximize", "minimize", "maximize"),
        "store its samples under another name (`sqlbuffer export all.jsonl --name given`, then "
        "`sqlbuffer import all.jsonl --name OTHER --direction maximize`).",
    ),
    "evict": ("lightest", "oldest", "lightest", "make a copy with another one (store.copy(name, "),
    "budget": (None, 10, 11, "store another one (store.set_budget(11))"),
    "max_attempts": (3, 5, None, "give another name."),
}
"""By name: the value in a new buffer, another one, a third one, and the way out."""


def stored(store: SampleStore, name: str) -> Any:
    row = inside.rows(
        store, sa.select(schema.buffers).where(schema.buffers.c.id == inside.buffer_id(store))
    )[0]
    return getattr(inside.handle_of(store).settings, name, getattr(row, name, None))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_taken_as_stored_unless_it_is_given(store_url: str, name: str) -> None:
    new, given, other, way_out = SETTINGS[name]
    with open_store(store_url, name="plain") as store:
        assert stored(store, name) == new
    with open_store(store_url, name="given", **{name: given}) as store:
        assert stored(store, name) == given
    for again in ({}, {name: given}):
        with open_store(store_url, name="given", **again) as store:
            assert stored(store, name) == given
            assert store.check() == []
    expected = (
        f"buffer 'given' is stored with {name}={given!r}, but was opened with {name}={other!r}: "
        f"open it without {name}, which takes the stored value, or {way_out}"
    )
    with pytest.raises(SettingsMismatch, match=f"^{re.escape(expected)}.*"):
        open_store(store_url, name="given", **{name: other})
    with open_store(store_url, name="given") as store:
        assert stored(store, name) == given


@pytest.mark.parametrize("name", ["max_size", "budget"])
def test_a_buffer_without_a_limit_takes_the_first_one(store_url: str, name: str) -> None:
    open_store(store_url).close()
    with open_store(store_url, **{name: 5}), pytest.raises(SettingsMismatch, match=f"{name}=5"):
        open_store(store_url, **{name: 6})


def test_a_setting_that_is_refused_stores_no_other(store_url: str) -> None:
    open_store(store_url).close()
    with pytest.raises(SettingsMismatch, match="evict='lightest'"):
        open_store(store_url, max_size=5, budget=5, evict="oldest")
    with open_store(store_url) as store:
        assert (store.stats().max_size, store.stats().budget) == (None, None)


def test_a_budget_below_what_is_measured_is_refused(store_url: str) -> None:
    with open_store(store_url) as store:
        store.record(["a", "b"], [1.0, 2.0])
    with pytest.raises(InvalidArgument, match="cannot be 1, because 2 samples"):
        open_store(store_url, budget=1)
    with open_store(store_url, budget=2) as store:
        assert store.budget_left == 0


def test_max_attempts_of_none_lets_a_sample_be_tried_for_ever(store_url: str) -> None:
    with open_store(store_url, max_attempts=None) as store:
        assert stored(store, "max_attempts") is None
    with pytest.raises(SettingsMismatch, match=r"max_attempts=None, but was opened with .*=3"):
        open_store(store_url, max_attempts=3)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("mode", "eat"), ("seed", 0.5), ("weighting", "best"), ("max_size", 0), ("evict", "x")),
        *(("direction", "up"), ("budget", -1), ("budget", "many"), ("create", 1)),
        *(("max_attempts", 0), ("max_attempts", "never"), ("read_only", "yes")),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_created(
    tmp_path: pathlib.Path, name: str, wrong: Any
) -> None:
    with pytest.raises(InvalidArgument, match=name):
        open_store(f"sqlite:///{tmp_path}/new.db", **{name: wrong})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "weighting"),
    [(Buffer, "uniform"), (WeightedBuffer, "shift")],
    ids=["plain", "weighted"],
)
def test_callbacks_have_their_own_weighting_in_a_new_buffer_only(
    sqlite_url: str, kind: Callable[..., Buffer], weighting: str
) -> None:
    more = {} if kind is Buffer else {"refresh_predictions": None}
    made = kind(0.5, url=sqlite_url, name="new", **more)
    assert made.store.stats().kind == weighting
    made.close()
    options = {"mode": "replay", "seed": 3, "weighting": "power"}
    open_store(sqlite_url, name="stored", **options).close()
    taken = kind(0.5, url=sqlite_url, name="stored", **more)
    assert (taken.store.stats().kind, taken.store.stats().mode) == ("power", "replay")
    taken.close()
    with pytest.raises(SettingsMismatch, match="weighting"):
        kind(0.5, url=sqlite_url, name="stored", weighting=weighting, **more)


# -- stores that create nothing --------------------------------------------------------------------


@pytest.mark.parametrize("option", [{"create": False}, {"read_only": True}], ids=str)
def test_no_file_and_no_buffer_is_created(
    store_url: str, tmp_path: pathlib.Path, option: dict[str, bool]
) -> None:
    with pytest.raises(NoSchema, match="holds no buffer yet") as caught:
        open_store(f"sqlite:///{tmp_path}/new.db", **option)
    assert isinstance(caught.value, BufferNotFound)
    assert not list(tmp_path.glob("new*"))
    with open_store(store_url, name="there") as store:
        with pytest.raises(BufferNotFound, match=r"no buffer 'absent' in .*: it has 'there'\.$"):
            open_store(store_url, name="absent", **option)
        assert inside.scalars(store, sa.select(schema.buffers.c.name)) == ["there"]
    open_store(store_url, name="there", **option).close()
    with pytest.raises(InvalidArgument, match="fresh=True creates a buffer"):
        open_store(store_url, name="there", fresh=True, **option)


# -- stores that only read -------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("add", "add_one", "score", "refresh", "measure", "rename"), (["a"],)),
    **dict.fromkeys(("remove", "forget", "samples_of", "rewards_of"), ([1],)),
    **dict.fromkeys(("copy", "checkpoint", "checkpoints", "leased", "remeasure", "batch"), ("x",)),
    "record": (["a"], [1.0]),
    "replace": ([1], ["a"]),
    "sample": (1,),
    "set_budget": (None,),
    "announce_job": ("x", "never"),
    "log_metrics": (0, {}),
    "load_predictor": (None,),
}
KEYWORDS: dict[str, dict[str, Any]] = {
    "prune": {"keep_draws": 0},
    "save_predictor": {"state": b"", "rows_trained": 0},
    "save_checkpoints": {"states": {}, "iteration": 0},
}
METHODS = [
    name
    for name, value in vars(SampleStore).items()
    if not name.startswith("_") and inspect.isfunction(value) and name not in ("close", "connect")
]


@pytest.mark.slow
def test_a_read_only_store_reads_and_names_the_method_that_would_write(store_url: str) -> None:
    with open_store(store_url, weighting="uniform") as store:
        store.add(["a", "b"])
        store.save_predictor(b"x", rows_trained=0)
        store.forget([])
        before, n_workers = store.stats(), len(workers.rows(store))
    for method in METHODS:
        with open_store(store_url, read_only=True) as viewed:
            call = getattr(viewed, method)
            arguments, keywords = ARGUMENTS.get(method, ()), KEYWORDS.get(method, {})
            if hasattr(vars(SampleStore)[method], "__wrapped__"):
                expected = (
                    f"{method} writes, and buffer 'default' was opened with read_only=True: open "
                    "the store without read_only."
                )
                with pytest.raises(ReadOnlyStore, match=f"^{re.escape(expected)}$"):
                    call(*arguments, **keywords)
            else:
                call(*arguments, **keywords)
            assert viewed.stats() == before, method
            assert inside.handle_of(viewed).heartbeat._threads == {}, method
            assert len(workers.rows(viewed)) == n_workers, method
        with pytest.raises(ReadOnlyStore, match="was opened with read_only=True"):
            viewed._write(lambda tx: tx.count(added=1))


def test_a_read_only_store_fills_no_setting(store_url: str) -> None:
    open_store(store_url).close()
    with pytest.raises(ReadOnlyStore):
        open_store(store_url, read_only=True, budget=3)
    with pytest.raises(SettingsMismatch):
        open_store(store_url, read_only=True, seed=3)


READ = """
import os, sys
from sqlbuffer import open_store
from sqlbuffer.errors import ReadOnlyStore

def look(file):
    with open_store(f"sqlite:///{file}", read_only=True) as store:
        print(len(store), store.samples_of([1]), store.rewards_of(["a"]), store.check())
        print(store.waiting().samples, store.top(1)[0]["sample"])
        try:
            store.add(["b"])
        except ReadOnlyStore as exc:
            print(exc)

look(sys.argv[1])
if os.getuid() == 0:  # every module is imported by now
    os.setuid(65_534)
try:
    open(sys.argv[2], "r+")
except PermissionError:
    look(sys.argv[2])
"""


@pytest.mark.slow
def test_a_read_only_store_needs_no_right_to_write_the_file(tmp_path: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = [tmp_path / "run.db", pathlib.Path(folder, "run.db")]
        for file in files:
            with open_store(f"sqlite:///{file}", weighting="uniform") as store:
                store.add(["a"])
                store.record(["b"], [1.0])
        pathlib.Path(folder).chmod(0o555)
        files[1].chmod(0o444)
        found = subprocess.run(
            [sys.executable, "-c", READ, *files], capture_output=True, text=True, check=False
        )
    lines = found.stdout.splitlines()
    assert lines[:2] == ["1 {1: 'a'} [None] []", "['a'] b"], found
    assert lines[2].startswith("add writes"), found
    assert lines[3:] == lines[:3], found


@pytest.fixture
def reader_url(postgresql_url: str) -> Iterator[str]:
    """A database with a buffer, as a role sees it that may only SELECT."""
    name = f"reader_{secrets.token_hex(4)}"
    with open_store(postgresql_url, weighting="uniform") as store:
        store.add(["a"])
        store.record(["b"], [1.0])
    server_execute(postgresql_url, f"CREATE ROLE {name} LOGIN")
    grants = (
        f"GRANT USAGE ON SCHEMA sqlbuffer TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA sqlbuffer TO {name}",
    )
    for command in grants:
        server_execute(postgresql_url, command)
    url = sa.make_url(postgresql_url).set(username=name)
    yield url.render_as_string(hide_password=False)
    server_execute(postgresql_url, f"DROP OWNED BY {name}")
    server_execute(postgresql_url, f"DROP ROLE {name}")


def test_a_read_only_store_needs_only_the_right_to_select(reader_url: str) -> None:
    with open_store(reader_url, read_only=True) as store:
        assert len(store) == 1
        assert store.samples_of([1]) == {1: "a"}
        assert store.rewards_of(["b"]) == [1.0]
        assert store.check() == []
        with pytest.raises(ReadOnlyStore, match=r"^add writes"):
            store.add(["c"])


# -- hints -----------------------------------------------------------------------------------------


def test_a_block_that_releases_its_batch_says_so_once(
    store_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "_was_told", type(release._was_told)())
    hint = "was released at the end of its block without a reward"
    with open_store(store_url, weighting="uniform") as store:
        store.add([f"s{i}" for i in range(9)])
        with caplog.at_level(logging.WARNING):
            with store.sample(2) as batch:
                batch.settle([1.0, 2.0])
            with store.sample(2) as batch:
                batch.settle()
            with store.sample(2) as batch:
                batch.report(batch.ids[:1], [1.0])
            with store.sample(2) as batch:
                batch.release()
            with pytest.raises(KeyError), store.sample(2) as batch:
                raise KeyError
            assert hint not in caplog.text
            for _ in range(2):
                with store.sample(2) as batch:
                    pass
            assert caplog.text.count(hint) == 1
            assert f"batch {batch.id - 1} of buffer 'default'" in caplog.text or batch.id is None
            assert "call batch.settle(rewards)" in caplog.text


def test_score_says_that_old_scores_need_a_refresh(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    def ones(samples: list[Any]) -> list[float]:
        return [1.0] * len(samples)

    hint = "with the score of an older predictor; call `refresh`"
    with open_store(store_url) as store, caplog.at_level(logging.WARNING):
        store.score(ones)
        store.add(["a", "b"])
        store.score(ones)
        store.score(ones)
        assert hint not in caplog.text
        store.save_predictor(b"", rows_trained=0)
        for _ in range(3):
            store.score(ones)
        assert caplog.text.count(hint) == 1
        assert "buffer 'default' has 2 samples with" in caplog.text
        assert store.refresh(ones) == 2
        store.save_predictor(b"", rows_trained=0)
        store.score(ones)
        assert caplog.text.count(hint) == 2


def test_a_draw_before_any_score_names_the_weighting_that_needs_none(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(store_url) as store, caplog.at_level(logging.WARNING):
        store.add(["a"])
        store.sample(1)
        assert "call `score`" in caplog.text
        assert "sqlbuffer copy NAME NEW --weighting uniform" in caplog.text


# -- copies without predictors ---------------------------------------------------------------------


@pytest.mark.parametrize("at_iteration", [None, 1])
def test_a_copy_may_leave_the_predictors_out(store_url: str, at_iteration: int | None) -> None:
    with open_store(store_url) as store:
        store.add([f"s{i}" for i in range(9)])
        store.score(lambda samples: [float(len(samples))] * len(samples))
        store.sample(2).settle([1.0, 2.0])
        store.save_predictor(b"state", rows_trained=2)
        store.refresh(lambda samples: [float(i) for i, _ in enumerate(samples)])
        with store.copy("without", at_iteration=at_iteration, predictors=False) as copied:
            assert copied.predictors() == []
            assert copied.newest_version() is None
            assert copied.check() == []
            same = store.staleness() if at_iteration is None else copied.staleness()
            assert copied.staleness() == same
            assert copied.save_predictor(b"new", rows_trained=1) > 1
            assert copied.check() == []
        with store.copy("with") as copied:
            assert [it.version for it in copied.predictors()] == [1]


def test_a_weighted_buffer_says_that_a_stored_weighting_ignores_its_scores(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    open_store(sqlite_url, name="plain", weighting="uniform").close()
    with caplog.at_level(logging.WARNING):
        WeightedBuffer(0.5, None, url=sqlite_url, name="new").close()
        WeightedBuffer(0.5, None, url=sqlite_url, name="plain", weighting="uniform").close()
        assert "scores decide no draw" not in caplog.text
        WeightedBuffer(0.5, None, url=sqlite_url, name="plain").close()
        assert "'plain' is stored with weighting='uniform', so that scores decide no draw" in (
            caplog.text
        )
