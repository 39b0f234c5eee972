"""Learning curves of several seeds, drawn to a file; needs matplotlib (extra `plots`)."""

import pathlib
from collections.abc import Mapping

import numpy as np

COLORS = ("#0072b2", "#c04a00", "#00805e")


def mean_shown(values: np.ndarray, *, digits: int) -> str:
    """Return the mean of values, with the standard deviation if there are several."""
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std():.{digits}f}"


def draw(
    curves: Mapping[str, np.ndarray], x: np.ndarray, path: pathlib.Path, *, labels: tuple[str, str]
) -> None:
    """Draw the mean over the seeds, with a band of one standard deviation.

    Args:
        curves: (seeds, points) floats, by name.
        x: (points,) floats.
        path: The file; its suffix says of which kind it is.
        labels: Names of the axes, of x and of y.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for color, (name, values) in zip(COLORS, curves.items(), strict=False):
        mean, spread = values.mean(axis=0), values.std(axis=0)
        axes.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
        axes.plot(x, mean, color=color, label=name)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.grid(color="#dfe3e8")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
