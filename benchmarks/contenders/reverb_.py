"""Reverb: a replay server in a process, its clients speak gRPC."""

# ruff: noqa: D102 - the contract is written once, on the base class

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.base import Contender
from benchmarks.contenders.cpprb_ import letters
from benchmarks.data import Items, scores

if TYPE_CHECKING:
    from benchmarks.workshop import Workshop

_TABLE = "benchmark"


class Reverb(Contender):
    """A prioritised table of a `reverb.Server`."""

    name: ClassVar[str] = "reverb"
    family: ClassVar[str] = "memory"
    libraries: ClassVar[tuple[str, ...]] = ("reverb", "tensorflow")
    abilities = frozenset(("add", "draw", "len"))
    remark: ClassVar[str] = (
        "a prioritised table in a server's memory; draws with replacement, nothing leaves the buffer"
    )
    largest: ClassVar[int] = 1_000_000
    bytes_each: ClassVar[int] = 2_000

    _server: Any
    _client: Any

    def start(self, workshop: Workshop, n: int) -> None:
        import reverb

        table = reverb.Table(
            name=_TABLE,
            sampler=reverb.selectors.Prioritized(1.0),
            remover=reverb.selectors.Fifo(),
            max_size=n,
            rate_limiter=reverb.rate_limiters.MinSize(1),
        )
        self._server = reverb.Server(tables=[table])
        self._client = reverb.Client(f"localhost:{self._server.port}")

    def close(self) -> None:
        self._server.stop()

    def add(self, items: Items) -> None:
        weights = (scores(items.texts) + 1e-8).tolist()
        with self._client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for i, (row, weight) in enumerate(zip(letters(items.texts), weights, strict=True)):
                writer.append({"sample": row})
                writer.create_item(_TABLE, weight, {"sample": writer.history["sample"][-1:]})
                if i % 1000 == 0:
                    writer.flush(block_until_num_items=1000)

    def score(self) -> None:
        """Do nothing: priorities came with the samples."""

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        drawn = list(self._client.sample(_TABLE, num_samples=k))
        return [bytes(sample[0].data[0].ravel()).decode() for sample in drawn]

    def give_back(self) -> None:
        """Do nothing: what was drawn is still there."""

    def count(self) -> int:
        return int(self._client.server_info()[_TABLE].current_size)
