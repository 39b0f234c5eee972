"""Any state of a model, an optimiser or a schedule as bytes, and back: safetensors, without pickle.

A state is nested dicts, lists and tuples. Its tensors become tensors of the file, under their path; all else is CBOR as
samples are (`sqlbuffer.samples.codec`), one more tensor of the file: every float, None and tuple comes back as it was.
Reading it imports and executes nothing.
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

from sqlbuffer.errors import InvalidPayload, UnsupportedType, shown
from sqlbuffer.samples.codec import decode_all, encode_all
from sqlbuffer.samples.registry import register

REST = "/"
"""Name of the tensor that holds what is no tensor."""

_PLAIN = (type(None), bool, int, float, str, bytes)


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """Stands for a tensor of the file."""

    name: str


register(Stored, name="sqlbuffer.training.packing.Stored")


def pack(state: Any) -> bytes:
    """Return a state as bytes; tensors that are one in memory are stored once.

    Raises:
        UnsupportedType: Where it holds something that is neither a tensor nor data; the message names its key.
    """
    taking = _Taking()
    (payload,) = encode_all([[taking.take(state, "")]]).payloads
    # Copies: safetensors refuses tensors that share memory.
    file = {
        name: tensor.cpu().resolve_conj().resolve_neg().contiguous().clone()
        for name, tensor in taking.tensors.items()
    }
    return safetensors.torch.save(
        {**file, REST: torch.from_numpy(np.frombuffer(payload or b"", np.uint8).copy())}
    )


def unpack(data: bytes) -> Any:
    """Return what `pack` was given, its tensors on the CPU.

    Raises:
        InvalidPayload: The bytes are not what `pack` returns.
    """
    if not isinstance(data, bytes):
        raise InvalidPayload(f"a checkpoint must be the stored bytes; got {shown(data)}.")
    try:
        tensors = safetensors.torch.load(data)
        payload = tensors.pop(REST).numpy().tobytes()
        (packed,) = decode_all([""], [payload], ["cbor"])
        (rest,) = cast("list[Any]", packed)
        return _given_back(rest, tensors)
    except (safetensors.SafetensorError, InvalidPayload, KeyError, TypeError, ValueError) as exc:
        raise InvalidPayload(f"a checkpoint of {len(data)} bytes cannot be read: {exc}.") from exc


class _Taking:
    """Takes the tensors out of a state."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Any, str] = {}

    def take(self, value: Any, path: str) -> Any:
        """Return a state in which what stands for a tensor is in its place."""
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
        # As long as a tensor is in `tensors`, its memory is not given to another one.
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


def _given_back(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Stored):
        return tensors[value.name].clone()
    if isinstance(value, dict):
        return {key: _given_back(each, tensors) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_given_back(each, tensors) for each in value)
    return value
