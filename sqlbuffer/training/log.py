"""The log: prints the metrics of every iteration, and stores them with the buffer."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import rich
from rich.console import Console

from sqlbuffer._validation import as_floats, as_name, require_count
from sqlbuffer.errors import MissingExtra
from sqlbuffer.plots.runs import draw_metrics
from sqlbuffer.training.callback import Callback, mean_of
from sqlbuffer.training.log_lines import Value, as_metric, print_values
from sqlbuffer.training.log_storage import (
    Columns,
    cells,
    column,
    pack_batch,
    read_batches,
    read_words,
)

if TYPE_CHECKING:
    from sqlbuffer.store import SampleStore
    from sqlbuffer.training.progress import LiveLog


class Log(Callback):
    """Keeps one value of each metric for each iteration, prints it, and stores it with the buffer.

    The log starts with the stored history: a resumed run reads as one run. Numbers are stored in
    the table `metrics`. Metrics that are strings, and the columns of `df`, are stored for the
    `keep` newest batches.

    Args:
        keep: Batches whose samples, sources, rewards and other logs are kept for `df`; None for
            all.
        console: Console to print to.

    Attributes:
        iterations: Iterations done; during an iteration its index, from 0.
        metrics: The values of each metric, in order of iteration.
        pending: Numbers of this iteration that are not stored yet, by metric; a buffer stores them
            with its batch.
        timelog: Seconds that each iteration of this process spent in each phase.
        report: Iterations from one printed line to the next; 0 or None for no lines.
        live: The table of a notebook that shows the lines during a fit; elsewhere None.

    Examples:
        >>> from sqlbuffer import Buffer, Environment, RewardCallback
        >>> buffer = Buffer(1.0, url="sqlite:///molecules.db", name="molecules")
        >>> reward = RewardCallback(lambda samples: [float(len(sample)) for sample in samples])
        >>> environment = Environment(rewards=[reward], buffer=buffer)
        >>> environment.fit(bs=5, iters=2, report=1)
         iteration          bs     rewards  rewards_max      reward
                 0           5         4.6            8         4.6
                 1           5         3.8            6         3.8
        >>> environment.log.df[["iteration", "samples", "rewards"]].tail(2)
           iteration samples  rewards
        8          1    CCCl      4.0
        9          1      CO      2.0
    """

    def __init__(self, *, keep: int | None = 1000, console: Console | None = None) -> None:
        keep = (
            None
            if keep is None
            else require_count(keep, "keep must be a number of batches, or None for all")
        )
        super().__init__(name="log", order=100)
        self.console = rich.get_console() if console is None else console
        self.iterations = 0
        self.metrics: dict[str, list[Value]] = {}
        self.pending: dict[str, float] = {}
        self.timelog: defaultdict[str, list[float]] = defaultdict(list)
        self.report: int | None = 1
        self.live: LiveLog | None = None
        self.keep = keep
        self.kept = None if keep is None else max(keep, 1)
        self._iterations_of: dict[str, list[int]] = {}
        self._logs = ["samples", "sources", "rewards"]
        self._batches: deque[Columns] = deque(maxlen=keep)
        self._earlier: list[Columns] | None = []
        self._stored: tuple[int, bytes] | None = None
        self._columns: list[str] = []
        self._is_to_abort = False
        self._written: list[str] = []
        self._best = "rewards_max"
        for name in ("bs", "rewards", self._best):
            self.add_metric(name)

    def add_metric(self, name: str) -> None:
        """Announce a metric; a metric that was not announced is created when first written.

        Args:
            name: The metric.
        """
        name = as_name(name, "a metric")
        self.metrics.setdefault(name, [])
        self._iterations_of.setdefault(name, [])

    def update_metric(self, name: str, value: Any) -> None:
        """Write this iteration's value of a metric.

        Args:
            name: The metric.
            value: A number, a string, or an array or tensor of one element.

        Raises:
            InvalidArgument: If the value is none of these.
        """
        name, value = as_name(name, "a metric"), as_metric(name, value)
        self.add_metric(name)
        self.metrics[name].append(value)
        self._iterations_of[name].append(self.iterations)
        self._written.append(name)
        if not isinstance(value, str):
            self.pending[name] = float(value)

    def _renumber(self, iteration: int) -> None:
        """Give this iteration a higher number: other processes have settled the ones before."""
        if iteration <= self.iterations:
            return
        for name, n in Counter(self._written).items():
            self._iterations_of[name][-n:] = [iteration] * n
        self.iterations = iteration

    def add_log(self, name: str) -> None:
        """Keep an entry of each batch, a value for each sample, as a column of `df`.

        Args:
            name: A key of the batch state.
        """
        name = as_name(name, "a log")
        if name not in self._logs:
            self._logs.append(name)

    @property
    def df(self) -> Any:
        """The kept batches, also of earlier runs, as a pandas DataFrame: one row for each sample.

        Raises:
            MissingExtra: If pandas is not installed.

        Examples:
            >>> from sqlbuffer import Buffer, Environment
            >>> buffer = Buffer(1.0, url="sqlite:///molecules.db", name="molecules")
            >>> environment = Environment(buffer=buffer)
            >>> environment.fit(bs=5, iters=2, report=None)
            >>> environment.log.df.shape
            (10, 4)
        """
        try:
            import pandas as pd
        except ImportError as exc:
            raise MissingExtra("log.df needs pandas: pip install 'sqlbuffer[export]'.") from exc
        if self._earlier is None:
            first = next(
                (batch["iteration"][0] for batch in self._batches if batch["iteration"]), None
            )
            self._earlier = read_batches(self._store, before=first)
        batches = [*self._earlier, *self._batches]
        batches = batches if self.keep is None else batches[max(len(batches) - self.keep, 0) :]
        names = ["iteration", *self._logs]

        def column(name: str) -> Any:
            values = [cell for batch in batches for cell in cells(batch, name)]
            try:
                return pd.Series(values)
            except UnicodeEncodeError:  # pyarrow's strings take no lone surrogate
                return pd.Series(values, dtype=object)

        return pd.DataFrame({name: column(name) for name in names})

    def plot_metrics(
        self, names: Sequence[str] | None = None, *, cols: int = 4, smooth: bool = True
    ) -> Any:
        """Draw metrics over the iterations; return the matplotlib Figure.

        Args:
            names: Metrics, one plot for each; None for all that are numbers.
            cols: Plots in a row.
            smooth: Draw a running mean over the values.

        Raises:
            InvalidArgument: If there is no metric of a name.
            MissingExtra: If matplotlib is not installed.

        Examples:
            >>> from sqlbuffer import Buffer, Environment
            >>> buffer = Buffer(1.0, url="sqlite:///molecules.db", name="molecules")
            >>> environment = Environment(buffer=buffer)
            >>> environment.fit(bs=5, iters=2, report=None)
            >>> figure = environment.log.plot_metrics(["bs"])
            >>> [axes.get_title() for axes in figure.axes]
            ['bs']
        """
        series = {
            name: (self._iterations_of[name], values) for name, values in self.metrics.items()
        }
        return draw_metrics(series, names, cols=cols, smooth=smooth)

    def setup(self) -> None:
        """Read the stored history."""
        store = self._store
        if store is None:
            return
        if getattr(self.environment.buffer, "fresh", False):
            self.console.print(
                f"a new run, stored as {store.name!r}", markup=False, highlight=False
            )
        self.iterations = store.iteration
        self._earlier = None
        known = list(self.metrics)
        if store.direction == "minimize":
            known[known.index(self._best)] = self._best = "rewards_min"
        names, words = read_words(store)
        values: dict[str, dict[int, Value]] = {name: {} for name in [*known, *names]}
        for row in [*store.history(), *words]:
            values.setdefault(row["name"], {})[row["iteration"]] = row["value"]
        self.metrics = {name: [found[i] for i in sorted(found)] for name, found in values.items()}
        self._iterations_of = {name: sorted(found) for name, found in values.items()}

    def after_sample(self) -> None:
        """Write the metric `bs`, the size of the batch."""
        self.update_metric("bs", len(self.environment.batch_state.samples))

    def after_compute_reward(self) -> None:
        """Write mean and best of the measured rewards; failed measurements do not count.

        The best is the highest, `rewards_max`, or the lowest, `rewards_min`, if the buffer
        minimizes. Both are NaN if no reward was measured.
        """
        rewards = as_floats(self.environment.batch_state.rewards)
        finite = rewards[np.isfinite(rewards)]
        self.update_metric("rewards", mean_of(rewards))
        best = finite.min if self._best == "rewards_min" else finite.max
        self.update_metric(self._best, best() if finite.size else math.nan)

    def checkpoint(self) -> bytes | None:
        """Return the batch as `df` shows it, and the metrics that are strings."""
        iteration = getattr(self.environment.buffer, "next_iteration", self.iterations + 1)
        self._stored = iteration, self._packed()
        return self._stored[1]

    def after_batch(self) -> None:
        """Store, keep, print and count the iteration; an iteration whose batch was lost repeats."""
        if self._is_lost:
            self.abort_batch()
            return
        self._end_iteration()

    def before_train(self) -> None:
        """Finish the cleaning up of an interrupted fit."""
        if self._is_to_abort:
            self.abort_batch()

    def abort_batch(self) -> None:
        """Drop the metrics of an iteration that was not settled and will be repeated."""
        self._is_to_abort = True
        settled = getattr(self.environment.buffer, "settled", 0)
        if settled > self.iterations and not self._is_lost:
            self._end_iteration()
        else:
            for name in self._written:
                self.metrics[name].pop()
                self._iterations_of[name].pop()
            self._written, self.pending, self._stored = [], {}, None
        self._is_to_abort = False

    def _end_iteration(self) -> None:
        if self._store is not None:
            self._store_rest(self._store)
        if self.report and self.iterations % self.report == 0:
            self._print_report()
        self._batches.append(self._batch())
        self._written, self.pending, self._stored = [], {}, None
        self.iterations += 1

    @property
    def _store(self) -> Any:
        return getattr(self.environment.buffer, "store", None)

    @property
    def _is_lost(self) -> bool:
        return bool(getattr(self.environment.buffer, "is_lost", False))

    def _store_rest(self, store: SampleStore) -> None:
        """Store values that callbacks have written since the batch was settled."""
        if self.pending:
            store.log_metrics(self.iterations, self.pending)
        iteration, settled = self._stored or (self.iterations + 1, b"")
        packed = self._packed()
        if packed != settled:
            store.save_checkpoints(
                {self.name: packed}, iteration=iteration, kept={self.name: self.kept}
            )

    def _batch(self) -> Columns:
        state = self.environment.batch_state
        n = len(state.samples)
        columns = {name: column(state.get(name), n) for name in self._logs}
        return {"iteration": [self.iterations] * n, **columns}

    def _packed(self) -> bytes:
        names = [name for name, values in self.metrics.items() if values]
        newest = {name: self.metrics[name][-1] for name in self._written}
        words = {name: value for name, value in newest.items() if isinstance(value, str)}
        batch = {} if self.keep == 0 else self._batch()
        ids_of = getattr(self.environment.buffer, "ids_of", None)
        return pack_batch(self.iterations, names, words, batch, ids_of)

    def _print_report(self) -> None:
        """Print a row of values, below the names if they are new."""
        metrics = [name for name, values in self.metrics.items() if values]
        if self.live is not None:
            newest = {name: self.metrics[name][-1] for name in metrics}
            self.live.add({"iteration": self.iterations, **newest})
            return
        values = {
            "iteration": self.iterations,
            **{name: self.metrics[name][-1] for name in metrics},
        }
        print_values(self.console, values, has_header=list(values) != self._columns)
        self._columns = list(values)


def renumber(log: Any, iteration: int) -> None:
    """Let a log of ours count an iteration by its number in the buffer; leave another log alone."""
    if isinstance(log, Log):
        log._renumber(iteration)
