"""Records that the public functions return."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import TYPE_CHECKING

from sqlbuffer import _html
from sqlbuffer._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


LEAST_ROWS = 10
"""Of fewer samples a rank correlation says nothing, and none is shown."""


@dataclasses.dataclass(frozen=True, slots=True)
class AddResult:
    """Counts of the samples of one `add`: each sample given is counted once.

    `added + requeued + duplicates + known + refused` is the number of samples given.

    Attributes:
        added: Samples stored for the first time; they wait.
        requeued: Samples that were stored before, neither waited nor were claimed, and wait again:
            evicted ones; with `requeue=True` also measured, failed, settled and removed ones.
        duplicates: Samples that wait or are claimed, and repeats of a sample in the call.
        known: Samples that were stored before, neither wait nor are claimed, and stay out:
            measured, failed, settled or removed. 0 with `requeue=True`. `add` stores 20,000 samples
            at a time, and a repeat that comes later than that is counted here again.
        refused_at: Positions in the call, from 0, of the samples for which `key` returned None.

    Examples:
        >>> store.add(["CCO", "CCCO", "CC"])
        AddResult(added=1, requeued=0, duplicates=1, known=1, refused_at=())
    """

    added: int = 0
    requeued: int = 0
    duplicates: int = 0
    known: int = 0
    refused_at: tuple[int, ...] = ()

    @property
    def refused(self) -> int:
        """Number of samples for which `key` returned None.

        Examples:
            >>> whole = open_store("sqlite:///whole.db", key=lambda s: None if "." in s else s)
            >>> result = whole.add(["CCO", "CCO.Cl"])
            >>> result.refused, result.refused_at
            (1, (1,))
        """
        return len(self.refused_at)

    def __add__(self, other: AddResult) -> AddResult:
        return AddResult(
            *(
                a + b
                for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
            )
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SampleInfo:
    """Details of the draw of a batch, aligned with its samples.

    Attributes:
        probability: (n,) float64 in (0, 1], the probability that the sample is in this batch. `1 /
            probability` is an unbiased importance weight (Horvitz and Thompson 1952). Under the
            weighting "shift", samples with the lowest score have a weight of 1e-8, and are drawn so
            seldom that a total hardly ever counts them. It assumes that no scores or samples were
            chosen by what a released batch held and stored after its release; stored before, they
            may be. NaN if the probability is unknown. In mode "consume": if the batch ends among
            released samples, which are drawn first, or if another process claimed samples during
            the draw. In mode "replay": only if the batch ends among samples of a released batch of
            which some got priorities, or were removed, after its release.
        argmax: (n,) bool, True if the sample was drawn by the argmax share.
        reward: (n,) float64, the reward stored before this draw, NaN if there is none.

    Examples:
        >>> batch = store.sample(3, pct_argmax=0.34)
        >>> batch.info.argmax, batch.info.probability.round(3)
        (array([ True, False, False]), array([1.   , 0.118, 0.221]))
    """

    probability: NDArray[np.float64]
    argmax: NDArray[np.bool_]
    reward: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Stats:
    """Counts and settings of a buffer.

    All counts come from stored counters, so their cost does not grow with the buffer.

    Attributes:
        name: The buffer's name.
        kind: The weighting, "uniform" for a plain buffer.
        mode: "consume" or "replay".
        iteration: Batches settled so far.
        waiting: Samples in the pool; `len(store)`.
        unscored: Samples in the pool without a score.
        unscorable: Samples in the pool with a NaN score or a zero weight; they are never drawn.
        stored: Distinct samples stored so far.
        claimed: Samples in batches that are neither settled nor released.
        drawn: Samples drawn, without those of released batches.
        requeued: Samples that were added again after they were drawn or removed.
        removed: Samples removed from the pool by a filter or by `max_size`.
        measured: Distinct samples with a reward.
        failed: Distinct samples whose measurement failed (a NaN reward).
        refused: Samples refused by `key`.
        best_reward: The best stored reward, None before the first: the highest, under "minimize"
            the lowest. It is read by an index.
        score_version: Newest version of the scores; each refresh and each predictor increases it.
        refreshed_version: Version that the last finished refresh gave to all waiting samples. If it
            is not `score_version`, samples with older scores may wait.
        created_at: When the buffer was created, UTC.
        key: Module and name of the key function of the buffer; "" if it has none, "?" for a
            function without a name, None if a buffer of an older release has not stored it.
        max_size: Number of scored samples that may wait, None for no limit.
        direction: "maximize": a higher reward is better; "minimize": a lower one.
        evict: Samples that leave beyond `max_size`: "lightest" or "oldest".
        budget: Most samples that may be measured, failed or claimed, None for any number.
        objective: Name of the reward function.
        max_attempts: Attempts after which a sample has failed, None for any number.

    Examples:
        >>> stats = store.stats()
        >>> stats.waiting, stats.stored, stats.kind, stats.mode, stats.direction
        (10, 13, 'shift', 'consume', 'maximize')
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
    direction: str = "maximize"
    evict: str = "lightest"
    budget: int | None = None
    objective: str = "reward"
    max_attempts: int | None = 3

    def _repr_html_(self) -> str | None:
        return _html.or_none(_html.fields, self)


@dataclasses.dataclass(frozen=True, slots=True)
class Staleness:
    """The waiting samples with scores of one version.

    Attributes:
        score_version: The version; None for samples without a score.
        waiting: The number of samples.
        oldest: Time of the oldest of these scores, UTC; None without scores.

    Examples:
        >>> store.staleness()[0].waiting
        10
    """

    score_version: int | None
    waiting: int
    oldest: dt.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class ForgetResult:
    """What `forget` has deleted.

    Attributes:
        forgotten: Number of samples.
        predictors: Versions of the predictors that were stored after the first reward of one of
            these samples, and may have been trained on it; the oldest first.

    Examples:
        >>> store.forget([11])
        ForgetResult(forgotten=1, predictors=())
    """

    forgotten: int = 0
    predictors: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class PruneResult:
    """What `prune` has dropped.

    Attributes:
        draws: Rows of `draws`.
        metrics: Rows of `metrics`.
        checkpoints: Rows of `checkpoints`.
        predictors: Predictor versions whose states were dropped; their measures stay.
        size_bytes: Bytes of the dropped values: the checkpoints and states, and 48 bytes for each
            draw and metric.

    Examples:
        >>> store.prune(keep_draws=100)
        PruneResult(draws=0, metrics=0, checkpoints=0, predictors=0, size_bytes=0)
    """

    draws: int = 0
    metrics: int = 0
    checkpoints: int = 0
    predictors: int = 0
    size_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class MeasureResult:
    """What a process has measured.

    Attributes:
        measured: Samples that got a reward.
        failed: Samples whose measurement failed.
        released: Samples that were claimed and not measured; they wait again.
        seconds: How long it took.

    Examples:
        >>> result = store.measure(len, max_calls=4, silent=True)
        >>> result.measured, result.failed, result.released
        (4, 0, 0)
    """

    measured: int
    failed: int
    released: int
    seconds: float
