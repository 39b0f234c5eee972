"""What each page shows: functions that return a template and its data, which are the JSON too."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from sqlbuffer._messages import shown
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.looks import sql as looks_sql
from sqlbuffer.looks.buffers import summary
from sqlbuffer.looks.compare import compare as compared
from sqlbuffer.looks.history import metrics_by_iteration
from sqlbuffer.looks.jobs import find_jobs
from sqlbuffer.looks.overview import overview, saved_by_duplicates
from sqlbuffer.looks.rows import WORDS
from sqlbuffer.looks.story import STORY, tell
from sqlbuffer.web import charts, pictures
from sqlbuffer.web.names import from_path
from sqlbuffer.web.recipes import recipes
from sqlbuffer.web.source import Source
from sqlbuffer.web.tables import TABLES, Asked, read_table

SQL_TIMEOUT_S = 5.0
SQL_ROWS = 1000
SQL_BYTES = 20_000_000
"""Most bytes of the values that the page of SQL shows."""
ITERATIONS = 100


@dataclasses.dataclass(frozen=True)
class View:
    """A page.

    Attributes:
        template: Name of its template.
        data: What it shows; the JSON twin has this and nothing else.
        more: Further values for the template.
    """

    template: str
    data: dict[str, Any]
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


def buffer_of(source: Source, request: Request) -> BufferHandle:
    """Return the buffer that the path names.

    Raises:
        HTTPException: If the path names none.
    """
    name = from_path(request.path_params["buffer"])
    if name is None:
        raise HTTPException(404, f"{shown(request.path_params['buffer'])} names no buffer.")
    return source.buffer(name)


def number_of(request: Request) -> int:
    """Return the number of a sample that the path names.

    Raises:
        HTTPException: If no sample can have it.
    """
    text = request.path_params["number"]
    if not re.fullmatch("[0-9]{1,18}", text):
        raise HTTPException(404, f"there is no sample {shown(text)}.")
    return int(text)


def index(source: Source, request: Request) -> View:
    """The buffers of the database."""
    rows = [source.soon(each, summary) for each in source.buffers()]
    sql = "SELECT * FROM buffer_overview ORDER BY buffer"
    return View("index.html", {"database": source.database.url, "buffers": rows, "sql": sql})


def first_screen(source: Source, request: Request) -> View:
    """A buffer at a glance."""
    buffer = buffer_of(source, request)
    found = source.soon(buffer, overview)
    saved = source.in_time(buffer, saved_by_duplicates)
    data = {
        **found,
        "saved": saved,
        "sql": f"SELECT * FROM buffer_overview WHERE buffer = {_quoted(buffer.name)}",
    }
    has_pictures = pictures.drawable([row["sample"] for row in found["best"]])
    return View("buffer.html", data, {"charts": charts.FIRST_SCREEN, "has_pictures": has_pictures})


def more_charts(source: Source, request: Request) -> View:
    """Every chart of a buffer."""
    buffer = buffer_of(source, request)
    kinds = (*charts.FIRST_SCREEN, *charts.MORE)
    return View("charts.html", {"name": buffer.name, "charts": kinds})


def table(source: Source, request: Request) -> View:
    """Rows of a view, filtered and sorted as the URL says."""
    name = request.path_params["table"]
    buffer, asked = buffer_of(source, request), Asked.from_query(request.query_params)
    found = buffer.read(read_table, TABLES[name], asked)
    more = {
        "table": name,
        "operators": WORDS,
        "asked": asked.as_query(),
        "without": [asked.without(i).as_query() for i in range(len(asked.filters))],
    }
    return View("table.html", {"name": buffer.name, **found}, more)


def sample(source: Source, request: Request) -> View:
    """One sample and its story."""
    buffer, number = buffer_of(source, request), number_of(request)
    found = buffer.read(_tell, number)
    if found is None:
        raise HTTPException(404, f"buffer {shown(buffer.name)} has no sample {number}.")
    has_picture = buffer.read(pictures.draw, number, is_dark=False) is not None
    sql = (
        f"SELECT * FROM sample_overview WHERE buffer = {_quoted(buffer.name)} "
        f"AND sample_id = {number}"
    )
    more = {"has_picture": has_picture, "columns": STORY}
    return View("sample.html", {"name": buffer.name, **found, "sql": sql}, more)


def _quoted(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'{}'".format(text.replace("'", "''"))


def _tell(tx: Transaction, number: int) -> dict[str, Any] | None:
    from sqlbuffer.db import queries

    known = tx.execute(queries.looks.one_sample(), sample=number).one_or_none()
    return None if known is None else tell(tx, number)


def jobs(source: Source, request: Request) -> View:
    """The jobs of a buffer."""
    buffer = buffer_of(source, request)
    rows = buffer.read(find_jobs)
    text = "No job yet: a retraining by schedule, such as `sqlbuffer worker`, is a job."
    return View(
        "rows.html", {"name": buffer.name, "rows": rows}, {"heading": "Jobs", "empty": text}
    )


def history(source: Source, request: Request) -> View:
    """The metrics of the newest iterations."""
    buffer = buffer_of(source, request)
    found = buffer.read(metrics_by_iteration, ITERATIONS)[::-1]
    names = dict.fromkeys(name for row in found for name in row)
    rows = [{name: row.get(name) for name in names} for row in found]
    text = "No metric yet: a training loop logs one row for each iteration."
    more = {"heading": "Metrics by iteration", "empty": text}
    return View("rows.html", {"name": buffer.name, "rows": rows}, more)


def compare(source: Source, request: Request) -> View:
    """Two buffers side by side."""
    names = [each.name for each in source.buffers()]
    chosen = [request.query_params.get(each) or "" for each in ("a", "b")]
    a, b = (
        given or (names[place] if len(names) > place else "") for place, given in enumerate(chosen)
    )
    rows: list[dict[str, Any]] = []
    has_chart = False
    if a and b and a != b:
        buffers = source.buffer(a), source.buffer(b)
        rows = compared(*buffers)
        has_chart = buffers[0].direction == buffers[1].direction
    return View(
        "compare.html", {"a": a, "b": b, "rows": rows}, {"names": names, "has_chart": has_chart}
    )


def sql(source: Source, request: Request, form: dict[str, str]) -> View:
    """The result of a SELECT that the user has typed."""
    buffer = buffer_of(source, request)
    known = {recipe.slug: recipe.of_buffer(buffer.name) for recipe in recipes()}
    chosen = request.query_params.get("recipe")
    if chosen is not None and chosen not in known:
        raise InvalidArgument(f"there is no recipe {shown(chosen)}: choose one of the list.")
    typed = form.get("sql", known[chosen] if chosen else "")
    data: dict[str, Any] = {"name": buffer.name, "sql": typed, "columns": [], "rows": []}
    data |= {"has_more": False, "error": None}
    if form.get("sql", "").strip():
        data |= _answer(source, typed)
    return View("sql.html", data, {"recipes": recipes(), "chosen": chosen, "most": SQL_ROWS})


def _answer(source: Source, typed: str) -> dict[str, Any]:
    """Return the rows of a SELECT, or the reason why there are none."""
    try:
        with looks_sql.ask(source.url, typed, role=source.role, timeout_s=SQL_TIMEOUT_S) as found:
            rows, has_more = _first(found.rows)
    except InvalidArgument as exc:
        return {"error": str(exc)}
    named = [dict(zip(found.columns, row, strict=True)) for row in rows]
    return {"columns": found.columns, "rows": named, "has_more": has_more}


def _first(rows: Iterator[Sequence[Any]]) -> tuple[list[Sequence[Any]], bool]:
    """Return the rows that a page can show, and whether there are more."""
    kept: list[Sequence[Any]] = []
    size = 0
    for row in rows:
        size += sum(map(_size, row))
        if len(kept) == SQL_ROWS or size > SQL_BYTES:
            return kept, True
        kept.append(row)
    return kept, False


def _size(value: Any) -> int:
    return len(value if isinstance(value, (str, bytes)) else str(value))
