"""`sqlbuffer measure`: measures the waiting samples of a buffer with a reward function."""

from __future__ import annotations

import contextlib
import enum
import logging
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Annotated

import typer

from sqlbuffer._messages import printable
from sqlbuffer._validation import as_duration_s
from sqlbuffer.cli import output
from sqlbuffer.cli.common import (
    AllowPickle,
    Durabilities,
    Durability,
    OneBuffer,
    OwnGrace,
    Url,
    command,
)
from sqlbuffer.cli.worker import logged, opened
from sqlbuffer.core.workers import GRACE_S
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.measuring.functions import function_from
from sqlbuffer.measuring.measure import Measuring
from sqlbuffer.measuring.slots import Slots

logger = logging.getLogger("sqlbuffer.measure")

_HOW = "How to measure"
_END = "When to end"


class OnError(str, enum.Enum):
    """What a failed measurement does."""

    fail = "fail"
    retry = "retry"


@command(
    "sqlbuffer measure --reward lab.dock:dock --n-jobs 4 --timeout 10m",
    "sqlbuffer measure --reward lab.dock:dock_all --all-at-once --batch 64",
    "sqlbuffer measure --reward lab.dock:dock --max-calls 100 --drain 1m",
)
def measure(
    reward: Annotated[
        str,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Function of a sample that returns its reward, such as lab.dock:dock.",
        ),
    ],
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    n_jobs: Annotated[
        int,
        typer.Option("--n-jobs", min=1, rich_help_panel=_HOW, help="Measurements at a time."),
    ] = 1,
    batch: Annotated[
        int, typer.Option(min=1, rich_help_panel=_HOW, help="Samples that are claimed at once.")
    ] = 8,
    each: Annotated[
        bool,
        typer.Option(
            "--each/--all-at-once",
            rich_help_panel=_HOW,
            help="Call the function with one sample, or with a list of samples.",
        ),
    ] = True,
    timeout: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_HOW,
            help="Time after which a measurement is killed and has failed: 30s, 10m, 2h, 1d.",
        ),
    ] = None,
    on_error: Annotated[
        OnError,
        typer.Option(
            rich_help_panel=_HOW,
            help="A failed measurement is final, or is repeated up to the buffer's max_attempts.",
        ),
    ] = OnError.fail,
    until_empty: Annotated[
        bool,
        typer.Option(
            "--until-empty/--no-until-empty",
            rich_help_panel=_END,
            help="End when no sample is left, or wait for new samples.",
        ),
    ] = True,
    max_calls: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=_END,
            help="Most measurements that this process starts; a sample that is tried again counts "
            "again.",
        ),
    ] = None,
    drain: Annotated[
        str,
        typer.Option(
            rich_help_panel=_END,
            help="Time that running measurements get after SIGTERM or Ctrl-C: 30s, 10m.",
        ),
    ] = "30s",
    durability: Durability = Durabilities.normal,
    allow_pickle: AllowPickle = False,
    grace: OwnGrace = GRACE_S,
) -> None:
    """Measure the waiting samples of a buffer, and store each reward as it comes.

    Any number of processes may run, on any number of machines. Failures are stored with their
    reasons: `sqlbuffer failed` lists them, `sqlbuffer retry` lets them wait again. If a process
    dies, other processes measure its samples.

    For --reward lab.dock:dock the file lab/dock.py has:

        def dock(smiles):
            return score, {"pose": pose}  # or the score alone

    The first SIGTERM or Ctrl-C claims no more samples, and waits for --drain. The second ends the
    process. Samples without a reward wait again. After Ctrl-C the exit code is 130. It is 1 if
    nothing was measured and the samples that wait cannot be drawn: they have no score, or weight 0.
    """
    try:
        fn = function_from(reward)
        timeout_s = None if timeout is None else as_duration_s(timeout, "--timeout")
        drain_s = as_duration_s(drain, "--drain")
        with (
            logged(),
            opened(
                url,
                name,
                durability=durability.value,
                allow_pickle=allow_pickle,
                grace_s=grace,
            ) as buffer,
            Slots(fn, n_jobs=n_jobs, each=each, timeout_s=timeout_s, is_apart=True) as slots,
        ):
            measuring = Measuring(
                buffer,
                slots,
                batch=batch,
                on_error=on_error.value,
                max_calls=max_calls,
                until_empty=until_empty,
                drain_s=drain_s,
                silent=not output.console(stderr=True).is_terminal,
            )
            logger.info("buffer %r: measuring with %s", name, reward)
            with _stopped_by_signals(measuring.stop, drain_s) as received:
                done = measuring.run()
    except InvalidArgument as exc:
        raise typer.BadParameter(printable(str(exc))) from exc
    output.line(
        f"measured {done.measured}, failed {done.failed}, released {done.released} in "
        f"{done.seconds:.1f} s"
    )
    if received == [signal.SIGINT]:
        raise typer.Exit(130)  # a script must not go on as if everything was measured
    if measuring.is_stuck and not done.measured + done.failed:
        raise typer.Exit(1)


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None], drain_s: float) -> Iterator[list[int]]:
    """Call `stop` at the first SIGTERM or SIGINT, and yield it; the second ends the process."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(number: int, _: FrameType | None) -> None:
        put_back()
        received.append(number)
        logger.info(
            "%s: waiting at most %g s for running measurements; the next signal ends them at once",
            signal.Signals(number).name,
            drain_s,
        )
        stop()

    for number in before:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        put_back()
