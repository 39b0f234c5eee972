"""`sqlbuffer watch`: a buffer at a glance, on a terminal."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sqlbuffer._messages import printable
from sqlbuffer.cli import output
from sqlbuffer.cli.common import AnyBuffer, Url, command, handles, open_existing
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db.database import DEFAULT_URL, Database
from sqlbuffer.looks.buffers import summary
from sqlbuffer.looks.overview import overview
from sqlbuffer.looks.words import count, duration, number, share
from sqlbuffer.plots.kinds.common import cut
from sqlbuffer.plots.registry import KINDS

_COLORS = {
    "waiting": "blue",
    "claimed": "yellow",
    "measured": "green",
    "failed": "red",
    "out": "bright_black",
    "running": "green",
    "silent": "yellow",
    "died": "red",
    "finished": "bright_black",
}
_READ = ("predicted", "sources", "failures", "staleness")
_MOST = 6
_TEXTS = ("name", "worker", "source", "reason", "most often", "sample")
"""Columns that are cut on a narrow terminal, the widest first."""
_SUMMARY = (
    *("name", "waiting", "claimed", "measured", "failed", "direction", "best_reward"),
    *("iteration", "running"),
)
_ALWAYS = 5
"""Columns of the summary that every terminal shows: the name and the states."""


@command("sqlbuffer watch", "sqlbuffer watch --name qed")
def watch(url: Url = DEFAULT_URL, name: AnyBuffer = None) -> None:
    """Show a buffer at a glance, again every two seconds, until Ctrl-C.

    The screen is the first page of `sqlbuffer serve`: samples by state, the budget and the time
    left, the best samples, workers, predictors, sources and failures. Without --name a database of
    several buffers shows one line for each. Without a terminal it is printed once.
    """
    watch_buffers(url, name)


def watch_buffers(url: str, name: str | None) -> None:
    """Show one buffer, or all of a database, until Ctrl-C."""
    with contextlib.closing(open_existing(url, read_only=True)) as database:
        handles(database, name)  # raises if there is no such buffer
        output.show_until_ctrl_c(lambda: _drawn(database, name))


def _drawn(database: Database, name: str | None) -> RenderableType:
    buffers = handles(database, name)
    if len(buffers) == 1:
        return _screen(buffers[0])
    return _buffers([each.read(summary) for each in buffers], output.console().width)


def _buffers(found: Sequence[dict[str, Any]], width: int) -> RenderableType:
    """Return a line for each buffer; on a narrow terminal without the columns that come last."""
    heads = ["best" if name == "best_reward" else name for name in _SUMMARY]
    rows = [[row[name] for name in _SUMMARY] for row in found]
    columns = zip(heads, *([_cell(value) for value in row] for row in rows), strict=True)
    widths = [max(map(cell_len, column)) for column in columns]
    widths[0] = min(widths[0], output.READABLE)
    n = len(heads)
    while n > _ALWAYS and sum(widths[:n]) + output.GAP * (n - 1) > width:
        n -= 1
    return _table("buffers", heads[:n], [row[:n] for row in rows])


def _screen(buffer: BufferHandle) -> RenderableType:
    found, parts = buffer.read(_read)
    return Group(*_lines(found, parts))


def _read(tx: Transaction) -> tuple[dict[str, Any], dict[str, Any]]:
    return overview(tx), {kind: KINDS[kind].read(tx) for kind in _READ}


def _lines(found: dict[str, Any], parts: dict[str, Any]) -> Iterator[RenderableType]:
    about = f"{found['direction']} {found['objective']}, iteration {count(found['iteration'])}"
    yield Text.assemble((printable(found["name"]), "bold"), f"  {printable(about)}")
    yield Columns(_tiles(found), padding=(0, 1))
    if found["budget"] is not None:
        used, most = found["budget_used"], found["budget"]
        yield Text(f"budget: {count(used)} of {count(most)} used, {count(most - used)} left")
        yield Padding(ProgressBar(total=most or 1, completed=min(used, most), width=60), 0)
    yield Text(found["newest"])
    yield _best(found["best"])
    yield _workers(found["workers"])
    yield Columns(list(_parts(parts)), padding=(0, 4))


def _tiles(found: dict[str, Any]) -> list[RenderableType]:
    tiles: list[RenderableType] = [
        _tile("best", number(found["best_reward"]), f"ten: {number(found['mean_of_best'])}"),
        *(
            _tile(state, count(n), share(n / found["stored"]) if found["stored"] else "-", state)
            for state, n in found["states"].items()
            if n is not None
        ),
        _tile("time left", duration(found["seconds_left"]), _until(found)),
    ]
    return tiles


def _until(found: dict[str, Any]) -> str:
    if found["standstill"] is not None:
        return str(found["standstill"])
    return "of the budget" if found["budget"] is not None else "of the pool"


def _tile(label: str, value: str, about: str, state: str = "") -> Panel:
    lines = Text.assemble((value, "bold"), "\n", (about, "bright_black"))
    return Panel(lines, title=label, border_style=_COLORS.get(state, ""), expand=False)


def _best(best: Sequence[dict[str, Any]]) -> RenderableType:
    rows = [
        [number(row["reward"]), number(row["score"]), row["source"], row["sample"]] for row in best
    ]
    return _table("the best samples", ("reward", "score", "source", "sample"), rows)


def _workers(workers: Sequence[dict[str, Any]]) -> RenderableType:
    rows = [
        [
            Text(row["worker"]),
            Text(row["state"], _COLORS.get(row["state"], "")),
            f"{duration(row['silent_s'])} ago",
            count(row["claims"]),
            count(row["settled"]),
            number(row["per_hour"]),
        ]
        for row in workers[:_MOST]
    ]
    names = ("worker", "state", "heartbeat", "claims", "settled", "per hour")
    return _table(f"workers ({len(workers)})", names, rows)


def _parts(parts: dict[str, Any]) -> Iterator[RenderableType]:
    sources, failures, predicted = parts["sources"], parts["failures"], parts["predicted"]
    if sources.sources:
        columns = (sources.sources, sources.measured, sources.failed, sources.among_best)
        rows = [list(row) for row in zip(*columns, strict=True)][:_MOST]
        yield _table("sources", ("source", "measured", "failed", "best 10 %"), rows)
    if failures.reasons:
        found = zip(failures.reasons, failures.failures, failures.examples, strict=True)
        rows = [[reason, n, _rest(error, reason)] for reason, n, error in found][:_MOST]
        yield _table("failures", ("reason", "n", "most often"), rows)
    if len(predicted.versions):
        drawn = zip(predicted.correlation, predicted.samples, strict=True)
        held_out = zip(predicted.held_out, predicted.rows_held_out, strict=True)
        newest = list(zip(predicted.versions, drawn, held_out, strict=True))[-_MOST:]
        rows = [
            ["untrained" if v < 0 else int(v), _of_rows(*a), _of_rows(*b)] for v, a, b in newest
        ]
        stale = share(float(parts["staleness"].stale))
        yield _table(
            f"rank correlation; {stale} of the scores are stale",
            ("predictor", "drawn", "held out"),
            rows,
        )


def _of_rows(value: float, rows: float) -> str:
    """Return a rank correlation with the number of its rows, as far as they are known."""
    if math.isnan(value):
        return "-"
    return number(float(value)) + ("" if math.isnan(rows) else f" ({count(int(rows))})")


def _rest(error: str, reason: str) -> str:
    """Return an error without the reason that it begins with, short enough for a column."""
    rest = error.removeprefix(reason).removeprefix(":").strip()
    return cut(rest, 80) if rest else ""


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> RenderableType:
    """Return a table; texts of the database are text, never markup."""
    made = Table(title=Text(title, "bold"), title_justify="left", box=None, pad_edge=False)
    for place, name in enumerate(columns):
        is_text = name in _TEXTS or any(_is_text(row[place]) for row in rows)
        made.add_column(
            Text(name, "bright_black"),
            justify="left" if is_text else "right",
            no_wrap=name not in _TEXTS,  # Rich narrows columns that may wrap, and only these
            min_width=len(name),
        )
    for row in rows:
        made.add_row(*map(_line_of, row))
    return Padding(made, (1, 0, 0, 0))


def _line_of(value: Any) -> Text:
    """Return a value as a line that ends in an ellipsis if it is cut."""
    text = value if isinstance(value, Text) else Text(_cell(value))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _is_text(value: Any) -> bool:
    is_number = isinstance(value, str) and (value[:1] in "-0123456789" or value in ("nan", "inf"))
    return isinstance(value, (str, Text)) and not is_number


def _cell(value: Any) -> str:
    return printable(value) if isinstance(value, str) else output.cell(_plain(value))


def _plain(value: Any) -> Any:
    """Return a number of numpy as one of Python."""
    return value.item() if hasattr(value, "item") else value
