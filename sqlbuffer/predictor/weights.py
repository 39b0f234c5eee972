"""The weights of an agent as bytes of safetensors; loading them executes no code."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sqlbuffer._messages import shown
from sqlbuffer._tensors import tensors_to_bytes
from sqlbuffer.errors import InvalidArgument, InvalidPayload

OPTIMISER = "optimiser."
"""Prefix of the names of the optimiser's tensors in a stored state."""

_OF_ADAM = ("step", "exp_avg", "exp_avg_sq")
"""State of Adam for a parameter: a number, and two tensors of its shape."""


def dump_state(agent: Any) -> bytes:
    """Return the agent's weights as safetensors, empty for an agent that has no state.

    Raises:
        InvalidArgument: If the state cannot be stored, see `require_storable`.
    """
    holder = _state_holder(agent)
    state = {} if holder is None else holder.state_dict()
    require_storable(state)
    return tensors_to_bytes(_tensors(state))


def load_state(agent: Any, state: bytes) -> None:
    """Load weights of `dump_state` into an agent.

    Raises:
        InvalidArgument: If the weights have other names, shapes or types than the model.
        InvalidPayload: If the bytes are not safetensors.
    """
    holder = _state_holder(agent)
    if holder is None:
        return
    try:
        stored = safetensors.torch.load(state)
    except safetensors.SafetensorError as exc:
        raise InvalidPayload(f"the stored predictor is not safetensors: {exc}.") from exc
    # A tensor of a dtype that torch lacks.
    except (KeyError, TypeError, ValueError, RuntimeError) as exc:
        raise InvalidPayload(
            f"the stored predictor has a tensor that torch cannot read: {exc}."
        ) from exc
    # An agent with an optimiser checks the moments itself: they may be missing.
    has_moments = not isinstance(holder, nn.Module)
    ours, theirs = (
        {
            key: value
            for key, value in tensors.items()
            if not (has_moments and key.startswith(OPTIMISER))
        }
        for tensors in (_tensors(holder.state_dict()), stored)
    )
    require_fit(theirs, ours)
    # Values that are not tensors are not stored and stay; moments that are not stored are reset.
    others = {
        key: value for key, value in holder.state_dict().items() if not isinstance(value, Tensor)
    }
    holder.load_state_dict({**others, **stored})


def moments_from(
    state: Mapping[str, Any], optimiser: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]]:
    """Return the optimiser's moments of a state, by parameter and name.

    Raises:
        InvalidArgument: If they do not fit the parameters.
    """
    moments = {key: value for key, value in state.items() if key.startswith(OPTIMISER)}
    slots: dict[int, dict[str, Tensor]] = {}
    expected: dict[str, Tensor] = {}
    parameters = (parameter for group in optimiser.param_groups for parameter in group["params"])
    for number, parameter in enumerate(parameters):
        start = f"{OPTIMISER}{number}."
        slot = {
            key.removeprefix(start): value
            for key, value in moments.items()
            if key.startswith(start)
        }
        if slot:  # a parameter without gradient has no slot
            slots[number] = slot
            for name in {*slot, *(_OF_ADAM if isinstance(optimiser, torch.optim.Adam) else ())}:
                is_number = name in slot and not slot[name].dim() and name not in _OF_ADAM[1:]
                expected[start + name] = slot[name] if is_number else parameter
    require_fit(moments, expected)
    return slots


def require_storable(state: Mapping[str, Any]) -> None:
    """Refuse a state that cannot be stored without loss.

    Raises:
        InvalidArgument: If a value is not a tensor, not dense, has no data, or has a dtype that
            safetensors lacks.
    """
    for key, value in state.items():
        if (objection := _objection(value)) is not None:
            what, advice = objection
            raise InvalidArgument(
                f"{key:.80} of the model cannot be stored, because it is {what}: {advice}."
            )


def _objection(value: Any) -> tuple[str, str] | None:
    """Return why a value of a state cannot be stored, and the way out; None if it can."""
    if not isinstance(value, Tensor):
        return (
            f"{shown(value)}, not a tensor",
            "give the module a buffer, or a get_extra_state that returns a tensor",
        )
    if nn.parameter.is_lazy(value):
        return (
            "not initialised yet",
            "call the model once on the features of a sample before the agent is made",
        )
    if value.is_meta:
        return (
            "on the meta device, without data",
            "move the model with to_empty() and initialise it",
        )
    if value.layout is not torch.strided or value.is_nested or value.is_quantized:
        kind = "nested" if value.is_nested else "quantised" if value.is_quantized else "sparse"
        return f"a {kind} tensor", "register a dense tensor, and make the sparse one in forward"
    if not _is_storable(value.dtype):
        return (
            f"of type {str(value.dtype).removeprefix('torch.')}",
            "convert the model, such as by model.float()",
        )
    return None


@functools.cache
def _is_storable(dtype: torch.dtype) -> bool:
    """Tell whether safetensors restores tensors of a dtype."""
    try:
        stored = safetensors.torch.load(safetensors.torch.save({"x": torch.empty(0, dtype=dtype)}))
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError, RuntimeError):
        return False
    return stored["x"].dtype == dtype


def require_fit(stored: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other names, shapes or types than the model's.

    Raises:
        InvalidArgument: If they differ; the message has the first five pairs.
    """
    theirs, own = (
        {key: _kind(value) for key, value in tensors.items()} for tensors in (stored, ours)
    )
    odd = sorted(key for key in own.keys() | theirs.keys() if own.get(key) != theirs.get(key))
    if odd:
        named = "; ".join(
            f"{key:.80}: stored {theirs.get(key)}, model {own.get(key)}" for key in odd[:5]
        )
        raise InvalidArgument(
            f"the stored predictor does not fit the model ({named}): "
            f"give the model it was trained with, or another buffer."
        )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _state_holder(agent: Any) -> Any:
    """Return the object that has the state of an agent: the agent, its model, or None."""
    return next(
        (
            holder
            for holder in (agent, getattr(agent, "model", None))
            if hasattr(holder, "state_dict")
        ),
        None,
    )


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value.detach() for key, value in state.items() if isinstance(value, Tensor)}


def is_finite(agent: Any) -> bool:
    """Tell whether all of the agent's weights are finite."""
    holder = _state_holder(agent)
    tensors = {} if holder is None else _tensors(holder.state_dict())
    return all(bool(torch.isfinite(value).all()) for value in tensors.values())
