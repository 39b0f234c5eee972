"""Follow one sample through the library, and count the modules that its operations go through.

    python -m benchmarks.follow
    python -m benchmarks.follow --calls settle

A sample is added, scored, drawn and settled, through the public interface alone, so that this works
on any layout of the package. The rule of counting, for each operation on its own:

- Only Python functions of files in the folder of the package `sqlbuffer` count. What they call in
  C, in the standard library and in other libraries does not, nor does what other threads do.
- *Modules* are the files of which at least one function ran.
- *Calls* are the calls of such a function whose nearest caller in the package is in another file.
  The nearest caller is found by walking up the stack past frames of other libraries: a hook that
  SQLAlchemy calls is charged to the function of the package that made SQLAlchemy call it. The
  operation itself, called from outside of the package, has none. Every call counts, repeated ones
  too; resuming a generator is a call, as `sys.setprofile` reports it.

The store has done one whole round before, with another sample: what happens only once (compiling
statements, opening connections, registering a worker) is not counted.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Annotated, NamedTuple

import typer

import sqlbuffer
from benchmarks.measure import markdown

PACKAGE = pathlib.Path(sqlbuffer.__file__).parent
MOST_MODULES, MOST_CALLS = 9, 20
"""What an operation is meant to stay within."""


class Trace(NamedTuple):
    """What an operation went through: modules, and calls between them as (caller, callee)."""

    modules: set[str]
    calls: list[tuple[str, str]]


def follow(operation: Callable[[], object]) -> tuple[Trace, object]:
    """Run an operation; return its trace and what it returned."""
    trace = Trace(set(), [])

    def see(frame: FrameType, event: str, _: object) -> None:
        module = _module(frame) if event == "call" else None
        if module is None:
            return
        trace.modules.add(module)
        caller = frame.f_back
        while caller is not None and _module(caller) is None:
            caller = caller.f_back
        if caller is not None and (above := _module(caller)) != module:
            name, called = caller.f_code.co_name, frame.f_code.co_name
            trace.calls.append((f"{above}:{name}", f"{module}:{called}"))

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        found = operation()
    finally:
        sys.setprofile(before)
    return trace, found


def _module(frame: FrameType) -> str | None:
    file = pathlib.PurePath(frame.f_code.co_filename)
    return str(file.relative_to(PACKAGE)) if file.is_relative_to(PACKAGE) else None


def rounds(url: str, number: int = 2) -> dict[str, Trace]:
    """Take one sample after another through a new buffer; return the traces of the last one."""
    traces: dict[str, Trace] = {}
    with sqlbuffer.open_store(url) as store:
        for i in range(number):
            traces["add"], _ = follow(lambda i=i: store.add([f"sample {i}"]))
            traces["score"], _ = follow(lambda: store.score(lambda samples: [1.0] * len(samples)))
            traces["sample"], batch = follow(lambda: store.sample(1))
            traces["settle"], _ = follow(lambda batch=batch: batch.settle([1.0]))
    return traces


def main(
    calls: Annotated[
        str | None,
        typer.Option(help="List the calls of this operation: add, score, sample, settle."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="An empty database; by default a new file.")
    ] = None,
) -> None:
    """Print the modules that each operation runs, and its calls from one module into another."""
    with tempfile.TemporaryDirectory() as folder:
        traces = rounds(url or f"sqlite:///{folder}/followed.db")
    if calls is not None:
        if calls not in traces:
            raise typer.BadParameter(f"{calls!r}: use one of {', '.join(traces)}.")
        typer.echo("\n".join(" -> ".join(call) for call in traces[calls].calls))
        return
    rows = [
        [name, str(len(trace.modules)), str(len(trace.calls))] for name, trace in traces.items()
    ]
    rows.append(["at most", str(MOST_MODULES), str(MOST_CALLS)])
    typer.echo(markdown(["operation", "modules", "calls between modules"], rows))


if __name__ == "__main__":
    typer.run(main)
