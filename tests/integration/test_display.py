"""Stores, batches, statistics, versions and loops show themselves: one line, and a table in a
notebook.
"""

import concurrent.futures
import dataclasses
import datetime as dt
import html.parser
import io
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from rich.console import Console

from helpers import inside
from helpers.cleanup import hold
from sqlbuffer import Callback, Environment, FunctionSampler, RewardCallback, _html, _notebook
from sqlbuffer.core import weights
from sqlbuffer.core.predictor_versions import PredictorVersion, PredictorVersions
from sqlbuffer.db.schema import workers
from sqlbuffer.measuring import progress as measuring_progress
from sqlbuffer.records import Stats
from sqlbuffer.store import SampleStore, open_store
from sqlbuffer.training import Buffer, Log
from sqlbuffer.training import progress as training_progress

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt;",
    "\x1b[31mred\x1b[0m\x9b2J",
    "\u202etxt.exe\u2066",
    "two\nlines",
    "</td></table>",
]
TAGS = {"div", "table", "thead", "tbody", "tr", "th", "td"}


class Reader(html.parser.HTMLParser):
    """Reads a table: its tags, its attributes and the text of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data)


def read(shown: Any) -> Reader:
    """Read the table of an object, and check that nothing in it is more than text."""
    found = shown if isinstance(shown, str) else shown._repr_html_()
    assert found is not None
    reader = Reader(found)
    assert reader.tags <= TAGS
    assert reader.attributes <= {("style", "text-align: left"), ("style", "text-align: right")}
    assert all(text.isprintable() for text in reader.texts)
    return reader


def version_of(text: str) -> PredictorVersion:
    now = dt.datetime.now(dt.timezone.utc)
    return PredictorVersion(1, 2, 3, 4, 0.5, None, float("nan"), 0.9, {text: text}, now, text, 0)


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(new_store: Callable[..., SampleStore], text: str) -> None:
    store = new_store(name=text.replace("\x9b", "").replace("\n", " "), weighting="uniform")
    store.add([text], source=text)
    batch = hold(store.sample(1))
    loop = Callback(text.replace("\n", " "))
    environment = Environment(
        cbs=[loop], buffer=Buffer(1.0, url=inside.url_of(store), name=store.name)
    )
    versions = PredictorVersions([version_of(text)])
    stats = dataclasses.replace(store.stats(), name=text)
    for shown in (store, batch, environment, versions, versions[0], stats):
        assert repr(shown).isprintable()
        read(shown)
    assert _html.cell(text) in read(batch).texts
    assert _html.cell(text) in read(stats).texts
    environment.buffer.store.close()


def test_a_repr_says_what_a_thing_is(store: SampleStore) -> None:
    store.add(["a", "b", "c"])
    store.record(["d"], [1.5])
    assert repr(store) == f"SampleStore({store.url!r}, name='default', waiting=3, measured=1)"
    shown = read(store).texts
    assert shown[shown.index("measured") + 1] == "1"
    store.score(lambda samples: [1.0] * len(samples))
    batch = store.sample(2)
    assert repr(batch) == f"Batch(id={batch.id}, size=2, state='open')"
    batch.report(batch.ids[:1], [0.25])
    assert "0.25" in read(batch).texts
    batch.release()
    assert repr(batch).endswith("state='ended')")
    leased = store.sample(1, lease_s=60)
    leased.detach()
    assert repr(leased).endswith("state='detached')")


def test_a_repr_writes_nothing(store_url: str) -> None:
    open_store(store_url).close()
    store = open_store(store_url)
    with store.connect() as connection:
        before = connection.execute(sa.select(workers)).all()
        repr(store)
        read(store)
        assert connection.execute(sa.select(workers)).all() == before
    store.close()


def test_a_closed_store_shows_itself_and_stays_closed(store: SampleStore) -> None:
    store.add(["a"])
    store.close()
    assert "waiting=1" in repr(store)
    assert "waiting" in read(store).texts
    assert inside.database_of(store)._engines == {}


def test_a_database_that_is_gone(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "gone.db"
    store = open_store(f"sqlite:///{file}")
    store.close()
    file.unlink()
    assert "unreadable: DatabaseUnavailable" in repr(store)
    assert "unreadable" in read(store).texts
    assert not file.exists()


def test_a_deleted_buffer(store: SampleStore) -> None:
    store.delete()
    assert "unreadable: BufferNotFound" in repr(store)
    read(store)


def test_an_object_that_is_half_made_shows_its_repr() -> None:
    assert Environment.__new__(Environment)._repr_html_() is None
    assert Stats.__new__(Stats)._repr_html_() is None


def test_values_in_a_cell() -> None:
    assert [
        _html.cell(value) for value in (None, 12_345, 0.123456789, True, {"a": 1}, float("nan"))
    ] == ["-", "12,345", "0.123457", "True", '{"a": 1}', "nan"]
    assert len(_html.cell("x" * 1_000)) == _html.LONGEST


# -- live tables ----------------------------------------------------------------------------------


class Output:
    """The output of a cell: each display, with its newest state."""

    def __init__(self) -> None:
        self.displays: list[list[dict[str, str]]] = []

    def display(self, data: dict[str, str]) -> Any:
        states = [data]
        self.displays.append(states)

        class Handle:
            def update(self, data: dict[str, str], *, raw: bool) -> None:
                assert raw
                states.append(data)

        return Handle()

    def only(self) -> list[str]:
        """Return the texts of the newest state of the only display."""
        (states,) = self.displays
        return read(states[-1]["text/html"]).texts


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Output:
    """Lets this process pass for a notebook."""
    made = Output()
    monkeypatch.setattr(_notebook, "_display", made.display)
    for module in (weights, measuring_progress):
        monkeypatch.setattr(module, "in_notebook", lambda: True)
    return made


@pytest.mark.slow
def test_a_measurement_has_one_table(output: Output, tmp_path: pathlib.Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/m.db", name="<b>", weighting="uniform") as store:
        store.add(["a", "bb", "ccc"])
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            store.measure(_length, executor=executor)
    assert output.only()[:9] == [
        *("measuring <b>", "measured", "failed", "left", "rate", "seconds", "2", "1", "0")
    ]


def _length(text: str) -> int:
    if text == "bb":
        raise ValueError(text)
    return len(text)


def fit(tmp_path: pathlib.Path, reward: Any, **options: Any) -> Log:
    """Run a loop in a notebook."""
    log = Log(console=Console(file=io.StringIO(), force_jupyter=True))
    environment = Environment(
        samplers=[FunctionSampler(lambda n, rng: rng.integers(0, 99, n).tolist(), "dice")],
        rewards=[RewardCallback(reward)],
        buffer=Buffer(1.0, url=f"sqlite:///{tmp_path}/f.db"),
        log=log,
    )
    try:
        environment.fit(4, **options)
    finally:
        environment.buffer.store.close()
    return log


@pytest.mark.slow
def test_a_fit_has_one_table(output: Output, tmp_path: pathlib.Path) -> None:
    log = fit(tmp_path, lambda samples: [1.0] * len(samples), iters=6, report=2)
    texts = output.only()
    assert texts[0].startswith("6 of 6 iterations")
    rows = [texts[i : i + 5] for i in range(1, len(texts), 5)]
    assert rows[0] == ["iteration", "bs", "rewards", "rewards_max", "reward"]
    assert [row[0] for row in rows[1:]] == ["0", "2", "4"]
    assert log.live is None


@pytest.mark.slow
def test_a_long_fit_shows_its_newest_rows(
    output: Output, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_progress, "ROWS", 2)
    fit(tmp_path, lambda samples: [1.0] * len(samples), iters=5, report=1)
    texts = output.only()
    assert [texts[i] for i in range(6, len(texts), 5)] == ["3", "4"]


class Failing(Callback):
    """Fails in the second iteration."""

    def after_sample(self) -> None:
        if self.environment.log.iterations:
            raise ZeroDivisionError


@pytest.mark.slow
def test_a_fit_that_fails_leaves_its_last_state(output: Output, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, lambda samples: [1.0] * len(samples), iters=5, report=1, cbs=[Failing()])
    assert output.only()[0].startswith("1 of 5")


def test_a_bar_in_a_notebook_is_a_table(output: Output, store: SampleStore) -> None:
    store.add(["a", "bb"])
    store.score(lambda samples: [1.0] * len(samples), silent=False)
    assert output.only() == ["scoring new samples", "done", "of", "2", "-"]


# -- bars -----------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_is_not_in_a_pipe_of_results(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stdout, stderr = io.StringIO(), Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setattr("sys.stderr", stderr)

    def score(samples: list[str]) -> list[float]:
        print("a result")
        return [1.0] * len(samples)

    store.add(["a"])
    store.score(score, silent=False)
    assert stdout.getvalue() == "a result\n"
    assert ("scoring new samples" in stderr.getvalue()) is is_terminal
