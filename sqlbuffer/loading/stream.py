"""A stream of claimed batches, as an iterable dataset of torch, and its loader with workers."""

from __future__ import annotations

import contextlib
import functools
import inspect
import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from sqlbuffer._validation import require_count, require_flag
from sqlbuffer.core import reaper
from sqlbuffer.core.claim import Claim
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.workers import worker_id
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.loading.delivery import Delivery, Receipt, Terms, deliver
from sqlbuffer.loading.orphans import end_with_parent
from sqlbuffer.loading.state import batches_of, receipts_in, state_of
from sqlbuffer.loading.unsettled import Unsettled


class Stream(IterableDataset[list[Any]]):
    """Batches of samples that are claimed from a buffer; use `SampleStore.stream`.

    An element is a list of samples: a `DataLoader` of torch takes `batch_size=None`. The stream
    counts a batch as had when it has yielded it. It belongs to one process; a copy in another one,
    forked or pickled, has claims of its own.

    Examples:
        >>> stream = store.stream(5)
        >>> [len(samples) for samples in stream]
        [5, 5]
        >>> stream
        Stream('molecules', batch_size=5, commit_every=32, had=2)
        >>> store.stats().iteration, len(store)
        (1, 0)
    """

    def __init__(
        self, buffer: BufferHandle, *, batch_size: int, commit_every: int | None, until_empty: bool
    ) -> None:
        rule = "batch_size must be a positive number of samples"
        size = require_count(batch_size, rule, least=1)
        if commit_every is not None:
            rule = "commit_every must be a positive number of batches, or None for `state_dict`"
            commit_every = require_count(commit_every, rule, least=1)
        self._buffer = buffer
        self._terms = Terms(size, commit_every, require_flag(until_empty, "until_empty"))
        self._begin()

    def _begin(self) -> None:
        self._unsettled = Unsettled(self._buffer)
        self._n_batches = 0
        self._iteration = 0  # number of the newest one
        self._is_in_loop = False
        self._deliveries: Generator[Delivery, None, None] | None = None
        self._handed_out: dict[Claim, Receipt] = {}  # by this worker of a `StatefulDataLoader`
        self._is_asked = False  # for its state, as such a worker is

    def __repr__(self) -> str:
        size, every = self._terms.batch_size, self._terms.commit_every
        name = self._buffer.name
        return f"Stream({name!r}, batch_size={size}, commit_every={every}, had={self._n_batches})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_buffer": self._buffer, "_terms": self._terms}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __iter__(self) -> Iterator[list[Any]]:
        if get_worker_info() is not None:
            return self._in_worker()
        return self._yielded(self._delivered())

    def loader(
        self,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        **options: Any,
    ) -> StreamLoader:
        """Return a `DataLoader` of torch whose batches count as had when its loop has them.

        Each worker makes claims of its own. Batches that were prefetched and not yielded wait again
        when the loop ends early, or when a process is killed.

        Args:
            num_workers: Processes that claim, decode and collate; 0: this process.
            collate_fn: `collate_fn(list of samples)` returns a batch.
            options: Others of `torch.utils.data.DataLoader`, such as `prefetch_factor`,
                `pin_memory` and `multiprocessing_context`.

        Examples:
            >>> loader = store.stream(5).loader(collate_fn=len)
            >>> list(loader)
            [5, 5]
        """
        return StreamLoader(self, num_workers=num_workers, collate_fn=collate_fn, options=options)

    # -- state ------------------------------------------------------------------------------------

    def commit(self, state: Mapping[str, Any] | None = None) -> int:
        """Settle all batches that this process has had; return the number of their samples.

        Args:
            state: The state of a `StatefulDataLoader` with workers, which does not tell the stream
                what its loop has had. No other loader needs it.

        Raises:
            InvalidArgument: If the state is of another buffer, or none.

        Examples:
            >>> stream = store.stream(5, commit_every=None)
            >>> first = next(iter(stream))
            >>> stream.commit()
            5
        """
        unsettled = self._of_this_process()
        if state is not None:
            unsettled.had_all(receipts_in(self._buffer, state))
        if not self._is_in_loop:
            self._give_up()
        return unsettled.settle()

    def state_dict(self) -> dict[str, Any]:
        """Settle all batches that this process has had, see `commit`; return the stream's state.

        The buffer itself knows what was settled. The state names the buffer, and has the number of
        batches that were had. In a worker of a `StatefulDataLoader` nothing is settled, and the
        state tells how far each claim was handed out.

        Examples:
            >>> stream = store.stream(5)
            >>> first = next(iter(stream))
            >>> stream.state_dict()["batches"]
            1
        """
        if get_worker_info() is not None:
            self._is_asked = True
            return state_of(self._buffer, self._n_batches, self._handed_out.values())
        self.commit()
        return state_of(self._buffer, self._n_batches)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: batches that were not settled wait again.

        Args:
            state: What `state_dict` has returned.

        Raises:
            InvalidArgument: If it is the state of another buffer, or none.

        Examples:
            >>> state = store.stream(5).state_dict()
            >>> stream = store.stream(5)
            >>> stream.load_state_dict(state)
            >>> [len(samples) for samples in stream]
            [5, 5]
        """
        n_batches = batches_of(self._buffer, state)
        if get_worker_info() is None:
            self._of_this_process().release()
            self._deliveries = None
            self._iteration += 1
        self._n_batches = n_batches

    # -- iteration --------------------------------------------------------------------------------

    def _of_this_process(self) -> Unsettled:
        if self._unsettled.pid != os.getpid():  # a forked child, which has none of the claims
            self._begin()
        return self._unsettled

    def _claimed(self) -> Generator[Delivery, None, None]:
        """Yield deliveries of new claims of this process, or of this worker."""
        worker = get_worker_info()
        if worker is not None:
            end_with_parent()
            return deliver(self._buffer, self._terms, n_workers=worker.num_workers)
        return deliver(self._buffer, self._terms, self._of_this_process().made)

    def _delivered(self) -> Generator[Delivery, None, None]:
        """Yield deliveries of this process; the next loop goes on where one has ended early."""
        found = self._deliveries
        if found is None or inspect.getgeneratorstate(found) == inspect.GEN_CLOSED:
            self._deliveries = found = self._claimed()
        for delivery in found:  # noqa: UP028 - `yield from` would close it with this generator
            yield delivery

    def _give_up(self) -> None:
        """Hand out no more of the claims that were made."""
        self._deliveries = None
        self._of_this_process().abandon()

    def _yielded(self, deliveries: Generator[Delivery, None, None]) -> Iterator[Any]:
        """Yield the batches of deliveries, and settle those that were had."""
        unsettled, every = self._of_this_process(), self._terms.commit_every
        self._iteration += 1
        mine, self._is_in_loop = self._iteration, True
        try:
            if every is not None:
                unsettled.settle()  # those of a loop that has ended early
            with contextlib.closing(deliveries):
                for delivery in deliveries:
                    if delivery is None:
                        continue
                    receipt, batch = delivery
                    unsettled.had(receipt)
                    self._n_batches += 1
                    yield batch
                    unsettled.require_own_process()
                    self._require_newest(mine)
                    if every is not None and unsettled.n_batches >= every:
                        unsettled.settle()
            if every is not None:
                unsettled.settle()
        finally:
            if mine == self._iteration:
                self._is_in_loop = False

    def _require_newest(self, iteration: int) -> None:
        if iteration != self._iteration:
            raise InvalidArgument(
                "another iteration of this stream, or `load_state_dict`, has ended this one: give "
                "each loop a stream of its own, store.stream(batch_size); they share the race."
            )

    def _in_worker(self) -> Iterator[list[Any]]:
        """Yield the batches of a worker of a `StatefulDataLoader`."""
        if not self._is_asked:
            raise InvalidArgument(
                "a DataLoader with workers does not tell which batches its loop has had: take "
                "stream.loader(num_workers=...) instead, or num_workers=0."
            )
        parent = multiprocessing.parent_process()
        for delivery in self._claimed():
            if delivery is not None:
                self._note(delivery[0])
                self._n_batches += 1
                yield delivery[1]
            elif parent is not None and not parent.is_alive():
                return

    def _note(self, receipt: Receipt) -> None:
        if receipt.claim not in self._handed_out:  # forget those that are settled
            still_open = self._buffer.look(_open_here)
            self._handed_out = {
                claim: its for claim, its in self._handed_out.items() if claim.batch in still_open
            }
        self._handed_out[receipt.claim] = receipt


def _open_here(tx: Transaction) -> set[int]:
    """Return the numbers of the open claims of this process."""
    statement = queries.batches.open_batches_of()
    return set(tx.execute(statement, owners=[worker_id()]).scalars())


class StreamLoader:
    """Batches of a stream, made in workers; use `Stream.loader`.

    Each loop over it starts workers, and stops them at its end.

    Examples:
        >>> loader = store.stream(5).loader(collate_fn=featurize)
        >>> [features.shape for features in loader]
        [torch.Size([5, 2]), torch.Size([5, 2])]
    """

    def __init__(
        self,
        stream: Stream,
        *,
        num_workers: int,
        collate_fn: Callable[[list[Any]], Any],
        options: Mapping[str, Any],
    ) -> None:
        self._stream = stream
        collated: Any = _Collated(collate_fn)  # of one delivery, since `batch_size` is None
        self._make: Callable[[], DataLoader[Any]] = functools.partial(
            DataLoader,
            _Deliveries(stream),
            batch_size=None,
            num_workers=num_workers,
            collate_fn=collated,
            # Claims belong to a worker until the loop has had all that it has made.
            persistent_workers=bool(num_workers),
            **options,
        )
        self._make()  # raises for a wrong option

    def __iter__(self) -> Iterator[Any]:
        return self._stream._yielded(self._deliveries())

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the stream, see `Stream.state_dict`."""
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """`Stream.load_state_dict`.

        Args:
            state: What `state_dict` has returned.
        """
        self._stream.load_state_dict(state)

    def _deliveries(self) -> Generator[Delivery, None, None]:
        stream = self._stream
        stream._give_up()  # of an earlier loop without workers
        loader = self._make()
        batches = iter(loader)
        try:
            yield from batches
        finally:
            stream._of_this_process().take_over()
            stream._give_up()
            del batches, loader  # the workers end, and what they have claimed waits again
            reaper.release_dead(stream._buffer)


class _Deliveries(IterableDataset[Delivery]):
    """The deliveries of a stream, for workers of a `DataLoader`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Delivery]:
        return self._stream._claimed()


class _Collated:
    """Collates the batch of a delivery."""

    def __init__(self, collate_fn: Callable[[list[Any]], Any]) -> None:
        self._collate_fn = collate_fn

    def __call__(self, delivery: Delivery) -> Delivery:
        return None if delivery is None else (delivery[0], self._collate_fn(delivery[1]))
