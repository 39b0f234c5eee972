"""What every contender can be asked."""

from __future__ import annotations

import abc
import importlib.util
from typing import TYPE_CHECKING, ClassVar

import psutil

if TYPE_CHECKING:
    from benchmarks.stage import Workshop


class Contender(abc.ABC):
    """One way to keep a training buffer. Cases that it cannot run are not among its `abilities`.

    Attributes:
        name: Its name in tables.
        family: "sqlite", "postgresql" or "memory".
        libraries: Modules that it needs.
        abilities: Names of the cases that it can run.
        remark: The line that describes it under the tables.
        largest: The largest buffer that it is asked to hold.
        bytes_each: Memory that a sample takes; sizes that would not fit are left out.
        mode: "consume" or "replay".
    """

    name: ClassVar[str]
    family: ClassVar[str] = "memory"
    libraries: ClassVar[tuple[str, ...]] = ()
    abilities: ClassVar[frozenset[str]]
    remark: ClassVar[str]
    largest: ClassVar[int] = 10_000_000
    bytes_each: ClassVar[int] = 0
    mode = "consume"

    @classmethod
    def missing(cls) -> str | None:
        """Return why it cannot run here, None if it can."""
        absent = [name for name in cls.libraries if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else None

    @classmethod
    def refusal(cls, n: int) -> str | None:
        """Return why it is not asked to hold n samples, None if it is."""
        if n > cls.largest:
            return f"not beyond {cls.largest:,} samples"
        if n * cls.bytes_each > 0.7 * psutil.virtual_memory().available:
            return f"{n:,} samples would take {n * cls.bytes_each / 2**30:.0f} GiB of memory"
        return None

    @abc.abstractmethod
    def start(self, workshop: Workshop, n: int) -> None:
        """Begin an empty buffer for up to n samples."""

    def furnish(self, workshop: Workshop, n: int, mode: str = "consume") -> None:
        """Begin a buffer that holds the samples 0 to n, scored."""
        self.mode = mode
        self.start(workshop, n)
        self.add(workshop.items(n))
        self.score()

    @abc.abstractmethod
    def close(self) -> None:
        """Free connections, memory and servers."""

    def discard(self, workshop: Workshop) -> None:
        """Close the buffer and delete what it keeps on disk."""
        self.close()

    def add(self, items: list[str]) -> None:
        """Put samples into the buffer, each distinct one once."""
        raise NotImplementedError

    def score(self) -> None:
        """Score the samples that have no score yet."""
        raise NotImplementedError

    def draw(self, k: int, pct_argmax: float = 0.0) -> list[str]:
        """Draw k samples by weight, and return them as strings."""
        raise NotImplementedError

    def give_back(self) -> None:
        """Put the samples of the last draw back, so that it never runs dry. Never timed."""
        raise NotImplementedError

    def iterate(self, items: list[str], k: int) -> None:
        """Do a whole iteration: add new samples, score them, draw k, store their rewards."""
        self.add(items)
        self.score()
        self.draw(k)

    def refresh(self, version: int) -> None:
        """Score everything again, with the scores of a version."""
        raise NotImplementedError

    def count(self) -> int:
        """Return the number of samples that wait."""
        raise NotImplementedError

    def stats(self) -> object:
        """Return the buffer in numbers."""
        raise NotImplementedError


class DatabaseContender(Contender):
    """A contender that keeps its samples in a database."""

    url: str

    @abc.abstractmethod
    def open(self, url: str) -> None:
        """Connect to a buffer that exists."""

    def discard(self, workshop: Workshop) -> None:
        """Close the buffer and drop its database."""
        super().discard(workshop)
        workshop.databases[self.family].drop(self.url)
