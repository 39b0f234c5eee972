"""Shared by the kinds of pictures: objectives, even choices of samples, numbers as text."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from sqlbuffer._messages import n_of, printable
from sqlbuffer._typing import Floats
from sqlbuffer.core import counts
from sqlbuffer.core.read import require_objective
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.plots.picture import MOST_ROWS, Data, Picture
from sqlbuffer.records import Stats

D = TypeVar("D", bound=Data)

_ALL_HASHES = b"\xff" * 17
"""Greater than every hash, which has 16 bytes."""


def objective_of(tx: Transaction, objective: str | None) -> str:
    """Return the given objective, or the current one.

    Raises:
        InvalidArgument: If no measurement has the given objective.
    """
    if objective is not None:
        require_objective(tx, objective)
        return objective
    return str(tx.own_row(queries.buffers.objective()).objective)


@dataclasses.dataclass(frozen=True)
class Choice:
    """An even choice of a buffer's samples, which does not depend on anything but their hashes.

    Attributes:
        bound: The samples with a lower hash are chosen.
        share: The share of the samples that is chosen; 1 for all.
        stats: The counts of the buffer.
    """

    bound: bytes
    share: float
    stats: Stats

    @property
    def is_part(self) -> bool:
        """True if not all samples are chosen."""
        return self.share < 1


def choice(tx: Transaction, *, most: int = MOST_ROWS, of: str = "stored") -> Choice:
    """Choose samples of which about `most` are counted by `of`, a field of `Stats`."""
    found = counts.stats(tx)
    n = getattr(found, of)
    if n <= most:
        return Choice(_ALL_HASHES, 1.0, found)
    share = 0.95 * most / n  # by chance, more than that may have a low hash
    return Choice(int(share * 2**64).to_bytes(8, "big"), share, found)


def step_of(n: int, most: int) -> int:
    """Return the step by which the first of n rows, each `step`th, and the last are `most`."""
    return -(-(n - 1) // max(most - 1, 1)) if n > 1 else 1


def floats(rows: Sequence[Any], column: str) -> Floats:
    """Return a column of rows, (n,) float64; NaN for NULL."""
    values = [math.nan if (value := getattr(row, column)) is None else value for row in rows]
    return np.array(values, dtype=np.float64)


def better(direction: str) -> str:
    """Return which reward is better, in words."""
    return "lower is better" if direction == "minimize" else "higher is better"


def reward_label(objective: str, direction: str) -> str:
    """Return the label of an axis of rewards."""
    return f"{cut(objective)} ({better(direction)})"


def cut(text: str, most: int = 32) -> str:
    """Return a text of the user on one line of at most `most` characters."""
    line = printable(" ".join(text.split()) or "(no name)")
    return line if len(line) <= most else f"{line[: most - 1]}…"


def why_no_reward(failed: int) -> str:
    """Return a sentence on why there is no reward."""
    if not failed:
        return "Nothing is measured yet."
    return f"There is no reward: {n_of(failed, 'measurement')} failed."


def labels_of(names: Sequence[str]) -> list[str]:
    """Return a label for each name of a buffer; buffers of one name get numbers."""
    repeats = Counter(names)
    return [name if repeats[name] == 1 else f"{name} ({n})" for n, name in enumerate(names, 1)]


def side_by_side(found: Sequence[D], picture: Callable[[D], Picture]) -> Picture:
    """Return one picture of the data of several buffers, which have a field `name`."""
    pictures = [picture(each) for each in found]
    if len(pictures) == 1:
        return pictures[0]
    panels = [
        dataclasses.replace(panel, title=": ".join(filter(None, [cut(name, 24), panel.title])))
        for each, data in zip(pictures, found, strict=True)
        for name in [getattr(data, "name")]  # noqa: B009
        for panel in each.panels
    ]
    notes = [
        f"{cut(getattr(data, 'name'))}: {each.note}"  # noqa: B009
        for each, data in zip(pictures, found, strict=True)
        if each.note
    ]
    apart = "\n" if any("\n" in note for note in notes) else "; "
    return Picture(pictures[0].kind, pictures[0].title, panels, apart.join(notes))
