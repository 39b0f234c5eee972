"""One plot for each case: cost against the size of the buffer."""

from __future__ import annotations

import pathlib

from benchmarks.cases import CASES
from benchmarks.report import Results

_STYLES = {"sqlbuffer": "-", "raw": "--", "usual": ":"}


def plot(results: Results, folder: pathlib.Path) -> list[pathlib.Path]:
    """Write a PNG for each case that depends on the size; return the files."""
    from matplotlib.figure import Figure

    files = []
    for name, case in CASES.items():
        sizes = [size for size in results.sizes(name) if size]
        if not sizes:
            continue
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        for contender in results.contenders(name):
            points = [(n, value) for n in sizes if (value := results.median(name, contender, n)) is not None]
            values = [value * 1000 if case.unit == "s" else value for _, value in points]
            style = _STYLES.get(contender.partition("-")[0], "-.")
            axes.plot([n for n, _ in points], values, style, marker="o", markersize=4, label=contender)
        axes.set(xscale="log", yscale="log", xlabel="samples in the buffer", title=case.title)
        axes.set_ylabel("ms" if case.unit == "s" else case.unit)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize="small")
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=120)
    return files
