"""The charts of a buffer: pictures of `sqlbuffer.plots`, described for Plotly."""

from __future__ import annotations

import pathlib
from typing import Any

from sqlbuffer import plots
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.plots.picture import Data, Picture, drawable
from sqlbuffer.plots.registry import KINDS
from sqlbuffer.web.rendering import to_json
from sqlbuffer.web.source import Source

FIRST_SCREEN = ("best", "predicted", "sources", "failures", "staleness", "scores")
"""The charts of the first screen, in their order."""

TEMPLATES = ("buffer.html", "charts.html", "compare.html")
"""The pages with charts."""

MORE = ("flow", "times")
"""The charts below them."""


def chart(source: Source, kind: str, buffer: BufferHandle) -> str:
    """Return a chart of a buffer as JSON."""

    def finish(data: Data) -> str:
        return to_json(described(KINDS[kind].picture([data])))

    found: str = source.in_time(buffer, KINDS[kind].read, finish)
    return found


def compared(source: Source, buffers: list[BufferHandle]) -> str:
    """Return the chart of the best rewards of several buffers as JSON."""
    data = [source.in_time(each, KINDS["best"].read) for each in buffers]
    return to_json(described(KINDS["best"].picture(data)))


def script() -> pathlib.Path:
    """Return the script that draws described pictures in the colours of the page's theme."""
    return pathlib.Path(plots.__file__).with_name("charts.js")


def described(made: Picture) -> dict[str, Any]:
    """Return a picture as the script of the page takes it, in light colours.

    Points are SVG, not WebGL, whose library compiles code, which the page forbids.
    """
    from sqlbuffer.plots import _plotly

    made = drawable(made)  # its note is shown too
    figure = _plotly.describe(made)
    for trace in figure["data"]:
        trace["type"] = trace["type"].removesuffix("gl")
    return {"kind": made.kind, "title": made.title, "note": made.note, **figure}
