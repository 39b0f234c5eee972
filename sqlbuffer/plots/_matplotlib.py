"""Draws pictures with matplotlib, for files and notebooks."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.dates
import matplotlib.ticker
import numpy as np

from sqlbuffer._messages import printable
from sqlbuffer.plots._figure import NotebookFigure
from sqlbuffer.plots.palette import color
from sqlbuffer.plots.picture import Axis, Bars, Line, Mark, Panel, Picture, Points, Spans, drawable

_SECOND = 1 / 86_400
_SHORT_DAYS = _SECOND / 100
_MARKERS = {"circle": "o", "star": "*", "line": "|"}
_SIZES = {"circle": 14.0, "star": 110.0, "line": 240.0}


def draw(picture: Picture, theme: str = "light") -> NotebookFigure:
    """Return a figure of a picture without a window.

    Args:
        picture: The picture.
        theme: "light" or "dark".
    """
    picture = drawable(picture)
    n_cols = max(min(len(picture.panels), picture.columns), 1)
    n_rows = max(math.ceil(len(picture.panels) / n_cols), 1)
    width, height = picture.inches
    figure = NotebookFigure(
        figsize=(width * n_cols, height * n_rows), layout="constrained", dpi=120
    )
    engine: Any = figure.get_layout_engine()
    engine.set(h_pad=0.1, w_pad=0.1)
    figure.set_facecolor(color("background", theme))
    for place, panel in enumerate(picture.panels, start=1):
        _draw_panel(figure.add_subplot(n_rows, n_cols, place), panel, theme)
    if picture.title:
        heading = figure.suptitle(
            printable(picture.title), color=color("text", theme), fontweight="bold", fontsize=12
        )
        heading.set_parse_math(False)
    if picture.note:
        lines = "\n".join(map(printable, picture.note.split("\n")))
        note = figure.supxlabel(lines, color=color("muted", theme), fontsize=8, x=0.99, ha="right")
        note.set_parse_math(False)
        note.set_wrap(True)
    return figure


def _draw_panel(axes: Any, panel: Panel, theme: str) -> None:
    text, muted = color("text", theme), color("muted", theme)
    axes.set_facecolor(color("background", theme))
    axes.set_title(
        printable(panel.title), parse_math=False, color=text, fontsize=10, pad=_pad(panel)
    )
    axes.tick_params(colors=muted, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(color("grid", theme))
    axes.set_xlabel(printable(panel.x.label), color=text, fontsize=9, parse_math=False)
    axes.set_ylabel(printable(panel.y.label), color=text, fontsize=9, parse_math=False)
    if not panel.marks:
        axes.set_axis_off()  # keeps the title
        axes.text(
            *(0.5, 0.5, panel.why_empty),
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=muted,
        )
        return
    axes.grid(color=color("grid", theme), linewidth=0.6)
    axes.set_axisbelow(True)
    for mark in panel.marks:
        _draw_mark(axes, mark, panel, theme)
    _set_axis(axes, axes.xaxis, panel.x)
    _set_axis(axes, axes.yaxis, panel.y)
    if panel.names:
        legend = axes.legend(fontsize=8, frameon=False, labelcolor=text, **_place(panel))
        for each in legend.get_texts():
            each.set_parse_math(False)


def _columns(panel: Panel) -> int:
    return 2 if len(panel.names) > 3 else max(len(panel.names), 1)


def _pad(panel: Panel) -> float:
    """Return the points between the axes and their title: room for the legend."""
    return 6.0 + 16.0 * math.ceil(len(panel.names) / _columns(panel))


def _place(panel: Panel) -> dict[str, Any]:
    """Return where a legend stands: above the axes, where it hides no mark."""
    return {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": _columns(panel)}


def _draw_mark(axes: Any, mark: Mark, panel: Panel, theme: str) -> None:
    own, label = color(mark.color, theme), printable(mark.name)
    if isinstance(mark, Line):
        _draw_line(axes, mark, own, label)
    elif isinstance(mark, Bars):
        start = 0 if mark.on is None else mark.on
        opacity = 0.6 if panel.is_histogram else 1.0
        options: Any = {"color": own, "label": label, "alpha": opacity}
        if panel.y.kind == "names":
            axes.barh(mark.places, mark.lengths, mark.width, left=start, **options)
        else:
            axes.bar(mark.places, mark.lengths, mark.width, bottom=start, **options)
    elif isinstance(mark, Points):
        is_many = len(mark.x) > 2000
        axes.scatter(
            mark.x,
            mark.y,
            s=4.0 if is_many else _SIZES[mark.symbol],
            marker=_MARKERS[mark.symbol],
            c=own,
            alpha=0.35 if is_many else 0.8 if mark.symbol == "circle" else 1.0,
            linewidths=1.8 if mark.symbol == "line" else 0,
            label=label,
            zorder=3,
            rasterized=is_many,
        )
    elif isinstance(mark, Spans):
        axes.hlines(mark.places, mark.low, mark.high, color=own, linewidth=7, label=label)


def _draw_line(axes: Any, line: Line, own: str, label: str) -> None:
    style: dict[str, Any] = {
        "color": own,
        "linestyle": _dashes(line) or ("--" if line.is_dashed else "-"),
        "linewidth": (1.3 if line.is_dashed or line.is_faint else 1.8) + 3.2 * line.is_wide,
        "alpha": 0.4 if line.is_faint or line.is_wide else 1.0,
        "drawstyle": "steps-post" if line.is_step else "default",
        "marker": "o" if (len(line.x) <= 30 and not line.is_step) or len(line.x) == 1 else "",
        "markersize": 4,
    }
    axes.plot(line.x, line.y, label=label, **style)
    if line.low is not None and line.high is not None:
        axes.fill_between(
            *(line.x, line.low, line.high),
            color=own,
            alpha=0.18,
            linewidth=0,
            step="post" if line.is_step else None,
        )


def _dashes(line: Line) -> tuple[float, tuple[float, float]] | None:
    """Return where the dashes of a line that takes turns begin, and their lengths and gaps."""
    if (dashes := line.dashes(4.0, 9.0)) is None:
        return None
    before, length, after = dashes
    return length + after, (length, before + after)


def _set_axis(axes: Any, own: Any, axis: Axis) -> None:
    if axis.kind == "names":
        own.set_ticks(np.arange(len(axis.names)), [printable(name) for name in axis.names])
        for label in own.get_ticklabels():
            label.set_parse_math(False)
        is_y = own is axes.yaxis
        own.grid(False)
        (axes.set_ylim if is_y else axes.set_xlim)(-0.6, max(len(axis.names), 2) - 0.4)
    elif axis.kind == "time":
        low, high = own.get_data_interval()
        if high - low < _SHORT_DAYS:  # one moment, for which there are no ticks
            (axes.set_ylim if own is axes.yaxis else axes.set_xlim)(low - _SECOND, high + _SECOND)
        dates = matplotlib.dates.AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
        own.set_major_locator(dates)
        own.set_major_formatter(
            matplotlib.dates.ConciseDateFormatter(dates)  # type: ignore[no-untyped-call]
        )
        own.get_offset_text().set(size=8)
    elif axis.kind == "log":
        (axes.set_yscale if own is axes.yaxis else axes.set_xscale)("log")
        low, high = sorted(own.get_view_interval())
        subs = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
        own.set_major_locator(matplotlib.ticker.LogLocator(subs=subs, numticks=9))
        own.set_major_formatter(matplotlib.ticker.FuncFormatter(_number))
        own.set_minor_formatter(matplotlib.ticker.NullFormatter())
    else:
        is_whole = axis.kind in ("count", "whole")
        steps = [1, 2, 5, 10] if is_whole else [1, 2, 2.5, 5, 10]
        locator = matplotlib.ticker.MaxNLocator(6, integer=is_whole, steps=steps)
        own.set_major_locator(locator)
        own.set_major_formatter(matplotlib.ticker.FuncFormatter(_number))
        if axis.kind == "count":
            (axes.set_ylim if own is axes.yaxis else axes.set_xlim)(0, None)


def _number(value: float, _: Any = None) -> str:
    """Return the number at a tick, without an exponent unless it is huge or tiny."""
    if value and not 1e-5 <= abs(value) < 1e12:
        return f"{value:.3g}"
    return f"{value:,.10g}"
