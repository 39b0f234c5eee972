"""A ring: a pool of numbered slots in mode "replay", whose samples are overwritten in their places.

A slot is a row: its key is its number, and each sample that it gets counts as one that was removed
and one that was added again. `requeues` therefore tells the samples of one slot apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from sqlbuffer._integrity import require_all, tampered
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core import counts, pool, priorities
from sqlbuffer.core.metrics_and_checkpoints import read_checkpoint, write_checkpoints
from sqlbuffer.core.places import AllPlaces
from sqlbuffer.core.transaction import RaceState, Transaction
from sqlbuffer.core.weights import weigh
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.samples.encoded import Encoded
from sqlbuffer.samples.hashing import digests

CURSOR = "ring"
"""Name of the checkpoint that has the cursor."""


class Cursor(NamedTuple):
    """Where a ring is written next."""

    slot: int = 0
    writes: int = 0
    """Samples written so far."""


class Written(NamedTuple):
    """What a transaction has written."""

    slots: list[int]
    generations: list[int]
    """How often each slot had been overwritten by then."""
    ids: Ints
    keys: Floats
    """The keys with which the samples wait."""
    weights: Floats
    epoch: int
    """Epoch of the race to which the keys belong."""
    found_others: bool
    """True if another process has moved keys since this one has seen them."""


class Slot(NamedTuple):
    """A row."""

    id: int
    requeues: int
    queued: bool


def read_cursor(tx: Transaction) -> Cursor:
    """Return the stored cursor.

    Raises:
        InvalidPayload: If it is no pair of numbers.
    """
    found = read_checkpoint(tx, name=CURSOR)
    if found is None:
        return Cursor()
    try:
        slot, writes = map(int, json.loads(found[1]))
    except (TypeError, ValueError) as exc:
        raise tampered(f"the cursor of buffer {tx.buffer.name!r} is no pair of numbers") from exc
    return Cursor(slot, writes)


def write_cursor(tx: Transaction, cursor: Cursor) -> None:
    """Store the cursor."""
    state = json.dumps(cursor).encode()
    write_checkpoints(tx, iteration=0, states={CURSOR: state})


def append(tx: Transaction, *, contents: Encoded, score: float, size: int) -> Written:
    """Write samples into the next slots of a ring of `size` slots, and move the cursor on.

    Of more samples than slots the last ones stay.
    """
    tx.lock_race(exclusive=True)
    n, at = len(contents.texts), read_cursor(tx)
    slots = [(at.slot + i) % size for i in range(n)]
    kept = range(max(0, n - size), n)
    stays = [slots[i] for i in kept]
    written = put(tx, slots=stays, contents=contents.at(kept), scores=np.full(len(kept), score))
    write_cursor(tx, Cursor((at.slot + n) % size, at.writes + n))
    return written


def put_at(
    tx: Transaction,
    *,
    slots: Sequence[int],
    contents: Encoded,
    scores: Floats,
    end: int | None,
    n: int,
) -> Written:
    """`put`, and move the cursor to the slot `end` after n samples; None leaves the cursor.

    Raises:
        InvalidArgument: If slots before them would have no sample.
    """
    tx.lock_race(exclusive=True)
    size = counts.size(tx)
    new = sorted(slot for slot in slots if slot >= size)
    if new != list(range(size, size + len(new))):
        raise InvalidArgument(
            f"slots {size} to {new[-1]} would have a gap: the storage has {size} elements, and "
            f"slot {size} comes next."
        )
    written = put(tx, slots=slots, contents=contents, scores=scores)
    if end is not None:
        write_cursor(tx, Cursor(end, read_cursor(tx).writes + n))
    return written


def put(tx: Transaction, *, slots: Sequence[int], contents: Encoded, scores: Floats) -> Written:
    """Write samples into slots, each of them once.

    Args:
        tx: A writing transaction.
        slots: n different numbers.
        contents: n samples.
        scores: (n,) their scores.
    """
    # Exclusive: no draw moves the clock or a key, and no sample joins, until this commits.
    state = tx.lock_race(exclusive=True)
    state, weights = cast("tuple[RaceState, Floats]", weigh(tx, state, scores, may_move_all=True))
    hashes = digests(slots)
    before = _slots_with(tx, hashes)
    old, found_others = _standing(tx, state, [slot.id for slot in before.values() if slot.queued])
    _store(tx, state, slots, hashes, contents, scores)
    after = _slots_with(tx, hashes)
    require_all(len(after), len(hashes), "samples were written into slots")
    rows = [after[digest] for digest in hashes]
    generations, ids = [row.requeues for row in rows], pool.as_ints([row.id for row in rows])
    first = [1] * len(rows)
    keys = pool.join_race(tx.buffer, state, hashes, generations, first, weights)
    is_old = np.array([row.id in old for row in rows])
    new = ids[~is_old].tolist()
    columns = keys[~is_old], weights[~is_old], scores[~is_old]
    pool.enter(tx, state, new, *columns, entries=[1] * len(new))
    replaced = [old[number] for number in ids[is_old].tolist()]
    _move(tx, state, replaced, keys[is_old], weights[is_old], scores[is_old])
    were = pool.as_floats([row.weight for row in replaced])
    n_added = sum(row.requeues == 0 for row in rows)
    tx.count(
        touched=state.clock,
        added=n_added,
        requeued=len(rows) - n_added,
        removed=len(replaced),
        unscorable=int((weights == 0).sum() - (were == 0).sum()),
    )
    return Written(list(slots), generations, ids, keys, weights, state.epoch, found_others)


def _slots_with(tx: Transaction, hashes: Sequence[bytes]) -> dict[bytes, Slot]:
    statement, columns = queries.ring.slots_with(tx.backend), {"hash": list(hashes)}
    rows = tx.execute_with(statement, queries.params.INCOMING_HASHES, columns).all()
    return {row.hash: Slot(row.id, row.requeues, bool(row.queued)) for row in rows}


def _standing(tx: Transaction, state: RaceState, ids: list[int]) -> tuple[dict[int, Any], bool]:
    """Return rows of the pool by id, and whether other processes have moved some of them."""
    places = tx.buffer.places
    if ids and isinstance(places, AllPlaces) and not places.is_whole:
        learn(tx, places)
    rows = {row.sample_id: row for row in priorities.at_remembered_keys(tx, ids)}
    lost = set(ids) - set(rows)
    if lost:
        rows |= priorities.scanned(tx, lost, epoch=state.epoch)
    require_all(len(rows), len(ids), "overwritten samples were found in the pool")
    return rows, bool(lost)


def learn(tx: Transaction, places: AllPlaces) -> None:
    """Read the keys and weights of the whole pool."""
    epoch = tx.race_state().epoch
    rows = tx.execute(queries.ring.all_standing()).all()
    ids, keys, weights = zip(*(row[:3] for row in rows), strict=True) if rows else ((), (), ())
    columns = pool.as_ints(ids), pool.as_floats(keys), pool.as_floats(weights)
    places.learn(*columns, epoch=epoch)


def _store(
    tx: Transaction,
    state: RaceState,
    slots: Sequence[int],
    hashes: Sequence[bytes],
    contents: Encoded,
    scores: Floats,
) -> None:
    columns: dict[str, Any] = {
        "hash": hashes,
        "text": contents.texts,
        "payload": contents.payloads,
        "codec": contents.codecs,
        "key": list(map(str, slots)),
        "score": scores.tolist(),
    }
    moment = {"version": state.version, "iteration": state.iteration, "tick": state.tick}
    statement = queries.ring.put_slots(tx.backend)
    n = tx.execute_each(statement, queries.params.INCOMING_SLOTS, columns, **moment)
    require_all(n, len(slots), "samples were written into slots")


def _move(
    tx: Transaction,
    state: RaceState,
    old: Sequence[Any],
    keys: Floats,
    weights: Floats,
    scores: Floats,
) -> None:
    ids = [row.sample_id for row in old]
    stood = pool.as_floats([row.race_key for row in old]), pool.as_floats([r.weight for r in old])
    moved = pool.move(tx, state, ids, stood, keys, weights, scores, [1] * len(ids))
    require_all(int(moved.sum()), len(ids), "samples were overwritten")


def update(
    tx: Transaction, *, slots: Sequence[int], scores: Floats, generations: Mapping[int, int]
) -> tuple[priorities.Updated, Ints, Floats]:
    """Give the samples in slots new scores, with weights and keys.

    Args:
        tx: A writing transaction.
        slots: n different numbers; one without a sample is skipped.
        scores: (n,) their scores.
        generations: How often a slot had been overwritten when its sample was drawn; one that was
            overwritten since is skipped.

    Returns:
        What was written; the ids of the samples, ascending; and their scores.
    """
    tx.lock_race(exclusive=True)
    hashes = digests(slots)
    rows = _slots_with(tx, hashes)
    given = {}
    for number, digest, score in zip(slots, hashes, scores.tolist(), strict=True):
        row = rows.get(digest)
        if row is not None and row.queued and generations.get(number, row.requeues) == row.requeues:
            given[row.id] = score, digest
    ids = sorted(given)
    values = pool.as_floats([given[number][0] for number in ids])
    known = {number: given[number][1] for number in ids}
    updated = priorities.write(tx, given=priorities.Given(ids, values, known))
    return updated, pool.as_ints(ids), values


def slots_of(tx: Transaction, *, ids: Sequence[int]) -> list[int]:
    """Return the slots whose rows have these ids."""
    statement, columns = queries.ring.slots_of(tx.backend), {"sample_id": sorted(set(ids))}
    found = tx.execute_with(statement, queries.params.INCOMING_IDS, columns).all()
    numbers = {row.id: int(row.key) for row in found}
    return [numbers[number] for number in ids]


def contents(tx: Transaction, *, slots: Sequence[int]) -> list[Any]:
    """Return rows with `text`, `payload` and `codec`, one for each slot; None for an empty one."""
    hashes = digests(slots)
    statement, columns = queries.ring.contents_with(tx.backend), {"hash": sorted(set(hashes))}
    rows = tx.execute_with(statement, queries.params.INCOMING_HASHES, columns).all()
    found = {row.hash: row for row in rows}
    return [found.get(digest) for digest in hashes]


def everything(tx: Transaction) -> tuple[list[Any], Cursor]:
    """Return all samples with `key`, the number of the slot, and `score`, and the cursor."""
    rows = sorted(tx.execute(queries.ring.all_contents()).all(), key=lambda row: int(row.key))
    return rows, read_cursor(tx)


def empty(tx: Transaction, *, writes: int | None = None) -> None:
    """Take all samples out, and go back to the first slot.

    Args:
        tx: A writing transaction.
        writes: Number of samples written so far; None leaves it.
    """
    state = tx.lock_race(exclusive=True)
    pool.remove(tx, tx.execute(queries.ring.all_standing()).all(), clock=state.clock)
    writes = read_cursor(tx).writes if writes is None else writes
    write_cursor(tx, Cursor(0, writes))


def restore(
    tx: Transaction, *, slots: Sequence[int], contents: Encoded, scores: Floats, cursor: Cursor
) -> Written:
    """Replace all samples by others."""
    empty(tx)
    written = put(tx, slots=slots, contents=contents, scores=scores)
    write_cursor(tx, cursor)
    return written
