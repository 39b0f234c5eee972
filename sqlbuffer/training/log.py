"""The log: metrics of every iteration, kept with the buffer, and the printout."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import Any

import numpy as np
import rich
from rich.console import Console
from rich.table import Table

from sqlbuffer.errors import MissingExtra
from sqlbuffer.training.callback import Callback, as_floats, mean_of

Value = float | int | str


class Log(Callback):
    """Keeps one value of each metric an iteration, prints them, and stores them with the buffer.

    With a buffer in a database the log starts where the stored one ends: a resumed run reads as one run.

    Args:
        keep: Batches whose samples, sources, rewards and other logs stay in memory for `df`; None for all.
        console: Where to print.

    Attributes:
        iterations: Iterations done; while one runs, its index from 0.
        metrics: The values of each metric, in order of iteration.
        pending: Numbers of this iteration that are not stored yet, by metric; a buffer stores them with its batch.
        timelog: Seconds an iteration spent in each phase.
        report: Print every so many iterations; 0 or None for never.
    """

    def __init__(self, *, keep: int | None = 1000, console: Console | None = None) -> None:
        super().__init__(name="log", order=100)
        self.console = rich.get_console() if console is None else console
        self.iterations = 0
        self.metrics: dict[str, list[Value]] = {}
        self.pending: dict[str, float] = {}
        self.timelog: defaultdict[str, list[float]] = defaultdict(list)
        self.report: int | None = 1
        self._logs = ["samples", "sources", "rewards"]
        self._batches: deque[dict[str, Any]] = deque(maxlen=keep)
        self._columns: list[str] = []
        self._written: list[str] = []
        for name in ("bs", "rewards", "rewards_max"):
            self.add_metric(name)

    def add_metric(self, name: str) -> None:
        """Announce a metric; one that was not announced is created when first written."""
        self.metrics.setdefault(name, [])

    def update_metric(self, name: str, value: Any) -> None:
        """Write this iteration's value of a metric: a number, an array or tensor of one element, or a string."""
        value = value.item() if hasattr(value, "item") else value
        self.metrics.setdefault(name, []).append(value)
        self._written.append(name)
        if not isinstance(value, str):
            self.pending[name] = float(value)

    def add_log(self, name: str) -> None:
        """Keep `batch_state[name]` of each batch, one value for each sample, as a column of `df`."""
        if name not in self._logs:
            self._logs.append(name)

    @property
    def df(self) -> Any:
        """One row for each sample of the batches kept, as a pandas DataFrame."""
        try:
            import pandas as pd
        except ImportError as exc:
            raise MissingExtra("log.df needs pandas: pip install 'sqlbuffer[export]'.") from exc
        names = ["iteration", *self._logs]
        return pd.DataFrame({name: [value for batch in self._batches for value in batch[name]] for name in names})

    def setup(self) -> None:
        """Take up the stored history."""
        store = self._store
        if store is not None:
            self.iterations = store.iteration
            for row in store.history():
                value = math.nan if row["value"] is None else row["value"]
                self.metrics.setdefault(row["name"], []).append(value)

    def after_sample(self) -> None:
        """Note the size of the batch."""
        self.update_metric("bs", len(self.environment.batch_state.samples))

    def after_compute_reward(self) -> None:
        """Note mean and maximum of the rewards as measured, failed ones left out."""
        rewards = as_floats(self.environment.batch_state.rewards)
        finite = rewards[np.isfinite(rewards)]
        self.update_metric("rewards", mean_of(rewards))
        self.update_metric("rewards_max", finite.max() if finite.size else 0.0)

    def after_batch(self) -> None:
        """Store, keep and print what this iteration was, and count it."""
        if self._store is not None and self.pending:
            self._store.log_metrics(self.iterations, self.pending)
        self._keep_batch()
        if self.report and self.iterations % self.report == 0:
            self._print_report()
        self._next_iteration()

    def abort_batch(self) -> None:
        """Forget what an iteration has written that did not come to be settled, and will come again."""
        if self._store is not None and self._store.iteration > self.iterations:
            self._next_iteration()
            return
        for name in self._written:
            self.metrics[name].pop()
        self._written, self.pending = [], {}

    def _next_iteration(self) -> None:
        self._written, self.pending = [], {}
        self.iterations += 1

    @property
    def _store(self) -> Any:
        return getattr(self.environment.buffer, "store", None)

    def _keep_batch(self) -> None:
        state = self.environment.batch_state
        n = len(state.samples)
        batch = {name: _column(state.get(name), n) for name in self._logs}
        self._batches.append({"iteration": [self.iterations] * n, **batch})

    def _print_report(self) -> None:
        """Print a row of values; the names come first, and again when there are new ones."""
        names = ["iteration", *(name for name, values in self.metrics.items() if values)]
        cells = [str(self.iterations), *(_cell(self.metrics[name][-1]) for name in names[1:])]
        header = names != self._columns
        self._columns = names
        if self.console.is_terminal:
            table = Table(box=None, show_header=header, header_style="bold", pad_edge=False)
            for name in names:
                table.add_column(name, justify="right", min_width=_width(name), no_wrap=True)
            table.add_row(*cells)
            self.console.print(table, crop=False)
            return
        for line in [names, cells] if header else [cells]:
            aligned = "  ".join(cell.rjust(_width(name)) for name, cell in zip(names, line, strict=True))
            self.console.print(aligned, soft_wrap=True, markup=False, highlight=False)


def _width(name: str) -> int:
    return max(len(name), len("-1.234e+05"))


def _cell(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _column(values: Any, n: int) -> list[Any]:
    """Return n values, one for each sample; what is not one for each is repeated."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    one_each = np.ndim(values) > 0 if isinstance(values, np.ndarray) else isinstance(values, list)
    return list(values) if one_each and len(values) == n else [values] * n
