"""The cases: the calls that are measured, and how."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable

from benchmarks.contenders import BY_NAME, Contender, DatabaseContender
from benchmarks.contenders.ours import SqlbufferSqlite
from benchmarks.data import shuffled, texts
from benchmarks.measure import Task, nothing, timed
from benchmarks.processes import crowd, megabytes, python, ration
from benchmarks.stage import Stage

PROCESSES = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Case:
    """A table: its heading, a note on the calls and their timing, and the unit of its figures."""

    title: str
    note: str
    unit: str = "s"


CASES = {
    "add": Case(
        "Add n distinct samples to an empty buffer", "In one call; fresh buffers for each."
    ),
    "add-duplicates": Case(
        "Add n samples of which half are there already",
        "In one call, in random order, to a buffer that holds the one half; each fills up to n.",
    ),
    "add-more": Case(
        "Add n distinct samples to a buffer that holds half as many",
        "In one call, in random order: the case to compare half duplicates with, "
        "since the index is as large.",
    ),
    "score": Case("Score n new samples", "All that `add` has left without a score."),
    "draw": Case(
        "Draw 512",
        "A claimed batch, stored. If the draws of a run would empty the buffer, each is given back "
        "(for the library: settled, added and scored again) outside of the timing.",
    ),
    "draw-argmax": Case(
        "Draw 512, a tenth of them the heaviest", "As above, with `pct_argmax=0.1`."
    ),
    "replay": Case(
        "Draw 512 that stay in the buffer",
        "Mode `replay`: 512 new keys are written. In-memory prioritised buffers: sample, then "
        "update the priorities.",
    ),
    "iteration": Case(
        "A whole iteration",
        "Add 512 new samples, score them, draw 512, store 512 rewards and a checkpoint of 1 kB. "
        "The lists: add, drop repeats, score, draw; they store nothing.",
    ),
    "refresh": Case(
        "Score all n again", "New scores, weights and keys for all samples of the pool."
    ),
    "len": Case("Count the pool", "`len(buffer)`."),
    "stats": Case("All numbers of a buffer", "`store.stats()`."),
    "open": Case("Open a buffer that exists", "A new connection in a warm process."),
    "memory": Case(
        "Memory of a process",
        "Resident set of a fresh process that has opened the buffer and drawn ten batches, shared "
        "pages of the mapped file included; for buffers in memory its growth with n samples.",
        "MB",
    ),
    **{
        f"processes-{number}": Case(
            f"Draws per second, {number} process{'es' if number > 1 else ''} "
            "drawing at the same time",
            "In all, from the common start until the last is done. Batches of 512, smaller if n "
            "samples would not last.",
            "draws/s",
        )
        for number in PROCESSES
    },
    "disk": Case(
        "Size on disk", "Tables and indexes of n scored samples, for each sample.", "bytes"
    ),
    "import": Case("Import", "`import sqlbuffer` in a fresh process."),
}


def add_and_score(stage: Stage) -> None:
    """Build buffers; the library's last one is the database that all other cases work on."""
    found: dict[tuple[str, str], list[float]] = {}
    for i, kind in itertools.product(range(stage.whole_repeats), stage.able("add", "score")):
        contender, items = kind(), stage.workshop.items(stage.n)
        contender.start(stage.workshop, stage.n)
        add = functools.partial(contender.add, items)
        for case, call in (("add", add), ("score", contender.score)):
            found.setdefault((case, kind.name), []).append(timed(call, stage.clock))
        if i == stage.whole_repeats - 1 and isinstance(contender, SqlbufferSqlite):
            contender.close()
            stage.workshop.keep(contender.family, stage.n, contender.url)
        else:
            contender.discard(stage.workshop)
        stage.tick()
    for (case, name), values in found.items():
        if case in BY_NAME[name].abilities:
            stage.record(case, name, values)


def add_to_half(stage: Stage, case: str) -> None:
    """Add n samples to buffers that hold n / 2: those among them, or others."""
    if kinds := stage.able(case):
        items = stage.workshop.items(stage.n)
        more = shuffled(items if case == "add-duplicates" else texts(stage.n, stage.n))
        tasks = [_adding_to(stage, kind, items[: stage.n // 2], more) for kind in kinds]
        stage.alternate(case, tasks, is_whole=True)


def _adding_to(stage: Stage, kind: type[Contender], half: list[str], more: list[str]) -> Task:
    contender = kind()

    def begin() -> None:
        contender.start(stage.workshop, stage.n)
        contender.add(half)

    end = functools.partial(contender.discard, stage.workshop)
    return Task(kind.name, lambda: contender.add(more), begin, end)


def draw(stage: Stage, case: str, pct_argmax: float = 0.0) -> None:
    """Draw batches that leave the buffer."""
    tasks = []
    for kind in stage.able(case):
        contender = stage.standing(kind)
        call = functools.partial(contender.draw, stage.batch, pct_argmax)
        after = contender.give_back if stage.runs_low else nothing
        tasks.append(Task(kind.name, call, after=after))
    stage.alternate(case, tasks, batch=stage.batch)


def replay(stage: Stage, case: str) -> None:
    """Draw batches that stay; each contender has a second buffer for it."""
    standing = [kind() for kind in stage.able(case)]
    for contender in standing:
        contender.furnish(stage.workshop, stage.n, mode="replay")
    tasks = [Task(each.name, functools.partial(each.draw, stage.batch)) for each in standing]
    stage.alternate(case, tasks, batch=stage.batch)
    for contender in standing:
        contender.discard(stage.workshop)


def iteration(stage: Stage, case: str) -> None:
    """Do whole iterations, each with samples that are new."""
    tasks = [_iterating(stage, kind) for kind in stage.able(case)]
    stage.alternate(case, tasks, batch=stage.batch)


def _iterating(stage: Stage, kind: type[Contender]) -> Task:
    contender, waiting = stage.standing(kind), list[list[str]]()
    return Task(
        kind.name,
        lambda: contender.iterate(waiting.pop(), stage.batch),
        before=lambda: waiting.append(stage.new_items(kind)),
    )


def look(stage: Stage, case: str) -> None:
    """Count, or read the numbers."""
    method = {"len": "count", "stats": "stats"}[case]
    tasks = [Task(kind.name, getattr(stage.standing(kind), method)) for kind in stage.able(case)]
    stage.alternate(case, tasks)


def reopen(stage: Stage, case: str) -> None:
    """Close and open buffers; the closing is not timed."""
    tasks = []
    for kind in stage.able(case):
        contender = stage.standing(kind)
        assert isinstance(contender, DatabaseContender)
        call = functools.partial(contender.open, contender.url)
        tasks.append(Task(kind.name, call, before=contender.close))
    stage.alternate(case, tasks)


def _closed_copy(stage: Stage, kind: type[Contender]) -> str:
    """Return the URL of a database of n scored samples, "" if the contender has none."""
    contender = kind()
    if not isinstance(contender, DatabaseContender):
        return ""
    contender.furnish(stage.workshop, stage.n)
    contender.close()
    return contender.url


def _drop(stage: Stage, kind: type[Contender], url: str) -> None:
    if url:
        stage.workshop.databases[kind.family].drop(url)
    stage.tick()


def memory(stage: Stage, case: str) -> None:
    """Read the memory of fresh processes."""
    k, _ = ration(stage.n, 1)
    for kind in stage.able(case):
        url = _closed_copy(stage, kind)
        stage.record(case, kind.name, [megabytes(kind.name, stage.n, k, url)], batch=k)
        _drop(stage, kind, url)


def draw_at_once(stage: Stage, case: str) -> None:
    """Start several processes that draw from one database at the same time."""
    number = int(case.removeprefix("processes-"))
    k, draws = ration(stage.n, max(PROCESSES))
    found: dict[str, list[float]] = {}
    for _, kind in itertools.product(range(stage.rare_repeats), stage.able(case)):
        url = _closed_copy(stage, kind)
        seconds = crowd(kind.name, url, processes=number, k=k, draws=draws)
        found.setdefault(kind.name, []).append(number * draws / seconds)
        _drop(stage, kind, url)
    for name, values in found.items():
        stage.record(case, name, values, batch=k, draws=draws)


def disk(stage: Stage, case: str) -> None:
    """Read the size of a database of n samples, before anything was drawn from it."""
    for kind in stage.able(case):
        url = _closed_copy(stage, kind)
        size_bytes = stage.workshop.databases[kind.family].size_bytes(url)
        stage.record(case, kind.name, [size_bytes / stage.n])
        _drop(stage, kind, url)


def refresh(stage: Stage, case: str) -> None:
    """Score everything again, each time with other scores."""
    tasks = [_refreshing(stage, kind) for kind in stage.able(case)]
    stage.alternate(case, tasks, is_whole=True)


def _refreshing(stage: Stage, kind: type[Contender]) -> Task:
    contender, versions = stage.standing(kind), itertools.count(1)
    return Task(kind.name, lambda: contender.refresh(next(versions)))


def importing(stage: Stage) -> None:
    """Import the library in fresh processes."""
    code = "import time; start = time.perf_counter(); import sqlbuffer"
    code += "; print(time.perf_counter() - start)"
    for kind in stage.able("import"):
        seconds = [float(python("-c", code)) for _ in range(stage.rare_repeats + 1)]
        stage.record("import", kind.name, seconds[1:])  # the first reads the disk


BY_WALL = frozenset(("import", *(f"processes-{number}" for number in PROCESSES)))
"""Cases that are timed by other processes, by the wall clock alone."""

_BY_CASE: dict[str, Callable[[Stage, str], None]] = {
    **{"add-duplicates": add_to_half, "add-more": add_to_half, "disk": disk, "draw": draw},
    "draw-argmax": functools.partial(draw, pct_argmax=0.1),
    **{"replay": replay, "iteration": iteration, "len": look, "stats": look, "open": reopen},
    **{"memory": memory, **{f"processes-{n}": draw_at_once for n in PROCESSES}, "refresh": refresh},
}
RUNNERS: dict[str, Callable[[Stage], None]] = {
    "add, score": add_and_score,
    **{case: functools.partial(run, case=case) for case, run in _BY_CASE.items()},
}
"""The runs at each size, in this order; `importing` is run once."""
