"""Pictures of buffers, one function for each kind; they need matplotlib (extra `plots`).

Each takes a store or several, and returns a figure that a notebook shows, and `savefig` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlbuffer.errors import InvalidArgument, MissingExtra

if TYPE_CHECKING:
    from sqlbuffer.core.handle import BufferHandle
    from sqlbuffer.plots.picture import Picture
    from sqlbuffer.store import SampleStore

__all__ = [
    "best",
    "failures",
    "flow",
    "metrics",
    "predicted",
    "scores",
    "sources",
    "staleness",
    "times",
]

Stores: TypeAlias = "SampleStore | Sequence[SampleStore]"
Theme: TypeAlias = Literal["light", "dark"]


def best(
    stores: Stores | Mapping[str, Stores],
    *,
    x: Literal["measurements", "seconds"] = "measurements",
    k: int = 10,
    objective: str | None = None,
    theme: Theme = "light",
) -> Any:
    """Draw the best reward so far, and the mean of the k best samples.

    Args:
        stores: A store; several, each with a line of its own; or stores by label, such as the
            seeds of each method: their median, and a band from the lowest to the highest.
        x: "measurements": rewards stored by then, without failures; "seconds": the seconds that
            all measurements took by then, also failed ones.
        k: Number of the best samples.
        objective: An earlier objective; by default the current one.
        theme: "light" or "dark".

    Returns:
        The figure of matplotlib.

    Examples:
        >>> from sqlbuffer import plots
        >>> figure = plots.best(store)
        >>> figure.savefig("best.png")
        >>> figure.get_suptitle()
        'Best so far'
    """
    from sqlbuffer.plots.kinds import best as kind

    read: dict[str, Any] = {"k": k, "objective": objective}
    if isinstance(stores, Mapping):
        groups = {
            label: [each.read(kind.read, **read) for each in _buffers(group)]
            for label, group in stores.items()
        }
        return draw(kind.picture(groups, x=x), theme)
    found = [each.read(kind.read, **read) for each in _buffers(stores)]
    return draw(kind.picture(found, x=x), theme)


def metrics(
    stores: Stores,
    names: Sequence[str] | None = None,
    *,
    cols: int = 4,
    smooth: bool = True,
    theme: Theme = "light",
) -> Any:
    """Draw the metrics that loops have logged, over their iterations.

    Args:
        stores: A store, or several, each with a line of its own.
        names: Metrics to draw, one plot for each; None for all metrics that are numbers.
        cols: Plots in a row.
        smooth: Draw a running mean over a tenth of the values: over the values of one store, and
            in place of those of several.
        theme: "light" or "dark".

    Returns:
        The figure of matplotlib.

    Examples:
        >>> from sqlbuffer import plots
        >>> store.log_metrics(0, {"loss": 1.5})
        >>> figure = plots.metrics(store)
        >>> figure.savefig("metrics.png")
        >>> [axes.get_title() for axes in figure.axes]
        ['loss']
    """
    from sqlbuffer.plots.runs import draw_runs, read_runs

    runs = read_runs(_buffers(stores))
    return draw_runs(runs, names, cols=cols, smooth=smooth, theme=theme)


def scores(stores: Stores, *, theme: Theme = "light") -> Any:
    """Draw how the scores of waiting samples are distributed, and those of drawn samples.

    More than 5,000 samples of either are shown by 5,000, and the picture says so.

    Args:
        stores: A store, or several.
        theme: "light" or "dark".

    Returns:
        The figure of matplotlib.

    Examples:
        >>> from sqlbuffer import plots
        >>> figure = plots.scores(store)
        >>> figure.savefig("scores.png")
        >>> figure.get_suptitle()
        'Scores of waiting and drawn samples'
    """
    return _draw("scores", stores, theme)


def predicted(stores: Stores, *, objective: str | None = None, theme: Theme = "light") -> Any:
    """Draw the rewards of measured samples over their scores, and the rank correlation by version.

    A score is a prediction of the reward in a buffer that maximizes, of its negative in one that
    minimizes.

    Args:
        stores: A store, or several.
        objective: An earlier objective; by default the current one.
        theme: "light" or "dark".

    Returns:
        The figure of matplotlib.

    Examples:
        >>> from sqlbuffer import plots
        >>> figure = plots.predicted(store)
        >>> figure.savefig("predicted.png")
        >>> figure.get_suptitle()
        'Predicted against measured'
    """
    return _draw("predicted", stores, theme, objective=objective)


def staleness(stores: Stores, *, theme: Theme = "light") -> Any:
    """Draw how many predictors are newer than the scores of the waiting samples.

    Args:
        stores: A store, or several.
        theme: "light" or "dark".

    Returns:
        The figure of matplotlib.

    Examples:
        >>> from sqlbuffer import plots
        >>> figure = plots.staleness(store)
        >>> figure.savefig("staleness.png")
        >>> figure.get_suptitle()
        'Staleness'
    """
    return _draw("staleness", stores, theme)


def flow(stores: Stores, *, objective: str | None = None, theme: Theme = "light") -> Any:
    """Draw how many samples were stored, drawn and measured, and how many failed, by time.

    Args:
        stores: A store, or several.
        objective: An earlier objective; by default the current one.
        theme: "light" or "dark".

    Returns:
        The figure of matplotlib.

    Examples:
        >>> from sqlbuffer import plots
        >>> figure = plots.flow(store)
        >>> figure.savefig("flow.png")
        >>> figure.get_suptitle()
        'Inflow and outflow'
    """
    return _draw("flow", stores, theme, objective=objective)


def sources(stores: Stores, *, objective: str | None = None, theme: Theme = "light") -> Any:
    """Draw the measurements of each source: how many, failures, quartiles and best of rewards.

    Args:
        stores: A store, or several.
        objective: An earlier objective; by default the current one.
        theme: "light" or "dark".

    Returns:
        The figure of matplotlib.

    Examples:
        >>> from sqlbuffer import plots
        >>> figure = plots.sources(store)
        >>> figure.savefig("sources.png")
        >>> figure.get_suptitle()
        'Success by source'
    """
    return _draw("sources", stores, theme, objective=objective)


def failures(stores: Stores, *, objective: str | None = None, theme: Theme = "light") -> Any:
    """Draw how many measurements failed for each reason: the error up to its first colon.

    Args:
        stores: A store, or several.
        objective: An earlier objective; by default the current one.
        theme: "light" or "dark".

    Returns:
        The figure of matplotlib.

    Examples:
        >>> from sqlbuffer import plots
        >>> figure = plots.failures(store)
        >>> figure.savefig("failures.png")
        >>> figure.get_suptitle()
        'Failures by reason'
    """
    return _draw("failures", stores, theme, objective=objective)


def times(stores: Stores, *, objective: str | None = None, theme: Theme = "light") -> Any:
    """Draw how long samples wait, are claimed, and are measured: median, middle half, longest.

    Args:
        stores: A store, or several.
        objective: An earlier objective; by default the current one.
        theme: "light" or "dark".

    Returns:
        The figure of matplotlib.

    Examples:
        >>> from sqlbuffer import plots
        >>> figure = plots.times(store)
        >>> figure.savefig("times.png")
        >>> figure.get_suptitle()
        'Time per event'
    """
    return _draw("times", stores, theme, objective=objective)


def draw(picture: Picture, theme: str = "light") -> Any:
    """Return a matplotlib figure of a picture; internal.

    Raises:
        MissingExtra: If matplotlib is not installed.
    """
    try:
        from sqlbuffer.plots._matplotlib import draw
    except ImportError as exc:
        raise MissingExtra("plots need matplotlib: pip install 'sqlbuffer[plots]'.") from exc
    return draw(picture, theme)


def _draw(kind: str, stores: Stores, theme: Theme, **options: Any) -> Any:
    from sqlbuffer.plots.registry import KINDS

    found = [each.read(KINDS[kind].read, **options) for each in _buffers(stores)]
    return draw(KINDS[kind].picture(found), theme)


def _buffers(stores: Stores) -> list[BufferHandle]:
    given: Any = stores if isinstance(stores, (list, tuple)) else [stores]
    if not given:
        raise InvalidArgument("a picture needs at least one store, got none.")
    return [each._buffer for each in given]
