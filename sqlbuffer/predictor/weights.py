"""The state of an agent as bytes: safetensors, from which nothing is ever executed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sqlbuffer._messages import shown
from sqlbuffer.errors import InvalidArgument, InvalidPayload

OPTIMISER = "optimiser."
"""What the names of the optimiser's tensors begin with in a stored state."""


def dump_state(agent: Any) -> bytes:
    """Return the agent's weights as safetensors, empty for an agent that has no state.

    Raises:
        InvalidArgument: Its state holds what cannot be stored, see `require_storable`.
    """
    holder = _state_holder(agent)
    state = {} if holder is None else holder.state_dict()
    require_storable(state)
    tensors = _tensors(state)
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    return safetensors.torch.save(
        {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
    )


def load_state(agent: Any, state: bytes) -> None:
    """Give the agent the weights that `dump_state` returned.

    Raises:
        InvalidArgument: They are another model's: other names, shapes or types.
        InvalidPayload: The bytes are not safetensors.
    """
    holder = _state_holder(agent)
    if holder is None:
        return
    try:
        stored = safetensors.torch.load(state)
    except safetensors.SafetensorError as exc:
        raise InvalidPayload(f"the stored predictor is not safetensors: {exc}.") from exc
    except (
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as exc:  # of a type that torch does not have
        raise InvalidPayload(
            f"the stored predictor has a tensor that torch cannot read: {exc}."
        ) from exc
    # The optimiser has moments or has none, and looks at them itself.
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
    # What is not a tensor is not stored and stays; moments that are not stored are forgotten.
    others = {
        key: value for key, value in holder.state_dict().items() if not isinstance(value, Tensor)
    }
    holder.load_state_dict({**others, **stored})


def require_storable(state: Mapping[str, Any]) -> None:
    """Refuse a state that would not come back as it is.

    Raises:
        InvalidArgument: An entry is no tensor, not dense, has no data, or is of a type that safetensors has not.
    """
    for key, value in state.items():
        if (objection := _objection(value)) is not None:
            what, advice = objection
            raise InvalidArgument(
                f"{key:.80} of the model cannot be stored, because it is {what}: {advice}."
            )


def _objection(value: Any) -> tuple[str, str] | None:
    """Return what a value of a state is, and what to do, where it cannot be stored."""
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
    """Tell whether safetensors brings tensors of a type back."""
    try:
        stored = safetensors.torch.load(safetensors.torch.save({"x": torch.empty(0, dtype=dtype)}))
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError, RuntimeError):
        return False
    return stored["x"].dtype == dtype


def require_fit(stored: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other names, shapes or types than the model's.

    Raises:
        InvalidArgument: With both of the first five that differ.
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
    """Return what has the agent's state: itself, its model, or None."""
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
