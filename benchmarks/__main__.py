"""The command: `python -m benchmarks --help`."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import plots, report, targets
from benchmarks.cases import BY_WALL, CASES, RUNNERS, importing
from benchmarks.contenders import BY_NAME, Contender
from benchmarks.databases import Databases, SqliteFiles, postgres_server
from benchmarks.measure import CLOCKS
from benchmarks.report import Results
from benchmarks.stage import Stage
from benchmarks.workshop import Workshop

SIZES = "1000,10000,100000,1000000"
QUICK = "1000,10000"
FULL = f"{SIZES},10000000"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()

Folder = Annotated[pathlib.Path, typer.Option(help="Where results, tables and plots go.")]
DEFAULT_OUT = pathlib.Path(__file__).parent / "results"


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help=f"Sizes {QUICK}.")] = False,
    full: Annotated[bool, typer.Option("--full", help=f"Sizes {FULL}.")] = False,
    sizes: Annotated[str, typer.Option(help="Samples in the buffer, separated by commas.")] = SIZES,
    url: Annotated[str | None, typer.Option(help="A PostgreSQL server; by default one is started.")] = None,
    cases: Annotated[str, typer.Option(help=f"Which, of {', '.join(CASES)}.")] = ",".join(CASES),
    contenders: Annotated[str, typer.Option(help=f"Who, of {', '.join(BY_NAME)}.")] = ",".join(BY_NAME),
    out: Folder = DEFAULT_OUT,
    folder: Annotated[pathlib.Path | None, typer.Option(help="Where databases go; by default a temporary one.")] = None,
    repeats: Annotated[int, typer.Option(help="Calls of each contender, where they are short.", min=1)] = 30,
    cpu: Annotated[bool, typer.Option("--cpu", help="Processor time, on a busy machine; without servers.")] = False,
) -> None:
    """Measure sqlbuffer beside hand-written SQL and what one would use instead."""
    if context.invoked_subcommand is not None:
        return
    wanted = QUICK if quick else FULL if full else sizes
    numbers = [int(size) for size in _chosen(wanted, None)]
    names, who = _chosen(cases, CASES), _chosen(contenders, BY_NAME)
    missing = {name: reason for name in who if (reason := BY_NAME[name].missing()) is not None}
    if cpu:
        names = [name for name in names if name not in BY_WALL]
        missing |= {name: "a server does its work" for name in who if BY_NAME[name].family == "postgresql"}
    kinds = [BY_NAME[name] for name in who if name not in missing]
    out.mkdir(parents=True, exist_ok=True)
    with _databases(kinds, url, folder) as databases:
        facts = {family: source.facts() for family, source in databases.items()}
        clock = "cpu" if cpu else "wall"
        options = {"sizes": numbers, "cases": names, "contenders": who, "repeats": repeats, "clock": clock}
        results = Results(report.about(options, facts), missing)
        _measure(results, Workshop(databases), kinds, out / "results.json")
    _write(results, out)


@app.command("report")
def rewrite(
    file: Annotated[pathlib.Path, typer.Argument(help="A results.json.")],
    out: Annotated[pathlib.Path | None, typer.Option(help="Where to; by default beside the file.")] = None,
) -> None:
    """Write tables and plots of results that are there."""
    _write(Results.load(file), file.parent if out is None else out)


def _chosen(given: str, known: Mapping[str, object] | None) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if known is not None and name not in known]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: use some of {', '.join(known or ())}.")
    return names


@contextlib.contextmanager
def _databases(
    kinds: list[type[Contender]], url: str | None, folder: pathlib.Path | None
) -> Iterator[dict[str, Databases]]:
    """Prepare what the contenders need: a folder, and a server if one of them asks for it."""
    families = {kind.family for kind in kinds}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    place = pathlib.Path(tempfile.mkdtemp(prefix="sb", dir=folder))  # short: a socket's path is 107 characters at most
    try:
        found: dict[str, Databases] = {"sqlite": SqliteFiles(place)} if "sqlite" in families else {}
        with contextlib.ExitStack() as stack:
            if "postgresql" in families:
                found["postgresql"] = stack.enter_context(postgres_server(url, place))
            yield found
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _measure(results: Results, workshop: Workshop, kinds: list[type[Contender]], file: pathlib.Path) -> None:
    """Run all cases at all sizes; what is there is saved after each."""
    options = results.about["options"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[calls]} calls"), console=console) as progress:
        task = progress.add_task("", total=len(options["sizes"]) * len(RUNNERS) + 1, calls=0)

        def tick() -> None:
            progress.update(task, calls=progress.tasks[0].fields["calls"] + 1)

        def stage_of(n: int) -> Stage:
            chosen = {"cases": options["cases"], "repeats": options["repeats"], "clock": CLOCKS[options["clock"]]}
            return Stage(workshop, n, kinds, tick=tick, **chosen)

        def run_one(name: str, stage: Stage, runner: Callable[[Stage], None]) -> None:
            progress.update(task, description=f"{stage.n:,}: {name}" if stage.n else name)
            runner(stage)
            results.records += stage.records
            stage.records.clear()
            results.save(file)
            progress.advance(task)

        run_one("import", stage_of(0), importing)
        for n in options["sizes"]:
            stage = stage_of(n)
            if stage.left_out:
                results.left_out[n] = stage.left_out
            for name, runner in RUNNERS.items():
                run_one(name, stage, runner)
            stage.close()
            workshop.clear()


def _write(results: Results, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    text = f"{report.tables(results)}\n\n{targets.table(results)}\n"
    (out / "tables.md").write_text(text)
    plots.plot(results, out)
    shown = Table(*targets.HEADS, title="Targets")
    for verdict in targets.verdicts(results):
        shown.add_row(*verdict.cells)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(shown)


if __name__ == "__main__":
    app()
