"""`sqlbuffer copy`."""

from __future__ import annotations

import contextlib
import enum
from typing import Annotated

import typer

from sqlbuffer import copying
from sqlbuffer.database import DEFAULT_URL
from sqlbuffer.inspect import output
from sqlbuffer.inspect.opening import handles, open_existing
from sqlbuffer.inspect.options import Url


class Weightings(str, enum.Enum):
    """Weightings by name, with their default parameters."""

    shift = "shift"
    softmax = "softmax"
    power = "power"
    uniform = "uniform"


class Modes(str, enum.Enum):
    """What becomes of a drawn sample."""

    consume = "consume"
    replay = "replay"


def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The buffer.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Name of the copy.")],
    url: Url = DEFAULT_URL,
    at_iteration: Annotated[
        int | None, typer.Option(min=0, help="What there was when this iteration began; without it, what there is.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed of the draws.")] = None,
    weighting: Annotated[Weightings | None, typer.Option(help="Another way from scores to weights.")] = None,
    mode: Annotated[Modes | None, typer.Option(help="Another mode.")] = None,
    max_size: Annotated[int | None, typer.Option(min=1, help="Another limit of scored samples that may wait.")] = None,
) -> None:
    """Copy a buffer within its database: to try another setting from the same point.

    Without options the copy draws what the original would have drawn; samples of batches that are out wait in it.
    Another seed or weighting, or --at-iteration, begins a new race.

    What has been overwritten since an earlier iteration cannot be known: scores of later versions and rewards measured
    again are missing in the copy; what was removed since, or added again after it had been settled, does not wait.

    It is one transaction: an interrupted copy leaves nothing. On SQLite other writers wait for it.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        made = copying.copy(
            buffer,
            new,
            at_iteration=at_iteration,
            seed=seed,
            weighting=None if weighting is None else weighting.value,
            mode=None if mode is None else mode.value,
            max_size=max_size,
            silent=not output.console().is_terminal,
        )
    output.line(f"{buffer.name} was copied to {made.name}")
