"""HTML and JSON of pages. All text of a database is escaped: templates mark nothing as safe."""

from __future__ import annotations

import datetime as dt
import functools
import json
import pathlib
from typing import Any
from urllib.parse import urlencode

import jinja2
from starlette.responses import HTMLResponse, Response

from sqlbuffer.looks import values
from sqlbuffer.looks.overview import STATES
from sqlbuffer.looks.words import correlation, count, duration, number, rounded, share
from sqlbuffer.records import LEAST_ROWS
from sqlbuffer.web.names import to_path

LONGEST = 160
"""Most characters of a text in a table."""


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates")
    made = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "cell": cell,
        "count": count,
        "number": number,
        "share": share,
        "duration": duration,
        "moment": moment,
        "correlation": correlation,
        "rounded": rounded,
        "whole": whole,
        "path": to_path,
    }
    made.globals |= {"query": query, "STATES": STATES, "LEAST_ROWS": LEAST_ROWS}
    return made


def page(template: str, data: dict[str, Any], *, status: int = 200) -> Response:
    """Return a page made of a template."""
    return HTMLResponse(rendered(template, data), status)


def rendered(template: str, data: dict[str, Any]) -> str:
    """Return the text of a page made of a template."""
    return _templates().get_template(template).render(data)


def as_json(value: Any, *, status: int = 200) -> Response:
    """Return a value as JSON: floats to the last bit, times in UTC, NaN and infinities as words."""
    return json_answer(to_json(value), status=status)


def to_json(value: Any) -> str:
    """Return the JSON of a value."""
    return json.dumps(values.plain(value), allow_nan=False, ensure_ascii=True) + "\n"


def json_answer(text: str, *, status: int = 200) -> Response:
    """Return text that is JSON."""
    return Response(text, status, media_type="application/json")


def compile_templates() -> None:
    """Compile all templates: the first page of a server is then as fast as the next."""
    for name in _templates().list_templates():
        _templates().get_template(name)


def query(given: dict[str, Any], **changes: Any) -> str:
    """Return a query string; changes of None leave a name out, lists give it several times."""
    merged = {name: value for name, value in {**given, **changes}.items() if value is not None}
    return f"?{urlencode(merged, doseq=True)}" if merged else "?"


# -- values ---------------------------------------------------------------------------------------


def whole(value: Any) -> str:
    """Return a value in full, as text of one line."""
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return count(value)
    return values.cell(value) if value is not None else "-"


def cell(value: Any) -> str:
    """Return a value as a table shows it: long texts are cut."""
    text = whole(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def moment(value: dt.datetime | None) -> str:
    """Return a time of the day with its date."""
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S}"
