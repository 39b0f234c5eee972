"""A report: one page of a buffer in one file, which asks no host for anything."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import plotly.offline
import sqlalchemy as sa
from markupsafe import Markup

import sqlbuffer
from sqlbuffer.core.predictor_versions import read_predictors
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.backends import first_line
from sqlbuffer.errors import InvalidPayload
from sqlbuffer.looks.jobs import find_jobs
from sqlbuffer.looks.overview import overview
from sqlbuffer.maintenance.audit import check
from sqlbuffer.plots import palette
from sqlbuffer.plots.kinds.common import cut
from sqlbuffer.plots.kinds.failures import Failures
from sqlbuffer.plots.kinds.staleness import Staleness
from sqlbuffer.plots.picture import Axis, Data, Panel, Picture, drawable
from sqlbuffer.plots.registry import KINDS
from sqlbuffer.web import charts, pictures, rendering

FAILURES = 10
PREDICTORS = 20
PROBLEMS = 50

_SETTINGS = (
    *("name", "kind", "settings", "mode", "direction", "objective", "seed", "key", "max_size"),
    *("evict", "budget", "max_attempts", "created_at"),
)
_FILES = pathlib.Path(__file__).parent / "static"


def read(
    tx: Transaction, *, with_check: bool = True, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Read all that a report shows, in one state of the database.

    Args:
        tx: The transaction.
        with_check: Audit the buffer too, which reads every row.
        tell: Called with a text before each step.
    """
    tell("counting")
    found = overview(tx)
    row = tx.own_row(queries.buffers.buffer_named(), name=tx.buffer.name)
    data: dict[str, Data | Exception] = {}
    for kind in KINDS:
        tell(f"drawing {kind}")
        data[kind] = _data_of(tx, kind)
    tell("drawing samples")
    has_pictures = pictures.drawable([each["sample"] for each in found["best"]])
    report: dict[str, Any] = {
        **found,
        "database": tx.buffer.database.url,
        "settings": {name: getattr(row, name) for name in _SETTINGS},
        "data": data,
        "drawings": [_drawing(tx, each["id"]) if has_pictures else None for each in found["best"]],
        "has_pictures": has_pictures,
        "failures": tx.execute(queries.attempts.failed().limit(FAILURES)).mappings().all(),
        "predictors": [dataclasses.asdict(each) for each in read_predictors(tx)[-PREDICTORS:]],
        "jobs": find_jobs(tx),
        "problems": None,
    }
    if with_check:
        report["problems"] = check(tx, tell=lambda part: tell(f"checking every row: {part}"))
    return report


def _data_of(tx: Transaction, kind: str) -> Data | Exception:
    """Return the data of a picture, or why there is none: a report has the others then."""
    try:
        with tx.connection.begin_nested():  # PostgreSQL reads nothing more after an error
            return KINDS[kind].read(tx)
    except sa.exc.DBAPIError as exc:
        if not isinstance(exc, sa.exc.DataError):  # such as a lost connection: read again
            raise
        return exc
    except (InvalidPayload, ArithmeticError, ValueError, TypeError, LookupError) as exc:
        return exc


def _drawing(tx: Transaction, sample: int) -> dict[str, str] | None:
    """Return a drawing of a sample for light and for dark pages, as URIs that hold it."""
    uris = {}
    for theme in ("light", "dark"):
        drawn = pictures.draw(tx, sample, is_dark=theme == "dark")
        if drawn is None:
            return None
        content, kind = drawn
        uris[theme] = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return uris


def write(report: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return what `read` has returned as an HTML page, and by kind why a picture is left out.

    The page forbids itself to load anything, and to run scripts other than its own.
    """
    left_out: dict[str, str] = {}
    figures = {kind: _figure(kind, data, left_out) for kind, data in report["data"].items()}
    failed, stale = (report["data"][kind] for kind in ("failures", "staleness"))
    scripts = [
        plotly.offline.get_plotlyjs(),
        charts.script().read_text(),
        (_FILES / "report.js").read_text(),
    ]
    styles = [(_FILES / name).read_text() for name in ("page.css", "report.css")]
    shown = {
        **{name: value for name, value in report.items() if name != "data"},
        "figures": figures,
        "stale": stale.stale if isinstance(stale, Staleness) and stale.read else None,
        "n_failed": failed.failed if isinstance(failed, Failures) else 0,
        "n_measured": failed.measured if isinstance(failed, Failures) else 0,
        "charts": list(KINDS),
        "dark_colors": palette.dark_of(),
        "scripts": [Markup(script) for script in scripts],  # files of packages
        "styles": [Markup(style) for style in styles],
        "policy": _policy(scripts),
        "release": sqlbuffer.__version__,
    }
    return rendering.rendered("report.html", shown), left_out


def _figure(kind: str, data: Data | Exception, left_out: dict[str, str]) -> dict[str, Any]:
    """Return a picture, or an empty one that says why; its reason is added to `left_out`."""
    try:
        if isinstance(data, Exception):
            raise data
        return _described(KINDS[kind].picture([data]))
    except Exception as exc:  # the others are worth a page
        left_out[kind] = reason = first_line(str(getattr(exc, "orig", None) or exc))
        empty = Panel(
            Axis(""), Axis(""), empty=f"This picture could not be drawn: {cut(reason, 60)}"
        )
        return _described(Picture(kind, kind, [empty]))


def _described(made: Picture) -> dict[str, Any]:
    """Return a described picture, and as `empty` the sentences in place of one without marks."""
    panels = drawable(made).panels
    is_empty = not any(panel.marks for panel in panels)
    why = " ".join(dict.fromkeys(panel.empty for panel in panels)) if is_empty else ""
    return {**charts.described(made), "empty": why}


def _policy(scripts: list[str]) -> str:
    """Return the Content-Security-Policy of a page with these scripts, which loads nothing."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    ]
    own = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
    return f"{own}; form-action 'none'; script-src {' '.join(hashes)}"
