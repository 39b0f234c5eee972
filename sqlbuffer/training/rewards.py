"""The reward callback: measures the samples of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats
from sqlbuffer._validation import (
    as_floats,
    as_list,
    require_flag,
    require_function,
    require_real,
)
from sqlbuffer.errors import InvalidArgument, InvalidReward
from sqlbuffer.training.batch_rewards import BatchRewards
from sqlbuffer.training.callback import Callback, mean_of
from sqlbuffer.training.checkpoint import Checkpoint
from sqlbuffer.training.measurer import Measurer


class RewardCallback(Callback):
    """Measures the samples of a batch and adds `weight * function(samples)` to the batch's rewards.

    With `reuse=True` a sample that is drawn again takes its stored reward, and is not measured.
    A stored reward is the whole reward of a sample, so reuse needs a loop with one reward callback;
    with several, give each `reuse=False`. Failed measurements are stored too, and not repeated.
    Stored rewards stay those of the old `function` and `weight`: after a change use another
    buffer, or `reuse=False`. A failed measurement is NaN in `batch_state.rewards`: an agent leaves
    it out of its loss, since the mean of rewards with NaN is NaN.

    By default the function measures a whole batch in one call in this process, rewards are stored
    when the batch is settled, and an exception ends the fit. One of `each`, `n_jobs`, `timeout_s`,
    `on_error` and `executor` is for rewards that take long or fail. Each reward is then stored as
    it comes, and an exception, a timeout, None, text and infinity are failures: the reward is NaN,
    and `store.failed()` has the reason. If the loop is killed, the run that resumes draws the same
    batch, and measures only the samples that have no stored reward. The whole reward is stored, so
    the loop can have no other callback that adds rewards.

    Args:
        function: `function(list of n samples)` returns (n,) rewards, an array, list or tensor; NaN
            or None if a measurement failed. With `each=True`, `function(sample)` returns the
            reward, or `(reward, details)` with a mapping that JSON can hold.
        name: Names the metric, the mean reward of the batch, and the rewards in the batch state.
        weight: Scales the rewards.
        reuse: Use stored rewards.
        each: Measure each sample in a call of its own. If the process of the loop dies, the samples
            that it was measuring have had an attempt: a sample with as many attempts as the buffer
            allows has failed, and the next run goes on without it.
        n_jobs: Number of child processes; of an executor, the number of calls at a time. Without
            `each` each process gets an equal part of the batch in one call; if a call fails, each
            of its samples is measured alone.
        timeout_s: Seconds after which a call is killed, and its sample has failed.
        on_error: "fail": a failed measurement is stored at once; "retry": a failure is an attempt,
            and the sample is measured again; "raise": the fit ends with `CannotMeasure`. None:
            "fail" with one of the other arguments, else exceptions of the function go through. A
            child process that dies is an attempt in any case. Attempts are counted for samples that
            were drawn from the buffer; other samples fail at the first.
        executor: A `concurrent.futures.Executor` that makes the calls; it stays open.

    Examples:
        >>> from sqlbuffer import Buffer, Environment, RewardCallback
        >>> reward = RewardCallback(len, name="length", each=True)
        >>> buffer = Buffer(1.0, url="sqlite:///molecules.db", name="molecules")
        >>> environment = Environment(rewards=[reward], buffer=buffer)
        >>> environment.fit(bs=5, iters=2, report=None)
        >>> store.stats().measured, store.top(1)[0]["sample"]
        (12, 'c1ccccc1')
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        name: str = "reward",
        weight: float = 1.0,
        *,
        reuse: bool = True,
        each: bool = False,
        n_jobs: int = 1,
        timeout_s: float | None = None,
        on_error: str | None = None,
        executor: Any = None,
    ) -> None:
        super().__init__(name=name)
        self.function = require_function(
            function, "function must take a list of samples and return their rewards", takes=1
        )
        self.weight = require_real(weight, "weight must be a finite number")
        self.reuse = require_flag(reuse, "reuse")
        self.each = require_flag(each, "each")
        self._measurer: Measurer | None = None
        if self.each or n_jobs != 1 or (timeout_s, on_error, executor) != (None, None, None):
            self._measurer = Measurer(
                self.function,
                weight=self.weight,
                on_error="fail" if on_error is None else on_error,
                n_jobs=n_jobs,
                each=self.each,
                timeout_s=timeout_s,
                executor=executor,
            )

    @property
    def counts_attempts(self) -> bool:
        """True if the death of this process is an attempt at the samples that it was measuring."""
        return self.each

    def setup(self) -> None:
        """Announce the metric."""
        self.environment.log.add_metric(self.name)

    def before_train(self) -> None:
        """Refuse to store or reuse rewards if another callback adds to them."""
        others = ", ".join(
            repr(cb.name)
            for cb in self.environment.cbs
            if cb is not self and hasattr(cb, "compute_reward")
        )
        if others and self._measurer is not None:
            raise InvalidArgument(
                f"reward callback {self.name!r} would store each reward as it comes, but {others} "
                "adds to the rewards: use one RewardCallback whose function returns the sum, or "
                "give none of each, n_jobs, timeout_s, on_error and executor."
            )
        if others and self.reuse:
            raise InvalidArgument(
                f"reward callback {self.name!r} would reuse stored rewards, but {others} adds to "
                f"them: give each RewardCallback reuse=False."
            )

    def compute_reward(self) -> None:
        """Add the rewards of the batch's samples to `batch_state.rewards`."""
        state = self.environment.batch_state
        rewards = self._rewards(state.samples, state.sources)
        state[self.name] = rewards
        state.rewards = _sum(state.rewards, rewards)
        self.environment.log.update_metric(self.name, mean_of(rewards))

    def abort_batch(self) -> None:
        """End the child processes; the next batch starts others."""
        if self._measurer is not None:
            self._measurer.close()

    def after_train(self) -> None:
        """End the child processes."""
        self.abort_batch()

    def _rewards(self, samples: list[Any], sources: list[str]) -> Floats:
        """Return (n,) rewards, measured or stored."""
        store = getattr(self.environment.buffer, "store", None)
        batch = getattr(self.environment.buffer, "batch_rewards", None)
        rewards = np.full(len(samples), np.nan)
        unknown = list(range(len(samples)))
        if self.reuse and store is not None:
            stored = store.rewards_of(samples)
            unknown = [i for i, reward in enumerate(stored) if reward is None]
            rewards[:] = np.array(stored, dtype=np.float64)
            if batch is not None:
                known = [i for i, reward in enumerate(stored) if reward is not None]
                batch.note_stored([samples[i] for i in known], rewards[known].tolist())
        rewards[unknown] = self._measured(
            [samples[i] for i in unknown], [sources[i] for i in unknown], batch
        )
        return rewards

    def _measured(
        self, samples: list[Any], sources: list[str], batch: BatchRewards | None
    ) -> Floats:
        if not samples:
            return np.zeros(0)
        if self._measurer is not None:
            with self._random_numbers_apart() as before_call:
                return self._measurer.measure(samples, sources, batch, before_call)
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
        if batch is not None and np.isnan(values).any():
            missing = zip(samples, as_list(returned), strict=True)
            batch.note_missing([sample for sample, reward in missing if reward is None])
        return self.weight * values

    def _random_numbers_apart(self) -> contextlib.AbstractContextManager[Any]:
        """Give calls random numbers of their own: a resumed run does not repeat all of them."""
        checkpoints = [cb for cb in self.environment.cbs if isinstance(cb, Checkpoint)]
        return checkpoints[0].apart() if checkpoints else contextlib.nullcontext()


def _sum(total: Any, rewards: Floats) -> Any:
    """Return total + rewards, a tensor if the total is one: numpy cannot add a tensor."""
    return total + total.new_tensor(rewards) if hasattr(total, "new_tensor") else total + rewards
