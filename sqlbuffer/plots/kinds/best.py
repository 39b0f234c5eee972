"""Best so far: the best reward, and the mean of the best k, over measurements or seconds."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core.means import mean
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.plots.kinds.common import cut, floats, n_of, objective_of, reward_label
from sqlbuffer.plots.picture import MOST_ROWS, Axis, Data, Line, Panel, Picture, within

Spent: TypeAlias = Literal["measurements", "seconds"]

_GRID = 1000
"""Most places of a band."""
_LONG_S = 10_000.0
"""More seconds than this are shown as hours."""
_MOST_WITH_TOP = 3
"""Of more lines than this the means of the best samples are left out."""


@dataclasses.dataclass(frozen=True, eq=False)
class Curve(Data):
    """The best rewards of one buffer, as they became known.

    Failed measurements are not counted, but the seconds that they took are.

    Attributes:
        name: The buffer.
        direction: "maximize" or "minimize".
        objective: Name of the reward function.
        k: Number of the best samples in `top`.
        measurements: (n,) rewards that were stored by then, ascending.
        seconds: (n,) seconds that all measurements by then took.
        best: (n,) the best reward by then.
        top: (n,) the mean of the k best samples' best rewards; NaN while there are fewer.
        measured: All rewards.
        failed: All failed measurements.
        timed: Measurements that tell their seconds.
    """

    name: str
    direction: str
    objective: str
    k: int
    measurements: Ints
    seconds: Floats
    best: Floats
    top: Floats
    measured: int
    failed: int
    timed: int


@dataclasses.dataclass(frozen=True, eq=False)
class Course(Data):
    """The best rewards of one buffer, or of several under one label.

    Attributes:
        label: Name in the legend.
        runs: Number of buffers with a measurement.
        spent: (n,) measurements or seconds.
        best: (n,) the best reward, of several buffers the median.
        low: (n,) the lowest of the buffers' best rewards.
        high: (n,) the highest of the buffers' best rewards.
        top: (n,) the mean of the k best, of several buffers the median.
    """

    label: str
    runs: int
    spent: Floats
    best: Floats
    low: Floats
    high: Floats
    top: Floats


def read(
    tx: Transaction, *, k: int = 10, objective: str | None = None, most: int = MOST_ROWS
) -> Curve:
    """Read the course of a buffer: exact at up to `most / (k + 1)` places."""
    objective = objective_of(tx, objective)
    direction = tx.buffer.direction
    total = tx.execute(queries.pictures.numbers_of_measurements(), objective=objective).one()
    step = -(-total.measured // max(most // (k + 1), 1)) or 1
    given = {"objective": objective, "step": step}
    ends = tx.rows(queries.pictures.ends_of_parts(), **given)
    rows = tx.rows(queries.pictures.best_of_parts(direction), keep=k, **given)
    best, top = _merged(rows, len(ends), k, lowest_first=direction == "minimize")
    return Curve(
        name=tx.buffer.name,
        direction=direction,
        objective=objective,
        k=k,
        measurements=np.array([row.measurements for row in ends], dtype=np.int64),
        seconds=floats(ends, "seconds"),
        best=best,
        top=top,
        measured=total.measured,
        failed=total.failed,
        timed=total.timed,
    )


def _merged(rows: Iterable[Any], n: int, k: int, *, lowest_first: bool) -> tuple[Floats, Floats]:
    """Return the best reward and the mean of the k best samples at the end of each of n parts."""
    of_part: list[list[Any]] = [[] for _ in range(n)]
    for row in rows:
        of_part[int(row.part)].append(row)  # PostgreSQL's floor() returns a float
    best, top = np.full(n, np.nan), np.full(n, np.nan)
    kept: dict[int, float] = {}
    sign = 1.0 if lowest_first else -1.0
    for part, found in enumerate(of_part):
        for row in found:
            known = kept.get(row.sample_id)
            if known is None or sign * row.reward < sign * known:
                kept[row.sample_id] = row.reward
        kept = dict(sorted(kept.items(), key=lambda each: sign * each[1])[:k])
        rewards = list(kept.values())
        best[part] = rewards[0]
        if len(rewards) == k:  # a mean of fewer would worsen with the next sample
            top[part] = mean(rewards)
    return best, top


def at(curve: Curve, measurements: int) -> float | None:
    """Return the best reward after a number of measurements; None before the first."""
    place = int(np.searchsorted(curve.measurements, measurements, side="right")) - 1
    return float(curve.best[place]) if place >= 0 else None


def course(label: str, curves: Sequence[Curve], x: Spent) -> Course:
    """Return the course of one buffer, or the median of several up to the end of the shortest."""
    curves = [each for each in curves if len(each.best)]
    if not curves:
        none = np.empty(0)
        return Course(label, 0, none, none, none, none, none)
    spent = [np.asarray(getattr(each, x), dtype=np.float64) for each in curves]
    if len(curves) == 1:
        (one,) = curves
        return Course(label, 1, spent[0], one.best, one.best, one.best, one.top)
    grid = np.unique(np.concatenate(spent))
    grid = grid[(grid >= max(each[0] for each in spent)) & (grid <= min(e[-1] for e in spent))]
    if len(grid) > _GRID:
        grid = grid[np.linspace(0, len(grid) - 1, _GRID).astype(int)]
    places = [np.searchsorted(each, grid, side="right") - 1 for each in spent]
    best = np.array([each.best[place] for each, place in zip(curves, places, strict=True)])
    top = np.array([each.top[place] for each, place in zip(curves, places, strict=True)])
    return Course(
        *(label, len(curves), grid),
        *(_median(best), best.min(0), best.max(0), _median(top)),
    )


def _median(of_runs: Floats) -> Floats:
    """Return the median of runs (m, n) at each place, (n,)."""
    found: Floats = np.median(within(of_runs), 0)
    return found


def picture(
    found: Sequence[Curve] | Mapping[str, Sequence[Curve]], *, x: Spent = "measurements"
) -> Picture:
    """Return the picture of buffers, each with a line of its own, or by label with a band."""
    groups = found if isinstance(found, Mapping) else _labelled(found)
    curves = [curve for group in groups.values() for curve in group]
    _require_comparable(curves)
    courses = [course(label, group, x) for label, group in groups.items()]
    unit_s, axis = _axis(courses, x)
    marks = [
        line
        for n, each in _longest_first(courses)
        for line in _lines(each, each.spent / unit_s, curves[0].k, n, len(courses))
    ]
    panel = Panel(axis, Axis(reward_label(curves[0].objective, curves[0].direction)), marks)
    return Picture("best", "Best so far", [panel], _note(curves, x))


def _longest_first(courses: Sequence[Course]) -> list[tuple[int, Course]]:
    """Return the courses with their places, a shorter one after those that might hide it."""
    found = [(n, each) for n, each in enumerate(courses) if each.runs]
    return sorted(found, key=lambda numbered: -numbered[1].spent[-1])


def _labelled(curves: Sequence[Curve]) -> dict[str, Sequence[Curve]]:
    """Return each curve under the name of its buffer; buffers of one name get numbers."""
    repeats = Counter(curve.name for curve in curves)
    labels: dict[str, Sequence[Curve]] = {}
    for n, curve in enumerate(curves, 1):
        label = curve.name if repeats[curve.name] == 1 else f"{curve.name} ({n})"
        labels[label] = [curve]
    return labels


def _require_comparable(curves: Sequence[Curve]) -> None:
    if not curves:
        raise InvalidArgument("a picture needs at least one buffer, got none.")
    one = curves[0]
    for each in curves:
        if each.direction != one.direction:
            raise InvalidArgument(
                f"{shown(one.name)} is to {one.direction}, {shown(each.name)} to "
                f"{each.direction}: their rewards do not compare, so draw them apart."
            )


def _axis(courses: Sequence[Course], x: Spent) -> tuple[float, Axis]:
    """Return the horizontal axis, and its unit in measurements or seconds."""
    if x == "measurements":
        return 1.0, Axis("measurements", "count")
    most = max((each.spent[-1] for each in courses if each.runs), default=0.0)
    unit, seconds = ("hours", 3600.0) if most > _LONG_S else ("seconds", 1.0)
    return seconds, Axis(f"{unit} spent on measurements")


def _lines(course: Course, spent: Floats, k: int, place: int, n: int) -> list[Line]:
    """Return the lines of a course, with colours of their own if it is the only one."""
    name, is_band = cut(course.label), course.runs > 1
    color = "best" if n == 1 else f"series-{place}"
    of_runs = f", median of {course.runs} runs" if is_band else ""
    best = Line(
        f"best so far{of_runs}" if n == 1 else f"{name}{of_runs}",
        color,
        spent,
        course.best,
        low=course.low if is_band else None,
        high=course.high if is_band else None,
        is_step=True,
    )
    begun = np.isfinite(course.top)
    if n > _MOST_WITH_TOP or not begun.any():
        return [best]
    label = f"mean of the best {k}" if n == 1 else f"{name}, mean of the best {k}"
    own = "top" if n == 1 else color
    return [best, Line(label, own, spent[begun], course.top[begun], is_dashed=True)]


def _note(curves: Sequence[Curve], x: Spent) -> str:
    notes = []
    if len({curve.objective for curve in curves}) > 1:
        names = ", ".join(f"{cut(each.name)}: {cut(each.objective)}" for each in curves)
        notes.append(f"the objectives differ ({names})")
    if failed := sum(curve.failed for curve in curves):
        rest = "is not counted" if failed == 1 else "are not counted"
        spent = ", but its seconds are" if failed == 1 else ", but their seconds are"
        notes.append(
            f"{n_of(failed, 'failed measurement')} {rest}{spent if x == 'seconds' else ''}"
        )
    n = sum(curve.measured + curve.failed for curve in curves)
    if x == "seconds" and (untimed := n - sum(curve.timed for curve in curves)):
        notes.append(f"{untimed:,} of {n:,} measurements do not tell their seconds")
    return "; ".join(notes)
