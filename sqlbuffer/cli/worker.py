"""`sqlbuffer worker`: retrains a buffer's predictor on a schedule."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Annotated, Any

import typer
from rich.logging import RichHandler

from sqlbuffer._messages import printable, summary
from sqlbuffer.cli import output
from sqlbuffer.cli.common import (
    AllowPickle,
    Durabilities,
    Durability,
    OneBuffer,
    OwnGrace,
    Url,
    command,
    open_existing,
)
from sqlbuffer.core.attach import attach_existing
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.reaper import with_heartbeat
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import EXITS, InvalidArgument
from sqlbuffer.measuring.functions import function_from
from sqlbuffer.retraining.schedule import Schedule
from sqlbuffer.store import SampleStore

logger = logging.getLogger("sqlbuffer.worker")

METHODS = ("update_dataset_from_inputs", "train_supervised", "predict_data")
"""Methods that an agent must have; a `PredictiveAgent` has them."""

_WHEN = "When to retrain"
_ROWS = "Which measured samples to train on"
_TRAINING = "How to train"
_SCORING = "How to rescore"


@command(
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
            help="Function without arguments that returns the agent, such as "
            "lab.models:make_agent.",
        ),
    ],
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    every: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_WHEN, help="Time from one start to the next: 30s, 10m, 2h, 1d."
        ),
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_WHEN,
            help="Times of the starts, in UTC, in the format of a crontab: minute, hour, day of "
            "the month, month, day of the week, such as '30 3 * * MON-FRI'. 0 and 7 are "
            "Sunday. If both days are restricted, either is enough.",
        ),
    ] = None,
    when_new: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_WHEN, help="Number of newly measured samples that starts a round."
        ),
    ] = None,
    once: Annotated[
        bool,
        typer.Option(
            "--once", rich_help_panel=_WHEN, help="Run the job once if it is due, and exit."
        ),
    ] = False,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL",
            rich_help_panel=_ROWS,
            help="Train only on these rows of samples, such as \"source = 'data'\".",
        ),
    ] = None,
    newest: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=_ROWS,
            help="Train on at most this many rows, those measured last.",
        ),
    ] = None,
    best: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_ROWS,
            help="Train on this share of the rows, those with the best rewards, such as 0.5.",
        ),
    ] = None,
    min_rows: Annotated[
        int,
        typer.Option(
            min=2,
            rich_help_panel=_ROWS,
            help="Smallest number of measured samples for a training.",
        ),
    ] = 2,
    epochs: Annotated[
        int, typer.Option(min=1, rich_help_panel=_TRAINING, help="Passes over the rows.")
    ] = 20,
    bs: Annotated[
        int, typer.Option(min=1, rich_help_panel=_TRAINING, help="Rows per training step.")
    ] = 256,
    lr: Annotated[float, typer.Option(rich_help_panel=_TRAINING, help="Learning rate.")] = 1e-3,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=_TRAINING,
            help="Stop after this many epochs without an improvement.",
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=_TRAINING,
            help="Keep the weights of this many versions, and of versions whose scores are still "
            "in use; all versions if not given.",
        ),
    ] = None,
    refresh: Annotated[
        bool,
        typer.Option(
            rich_help_panel=_SCORING, help="Rescore the waiting samples after each training."
        ),
    ] = True,
    acquisition: Annotated[
        str,
        typer.Option(
            rich_help_panel=_SCORING,
            help="Acquisition that scores the samples, as in the training loop: greedy, ucb, ei "
            "or thompson.",
        ),
    ] = "greedy",
    pred_bs: Annotated[
        int,
        typer.Option(min=1, rich_help_panel=_SCORING, help="Samples to predict at a time."),
    ] = 1024,
    durability: Durability = Durabilities.normal,
    allow_pickle: AllowPickle = False,
    grace: OwnGrace = GRACE_S,
) -> None:
    """Retrain a buffer's predictor on a schedule, and rescore the waiting samples.

    Give one or more of --every, --cron and --when-new: the job is due if one of them says so. Any
    number of workers may run, on any number of machines. One worker trains at a time. If it dies,
    another worker repeats the round. Training loops load the new predictor before their next batch.

    For --agent lab.models:make_agent the file lab/models.py has:

        def make_agent():
            return PredictiveAgent(model, loss_function, featurize)

    SIGTERM and Ctrl-C end the current training and release the job. Errors are stored with the job,
    and shown by `sqlbuffer jobs`.
    """
    try:
        schedule = Schedule(every, cron, when_new)
    except InvalidArgument as exc:
        raise typer.BadParameter(str(exc)) from exc
    with Signals() as signals, logged():
        made = make_agent(agent)
        from sqlbuffer.retraining.worker import (
            Worker,  # imports torch, which no other command needs
        )

        rows = {"min_rows": min_rows, "where": where, "newest": newest, "best": best}
        fit = {"bs": bs, "epochs": epochs, "lr": lr, "patience": patience, "keep": keep}
        options = {"allow_pickle": allow_pickle, "grace_s": grace}
        with opened(url, name, durability=durability.value, **options) as buffer:
            store = SampleStore(buffer)
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
        typer.BadParameter: If there is no such function, or it returns no agent.
    """
    try:
        factory = function_from(path, example="lab.models:make_agent")
    except InvalidArgument as exc:
        raise _no_agent(str(exc)) from exc
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
def opened(url: str, name: str, *, durability: str, **options: Any) -> Iterator[BufferHandle]:
    """Open an existing buffer with its stored settings, as a worker."""
    with contextlib.closing(
        open_existing(url, durability=durability)
    ) as database:  # closes it if no buffer has the name
        buffer = with_heartbeat(attach_existing(database, name, **options))
        with contextlib.closing(SampleStore(buffer)):
            yield buffer


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Log to stderr: in colour on a terminal, else one line for each event with its time."""
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
    """Formats a message as one line and a traceback as indented lines, all without escape codes.

    The error of an agent may quote samples and other text that strangers have stored. Such text
    must neither control the terminal nor look like another event.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of an event."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """Return the lines of a traceback."""
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


class Stop(BaseException):
    """Ends a training after a signal; `except Exception` in an agent does not catch it."""


class Signals:
    """Context that raises `Stop` in the main thread at the first SIGTERM or SIGINT, and catches it.

    The second signal ends the process.

    Attributes:
        received: The signal, None before one has come.
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
