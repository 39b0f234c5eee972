"""The state of a stream: plain values, which `torch.load(weights_only=True)` reads."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlbuffer._messages import shown
from sqlbuffer.core.claim import Claim
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.loading.delivery import Receipt

_OF, _BUFFER, _BATCHES, _CLAIMS = "stream_of", "buffer", "batches", "claims"


def state_of(
    buffer: BufferHandle, n_batches: int, receipts: Iterable[Receipt] = ()
) -> dict[str, Any]:
    """Return the state of a stream.

    Args:
        buffer: The buffer.
        n_batches: Batches that were had.
        receipts: How far a worker has handed out its claims, as of now.
    """
    return {
        _OF: buffer.name,
        _BUFFER: _identity_of(buffer),
        _BATCHES: n_batches,
        _CLAIMS: [_listed(receipt) for receipt in receipts],
    }


def batches_of(buffer: BufferHandle, state: Any) -> int:
    """Return the number of batches of a state.

    Raises:
        InvalidArgument: If it is no state of a stream of this buffer.
    """
    if not isinstance(state, Mapping) or not {_OF, _BUFFER, _BATCHES, _CLAIMS} <= set(state):
        raise _no_state(state)
    if state[_BUFFER] != _identity_of(buffer):
        raise InvalidArgument(
            f"the state is of buffer {shown(state[_OF])}, number and time of creation "
            f"{shown(state[_BUFFER])}, and this stream is of {shown(buffer.name)}, "
            f"{shown(_identity_of(buffer))}: load a state of this buffer, or begin without one."
        )
    n_batches = state[_BATCHES]
    if not _is_count(n_batches):
        raise _no_state(state)
    _read_all(state)
    return int(n_batches)


def receipts_in(buffer: BufferHandle, state: Any) -> list[Receipt]:
    """Return the receipts of all workers in the state of a `StatefulDataLoader`.

    Raises:
        InvalidArgument: See `batches_of`.
    """
    states = list(_found(state))
    if not states:
        batches_of(buffer, state)
    for each in states:
        batches_of(buffer, each)
    return [receipt for each in states for receipt in _read_all(each)]


def _found(state: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(state, Mapping):
        if _OF in state:
            yield state
        else:
            for value in state.values():
                yield from _found(value)


def _identity_of(buffer: BufferHandle) -> str:
    """Return what stays if the buffer is renamed, and differs in a copy."""
    return f"{buffer.buffer_id}, {buffer.created_at}"


def _listed(receipt: Receipt) -> list[Any]:
    claim = receipt.claim
    return [claim.batch, claim.drawn_by, claim.drawn_at.isoformat(), receipt.size, receipt.end]


def _no_state(state: Any) -> InvalidArgument:
    return InvalidArgument(
        f"state must be what `state_dict` of a stream has returned; got {shown(state)}."
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_all(state: Mapping[str, Any]) -> list[Receipt]:
    try:
        return [_read(listed) for listed in state[_CLAIMS]]
    except (TypeError, ValueError) as exc:
        raise _no_state(state) from exc


def _read(listed: list[Any]) -> Receipt:
    batch, drawn_by, drawn_at, size, end = listed
    if not (isinstance(drawn_by, str) and all(map(_is_count, (batch, size, end))) and end <= size):
        raise ValueError("not a claim")
    time = dt.datetime.fromisoformat(drawn_at)
    if time.tzinfo is None:
        raise ValueError("no time zone")
    return Receipt(Claim(batch, drawn_by, time), size, end)
