"""Best so far: the best reward, and the mean of the best k, over measurements or seconds."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from sqlbuffer._messages import n_of, shown
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core.means import mean
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.plots.kinds.common import (
    cut,
    floats,
    labels_of,
    objective_of,
    reward_label,
    step_of,
    why_no_reward,
)
from sqlbuffer.plots.picture import MOST_ROWS, Axis, Data, Line, Panel, Picture, within

Spent: TypeAlias = Literal["measurements", "seconds"]

_GRID = 1000
"""Most places of a band."""
_MOST_BETTER = 2000
"""If more rewards of several parts are better than those before, each part is read by itself."""
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
    total = tx.execute(queries.pictures.numbers_of_measurements(), objective=objective).one()
    n, places = total.measured + total.failed, max(most // (k + 1), 1)
    parts = tx.rows(queries.pictures.parts(), objective=objective, step=step_of(n, places))
    best, top = _Best(tx, k, objective).of_parts(parts)
    has_reward = np.array([part.measured > 0 for part in parts], dtype=bool)
    return Curve(
        name=tx.buffer.name,
        direction=tx.buffer.direction,
        objective=objective,
        k=k,
        measurements=np.cumsum([part.measured for part in parts], dtype=np.int64)[has_reward],
        seconds=np.cumsum(floats(parts, "seconds"))[has_reward],
        best=best[has_reward],
        top=top[has_reward],
        measured=total.measured,
        failed=total.failed,
        timed=total.timed,
    )


class _Best:
    """The best samples so far, for which few rows are read: those above the worst of them."""

    def __init__(self, tx: Transaction, k: int, objective: str) -> None:
        self._tx, self._k, self._objective = tx, k, objective
        self._kept: dict[int, float] = {}
        self._sign = 1.0 if tx.buffer.minimizes else -1.0

    def of_parts(self, parts: Sequence[Any]) -> tuple[Floats, Floats]:
        """Return the best reward and the mean of the k best samples at the end of each part.

        As many parts are read at a time as were read before: of rewards in any order about as many
        are better than all before in each of these ranges, ten times ln 2 of ten kept.
        """
        best, top = np.full(len(parts), np.nan), np.full(len(parts), np.nan)
        done = after = 0
        while done < len(parts):
            range_ = parts[done : max(2 * done, done + 1)]
            for place, found in enumerate(self._better(range_, after), done):
                self._keep(found)
                best[place], top[place] = self._numbers()
            done, after = done + len(range_), range_[-1].last
        return best, top

    def _better(self, parts: Sequence[Any], after: int) -> Iterator[Sequence[Any]]:
        """Yield for each part the samples that are better than the worst that is kept."""
        given = {"after": after, "last": parts[-1].last, "bound": self._bound()}
        rows = self._rows(queries.pictures.better_rewards, limit=_MOST_BETTER, **given)
        if len(rows) < _MOST_BETTER:
            ends = [part.last for part in parts]
            of_part: list[list[Any]] = [[] for _ in parts]
            for row in rows:
                of_part[bisect.bisect_left(ends, row.id)].append(row)
            yield from of_part
            return
        for part in parts:  # most rewards are better than those before
            given = {"after": after, "last": part.last, "bound": self._bound()}
            yield self._rows(queries.pictures.best_samples, limit=self._k, **given)
            after = part.last

    def _rows(self, statement: Callable[[str], Any], **given: Any) -> Sequence[Any]:
        direction = self._tx.buffer.direction
        return self._tx.rows(statement(direction), objective=self._objective, **given)

    def _bound(self) -> float:
        """Return the reward that a sample must exceed to be kept."""
        if len(self._kept) < self._k:
            return self._sign * math.inf
        return list(self._kept.values())[-1]

    def _keep(self, found: Sequence[Any]) -> None:
        for row in found:
            known = self._kept.get(row.sample_id)
            if known is None or self._sign * row.reward < self._sign * known:
                self._kept[row.sample_id] = row.reward
        if found:
            best_first = sorted(self._kept.items(), key=lambda each: self._sign * each[1])
            self._kept = dict(best_first[: self._k])

    def _numbers(self) -> tuple[float, float]:
        rewards = list(self._kept.values())
        # A mean of fewer would worsen with the next sample.
        return rewards[0] if rewards else math.nan, (
            mean(rewards) if len(rewards) == self._k else math.nan
        )


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
    order = _longest_first(courses)
    marks = [
        line
        for place, (n, each) in enumerate(order)
        for line in _lines(
            each,
            each.spent / unit_s,
            curves[0].k,
            place=n,
            n=len(courses),
            turn=_turn([each for _, each in order], place),
        )
    ]
    rewards = Axis(reward_label(curves[0].objective, curves[0].direction))
    failed = sum(curve.failed for curve in curves)
    panel = Panel(axis, rewards, marks, empty=why_no_reward(failed))
    return Picture("best", "Best so far", [panel], _note(curves, x))


def _longest_first(courses: Sequence[Course]) -> list[tuple[int, Course]]:
    """Return the courses with their places, a shorter one after those that might hide it."""
    found = [(n, each) for n, each in enumerate(courses) if each.runs]
    return sorted(found, key=lambda numbered: -numbered[1].spent[-1])


def _turn(courses: Sequence[Course], place: int) -> tuple[int, int]:
    """Return the place of a course among those that lie upon each other, and their number."""
    own = courses[place]
    below = sum(_is_covered(each, own) for each in courses[:place])
    return below, below + 1 + sum(_is_covered(own, each) for each in courses[place + 1 :])


def _is_covered(course: Course, later: Course) -> bool:
    """Tell whether another course, drawn later, lies upon a course from its begin to its end."""
    if course.spent[0] != later.spent[0]:
        return False
    places = np.searchsorted(course.spent, later.spent, side="right") - 1
    return bool(np.array_equal(course.best[places], later.best))


def _labelled(curves: Sequence[Curve]) -> dict[str, Sequence[Curve]]:
    labels = labels_of([curve.name for curve in curves])
    return {label: [curve] for label, curve in zip(labels, curves, strict=True)}


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


def _lines(
    course: Course, spent: Floats, k: int, *, place: int, n: int, turn: tuple[int, int]
) -> list[Line]:
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
        turn=turn,
    )
    begun = np.isfinite(course.top)
    if n > _MOST_WITH_TOP or not begun.any():
        return [best]
    label = f"mean of the best {k}" if n == 1 else f"{name}, mean of the best {k}"
    own = "top" if n == 1 else color
    mean_of_best = Line(label, own, spent[begun], course.top[begun], is_dashed=True, turn=turn)
    return [best, mean_of_best]


def _note(curves: Sequence[Curve], x: Spent) -> str:
    notes = []
    if len({curve.objective for curve in curves}) > 1:
        names = ", ".join(f"{cut(each.name)}: {cut(each.objective)}" for each in curves)
        notes.append(f"the objectives differ ({names})")
    if failed := sum(curve.failed for curve in curves):
        only = "by seconds alone" if x == "seconds" else "not at all"
        verb = "counts" if failed == 1 else "count"
        notes.append(
            f"{n_of(failed, 'failed measurement')} {verb} {only} (each try of a sample is one)"
        )
    n = sum(curve.measured + curve.failed for curve in curves)
    if x == "seconds" and (untimed := n - sum(curve.timed for curve in curves)):
        notes.append(f"{untimed:,} of {n:,} measurements do not tell their seconds")
    return "; ".join(notes)
