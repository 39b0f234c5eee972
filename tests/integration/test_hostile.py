"""What strangers give, and write into the tables: nothing but our own errors, and nothing else is
touched.
"""

import contextlib
import csv
import datetime as dt
import functools
import io
import logging
import math
import os
import pathlib
import pickle
import shutil
import sqlite3
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import cbor2
import numpy as np
import pytest
import safetensors.torch
import sqlalchemy as sa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from helpers import inside
from helpers.commands import run, unstyled
from helpers.samples import scores_of
from sqlbuffer import register
from sqlbuffer.core.attach import attach_existing
from sqlbuffer.db.backends import Json
from sqlbuffer.db.schema import (
    batches,
    buffers,
    checkpoints,
    jobs,
    pool,
    predictors,
    samples,
    workers,
)
from sqlbuffer.errors import InvalidArgument, InvalidPayload, SqlBufferError
from sqlbuffer.maintenance import audit
from sqlbuffer.maintenance.repair import repair
from sqlbuffer.predictor.agent import PredictiveAgent
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training import PredictiveBuffer
from sqlbuffer.training.callback import BatchState
from sqlbuffer.training.log import Log

TEN = [f"s{i}" for i in range(10)]


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, file: pathlib.Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


TEXTS = [
    *(
        "",
        " ",
        "\t\r\n",
        "\0",
        "a\0b",
        "\ud800",
        "\udfff\ud800",
        "\ufeff",
        "\u202etxt.exe",
        "\x1b[2J",
        "\x7f",
        "\uffff",
    ),
    *(
        "é",
        "e\u0301",
        "ß",
        "İ",
        "👩‍🔬",
        "𝔘",
        "\U0010ffff",
        "NULL",
        "null",
        "None",
        "nan",
        "Infinity",
        "-0",
        "1e999",
    ),
    *(
        "'",
        '"',
        "`",
        "\\",
        "\\'",
        "';--",
        "'; DROP TABLE samples; --",
        '"; DELETE FROM pool; --',
        "') OR 1=1 --",
    ),
    *(
        "%s",
        "%(x)s",
        "%%",
        ":buffer",
        "$1",
        "?",
        "{}",
        "{0.__class__}",
        "${HOME}",
        "$(reboot)",
        "`reboot`",
        "{{7*7}}",
    ),
    *(
        "../../etc/passwd",
        "/dev/null",
        "file:///etc/passwd",
        "C:\\CON",
        "sqlite://",
        "http://[",
        "ledger",
        "default",
    ),
    *(
        "__import__('os').system('reboot')",
        "os.system",
        "!!python/object/apply:os.system",
        "cbor",
        "pickle",
        "[red]x",
    ),
    *(
        "x" * 1_000_000,
        "\n" * 10_000,
        "[" * 5_000,
        "(" * 5_000 + ")" * 5_000,
        "\u0301" * 10_000,
        "0" * 5_000,
    ),
]

CHANNELS: dict[str, Callable[[SampleStore, str], object]] = {
    "sample": lambda store, text: store.add([text]),
    "bytes": lambda store, text: store.add([text.encode("utf-8", "surrogatepass")]),
    "source": lambda store, text: store.add(["new"], source=text),
    "meta": lambda store, text: store.add(["newer"], meta={text: text}),
    "buffer": lambda store, text: open_store(inside.url_of(store), name=text).close(),
    "metric": lambda store, text: store.log_metrics(0, {text: 1.0}),
    "checkpoint": lambda store, text: store.sample(0).settle([], checkpoint={text: b"x"}),
    "setting": lambda store, text: open_store(inside.url_of(store), name="other", weighting=text),
    "reward": lambda store, text: store.record(["newest"], [text]),
}


def only_our_errors(call: Callable[[], object]) -> None:
    """Do it, or be told what is wrong, in few words."""
    try:
        call()
    except SqlBufferError as exc:
        said = str(exc)
    else:
        return
    assert len(said) < 2_000


def account(store: SampleStore) -> Any:
    """What a buffer holds."""
    return store.waiting().samples, store.waiting().scores.tolist(), store.stats()


@pytest.mark.each_database
@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.slow
def test_texts_are_stored_as_they_are_or_refused(store_url: str, channel: str) -> None:
    """Over six hundred, on each database."""
    with (
        open_store(store_url, name="alongside") as alongside,
        open_store(store_url, name="besieged") as store,
    ):
        alongside.add(TEN)
        alongside.score(scores_of)
        before = account(alongside)
        store.add(TEN)
        for text in TEXTS:
            only_our_errors(functools.partial(CHANNELS[channel], store, text))
        if channel == "sample":
            assert set(TEXTS) <= set(store.waiting().samples)
        assert set(TEN) <= set(store.waiting().samples)
        assert account(alongside) == before
        assert (store.check(), alongside.check()) == ([], [])


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text()
    | st.binary()
    | st.complex_numbers()
    | st.datetimes()
    | st.builds(object)
    | st.just(math.inf),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(value=ANYTHING)
@pytest.mark.slow
def test_any_value_in_any_place(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "anything.db"
    with open_store(f"sqlite:///{file}") as store:
        for call in (
            lambda: store.add([value]),
            lambda: store.add(value),
            lambda: store.add(["x"], source=value),
            lambda: store.add(["x"], meta=value),
            lambda: store.record(["x"], value),
            lambda: store.record(["x"], [value]),
            lambda: store.sample(value).release(),
            lambda: store.sample(1, pct_argmax=value).release(),
            lambda: store.sample(1).settle(value),
            lambda: store.sample(1).report(value, value),
            lambda: store.score(lambda samples: value),
            lambda: store.remove(value),
            lambda: store.top(value),
            lambda: store.top(by=value),
            lambda: store.rewards_of([value]),
            lambda: store.replace(value, value),
            lambda: store.log_metrics(0, value),
            lambda: store.sample(1).settle(checkpoint=value),
            lambda: store.save_predictor(b"", rows_trained=0, metrics=value),
        ):
            only_our_errors(call)
        assert store.check() == []


HUGE = "9" * 5_000
WEIGHTINGS: list[Any] = [
    *(None, 1, "x", [], {}, {"weighting": None}, {"weighting": "os.system"}, {"weighting": {}}),
    *(
        {"weighting": {"name": name}}
        for name in (None, 1, "", "os.system", "__init__", ["shift"], {"a": 1})
    ),
    *(
        {"weighting": {"name": "softmax", "temperature": value}}
        for value in (0, -1, "1", None, [1], {}, 1e308)
    ),
    {"weighting": {"name": "softmax", "temperature": 1, "shell": True}},
    {"weighting": {"name": "power", "__class__": 1}},
]
LOOPS = ["x", "", "{}", "[1]", "[" * 100_000, '{"size": "x", "jobs": []}'] + [
    f'{{"size": 1, "jobs": {jobs}}}'
    for jobs in ('["os.system"]', "[[1]]", "1", '"retrain"', '{"retrain": 1}')
]


def agent() -> PredictiveAgent:
    """An agent of two parameters; the first sample is 2 characters long, as others are."""
    return PredictiveAgent(
        torch.nn.Linear(1, 1),
        torch.nn.functional.mse_loss,
        lambda samples: torch.tensor([[float(len(sample))] for sample in samples]),
    )


def with_header(dtype: str) -> bytes:
    """Safetensors of a type that torch may not have."""
    n_bytes = 1 if dtype == "F4" else 2
    about = f'{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{n_bytes}]}}'
    header = f'{{"weight":{about}}}'.encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * n_bytes


def with_tensors(**more: torch.Tensor) -> bytes:
    """The state of `agent`, with other tensors as well."""
    weights = {"weight": torch.zeros(1, 1), "bias": torch.zeros(1)}
    return safetensors.torch.save(
        {**weights, **{name.replace("__", "."): value.clone() for name, value in more.items()}}
    )


ONE = torch.zeros(1, 1)
MOMENTS = {
    "optimiser__0__step": torch.zeros(()),
    "optimiser__0__exp_avg": ONE,
    "optimiser__0__exp_avg_sq": ONE,
}
STATE = with_tensors()
STATES = [
    *(with_header("F4"), with_header("F8_E8M0"), with_header("F8_E4M3")),
    *(
        with_tensors(optimiser__x=ONE),
        with_tensors(optimiser__x__y=ONE),
        with_tensors(optimiser__0__x__y=ONE),
    ),
    *(
        with_tensors(**{**MOMENTS, name: value})
        for name in MOMENTS
        for value in (torch.zeros(3), ONE.long())
    ),
    with_tensors(optimiser__0__exp_avg=ONE),
    with_tensors(**MOMENTS, **{f"optimiser__{HUGE}__exp_avg": ONE}),
    with_tensors(bias=torch.zeros(1, dtype=torch.float64)),
]
TAMPERED: list[tuple[sa.Table, dict[str, Any]]] = [
    *((workers, {"pid": pid}) for pid in (-5, 2**31 - 1)),
    *((buffers, {"settings": value}) for value in WEIGHTINGS),
    *(
        (buffers, {"seed": seed})
        for seed in ("", "x", "1.5", "nan", "__import__('os').system('reboot')", HUGE)
    ),
    (buffers, {"score_version": 2**31 - 1}),
    (buffers, {"top_score": -1e308}),
    *((buffers, {"base_score": score}) for score in (math.nan, math.inf)),
    *((workers, {"clock": clock}) for clock in (math.inf, -math.inf)),
    *((samples, {"codec": codec}) for codec in ("", "pickle", "yaml", "os.system", "../x", "CBOR")),
    *(
        (samples, {"codec": "cbor", "payload": payload})
        for payload in (b"", b"\0", b"\xff" * 9, b"\x81" * 9_000)
    ),
    *(
        (samples, {"codec": "cbor", "payload": head + b"\x7f" * 8})
        for head in (b"\x9b", b"\xbb", b"\x5b", b"\x7b")
    ),
    *(
        (samples, {"codec": codec, "payload": b"cos\nsystem\n(S'reboot'\ntR."})
        for codec in ("pickle", "cbor", "text")
    ),
    *((samples, {"source": text}) for text in ("'; DROP TABLE pool", "\x1b[2J", "x" * 100_000)),
    *((samples, {"text": text}) for text in ("", "'; DROP TABLE pool", "x" * 100_000)),
    (samples, {"reward": 1e308}),
    (predictors, {"state": pickle.dumps(dt.date(2020, 1, 1)), "metrics": {"a": [1]}}),
]

TEXT_IN_SQLITE: list[tuple[sa.Table, str, str]] = [
    *((samples, column, "x") for column in ("reward", "score", "score_version", "requeues")),
    *((pool, column, "x") for column in ("weight", "race_key", "score", "entries")),
    *((workers, column, "x") for column in ("clock", "pid", "process_started_at", "batches")),
    *(
        (table, column, "9e999")
        for table, column in ((workers, "failed"), (buffers, "refreshed_version"))
    ),
    *((workers, column, "9e999") for column in ("removed", "added", "drawn")),
    *((batches, column, "x") for column in ("clock", "clock_before")),
    *(
        (buffers, column, "x")
        for column in ("base_score", "top_score", "score_version", "refreshed_version")
    ),
    *(
        (table, column, "never")
        for table, column in ((predictors, "trained_at"), (jobs, "last_started_at"))
    ),
    *(
        (table, column, "never")
        for table, column in ((samples, "created_at"), (buffers, "created_at"))
    ),
    *((samples, "meta", text) for text in ("{", "[" * 100_000)),
    *(
        (table, column, "nonsense")
        for table, column in ((buffers, "settings"), (predictors, "metrics"))
    ),
]
"""What no other database lets into the column."""

CALLS: list[Callable[[SampleStore], object]] = [
    lambda store: store.stats(),
    lambda store: store.waiting(),
    lambda store: store.labelled(),
    lambda store: store.top(3),
    lambda store: store.top(3, by="score"),
    lambda store: store.rewards_of(TEN),
    lambda store: store.incumbent(),
    lambda store: store.labelled_rows(),
    lambda store: store.newest_predictor(),
    lambda store: store.predictors(),
    lambda store: store.load_predictor(agent()),
    lambda store: store.history(),
    lambda store: store.jobs(),
    lambda store: store.check(),
    lambda store: store.copy(f"copy of {store.name}").close(),
    lambda store: store.sample(2, pct_argmax=0.5).release(),
    lambda store: store.sample(2).release(),
    lambda store: store.sample(-1).release(),
    lambda store: resume(store),
    lambda store: store.add(["later"]),
    lambda store: store.score(lambda samples: np.zeros(len(samples)), only="all"),
]


def resume(store: SampleStore) -> None:
    """Begin a loop where the last one stopped."""
    buffer = looping(inside.database_of(store).url)
    buffer.store = store
    buffer.before_train()


@functools.cache
def looping(url: str) -> PredictiveBuffer:
    """A loop's buffer, to be given another store: opening one takes a tenth of a second."""
    return PredictiveBuffer(0.5, 0, agent(), 8, 0, 1, 8, 1e-3, url=url, name="looping")


def tamper(store: SampleStore, table: sa.Table, values: dict[str, Any]) -> None:
    """What a stranger with the right to write does."""
    mine = (table.c.id if table is buffers else table.c.buffer_id) == inside.buffer_id(store)
    inside.execute(store, sa.update(table).where(mine).values(values))


@pytest.mark.slow
def test_tampered_rows_are_read_or_refused(store_url: str) -> None:
    with open_store(store_url, name="alongside") as alongside:
        alongside.add(TEN)
        alongside.score(scores_of)
        before = account(alongside)
        as_texts = [
            (table, {column: sa.literal_column(f"'{text}'")})
            for table, column, text in TEXT_IN_SQLITE
        ]
        # A server returns what it holds as a file does: one value for each set of columns shows it.
        of_server = {(table, *values): (table, values) for table, values in TAMPERED}.values()
        is_file = store_url.startswith("sqlite")
        for i, (table, values) in enumerate([*TAMPERED, *as_texts] if is_file else of_server):
            with open_store(store_url, name=f"tampered {i}") as store:
                store.add([*TEN, (1, 2)], meta={"a": 1})
                store.score(lambda samples: np.arange(len(samples), dtype=float))
                store.sample(3).settle([1.0] * 3)
                store.sample(1).release()
                store.save_predictor(STATE, rows_trained=3)
                store.announce_job("retrain", "now and then")
                store.save_checkpoints({"loop": b'{"size": 10, "jobs": []}'}, iteration=1)
                tamper(store, table, values)
                for call in CALLS:
                    only_our_errors(functools.partial(call, store))
            only_our_errors(lambda i=i: open_store(store_url, name=f"tampered {i}").close())
        assert account(alongside) == before
        assert alongside.check() == []


def test_tampered_states_and_loops_are_refused(store_url: str) -> None:
    """Each is: there is nothing that could be made of one."""
    with open_store(store_url) as store:
        store.save_predictor(STATE, rows_trained=3)
        store.load_predictor(agent())
        store.save_checkpoints({"loop": b'{"size": 1, "jobs": ["retrain"]}'}, iteration=0)
        resume(store)
        for loop in LOOPS:
            tamper(store, checkpoints, {"data": loop.encode()})
            with pytest.raises(InvalidPayload, match="the checkpoint 'loop' of buffer 'default'"):
                resume(store)
        for state in STATES:
            tamper(store, predictors, {"state": state})
            with pytest.raises(
                SqlBufferError,
                match=r"stored predictor (has a tensor|does not fit .*stored .*model)",
            ):
                store.load_predictor(agent())


def test_a_setting_that_makes_no_sense_is_said(store_url: str) -> None:
    with open_store(store_url) as store:
        tamper(store, buffers, {"settings": {}})
    with pytest.raises(InvalidPayload, match=r"'default'.*invalid settings.*restore a backup"):
        open_store(store_url)


def test_nothing_is_unpickled_unasked(store_url: str, tmp_path: pathlib.Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "boom"))
    with open_store(store_url) as store:
        store.add([(1, 2)])
        for codec in ("pickle", "cbor", "text"):
            tamper(store, samples, {"codec": codec, "payload": bomb})
            for call in CALLS:
                only_our_errors(functools.partial(call, store))
    assert not (tmp_path / "boom").exists()


# -- what is stored, in logs, messages and on terminals --------------------------------------------

LOUD = "\x1b[2J\x9b31m\nforged [red]\u202e\x7f"
LOOKS = (
    "stats",
    "top",
    "top --by score",
    "workers",
    "jobs",
    "claims list",
    "db check",
    "copy {name} {copy}",
    "failed",
    "retry --all",
)


def columns_of_text() -> list[sa.Column[Any]]:
    """Every column in which a stranger can write words."""
    tables = [
        table
        for table in buffers.metadata.sorted_tables
        if "buffer_id" in table.c or table is buffers
    ]
    return [
        column for table in tables for column in table.c if isinstance(column.type, (sa.Text, Json))
    ]


def is_special(column: sa.Column[Any]) -> bool:
    """Tell whether PostgreSQL stores and reads a column in a way of its own: JSON and keys."""
    return column.primary_key or not isinstance(column.type, sa.Text)


def shout(store: SampleStore, column: sa.Column[Any], words: str = LOUD) -> None:
    """Write words into a column, by default those that a terminal would obey: into one row, where
    words are a key.
    """
    value = (
        {"weighting": {"name": words}, words: words}
        if not isinstance(column.type, sa.Text)
        else words
    )
    table = column.table
    mine = (table.c.id if table is buffers else table.c.buffer_id) == inside.buffer_id(store)
    chosen = sa.update(table).where(mine)
    if column.primary_key:
        one = sa.select(sa.func.max(column)).where(mine, column != "ledger").scalar_subquery()
        chosen = chosen.where(column == one)
    inside.execute(store, chosen.values({column.name: value}))


def is_quiet(text: str) -> bool:
    """Tell whether a terminal shows a text, and does nothing else."""
    return all(line.isprintable() for line in text.split("\n")) and not any(
        line.startswith("forged") for line in text.split("\n")
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*was created with key=:UserWarning")
@pytest.mark.parametrize(
    ("kind", "column"),
    [
        *(("sqlite", column) for column in columns_of_text()),
        *(("postgresql", column) for column in columns_of_text() if is_special(column)),
    ],
    ids=str,
)
def test_no_stored_word_is_obeyed_by_a_terminal(
    kind: str,
    column: sa.Column[Any],
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    """In no message of an error, no line of a log and no output of a command, whatever
    the column.
    """
    store_url = request.getfixturevalue(f"{kind}_url")
    caplog.set_level(logging.DEBUG, "sqlbuffer")
    said = []
    with open_store(store_url, name="shouted at") as store:
        store.add([*TEN, (1, 2)], meta={"a": 1}, source="gen")
        store.score(lambda samples: np.arange(len(samples), dtype=float))
        store.sample(3).settle([1.0] * 3)
        store.sample(1).report([], [])
        store.save_predictor(STATE, rows_trained=3, metrics={"of": "mine"})
        store.announce_job("retrain", "now and then")
        store.log_metrics(0, {"loss": 1.0})
        store.save_checkpoints({"loop": b'{"size": 10, "jobs": []}'}, iteration=1)
        try:
            shout(store, column)
        except sa.exc.IntegrityError:
            assert column is buffers.c.mode, "the database itself knows the two modes"
            return
        for call in CALLS:
            try:
                call(store)
            except SqlBufferError as exc:
                said += [str(exc), repr(exc)]
        for name in ("shouted at", "not there"):
            try:
                open_store(store_url, name=name, seed=1 if name == "not there" else 0).close()
            except SqlBufferError as exc:
                said.append(str(exc))
        name = LOUD if column is buffers.c.name else "shouted at"
        for i, command in enumerate(LOOKS):
            words = [word.format(name=name, copy=f"copied {i}") for word in command.split(" ")]
            named = [] if "{name}" in command else ["--name", name]
            shown = run("--debug", *words, *named, url=store_url)
            said += [shown.out, unstyled(shown.err)]
        shown = run("top", "--name", "missing", url=store_url)
        said += [shown.out, unstyled(shown.err)]
    said += [record.getMessage() for record in caplog.records]
    assert [text for text in said if not is_quiet(text)] == []


SHOWN = [
    "\x1b[2J\x9b31m",
    "\u202etxt.exe",
    "=HYPERLINK(1)",
    "+1,2",
    "@a",
    '"',
    "a\nb\r",
    "<b>&",
    ";\t|",
]
"""Texts that a terminal, a spreadsheet or a page would obey."""


@pytest.mark.slow
def test_samples_that_fail_with_hostile_words_are_shown_exact_in_csv_and_quiet_elsewhere(
    store_url: str,
) -> None:
    """From `measure` through `failed` and `retry` to the next `measure`."""
    options = ("--reward", "helpers.rewards:refuse", "--max-calls", "9")
    with open_store(store_url, weighting="uniform") as store:
        store.add(SHOWN, SHOWN)
        said = [run("--debug", "measure", *options, url=store_url)]
        errors = {it["sample"]: it["error"] for it in store.failed()}
        assert errors.keys() == set(SHOWN)
        assert all(map(str.isprintable, errors.values()))
        for command in ("failed", "table"):
            words = (
                (command, "--csv") if command == "failed" else ("export", "-", "--format", "csv")
            )
            rows = list(csv.DictReader(io.StringIO(run(*words, url=store_url).out, newline="")))
            assert {(row["sample"], row["source"], row["error"]) for row in rows} == {
                (text, text, errors[text]) for text in SHOWN
            }
        said.append(run("failed", url=store_url))
        said.append(run("retry", "--where", "error LIKE 'ValueError%'", url=store_url))
        assert (said[-1].code, len(store)) == (0, len(SHOWN))
        said.append(run("--debug", "measure", *options, url=store_url))
        assert len(store.failed()) == len(SHOWN)
    assert all(is_quiet(unstyled(shown.out + shown.err)) for shown in said)


def test_a_log_prints_what_it_has_read_as_text() -> None:
    """Names and words of a resumed run come from the database."""
    for is_terminal in (False, True):
        console = Console(
            file=io.StringIO(), force_terminal=is_terminal, width=300, color_system=None
        )
        log = Log(console=console)
        log.environment = types.SimpleNamespace(
            batch_state=BatchState(), buffer=types.SimpleNamespace(store=None)
        )
        log.update_metric(LOUD, 1.0)
        log.update_metric("[bold]word[/bold]", LOUD)
        log.after_batch()
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert is_quiet(unstyled(shown)), shown
        assert "\\x1b[2J" in shown
        assert "[bold]word[/bold]" in shown


@pytest.mark.slow
def test_a_plot_has_names_as_they_are(store: SampleStore, tmp_path: pathlib.Path) -> None:
    names = [LOUD, "$\\frac{", "\\undefined $x$", "a_b^c"]
    store.log_metrics(0, dict.fromkeys(names, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            run("plot", "--out", str(tmp_path / "x.svg"), url=inside.database_of(store).url).code
            == 0
        )


def settle(store: SampleStore, **more: Any) -> None:
    with store.sample(1) as batch:
        batch.settle([1.0], **more)


NAMES: dict[str, Callable[[SampleStore, str], object]] = {
    "buffer": lambda store, name: open_store(inside.url_of(store), name=name).close(),
    "buffer that is there": lambda store, name: attach_existing(inside.database_of(store), name),
    "copy": lambda store, name: store.copy(name).close(),
    "source": lambda store, name: store.add(["x"], source=name),
    "sources": lambda store, name: store.add(["x"], source=[name]),
    "source of a record": lambda store, name: store.record(["x"], [1.0], name),
    "metric": lambda store, name: store.log_metrics(0, {name: 1.0}),
    "metric of a batch": lambda store, name: settle(store, metrics={name: 1.0}),
    "metric of a predictor": lambda store, name: store.save_predictor(
        b"", rows_trained=0, metrics={name: 1.0}
    ),
    "checkpoint": lambda store, name: store.save_checkpoints({name: b""}, iteration=0),
    "checkpoint of a batch": lambda store, name: settle(store, checkpoint={name: b""}),
    "checkpoint of a refresh": lambda store, name: store.score(
        scores_of, "stale", budget=1, checkpoint={name: b""}
    ),
    "checkpoint to read": lambda store, name: store.checkpoint(name),
    "checkpoints to read": lambda store, name: store.checkpoints(name),
    "job": lambda store, name: store.leased(name).__enter__(),
    "job that is announced": lambda store, name: store.announce_job(name, "daily"),
    "schedule": lambda store, name: store.announce_job("tidy", name),
    "condition": lambda store, name: store.labelled_rows(where=f"source = '{name}'"),
    "class": lambda store, name: register(type("Some", (), {}), name=name, encode=str, decode=str),
    "meta": lambda store, name: store.add(["x"], meta={name: name}),
}


@pytest.mark.parametrize("place", NAMES)
def test_a_name_that_no_database_takes_is_refused_before_it_gets_there(
    store: SampleStore, place: str
) -> None:
    store.add(TEN)
    store.score(scores_of)
    store.save_predictor(b"", rows_trained=0)
    before = account(store)
    for name in ("\0", "a\0b", "\ud800", "\udc80\udc80"):
        with pytest.raises(InvalidArgument, match=r"NUL|where must be a condition"):
            NAMES[place](store, name)
    assert (account(store)[:2], store.check()) == (before[:2], [])


def test_an_error_that_no_database_takes_is_stored_with_its_job(store: SampleStore) -> None:
    with pytest.raises(ValueError, match="half"), store.leased("tidy"):
        raise ValueError("half\0\ud800\x1b[2J" + "x" * 10**6)
    (job,) = store.jobs()
    assert (job.owner, job.is_held) == (None, False)
    assert job.last_error is not None
    assert job.last_error.startswith(r"ValueError: half\x00\ud800\x1b[2Jxxx")
    assert len(job.last_error) == 1000


@pytest.mark.filterwarnings("ignore:.*was created with key=:UserWarning")
@pytest.mark.slow
def test_nothing_that_is_stored_is_imported_or_evaluated(
    store_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each column of words holds Python that leaves a folder behind, or the name of a module that
    does.
    """
    boom = tmp_path / "boom"
    (tmp_path / "leaves_a_folder.py").write_text(f"import os\nos.mkdir({str(boom)!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code = f"__import__('os').mkdir({str(boom)!r})"
    payload = cbor2.dumps(cbor2.CBORTag(27, ["object", "leaves_a_folder.Bomb", {}]))
    with open_store(store_url) as store:
        for words in (code, "leaves_a_folder", "leaves_a_folder:make", "leaves_a_folder.Bomb"):
            alone = (
                buffers.c.settings,
                buffers.c.seed,
                samples.c.codec,
            )  # after these not much else is read
            others = [
                each
                for each in columns_of_text()
                if each not in (buffers.c.name, buffers.c.mode, *alone)
            ]
            for i, group in enumerate([others, *([each] for each in alone)]):
                again = functools.partial(open_store, store_url, name=f"{words} {i}")
                with again() as tampered:
                    tampered.add([*TEN, (1, 2)], meta={"a": 1})
                    tampered.score(lambda samples: np.arange(len(samples), dtype=float))
                    tampered.sample(3).settle([1.0] * 3)
                    tampered.save_predictor(STATE, rows_trained=3)
                    tampered.announce_job("retrain", "now and then")
                    tampered.log_metrics(0, {"loss": 1.0})
                    tampered.save_checkpoints({"loop": words.encode()}, iteration=1)
                    for column in group:
                        shout(tampered, column, words)
                    for call in CALLS:
                        only_our_errors(functools.partial(call, tampered))
                only_our_errors(lambda again=again: again().close())
        store.add([(1, 2)])
        tamper(store, samples, {"codec": "cbor", "payload": payload})
        for call in CALLS:
            only_our_errors(functools.partial(call, store))
    assert not boom.exists()
    assert "leaves_a_folder" not in sys.modules


MORE_CALLS: list[Callable[[SampleStore], object]] = [
    lambda store: store.staleness(),
    lambda store: store.score(lambda samples: np.ones(len(samples)), only="stale", budget=3),
    lambda store: store.save_predictor(STATE, rows_trained=3),
    lambda store: store.copy(f"other seed of {store.name}", seed=5).close(),
    lambda store: store.record(["recorded"], [1.0]),
    lambda store: store.remove([5, 6]),
    lambda store: mend(store),
    lambda store: store.sample(2).settle([1.0, 2.0]),
]


def mend(store: SampleStore) -> None:
    inside.handle_of(store).write(repair)


@pytest.mark.soak
def test_junk_in_any_column_is_said_or_refused(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    """Bytes, and an integer that no counter comes to, in each column of each table in turn."""
    template = tmp_path / "template.db"
    with open_store(f"sqlite:///{template}") as store:
        store.add([*TEN, (1, 2)], meta={"a": 1})
        store.score(lambda samples: np.arange(len(samples), dtype=float))
        store.sample(3).settle([1.0] * 3, metrics={"loss": 1.0}, checkpoint={"loop": b"{}"})
        store.sample(1).release()
        store.save_predictor(STATE, rows_trained=3)
        store.announce_job("retrain", "now and then")
    unsaid, raw = [], []
    for column in (column for table in audit._TABLES for column in table.columns):
        for junk in (
            b"\x00\xff",
            *([2**63 - 1] if isinstance(column.type, (sa.Integer, sa.Double)) else []),
        ):
            file = tmp_path / "tampered.db"
            shutil.copy(template, file)
            with open_store(f"sqlite:///{file}") as store:
                if not overwrite(file, column, junk):
                    continue
                said: list[str] = []
                check = functools.partial(lambda said, store: said.extend(store.check()), said)
                for call in (check, *CALLS[:18], *CALLS[19:], *MORE_CALLS):
                    try:
                        only_our_errors(functools.partial(call, store))
                    except Exception as exc:
                        raw.append(f"{column} = {junk!r}: {exc!r:.200}")
                is_of_none = column.name == "buffer_id"  # a row of another buffer, or of none
                if isinstance(junk, bytes) and not said and not is_of_none and not is_bytes(column):
                    unsaid.append(f"{column} = {junk!r}")
            for left in tmp_path.glob("tampered.db*"):
                left.unlink()
    assert (raw, unsaid) == ([], [])


def is_bytes(column: sa.Column[Any]) -> bool:
    return isinstance(column.type, sa.LargeBinary)


def overwrite(file: pathlib.Path, column: sa.Column[Any], junk: Any) -> bool:
    """Write junk into a column of every row, where it is not part of a key; return whether SQLite
    takes it.
    """
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        try:
            connection.execute(
                f"UPDATE OR IGNORE {column.table.name} SET {column.name} = ?", (junk,)
            )
        except sqlite3.IntegrityError:
            return False
        connection.commit()
    return True


def test_a_logical_time_that_none_comes_to_is_not_caught_up_with(store: SampleStore) -> None:
    """The one after it would not fit its column, and the buffer could not be used any more."""
    store.add(TEN)
    tamper(store, samples, {"created_tick": 2**63 - 1})
    with pytest.raises(InvalidPayload, match="logical time 9223372036854775807"):
        mend(store)
    tamper(store, samples, {"created_tick": 1})
    mend(store)
    assert store.check() == []


def test_a_counter_that_overflows_its_sum_is_said_to_be_corrupt(store: SampleStore) -> None:
    store.add(TEN)
    tamper(store, workers, {"added": 2**63 - 1})
    with pytest.raises(InvalidPayload, match=r"beyond the largest integer.*restore a backup"):
        store.stats() if inside.backend_of(store).schema is None else store.add(["later"])


def test_a_gap_in_the_numbers_of_samples_does_not_delay_a_copy(store: SampleStore) -> None:
    store.add(TEN)
    far = 2**60
    number = (
        sa.update(samples).where(samples.c.id == 10).values(id=far),
        sa.update(pool).values(sample_id=far),
    )
    moved = number[1].where(pool.c.sample_id == 10)
    inside.database_of(store).write(
        lambda connection: [connection.execute(each) for each in (number[0], moved)]
    )
    with store.copy("copied") as copied:
        assert (len(copied), copied.check()) == (10, [])


def test_the_largest_number_of_a_sample_leaves_none_for_others(sqlite_url: str) -> None:
    """SQLite then gives numbers at random: what is stored would not be found among the new ones,
    and would not wait.
    """
    with open_store(sqlite_url) as store:
        store.add(TEN)
        with contextlib.closing(
            sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
        ) as connection:
            connection.execute("UPDATE samples SET id = ? WHERE id = 10", (2**63 - 1,))
            connection.commit()
        with pytest.raises(
            SqlBufferError, match=r"0 rows of 1 were found again when samples were added again"
        ):
            store.add(["later"])


def test_a_weight_of_bytes_ends_no_repair_raw(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        store.add(TEN)
        store.score(scores_of)
        with contextlib.closing(
            sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
        ) as connection:
            connection.execute("UPDATE pool SET weight = x'00ff'")
            connection.execute(
                "UPDATE buffers SET score_version = 1, refresh_version = 1"
            )  # a refresh is under way
            connection.commit()
        with pytest.raises(InvalidPayload, match="the weight of a waiting sample is stored"):
            mend(store)


def test_a_version_of_bytes_ends_no_training_raw(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        store.save_predictor(STATE, rows_trained=3)
        with contextlib.closing(
            sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
        ) as connection:
            connection.execute("UPDATE predictors SET version = x'00ff'")
            connection.commit()
        with pytest.raises(InvalidPayload, match="the version of a predictor is stored as"):
            store.save_predictor(STATE, rows_trained=3)
