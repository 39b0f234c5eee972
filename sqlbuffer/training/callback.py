"""The base of every callback, the events of a loop, and the batch that callbacks work on."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sqlbuffer._validation import LARGEST_INT, as_floats, as_mask, as_name, require_int

BUILD = ("build_buffer", "filter_buffer", "after_build_buffer")
SAMPLE = ("before_batch", "sample_batch", "before_filter_batch", "filter_batch", "after_sample")
REWARD = (
    "before_compute_reward",
    "compute_reward",
    "after_compute_reward",
    "reward_modification",
    "after_reward_modification",
)
OUTPUTS = ("get_model_outputs", "after_get_model_outputs")
OPTIMISE = ("compute_loss", "zero_grad", "before_step", "step")

EVENTS = (
    "setup",
    "before_train",
    *BUILD,
    *SAMPLE,
    *REWARD,
    *OUTPUTS,
    *OPTIMISE,
    "after_batch",
    "after_train",
)
"""Every event, in the order of a run. After an exception or a lost batch comes `abort_batch`."""


class Callback:
    """Part of a training loop: called with the name of an event, it runs its method of that name.

    Args:
        name: Becomes an attribute of the environment, and names the callback's metrics.
        order: Callbacks answer an event from the lowest order to the highest.

    Attributes:
        environment: The loop this callback is registered with.
        event_timelog: Seconds of each call, by event.
        kept: Number of its checkpoints that stay stored, None for all.

    Examples:
        >>> from sqlbuffer import Buffer, Callback, Environment
        >>> class Show(Callback):
        ...     def after_sample(self):
        ...         print(self.environment.batch_state.samples)
        >>> buffer = Buffer(1.0, url="sqlite:///molecules.db", name="molecules")
        >>> Environment(cbs=[Show("show")], buffer=buffer).fit(bs=3, iters=2, report=None)
        ['C#N', 'CC=O', 'CCN']
        ['c1ccccc1', 'C1CC1', 'CC(C)O']
    """

    kept: int | None = 1

    def __init__(self, name: str = "callback", order: int = 10) -> None:
        self.name = as_name(name, "a callback's name")
        self.order = require_int(order, "order must be an integer", least=-LARGEST_INT)
        self.environment: Any = None
        self.batch_state: Any = None
        self.event_timelog: defaultdict[str, list[float]] = defaultdict(list)

    def __call__(self, event: str) -> Any:
        """Run the method of the event's name, if there is one."""
        start = time.perf_counter()
        handler = getattr(self, event, None)
        result = None if handler is None else handler()
        self.event_timelog[event].append(time.perf_counter() - start)
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, order={self.order})"

    def checkpoint(self) -> bytes | None:
        """Return the state that a resumed run needs, to store with each settled batch, or None."""
        return None

    def restore(self, state: bytes) -> None:
        """Load the state that `checkpoint` returned at the last settled batch."""

    def _filter_batch(self, valids: ArrayLike) -> None:
        """Keep the batch's samples for which `valids` is true, with their sources and latents."""
        state = self.environment.batch_state
        n = len(state.samples)
        keep = as_mask(valids, n, f"the batch has {n} samples: valids must have a bool for each")
        if keep.all():
            return
        sources = np.array(state.sources, dtype=object)
        state.samples = [sample for sample, kept in zip(state.samples, keep, strict=True) if kept]
        state.latent_data = {
            name: rows[keep[sources == name]] for name, rows in state.latent_data.items()
        }
        state.sources = list(sources[keep])


class BatchState(dict[str, Any]):
    """One batch during its events: a dict whose keys are attributes too.

    Attributes:
        samples: The batch's samples, a list that callbacks extend.
        sources: Names of the samples' generators.
        rewards: 0.0 until a callback adds (n,) rewards.
        loss: 0.0 until a callback adds a scalar tensor.
        latent_data: By source, one row for each sample of that source.
    """

    def __init__(self) -> None:
        super().__init__(samples=[], sources=[], rewards=0.0, loss=0.0, latent_data={})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the batch has no {name!r}: no callback has set it.") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def mean_of(values: Any) -> float:
    """Return the mean of the finite values, NaN if there are none."""
    floats = as_floats(values)
    finite = floats[np.isfinite(floats)]
    return float(finite.mean()) if finite.size else math.nan
