"""The state of an agent as bytes: safetensors, from which nothing is ever executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sqlbuffer.errors import InvalidArgument, InvalidPayload

OPTIMISER = "optimiser."
"""What the names of the optimiser's tensors begin with in a stored state."""


def dump_state(agent: Any) -> bytes:
    """Return the agent's weights as safetensors, empty for an agent that has no state."""
    holder = _state_holder(agent)
    tensors = {} if holder is None else _tensors(holder.state_dict())
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    return safetensors.torch.save({key: value.cpu().contiguous().clone() for key, value in tensors.items()})


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
    except (KeyError, TypeError, ValueError, RuntimeError) as exc:  # of a type that torch does not have
        raise InvalidPayload(f"the stored predictor has a tensor that torch cannot read: {exc}.") from exc
    # The optimiser has moments or has none, and looks at them itself.
    has_moments = not isinstance(holder, nn.Module)
    ours, theirs = (
        {key: value for key, value in tensors.items() if not (has_moments and key.startswith(OPTIMISER))}
        for tensors in (_tensors(holder.state_dict()), stored)
    )
    require_fit(theirs, ours)
    # What is not a tensor is not stored and stays; moments that are not stored are forgotten.
    others = {key: value for key, value in holder.state_dict().items() if not isinstance(value, Tensor)}
    holder.load_state_dict({**others, **stored})


def require_fit(stored: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other names, shapes or types than the model's.

    Raises:
        InvalidArgument: With both of the first five that differ.
    """
    theirs, own = ({key: _kind(value) for key, value in tensors.items()} for tensors in (stored, ours))
    odd = sorted(key for key in own.keys() | theirs.keys() if own.get(key) != theirs.get(key))
    if odd:
        named = "; ".join(f"{key:.80}: stored {theirs.get(key)}, model {own.get(key)}" for key in odd[:5])
        raise InvalidArgument(
            f"the stored predictor does not fit the model ({named}): "
            f"give the model it was trained with, or another buffer."
        )


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _state_holder(agent: Any) -> Any:
    """Return what has the agent's state: itself, its model, or None."""
    return next((holder for holder in (agent, getattr(agent, "model", None)) if hasattr(holder, "state_dict")), None)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: value.detach() for key, value in state.items() if isinstance(value, Tensor)}


def is_finite(agent: Any) -> bool:
    """Tell whether all of the agent's weights are finite."""
    holder = _state_holder(agent)
    tensors = {} if holder is None else _tensors(holder.state_dict())
    return all(bool(torch.isfinite(value).all()) for value in tensors.values())
