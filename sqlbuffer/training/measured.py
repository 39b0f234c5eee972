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
) -> tuple[dict[int, float], tuple[Any, ...] | None]:
    """Return the rewards of claimed samples by id, and those of other samples.

    Args:
        batch: The claim.
        state: The batch of the loop, which callbacks may have filtered and extended.
        measured: (n,) rewards of the samples of `state`.
        keys: Compares samples.

    Returns:
        The rewards, without claimed samples that were filtered out; and `(samples, rewards,
        sources)` of the samples that were not drawn from the buffer, None without such samples.
    """
    id_of = dict(zip(keys.hashes(batch.samples), batch.ids.tolist(), strict=True))
    rewards: dict[int, float] = {}
    others = []
    for i, digest in enumerate(keys.hashes(state.samples)):
        number = id_of.get(digest)
        if number is None:
            others.append(i)
        elif number not in rewards or not np.isnan(measured[i]):
            rewards[number] = float(measured[i])
    record = (
        [state.samples[i] for i in others],
        measured[others],
        [state.sources[i] for i in others],
    )
    return rewards, record if others else None
