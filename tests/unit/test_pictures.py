"""Pictures of metrics."""

import builtins
import io
import math
import pathlib
import pickle
import sys
from typing import Any

import numpy as np
import pytest

from sqlbuffer.errors import InvalidArgument, MissingExtra
from sqlbuffer.plots.runs import draw_metrics, running_mean

METRICS: dict[str, Any] = {
    "loss": ([0, 1, 2, 5], [4.0, 3.0, math.nan, 1.0]),
    "bs": ([0, 1, 2, 5], [20, 20, 20, 20]),
    "phase": ([0, 1], ["warm", "cold"]),
    "absent": ([], []),
}


def test_each_metric_that_is_numbers_has_a_plot() -> None:
    figure = draw_metrics(METRICS, cols=1)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "bs"]
    raw, mean = figure.axes[0].lines
    assert list(raw.get_xdata()) == list(mean.get_xdata()) == [0, 1, 2, 5]
    assert np.array_equal(raw.get_ydata(), [4.0, 3.0, math.nan, 1.0], equal_nan=True)
    figure.savefig(io.BytesIO())


def test_metrics_may_be_chosen() -> None:
    (axes,) = draw_metrics(METRICS, ["bs"], smooth=False).axes
    assert (axes.get_title(), len(axes.lines)) == ("bs", 1)
    assert draw_metrics({}).axes == []


@pytest.mark.parametrize("name", ["phase", "absent", "typo"])
def test_what_cannot_be_drawn_is_refused(name: str) -> None:
    with pytest.raises(
        InvalidArgument, match=f"no numbers are logged as '{name}': the metrics are loss, bs"
    ):
        draw_metrics(METRICS, [name])


def test_there_is_at_least_one_column() -> None:
    with pytest.raises(InvalidArgument, match="cols must be 1 or more"):
        draw_metrics(METRICS, cols=0)


def test_a_running_mean_is_that_of_the_neighbours() -> None:
    values = np.random.default_rng(0).normal(size=100)
    values[[3, 50, 99]] = math.nan
    slow = [np.nanmean(values[max(i - 5, 0) : i + 6]) for i in range(100)]
    assert running_mean(values) == pytest.approx(slow)
    assert np.isnan(running_mean(np.full(3, math.nan))).all()


def test_without_matplotlib_the_message_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "sqlbuffer.plots._matplotlib", raising=False)
    monkeypatch.delitem(sys.modules, "sqlbuffer.plots._figure", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'sqlbuffer\[plots\]'"):
        draw_metrics(METRICS)


@pytest.mark.slow
def test_a_figure_belongs_to_no_window(tmp_path: pathlib.Path) -> None:
    import matplotlib.pyplot as plt

    figure = draw_metrics(METRICS)
    figure.savefig(tmp_path / "metrics.svg")
    assert figure._repr_png_().startswith(b"\x89PNG")  # a notebook shows it
    assert type(pickle.loads(pickle.dumps(figure))) is type(figure)
    assert plt.get_fignums() == []
