"""What does prioritised replay cost? Draw 32, update their priorities, settle.

    python -m benchmarks.priorities [--url postgresql://...] --sizes 10000,100000

Three buffers take turns, call by call: sqlbuffer by `batch.update_priorities`; sqlbuffer as it was
done without it, by removing, adding and scoring the drawn samples (every tenth turn, because it
takes so long); and a sum tree in memory, which draws with replacement. Medians of processor time of
this process, the time of a server not counted, and of wall time in brackets.

Where TorchRL is installed, two of its replay buffers take turns, too: one on `SqlStorage` and
`SqlSampler`, and one on its own storage and sampler in memory. Both sample TensorDicts of 32
transitions, update their priorities, and are extended by 32.
"""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import torch
import typer

from sqlbuffer import open_store
from sqlbuffer.core.weighting import Power
from sqlbuffer.store import SampleStore

BATCH = 32
ALPHA = 0.6


class SumTree:
    """A prioritised buffer in memory: a binary tree of sums over a list.

    Source:
        Prioritized Experience Replay (Schaul et al. 2016), appendix B.2.1.
    """

    def __init__(self, samples: list[str], priorities: np.ndarray) -> None:
        self.samples = samples
        self.n_leaves = 1 << (len(samples) - 1).bit_length()
        self.sums = np.zeros(2 * self.n_leaves)
        self.sums[self.n_leaves : self.n_leaves + len(samples)] = priorities**ALPHA
        for node in range(self.n_leaves - 1, 0, -1):
            self.sums[node] = self.sums[2 * node] + self.sums[2 * node + 1]

    def sample(self, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
        """Return samples, and their numbers."""
        left, nodes = rng.random(BATCH) * self.sums[1], np.ones(BATCH, dtype=np.int64)
        while nodes[0] < self.n_leaves:
            nodes *= 2
            is_right = left >= self.sums[nodes]
            left -= np.where(is_right, self.sums[nodes], 0.0)
            nodes += is_right
        numbers = np.minimum(nodes - self.n_leaves, len(self.samples) - 1)
        return [self.samples[i] for i in numbers.tolist()], numbers

    def update(self, numbers: np.ndarray, priorities: np.ndarray) -> None:
        """Give samples new priorities."""
        nodes = numbers + self.n_leaves
        self.sums[nodes] = priorities**ALPHA
        while nodes[0] > 1:
            nodes = np.unique(nodes // 2)
            self.sums[nodes] = self.sums[2 * nodes] + self.sums[2 * nodes + 1]


class Times:
    """Seconds of processor and wall time, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Time a block."""
        began = time.process_time(), time.perf_counter()
        yield
        ended = time.process_time(), time.perf_counter()
        self.seconds[name].append((ended[0] - began[0], ended[1] - began[1]))

    def ms(self, name: str) -> str:
        """Return the medians in milliseconds."""
        processor, wall = np.median(self.seconds[name], axis=0) * 1e3
        return f"{processor:.2f} ({wall:.2f})"


def filled(url: str, n: int) -> SampleStore:
    """Return a store of n samples."""
    store = open_store(url, name=f"replay {n}", mode="replay", weighting=Power(ALPHA), fresh=True)
    rng = np.random.default_rng(0)
    for first in range(0, n, 50_000):
        store.add([f"sample {i}" for i in range(first, min(first + 50_000, n))])
    store.score(lambda samples: rng.exponential(1.0, len(samples)))
    return store


def as_before(store: SampleStore, batch: Any, priorities: np.ndarray) -> None:
    """Change priorities without `update_priorities`."""
    store.remove(batch.ids)
    store.add(batch.samples, requeue=True)
    known = dict(zip(batch.samples, priorities, strict=True))
    store.score(lambda samples: np.array([known[sample] for sample in samples]))


def compare(url: str, n: int, n_turns: int) -> Times:
    """Let the buffers of one size take turns."""
    times, rng = Times(), np.random.default_rng(1)
    tree = SumTree([f"sample {i}" for i in range(n)], rng.exponential(1.0, n))
    with filled(url, n) as store:
        for turn in range(n_turns):
            priorities = rng.exponential(1.0, BATCH)
            with times.of("draw"):
                batch = store.sample(BATCH)
            with times.of("update"):
                batch.update_priorities(priorities)
            with times.of("settle"):
                batch.settle()
            if turn % 10 == 0:
                batch = store.sample(BATCH)
                batch.settle()
                with times.of("remove, add, score"):
                    as_before(store, batch, priorities)
            with times.of("draw from a tree"):
                numbers = tree.sample(rng)[1]
            with times.of("update a tree"):
                tree.update(numbers, priorities)
        store.delete(force=True)
    return times


def transitions(n: int) -> Any:
    """Return a TensorDict of n transitions."""
    from tensordict import TensorDict

    after = {"observation": torch.randn(n, 4), "reward": torch.rand(n, 1)}
    after["done"] = torch.zeros(n, 1, dtype=torch.bool)
    entries = {"observation": torch.randn(n, 4), "action": torch.randint(2, (n,)), "next": after}
    return TensorDict(entries, batch_size=[n])


def torchrl_buffers(url: str, n: int) -> dict[str, Any]:
    """Return full replay buffers of TorchRL by name; none if it is not installed."""
    try:
        importlib.import_module("torchrl")
    except ImportError:
        return {}
    from torchrl.data import LazyTensorStorage, PrioritizedSampler, TensorDictReplayBuffer

    from sqlbuffer.integrations.torchrl import SqlSampler, SqlStorage

    parts = {
        "sqlbuffer": (SqlStorage(url, max_size=n, name=f"TorchRL {n}"), SqlSampler(ALPHA, 0.4))
    }
    try:
        parts["memory"] = LazyTensorStorage(n), PrioritizedSampler(n, ALPHA, 0.4)
    except RuntimeError as exc:  # its compiled part was built for another torch
        print(f"TorchRL in memory is left out: {exc}")
    made = {
        name: TensorDictReplayBuffer(storage=storage, sampler=sampler, batch_size=BATCH)
        for name, (storage, sampler) in parts.items()
    }
    for buffer in made.values():
        for first in range(0, n, 10_000):
            m = min(10_000, n - first)
            buffer.extend(transitions(m).set("td_error", torch.rand(m) + 0.1))
    return made


def compare_torchrl(url: str, n: int, n_turns: int, times: Times) -> None:
    """Let replay buffers of TorchRL take turns."""
    torch.set_num_threads(1)  # its threads wait for work in a loop, which counts as work
    buffers = torchrl_buffers(url, n)
    for _ in range(n_turns):
        new, priorities = transitions(BATCH), torch.rand(BATCH) + 0.1
        for name, buffer in buffers.items():
            with times.of(f"TorchRL, {name}: sample"):
                found = buffer.sample()
            found["td_error"] = priorities
            with times.of(f"TorchRL, {name}: update"):
                buffer.update_tensordict_priority(found)
            with times.of(f"TorchRL, {name}: extend"):
                buffer.extend(new.clone())
    for buffer in buffers.values():
        if hasattr(buffer.storage, "store"):
            buffer.storage.store.delete(force=True)


def main(
    url: Annotated[str, typer.Option(help="Database; an SQLite file by default.")] = "",
    sizes: Annotated[str, typer.Option(help="Numbers of samples.")] = "10000,100000",
    turns: Annotated[int, typer.Option(help="Batches of each buffer.")] = 300,
) -> None:
    """Print a table of medians in milliseconds."""
    found: dict[int, Times] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in map(int, sizes.split(",")):
            place = url or f"sqlite:///{pathlib.Path(folder, 'replay.db')}"
            found[n] = compare(place, n, turns)
            compare_torchrl(place, n, turns, found[n])
    print("| ms |", " | ".join(f"{n:,}" for n in found), "|")
    print("|---|" + "---|" * len(found))
    for name in dict.fromkeys(name for times in found.values() for name in times.seconds):
        print(f"| {name} |", " | ".join(times.ms(name) for times in found.values()), "|")


if __name__ == "__main__":
    typer.run(main)
