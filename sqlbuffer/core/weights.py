"""From scores to weights: what scoring and refreshing share.

Scores are stored with the samples. The weights that they give are stored in the pool, and each
change of a weight moves a key of the race.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeAlias

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import printable
from sqlbuffer._notebook import LiveTable, in_notebook
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core import pool, race
from sqlbuffer.core.clock import Blurred, resolved, set_base
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.metrics_and_checkpoints import write_checkpoints
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.db import queries
from sqlbuffer.samples.codec import decode_all

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

ScoreFunction: TypeAlias = Callable[[list[Any]], Any]

P = ParamSpec("P")


class DatabaseReverted(Exception):
    """The database has returned to an earlier state: an id belongs to another sample, or to none.

    The transaction stores nothing. The work starts again with what the database has now.
    """


class Overtaken(Exception):
    """A newer predictor was stored, or a newer refresh has begun, than the version of the scorer.

    Nothing was written: the caller must look for a newer predictor first.
    """


ROWS_AT_ONCE = 100_000
"""Rows fetched at once when the whole pool is read."""

_MOST_STARTS = 3
"""Work is started so often: a database that reverts more often during one call is broken."""


def restarted_if_reverted(name: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Decorate work that starts again if the database reverts to an earlier state during a call.

    Args:
        name: Name of the work, for the log.
    """

    def decorate(work: Callable[P, int]) -> Callable[P, int]:
        @functools.wraps(work)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            for _ in range(_MOST_STARTS):
                try:
                    return work(*args, **kwargs)
                except DatabaseReverted:
                    log.warning(
                        "the database has returned to an earlier state (failover, restore): "
                        "%s starts again",
                        name,
                    )
            raise tampered("waiting samples are not stored, or their numbers change repeatedly")

        return run

    return decorate


class Scored(NamedTuple):
    """Columns of `queries.scores.scored`."""

    sample_id: Sequence[int] = ()
    hash: Sequence[bytes] = ()
    score: Sequence[float | None] = ()
    score_version: Sequence[int | None] = ()
    text: Sequence[str] = ()
    payload: Sequence[bytes | None] = ()
    codec: Sequence[str] = ()


@contextlib.contextmanager
def progress_bar(
    description: str, *, silent: bool, total: int | None = None
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar during the block; yield a function that advances it by n.

    The bar is on a terminal of stdout, else on one of stderr. A notebook has a table instead.
    """
    if silent:
        yield lambda n: None
        return
    if in_notebook():
        with _counted(printable(description), total) as advance:
            yield advance
        return
    # Imported late: most processes show no bar.
    import rich
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    # A bar within the bar of a loop shares its console. Otherwise stdout is for data.
    console = rich.get_console() if sys.stdout.isatty() else Console(stderr=True)
    with Progress(
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        task = progress.add_task(escape(printable(description)), total=total)
        yield lambda n: progress.update(task, advance=n)


@contextlib.contextmanager
def _counted(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a live table in a notebook; yield a function that advances it by n."""
    table, done = LiveTable(), 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        table.show(["done", "of"], [[done, total]], description)

    advance(0)
    try:
        yield advance
    finally:
        table.finish()


def read_scored(tx: Transaction, *, ids: Ints) -> Scored:
    """Return samples and scores, in the order of the ids.

    Raises:
        DatabaseReverted: If a sample is gone.
    """
    statement = queries.scores.scored(tx.backend)
    rows = tx.execute_with(
        statement, queries.params.INCOMING_IDS, {"sample_id": ids.tolist()}
    ).all()
    if len(rows) != len(ids):
        raise DatabaseReverted
    return Scored(*zip(*rows, strict=True))


def decoded(buffer: BufferHandle, found: Any) -> list[Any]:
    """Return the samples of columns that have `text`, `payload` and `codec`."""
    return decode_all(found.text, found.payload, found.codec, allow_pickle=buffer.allow_pickle)


def store_scores(
    tx: Transaction,
    *,
    ids: Sequence[int],
    hashes: Sequence[bytes],
    scores: Floats,
    version: int,
    only_older: bool = False,
) -> int:
    """Store scores with their samples; return how many were stored.

    A sample keeps a score of a newer version, and one of the same version if `only_older`. The
    transaction must also `count`.

    Args:
        tx: A writing transaction.
        ids: Ids of n samples, ascending.
        hashes: Their hashes.
        scores: (n,) their scores.
        version: Version of these scores.
        only_older: Replace only scores of older versions.

    Raises:
        DatabaseReverted: If an id does not belong to the sample of this hash.
    """
    if not len(ids):
        return 0
    columns = {"sample_id": ids, "hash": hashes, "score": pool.as_weights(scores)}
    statement, shape = (
        queries.samples.store_newer_scores if only_older else queries.samples.store_scores,
        queries.params.INCOMING_SCORES,
    )
    dialect, more = tx.backend, {"version": version, "tick": tx.tick()}
    n_stored = tx.execute_each(statement(dialect), shape, columns, **more)
    if n_stored < len(ids):  # the other samples have newer scores, if they are the same samples
        found = tx.execute_with(
            queries.scores.samples_by_id(dialect), queries.params.INCOMING_IDS, {"sample_id": ids}
        )
        if {row.id: row.hash for row in found} != dict(zip(ids, hashes, strict=True)):
            raise DatabaseReverted
    return n_stored


def begin_refresh(
    tx: Transaction,
    *,
    by: int | None,
    new_version: bool,
    is_full: bool,
    states: Mapping[str, bytes] | None,
) -> int:
    """Begin a refresh; return the version of its scores.

    Args:
        tx: A writing transaction.
        by: Version of the scorer, None if unknown.
        new_version: Begin a new version: all scores are stale from now on.
        is_full: The refresh scores all stale samples and finishes itself.
        states: Checkpoints, by name, to store with it.

    Raises:
        Overtaken: If there is a newer version than `by`.
    """
    state = tx.race_state()
    begin = queries.refresh.begin_refresh()
    begun = tx.execute(begin, known=by, step=int(new_version), is_full=is_full).scalar()
    if begun is None:
        raise Overtaken
    write_checkpoints(tx, iteration=state.iteration, states=states or {})
    return int(begun)


def reopen(tx: Transaction, *, version: int) -> None:
    """Note that a waiting sample has a score of `version`, older than the last finished refresh.

    The next refresh with a budget then looks for the sample, and a full refresh that is under way
    looks for it when it ends: its walk may have begun without the sample.
    """
    tx.execute(queries.scores.reopen_refresh(), version=version)


def weigh(
    tx: Transaction, state: RaceState, scores: Floats, *, may_move_all: bool
) -> tuple[RaceState, Floats] | None:
    """Return the state of the race and the weights, (n,), after n scores have come into it.

    A new lowest score moves every key, and so does a clock too late for float64 to tell these
    weights apart. `may_move_all` needs a caller that holds the race exclusively; without it, the
    result is None if every key would move.
    """
    lowest = np.fmin.reduce(scores)
    is_lower = tx.buffer.settings.weighting.needs_base and (
        state.base is None or lowest < state.base
    )
    base = float(lowest) if is_lower and not math.isnan(lowest) else state.base
    weights = tx.buffer.settings.weights(scores, base)
    if base != state.base and not may_move_all:
        return None
    try:
        state = resolved(tx, state, weights, may_turn_back=may_move_all)
    except Blurred:
        return None
    if base is not None and base != state.base:
        state = set_base(tx, state, base)
    return state, weights


def change_weights(
    tx: Transaction,
    state: RaceState,
    ids: Ints,
    keys: Floats,
    old: Floats,
    new: Floats,
    scores: Floats,
    entries: Ints,
) -> NDArray[np.bool_]:
    """Change weights of waiting samples, and their keys with them.

    Args:
        tx: The transaction.
        state: The race.
        ids: (n,) ids of the samples.
        keys: (n,) their keys so far.
        old: (n,) their weights so far; NaN for none.
        new: (n,) their weights from now on.
        scores: (n,) the scores that give the new weights.
        entries: (n,) how often each sample has entered the race so far.

    Returns:
        (n,) bool, true for a sample that still stood at its key and was changed.
    """
    moving, entries = moved_keys(tx, state, ids, keys, old, new, entries)
    moved = pool.move(tx, state, ids.tolist(), (keys, old), moving, new, scores, entries.tolist())
    tx.count(
        touched=state.clock if moved.any() else None,
        unscored=-int(np.isnan(old[moved]).sum()),
        unscorable=int((new[moved] == 0).sum() - (old[moved] == 0).sum()),
    )
    return moved


def moved_keys(
    tx: Transaction,
    state: RaceState,
    ids: Ints,
    keys: Floats,
    old: Floats,
    new: Floats,
    entries: Ints,
) -> tuple[Floats, Ints]:
    """Return the keys that waiting samples get with new weights, and their entries into the race.

    The arguments are those of `change_weights`.
    """
    moving = np.where(new == old, keys, math.inf)
    both = (old > 0) & (new > 0) & (new != old)
    moving[both] = race.rescaled(keys[both], state.clock, old[both], new[both])
    joining = np.flatnonzero(~(old > 0) & (new > 0))
    entries = entries.copy()
    entries[joining] += 1
    moving[joining] = _joining(tx, state, ids[joining], entries[joining], new[joining])
    return moving, entries


def _joining(
    tx: Transaction, state: RaceState, ids: Ints, entries: Ints, weights: Floats
) -> Floats:
    """Return the keys of samples that could not be drawn before."""
    if not len(ids):
        return weights
    statement = queries.scores.samples_by_id(tx.backend)
    rows = tx.execute_with(
        statement, queries.params.INCOMING_IDS, {"sample_id": ids.tolist()}
    ).all()
    known = {row.id: (row.hash, row.requeues) for row in rows}
    if len(known) != len(ids):
        raise DatabaseReverted
    hashes, requeues = zip(*(known[i] for i in ids.tolist()), strict=True)
    return pool.join_race(tx.buffer, state, hashes, requeues, entries.tolist(), weights)
