"""Pictures of buffers: their numbers are those that Python computes, and both libraries draw every
mark.
"""

import dataclasses
import itertools
import json
import math
import pathlib
import re
import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers import inside
from helpers.commands import refused, run, unstyled
from sqlbuffer import plots
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.looks import overview
from sqlbuffer.plots import _matplotlib, _plotly, palette
from sqlbuffer.plots.kinds import best, common, failures, flow, scores, sources, staleness, times
from sqlbuffer.plots.kinds import predicted as kind_predicted
from sqlbuffer.plots.picture import Axis, Bars, Data, Line, Panel, Picture, Points, Spans, drawable
from sqlbuffer.plots.registry import KINDS
from sqlbuffer.predictor.metrics import rank_correlation
from sqlbuffer.store import SampleStore, open_store

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "right\u202eleft",
    "$\\frac{1}{2}$",
    "%{x} {{ 7 * 7 }} {% raw %}",
    "'\"&amp;&lt;",
    "<b>bold</b> <a href='javascript:alert(1)'>x</a>",
    "\u4e2d\u6587",
]


def fill(store: SampleStore, *, n: int = 40, seed: int = 0) -> None:
    """Add samples of three sources, draw and measure most of them, train two predictors."""
    rng = np.random.default_rng(seed)
    for source in ("a", "b", "c"):
        store.add([f"{source}{i}" for i in range(n)], source=source)
    store.score(lambda samples: rng.normal(size=len(samples)))
    for i in range(4):
        batch = store.sample(n // 2)
        rewards = rng.normal(size=len(batch.samples)).round(2)
        rewards[rng.random(len(rewards)) < 0.2] = np.nan
        errors = [f"Error{j % 2}: {j % 4}" if r != r else None for j, r in enumerate(rewards)]
        batch.settle(rewards, errors=errors, seconds=rng.gamma(2, size=len(rewards)))
        if i % 2 == 0:
            store.save_predictor(b"x", rows_trained=i, metrics={"rank_correlation": 0.5})
            store.score(lambda samples: rng.normal(size=len(samples)), only="stale", budget=n // 2)
    store.record(["a0", "new"], [9.0, math.nan], "d", seconds=[1.0, 4.0])
    store.record(["a0"], [-9.0], "d", seconds=[2.0])


@pytest.fixture(params=["maximize", "minimize"])
def filled(new_store: Callable[..., SampleStore], request: pytest.FixtureRequest) -> SampleStore:
    store = new_store(direction=request.param)
    fill(store)
    return store


def rows_of(store: SampleStore, sql: str) -> list[Any]:
    with store.connect() as connection:
        return list(connection.exec_driver_sql(sql).mappings())


def measured(store: SampleStore) -> list[Any]:
    return rows_of(store, "SELECT * FROM measurement_overview ORDER BY measurement_id")


def read(store: SampleStore, kind: str, **options: Any) -> Any:
    return inside.handle_of(store).read(KINDS[kind].read, **options)


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [10_000, 60])
@pytest.mark.parametrize("most_better", [best._MOST_BETTER, 3])  # as rewards that ever improve
def test_the_best_so_far_is_that_of_a_loop_over_measurements(
    filled: SampleStore, most: int, most_better: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best, "_MOST_BETTER", most_better)
    sign = -1 if filled.direction == "minimize" else 1
    so_far: dict[Any, float] = {}
    seconds, expected = 0.0, []
    for row in measured(filled):
        seconds += row["seconds"]
        if row["reward"] is not None:
            known = so_far.get(row["sample_id"], -math.inf)
            so_far[row["sample_id"]] = max(known, sign * row["reward"])
            top = sorted(so_far.values(), reverse=True)[:3]
            mean = sign * np.mean(top) if len(top) == 3 else math.nan
            expected.append((len(expected) + 1, seconds, sign * top[0], mean))
    curve = read(filled, "best", k=3, most=most)
    assert curve.measured == len(expected)
    if most > 60:
        assert len(curve.best) == len(expected)
    else:
        assert 12 <= len(curve.best) <= 16
    wanted = np.array(expected)[curve.measurements - 1]
    found = np.column_stack([curve.measurements, curve.best, curve.top])
    assert found == pytest.approx(wanted[:, [0, 2, 3]], nan_ok=True)
    later = np.append(np.array(expected)[1:, 1], np.inf)[curve.measurements - 1]
    assert (curve.seconds >= wanted[:, 1] - 1e-9).all()  # a part may end with failures
    assert (curve.seconds <= later).all()
    assert curve.measurements[-1] == len(expected)
    assert curve.best[-1] == 9.0 * sign


def test_predictions_are_compared_with_rewards(filled: SampleStore) -> None:
    sign = -1 if filled.direction == "minimize" else 1
    of = {row["sample_id"]: row for row in rows_of(filled, "SELECT * FROM sample_overview")}
    expected = [
        (
            of[row["sample_id"]]["predictor"] or -1,
            sign * of[row["sample_id"]]["score"],
            row["reward"],
        )
        for row in measured(filled)
        if row["reward"] is not None and of[row["sample_id"]]["score"] is not None
    ]
    found = read(filled, "predicted")
    pairs = zip(found.version, found.predicted, found.measured, strict=True)
    assert sorted(pairs) == sorted(expected)
    for version, correlation, n in zip(
        found.versions, found.correlation, found.samples, strict=True
    ):
        own = np.array([row[1:] for row in expected if row[0] == version]).reshape(-1, 2)
        assert n == len(own)
        assert n >= 10 or math.isnan(correlation)
        if n >= 10:
            assert correlation == pytest.approx(rank_correlation(own[:, 0], own[:, 1]))
    assert {int(version) for version in found.versions} >= {p.version for p in filled.predictors()}
    assert len(read(filled, "predicted", most=10).measured) <= 10


def test_sources_have_the_quartiles_of_their_rewards(filled: SampleStore) -> None:
    rows, found = measured(filled), read(filled, "sources")
    rewards = [row["reward"] for row in rows if row["reward"] is not None]
    tenth = sorted(rewards, reverse=filled.direction == "maximize")[-(-len(rewards) // 10) - 1]
    for i, source in enumerate(found.sources):
        own = [row for row in rows if row["source"] == source]
        values = [row["reward"] for row in own if row["reward"] is not None]
        assert (found.measured[i], found.failed[i]) == (len(values), len(own) - len(values))
        if values:
            quartiles = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")
            assert [found.low[i], found.median[i], found.high[i]] == quartiles.tolist()
            pick = min if filled.direction == "minimize" else max
            assert found.best[i] == pick(values)
    assert found.among_best.sum() == -(-len(rewards) // 10)
    assert tenth is not None
    assert (found.total, set(found.sources)) == (4, {"a", "b", "c", "d"})
    assert read(filled, "sources", most=2).total == 4


def test_failures_are_counted_by_reason(filled: SampleStore) -> None:
    errors = [row["error"] for row in measured(filled) if row["error"] is not None]
    found = read(filled, "failures")
    counted = Counter(error.partition(":")[0] for error in errors)
    assert dict(zip(found.reasons, found.failures.tolist(), strict=True)) == counted
    assert (found.failed, found.total) == (len(errors), len(counted))
    for reason, example in zip(found.reasons, found.examples, strict=True):
        own = Counter(error for error in errors if error.partition(":")[0] == reason)
        assert example == min(own, key=lambda error: (-own[error], error))
    assert found.failures.tolist() == sorted(counted.values(), reverse=True)


def test_times_are_quartiles_of_the_newest(filled: SampleStore) -> None:
    found = read(filled, "times")
    seconds = [row["seconds"] for row in measured(filled) if row["reward"] is not None]
    at = found.events.index("measured")
    assert found.n[at] == len(seconds)
    assert found.median[at] == pytest.approx(statistics.median(seconds))
    assert found.longest[at] == max(seconds)
    assert found.events == ["waiting", "claimed", "measured", "failed"]
    assert not found.is_part
    assert read(filled, "times", most=9).is_part


def test_flow_ends_with_the_counts_of_the_buffer(filled: SampleStore) -> None:
    found, stats = read(filled, "flow"), filled.stats()
    assert found.stored[-1] == found.read == stats.stored
    assert found.drawn[-1] == stats.drawn
    rows = measured(filled)
    n_failed = sum(row["reward"] is None for row in rows)
    assert (found.measured[-1], found.failed[-1]) == (len(rows) - n_failed, n_failed)
    assert found.stored_at == sorted(found.stored_at)
    few = read(filled, "flow", most=16)
    assert (few.measured[-1], few.failed[-1], few.drawn[-1]) == (
        *(found.measured[-1], found.failed[-1], found.drawn[-1]),
    )
    assert max(len(few.stored_at), len(few.drawn_at), len(few.measured_at)) <= 8


def test_scores_and_staleness_are_of_waiting_samples(filled: SampleStore) -> None:
    waiting = rows_of(filled, "SELECT * FROM sample_overview WHERE state = 'waiting'")
    found, stale = read(filled, "scores"), read(filled, "staleness")
    expected = [row["score"] for row in waiting if row["score"] is not None]
    shares, _ = np.histogram(expected, found.edges)
    assert found.waiting == pytest.approx(shares / len(expected))
    assert (found.n_waiting, found.n_drawn) == (len(expected), filled.stats().drawn)
    trained = [each.version for each in filled.predictors()]
    behind = Counter(
        -1 if (v := row["score_version"]) is None else sum(t > v for t in trained)
        for row in waiting
    )
    assert dict(zip(stale.behind.tolist(), stale.waiting.tolist(), strict=True)) == behind


def test_many_samples_are_shown_by_an_even_choice_of_them(store: SampleStore) -> None:
    store.add([f"s{i}" for i in range(3000)])
    store.score(lambda samples: np.arange(len(samples), dtype=float))
    found = read(store, "scores", most=1200)
    assert 400 < found.n_waiting < 600
    assert np.abs(found.waiting - 1 / 40).max() < 0.03
    stale = read(store, "staleness", most=600)
    assert stale.read < stale.total == 3000
    assert (
        f"from {stale.read:,} of 3,000 waiting samples" in KINDS["staleness"].picture([stale]).note
    )
    few = read(store, "flow", most=1200)
    assert few.stored[-1] == 3000
    assert few.read == len(few.stored_at) < 600


def test_many_measurements_are_shown_by_an_even_choice_of_them(filled: SampleStore) -> None:
    every = measured(filled)
    found = read(filled, "sources", most_rows=20)
    read_too = [every[0], *every[found.step :: found.step]]
    if (len(every) - 1) % found.step:
        read_too.append(every[-1])
    own = Counter(row["source"] for row in read_too if row["reward"] is not None)
    assert dict(zip(found.sources, found.measured.tolist(), strict=True)) == {
        source: own[source] for source in found.sources
    }
    assert found.measured.sum() + found.failed.sum() == len(read_too) <= 20
    assert found.among_best.sum() == -(-found.measured.sum() // 10)
    note = KINDS["sources"].picture([found]).note
    assert note == f"from one in {found.step} of {len(every)} measurements"


def test_an_earlier_objective_has_its_own_best(store: SampleStore) -> None:
    store.record(["a", "b"], [1.0, 2.0])
    store.remeasure("other")
    assert len(read(store, "best").best) == 0
    assert read(store, "best", objective="reward").best.tolist() == [1.0, 2.0]
    with pytest.raises(InvalidArgument, match="has never had the objective 'none'"):
        plots.best(store, objective="none")


def test_all_data_is_json(filled: SampleStore) -> None:
    for kind in KINDS:
        json.dumps(read(filled, kind).as_dict(), allow_nan=False)


# -- bands -----------------------------------------------------------------------------------------


def curve(name: str, rewards: list[float], direction: str = "maximize") -> best.Curve:
    n = len(rewards)
    so_far = np.maximum.accumulate(np.array(rewards, dtype=np.float64))
    numbers = np.arange(1, n + 1)
    return best.Curve(name, direction, "reward", 1, numbers, numbers * 2.0, so_far, so_far, n, 0, n)


def test_several_runs_are_a_median_in_a_band() -> None:
    runs = [curve("a", [1, 2, 3]), curve("b", [5, 5, 6, 7]), curve("c", [0, 9, 9]), curve("d", [])]
    found = best.course("seeds", runs, "seconds")
    assert (found.runs, found.spent.tolist()) == (3, [2.0, 4.0, 6.0])
    assert (found.best.tolist(), found.low.tolist(), found.high.tolist()) == (
        *([1.0, 5.0, 6.0], [0.0, 2.0, 3.0], [5.0, 9.0, 9.0]),
    )
    (panel,) = best.picture({"seeds": runs, "one": [curve("e", [1.0])]}, x="seconds").panels
    bands = [mark for mark in panel.marks if isinstance(mark, Line) and mark.low is not None]
    assert [mark.name for mark in bands] == ["seeds, median of 3 runs"]


def test_a_mean_begins_with_the_last_of_the_best() -> None:
    run = dataclasses.replace(curve("a", [1, 2, 3]), top=np.array([np.nan, 1.5, 2.5]))
    few = dataclasses.replace(curve("b", [1]), top=np.array([np.nan]))
    (panel,) = best.picture([run, few]).panels
    assert [list(mark.x) for mark in panel.marks if isinstance(mark, Line)] == [
        [1, 2, 3],
        [2, 3],
        [1],
    ]


def test_a_shorter_run_is_drawn_on_top_of_its_copy() -> None:
    runs = [curve("run", [1, 2]), curve("copy", [1, 2, 3]), curve("empty", [])]
    (panel,) = best.picture(runs).panels
    named = [(mark.name, mark.color) for mark in panel.marks]
    assert named[::2] == [("copy", "series-1"), ("run", "series-0")]


def test_equal_runs_are_both_seen() -> None:
    """Lines that lie upon each other have one width, and dashes at other places."""
    runs = [curve(name, [1, 2, 2]) for name in ("a", "b", "c")]
    other = curve("other", [1, 3, 3])
    (panel,) = best.picture([*runs, other, curve("short", [1, 2])]).panels
    assert [(mark.name, mark.turn) for mark in panel.marks] == [
        *(("a", (0, 4)), ("b", (1, 4)), ("c", (2, 4)), ("other", (0, 1)), ("short", (3, 4))),
    ]
    (axes,) = _matplotlib.draw(best.picture(runs)).axes
    assert len({line.get_linewidth() for line in axes.lines[::2]}) == 1
    traces = _plotly.describe(best.picture(runs))["data"]
    assert len({trace["line"]["width"] for trace in traces}) == 1
    assert traces[0]["line"]["dash"] == "solid"
    assert len({trace["line"]["dash"] for trace in traces}) == len(traces)


@pytest.mark.parametrize("is_dashed", [False, True])
def test_of_lines_that_take_turns_each_is_seen_somewhere(is_dashed: bool) -> None:
    x = np.arange(2.0)
    for n in range(1, 6):
        lines = [Line("a", "best", x, x, is_dashed=is_dashed, turn=(k, n)) for k in range(n)]
        found = [line.dashes(8.0, 32.0) for line in lines]
        taken = [(gap, gap + dash) for gap, dash, _ in filter(None, found)]
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(taken))
        assert len({round(sum(each), 9) for each in found if each}) <= 1
        assert [each is None for each in found] == [
            n == 1 or (k == 0 and not is_dashed) for k in range(n)
        ]


def test_buffers_of_one_name_are_told_apart_and_other_directions_refused() -> None:
    (panel,) = best.picture([curve("a", [1.0]), curve("a", [2.0])]).panels
    assert [mark.name for mark in panel.marks][::2] == ["a (1)", "a (2)"]
    with pytest.raises(InvalidArgument, match="'a' is to maximize, 'b' to minimize"):
        best.picture([curve("a", [1.0]), curve("b", [1.0], "minimize")])
    with pytest.raises(InvalidArgument, match="at least one"):
        best.picture([])
    with pytest.raises(InvalidArgument, match="at least one store"):
        plots.scores([])


# -- drawing ---------------------------------------------------------------------------------------


def pictures_of(store: SampleStore) -> dict[str, Picture]:
    return {kind: made.picture([read(store, kind)]) for kind, made in KINDS.items()}


def n_traces(panel: Panel) -> int:
    """Traces of Plotly: a band is two more."""
    return sum(3 if isinstance(mark, Line) and mark.low is not None else 1 for mark in panel.marks)


@pytest.mark.slow
def test_both_libraries_draw_every_mark(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        fill(store)
        found = pictures_of(store)
    for picture in found.values():
        assert all(panel.marks for panel in picture.panels)
        figure = _matplotlib.draw(picture)
        described = _plotly.figure(picture)
        assert len(described.data) == sum(map(n_traces, picture.panels))
        json.dumps(_plotly.describe(picture, "dark"), allow_nan=False)
        for axes, panel in zip(figure.axes, picture.panels, strict=True):
            n_bars = sum(len(mark.places) for mark in panel.marks if isinstance(mark, Bars))
            assert len(axes.patches) == n_bars
            assert len(axes.lines) == sum(isinstance(mark, Line) for mark in panel.marks)
            n_points = sum(not isinstance(mark, Line | Bars) for mark in panel.marks)
            assert len(axes.collections) == n_points
    assert _matplotlib.draw(found["best"], "dark")._repr_png_().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_buffer_without_data_says_so_in_its_pictures(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        empty = pictures_of(store)
        store.record(["one"], [0.5])
        one = pictures_of(store)
    for kind, picture in empty.items():
        for panel, axes in zip(picture.panels, _matplotlib.draw(picture).axes, strict=True):
            assert not panel.marks
            assert [text.get_text() for text in axes.texts] == [panel.why_empty], kind
            assert panel.empty.endswith("."), kind
            assert not axes.axison, "a frame would look like a picture that is not finished"
        notes = [each["text"] for each in _plotly.describe(picture)["layout"]["annotations"]]
        assert {panel.empty for panel in picture.panels} <= {
            text.replace("<br>", " ") for text in notes
        }
    assert one["best"].panels[0].marks
    for kind in ("best", "flow", "times"):  # ticks of one number, one moment, and none
        _matplotlib.draw(one[kind])._repr_png_()


@pytest.mark.slow
def test_texts_of_a_buffer_are_shown_as_text(sqlite_url: str) -> None:
    with open_store(sqlite_url, name=HOSTILE[0]) as store:
        for text in HOSTILE:
            store.record([text, f"{text}2"], [1.0, math.nan], text, errors=[None, text])
        data = read(store, "sources")
        picture = KINDS["sources"].picture([data, data])
        figure = plots.best([store, store])
    drawn = _matplotlib.draw(picture)
    labels = [each.get_text() for each in drawn.axes[0].get_yticklabels()]
    assert "$\\frac{1}{2}$" in labels
    assert "right\\u202eleft" in labels
    drawn._repr_png_()  # a $ is no formula, a character without a glyph no warning
    figure._repr_png_()
    layout = _plotly.describe(picture)["layout"]
    texts = [*layout["yaxis"]["ticktext"], *(each["text"] for each in layout["annotations"])]
    assert "&lt;script&gt;alert(1)&lt;/s" in "".join(texts)
    assert not re.search(r"<(?!/?b>)", "".join(texts))
    assert "\u202e" not in json.dumps(layout, ensure_ascii=False)


@pytest.mark.parametrize(
    "numbers",
    [
        [5e-324, -1e-310, 0.0] * 4,
        [1e300, 1.7e308, -1e300, -1.7e308] * 3,  # PostgreSQL refuses a sum that overflows
        [1.7e308],
        [-1.7e308] * 12,
    ],
    ids=["tiny", "huge", "single", "equal"],
)
@pytest.mark.slow
def test_numbers_of_any_size_are_drawn(
    numbers: list[float], new_store: Callable[..., SampleStore]
) -> None:
    store = new_store(direction="minimize")
    n = len(numbers)
    store.add([f"s{i}" for i in range(3 * n)])
    store.score(lambda samples: np.resize(numbers, len(samples)))
    store.save_predictor(b"x", rows_trained=1)
    batch = store.sample(n)
    batch.settle(np.resize(numbers, len(batch.samples)), seconds=np.abs(numbers))
    store.record(["f", "g"], [math.nan, math.nan], seconds=[abs(numbers[0])] * 2)
    for kind, made in KINDS.items():
        data = read(store, kind)
        json.dumps(data.as_dict(), allow_nan=False)
        picture = made.picture([data])
        _matplotlib.draw(picture).draw_without_rendering()
        json.dumps(_plotly.describe(picture), allow_nan=False)
        assert picture.panels[0].marks, kind
    curve = read(store, "best")
    assert curve.best[-1] == min(numbers)
    assert n == 1 or min(numbers) <= curve.top[-1] <= max(numbers)
    found = inside.handle_of(store).read(overview.overview)
    assert min(numbers) <= found["mean_of_best"] <= max(numbers)
    inside.handle_of(store).read(overview.saved_by_duplicates)
    store.stats()
    assert run("batches", url=inside.url_of(store)).code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "numbers",
    [
        [1.7e308, -1.7e308, 1e300, 0.0, 5e-324, math.nan, math.inf, -math.inf],
        [5e-324, 1e-310, -5e-324],
        [math.nan, math.inf],
        [],
    ],
    ids=["mixed", "tiny", "none is finite", "none"],
)
def test_both_libraries_draw_any_floats(numbers: list[float]) -> None:
    column = np.array(numbers, dtype=np.float64)
    positive, places = np.abs(column) + 1e-4, np.arange(len(column))
    line = Line("line", "best", column, column, low=column, high=column)
    points = Points("points", "top", positive, column)
    bars = Bars("bars", "drawn", places, column, on=column)
    spans = Spans("spans", "older", places, positive, positive)
    named = Axis("", "names", [str(each) for each in numbers])
    panels = [
        Panel(Axis("x"), Axis("y", "count"), [line, points, bars]),
        Panel(Axis("x", "log"), Axis("y"), [points]),
        Panel(Axis("x", "log"), named, [spans]),
    ]
    picture = Picture("any", "", panels)
    figure = _matplotlib.draw(picture)
    figure.draw_without_rendering()
    json.dumps(described := _plotly.describe(picture), allow_nan=False)
    has_marks = bool(np.isfinite(column).any())
    assert bool(described["data"]) == has_marks
    assert all(bool(axes.collections) == has_marks for axes in figure.axes)


def test_a_number_that_is_drawn_elsewhere_is_told() -> None:
    (mark,) = drawable(best.picture([curve("a", [1e300])])).panels[0].marks[:1]
    assert isinstance(mark, Line)
    assert list(mark.y) == [1e200]
    note = "numbers beyond 1e+200 are drawn at it"
    assert drawable(best.picture([curve("a", [1e300])])).note == note
    assert drawable(best.picture([curve("a", [1e199])])).note == ""


def test_a_correlation_of_few_rows_is_not_shown(new_store: Callable[..., SampleStore]) -> None:
    store = new_store()
    store.add([f"s{i}" for i in range(60)])
    for n, held_out in ((12, 9), (4, 10), (25, 400)):
        store.save_predictor(
            b"x", rows_trained=1, rows_held_out=held_out, metrics={"rank_correlation": 0.5}
        )
        store.refresh(lambda samples: np.arange(len(samples), dtype=np.float64))
        store.sample(n).settle(np.arange(n, dtype=np.float64))
    found = read(store, "predicted")
    assert np.isfinite(found.correlation).tolist() == [True, False, True]
    assert np.isfinite(found.held_out).tolist() == [False, True, True]
    assert KINDS["predicted"].picture([found]).note == (
        "rank correlations of 12 to 25 drawn samples; rank correlations of 10 to 400 rows held "
        f"out; none below 10, such as of version {found.versions[1]} with 4"
    )
    lines = run("predictors", url=inside.url_of(store)).out.splitlines()
    place = lines[0].split().index("rank_correlation")
    assert [line.split()[place] for line in lines[1:]] == ["-", "0.5", "0.5"]
    given = json.loads(run("predictors", "--json", url=inside.url_of(store)).out)
    assert [row["rank_correlation"] for row in given] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (lambda store: store.add(["a"]), {"best": "Nothing is measured yet."}),
        (
            lambda store: store.record(["a", "b"], [math.nan, math.nan]),
            {
                "best": "There is no reward: 2 measurements failed.",
                "predicted": "There is no reward: 2 measurements failed.",
                "sources": "There is no reward: 2 measurements failed.",
                "staleness": "No sample waits.",
            },
        ),
        (
            lambda store: store.record(["a"], [1.0]),
            {
                "predicted": "No measured sample has a score.",
                "failures": "Nothing has failed in 1 measurement.",
            },
        ),
    ],
    ids=["waits", "failed", "measured"],
)
def test_an_empty_panel_says_why(
    fill: Callable[[SampleStore], Any], expected: dict[str, str], sqlite_url: str
) -> None:
    with open_store(sqlite_url) as store:
        fill(store)
        found = pictures_of(store)
    for kind, sentence in expected.items():
        assert [each.empty for each in found[kind].panels if not each.marks] == [sentence], kind


def test_points_are_thinned_and_say_so() -> None:
    n = 9000
    numbers = np.arange(n, dtype=np.float64)
    data = kind_predicted.Predicted(
        *("x", "maximize", "reward", numbers, numbers, np.full(n, -1)),
        *(np.array([-1]), np.array([0.5]), np.array([np.nan]), np.array([n]), 11),
        *(n, 0, np.array([np.nan])),
    )
    picture = KINDS["predicted"].picture([data])
    ((points,),) = [panel.marks for panel in picture.panels]
    assert isinstance(points, Points)
    assert (len(points.x), points.name) == (3000, "measured samples (9,000)")
    assert picture.note == "from one in 11 measurements; one of 3 points is drawn"
    _matplotlib.draw(picture)._repr_png_()


def test_a_far_score_does_not_hide_the_others() -> None:
    edges, is_clipped = scores._edges(np.array([*np.linspace(0, 1, 100), -1e9]), 40)
    assert is_clipped
    assert edges[-1] - edges[0] < 20
    assert scores._shares(np.array([-1e9, 0.5]), edges).sum() == 1.0
    assert scores._edges(np.array([2.0, 2.0]), 40)[0].tolist()[0] < 2.0


def test_more_names_than_a_picture_shows_are_told() -> None:
    n = 30
    numbers = np.arange(n, 0, -1)
    floats = numbers.astype(np.float64)
    data = sources.Sources(
        *("x", "maximize", "reward", [f"source {i}" for i in range(n)], numbers, numbers),
        *(floats, floats, floats, floats, numbers * 0, 44),
    )
    picture = KINDS["sources"].picture([data])
    assert picture.panels[0].y.names[-1] == "source 0"
    assert len(picture.panels[0].y.names) == 10
    assert picture.note == "the 10 sources with most measurements, of 44"
    errors = ["e: 1\n2", "e"] + [f"e: {'x' * 200}"] * 28
    failed = failures.Failures("x", ["e"] * n, numbers, floats, errors, 1200, 900, 100)
    note, *lines = KINDS["failures"].picture([failed]).note.split("\n")
    assert note == (
        "900 of 1,000 tries of a measurement failed; the 10 most frequent of 1,200 reasons; "
        "the commonest error of each reason:"
    )
    assert (len(lines), lines[0], lines[1]) == (4, "e: 1 2", f"e: {'x' * 76}…")
    stale = staleness.Staleness("x", np.arange(-1, n), np.full(n + 1, 2), 62, 62, 0.9)
    (panel,) = KINDS["staleness"].picture([stale]).panels
    assert list(panel.x.names)[:3] == ["no score", "none", "1"]
    assert (len(panel.x.names), panel.x.names[-1]) == (12, "10 or more")
    total = sum(sum(mark.lengths) for mark in panel.marks if isinstance(mark, Bars))
    assert total == pytest.approx(100.0)


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_takes_one_store_or_several(kind: str, sqlite_url: str) -> None:
    with open_store(sqlite_url) as one, open_store(sqlite_url, name="other") as other:
        one.record(["a"], [1.0])
        function = getattr(plots, kind)
        n = len(function(one).axes)
        assert len(function([one, other]).axes) == (1 if kind == "best" else 2 * n)
        assert function.__name__ in plots.__all__


@pytest.mark.slow
def test_metrics_of_several_buffers_are_lines_of_one_plot(
    sqlite_url: str, tmp_path: pathlib.Path
) -> None:
    with open_store(sqlite_url) as one, open_store(sqlite_url, name="other") as other:
        for i in range(40):
            one.log_metrics(i, {"accuracy": i / 40, "loss": float(i)})
            other.log_metrics(i, {"accuracy": i / 20})
        accuracy, loss = plots.metrics([other, one]).axes
        assert [axes.get_title() for axes in (accuracy, loss)] == ["accuracy", "loss"]
        lines = {line.get_label(): line for line in accuracy.lines}
        assert [each.get_text() for each in accuracy.get_legend().get_texts()] == list(lines)
        assert list(lines) == ["other", "default"]
        assert lines["other"].get_ydata()[20] == pytest.approx(1.0)
        (alone,) = loss.lines
        assert alone.get_color() == lines["default"].get_color() != lines["other"].get_color()
        raw, _ = plots.metrics(one, ["loss"], theme="dark").axes[0].lines
        assert list(raw.get_ydata()) == list(range(40))
        (bare,) = plots.metrics([one, one], ["loss"], smooth=False).axes
        assert [list(line.get_ydata()) for line in bare.lines] == [list(range(40))] * 2
    file = str(tmp_path / "x.svg")
    result = run("plot", "accuracy", "--name", "*", "-o", file, url=sqlite_url)
    assert result.out == f"1 metric in {file}\n"


# -- colours ---------------------------------------------------------------------------------------


def luminance(color: str) -> float:
    """Relative luminance of a colour, by WCAG 2.1."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_are_seen_and_told_apart(theme: str) -> None:
    colors = palette.THEMES[theme]
    back = luminance(colors["background"])
    for role, color in colors.items():
        if role in ("grid", "background"):
            continue
        least = 4.5 if role in ("text", "muted") else 2.4 if role == "older" else 3.0
        low, high = sorted([back, luminance(color)])
        assert (high + 0.05) / (low + 0.05) >= least, role
    # Machado, Oliveira and Fernandes 2009: what a deuteranope sees of linear RGB.
    deuteranope = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    states = [colors[role] for role in ("waiting", "claimed", "measured", "failed", "out")]
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in states])
    for seen in (rgb, rgb @ deuteranope.T):
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=2)
        assert distances[np.triu_indices(len(states), 1)].min() > 0.12


def test_a_dark_page_replaces_each_colour_by_one() -> None:
    dark_of = palette.dark_of()
    assert {palette.color(role): palette.color(role, "dark") for role in palette.LIGHT} == {
        color: dark_of[color] for color in map(palette.color, palette.LIGHT)
    }
    assert palette.color("series-7") == palette.color("series-0")
    assert palette.faded("#0072b2", 0.18) == "rgba(0,114,178,0.18)"


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_command_draws_each_kind(kind: str, sqlite_url: str, tmp_path: pathlib.Path) -> None:
    open_store(sqlite_url).close()
    suffix, head = {"best": ("svg", b"<?xml"), "flow": ("pdf", b"%PDF")}.get(
        kind, ("png", b"\x89PNG")
    )
    file = tmp_path / f"x.{suffix}"
    result = run("plot", "--kind", kind, "-o", str(file), url=sqlite_url)
    assert (result.code, result.out.strip()) == (0, f"{kind} in {file}")
    assert file.read_bytes().startswith(head)


@pytest.mark.slow
def test_a_pattern_is_all_buffers_that_match(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    for name in ("ucb-0", "ucb-1", "greedy", "a*b"):
        with open_store(sqlite_url, name=name) as store:
            store.record(["a", "b"], [1.0, 2.0], seconds=[1.0, 2.0])
    file = str(tmp_path / "x.svg")
    names = ("--name", "ucb-*", "--name", "greedy", "--name", "a*b")
    assert run("plot", "--kind", "best", *names, "-o", file, url=sqlite_url).code == 0
    assert (
        run("plot", "--kind", "best", *names, "--x", "seconds", "-o", file, url=sqlite_url).code
        == 0
    )
    missing = run("plot", "--kind", "best", "--name", "none*", "-o", file, url=sqlite_url)
    assert "no buffer of" in refused(missing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kind", "scores", "--x", "seconds"), "--x is of --kind best"),
        (("--kind", "scores", "--objective", "x"), "--kind scores shows no rewards"),
        (("--kind", "best", "loss"), "--kind best takes no METRIC"),
        (("--kind", "best", "--objective", "x"), "has never had the objective"),
        (("-o", "noext"), "--out noext must end in .png, .svg or .pdf."),
        (("--kind", "best", "-o", "a/b.xyz"), "--out a/b.xyz must end in .png, .svg or .pdf."),
        (("--kind", "best", "-o", "a/b.png"), "there is no folder a for b.png."),
        (("--kind", "best", "--name", "default", "--name", "down"), "their rewards do not compare"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(
    arguments: tuple[str, ...], message: str, sqlite_url: str, tmp_path: pathlib.Path
) -> None:
    for name, direction in (("default", "maximize"), ("other", "maximize"), ("down", "minimize")):
        open_store(sqlite_url, name=name, direction=direction).close()
    out = () if "-o" in arguments else ("-o", f"{tmp_path}/x.png")
    result = run("plot", *arguments, *out, url=sqlite_url)
    assert result.code == 2
    assert message in " ".join(unstyled(result.err).replace("│", " ").split())


def test_every_kind_reads_few_rows() -> None:
    reading = {best, failures, flow, scores, sources, staleness, times, kind_predicted}
    assert {made.read for made in KINDS.values()} == {module.read for module in reading}
    assert all(isinstance(made.options, tuple) for made in KINDS.values())
    assert issubclass(best.Curve, Data)
    assert common.cut("a" * 50) == f"{'a' * 31}…"
