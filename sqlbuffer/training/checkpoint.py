"""The checkpoint: agents, optimisers, schedulers and random states, stored with settled batches."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sqlbuffer._validation import require_count
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.samples.state_dict import pack, unpack
from sqlbuffer.training.callback import Callback
from sqlbuffer.training.resume import CHECKPOINT
from sqlbuffer.training.rng import Randomness, States

logger = logging.getLogger(__name__)

FIRST = -1000
"""Order before all other callbacks: random states are set before another callback draws."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types that torch can look for NaN in, on every device."""


class Checkpoint(Callback):
    """Stores agents and random states when a batch is settled, and restores them in a resumed run.

    A run that is killed at any moment and started again equals a run that was never killed, to the
    last bit. Give the checkpoint every agent that learns in the loop. A `PredictiveBuffer` stores
    its own model.

    An agent's state is that of the objects with `state_dict` and `load_state_dict`: the agent
    itself (a module, an optimiser, a scheduler, a `PredictiveAgent`) and its attributes, also in
    lists and dicts. Other attributes are not stored: put values that a run needs into a
    `state_dict`. All these objects must exist before `fit`.

    The random states are those of `random`, `numpy.random`, torch's default generators and
    `generators`. Each iteration begins with the states that the last settled batch left. Work
    between two iterations draws from random streams of its own: retraining, a refresh, callbacks
    after the batch, code between two fits. A resumed run may repeat such work without effect on
    later iterations. The calls of a `RewardCallback` that stores each reward as it comes draw from
    a stream of their own too, which is the same in a resumed run.

    With `every=n` only each n-th iteration stores a state. A killed run still repeats no iteration,
    because its rewards are stored. Its agents are those of the last stored state, without their
    last n - 1 updates at most, and its random numbers are new ones. After an exception (also
    Ctrl-C) or a lost batch, agents return to the last settled batch if its state was stored.

    Args:
        agents: An agent, a list of agents, or a dict of agents by name. Agents in a list are named
            by their attribute `name`, or by their class.
        every: Iterations from one stored state to the next.
        generators: numpy Generators that the loop draws from, in the same order in each run.

    Examples:
        >>> from sqlbuffer import Buffer, Checkpoint, Environment
        >>> model = torch.nn.Linear(2, 1)
        >>> optimiser = torch.optim.Adam(model.parameters())
        >>> checkpoint = Checkpoint({"model": model, "optimiser": optimiser})
        >>> buffer = Buffer(1.0, url="sqlite:///molecules.db", name="molecules")
        >>> Environment(cbs=[checkpoint], buffer=buffer).fit(bs=5, iters=2, report=None)
        >>> store.checkpoint("checkpoint")[0]  # batches settled by then
        2
    """

    def __init__(
        self,
        agents: Any,
        every: int = 1,
        *,
        generators: Sequence[np.random.Generator] = (),
    ) -> None:
        super().__init__(name=CHECKPOINT, order=FIRST)
        every = require_count(every, "every must be a number of iterations, 1 or more", least=1)
        self.agents: dict[str, Any] = _named(agents)
        self.every = every
        self._randomness = Randomness(generators)
        self._states: States | None = None
        self._is_begun = False
        self._has_warned = False

    # -- events -----------------------------------------------------------------------------------

    def setup(self) -> None:
        """Refuse a second checkpoint, and agents that change after the batch is settled."""
        env = self.environment
        if [cb for cb in env.cbs if isinstance(cb, Checkpoint)] != [self]:
            raise InvalidArgument(
                "a loop has one Checkpoint: give it all agents, Checkpoint([first, second])."
            )
        for name, agent in self.agents.items():
            is_late = agent in env.cbs and agent.order >= env.buffer.order
            if is_late and hasattr(agent, "after_batch"):
                raise InvalidArgument(
                    f"agent {name!r} of order {agent.order} runs after_batch when the batch is "
                    "already settled, and a killed run would lose its changes: make the changes "
                    f"in step, or give the agent an order below {env.buffer.order}."
                )

    def build_buffer(self) -> None:
        """Begin the iteration with the random states of the last settled batch."""
        self._begin()

    def before_batch(self) -> None:
        """Begin the iteration, if nothing was built."""
        self._begin()

    def abort_batch(self) -> None:
        """Return the agents to the last settled batch, to begin the iteration again."""
        self._is_begun = False
        store = self.environment.buffer.store
        stored = store.checkpoint(self.name)
        if stored is not None and stored[0] == store.iteration:
            settled = unpack(stored[1])
            self._load(settled["agents"])
            self._states = settled["random"]

    @contextlib.contextmanager
    def apart(self) -> Iterator[Callable[[str], None]]:
        """Keep the loop's random states from the block, which may run in parts.

        The block gets a function that sets the random states of a label: they follow from the
        states of the loop and the label alone.
        """
        states = self._randomness.states()
        try:
            yield lambda label: self._randomness.put(self._randomness.alongside(states, label))
        finally:
            self._randomness.put(states)

    # -- state ------------------------------------------------------------------------------------

    def checkpoint(self) -> bytes | None:
        """Return agents and random states in iterations that store them."""
        iteration = self.environment.buffer.next_iteration
        # An iteration that has not begun keeps the states that it is to begin with.
        if self._is_begun or self._states is None:
            self._leave(self._randomness.states())
        if iteration % self.every:
            return None
        agents = {name: _state_of(holder) for name, holder in self._holders().items()}
        packed = pack({"iteration": iteration, "agents": agents, "random": self._states})
        self._warn_of_nan(agents)
        return packed

    def restore(self, state: bytes) -> None:
        """Load agents and random states."""
        stored = unpack(state)
        self._load(stored["agents"])
        iteration, states = self.environment.buffer.store.iteration, stored["random"]
        if iteration > stored["iteration"]:
            logger.info(
                "the agents are at iteration %d, the buffer is at %d",
                stored["iteration"],
                iteration,
            )
            # The numbers of the stored states have been drawn already.
            states = self._randomness.alongside(states, f"iteration {iteration}")
        self._leave(states)

    def _warn_of_nan(self, agents: Mapping[str, Any]) -> None:
        """Warn once of a state with NaN, which no later update mends."""
        found = () if self._has_warned else _nan_places(agents)
        if place := next(iter(found), None):
            self._has_warned = True
            logger.warning(
                "the checkpoint stores NaN in %s of %s: failed measurements have the reward NaN; "
                "leave NaN out of the loss, and begin again, since no update mends a NaN",
                place[1],
                place[0],
            )

    def _begin(self) -> None:
        if self._states is not None and not self._is_begun:
            self._randomness.put(self._states)
        self._is_begun = True

    def _leave(self, states: States) -> None:
        """Keep states for the next iteration, and set others until it begins."""
        self._states, self._is_begun = states, False
        self._randomness.put(self._randomness.alongside(states, "between"))

    def _holders(self) -> dict[str, Any]:
        """Return the objects with state, by agent and attribute, but for the buffer's predictor."""
        predictor = getattr(self.environment.buffer, "predictive_agent", None)
        stored_elsewhere = [predictor, getattr(predictor, "model", None)]
        found: dict[str, Any] = {}
        for name, agent in self.agents.items():
            holders = {
                ".".join([name, *path]): holder
                for path, holder in _holders_of(agent)
                if agent is not predictor and not any(holder is each for each in stored_elsewhere)
            }
            if not holders:
                raise InvalidArgument(
                    f"agent {name!r}, {type(agent).__name__}, has no state to store: neither it "
                    "nor one of its attributes has state_dict and load_state_dict, or it is the "
                    "predictor, which the buffer stores: give modules, optimisers and "
                    "schedulers that exist before fit, or objects that hold them."
                )
            found |= holders
        return found

    def _load(self, stored: Mapping[str, Any]) -> None:
        """Load a state into the agents; load nothing if it does not fit one of them."""
        holders = self._holders()
        if holders.keys() != stored.keys():
            raise InvalidArgument(
                f"the checkpoint has the states of {', '.join(stored)}, but this run has "
                f"{', '.join(holders)}: give Checkpoint the same agents, or begin a new run with "
                "fresh=True."
            )
        for name, holder in holders.items():
            _check_fit(name, stored[name], _state_of(holder))
        for name, holder in holders.items():
            holder.load_state_dict(stored[name]["state"])


def _named(agents: Any) -> dict[str, Any]:
    if isinstance(agents, Mapping):
        return {str(name): agent for name, agent in agents.items()}
    named: dict[str, Any] = {}
    for agent in agents if isinstance(agents, (list, tuple)) else [agents]:
        own = getattr(agent, "name", None)
        name = own if isinstance(own, str) else type(agent).__name__
        named[name if name not in named else f"{name}-{len(named) + 1}"] = agent
    return named


def _has_state(thing: Any) -> bool:
    return not isinstance(thing, type) and all(
        callable(getattr(thing, method, None)) for method in ("state_dict", "load_state_dict")
    )


def _holders_of(agent: Any) -> Iterator[tuple[list[str], Any]]:
    """Yield the objects that hold an agent's state: itself, its attributes, and items of those."""
    if _has_state(agent):
        yield [], agent
    for name, value in getattr(agent, "__dict__", {}).items():
        many = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value
        parts = many.items() if type(many) is dict and not name.startswith("_") else []
        yield from (([name], value) for _ in range(_has_state(value)))
        yield from (([name, str(key)], part) for key, part in parts if _has_state(part))


def _state_of(holder: Any) -> dict[str, Any]:
    """Return a holder's state, its class, and the shapes of its tensors or stepped parameters."""
    state = holder.state_dict()
    # The state of another object may gain tensors over time.
    is_whole = isinstance(holder, (nn.Module, Optimizer))
    if isinstance(holder, Optimizer):
        sizes = {
            f"group {i}, parameter {j}": list(parameter.shape)
            for i, group in enumerate(holder.param_groups)
            for j, parameter in enumerate(group["params"])
        }
    else:
        sizes = {
            str(key): list(value.shape) for key, value in state.items() if isinstance(value, Tensor)
        }
    kind = "Module" if isinstance(holder, nn.Module) else type(holder).__name__
    return {"kind": kind, "shapes": sizes, "is_whole": is_whole, "state": state}


def _nan_places(agents: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield holder and path of tensors with NaN. Infinities pass: masks of attention have them."""
    for name, held in agents.items():
        for path, tensor in _tensors_of(held["state"], ""):
            if tensor.dtype in _FLOATS and bool(tensor.isnan().any()):
                yield name, path


def _tensors_of(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a state with their paths."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, (Mapping, list, tuple)):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in parts:
            yield from _tensors_of(part, f"{path}/{key}" if path else str(key))


def _check_fit(name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    old, new = theirs["shapes"], ours["shapes"]
    keys = old.keys() | new.keys() if ours["is_whole"] else old.keys() & new.keys()
    odd = [
        f"{key}: stored {_shape(old.get(key))}, now {_shape(new.get(key))}"
        for key in sorted(keys)
        if old.get(key) != new.get(key)
    ]
    if theirs["kind"] != ours["kind"]:
        odd = [f"stored {theirs['kind']}, now {ours['kind']}"]
    if odd:
        raise InvalidArgument(
            f"the checkpoint does not fit {name} ({'; '.join(odd[:5])}): give the unchanged "
            "agent, or begin a new run with fresh=True."
        )


def _shape(sizes: list[int] | None) -> str:
    return "nothing" if sizes is None else str(tuple(sizes))
