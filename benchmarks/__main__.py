"""The command: `python -m benchmarks --help`."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import report, targets
from benchmarks.cases import BY_WALL, CASES, RUNNERS, importing
from benchmarks.contenders import BY_NAME, Contender
from benchmarks.databases import Databases, SqliteFiles, place, postgres_server
from benchmarks.measure import CLOCKS, markdown
from benchmarks.report import Results
from benchmarks.stage import Stage, Workshop

SIZES = "1000,10000,100000,1000000"
QUICK = "1000,10000"
FULL = f"{SIZES},10000000"
DEFAULT_OUT = pathlib.Path(__file__).parent / "results"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()
Folder = pathlib.Path


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help=f"Sizes {QUICK}.")] = False,
    full: Annotated[bool, typer.Option("--full", help=f"Sizes {FULL}.")] = False,
    sizes: Annotated[str, typer.Option(help="Samples in the buffer, separated by commas.")] = SIZES,
    url: Annotated[
        str | None, typer.Option(help="A PostgreSQL server; by default one is started.")
    ] = None,
    cases: Annotated[str, typer.Option(help=f"Some of {', '.join(CASES)}.")] = ",".join(CASES),
    contenders: Annotated[str, typer.Option(help=f"Some of {', '.join(BY_NAME)}.")] = ",".join(
        BY_NAME
    ),
    out: Annotated[
        Folder, typer.Option(help="Folder for results, tables and plots.")
    ] = DEFAULT_OUT,
    folder: Annotated[
        Folder | None, typer.Option(help="Folder for databases; by default a temporary one.")
    ] = None,
    repeats: Annotated[
        int, typer.Option(help="Calls of each contender, if they are short.", min=1)
    ] = 30,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Processor time, on a busy machine; without servers.")
    ] = False,
) -> None:
    """Measure sqlbuffer against hand-written SQL and other buffers."""
    if context.invoked_subcommand is not None:
        return
    numbers = [int(size) for size in _chosen(QUICK if quick else FULL if full else sizes, None)]
    names, who = _chosen(cases, CASES), _chosen(contenders, BY_NAME)
    missing = {name: why for name in who if (why := BY_NAME[name].missing()) is not None}
    if cpu:
        names = [name for name in names if name not in BY_WALL]
        servers = [name for name in who if BY_NAME[name].family == "postgresql"]
        missing |= dict.fromkeys(servers, "a server does its work")
    kinds = [BY_NAME[name] for name in who if name not in missing]
    out.mkdir(parents=True, exist_ok=True)
    with _databases({kind.family for kind in kinds}, url, folder) as databases:
        facts = {family: source.facts() for family, source in databases.items()}
        options = {"sizes": numbers, "cases": names, "contenders": who, "repeats": repeats}
        options["clock"] = "cpu" if cpu else "wall"
        results = Results(report.about(options, facts), missing)
        _measure(results, Workshop(databases), kinds, out / "results.json")
    _write(results, out)


@app.command("report")
def rewrite(
    file: Annotated[Folder, typer.Argument(help="A results.json.")],
    out: Annotated[
        Folder | None, typer.Option(help="Folder for tables and plots; by default the file's.")
    ] = None,
) -> None:
    """Write tables and plots of earlier results."""
    _write(Results.load(file), file.parent if out is None else out)


def _chosen(given: str, known: Mapping[str, object] | None) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if known is not None and name not in known]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: use some of {', '.join(known or ())}.")
    return names


@contextlib.contextmanager
def _databases(
    families: set[str], url: str | None, folder: Folder | None
) -> Iterator[dict[str, Databases]]:
    """Prepare a folder, and a server if a contender needs one."""
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(place(folder))
        found: dict[str, Databases] = {"sqlite": SqliteFiles(files)} if "sqlite" in families else {}
        if "postgresql" in families:
            found["postgresql"] = stack.enter_context(postgres_server(url, files))
        yield found


def _measure(
    results: Results, workshop: Workshop, kinds: list[type[Contender]], file: Folder
) -> None:
    """Run all cases at all sizes; the results are saved after each."""
    options = results.about["options"]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    calls = TextColumn("{task.fields[calls]} calls")
    with Progress(*columns, TimeElapsedColumn(), calls, console=console) as progress:
        total = len(options["sizes"]) * len(RUNNERS) + 1
        task = progress.add_task("", total=total, calls=0)

        def tick() -> None:
            progress.update(task, calls=progress.tasks[0].fields["calls"] + 1)

        for n in [0, *options["sizes"]]:
            chosen = {name: options[name] for name in ("cases", "repeats")}
            clock = CLOCKS[options["clock"]]
            stage = Stage(workshop, n, kinds, tick=tick, clock=clock, **chosen)
            if n and stage.left_out:
                results.left_out[n] = stage.left_out
            runners: dict[str, Callable[[Stage], None]] = RUNNERS if n else {"import": importing}
            for name, runner in runners.items():
                progress.update(task, description=f"{n:,}: {name}" if n else name)
                runner(stage)
                results.records += stage.records
                stage.records.clear()
                results.save(file)
                progress.advance(task)
            stage.close()
            workshop.clear()


def _write(results: Results, out: Folder) -> None:
    out.mkdir(parents=True, exist_ok=True)
    judged = markdown(targets.HEADS, targets.verdicts(results))
    text = f"{report.tables(results)}\n\n## Targets\n\n{judged}\n"
    (out / "tables.md").write_text(text)
    report.plot(results, out)
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    app()
