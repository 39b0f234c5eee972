"""Plain records that the package hands out: no database, no behaviour."""

from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True, slots=True)
class AddResult:
    """What became of the samples of one `add`.

    Attributes:
        added: Samples stored for the first time.
        requeued: Samples that had been drawn or removed before and wait again.
        duplicates: Samples that were already waiting, or claimed and not yet settled, or came twice in one call.
        refused: Samples for which `key` returned None.
    """

    added: int = 0
    requeued: int = 0
    duplicates: int = 0
    refused: int = 0

    def __add__(self, other: AddResult) -> AddResult:
        return AddResult(
            *(
                a + b
                for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
            )
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SampleInfo:
    """What the draw knows of each sample of a batch, aligned by position.

    Attributes:
        probability: (n,) float64 in (0, 1], the chance the sample had of being in this batch. `1 / probability` is an
            unbiased importance weight (Horvitz and Thompson 1952); under the weighting "shift" what has the lowest
            score is drawn so seldom, at a weight of 1e-8, that a total hardly ever counts it. NaN where it cannot be
            known: in a batch that ends among samples which were drawn before, given back, and must come first; and in
            one which draws of other processes have claimed samples among, at the same time.
        argmax: (n,) bool, True where the sample came by the argmax share.
        reward: (n,) float64, the reward stored before this draw, NaN where there is none.
    """

    probability: NDArray[np.float64]
    argmax: NDArray[np.bool_]
    reward: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """A buffer in numbers. All but `best_reward` come from counters, so the cost does not grow with the buffer.

    Attributes:
        name: The buffer's name.
        kind: The weighting, "uniform" for a plain buffer.
        mode: "consume" or "replay".
        iteration: Batches settled so far.
        waiting: Samples in the pool, `len(store)`.
        unscored: Samples in the pool that have no score yet.
        unscorable: Samples in the pool whose score is NaN or whose weight is zero: they are never drawn.
        stored: Distinct samples ever stored.
        claimed: Samples in batches that are neither settled nor released.
        drawn: Draws made, those of released batches taken off.
        requeued: Samples that were added again after they had been drawn or removed.
        removed: Samples taken out of the pool by a filter or by `max_size`.
        measured: Distinct samples with a reward.
        failed: Distinct samples whose measurement failed (a NaN reward).
        refused: Samples refused by `key`.
        best_reward: The highest reward stored, None before the first.
        score_version: The newest version of the scores; it grows with each refresh and each predictor.
        refreshed_version: The version that the newest finished refresh gave to all that waited; where it is not
            `score_version`, older scores may wait.
        created_at: When the buffer was created, UTC.
        key: Module and name of the key function that the buffer was created with; "" for none, "?" for one without a
            name, None where a buffer of an older release has not been told.
        max_size: Scored samples that may wait, None for any number.
    """

    name: str
    kind: str
    mode: str
    iteration: int
    waiting: int
    unscored: int
    unscorable: int
    stored: int
    claimed: int
    drawn: int
    requeued: int
    removed: int
    measured: int
    failed: int
    refused: int
    best_reward: float | None
    score_version: int
    refreshed_version: int
    created_at: dt.datetime
    key: str | None = None
    max_size: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Staleness:
    """The samples that wait with a score of one version.

    Attributes:
        score_version: The version, None for those that have no score.
        waiting: How many they are.
        oldest: When the first of these scores was made, UTC; None where there is none.
    """

    score_version: int | None
    waiting: int
    oldest: dt.datetime | None
