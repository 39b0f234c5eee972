"""The rewards of a batch as measured, and their order in the claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats
from sqlbuffer._validation import as_floats
from sqlbuffer.errors import InvalidReward
from sqlbuffer.training.callback import BatchState
from sqlbuffer.training.sample_keys import SampleKeys

if TYPE_CHECKING:
    from sqlbuffer.core.batch import Batch


def measured_rewards(state: BatchState) -> Floats | None:
    """Return a copy of the batch's rewards, (n,) float64; None if no callback has added rewards.

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
    return rewards.copy() if rewards.ndim else None


def by_claim(
    batch: Batch, state: BatchState, measured: Floats, keys: SampleKeys
) -> tuple[list[float | None], tuple[Any, ...] | None]:
    """Return the rewards of claimed samples in the order of the claim, and those of other samples.

    Args:
        batch: The claim.
        state: The batch of the loop, which callbacks may have filtered and extended.
        measured: (n,) rewards of the samples of `state`.
        keys: Compares samples.

    Returns:
        The rewards, None for a claimed sample that was filtered out; and `(samples, rewards,
        sources)` of the samples that were not drawn from the buffer, None without such samples.
    """
    place = {digest: i for i, digest in enumerate(keys.hashes(batch.samples))}
    rewards: list[float | None] = [None] * len(batch)
    others = []
    for i, digest in enumerate(keys.hashes(state.samples)):
        if digest in place:
            if rewards[place[digest]] is None or not np.isnan(measured[i]):
                rewards[place[digest]] = float(measured[i])
        else:
            others.append(i)
    record = (
        [state.samples[i] for i in others],
        measured[others],
        [state.sources[i] for i in others],
    )
    return rewards, record if others else None
