"""docs/schema.md is up to date, and its answers are right: each SQL runs on both databases, on a
small run whose history is known, and Python computes the same numbers.
"""

import contextlib
import dataclasses
import decimal
import importlib.util
import math
import pathlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from scipy.stats import spearmanr

from helpers.cleanup import hold
from helpers.direct import connect, sql_runner
from sqlbuffer.db import schema
from sqlbuffer.db.views import views
from sqlbuffer.store import SampleStore, open_store

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "schema.md").read_text()
SECTION = re.compile(r"^### ([^\n]*\?)\n(.*?)^```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)
ANSWERS = {question: sql for question, _, sql in SECTION.findall(PAGE)}
UCB, GREEDY = "celecoxib-ucb-0", "celecoxib-greedy-0"


# -- the page --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("schema_page", ROOT / "docs" / "schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_and_the_picture_are_up_to_date(script: Any) -> None:
    assert script.page(PAGE) == PAGE, "run python docs/schema.py"
    assert script.picture() == (ROOT / "docs" / "schema.svg").read_text()


def test_the_picture_shows_each_table_and_each_view_once(script: Any) -> None:
    boxes = [box for column in script.COLUMNS for box in column]
    assert sorted(box.name for box in boxes) == sorted(schema.metadata.tables)
    assert sorted(name for box in boxes for name in box.views.split()) == sorted(views.tables)
    for box in boxes:
        assert set(box.shows.split()) <= set(schema.metadata.tables[box.name].columns.keys())


# -- a run -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Measured:
    """One measurement that the run has stored."""

    buffer: str
    sample_id: int
    sample: str
    batch: int
    reward: float
    error: str | None
    seconds: float


@dataclasses.dataclass
class History:
    """What has happened, as the calls of the API tell it."""

    url: str
    draws: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    """Batch and sample."""
    measured: list[Measured] = dataclasses.field(default_factory=list)
    iterations: list[list[str]] = dataclasses.field(default_factory=list)
    """Samples of each settled batch."""
    trained_after: dict[int, int] = dataclasses.field(default_factory=dict)
    """Number of measurements before each version of the predictor."""
    reused: list[int] = dataclasses.field(default_factory=list)
    open_batch: list[int] = dataclasses.field(default_factory=list)
    again: int = 0
    """A sample that was released and drawn again."""

    def rows(self, table: str) -> list[Any]:
        """The rows of a table of the first buffer, or of all if they have no buffer."""
        found = schema.metadata.tables[table]
        name = schema.buffers.c.name
        statement = sa.select(found)
        if "buffer_id" in found.c:
            statement = statement.join_from(
                found, schema.buffers, schema.buffers.c.id == found.c.buffer_id
            ).where(name == UCB)
        with connect(self.url) as connection:
            return list(connection.execute(statement))

    def of(self, buffer: str) -> list[Measured]:
        return [each for each in self.measured if each.buffer == buffer]


ERRORS = {3: "ValueError: no ring: s03 (dock.py, line 7)", 7: "ValueError: no atoms"}
ERRORS |= {11: "timed out after 60 s"}


def number(sample: str) -> int:
    return int(sample[1:])


def reward(sample: str) -> float:
    """No two samples have the same, and two sources differ."""
    return math.nan if number(sample) in ERRORS else (number(sample) * 37 % 101) / 7


def score(sample: str, salt: int) -> float:
    return 0.5 + (number(sample) * 53 + salt * 29) % 103


def draw(history: History, store: SampleStore, n: int) -> Any:
    batch = store.sample(n)
    history.draws += [(batch.id, sample_id) for sample_id in batch.ids.tolist()]
    return batch


def settle(history: History, store: SampleStore, batch: Any, known: Iterable[int] = ()) -> None:
    """Measure the samples of a batch that are not known; these keep their rewards, or none."""
    rows = [
        Measured(
            store.name,
            sample_id,
            sample,
            batch.id,
            reward(sample),
            ERRORS.get(number(sample)),
            1 + number(sample) / 8,
        )
        for sample_id, sample in zip(batch.ids.tolist(), batch.samples, strict=True)
        if sample_id not in known
    ]
    history.measured += rows
    batch.settle(
        [row.reward for row in rows],
        ids=[row.sample_id for row in rows],
        errors=[row.error for row in rows],
        seconds=[row.seconds for row in rows],
    )
    if store.name == UCB:
        history.iterations.append([str(sample) for sample in batch.samples])


def train(history: History, store: SampleStore) -> int:
    n = len([each for each in history.of(UCB) if each.error is None])
    version = store.save_predictor(b"weights", rows_trained=n - 1, rows_held_out=1)
    history.trained_after[version] = len(history.of(UCB))
    return version


def run(url: str) -> History:
    """Two runs: the first with failures, two predictors, a release, rewards used again, a sample
    that is out, and a batch of a worker that has fallen silent.
    """
    history = History(url)
    with open_store(url, name=GREEDY) as store:
        store.add([f"s{i:02}" for i in range(20, 40)], source="zinc")
        store.score(lambda samples: [score(sample, 0) for sample in samples])
        settle(history, store, draw(history, store, 10))
        history.draws.clear()
    store = open_store(url, name=UCB, budget=50)
    store.add([f"s{i:02}" for i in range(14)], source="zinc")
    store.add([f"s{i:02}" for i in range(14, 24)], source="generated")
    store.score(lambda samples: [score(sample, 0) for sample in samples])
    settle(history, store, draw(history, store, 6))
    train(history, store)
    store.refresh(lambda samples: [score(sample, 1) for sample in samples])
    settle(history, store, draw(history, store, 4))
    released = draw(history, store, 2)
    history.again = int(released.ids[0])
    released.release()
    settle(history, store, draw(history, store, 4))
    train(history, store)
    settle(history, store, draw(history, store, 4))
    known = [each for each in history.of(UCB) if each.error is None][:2]
    assert store.add([each.sample for each in known], requeue=True).requeued == 2
    rest = draw(history, store, -1)
    history.reused = [each.sample_id for each in known]
    (out, *_) = [each for each in rest.ids.tolist() if each not in history.reused]
    settle(history, store, rest, known=[*history.reused, out])
    store.add([f"s{i}" for i in range(80, 86)], source="new")
    store.score(lambda samples: [score(sample, 2) for sample in samples])
    settle(history, store, draw(history, store, 6))
    store.add(["s90", "s91", "s92"], source="new")
    store.score(lambda samples: [score(sample, 2) for sample in samples])
    draw(history, store, 2).release()
    batch = hold(draw(history, store, 1))
    history.open_batch = batch.ids.tolist()
    fall_silent(url)
    return history


def fall_silent(url: str) -> None:
    sqlite, ago = url.startswith("sqlite"), "now() - interval '1 hour'"
    table = "workers" if sqlite else "sqlbuffer.workers"
    ago = "'2020-01-01T00:00:00.000+00:00'" if sqlite else ago
    sql_runner(url)(f"UPDATE {table} SET heartbeat_at = {ago}")


# -- its answers, computed in Python ---------------------------------------------------------------

EXPECTED: dict[str, Callable[[History], list[tuple[Any, ...]]]] = {}


def answers(question: str) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        EXPECTED[question] = function
        return function

    return register


def by(rows: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(sorted(groups.items()))


@answers("Which samples were trained on at iteration 812?")
def _(history: History) -> list[tuple[Any, ...]]:
    rows = {row.text: row for row in history.rows("samples")}
    return [
        (i, sample, rows[sample].source, rows[sample].score, rows[sample].reward)
        for i, sample in enumerate(history.iterations[2])
    ]


@answers("What is the best sample of each source?")
def _(history: History) -> list[tuple[Any, ...]]:
    rewarded = [row for row in history.rows("samples") if row.reward is not None]
    found = []
    for source, rows in by(rewarded, lambda row: row.source).items():
        best = max(rows, key=lambda row: row.reward)
        mean = np.mean([row.reward for row in rows])
        found.append((source, len(rows), mean, best.reward, best.text))
    return sorted(found, key=lambda row: -row[3])


@answers("How well did each version of the predictor predict?")
def _(history: History) -> list[tuple[Any, ...]]:
    def predictor(row: Any) -> int:
        return max((each for each in history.trained_after if each <= row.score_version), default=0)

    rows = [row for row in history.rows("samples") if None not in (row.score, row.reward)]
    groups = by((row for row in rows if predictor(row)), predictor)
    found = []
    for version, group in groups.items():
        scores = np.array([row.score for row in group])
        rewards = np.array([row.reward for row in group])
        correlation = spearmanr(scores, rewards).statistic
        found.append((version, len(group), np.abs(scores - rewards).mean(), correlation))
    assert [row[:2] for row in found] == [(1, 16), (2, 6)]
    return found


@answers("How long do samples wait before they are drawn?")
def _(history: History) -> list[tuple[Any, ...]]:
    drawn_at = {row.id: row.drawn_at for row in history.rows("batches")}
    samples = {row.id: row for row in history.rows("samples")}
    waited: dict[int, float] = {}
    for batch, sample_id in history.draws:  # in order: the first draw counts
        waits = (drawn_at[batch] - samples[sample_id].created_at).total_seconds()
        waited.setdefault(sample_id, waits)
    groups = by(waited.items(), lambda item: samples[item[0]].source)
    times = {source: [wait for _, wait in items] for source, items in groups.items()}
    return [(source, len(each), np.mean(each), max(each)) for source, each in times.items()]


@answers("How many measurements did duplicates save?")
def _(history: History) -> list[tuple[Any, ...]]:
    seconds = {each.sample_id: each.seconds for each in history.of(UCB)}
    return [(2, sum(seconds[each] for each in history.reused))]


@answers("What does a stale worker hold?")
def _(history: History) -> list[tuple[Any, ...]]:
    (batch,) = [
        row for row in history.rows("batches") if not row.settled_at and not row.released_at
    ]
    assert batch.id == history.draws[-1][0]
    texts = {row.id: row.text for row in history.rows("samples")}
    return [(batch.worker_id, ANY, batch.id, each, texts[each]) for each in history.open_batch]


@answers("What do failures cost, by reason?")
def _(history: History) -> list[tuple[Any, ...]]:
    failed = [each for each in history.of(UCB) if each.error]
    groups = by(failed, lambda each: str(each.error).split(":")[0])
    found = [
        (
            reason,
            len(rows),
            len({each.sample_id for each in rows}),
            sum(each.seconds for each in rows),
            min(str(each.error) for each in rows),
        )
        for reason, rows in groups.items()
    ]
    assert [row[:2] for row in found] == [("ValueError", 2), ("timed out after 60 s", 1)]
    return found


@answers("Which of two runs is better after the same number of measurements?")
def _(history: History) -> list[tuple[Any, ...]]:
    first_ten = [np.nanmax([each.reward for each in history.of(run)[:10]]) for run in (UCB, GREEDY)]
    return [(10, *first_ten)]


@answers("Are stale scores still good enough?")
def _(history: History) -> list[tuple[Any, ...]]:
    order = {each.sample_id: i for i, each in enumerate(history.of(UCB))}

    def behind(row: Any) -> int:
        place = order.get(row.id, math.inf)  # not measured: all predictors count
        trained = history.trained_after.items()
        return len([v for v, after in trained if v > row.score_version and after <= place])

    found = []
    scored = [row for row in history.rows("samples") if row.score is not None]
    for n, rows in by(scored, behind).items():
        errors = [abs(row.score - row.reward) for row in rows if row.reward is not None]
        found.append((n, len(rows), len(errors) / len(rows), np.mean(errors) if errors else None))
    assert [row[0] for row in found] == [0, 1]
    return found


@answers("How many measurements are done per hour?")
def _(history: History) -> list[tuple[Any, ...]]:
    rows = history.of(UCB)
    n_failed = len([each for each in rows if each.error])
    return [(ANY, len(rows) - n_failed, n_failed, sum(each.seconds for each in rows))]


@answers("Which measurements took longest?")
def _(history: History) -> list[tuple[Any, ...]]:
    longest = sorted(history.of(UCB), key=lambda each: -each.seconds)[:10]
    sources = {row.id: row.source for row in history.rows("samples")}
    return [
        (each.seconds, each.sample_id, each.sample, sources[each.sample_id]) for each in longest
    ]


@answers("Which samples were drawn and never measured?")
def _(history: History) -> list[tuple[Any, ...]]:
    drawn = [sample_id for _, sample_id in history.draws]
    measured = {each.sample_id for each in history.of(UCB)}
    texts = {row.id: row.text for row in history.rows("samples")}
    state = dict.fromkeys(history.open_batch, "claimed")
    found = [
        (each, texts[each], state.get(each, "waiting" if texts[each] >= "s90" else "out"))
        for each in set(drawn) - measured
    ]
    assert {row[2] for row in found} == {"claimed", "waiting", "out"}
    rows = [(*row, drawn.count(row[0])) for row in found]
    return sorted(rows, key=lambda row: (-row[3], row[0]))


@answers("What has happened to a sample?")
def _(history: History) -> list[tuple[Any, ...]]:
    row = next(row for row in history.rows("samples") if row.id == history.again)
    (measured,) = [each for each in history.of(UCB) if each.sample_id == row.id]
    told = measured.error or str(row.reward)
    events = [
        "stored",
        "scored",
        "drawn",
        "released",
        "drawn",
        "failed" if row.error else "measured",
    ]
    details = [row.source, str(row.score), ANY, ANY, ANY, told]
    return [(ANY, event, detail) for event, detail in zip(events, details, strict=True)]


@answers("What was each version of the predictor trained on?")
def _(history: History) -> list[tuple[Any, ...]]:
    sources = {row.id: row.source for row in history.rows("samples")}
    found = []
    for version, n in history.trained_after.items():
        known = [each for each in history.of(UCB)[:n] if each.error is None]
        for source, rows in by(known, lambda each: sources[each.sample_id]).items():
            mean = np.mean([each.reward for each in rows])
            found.append((version, len(known) - 1, 1, source, len(rows), mean))
    return found


@answers("How much of the budget is used?")
def _(history: History) -> list[tuple[Any, ...]]:
    with open_store(history.url, name=UCB, read_only=True) as store:
        left, stats = store.budget_left, store.stats()
    used = stats.measured + stats.failed + stats.claimed
    assert left == 50 - used
    return [(UCB, 50, used, left, stats.measured, stats.failed, stats.claimed)]


class _Any:
    """Equal to all."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY: Any = _Any()


def plain(cell: Any) -> Any:
    return float(cell) if isinstance(cell, decimal.Decimal) else cell


def is_near(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, (int, float)):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=2e-3)  # milliseconds on SQLite
    return bool(expected == found)


def are_near(found: list[Any], expected: list[Any]) -> bool:
    """Compare the columns that Python has computed, which are the first ones."""
    return len(found) == len(expected) > 0 and all(
        is_near(cell, other)
        for row, computed in zip(found, expected, strict=True)
        for cell, other in zip(row, computed, strict=False)
    )


def asked(question: str, history: History) -> str:
    """The SQL of a question, with the numbers of this run."""
    sql = ANSWERS[question].replace("iteration = 812", "iteration = 2")
    return sql.replace("sample_id = 17", f"sample_id = {history.again}")


def test_there_is_one_answer_for_each_question() -> None:
    assert len(re.findall(r"^### .*\?$", PAGE, re.MULTILINE)) == len(ANSWERS) == 15
    assert ANSWERS.keys() == EXPECTED.keys()


@pytest.mark.slow
def test_the_answers_are_those_of_python(store_url: str) -> None:
    history = run(store_url)
    wrong = {}
    with (
        open_store(store_url, name=UCB, read_only=True) as store,
        contextlib.closing(store.connect()) as connection,
    ):
        for question, computed in EXPECTED.items():
            found = connection.exec_driver_sql(asked(question, history)).all()
            rows = [[plain(cell) for cell in row] for row in found]
            expected = computed(history)
            if not are_near(rows, expected):
                wrong[question] = (rows, expected)
    assert wrong == {}


# -- from pandas and DuckDB ------------------------------------------------------------------------


def python_block(library: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if f"import {library}\n" in block]
    return found


def test_pandas_reads_through_a_connection_of_the_store(
    store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_store(store_url) as store:
        store.record(["a", "b", "c"], [1.0, 2.0, 6.0], "zinc")
    exec(python_block("pandas").replace('"run.db"', repr(store_url)), {})
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if "zinc" in line]
    assert [float(cell) for cell in row[1:3]] == [3.0, 3.0]  # count and mean


@pytest.mark.integrations
def test_duckdb_reads_the_views_in_a_process_of_its_own(tmp_path: pathlib.Path) -> None:
    """`pip install duckdb-extension-sqlite-scanner duckdb-extensions` brings the extension that the
    page downloads: 37 MB, and only for one version of DuckDB, so the extra `test` is without them.
    """
    pytest.importorskip("duckdb_extension_sqlite_scanner")
    with open_store(f"sqlite:///{tmp_path}/run.db", weighting="uniform") as store:
        store.add(["a", "b", "c"], source="zinc")
        store.sample(2).settle([1.5, 2.5])
    install = "from duckdb_extensions import import_extension; import_extension('sqlite_scanner')"
    code = re.sub(r"duckdb\.sql\(.INSTALL sqlite.\).*", install, python_block("duckdb"))
    for view in views.tables:  # all of them, not only those of the page
        code += f"\nduckdb.sql('SELECT * FROM run.{view}').fetchall()"
    command = [sys.executable, "-c", code.replace("LOAD sqlite", "LOAD sqlite_scanner")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[1:4:2] for line in done.stdout.splitlines() if "zinc" in line]
    assert (rows[0], float(rows[1][1]) > 0) == (["zinc", "2.5"], True)
