"""`sqlbuffer claims`: list and release claimed batches."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from sqlbuffer._messages import n_of
from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.commands import Group, examples, register
from sqlbuffer.cli.common import (
    AnyBuffer,
    Grace,
    Url,
    command,
    handles,
    open_existing,
    rows_of,
)
from sqlbuffer.cli.workers import unregister
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.reaper import release_dead
from sqlbuffer.core.release import release
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import GRACE_S, Mark, unverifiable_workers
from sqlbuffer.db import queries
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import ClaimLost
from sqlbuffer.looks.workers import with_state

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,  # the top level offers it
    rich_markup_mode="rich",
    epilog=examples("sqlbuffer claims list"),
)

_COLUMNS = (
    *("buffer", "batch", "worker", "host", "state", "lease_until", "iteration", "size"),
    *("reported", "drawn_at"),
)


@reading("sqlbuffer claims list", "sqlbuffer claims list --name qed --json")
def list_claims(url: Url = DEFAULT_URL, name: AnyBuffer = None, grace: Grace = GRACE_S) -> Answer:
    """Show the claimed batches: drawn, and neither settled nor released.

    "state" is the state of the worker that has drawn the batch: `sqlbuffer workers --help`
    explains the states; a "leased" batch needs no worker, and is claimed until "lease_until".
    "host" is that of the worker. "reported" counts the samples whose rewards are already stored.
    """
    found = rows_of(find_claims, url=url, name=name, grace=grace)
    return Answer(_COLUMNS, found, shown={"host": _host_name})


def _host_name(row: Mapping[str, Any]) -> str | None:
    """Return the name of a host, without the numbers of its boot and of the database."""
    return row["host"] and str(row["host"]).rsplit("/", 1)[0]


@command("sqlbuffer claims release --dead", "sqlbuffer claims list")
def release_claims(
    batches: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="BATCH...", help="Numbers of the batches, as `claims list` shows them."
        ),
    ] = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="Release all batches of dead workers.")
    ] = False,
    url: Url = DEFAULT_URL,
    name: AnyBuffer = None,
    grace: Grace = GRACE_S,
) -> None:
    """Release claimed batches: their samples return to the front of the pool.

    Stored rewards stay. Samples that `batch.report` has settled do not return. Those that a loop
    has measured in an unsettled batch wait again, and the loop that draws them takes their stored
    rewards. If the worker of a batch is still alive, it gets `ClaimLost` when it settles the batch.

    --dead watches workers of other hosts for a heartbeat, at most --grace seconds, to see whether
    they have died. Give the numbers of batches, or --dead.
    """
    if dead == bool(batches):
        raise typer.BadParameter("give the numbers of batches, or --dead.")
    with contextlib.closing(open_existing(url)) as database:
        buffers = handles(database, name, grace_s=grace)
        say = functools.partial(output.line, stderr=True)
        n_released = (
            release_all_dead(buffers, say) if dead else release_batches(buffers, batches or [])
        )
        output.line(f"{n_released} released")


register(app, "list", list_claims)
register(app, "release", release_claims)


def find_claims(tx: Transaction) -> list[dict[str, Any]]:
    """Return the claimed batches of a buffer with the states of their workers, the oldest first."""
    rows = with_state(tx, tx.execute(queries.looks.claimed_batches()).mappings().all())
    return [row | {"state": "leased"} if row["lease_until"] else row for row in rows]


def release_batches(buffers: Sequence[BufferHandle], numbers: Sequence[int]) -> int:
    """Release claimed batches of these buffers; return how many.

    Raises:
        ClaimLost: If a batch is not claimed, or is not of these buffers. Nothing is released.
    """
    found = {row["batch"]: each for each in buffers for row in each.read(find_claims)}
    if unknown_batches := set(numbers) - set(found):
        raise ClaimLost(
            f"batch {min(unknown_batches)} is not open: `sqlbuffer claims list` shows the open "
            "batches."
        )
    last_first = sorted(set(numbers), reverse=True)
    return sum(found[i].write(_release, batch=i) for i in last_first)


def _release(tx: Transaction, *, batch: int) -> bool:
    is_released = release(tx, batch=batch)
    unregister(tx)
    return is_released


def release_all_dead(buffers: Sequence[BufferHandle], say: Callable[[str], object]) -> int:
    """Release the batches of dead workers of these buffers; return how many.

    Workers of other hosts that have claimed batches are watched until each has sent a heartbeat,
    or none for the grace period.

    Args:
        buffers: The buffers.
        say: Called with a message when workers are watched.
    """
    n_released = sum(map(release_dead, buffers))
    found = {each.buffer_id: each.read(_doubtful_owners) for each in buffers}
    if n_watched := sum(map(len, found.values())):
        say(
            f"{n_of(n_watched, 'worker of another host has', 'workers of other hosts have')} "
            f"batches: waiting for heartbeats, at most {buffers[0].grace_s:g} s"
        )
    while any(found.values()):
        time.sleep(min(1.0, buffers[0].grace_s / 8))
        for each in buffers:
            n_released += release_dead(each)
            marks = each.read(_doubtful_owners)
            found[each.buffer_id] = dict(found[each.buffer_id].items() & marks.items())
    for each in buffers:
        each.write(unregister)
    return n_released


def _doubtful_owners(tx: Transaction) -> dict[str, Mark]:
    """Return workers of other hosts that have claimed batches, each with its last mark."""
    owners = set(tx.execute(queries.batches.claim_owners()).scalars())
    return {worker: mark for worker, mark in unverifiable_workers(tx).items() if worker in owners}
