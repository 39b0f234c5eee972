"""The reward callback: measures the samples of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlbuffer._messages import shown
from sqlbuffer._validation import as_floats, require_flag, require_function, require_real
from sqlbuffer.errors import InvalidArgument, InvalidReward
from sqlbuffer.training.callback import Callback, mean_of


class RewardCallback(Callback):
    """Measures the samples of a batch and adds `weight * function(samples)` to the batch's rewards.

    With `reuse=True` a sample that is drawn again takes its stored reward, and is not measured.
    A stored reward is the whole reward of a sample, so reuse needs a loop with one reward callback;
    with several, give each `reuse=False`. Failed measurements are stored too, and not repeated.
    Stored rewards stay those of the old `function` and `weight`: after a change use another
    buffer, or `reuse=False`.

    Args:
        function: `function(list of n samples)` returns (n,) rewards, an array, list or tensor; NaN
            if a measurement failed.
        name: Names the metric, the mean reward of the batch, and the rewards in the batch state.
        weight: Scales the rewards.
        reuse: Use stored rewards.
    """

    def __init__(
        self,
        function: Callable[[list[Any]], Any],
        name: str = "reward",
        weight: float = 1.0,
        *,
        reuse: bool = True,
    ) -> None:
        super().__init__(name=name)
        self.function = require_function(
            function, "function must take a list of samples and return their rewards"
        )
        self.weight = require_real(weight, "weight must be a finite number")
        self.reuse = require_flag(reuse, "reuse")

    def setup(self) -> None:
        """Announce the metric."""
        self.environment.log.add_metric(self.name)

    def before_train(self) -> None:
        """Refuse to reuse rewards if another callback adds to them."""
        others = [
            cb.name
            for cb in self.environment.cbs
            if cb is not self and hasattr(cb, "compute_reward")
        ]
        if self.reuse and others:
            raise InvalidArgument(
                f"reward callback {self.name!r} would reuse stored rewards, but "
                f"{', '.join(map(repr, others))} adds to "
                f"them: give each RewardCallback reuse=False."
            )

    def compute_reward(self) -> None:
        """Add the rewards of the batch's samples to `batch_state.rewards`."""
        state = self.environment.batch_state
        rewards = self._rewards(state.samples)
        state[self.name] = rewards
        state.rewards = _sum(state.rewards, rewards)
        self.environment.log.update_metric(self.name, mean_of(rewards))

    def _rewards(self, samples: list[Any]) -> NDArray[np.float64]:
        """Return (n,) rewards, measured or stored."""
        store = getattr(self.environment.buffer, "store", None)
        if not self.reuse or store is None:
            return self._measured(samples)
        stored = store.rewards_of(samples)
        unknown = [i for i, reward in enumerate(stored) if reward is None]
        rewards = np.array(stored, dtype=np.float64)
        rewards[unknown] = self._measured([samples[i] for i in unknown])
        return rewards

    def _measured(self, samples: list[Any]) -> NDArray[np.float64]:
        if not samples:
            return np.zeros(0)
        returned = self.function(samples)
        try:
            values = as_floats(returned)
        except (TypeError, ValueError, OverflowError) as exc:
            raise InvalidReward(
                f"reward function {self.name!r} returned {shown(returned)} for {len(samples)} "
                "samples: it must return one number for each, NaN for a failed measurement."
            ) from exc
        if values.shape != (len(samples),):
            raise InvalidReward(
                f"reward function {self.name!r} returned shape {values.shape} for "
                f"{len(samples)} samples: "
                f"it must return one number for each, shape ({len(samples)},)."
            )
        return self.weight * values


def _sum(total: Any, rewards: NDArray[np.float64]) -> Any:
    """Return total + rewards, a tensor if the total is one: numpy cannot add a tensor."""
    return total + total.new_tensor(rewards) if hasattr(total, "new_tensor") else total + rewards
