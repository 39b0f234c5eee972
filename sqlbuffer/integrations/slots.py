"""A buffer as a ring of numbered slots, for libraries that find samples by their number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlbuffer._numpy import np
from sqlbuffer._typing import Floats, Ints
from sqlbuffer.core import counts, draw, ring
from sqlbuffer.core.attach import key_name
from sqlbuffer.core.batch import Batch
from sqlbuffer.core.claim import Terms
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.places import AllPlaces
from sqlbuffer.core.ring import Cursor, Written
from sqlbuffer.core.weighting import Power
from sqlbuffer.errors import InvalidArgument, SettingsMismatch
from sqlbuffer.samples.codec import encode_all
from sqlbuffer.samples.decoded import Decoded
from sqlbuffer.samples.encoded import Encoded
from sqlbuffer.store import SampleStore, open_store

EMPTY = "Cannot sample from an empty storage: extend the replay buffer first."
"""It begins as TorchRL's error."""
NONE_DRAWABLE = "no sample can be drawn, because all have priority 0: update their priorities."
USES = 1_000
"""Draws and writes of this process after which the weights that others have changed are read."""


def slot_of(sample: Any) -> int:
    """Be the key function of a ring, whose keys are numbers of slots; refuse to be called."""
    raise InvalidArgument(
        "the samples of this buffer are in numbered slots: write them with the replay buffer that "
        "has made it."
    )


def _require_ring(mismatch: SettingsMismatch, url: Any, name: str) -> None:
    """Raise an error that says so if the buffer has no slots."""
    with open_store(url, name=name, read_only=True) as store:
        key = store.stats().key
    if key != key_name(slot_of):
        raise SettingsMismatch(
            f"buffer {name!r} was not made by SqlStorage: give name=... to begin a buffer of its "
            "own in this database."
        ) from mismatch


class Picked(NamedTuple):
    """Samples that were drawn."""

    slots: Ints
    weights: Floats
    samples: Decoded


class Slots:
    """One process's access to a ring in a database.

    A sample is drawn by its score, which is its weight. A sample that is written has the highest
    score that this process knows of.
    """

    _places: AllPlaces
    _buffer: BufferHandle
    _generations: Ints
    """(max_size,) how often each slot had been written when it was last seen, 0 for never seen.

    Zeros take memory only where slots are seen.
    """
    _lowest: float | None
    """Lowest weight of all samples that can be drawn; None if it must be looked up."""
    _highest: float
    _n_used: int
    """Draws and writes since all weights were read."""
    _was_written: set[int]
    """Slots of the last transaction, if it has written samples."""

    def __init__(self, url: Any, *, max_size: int, **options: Any) -> None:
        try:
            self.store: SampleStore = open_store(
                url,
                max_size=max_size,
                mode="replay",
                weighting=Power(1.0),
                key=slot_of,
                keep_key=True,
                **options,
            )
        except SettingsMismatch as exc:
            _require_ring(exc, url, options["name"])
            raise
        self.max_size = max_size
        self._forget()

    def __len__(self) -> int:
        return self._buffer.look(counts.size)

    @property
    def cursor(self) -> Cursor:
        """The next slot, and the number of samples written so far."""
        return self._buffer.read(ring.read_cursor)

    # -- writing ----------------------------------------------------------------------------------

    def append(self, samples: Sequence[Any]) -> list[int]:
        """Write samples into the next slots, in one transaction; return the slots."""
        score, contents = self.highest, self._encoded(samples)
        given: dict[str, Any] = {"contents": contents, "score": score, "size": self.max_size}
        written = self._buffer.write(ring.append, **given)
        self._note(written)
        last, n = written.slots[-1], len(samples)
        return [(last - n + 1 + i) % self.max_size for i in range(n)]

    def put(self, slots: Sequence[int], samples: Sequence[Any], *, moves: bool) -> None:
        """Write samples into slots, in one transaction; of several for one slot the last stays.

        Args:
            slots: n numbers.
            samples: n samples.
            moves: Move the cursor behind the last slot.
        """
        last = {slot: i for i, slot in enumerate(slots)}
        score, contents = self.highest, self._encoded([samples[i] for i in last.values()])
        end = (slots[-1] + 1) % self.max_size if moves else None
        given: dict[str, Any] = {"contents": contents, "scores": np.full(len(last), score)}
        written = self._buffer.write(ring.put_at, slots=list(last), end=end, n=len(slots), **given)
        self._note(written)

    def update(self, slots: Sequence[int], scores: Floats) -> None:
        """Give samples new scores, in one transaction; of several for one slot the last counts.

        A slot that another process has overwritten since this process has drawn its sample, or
        written it, is skipped: its score belongs to a sample that is gone.
        """
        given = dict(zip(slots, scores.tolist(), strict=True))
        numbers = np.fromiter(given, dtype=np.int64, count=len(given))
        values = np.fromiter(given.values(), dtype=np.float64, count=len(given))
        seen = self._generations[numbers] - 1
        generations = {int(i): int(seen[at]) for at, i in enumerate(numbers) if seen[at] >= 0}
        updated, ids, weights = self._buffer.write(
            ring.update, slots=list(given), scores=values, generations=generations
        )
        self._places.correct(updated.keys)
        self._places.epoch = updated.epoch
        self._was_written = set()
        self._weigh(ids, weights)
        if updated.n < len(given):
            self._meet_others()

    def were_just_written(self, slots: Iterable[int]) -> bool:
        """Tell whether the last change by this process has written samples into these slots."""
        return self._was_written.issuperset(slots)

    def empty(self, *, writes: int | None = None) -> None:
        """Take all samples out, and go back to the first slot."""
        self._buffer.write(ring.empty, writes=writes)
        self._forget()

    def restore(
        self, slots: Sequence[int], contents: Encoded, scores: Floats, cursor: Cursor
    ) -> None:
        """Replace all samples, in one transaction."""
        given: dict[str, Any] = {"slots": slots, "contents": contents, "scores": scores}
        self._buffer.write(ring.restore, cursor=cursor, **given)
        self._forget()

    def _encoded(self, samples: Sequence[Any]) -> Encoded:
        numbers = range(len(samples))
        return encode_all(samples, allow_pickle=self._buffer.allow_pickle, numbers=numbers)

    # -- reading ----------------------------------------------------------------------------------

    def read(self, slots: Sequence[int]) -> Decoded:
        """Return the samples in slots.

        Raises:
            IndexError: If a slot has no sample.
        """
        rows = self._buffer.peek(ring.contents, slots=slots)
        for slot, row in zip(slots, rows, strict=True):
            if row is None:
                raise IndexError(
                    f"slot {slot} of buffer {self.store.name!r} has no sample: {len(self)} of its "
                    f"{self.max_size} slots are written."
                )
        return self._decoded(rows)

    def everything(self) -> tuple[list[int], Encoded, Floats, Cursor]:
        """Return the slots, samples and scores of the ring, and its cursor, at one moment."""
        rows, cursor = self._buffer.read(ring.everything)
        scores = np.array([row.score for row in rows], dtype=np.float64)
        contents = Encoded(
            [row.text for row in rows], [row.payload for row in rows], [row.codec for row in rows]
        )
        return [int(row.key) for row in rows], contents, scores, cursor

    def draw(self, n: int) -> Picked:
        """Draw n samples by their scores.

        No sample comes twice within one claim. If the ring has fewer samples than n, several
        claims are made, and a sample may come once in each.
        """
        found: list[Batch] = []
        left = n
        while left:
            batch = draw.claim(self._buffer, left, terms=Terms(settles=True))
            batch._end()
            if not len(batch):
                raise RuntimeError(EMPTY if not len(self) else NONE_DRAWABLE)
            left -= len(batch)
            found.append(batch)
        ids = np.concatenate([batch.ids for batch in found])
        numbers = self._slots_of(ids)
        weights = np.concatenate([batch.weights for batch in found])
        self._generations[numbers] = [i + 1 for batch in found for i in batch._known.requeues]
        self._weigh(ids, weights)
        if len(found) == 1:
            return Picked(numbers, weights, found[0]._decoded)
        columns = zip(*(batch._known[2:5] for batch in found), strict=True)
        text, payload, codec = ([value for part in column for value in part] for column in columns)
        given = {"allow_pickle": self._buffer.allow_pickle}
        return Picked(numbers, weights, Decoded(text, payload, codec, **given))

    def _slots_of(self, ids: Ints) -> Ints:
        slots = self._places.slots(ids)
        if (slots < 0).any():
            slots[:] = self._buffer.peek(ring.slots_of, ids=ids.tolist())
            self._places.number(ids, slots)
        return slots

    def _decoded(self, rows: Sequence[Any]) -> Decoded:
        text, payload, codec = ([row[i] for row in rows] for i in range(1, 4))
        return Decoded(text, payload, codec, allow_pickle=self._buffer.allow_pickle)

    # -- the lowest and the highest weight --------------------------------------------------------

    @property
    def lowest(self) -> float:
        """Lowest weight of all samples that can be drawn, infinity for none."""
        self._learn()
        if self._lowest is None:
            self._lowest = float(np.min(self._places.weights(), initial=math.inf))
        return self._lowest

    @property
    def highest(self) -> float:
        """Highest weight that this process knows of, 1 for none."""
        self._learn()
        return self._highest or 1.0

    def _learn(self) -> None:
        """Read all weights if they are not known, or if others have changed some long ago."""
        if not self._places.is_whole:
            self._buffer.peek(ring.learn, self._places)
            self._n_used = 0
            self._lowest = None
            self._highest = float(np.max(self._places.weights(), initial=self._highest))

    def _weigh(self, ids: Ints, weights: Floats) -> None:
        """Note the weights of samples."""
        before = self._places.weigh(ids, weights)
        after = float(np.min(weights[weights > 0], initial=math.inf))
        if self._lowest is not None and after <= self._lowest:
            self._lowest = after
        elif self._lowest is not None and not before > self._lowest:
            self._lowest = None  # the sample that had it has another weight
        self._highest = float(np.max(weights, initial=self._highest))
        self._n_used += 1

    def _meet_others(self) -> None:
        """Note that another process writes; read all weights again, not too often."""
        if self._n_used >= USES:
            self._places.is_whole = False

    def _note(self, written: Written) -> None:
        """Note samples that this process has written."""
        self._places.note(written.ids, written.keys)
        self._places.number(written.ids, np.array(written.slots))
        self._places.epoch = written.epoch
        self._generations[written.slots] = [i + 1 for i in written.generations]
        self._was_written = set(written.slots)
        self._weigh(written.ids, written.weights)
        if written.found_others:
            self._meet_others()

    def _forget(self) -> None:
        """Forget the samples; they are read again when they are needed."""
        self._places = AllPlaces(self.max_size)
        self._buffer = dataclasses.replace(self.store._buffer, places=self._places)
        self._generations = np.zeros(self.max_size, dtype=np.int64)
        self._lowest = None
        self._highest, self._n_used = 0.0, 0
        self._was_written = set()
