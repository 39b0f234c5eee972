"""The rewards of a loop's batch: those that are stored as they come, and those left to settle."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats
from sqlbuffer._validation import as_floats
from sqlbuffer.core import attempts
from sqlbuffer.core.measured import IS_NAN, IS_NONE
from sqlbuffer.errors import ClaimLost, InvalidReward
from sqlbuffer.measuring.measure import ending_of
from sqlbuffer.training.callback import BatchState
from sqlbuffer.training.sample_keys import SampleKeys

if TYPE_CHECKING:
    from sqlbuffer.core.batch import Batch
    from sqlbuffer.measuring.outcome import Outcome
    from sqlbuffer.store import SampleStore

logger = logging.getLogger(__name__)

Record = tuple[list[Any], list[float | None], list[str]]
"""Samples that were not drawn from the buffer, their rewards, and their sources."""


class BatchRewards:
    """Knows the rewards of the loop's batch, and which of them are stored.

    Each stored reward is a measurement. A reward that a callback has stored as it came, or has
    reused, is therefore not stored again when the batch is settled, unless a later callback has
    changed it.

    Args:
        store: The store of the buffer.
        keys: Compares samples.
    """

    def __init__(self, store: SampleStore, keys: SampleKeys) -> None:
        self._store, self._keys = store, keys
        self._batch: Batch | None = None
        self._id_of: dict[bytes, int] = {}
        self._measured: Floats | None = None
        self._stored: dict[bytes, float] = {}
        self._missing: set[bytes] = set()
        self._errors: Counter[str] = Counter()
        self._has_warned = False

    def begin(self, batch: Batch) -> None:
        """Forget the last batch: another one is claimed."""
        self._keys.forget()
        self._batch, self._measured = batch, None
        self._id_of = dict(zip(self._keys.hashes(batch.samples), batch.ids.tolist(), strict=True))
        self._stored, self._missing, self._errors = {}, set(), Counter()

    def ids_of(self, samples: Sequence[Any]) -> list[int | None]:
        """Return the id of each sample; None if it was not drawn from the buffer."""
        return [self._id_of.get(digest) for digest in self._keys.hashes(samples)]

    def label(self, sample: Any) -> str:
        """Return a label of a sample, the same in each run."""
        return self._keys.hashes([sample])[0].hex()

    # -- for reward callbacks ---------------------------------------------------------------------

    def note_stored(self, samples: Sequence[Any], rewards: Sequence[float]) -> None:
        """Note n rewards that were stored before; NaN for a measurement that has failed."""
        self._stored |= zip(self._keys.hashes(samples), rewards, strict=True)

    def note_missing(self, samples: Sequence[Any]) -> None:
        """Note samples for which a reward function returned None."""
        self._missing |= set(self._keys.hashes(samples))
        self._errors.update([IS_NONE] * len(samples))

    def expect(self, samples: Sequence[Any], sources: Sequence[str]) -> None:
        """Store the samples that were not drawn, which are about to be measured.

        Their rewards come in any order. Stored in one transaction before, the samples have the same
        order in each run, so that a model that is trained on them is the same.
        """
        fresh = [i for i, number in enumerate(self.ids_of(samples)) if number is None]
        if fresh:
            self._store._store_unmeasured([samples[i] for i in fresh], [sources[i] for i in fresh])

    def tried(self, samples: Sequence[Any]) -> set[int]:
        """Return the positions of the drawn samples at which an attempt was counted."""
        numbers = self.ids_of(samples)
        drawn = [number for number in numbers if number is not None]
        tried = self._store._buffer.peek(attempts.tried, ids=drawn)
        return {place for place, number in enumerate(numbers) if number in tried}

    def start(self, samples: Sequence[Any], places: Sequence[int]) -> None:
        """Note that the measurement of those of some samples that stand at `places` starts."""
        begun = [samples[place] for place in places]
        numbers = [number for number in self.ids_of(begun) if number is not None]
        if self._batch is not None and numbers:
            self._batch._start(numbers)

    def report(self, sample: Any, source: str, outcome: Outcome) -> None:
        """Store the reward or the failure of a sample; a drawn sample stays claimed."""
        reward = math.nan if outcome.reward is None else outcome.reward
        more: dict[str, Any] = {
            "errors": [outcome.error],
            "seconds": [outcome.seconds],
            "details": [outcome.details],
        }
        (number,) = self.ids_of([sample])
        if self._batch is None or number is None:
            self._store.record([sample], [reward], source, **more)
        else:
            with contextlib.suppress(ClaimLost):  # it is stored, and settling the batch fails
                self._batch.report([number], [reward], **more, settle=False)
        self.note_stored([sample], [reward])
        self._note_error(outcome)

    def ended(self, sample: Any, source: str, outcome: Outcome) -> bool:
        """Count an attempt that gave no reward; return True if the sample has failed.

        Attempts are counted for drawn samples only: another sample fails at once.
        """
        (number,) = self.ids_of([sample])
        if self._batch is not None and number is not None:
            try:
                has_failed = self._batch._ended(number, ending_of(outcome), settle=False)
            except ClaimLost:  # settling the batch fails, and the sample is tried again later
                has_failed = True
            if has_failed:
                self.note_stored([sample], [math.nan])
                self._note_error(outcome)
            return has_failed
        self.report(sample, source, outcome)
        return True

    def _note_error(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._errors[outcome.error] += 1

    # -- for the buffer ---------------------------------------------------------------------------

    def is_kept(self, samples: Sequence[Any]) -> list[bool]:
        """Tell which of n samples stay in the batch: of equal ones the first, if there is budget.

        Drawn samples count against the budget since their claim, and those with a reward or failure
        cost nothing. Of the others, which samplers have added, as many stay as are left.
        """
        hashes = self._keys.hashes(samples)
        first = dict(zip(reversed(hashes), reversed(range(len(hashes))), strict=True))
        own = sorted(place for digest, place in first.items() if digest not in self._id_of)
        left = self._store.budget_left if own else None
        dropped = set[int]()
        if left is not None:
            stored = self._store.rewards_of([samples[i] for i in own])
            costly = [i for i, reward in zip(own, stored, strict=True) if reward is None]
            dropped.update(costly[left:])
        return [first[digest] == i and i not in dropped for i, digest in enumerate(hashes)]

    def keep(self, state: BatchState) -> None:
        """Keep the rewards as measured: callbacks may change those of the batch afterwards.

        Raises:
            InvalidReward: If the rewards are no numbers, or not one for each sample.
        """
        try:
            rewards = as_floats(state.rewards)
        except (TypeError, ValueError, OverflowError) as exc:
            raise InvalidReward(
                f"the rewards of a batch must be numbers; got {shown(state.rewards)}."
            ) from exc
        if rewards.ndim and rewards.shape != (len(state.samples),):
            raise InvalidReward(
                f"the batch has {len(state.samples)} samples, but rewards of shape {rewards.shape}."
            )
        # A number is the 0.0 of a batch to which no callback has added rewards.
        self._measured = rewards.copy() if rewards.ndim else None
        if rewards.size and np.isnan(rewards).all() and not self._has_warned:
            self._has_warned = True
            ((reason, _),) = self._errors.most_common(1) or [(IS_NAN, 0)]
            logger.warning(
                "all %d measurements of a batch failed, most often with %r: their rewards are "
                "NaN, and store.failed() has the reasons; this warning comes once",
                rewards.size,
                reason,
            )

    def to_settle(self, state: BatchState) -> tuple[dict[int, float | None], Record | None]:
        """Return the rewards that are not stored yet: of claimed samples by id, and of the others.

        Claimed samples that were filtered out have none. Without other samples the record is None.
        """
        hashes = [] if self._measured is None else self._keys.hashes(state.samples)
        values = [] if self._measured is None else self._measured.tolist()
        given = [
            None if math.isnan(value) and digest in self._missing else value
            for digest, value in zip(hashes, values, strict=True)
        ]
        rewards: dict[int, float | None] = {}
        others = []
        for i, (digest, value) in enumerate(zip(hashes, values, strict=True)):
            if self._is_stored(digest, value):
                continue
            number = self._id_of.get(digest)
            if number is None:
                others.append(i)
            elif number not in rewards or not math.isnan(value):
                rewards[number] = given[i]
        record = (
            [state.samples[i] for i in others],
            [given[i] for i in others],
            [state.sources[i] for i in others],
        )
        return rewards, record if others else None

    def _is_stored(self, digest: bytes, reward: float) -> bool:
        stored = self._stored.get(digest)
        return stored is not None and (
            stored == reward or (math.isnan(stored) and math.isnan(reward))
        )
