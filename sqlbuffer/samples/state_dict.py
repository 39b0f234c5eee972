"""State dicts of models, optimisers and schedules as bytes of safetensors, without pickle.

A state is nested dicts, lists and tuples. Its tensors are stored as tensors, under their paths. All
other values are stored as CBOR (`sqlbuffer.samples.codec`) in one more tensor, with their exact
types. Reading a state imports and executes nothing.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sqlbuffer._messages import shown
from sqlbuffer._tensors import tensors_to_bytes
from sqlbuffer.errors import InvalidPayload, UnsupportedType
from sqlbuffer.samples.codec import decode_all, encode_all
from sqlbuffer.samples.registry import register

REST = "/"
"""Name of the tensor that has the values which are not tensors."""

_PLAIN = (type(None), bool, int, float, str, bytes)


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """Placeholder of a tensor in the CBOR."""

    name: str


register(Stored, name="sqlbuffer.training.packing.Stored")


def pack(state: Any) -> bytes:
    """Return a state as bytes; tensors with the same memory are stored once.

    Raises:
        UnsupportedType: If a value is neither a tensor nor data; the message gives its path.
    """
    collected = _Tensors()
    (payload,) = encode_all([[collected.take(state, "")]]).payloads
    rest = torch.from_numpy(np.frombuffer(payload or b"", np.uint8).copy())
    return tensors_to_bytes({**collected.tensors, REST: rest})


def unpack(data: bytes) -> Any:
    """Return the state that `pack` was given, with its tensors on the CPU.

    Raises:
        InvalidPayload: If the bytes are not a result of `pack`.
    """
    if not isinstance(data, bytes):
        raise InvalidPayload(f"a checkpoint must be the stored bytes; got {shown(data)}.")
    try:
        tensors = safetensors.torch.load(data)
        payload = tensors.pop(REST).numpy().tobytes()
        (packed,) = decode_all([""], [payload], ["cbor"])
        (rest,) = cast("list[Any]", packed)
        return _restored(rest, tensors)
    except (safetensors.SafetensorError, InvalidPayload, KeyError, TypeError, ValueError) as exc:
        raise InvalidPayload(f"a checkpoint of {len(data)} bytes cannot be read: {exc}.") from exc


class _Tensors:
    """Collects the tensors of a state."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Any, str] = {}

    def take(self, value: Any, path: str) -> Any:
        """Return a state with a placeholder for each tensor."""
        if isinstance(value, Tensor):
            return self._tensor(value.detach(), path)
        if type(value) in (dict, collections.OrderedDict, collections.defaultdict):
            return {key: self.take(each, f"{path}/{key}") for key, each in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.take(each, f"{path}/{i}") for i, each in enumerate(value))
        if type(value) not in _PLAIN:
            try:
                encode_all([value])
            except UnsupportedType as exc:
                raise _unsupported(path, value, str(exc)) from exc
        return value

    def _tensor(self, tensor: Tensor, path: str) -> Stored:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise _unsupported(path, tensor, "the tensor is not dense")
        # While a tensor is in `tensors`, no other tensor can get its memory.
        layout = (
            tensor.dtype,
            tuple(tensor.shape),
            tensor.stride(),
            tensor.device,
            tensor.is_conj(),
            tensor.is_neg(),
        )
        place = tensor.data_ptr(), *layout
        if place not in self._names:
            name = path
            while name in self.tensors or name == REST:
                name += "'"
            self._names[place] = name
            self.tensors[name] = tensor
        return Stored(self._names[place])


def _unsupported(path: str, value: Any, reason: str) -> UnsupportedType:
    return UnsupportedType(
        f"{path.removeprefix('/')} cannot be stored in a checkpoint, because it is "
        f"{shown(value)} ({reason}): leave it out of state_dict(), or put numbers, strings or "
        "tensors in its place."
    )


def _restored(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Stored):
        return tensors[value.name].clone()
    if isinstance(value, dict):
        return {key: _restored(each, tensors) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_restored(each, tensors) for each in value)
    return value
