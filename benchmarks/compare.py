"""Two checkouts in one run: is the new one as fast as the old one?

    python -m benchmarks.compare /path/to/old/checkout --cpu --bound 1.03

The old checkout is one of git's: `git worktree add /path/to/old/checkout REVISION`. Each checkout
has a process and a database of its own. The two take turns, in a random order within each pair, so
that the noise of the machine hits both alike. The figure is the median of the paired ratios
new / old, with the 95 % interval of its bootstrap.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
from typing import IO, Annotated, Any

import numpy as np
import typer

from benchmarks.measure import interval, markdown

ROOT = pathlib.Path(__file__).parent.parent
RUNNER = pathlib.Path(__file__).parent / "runner.py"
CASES = ("draw", "settle", "iteration", "add", "fill")
SIZES = (10_000, 100_000)


class Runner:
    """A process that runs one checkout of the library.

    Args:
        folder: The checkout.
        url: The database.
        n: Samples that it adds first.
        clock: "cpu" or "wall".
        number: Its number among the processes on the database: each has samples of its own.
    """

    def __init__(self, folder: pathlib.Path, url: str, n: int, clock: str, number: int) -> None:
        # The code and not the file: the folder of a file would stand first in the path of imports.
        command = [sys.executable, "-c", RUNNER.read_text(), url, str(n), clock, str(number)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
        self._folder = folder.resolve()
        self._process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
        self._in: IO[str] = self._process.stdin  # type: ignore[assignment]
        self._out: IO[str] = self._process.stdout  # type: ignore[assignment]
        if not pathlib.Path(imported := self._read()).resolve().is_relative_to(self._folder):
            raise SystemExit(f"{folder}: {imported} was imported instead; name a checkout.")

    def wait(self) -> None:
        """Wait until its buffer is there."""
        self._read()

    def begin(self, name: str, times: int) -> None:
        """Begin so many calls."""
        self._in.write(json.dumps([name, times]) + "\n")
        self._in.flush()

    def seconds(self) -> float:
        """Return the seconds of the calls that were begun."""
        return float(self._read())

    def _read(self) -> Any:
        line = self._out.readline()
        if not line:
            raise SystemExit(f"the process of {self._folder} ended: its error stands above.")
        return json.loads(line)

    def stop(self) -> None:
        """End the process."""
        self._in.close()
        self._process.wait(60)


class Checkout:
    """The processes that run one checkout on one database."""

    def __init__(self, folder: pathlib.Path, url: str, n: int, clock: str, processes: int) -> None:
        self._runners = [Runner(folder, url, n, clock, 0)]
        self._others = [(folder, url, 0, clock, number) for number in range(1, processes)]

    def wait(self) -> None:
        """Wait until the buffer is there, and every process is at it."""
        self._runners[0].wait()
        self._runners += [Runner(*other) for other in self._others]
        for runner in self._runners[1:]:
            runner.wait()

    def seconds(self, name: str, times: int) -> float:
        """Let every process do so many calls at once; return the mean of their seconds."""
        for runner in self._runners:
            runner.begin(name, times)
        return float(np.mean([runner.seconds() for runner in self._runners]))

    def stop(self) -> None:
        """End the processes."""
        for runner in self._runners:
            runner.stop()


def measured(both: list[Checkout], name: str, pairs: int, times: int) -> np.ndarray[Any, Any]:
    """Return the seconds of a call, (pairs, 2): old and new, which take turns."""
    seconds = np.zeros((pairs, 2))
    shuffle = random.Random(0).sample
    for i in range(pairs):
        for j in shuffle((0, 1), 2):
            seconds[i, j] = both[j].seconds(name, times) / times
    return seconds


def verdict(low: float, bound: float | None) -> str:
    """Judge an interval by its lower end; return "met", "slower", or "" without a bound."""
    return "" if bound is None else "slower" if low > bound else "met"


def main(
    old: Annotated[pathlib.Path, typer.Argument(help="The old checkout.")],
    new: Annotated[pathlib.Path, typer.Option(help="The new checkout.")] = ROOT,
    cases: Annotated[str, typer.Option(help=f"Some of {','.join(CASES)}.")] = ",".join(CASES),
    pairs: Annotated[int, typer.Option(help="Measurements of each checkout.", min=2)] = 40,
    n: Annotated[list[int], typer.Option(help="Samples in the buffer; can be repeated.")] = SIZES,  # type: ignore[assignment]
    times: Annotated[int, typer.Option(help="Calls in one measurement; 1 for fill.", min=1)] = 10,
    cpu: Annotated[bool, typer.Option("--cpu", help="Processor time, for a busy machine.")] = False,
    bound: Annotated[
        float | None,
        typer.Option(
            help="Print a verdict: the interval must not lie above this ratio. A case is slower "
            "when the lower end of its interval is above the bound; the command then exits with 1."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Processes that call at once; more than 1 with --url.", min=1)
    ] = 1,
    url: Annotated[
        list[str] | None,
        typer.Option(help="Two empty databases, of the old and the new one; by default files."),
    ] = None,
) -> None:
    """Compare two checkouts, pair by pair.

    draw, settle and iteration work on batches of 512, add adds 512 samples to a buffer of n, and
    fill adds n samples to an empty SQLite file.
    """
    names = cases.split(",")
    if unknown := set(names) - set(CASES):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: use some of {', '.join(CASES)}.")
    if url and (len(url) != 2 or len(n) != 1):
        raise typer.BadParameter("give --url twice, for one size --n: the databases must be empty.")
    if processes > 1 and not url:
        raise typer.BadParameter("give --url twice: writers of a file take turns.")
    if url:
        names = [name for name in names if name != "fill"]
    clock, rows = "cpu" if cpu else "wall", []
    for size in n:
        with tempfile.TemporaryDirectory() as place:
            urls = url or [f"sqlite:///{place}/{name}.db" for name in ("old", "new")]
            both = [
                Checkout(*one, size, clock, processes) for one in zip((old, new), urls, strict=True)
            ]
            for checkout in both:
                checkout.wait()
            for name in names:
                seconds = measured(both, name, pairs, 1 if name == "fill" else times)
                ratio, low, high = interval(seconds[:, 1] / seconds[:, 0])
                medians = [f"{value * 1e3:.2f}" for value in np.median(seconds, axis=0)]
                span, judged = f"{low:.3f} to {high:.3f}", verdict(low, bound)
                rows.append([name, f"{size:,}", *medians, f"{ratio:.3f}", span, judged])
            for checkout in both:
                checkout.stop()
    asked = "" if bound is None else f"at most {bound:g}"
    heads = ["", "samples", f"old, ms {clock}", f"new, ms {clock}", "new / old", "95 %", asked]
    typer.echo(f"{markdown(heads, rows)}\n\n{pairs} pairs of {times} calls in each of {processes}")
    raise typer.Exit(int(any(row[-1] == "slower" for row in rows)))


if __name__ == "__main__":
    typer.run(main)
