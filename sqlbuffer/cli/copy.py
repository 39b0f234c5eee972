"""`sqlbuffer copy`: a second buffer that starts from the state of the first."""

from __future__ import annotations

import contextlib
import enum
from typing import Annotated

import typer

from sqlbuffer.cli import output
from sqlbuffer.cli.common import Url, command, handles, open_existing
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.maintenance import copy as maintenance_copy


class Weightings(str, enum.Enum):
    """Weightings by name, with their default parameters."""

    shift = "shift"
    softmax = "softmax"
    power = "power"
    uniform = "uniform"


WEIGHTINGS = "shift, softmax, power or uniform"


class Evictions(str, enum.Enum):
    """Samples that leave first when too many wait."""

    lightest = "lightest"
    oldest = "oldest"


class Modes(str, enum.Enum):
    """Whether a drawn sample leaves the pool."""

    consume = "consume"
    replay = "replay"


@command(
    "sqlbuffer copy default again",
    "sqlbuffer copy default greedy --at-iteration 0 --weighting softmax --seed 1",
    "sqlbuffer copy default --to-url sqlite:///for-a-colleague.db --as first-run",
)
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the buffer.")],
    new: Annotated[
        str | None, typer.Argument(metavar="NEW", help="Name of the copy in the same database.")
    ] = None,
    url: Url = DEFAULT_URL,
    to_url: Annotated[
        str | None,
        typer.Option(
            "--to-url",
            metavar="URL",
            help="Copy into another database: sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
        ),
    ] = None,
    new_there: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NEW", help="Name of the copy in the other database; by default NAME."
        ),
    ] = None,
    at_iteration: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Copy the state at the beginning of this iteration instead of the current state.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="New seed of the draws.")] = None,
    weighting: Annotated[
        Weightings | None,
        typer.Option(
            metavar="WEIGHTING",
            help=f"New function that turns scores into weights: {WEIGHTINGS}.",
        ),
    ] = None,
    mode: Annotated[
        Modes | None,
        typer.Option(help="New mode: consume (a drawn sample leaves the pool) or replay."),
    ] = None,
    max_size: Annotated[
        int | None, typer.Option(min=1, help="New limit of scored samples that may wait.")
    ] = None,
    evict: Annotated[
        Evictions | None,
        typer.Option(help="New choice of the samples that leave beyond the limit."),
    ] = None,
    predictors: Annotated[
        bool,
        typer.Option(
            "--predictors/--no-predictors", help="Copy the predictor versions with their states."
        ),
    ] = True,
) -> None:
    """Copy a buffer, to try another setting from the same point, or into another database.

    Without options the copy draws the same batches as the original. Samples that are claimed in the
    original wait in the copy. Another seed or weighting, or --at-iteration, begins a new race.

    With --at-iteration, data that was overwritten since that iteration is missing in the copy:
    scores of later versions, and rewards that were measured again. Samples that were removed since,
    or settled and then added again, do not wait in the copy.

    Within the database the copy is one transaction: an interrupted copy leaves nothing. On SQLite
    other writers wait until it ends.

    With --to-url the copy is the state of one moment, and workers go on. It has its name once all
    rows were read back and compared. A copy that was killed goes on when the same command is run
    again, or begins again if the buffer has changed; `sqlbuffer rm` deletes it.
    """
    if new is not None and to_url is not None:
        raise typer.BadParameter(f"give the name in the other database by --as {new}.")
    if new_there is not None and to_url is None:
        raise typer.BadParameter("--as names a copy in another database: give --to-url, too.")
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        made = maintenance_copy.copy(
            buffer,
            new if to_url is None else new_there,
            to_url=to_url,
            at_iteration=at_iteration,
            seed=seed,
            weighting=None if weighting is None else weighting.value,
            mode=None if mode is None else mode.value,
            max_size=max_size,
            evict=None if evict is None else evict.value,
            predictors=predictors,
            silent=not output.console(stderr=True).is_terminal,
        )
    where = "" if to_url is None else f" in {made.database.url}"
    output.line(f"{buffer.name} was copied to {made.name}{where}")
    if to_url is not None:
        made.database.close()
