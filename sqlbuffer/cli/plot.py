"""`sqlbuffer plot`: pictures of buffers as files."""

from __future__ import annotations

import contextlib
import enum
import fnmatch
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from sqlbuffer._messages import n_of, printable
from sqlbuffer.cli import output
from sqlbuffer.cli.common import Url, command, explained, handles, open_existing
from sqlbuffer.cli.files import complete, require_file
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db.database import DEFAULT_URL, Database
from sqlbuffer.db.queries.buffers import buffer_names
from sqlbuffer.errors import BufferNotFound
from sqlbuffer.plots import draw
from sqlbuffer.plots.registry import KINDS
from sqlbuffer.plots.runs import draw_runs, read_runs

_KINDS = ("metrics", *KINDS)
Kinds = enum.Enum("Kinds", {name: name for name in _KINDS}, type=str)  # type: ignore[misc]

ENDINGS = (".png", ".svg", ".pdf")


class Spent(str, enum.Enum):
    """Horizontal axis of the best so far."""

    measurements = "measurements"
    seconds = "seconds"


@command(
    "sqlbuffer plot --kind best --name default --name qed -o best.png",
    "sqlbuffer plot --kind best --name 'def*' --name 'qed*' --x seconds",
    "sqlbuffer plot --kind predicted -o predicted.pdf",
    "sqlbuffer plot rewards --name default --name qed -o rewards.svg",
)
def plot(
    metrics: Annotated[
        list[str] | None,
        typer.Argument(metavar="METRIC...", help="Names of metrics; all metrics if none is given."),
    ] = None,
    kind: Annotated[
        Kinds,
        typer.Option(metavar="KIND", help=f"What to draw: {', '.join(_KINDS)}."),
    ] = Kinds.metrics,  # type: ignore[attr-defined]
    out: Annotated[
        pathlib.Path | None,
        typer.Option("--out", "-o", help="File to write: .png, .svg or .pdf; by default KIND.png."),
    ] = None,
    url: Url = DEFAULT_URL,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a buffer; may be given several times. A pattern such as 'ucb-*' is all "
            "buffers that match it: --kind best draws their median in a band.",
            show_default="default",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="An earlier objective, whose rewards are shown."),
    ] = None,
    x: Annotated[
        Spent | None,
        typer.Option(help="Horizontal axis of --kind best.", show_default="measurements"),
    ] = None,
) -> None:
    r"""Draw a picture of one or several buffers into a file.

    - metrics: the numbers that a training loop logs, over its iterations; of several buffers a
      line for each.
    - best: the best reward so far and the mean of the ten best samples.
    - scores: the distribution of scores of waiting and of drawn samples.
    - predicted: rewards of measured samples over their predictions, and their rank correlation.
    - staleness: how many predictors are newer than the scores of waiting samples.
    - flow: samples stored, drawn, measured and failed, by time.
    - sources: measurements, failures and rewards by source.
    - failures: failed measurements by reason.
    - times: how long samples wait, are claimed, and are measured.

    A failed measurement has no reward and is not counted by --x measurements; --x seconds counts
    the time that it took. Of a large buffer some kinds read 10,000 rows or fewer, and the
    picture says so. Pictures need matplotlib: pip install "sqlbuffer\[plots]".
    """
    of = kind.value
    if metrics and of != "metrics":
        raise typer.BadParameter(f"--kind {of} takes no METRIC: leave {metrics[0]} out.")
    if x is not None and of != "best":
        raise typer.BadParameter(f"--x is of --kind best: leave it out with --kind {of}.")
    if objective is not None and "objective" not in (KINDS[of].options if of in KINDS else ()):
        raise typer.BadParameter(f"--kind {of} shows no rewards: leave --objective out.")
    file = pathlib.Path(f"{of}.png") if out is None else out
    require_file(file, ENDINGS)
    with contextlib.closing(open_existing(url)) as database:
        groups = find_buffers(database, name or ["default"])
        if of == "metrics":
            n = plot_metrics(groups, metrics or None, file)
            output.line(f"{n_of(n, 'metric')} in {file}")
            return
        given = {} if objective is None else {"objective": objective}
        about = {} if x is None else {"x": x.value}
        explained(lambda: plot_kind(of, groups, file, given, about))
    output.line(f"{of} in {file}")


def find_buffers(database: Database, names: Sequence[str]) -> dict[str, list[BufferHandle]]:
    """Return the buffers of each name or pattern.

    Raises:
        BufferNotFound: If a buffer does not exist, or no buffer matches a pattern.
    """
    known = database.read(lambda connection: connection.scalars(buffer_names()).all())
    found: dict[str, list[BufferHandle]] = {}
    for name in names:
        is_pattern = "*" in name and name not in known
        matching = fnmatch.filter(known, name.replace("[", "[[]")) if is_pattern else [name]
        if not matching:
            raise BufferNotFound(f"no buffer of {database.url} matches {printable(name)}.")
        found[name] = [each for match in matching for each in handles(database, match)]
    return found


def plot_kind(
    kind: str,
    groups: dict[str, list[BufferHandle]],
    out: pathlib.Path,
    given: dict[str, Any],
    about: dict[str, Any],
) -> None:
    """Write a picture of buffers.

    Args:
        kind: A key of `KINDS`.
        groups: Buffers by label; `best` draws one line for each label.
        out: The file. Its suffix is the format.
        given: Keywords of the kind's `read`.
        about: Keywords of the kind's `picture`.
    """
    made = KINDS[kind]
    found = {
        label: [each.read(made.read, **given) for each in group] for label, group in groups.items()
    }
    data: Any = found if kind == "best" else [each for group in found.values() for each in group]
    _save(draw(made.picture(data, **about)), out)


def plot_metrics(
    groups: dict[str, list[BufferHandle]], metrics: Sequence[str] | None, out: pathlib.Path
) -> int:
    """Write a plot of the metrics of buffers; return the number of metrics in it.

    Args:
        groups: Buffers by label; each has a line of its own.
        metrics: Names of metrics; None for all.
        out: The file. Its suffix is the format.

    Raises:
        InvalidArgument: If no buffer has metrics, or one of these, or the file cannot be written.
        MissingExtra: If matplotlib is not installed.
    """
    figure = draw_runs(read_runs([each for group in groups.values() for each in group]), metrics)
    _save(figure, out)
    return len(figure.axes)


def _save(figure: Any, out: pathlib.Path) -> None:
    with complete(out) as part:
        figure.savefig(part, format=out.suffix[1:].lower())
