"""The cases: what is measured, and how."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import crowd
from benchmarks.contenders import BY_NAME, Contender, DatabaseContender
from benchmarks.contenders.sqlbuffer_ import SqlbufferSqlite
from benchmarks.data import Items
from benchmarks.measure import WARM_UPS, Task, alternate, timed
from benchmarks.stage import Stage

PROCESSES = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class Case:
    """What a table shows.

    Attributes:
        title: Its heading.
        note: What was done, and what is left out of the timing.
        unit: "s", "MB", "bytes" or "draws/s".
    """

    title: str
    note: str
    unit: str = "s"


CASES = {
    "add": Case("Add n distinct samples to an empty buffer", "In one call; fresh buffers for each."),
    "add-duplicates": Case(
        "Add n samples of which half are there already",
        "In one call, in random order, to a buffer that holds the one half; each fills up to n.",
    ),
    "add-more": Case(
        "Add n distinct samples to a buffer that holds half as many",
        "In one call, in random order: what half duplicates are to be compared with, since the index is as large.",
    ),
    "score": Case("Score n new samples", "All that `add` has left without a score."),
    "draw": Case(
        "Draw 512",
        "A claimed batch, stored. Where the draws of a run would empty the buffer, what was drawn is given back "
        "(for the library: settled, added and scored again) outside of the timing.",
    ),
    "draw-argmax": Case("Draw 512, a tenth of them the heaviest", "As above, with `pct_argmax=0.1`."),
    "replay": Case(
        "Draw 512 that stay in the buffer",
        "Mode `replay`: 512 new keys are written. In-memory prioritised buffers: sample, then update the priorities.",
    ),
    "iteration": Case(
        "A whole iteration",
        "Add 512 new samples, score them, draw 512, store 512 rewards and a checkpoint of 1 kB. The lists: add, drop "
        "repeats, score, draw; they store nothing.",
    ),
    "refresh": Case("Score all n anew", "New scores, weights and keys for everything that waits."),
    "len": Case("Count what waits", "`len(buffer)`."),
    "stats": Case("All numbers of a buffer", "`store.stats()`."),
    "open": Case("Open a buffer that is there", "A new connection in a warm process."),
    "memory": Case(
        "Memory of a process",
        "Resident set of a fresh process that has opened the buffer and drawn ten batches, shared pages of the mapped "
        "file included; for buffers in memory its growth with n samples.",
        "MB",
    ),
    **{
        f"processes-{number}": Case(
            f"Draws per second, {number} process{'es' if number > 1 else ''} drawing at the same time",
            "In all, from when they are released together until the last is done. Batches of 512, smaller where n "
            "samples would not last.",
            "draws/s",
        )
        for number in PROCESSES
    },
    "disk": Case("Size on disk", "Tables and indexes of n scored samples, for each sample.", "bytes"),
    "import": Case("Import", "`import sqlbuffer` in a fresh process."),
}


def add_and_score(stage: Stage) -> None:
    """Build buffers; the library's last one is the database that all other cases work on."""
    kinds = stage.able("add", "score")
    found: dict[tuple[str, str], list[float]] = {}
    for i in range(stage.whole_repeats if kinds else 0):
        for kind in kinds:
            contender, items = kind(), stage.workshop.items(stage.n)
            contender.start(stage.workshop, stage.n)
            for case, call in (("add", _calling(contender.add, items)), ("score", contender.score)):
                found.setdefault((case, kind.name), []).append(timed(call, stage.clock))
            _let_go(stage, contender, is_last=i == stage.whole_repeats - 1)
            stage.tick()
    for (case, name), values in found.items():
        if case in BY_NAME[name].abilities:
            stage.record(case, name, values)


def _let_go(stage: Stage, contender: Contender, *, is_last: bool) -> None:
    if is_last and isinstance(contender, SqlbufferSqlite):
        contender.close()
        stage.workshop.keep(contender.family, stage.n, contender.url)
    else:
        contender.discard(stage.workshop)


def add_to_half(stage: Stage, case: str) -> None:
    """Add n samples to buffers that hold n / 2: those among them, or others."""
    kinds = stage.able(case)
    if not kinds:
        return
    items = stage.workshop.items(stage.n)
    more = (items if case == "add-duplicates" else Items.make(stage.n, stage.n)).shuffled()
    tasks = [_adding_to(stage, kind, items.part(0, stage.n // 2), more) for kind in kinds]
    _alternate(stage, case, tasks, is_whole=True)


def _adding_to(stage: Stage, kind: type[Contender], half: Items, more: Items) -> Task:
    contender = kind()

    def begin() -> None:
        contender.start(stage.workshop, stage.n)
        contender.add(half)

    return Task(kind.name, _calling(contender.add, more), begin, lambda: contender.discard(stage.workshop))


def draw(stage: Stage, case: str, pct_argmax: float) -> None:
    """Draw batches that leave the buffer."""
    tasks = []
    for kind in stage.able(case):
        contender = stage.standing(kind)
        after = contender.give_back if stage.runs_low else _nothing
        tasks.append(Task(kind.name, _calling(contender.draw, stage.batch, pct_argmax), after=after))
    _alternate(stage, case, tasks, batch=stage.batch)


def replay(stage: Stage) -> None:
    """Draw batches that stay; each contender has a second buffer for it."""
    standing = []
    for kind in stage.able("replay"):
        contender = kind()
        contender.furnish(stage.workshop, stage.n, mode="replay")
        standing.append(contender)
    tasks = [Task(contender.name, _calling(contender.draw, stage.batch)) for contender in standing]
    _alternate(stage, "replay", tasks, batch=stage.batch)
    for contender in standing:
        contender.discard(stage.workshop)


def iteration(stage: Stage) -> None:
    """Do whole iterations, each with samples that are new."""
    tasks = [_iterating(stage, kind) for kind in stage.able("iteration")]
    _alternate(stage, "iteration", tasks, batch=stage.batch)


def _iterating(stage: Stage, kind: type[Contender]) -> Task:
    contender, waiting = stage.standing(kind), list[Items]()
    return Task(
        kind.name,
        lambda: contender.iterate(waiting.pop(), stage.batch),
        before=lambda: waiting.append(stage.new_items(kind)),
    )


def looks(stage: Stage, case: str) -> None:
    """Count, or read the numbers."""
    method = {"len": "count", "stats": "stats"}[case]
    tasks = [Task(kind.name, getattr(stage.standing(kind), method)) for kind in stage.able(case)]
    _alternate(stage, case, tasks)


def reopen(stage: Stage) -> None:
    """Close and open buffers; the closing is not timed."""
    tasks = []
    for kind in stage.able("open"):
        contender = stage.standing(kind)
        assert isinstance(contender, DatabaseContender)
        tasks.append(Task(kind.name, _calling(contender.open, contender.url), before=contender.close))
    _alternate(stage, "open", tasks)


def memory(stage: Stage) -> None:
    """Ask fresh processes what they take."""
    k, _ = crowd.ration(stage.n, 1)
    for kind in stage.able("memory"):
        contender, url = kind(), ""
        if isinstance(contender, DatabaseContender):
            contender.furnish(stage.workshop, stage.n)
            contender.close()
            url = contender.url
        found = _python("-m", "benchmarks.probe", kind.name, str(stage.n), str(k), url)
        stage.record("memory", kind.name, [found["megabytes"]], batch=k)
        if url:
            stage.workshop.databases[kind.family].drop(url)
        stage.tick()


def processes(stage: Stage, number: int) -> None:
    """Let several processes draw from each database at the same time."""
    case = f"processes-{number}"
    kinds = stage.able(case)
    k, draws = crowd.ration(stage.n, max(PROCESSES))
    found: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for _ in range(stage.rare_repeats):
        for kind in kinds:
            contender = kind()
            contender.furnish(stage.workshop, stage.n)
            assert isinstance(contender, DatabaseContender)
            contender.close()
            seconds = crowd.run(kind.name, contender.url, processes=number, k=k, draws=draws)
            stage.workshop.databases[kind.family].drop(contender.url)
            found[kind.name].append(number * draws / seconds)
            stage.tick()
    for name, values in found.items():
        stage.record(case, name, values, batch=k, draws=draws)


def disk(stage: Stage) -> None:
    """Look how large a database of n samples is, before anything was drawn from it."""
    for kind in stage.able("disk"):
        contender = kind()
        contender.furnish(stage.workshop, stage.n)
        assert isinstance(contender, DatabaseContender)
        contender.close()
        stage.record("disk", kind.name, [stage.workshop.databases[kind.family].size_bytes(contender.url) / stage.n])
        stage.workshop.databases[kind.family].drop(contender.url)


def refresh(stage: Stage) -> None:
    """Score everything anew, each time with other scores."""
    _alternate(stage, "refresh", [_refreshing(stage, kind) for kind in stage.able("refresh")], is_whole=True)


def _refreshing(stage: Stage, kind: type[Contender]) -> Task:
    contender, versions = stage.standing(kind), itertools.count(1)
    return Task(kind.name, lambda: contender.refresh(next(versions)))


def importing(stage: Stage) -> None:
    """Import the library in fresh processes, and see whether torch comes along."""
    code = "import json, sys, time; start = time.perf_counter(); import sqlbuffer; took = time.perf_counter() - start"
    code += "; print(json.dumps({'seconds': took, 'torch': 'torch' in sys.modules}))"
    for kind in stage.able("import"):
        runs = [_python("-c", code) for _ in range(stage.rare_repeats + 1)][1:]  # the first reads the disk
        stage.record("import", kind.name, [run["seconds"] for run in runs], torch=any(run["torch"] for run in runs))


BY_WALL = frozenset(("import", *(f"processes-{number}" for number in PROCESSES)))
"""Cases that are timed by other processes, by the wall clock alone."""

RUNNERS: dict[str, Callable[[Stage], None]] = {
    "add, score": add_and_score,
    "add-duplicates": lambda stage: add_to_half(stage, "add-duplicates"),
    "add-more": lambda stage: add_to_half(stage, "add-more"),
    "disk": disk,
    "draw": lambda stage: draw(stage, "draw", 0.0),
    "draw-argmax": lambda stage: draw(stage, "draw-argmax", 0.1),
    "replay": replay,
    "iteration": iteration,
    "len": lambda stage: looks(stage, "len"),
    "stats": lambda stage: looks(stage, "stats"),
    "open": reopen,
    "memory": memory,
    "processes-1": lambda stage: processes(stage, 1),
    "processes-2": lambda stage: processes(stage, 2),
    "processes-4": lambda stage: processes(stage, 4),
    "refresh": refresh,
}
"""What is run at each size, in this order; `importing` is run once."""


def _alternate(stage: Stage, case: str, tasks: list[Task], *, is_whole: bool = False, **facts: Any) -> None:
    repeats, warm_ups = (stage.whole_repeats, 0) if is_whole else (stage.repeats, WARM_UPS)
    found = alternate(tasks, repeats=repeats, warm_ups=warm_ups, clock=stage.clock, tick=stage.tick)
    for name, seconds in found.items():
        stage.record(case, name, seconds, **facts)


def _calling(function: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


def _nothing() -> None: ...


def _python(*words: str) -> dict[str, Any]:
    """Run Python in a fresh process, and return the JSON that it prints last."""
    done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
