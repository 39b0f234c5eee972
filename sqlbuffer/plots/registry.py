"""The kinds of pictures by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from sqlbuffer.plots.kinds import (
    best,
    failures,
    flow,
    predicted,
    scores,
    sources,
    staleness,
    times,
)
from sqlbuffer.plots.picture import Data, Picture


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        read: Reads the data of a buffer: a function of a `core.transaction.Transaction`.
        picture: Returns the picture of a list of such data.
        options: Names of the keywords of `read` that a user may give.
    """

    read: Callable[..., Data]
    picture: Callable[..., Picture]
    options: tuple[str, ...] = ()


_OBJECTIVE = ("objective",)

KINDS: dict[str, Kind] = {
    "best": Kind(best.read, best.picture, ("k", "objective")),
    "predicted": Kind(predicted.read, predicted.picture, _OBJECTIVE),
    "sources": Kind(sources.read, sources.picture, _OBJECTIVE),
    "scores": Kind(scores.read, scores.picture),
    "staleness": Kind(staleness.read, staleness.picture),
    "failures": Kind(failures.read, failures.picture, _OBJECTIVE),
    "times": Kind(times.read, times.picture, _OBJECTIVE),
    "flow": Kind(flow.read, flow.picture, _OBJECTIVE),
}
"""The kinds, in the order of a page."""
