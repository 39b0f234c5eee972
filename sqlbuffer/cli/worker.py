"""`sqlbuffer worker`: a process that retrains a buffer's predictor when that is due."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Annotated, Any

import typer
from rich.logging import RichHandler

from sqlbuffer._messages import printable, summary
from sqlbuffer.cli import output
from sqlbuffer.cli.common import open_existing
from sqlbuffer.cli.options import OneBuffer, Url, examples
from sqlbuffer.core.attach import attach_existing
from sqlbuffer.core.reaper import with_heartbeat
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import EXITS, InvalidArgument
from sqlbuffer.retraining.schedule import Schedule
from sqlbuffer.store import SampleStore

logger = logging.getLogger("sqlbuffer.worker")

METHODS = ("update_dataset_from_inputs", "train_supervised", "predict_data")
"""What an agent must have, as a `PredictiveAgent` does."""

WORKER_EXAMPLES = examples(
    "sqlbuffer worker --name qed --agent lab.models:make_agent --every 10m",
    "sqlbuffer worker --agent lab.models:make_agent --cron '0 3 * * *'",
    "sqlbuffer worker --agent lab.models:make_agent --when-new 1000",
    "sqlbuffer worker --agent lab.models:make_agent --every 1h --once",
)


def worker(
    agent: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Function that makes the agent, such as lab.models:make_agent.",
        ),
    ],
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    every: Annotated[
        str | None, typer.Option(help="Time from one start to the next: 30s, 10m, 2h, 1d.")
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(
            help="Times of the starts, in UTC, in the format of a crontab: minute, hour, day of "
            "the month, month, day of the week, such as '30 3 * * MON-FRI'. 0 and 7 are "
            "Sunday. If both days are restricted, either is enough."
        ),
    ] = None,
    when_new: Annotated[
        int | None, typer.Option(help="Number of newly measured samples that starts a round.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the measured samples.")] = 20,
    bs: Annotated[int, typer.Option(min=1, help="Samples per training step.")] = 256,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    pred_bs: Annotated[int, typer.Option(min=1, help="Samples to predict at a time.")] = 1024,
    acquisition: Annotated[
        str, typer.Option(help="Acquisition that scores the samples; use that of the loop.")
    ] = "greedy",
    refresh: Annotated[
        bool, typer.Option(help="Rescore waiting samples after each training.")
    ] = True,
    min_rows: Annotated[
        int, typer.Option(min=2, help="Smallest number of measured samples for a training.")
    ] = 2,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL", help="Train only on these rows of samples, such as \"source = 'data'\"."
        ),
    ] = None,
    newest: Annotated[
        int | None,
        typer.Option(min=1, help="Train on at most this many rows, those measured last."),
    ] = None,
    best: Annotated[
        float | None,
        typer.Option(
            help="Train on this share of the rows, those with the highest rewards, such as 0.5."
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many epochs without an improvement.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1, help="Keep the weights of this many versions, and of versions still in use."
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Run the job once if it is due, and exit.")
    ] = False,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Read pickled samples; trusts every user who can write to the database.",
        ),
    ] = False,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", min=1.0, help="Seconds of silence after which another worker takes over."
        ),
    ] = GRACE_S,
) -> None:
    """Retrain a buffer's predictor on a schedule, and rescore the waiting samples.

    Any number of workers may run, on any number of machines: one worker trains at a time, and if it dies, another
    worker repeats the round. Training loops load the new predictor before their next batch. `lab/models.py` has:

        def make_agent():
            return PredictiveAgent(model, loss_function, featurize)

    SIGTERM and Ctrl-C end the current training and release the job. Errors are stored with the job, and shown by
    `sqlbuffer jobs`.
    """
    try:
        schedule = Schedule(every, cron, when_new)
    except InvalidArgument as exc:
        raise typer.BadParameter(str(exc)) from exc
    with Signals() as signals, logged():
        made = make_agent(agent)
        from sqlbuffer.retraining.worker import Worker  # torch, which no other command needs

        rows = {"min_rows": min_rows, "where": where, "newest": newest, "best": best}
        fit = {"bs": bs, "epochs": epochs, "lr": lr, "patience": patience, "keep": keep}
        with opened(url, name, allow_pickle=allow_pickle, grace_s=grace) as store:
            working = Worker(
                store,
                made,
                schedule=schedule,
                retraining={**rows, **fit},
                pred_bs=pred_bs,
                acquisition=acquisition,
                refresh=refresh,
            )
            logger.info("buffer %r in %s: %s", store.name, store.url, schedule)
            if not once:
                working.serve(lambda: signals.received is not None)
            elif not working.once():
                raise typer.Exit(1)


def make_agent(path: str) -> Any:
    """Import a function by its path and return the agent that it makes.

    Raises:
        typer.BadParameter: Where there is no such function, or it makes no agent.
    """
    module, _, function = path.partition(":")
    if not module or not function:
        raise _no_agent(f"give MODULE:FUNCTION, such as lab.models:make_agent; got {path!r}.")
    sys.path.insert(0, os.getcwd())  # as `python -m` does: a module next to the user is found
    try:
        factory = getattr(importlib.import_module(module), function, None)
    except (Exception, *EXITS) as exc:
        raise _no_agent(f"{module} cannot be imported: {summary(exc)}.") from exc
    if not callable(factory):
        raise _no_agent(f"{module} has no function {function!r}.")
    try:
        agent = factory()
    except (Exception, *EXITS) as exc:
        raise _no_agent(f"{path}() raised {summary(exc)}") from exc
    if missing := [method for method in METHODS if not callable(getattr(agent, method, None))]:
        raise _no_agent(
            f"{path}() made a {type(agent).__name__} without {', '.join(missing)}: return a "
            "PredictiveAgent, or an object with its methods."
        )
    return agent


def _no_agent(message: str) -> typer.BadParameter:
    return typer.BadParameter(printable(message), param_hint="--agent")


@contextlib.contextmanager
def opened(url: str, name: str, **options: Any) -> Iterator[SampleStore]:
    """Open a buffer that is there, with the settings it is stored with."""
    with contextlib.closing(open_existing(url)) as database:  # also where there is no such buffer
        buffer = with_heartbeat(attach_existing(database, name, **options))
        with contextlib.closing(SampleStore(buffer)) as store:
            yield store


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Log to stderr: in colours on a terminal, else one line for each event with its time."""
    console = output.console(stderr=True)
    handler: logging.Handler = RichHandler(console=console, show_path=False)
    handler.setFormatter(Lines("%(message)s"))
    if not console.is_terminal:
        handler = logging.StreamHandler()
        handler.setFormatter(Lines("%(asctime)s %(levelname)s %(message)s"))
    package = logging.getLogger("sqlbuffer")
    before = package.level
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before)


class Lines(logging.Formatter):
    """A message in one line, the traceback below it indented, both without characters that a terminal obeys.

    What an agent raises may quote samples and whatever else strangers have stored: it can neither move the cursor nor
    forge another event.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of an event."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """Return the lines of a traceback."""
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


class Stop(BaseException):
    """A signal has come: a training unwinds, and no `except Exception` of an agent stops it."""


class Signals:
    """Turns the first SIGTERM or SIGINT into an exception in the main thread; the second one kills.

    As a context manager it swallows that exception.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._put_back()
        return kind is Stop

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._put_back()
        logger.info("%s: releasing the job", self.received.name)
        raise Stop(self.received.name)

    def _put_back(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
