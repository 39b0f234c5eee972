"""A report: one page of a buffer in one file, which asks no host for anything."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import plotly.offline
from markupsafe import Markup

import sqlbuffer
from sqlbuffer.core.predictor_versions import read_predictors
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.looks.jobs import find_jobs
from sqlbuffer.looks.overview import overview
from sqlbuffer.maintenance.audit import check
from sqlbuffer.plots import palette
from sqlbuffer.plots.picture import Data
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
    data: dict[str, Any] = {}
    for kind, made in KINDS.items():
        tell(f"drawing {kind}")
        data[kind] = made.read(tx)
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
        tell("checking every row")
        report["problems"] = check(tx)
    return report


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


def write(report: dict[str, Any]) -> str:
    """Return what `read` has returned as an HTML page.

    The page forbids itself to load anything, and to run scripts other than its own.
    """
    figures = {kind: _figure(kind, data) for kind, data in report["data"].items()}
    scripts = [
        plotly.offline.get_plotlyjs(),
        charts.script().read_text(),
        (_FILES / "report.js").read_text(),
    ]
    styles = [(_FILES / name).read_text() for name in ("page.css", "report.css")]
    shown = {
        **{name: value for name, value in report.items() if name != "data"},
        "figures": figures,
        "stale": _share_of_stale(report["data"]["staleness"]),
        "n_failed": report["data"]["failures"].failed,
        "n_measured": report["data"]["failures"].measured,
        "charts": list(KINDS),
        "dark_colors": palette.dark_of(),
        "scripts": [Markup(script) for script in scripts],  # files of packages
        "styles": [Markup(style) for style in styles],
        "policy": _policy(scripts),
        "release": sqlbuffer.__version__,
    }
    return rendering.rendered("report.html", shown)


def _figure(kind: str, data: Data) -> dict[str, Any]:
    return charts.described(KINDS[kind].picture([data]))


def _share_of_stale(data: Any) -> float | None:
    return data.stale if data.read else None


def _policy(scripts: list[str]) -> str:
    """Return the Content-Security-Policy of a page with these scripts, which loads nothing."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    ]
    own = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"
    return f"{own}; form-action 'none'; script-src {' '.join(hashes)}"
