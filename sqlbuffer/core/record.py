"""Record measurements of samples that were not drawn; new samples are stored without waiting."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from sqlbuffer._messages import shown
from sqlbuffer._typing import Ints
from sqlbuffer._validation import as_list, as_names
from sqlbuffer.core.add import Incoming, hashes_of, incoming
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.measured import Measured
from sqlbuffer.core.pool import as_ints
from sqlbuffer.core.rewards import Of, insert, store_by_hash, store_stored
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.records import AddResult


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Measurements of samples that were not drawn."""

    chunk: Incoming
    """n samples."""
    measured: Measured
    """n measurements, the first ones of the samples."""
    more: Sequence[tuple[Ints, Measured]] = ()
    """Further ones in their order, in rounds: places among the n samples, each once."""

    @classmethod
    def prepare(
        cls,
        buffer: BufferHandle,
        samples: Sequence[Any],
        rewards: Any,
        sources: Any = "",
        *,
        metas: Sequence[str | None] | None = None,
        hashes: Sequence[bytes | None] | None = None,
        **details: Any,
    ) -> Recorded:
        """Check and hash measured samples.

        Args:
            buffer: The buffer.
            samples: n samples.
            rewards: n rewards.
            sources: Name of the generator, or one name for each sample.
            metas: n texts of JSON, None for samples without.
            hashes: See `incoming`.
            details: What else `Measured.prepare` takes.

        Raises:
            InvalidReward: If a reward is infinite, or there is not one for each sample.
        """
        samples = as_list(samples)
        measured = Measured.prepare(rewards, len(samples), **details)
        names = as_names(sources, len(samples), "source")
        chunk = incoming(buffer, samples, names, metas, hashes=hashes)
        more = []
        if chunk.duplicates:
            known = hashes_of(buffer, samples) if hashes is None else hashes
            more = [(places, measured.take(at)) for places, at in _repeated(chunk.hashes, known)]
        return cls(chunk, measured.take(as_ints(chunk.positions)), more)

    @classmethod
    def of(cls, buffer: BufferHandle, record: Any) -> Recorded:
        """Check the samples and rewards to store with a batch: `(samples, rewards, sources)`."""
        if not isinstance(record, (tuple, list)) or len(record) != 3:
            raise InvalidArgument(
                f"record must be (samples, rewards, sources), got {shown(record)}."
            )
        return cls.prepare(buffer, *record)


def _repeated(
    distinct: Sequence[bytes], hashes: Sequence[bytes | None]
) -> Iterator[tuple[Ints, Ints]]:
    """Yield the repeats among hashes in rounds: places in `distinct`, and positions in `hashes`."""
    place = {digest: i for i, digest in enumerate(distinct)}
    times = Counter[bytes]()
    rounds: list[list[tuple[int, int]]] = []
    for position, digest in enumerate(hashes):
        if digest is None:
            continue
        turn = times[digest]
        times[digest] += 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append((place[digest], position))
    for each in rounds[1:]:
        places, positions = zip(*each, strict=True)
        yield as_ints(places), as_ints(positions)


def record(tx: Transaction, recorded: Recorded) -> AddResult:
    """Store measurements; new samples are stored and do not wait.

    Of a sample with several measurements the newest reward counts.
    """
    chunk = recorded.chunk
    if not chunk.hashes:
        return AddResult(duplicates=chunk.duplicates, refused_at=chunk.refused_at)
    deltas = store_by_hash(tx, chunk.columns(tx.buffer), recorded.measured, Of())
    for places, measured in recorded.more:
        deltas.update(store_stored(tx, [chunk.hashes[i] for i in places], measured, Of()))
    tx.count(refused=len(chunk.refused_at), **deltas)
    added = deltas["recorded"]
    duplicates = chunk.duplicates + len(chunk.hashes) - added
    return AddResult(added=added, duplicates=duplicates, refused_at=chunk.refused_at)


def store_unmeasured(tx: Transaction, chunk: Incoming) -> None:
    """Store new samples that do not wait: their rewards will be recorded."""
    if chunk.hashes:
        tx.count(recorded=insert(tx, chunk.columns(tx.buffer)))
