"""Labelled samples, read from the database when they are used: any number can be trained on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from sqlbuffer._messages import shown
from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints
from sqlbuffer._validation import as_ids, as_mask, require_count, require_real
from sqlbuffer.core import pool
from sqlbuffer.core.content import content
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.race import TIE
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.where import Checked, Where, as_where, explained, guarded, narrowed
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument, StaleIds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

READ_AT_ONCE = 4096
"""Samples read and decoded in one transaction during an iteration."""

_INDEX_AT_ONCE = 100_000


class LabelledRows(Sequence[Any]):
    """Stored samples with their rewards, by id; a sequence of n samples.

    Only ids, rewards and places are in memory, 24 bytes a row. Indexing reads samples from the
    database.

    Attributes:
        ids: (n,) int64, ids of the samples, ascending.
        rewards: (n,) float64, finite.
        places: (n,) float64 in [0, 1), uniform, from the sample's hash. A split by place puts a
            sample on the same side in every buffer.

    Examples:
        >>> rows = store.labelled_rows()
        >>> rows[:], rows.rewards, rows.ids
        (['C', 'CC'], array([0.25, 0.5 ]), array([11, 12]))
    """

    def __init__(
        self,
        buffer: BufferHandle,
        ids: Ints,
        rewards: Floats,
        places: Floats,
        proof: Floats | None = None,
    ) -> None:
        self.ids = ids
        self.rewards = rewards
        self.places = places
        # Places of the hashes: a training replaces `places`.
        self._proof = places if proof is None else proof
        self._buffer = buffer

    def __repr__(self) -> str:
        return f"LabelledRows({self._buffer.name!r}, size={len(self)})"

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        """Return one sample, or the list of those in a slice.

        Raises:
            IndexError: If there is no such row.
        """
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        try:
            row = range(len(self))[index]
        except IndexError as exc:
            raise IndexError(
                f"row {index} is out of range: the buffer had {len(self)} labelled rows when they "
                "were read, and they are counted from 0."
            ) from exc
        return self.take([row])[0]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), READ_AT_ONCE):
            yield from self[start : start + READ_AT_ONCE]

    def take(self, rows: ArrayLike) -> list[Any]:
        """Return the samples of m rows, in the order of the rows.

        Args:
            rows: (m,) integers from 0 on; negative ones count from the end.

        Raises:
            StaleIds: If a sample was deleted, or another sample has its id: the database has
                returned to an earlier state (failover, restore), or was replaced.

        Examples:
            >>> store.labelled_rows().take([1, 0])
            ['CC', 'C']
        """
        at = self._places_of(rows)
        wanted = self.ids[at]
        ids, first, place = np.unique(wanted, return_index=True, return_inverse=True)
        if not len(ids):
            return []
        found = self._buffer.read(_rows, ids)
        known = self._proof[at][first]
        if [row.id for row in found] != ids.tolist() or (
            places_of([row.hash for row in found]) != known
        ).any():
            raise StaleIds(
                f"of {len(ids)} labelled rows some have changed since the rows were read: a sample "
                "was deleted (forget), or the database has returned to an earlier state (failover, "
                "restore); call dataset or labelled_rows again."
            )
        samples = content(found, self._buffer)
        return [samples[i] for i in place.tolist()]

    def _places_of(self, rows: Any) -> Ints:
        numbers = np.array(as_ids(rows, "rows must be a list of integers"), dtype=np.int64)
        if len(numbers) and not -len(self) <= numbers.min() <= numbers.max() < len(self):
            raise InvalidArgument(
                f"there are {len(self)} rows, counted from 0, but {shown(numbers)} were asked for."
            )
        return numbers

    def subset(self, mask: ArrayLike) -> LabelledRows:
        """Return the rows for which the mask is true.

        Args:
            mask: (n,) bool.

        Examples:
            >>> rows = store.labelled_rows()
            >>> rows.subset(rows.rewards > 0.3)[:]
            ['CC']
        """
        kept = as_mask(mask, len(self), f"a mask of {len(self)} rows must have a bool for each")
        places = self.places[kept]
        proof = places if self._proof is self.places else self._proof[kept]
        return LabelledRows(self._buffer, self.ids[kept], self.rewards[kept], places, proof)


def labelled_rows(
    buffer: BufferHandle,
    *,
    where: Where = None,
    newest: int | None = None,
    best: float | None = None,
) -> LabelledRows:
    """Return the samples that have a reward, or some of them.

    Args:
        buffer: The buffer.
        where: A condition.
        newest: Most samples to return, those measured last.
        best: Of these, the share in (0, 1] with the best rewards, which are the lowest under
            "minimize"; the hash decides between equal rewards.
    """
    if newest is not None:
        newest = require_count(
            newest, "newest must be a positive number of rows, or None for all", least=1
        )
    if best is not None:
        best = require_real(
            best, "best must be a share of the rows in (0, 1], or None for all", _is_some
        )
    condition = as_where(where)
    index = functools.partial(buffer.read, _index, where=condition, newest=newest, best=best)
    return explained(buffer, condition, index)


def _is_some(share: float) -> bool:
    return 0.0 < share <= 1.0


def _index(
    tx: Transaction,
    *,
    where: Checked,
    newest: int | None,
    best: float | None,
) -> LabelledRows:
    tx.note_ids()
    ids, rewards, places = [np.zeros(0, np.int64)], [np.zeros(0)], [np.zeros(0)]
    ties = [np.zeros(0, np.uint64)]
    with guarded(tx, where):
        some = narrowed(queries.rewards.labelled(), where)
        statement = some if newest is None else queries.rewards.newest(some, newest)
        read = statement.execution_options(yield_per=_INDEX_AT_ONCE)
        for part in tx.execute(read).partitions():
            part_ids, hashes, values = zip(*part, strict=True)
            ids.append(np.array(part_ids, dtype=np.int64))
            rewards.append(pool.as_floats(values))
            places.append(places_of(hashes))
            if best is not None:
                ties.append(np.frombuffer(b"".join(digest[TIE] for digest in hashes), dtype=">u8"))
    rows = LabelledRows(
        tx.buffer, np.concatenate(ids), np.concatenate(rewards), np.concatenate(places)
    )
    if best is None or not len(rows):
        return rows
    # Not by the bytes of a row's place: all of several equal rewards would be held out, or none.
    gains = -rows.rewards if tx.buffer.minimizes else rows.rewards
    order = np.lexsort((np.concatenate(ties), gains))
    is_best = np.zeros(len(rows), dtype=np.bool_)
    is_best[order[-max(round(best * len(rows)), 1) :]] = True
    return rows.subset(is_best)


def places_of(hashes: Sequence[bytes]) -> Floats:
    """Return (n,) numbers in [0, 1) made from n hashes of 16 bytes."""
    heads = np.frombuffer(b"".join(digest[:8] for digest in hashes), dtype=">u8")
    return np.asarray((heads >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


def _rows(tx: Transaction, ids: Ints) -> Sequence[Any]:
    """Return the rows of these ids, which are sorted and distinct."""
    statement = queries.scores.scored(tx.backend)
    rows: Sequence[Any] = tx.execute_with(
        statement, queries.params.INCOMING_IDS, {"sample_id": ids.tolist()}
    ).all()
    return rows
