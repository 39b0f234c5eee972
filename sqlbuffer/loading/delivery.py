"""Batches of a stream, cut from claims of many samples, each with a receipt."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias

from sqlbuffer.core import counts, draw, reaper
from sqlbuffer.core.claim import Claim
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.parts import leave_open

AT_ONCE = 1024
"""Samples of a claim: as many as keep a batch cheap. A claim costs as much as several small ones
in replay mode, whose draws are made one after another."""

IDLE_S = 0.2
"""Seconds between two looks of a stream that waits for new samples."""


class Receipt(NamedTuple):
    """How far a claim has been handed out, with a batch."""

    claim: Claim
    size: int
    """Samples of the claim."""
    end: int
    """Number of its first samples that were handed out, those of the batch included."""


class Terms(NamedTuple):
    """How a stream claims."""

    batch_size: int
    commit_every: int | None
    """Batches after which they are settled."""
    until_empty: bool

    def batches_at_once(self, buffer: BufferHandle) -> int:
        """Return the number of batches in a claim."""
        if not buffer.consumes:
            return -(-AT_ONCE // self.batch_size)
        most = max(1, AT_ONCE // self.batch_size)
        return most if self.commit_every is None else min(self.commit_every, most)


Delivery: TypeAlias = "tuple[Receipt, Any] | None"
"""A batch with its receipt; None from a stream that waits for samples."""


def deliver(
    buffer: BufferHandle,
    terms: Terms,
    note: Callable[[Claim, int], None] | None = None,
    *,
    n_workers: int = 1,
) -> Generator[Delivery, None, None]:
    """Claim samples of a buffer, and yield them in batches; the claims stay open.

    Args:
        buffer: The buffer.
        terms: How to claim.
        note: See `leave_open`; None in a worker, whose claims are released when it ends.
        n_workers: Workers of the loader: a claim has at most the share of one in the waiting
            samples, in mode "consume", so that none is left without.
    """
    n = terms.batch_size * terms.batches_at_once(buffer)
    has_claimed = False
    while True:
        is_shared = n_workers > 1 and buffer.consumes
        most = _share(buffer, terms.batch_size, n_workers) if is_shared else n
        batch = draw.claim(buffer, min(n, most))
        claim = leave_open(batch, note)
        if claim is not None:
            has_claimed = True
            yield from _cut(batch.samples, claim, terms.batch_size)
        elif not terms.until_empty:
            time.sleep(IDLE_S)
            yield None
        elif not reaper.release_dead(buffer):
            break
    if not has_claimed:
        counts.tell_why_undrawn(buffer)


def _share(buffer: BufferHandle, batch_size: int, n_workers: int) -> int:
    """Return the part of the waiting samples that is for one worker, in whole batches."""
    n_batches = -(-buffer.look(counts.size) // (batch_size * n_workers))
    return batch_size * max(1, n_batches)


def _cut(samples: list[Any], claim: Claim, n: int) -> Generator[Delivery, None, None]:
    size = len(samples)
    for first in range(0, size, n):
        end = min(first + n, size)
        yield Receipt(claim, size, end), samples[first:end]
