"""A prioritised sampler of TorchRL's replay buffers that draws in a database."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import torch
from torchrl.data.replay_buffers.samplers import PrioritizedSampler, Sampler

from sqlbuffer._messages import shown
from sqlbuffer._typing import Floats
from sqlbuffer._validation import as_priorities, require_count, require_real
from sqlbuffer.core.weighting import LEAST, MOST
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.integrations.slots import Slots
from sqlbuffer.integrations.torchrl.indices import as_slots


class SqlSampler(PrioritizedSampler):
    r"""Draws elements of a `SqlStorage` with a probability proportional to their priority.

    It takes the place of `PrioritizedSampler`, and has its formulas: an element of priority p is
    drawn at the rate `(p + eps) ** alpha`, and its weight is `(rate / lowest rate) ** -beta`. The
    rates are stored with the elements, as their scores, so that a process that is started again
    goes on with them. A new element has the highest priority so far.

    Elements are drawn by the exact race of the buffer, and none comes twice within a batch unless
    the batch is larger than the storage. `PrioritizedSampler` draws with replacement.

    Args:
        alpha: Exponent of the priorities, 0 or more; 0 draws uniformly. A change applies to the
            priorities that are given afterwards.
        beta: Exponent of the weights, 0 or more.
        eps: Added to each priority, so that one of 0 is drawn, too.
        reduction: How a `TensorDictReplayBuffer` reduces a priority of several numbers: "max",
            "min", "median" or "mean".

    Source:
        Prioritized Experience Replay (Schaul et al. 2016).
    """

    def __init__(
        self, alpha: float, beta: float, *, eps: float = 1e-8, reduction: str = "max"
    ) -> None:
        # Not the base's, which makes trees in memory.
        self.alpha, self.beta = alpha, beta
        self._eps = require_real(eps, "eps must be a number of 0 or more", _is_exponent)
        self.reduction = reduction
        self._storage: Any = None  # a SqlStorage
        self._is_new = False

    @property
    def alpha(self) -> float:
        """Exponent of the priorities."""
        return self._alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        self._alpha = require_real(value, "alpha must be a number of 0 or more", _is_exponent)

    @property
    def beta(self) -> float:
        """Exponent of the weights."""
        return self._beta

    @beta.setter
    def beta(self, value: float) -> None:
        self._beta = require_real(value, "beta must be a number of 0 or more", _is_exponent)

    @property
    def max_size(self) -> int:
        """Number of slots of the storage."""
        if self._storage is None:
            raise InvalidArgument("a SqlSampler has no size before it is in a replay buffer.")
        return int(self._storage.max_size)

    @property
    def device(self) -> torch.device:
        """Where indices and weights are: the processor."""
        return torch.device("cpu")

    def attach(self, storage: Any) -> None:
        """Read priorities from a storage; called by the storage for each new replay buffer."""
        self._storage = storage
        self._is_new = True

    def _slots_of(self, storage: Any) -> Slots:
        """Return the ring of a storage, by default of the one that it is attached to."""
        storage = self._storage if storage is None else storage
        slots = getattr(storage, "slots", None)
        if not isinstance(slots, Slots):
            raise InvalidArgument(
                f"a SqlSampler draws from a SqlStorage, and has {shown(storage)}: give "
                "storage=SqlStorage(url, max_size=...) to the replay buffer."
            )
        self._storage = storage
        return slots

    def sample(self, storage: Any, batch_size: int) -> tuple[torch.Tensor, dict[str, Any]]:
        """Draw a batch; return its slots, and its weights as "priority_weight"."""
        self._is_new = False
        slots = self._slots_of(storage)
        n = require_count(batch_size, "batch_size must be a positive number", least=1)
        index, picked = storage.pick(n)
        weights = (picked.weights / slots.lowest) ** -self._beta
        return index, {"priority_weight": torch.from_numpy(weights).float()}

    def add(self, index: Any) -> None:
        """Give no priority: the storage has given the new element one."""
        self._is_new = False

    def extend(self, index: Any) -> None:
        """Give no priority: the storage has given the new elements one."""
        self._is_new = False

    def mark_update(self, index: Any, *, storage: Any = None) -> None:
        """Give no priority: the storage has given the new elements one."""

    def update_priority(self, index: Any, priority: Any, *, storage: Any = None) -> None:
        """Give elements new priorities, in one transaction.

        An element that another process has overwritten since this process has drawn it is skipped:
        the priority is not that of the element which is there now.

        Args:
            index: n slots; negative ones are skipped.
            priority: n finite numbers of 0 or more, or one for all.
            storage: The storage; by default that of the replay buffer.

        Raises:
            InvalidArgument: If there is not one number for each slot, or one that is negative or
                not finite. Nothing is stored.
        """
        slots = self._slots_of(storage)
        numbers = _flat(index)
        values = self._priorities(priority, len(numbers))
        is_default = bool((values == np.float32(self.default_priority)).all())
        if self._is_set_by_torchrl(numbers) and is_default:
            return
        is_given = np.array([number >= 0 for number in numbers], dtype=np.bool_)
        given = as_slots(
            [number for number in numbers if number >= 0], slots.max_size, last=slots.max_size - 1
        )
        if given and not (is_default and slots.were_just_written(given)):
            slots.update(given, self._rates(values[is_given]))

    def _rates(self, priorities: Floats) -> Floats:
        """Return the rates of priorities, each within those that a sample can be drawn at."""
        raised = priorities + self._eps
        with np.errstate(over="ignore", under="ignore"):
            rates: Floats = np.clip(raised**self._alpha, LEAST, MOST)
        return np.where(raised > 0, rates, 0.0) if self._alpha else rates

    def _priorities(self, priority: Any, n: int) -> Floats:
        values = torch.as_tensor(priority).detach().cpu().to(torch.float64).reshape(-1)
        if len(values) == 1 and n != 1:
            values = values.expand(n)
        return as_priorities(values.numpy(), n)

    def _is_set_by_torchrl(self, numbers: list[int]) -> bool:
        """Tell whether a new replay buffer gives a priority to all stored elements.

        TorchRL does so once for each prioritised sampler, which has none of its own otherwise.
        Another process may have written elements since the buffer was made.
        """
        is_new, self._is_new = self._is_new, False
        return is_new and numbers == list(range(len(numbers)))

    @property
    def default_priority(self) -> float:
        """Priority of a new element: the highest so far, 1 for none."""
        if self._storage is None or not self._alpha:
            return 1.0
        # A small exponent, to which a schedule may lower it, gives numbers beyond all floats.
        largest = float(np.finfo(np.float32).max)
        with np.errstate(over="ignore"):
            highest = np.float64(self._storage.slots.highest) ** (1 / self._alpha)
        return float(np.clip(highest - self._eps, 0.0, largest))

    def _empty(self) -> None:
        """Do nothing: the storage has the priorities."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the generator; the copy finds its priorities in the database."""
        state: dict[str, Any] = Sampler.__getstate__(self)
        return state

    def state_dict(self) -> dict[str, Any]:
        """Return the exponents; the storage has the priorities."""
        return {"_alpha": self._alpha, "_beta": self._beta, "_eps": self._eps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the exponents of a state."""
        self.alpha, self.beta = state_dict["_alpha"], state_dict["_beta"]
        self._eps = state_dict["_eps"]

    def dumps(self, path: Any) -> None:
        """Write the exponents into a folder."""
        folder = pathlib.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sampler_metadata.json").write_text(json.dumps(self.state_dict()))

    def loads(self, path: Any) -> None:
        """Take the exponents from a folder."""
        state = (pathlib.Path(path) / "sampler_metadata.json").read_text()
        self.load_state_dict(json.loads(state))


def _is_exponent(number: float) -> bool:
    return number >= 0 and np.isfinite(number)


def _flat(index: Any) -> list[int]:
    """Return n numbers, of an integer, or of a tensor of n or of (n, 1)."""
    numbers: list[int] = torch.as_tensor(index).to(torch.long).reshape(-1).tolist()
    return numbers
