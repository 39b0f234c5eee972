"""What a picture shows, apart from the library that draws it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 10_000
"""The most rows that the data of a picture reads from a database."""

GREATEST = 1e200
"""Numbers beyond it are drawn at it: the ends and ticks of an axis lie beyond its numbers, on a
logarithmic one by a hundred powers of ten, and must not overflow."""

Column: TypeAlias = Sequence[Any] | NDArray[Any]
"""n values of a mark."""


class Data:
    """The numbers of a picture: a base class of dataclasses of numbers, texts, times and arrays."""

    def as_dict(self) -> dict[str, Any]:
        """Return them as JSON can hold them: arrays as lists, times in ISO 8601, NaN as None."""
        return {
            field.name: plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        }


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Data):
        return value.as_dict()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, dt.datetime) else value


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: What it shows, with the unit.
        kind: "number"; "count", which begins at 0, or "whole", both without ticks between whole
            numbers; "log", "time", or "names".
        names: The names of the places 0, 1 and so on, if `kind` is "names".
    """

    label: str
    kind: Literal["number", "count", "whole", "log", "time", "names"] = "number"
    names: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Line:
    """A line, with a band if `low` and `high` are given.

    Attributes:
        name: Its entry in the legend.
        color: A role of the palette.
        x: (n,) numbers or times.
        y: (n,) numbers.
        low: (n,) lower bounds of the band.
        high: (n,) upper bounds of the band.
        is_dashed: Draw dashes.
        is_step: y holds from each x to the next.
        is_faint: Another line of the colour is the one to see.
        is_wide: Another line may lie upon it.
        turn: Its place k among m lines that lie upon each other and that all are to be seen: they
            take turns, each with dashes at other places.
    """

    name: str
    color: str
    x: Column
    y: Column
    low: Column | None = None
    high: Column | None = None
    is_dashed: bool = False
    is_step: bool = False
    is_faint: bool = False
    is_wide: bool = False
    turn: tuple[int, int] = (0, 1)

    def dashes(self, most: float, period: float) -> list[float] | None:
        """Return a gap, a dash and a gap, of a line that takes turns; None of a line without gaps.

        Args:
            most: Most length of a dash.
            period: Most length of all three.
        """
        place, n = (part * (2 if self.is_dashed else 1) for part in self.turn)
        if self.turn[1] == 1 or (not place and not self.is_dashed):
            return None  # alone, or below the others
        length = min(most, period / n)
        return [place * length, length, (n - 1 - place) * length]


@dataclasses.dataclass(frozen=True)
class Bars:
    """Bars that stand on the axis of x, or lie from the axis of y if its names are the places.

    Attributes:
        name: Its entry in the legend.
        color: A role of the palette.
        places: (n,) middles of the bars.
        lengths: (n,) numbers.
        width: Width of a bar in units of the places.
        on: (n,) where each bar begins; None for 0.
        texts: (n,) text for each bar, shown with the mouse.
    """

    name: str
    color: str
    places: Column
    lengths: Column
    width: float = 0.8
    on: Column | None = None
    texts: Sequence[str] | None = None


@dataclasses.dataclass(frozen=True)
class Points:
    """Points.

    Attributes:
        name: Its entry in the legend.
        color: A role of the palette.
        x: (n,) numbers.
        y: (n,) numbers.
        symbol: "circle", "star" or "line".
    """

    name: str
    color: str
    x: Column
    y: Column
    symbol: Literal["circle", "star", "line"] = "circle"


@dataclasses.dataclass(frozen=True)
class Spans:
    """Lines that lie from `low` to `high` at places of the axis of y.

    Attributes:
        name: Its entry in the legend.
        color: A role of the palette.
        places: (n,) places.
        low: (n,) numbers.
        high: (n,) numbers.
    """

    name: str
    color: str
    places: Column
    low: Column
    high: Column


Mark: TypeAlias = Line | Bars | Points | Spans


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes with marks.

    Attributes:
        x: The horizontal axis.
        y: The vertical axis.
        marks: The marks, in the order of the legend.
        title: What it shows.
        empty: Sentence in place of marks if there are none, which says why.
        has_legend: Name the marks, if there is more than one.
    """

    x: Axis
    y: Axis
    marks: Sequence[Mark] = ()
    title: str = ""
    empty: str = "Nothing is measured yet."
    has_legend: bool = True

    @property
    def is_histogram(self) -> bool:
        """True if bars stand on an axis of numbers, where some cover others."""
        return self.x.kind == "number" and self.y.kind != "names"

    @property
    def why_empty(self) -> str:
        """The sentence in place of marks, in lines that fit a panel."""
        return textwrap.fill(self.empty, 36)

    @property
    def names(self) -> list[str]:
        """Names of the marks that a legend shows."""
        return [mark.name for mark in self.marks] if self.has_legend and len(self.marks) > 1 else []


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of one or more panels side by side.

    Attributes:
        kind: Name of the function that made it.
        title: What it shows.
        panels: The panels, row by row.
        note: Lines that a reader must know, such as that it shows a part of the rows.
        columns: Most panels in a row of a file.
        inches: Width and height of a panel in a file.
    """

    kind: str
    title: str
    panels: Sequence[Panel]
    note: str = ""
    columns: int = 2
    inches: tuple[float, float] = (5.6, 3.7)


def within(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers, those beyond `GREATEST` as it, and infinities as NaN."""
    return np.where(np.isfinite(numbers), np.clip(numbers, -GREATEST, GREATEST), np.nan)


def drawable(picture: Picture) -> Picture:
    """Return a picture without marks that have no finite number, and without larger numbers than
    `GREATEST`; its note tells if there was one.
    """
    panels = [
        dataclasses.replace(
            panel, marks=[_drawable(each) for each in panel.marks if _is_seen(each)]
        )
        for panel in picture.panels
    ]
    marks = [mark for panel in picture.panels for mark in panel.marks]
    if not any(_is_beyond(column) for mark in marks for column in _numbers(mark).values()):
        return dataclasses.replace(picture, panels=panels)
    note = "; ".join(filter(None, [f"numbers beyond {GREATEST:g} are drawn at it", picture.note]))
    return dataclasses.replace(picture, panels=panels, note=note)


def _is_seen(mark: Mark) -> bool:
    """Tell whether a mark has a number to draw."""
    columns = _numbers(mark)
    if isinstance(mark, Line):
        columns = {name: column for name, column in columns.items() if name in ("x", "y")}
    finite = [np.isfinite(column) for column in columns.values()]
    n = len(mark.x if isinstance(mark, Line | Points) else mark.places)
    return n > 0 and (not finite or bool(np.logical_and.reduce(finite).any()))


def _drawable(mark: Mark) -> Mark:
    columns: dict[str, Any] = {name: within(each) for name, each in _numbers(mark).items()}
    return dataclasses.replace(mark, **columns)


def _numbers(mark: Mark) -> dict[str, NDArray[np.float64]]:
    """Return the columns of floats of a mark, by name."""
    found = {}
    for name in ("x", "y", "low", "high", "places", "lengths", "on"):
        column = np.asarray(getattr(mark, name, None))
        if column.dtype.kind == "f":
            found[name] = column.astype(np.float64)
    return found


def _is_beyond(numbers: NDArray[np.float64]) -> bool:
    return bool((np.isfinite(numbers) & (np.abs(numbers) > GREATEST)).any())
