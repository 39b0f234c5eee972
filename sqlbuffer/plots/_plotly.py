"""Describes pictures for Plotly, for pages; only `figure` needs the package plotly."""

from __future__ import annotations

import datetime as dt
import html
import math
from typing import Any, Literal

import numpy as np

from sqlbuffer._messages import printable
from sqlbuffer.errors import MissingExtra
from sqlbuffer.plots.palette import color, faded
from sqlbuffer.plots.picture import Axis, Bars, Line, Mark, Panel, Picture, Points, Spans, drawable

_SYMBOLS = {"circle": "circle", "star": "star", "line": "line-ns-open"}
_FEW = 6
_MOST_POWERS = 12
_LEAST_USUAL, _BEYOND_USUAL = 1e-5, 1e12
_NUMBERS = (int, float, np.number)
_SIZES = {"circle": 6, "star": 12, "line": 16}


def figure(picture: Picture, theme: str = "light") -> Any:
    """Return a picture as a `plotly.graph_objects.Figure`.

    Raises:
        MissingExtra: If plotly is not installed.
    """
    try:
        import plotly.graph_objects
    except ImportError as exc:
        raise MissingExtra("pages need plotly: pip install 'sqlbuffer[web]'.") from exc
    return plotly.graph_objects.Figure(describe(picture, theme))


def describe(picture: Picture, theme: str = "light") -> dict[str, Any]:
    """Return `data` and `layout` of Plotly's figure, which JSON can hold.

    Texts are escaped: Plotly takes texts for a subset of HTML.
    """
    picture = drawable(picture)
    n = len(picture.panels)
    layout: dict[str, Any] = {
        "template": None,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": color("text", theme)},
        "margin": {"l": 64, "r": 16, "t": 64 if n > 1 else 40, "b": 52},
        "hovermode": "closest",
        "barmode": "overlay",
        "annotations": [],
    }
    data: list[dict[str, Any]] = []
    for place, panel in enumerate(picture.panels):
        suffix = "" if place == 0 else str(place + 1)
        x, y = _axis(panel, "x", theme), _axis(panel, "y", theme)
        layout[f"xaxis{suffix}"] = {**x, "domain": _domain(place, n), "anchor": f"y{suffix}"}
        layout[f"yaxis{suffix}"] = {**y, "anchor": f"x{suffix}"}
        if place and panel.y.names and panel.y.names == picture.panels[place - 1].y.names:
            layout[f"yaxis{suffix}"]["showticklabels"] = False  # as in the panel on the left
        layout[f"legend{suffix}"] = {
            "orientation": "h",
            "x": _domain(place, n)[0],
            "y": 1.0,
            "yanchor": "bottom",
            "bgcolor": "rgba(0,0,0,0)",
            "tracegroupgap": 0,
        }
        if panel.title:
            layout["annotations"].append(_title(panel, suffix))
        if not panel.marks:
            layout["annotations"].append(_empty(panel, suffix, theme))
            for axis in ("xaxis", "yaxis"):
                layout[f"{axis}{suffix}"].update(range=[0, 1], visible=False, type="linear")
        for mark in panel.marks:
            for trace in _traces(mark, panel, theme):
                places = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "legend": f"legend{suffix}"}
                is_named = trace.get("showlegend", bool(panel.names))
                data.append({**trace, **places, "showlegend": is_named})
    return {"data": data, "layout": layout}


def _domain(place: int, n: int) -> list[float]:
    gap = 0.14 if n > 1 else 0.0
    width = (1 - gap * (n - 1)) / n
    start = place * (width + gap)
    return [round(start, 6), round(min(start + width, 1.0), 6)]


def escaped(text: str) -> str:
    """Return a text of the user that Plotly shows as it is."""
    return html.escape(printable(text), quote=False)


def _axis(panel: Panel, which: Literal["x", "y"], theme: str) -> dict[str, Any]:
    axis: Axis = getattr(panel, which)
    described: dict[str, Any] = {
        "title": {"text": escaped(axis.label), "standoff": 8},
        "gridcolor": color("grid", theme),
        "linecolor": color("grid", theme),
        "tickfont": {"color": color("muted", theme)},
        "zeroline": False,
        "automargin": True,
        "exponentformat": "none" if _has_usual_digits(panel, which) else "e",
        "separatethousands": True,
    }
    if axis.kind == "names":
        described |= {
            "type": "linear",
            "tickmode": "array",
            "tickvals": list(range(len(axis.names))),
            "ticktext": [escaped(name) for name in axis.names],
            "range": [-0.6, max(len(axis.names), 2) - 0.4],
            "showgrid": False,
        }
    elif axis.kind == "time":
        described |= {"type": "date", "nticks": 5}
    elif axis.kind == "log":
        ticks = _ticks(panel, which)
        texts = [f"{tick:,.10g}" for tick in ticks]
        described |= {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": texts}
    else:
        described |= {"type": "linear"}
        if axis.kind == "count":
            described |= {"rangemode": "tozero"}
        if axis.kind in ("count", "whole") and _greatest(panel, which) <= _FEW:
            described |= {"dtick": 1}  # Plotly would draw ticks between whole numbers
    return described


def _title(panel: Panel, suffix: str) -> dict[str, Any]:
    """Return the title of a panel, above its legend."""
    return {
        "text": f"<b>{escaped(panel.title)}</b>",
        "xref": f"x{suffix} domain",
        "yref": f"y{suffix} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 26 if panel.names else 4,
        "showarrow": False,
    }


def _ticks(panel: Panel, which: Literal["x", "y"]) -> list[float]:
    """Return the powers of ten along a logarithmic axis, for a short one with their 2 and 5."""
    numbers = _numbers_along(panel, which)
    if not numbers:
        return []
    low, high = math.floor(math.log10(min(numbers))), math.ceil(math.log10(max(numbers)))
    factors = (1, 2, 5) if high - low <= 3 else (1,)
    step = -(-(high - low) // _MOST_POWERS) or 1
    return [factor * 10.0**power for power in range(low, high + 1, step) for factor in factors]


def _numbers_along(panel: Panel, which: Literal["x", "y"]) -> list[float]:
    """Return the numbers of the marks along an axis, without ends and bases of bars."""
    columns: list[Any] = []
    for mark in panel.marks:
        if isinstance(mark, Spans) and which == "x":
            columns += [mark.low, mark.high]
        elif isinstance(mark, Bars):
            columns.append(mark.lengths if _is_along(panel, which) else mark.places)
        else:
            columns.append(getattr(mark, which, ()))
    return [float(each) for column in columns for each in column if isinstance(each, _NUMBERS)]


def _is_along(panel: Panel, which: Literal["x", "y"]) -> bool:
    """Tell whether bars are as long as the axis shows: they lie if names are the places."""
    return (which == "x") == (panel.y.kind == "names")


def _has_usual_digits(panel: Panel, which: Literal["x", "y"]) -> bool:
    """Tell whether the numbers along an axis are read without an exponent."""
    greatest = max(map(abs, filter(math.isfinite, _numbers_along(panel, which))), default=0.0)
    return greatest == 0 or _LEAST_USUAL <= greatest < _BEYOND_USUAL


def _greatest(panel: Panel, which: Literal["x", "y"]) -> float:
    """Return the greatest number along an axis of whole numbers."""
    greatest = 0.0
    for mark in panel.marks:
        column = mark.lengths if isinstance(mark, Bars) else getattr(mark, which, ())
        starts = mark.on if isinstance(mark, Bars) and mark.on is not None else [0] * len(column)
        ends = [a + b for a, b in zip(column, starts, strict=True) if isinstance(a, _NUMBERS)]
        greatest = max(greatest, *map(float, ends)) if ends else greatest
    return greatest


def _empty(panel: Panel, suffix: str, theme: str) -> dict[str, Any]:
    return {
        "text": escaped(panel.why_empty).replace("\\n", "<br>"),
        "xref": f"x{suffix} domain",
        "yref": f"y{suffix} domain",
        "x": 0.5,
        "y": 0.5,
        "showarrow": False,
        "font": {"color": color("muted", theme), "size": 14},
    }


def _traces(mark: Mark, panel: Panel, theme: str) -> list[dict[str, Any]]:
    own = color(mark.color, theme)
    named = {"name": escaped(mark.name)}
    if isinstance(mark, Line):
        return _line(mark, own, named)
    if isinstance(mark, Bars):
        return [_bars(mark, panel, own, named)]
    if isinstance(mark, Points):
        return [_points(mark, own, named)]
    return [_spans(mark, own, named)]


def _line(line: Line, own: str, named: dict[str, Any]) -> list[dict[str, Any]]:
    shape = "hv" if line.is_step else "linear"
    few = (len(line.x) <= 30 and not line.is_step) or len(line.x) == 1
    x = values(line.x)
    base = {"type": "scatter", "x": x}
    traces: list[dict[str, Any]] = []
    if line.low is not None and line.high is not None:
        edge: dict[str, Any] = {
            **base,
            "mode": "lines",
            "line": {"width": 0, "shape": shape, "color": own},
        }
        named = {**named, "legendgroup": own}  # a click hides the line and its band
        edge |= {"hoverinfo": "skip", "showlegend": False, "legendgroup": own}
        traces.append({**edge, "y": values(line.low)})
        fill = {"fill": "tonexty", "fillcolor": faded(own, 0.18)}
        traces.append({**edge, **fill, "y": values(line.high)})
    style = {
        "color": own,
        "width": 6 if line.is_wide else 2,
        "shape": shape,
        "dash": _dashes(line) or ("dash" if line.is_dashed else "solid"),
    }
    mode = "lines+markers" if few else "lines"
    opacity = 0.4 if line.is_faint or line.is_wide else 1.0
    shown = {"mode": mode, "y": values(line.y), "line": style, "opacity": opacity}
    traces.append({**base, **named, **shown})
    return traces


def _dashes(line: Line) -> str | None:
    """Return the dashes of a line that takes turns, after a dash of no length and a gap."""
    if (dashes := line.dashes(8.0, 32.0)) is None:
        return None
    return ",".join(f"{length:g}px" for length in [0, *dashes])


def _bars(bars: Bars, panel: Panel, own: str, named: dict[str, Any]) -> dict[str, Any]:
    lies = panel.y.kind == "names"
    places, lengths = values(bars.places), values(bars.lengths)
    return {
        "type": "bar",
        **named,
        "orientation": "h" if lies else "v",
        "x": lengths if lies else places,
        "y": places if lies else lengths,
        "base": None if bars.on is None else values(bars.on),
        "width": bars.width,
        "marker": {
            "color": own,
            "opacity": 0.6 if panel.is_histogram else 1.0,
            "line": {"width": 0},
        },
        "hovertext": None if bars.texts is None else [escaped(text) for text in bars.texts],
    }


def _points(points: Points, own: str, named: dict[str, Any]) -> dict[str, Any]:
    is_many = len(points.x) > 2000
    marker: dict[str, Any] = {
        "color": own,
        "symbol": _SYMBOLS[points.symbol],
        "size": 4 if is_many else _SIZES[points.symbol],
        "opacity": 0.4 if is_many else 0.8 if points.symbol == "circle" else 1.0,
    }
    if points.symbol == "line":
        marker["line"] = {"width": 2, "color": own}
    return {
        "type": "scatter",  # SVG: WebGL compiles code, which strict pages forbid
        **named,
        "mode": "markers",
        "x": values(points.x),
        "y": values(points.y),
        "marker": marker,
    }


def _spans(spans: Spans, own: str, named: dict[str, Any]) -> dict[str, Any]:
    x: list[Any] = []
    y: list[Any] = []
    for place, low, high in zip(spans.places, spans.low, spans.high, strict=True):
        x += [*values([low, high]), None]
        y += [*values([place, place]), None]
    return {
        "type": "scatter",
        **named,
        "mode": "lines+markers",  # for markers Plotly leaves room at the ends of the axis
        "x": x,
        "y": y,
        "line": {"color": own, "width": 9},
        "marker": {"color": own, "size": 1},
    }


def values(column: Any) -> list[Any]:
    """Return numbers or times as JSON can hold them; None for a number that is not finite."""
    listed = column.tolist() if isinstance(column, np.ndarray) else list(column)
    return [_value(each) for each in listed]


def _value(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
