"""`sqlbuffer compare`: two buffers side by side."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

import typer

from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import Url, handles, open_existing
from sqlbuffer.cli.top import find_best
from sqlbuffer.core import counts
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.db.database import DEFAULT_URL

_TOP = 10
_COUNTS = (
    *("kind", "mode", "direction", "iteration", "stored", "waiting", "claimed", "measured"),
    *("failed", "best_reward"),
)


@reading("sqlbuffer compare default qed", "sqlbuffer compare default qed --json")
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Name of a buffer.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name of another buffer.")],
    url: Url = DEFAULT_URL,
) -> Answer:
    """Show two buffers side by side.

    "mean_of_top_10" is the mean of the ten best rewards. "measurements" counts tries that failed,
    too, and "seconds" is the time that all took together, of those that tell it. "shared_samples"
    are in both buffers, "shared_measured" have a reward in both.
    """
    if first == second:
        raise typer.BadParameter(f"{first} is both A and B: give two buffers.")
    with contextlib.closing(open_existing(url)) as database:
        (a,), (b,) = handles(database, first), handles(database, second)
        numbers = [each.read(_numbers) for each in (a, b)]
        shared = a.read(lambda tx: _shared(tx, b.buffer_id))
    if a.direction != b.direction:
        output.line(
            f"{first} is to {a.direction}, {second} to {b.direction}: their rewards do not compare",
            stderr=True,
        )
    rows = [{"field": name, "a": numbers[0][name], "b": numbers[1][name]} for name in numbers[0]]
    rows += [{"field": name, "a": value, "b": value} for name, value in shared.items()]
    named = [{"field": row["field"], first: row["a"], second: row["b"]} for row in rows]
    return Answer(["field", first, second], named)


def _numbers(tx: Transaction) -> dict[str, Any]:
    found = counts.stats(tx)
    cost = tx.execute(queries.looks.costs()).one()
    best = [row["reward"] for row in find_best(tx, _TOP, by="reward")]
    return {
        **{name: getattr(found, name) for name in _COUNTS},
        f"mean_of_top_{_TOP}": sum(best) / len(best) if best else None,
        "measurements": cost.measurements,
        "seconds": cost.seconds,
    }


def _shared(tx: Transaction, other: int) -> dict[str, int]:
    row = tx.execute(queries.looks.shared_samples(), other=other).one()
    return {"shared_samples": row.samples, "shared_measured": row.measured}
