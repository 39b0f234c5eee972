"""Drop old draws, metrics, checkpoints and states of predictors, next to processes that work."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlbuffer._integrity import no_progress
from sqlbuffer._validation import require_count, require_flag, require_real
from sqlbuffer.core import predictor_versions
from sqlbuffer.core.handle import BufferHandle, P, T, Work
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weights import progress_bar
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.records import PruneResult

ROWS_AT_ONCE = 10_000
"""Draws or metrics that one transaction drops."""

BYTES_AT_ONCE = 32_000_000
"""Bytes of checkpoints that one transaction drops, if there are several."""

ROW_BYTES = 48
"""Bytes of the values of a draw or a metric."""

_PAUSE_S = 0.01
"""Shortest time between two transactions, in which a writer that waits for the SQLite file looks
for it."""

_BATCHES_AT_ONCE = 10_000
_ALL_BATCHES = 2**63 - 1
_ALL_TIMES = dt.datetime(9999, 12, 31, tzinfo=dt.timezone.utc)
_LONGEST_S = 1e10


class _Old(NamedTuple):
    """Which rows are old."""

    bound: int
    """Batches below this number."""
    cutoff: dt.datetime
    """Batches that were closed before this time."""
    iteration: int
    """Metrics of earlier iterations; checkpoints and states that were replaced when it began."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of statements that find old batches."""
        return {"bound": self.bound, "cutoff": self.cutoff}


def prune(
    buffer: BufferHandle,
    *,
    keep_draws: int | None = None,
    older_than_s: float | None = None,
    silent: bool = True,
) -> PruneResult:
    """Drop old rows, some thousand in each transaction; see `SampleStore.prune`."""
    if (keep_draws is None) == (older_than_s is None):
        raise InvalidArgument(
            "prune takes the number of the newest draws to keep (keep_draws=), or an age in "
            "seconds (older_than_s=): give one of the two."
        )
    if keep_draws is not None:
        keep_draws = require_count(keep_draws, "keep_draws must be a number of draws")
    if older_than_s is not None:
        rule = f"older_than_s must be a number of seconds, 0 to {_LONGEST_S:g}"
        older_than_s = require_real(older_than_s, rule, lambda s: 0.0 <= s <= _LONGEST_S)
    silent = require_flag(silent, "silent")
    old, n_draws = buffer.read(_find, keep_draws, older_than_s)
    with progress_bar(f"pruning {buffer.name}", silent=silent, total=n_draws) as advance:
        n_draws = _drop_draws(buffer, old, advance)
    n_metrics = _drop_metrics(buffer, old)
    states = [*_drop_checkpoints(buffer, old)]
    predictors = [*_drop_predictors(buffer, old)]
    size_bytes = ROW_BYTES * (n_draws + n_metrics) + sum(states) + sum(predictors)
    return PruneResult(n_draws, n_metrics, len(states), len(predictors), size_bytes)


def _find(tx: Transaction, keep_draws: int | None, older_than_s: float | None) -> tuple[_Old, int]:
    """Find which rows are old, and the number of draws among them."""
    tx.race_state()  # raises if the buffer is gone
    bound, cutoff = _ALL_BATCHES, _ALL_TIMES
    if older_than_s is not None:
        cutoff = tx.own_row(queries.prune.time_ago(), minus_seconds=-older_than_s).cutoff
    else:
        newest = tx.execute(queries.prune.newest_old_batch(), keep=keep_draws).scalar()
        bound = 0 if newest is None else int(newest) + 1
    row = tx.own_row(queries.prune.first_kept_iteration(), bound=bound, cutoff=cutoff)
    iteration = int(row.reached if row.kept is None else row.kept)
    if row.old is not None:  # the first iteration of which a copy can be made
        iteration = min(iteration, int(row.old) + 1)
    old = _Old(bound, cutoff, iteration)
    return old, int(tx.execute(queries.prune.old_draws(), **old.parameters).scalar_one())


def _drop_draws(buffer: BufferHandle, old: _Old, advance: Callable[[int], None]) -> int:
    n_dropped, after = 0, -1
    while batches := buffer.read(_old_batches, old, after=after):
        if batches[0].id <= after:
            raise no_progress("a walk through the old batches")
        after = batches[-1].id
        for part in _parts(batches, ROWS_AT_ONCE):
            n = _write(buffer, _drop_draws_of, [row.id for row in part])
            n_dropped += n
            advance(n)
    return n_dropped


def _old_batches(tx: Transaction, old: _Old, *, after: int) -> Sequence[Any]:
    find = queries.prune.old_batches()
    return tx.rows(find, **old.parameters, after=after, limit=_BATCHES_AT_ONCE)


def _drop_draws_of(tx: Transaction, batches: Sequence[int]) -> int:
    columns = {"sample_id": list(batches)}
    statement = queries.prune.drop_draws(tx.backend)
    dropped = tx.execute_with(statement, queries.params.INCOMING_IDS, columns)
    tx.execute(queries.prune.set_pruned(), bound=batches[-1] + 1)
    return int(dropped.rowcount)


def _drop_metrics(buffer: BufferHandle, old: _Old) -> int:
    n_dropped = 0
    while buffer.read(_iteration_of_metric, before=old.iteration, n=0) is not None:
        n = _write(buffer, _drop_some_metrics, before=old.iteration)
        if not n:
            raise no_progress("dropping old metrics")
        n_dropped += n
    return n_dropped


def _iteration_of_metric(tx: Transaction, *, before: int, n: int) -> int | None:
    """Return the iteration of the old metric behind the n first ones, None if there is none."""
    found: int | None = tx.execute(queries.prune.metric_after(), before=before, n=n).scalar()
    return found


def _drop_some_metrics(tx: Transaction, *, before: int) -> int:
    after = _iteration_of_metric(tx, before=before, n=ROWS_AT_ONCE)
    end = before if after is None else after + 1
    return int(tx.execute(queries.prune.drop_metrics(), before=end).rowcount)


def _drop_checkpoints(buffer: BufferHandle, old: _Old) -> Iterator[int]:
    """Drop checkpoints; yield the size of each."""
    rows = buffer.read(lambda tx: tx.rows(queries.prune.old_checkpoints(), before=old.iteration))
    for part in _parts(rows, BYTES_AT_ONCE, most_rows=ROWS_AT_ONCE // 10):
        yield from _write(buffer, _drop_some_checkpoints, part)


def _drop_some_checkpoints(tx: Transaction, rows: Sequence[Any]) -> list[int]:
    drop = queries.prune.drop_checkpoint()
    return [
        row.size_bytes
        for row in rows
        if tx.execute(drop, checkpoint=row.name, at_iteration=row.iteration).rowcount
    ]


def _drop_predictors(buffer: BufferHandle, old: _Old) -> Iterator[int]:
    """Drop the states of predictors, each in its own transaction; yield the size of each."""
    for version, size_bytes in buffer.read(_old_predictors, before=old.iteration).items():
        _write(buffer, _drop_predictor, version)
        yield size_bytes


def _old_predictors(tx: Transaction, *, before: int) -> dict[int, int]:
    """Return the states that are not needed, by version, and their sizes.

    The newest predictor of the earlier iterations was in force when the iteration began.
    """
    stored = predictor_versions.read_predictors(tx)
    in_force = [each.version for each in stored if each.iteration <= before]
    sizes = {each.version: each.size_bytes for each in stored if each.size_bytes}
    if not in_force:
        return {}
    unused = predictor_versions.unused_states(tx, list(sizes), oldest_kept=max(in_force))
    return {version: sizes[version] for version in unused}


def _drop_predictor(tx: Transaction, version: int) -> None:
    tx.execute(queries.predictors.drop_predictor_states(), versions=[version])


def _write(buffer: BufferHandle, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a transaction, and let others write for as long afterwards."""

    def write(tx: Transaction) -> T:
        tx.race_state()  # raises if the buffer is gone
        return work(tx, *args, **kwargs)

    begin = time.monotonic()
    done = buffer.write(write)
    time.sleep(max(_PAUSE_S, time.monotonic() - begin))
    return done


def _parts(rows: Iterable[Any], most: int, *, most_rows: int = ROWS_AT_ONCE) -> Iterator[list[Any]]:
    """Yield rows in groups, each of a total size of `most`, or of one larger row."""
    part: list[Any] = []
    total = 0
    for row in rows:
        if part and (total + row[-1] > most or len(part) == most_rows):
            yield part
            part, total = [], 0
        part.append(row)
        total += row[-1]
    if part:
        yield part
