"""The training loop: builds the buffer, draws a batch, measures it, and calls the callbacks."""

from __future__ import annotations

import contextlib
import inspect
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from sqlbuffer import _html
from sqlbuffer._messages import printable, shown
from sqlbuffer._validation import as_list, require_count
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.training.buffer import Buffer
from sqlbuffer.training.callback import BUILD, OUTPUTS, REWARD, SAMPLE, BatchState
from sqlbuffer.training.log import Log
from sqlbuffer.training.progress import fit_progress

logger = logging.getLogger(__name__)


class Environment:
    """Runs callbacks in a training loop.

    Every callback becomes an attribute under its name. Callbacks answer events in their `order`.

    Args:
        agent: A callback with the model that is trained in the loop.
        samplers: Callbacks that make samples.
        rewards: Callbacks that measure samples.
        losses: Callbacks that add to `batch_state.loss`; without a loss there is no backward pass.
        cbs: Any other callbacks, or classes of callbacks without arguments.
        buffer: The buffer; by default a `Buffer` that fills the share of each batch that the
            samplers leave.
        log: The log; by default a `Log`.

    Attributes:
        bs: Batch size.
        sl: Largest length of a sample, for callbacks that generate sequences.
        batch_state: The batch of this iteration.

    Examples:
        >>> from sqlbuffer import Buffer, Environment, RewardCallback
        >>> buffer = Buffer(1.0, url="sqlite:///molecules.db", name="molecules")
        >>> reward = RewardCallback(lambda samples: [float(len(sample)) for sample in samples])
        >>> environment = Environment(rewards=[reward], buffer=buffer)
        >>> environment.fit(bs=4, iters=2, report=None)
        >>> environment
        Environment(iterations=2, callbacks=[buffer, reward, log])
        >>> store.stats().measured
        10
    """

    def __init__(
        self,
        agent: Any = None,
        samplers: Sequence[Any] | None = None,
        rewards: Sequence[Any] | None = None,
        losses: Sequence[Any] | None = None,
        cbs: Sequence[Any] | None = None,
        buffer: Any = None,
        log: Any = None,
    ) -> None:
        self.samplers = _callbacks(samplers, "samplers")
        self.rewards = _callbacks(rewards, "rewards")
        self.losses = _callbacks(losses, "losses")
        direct = sum(getattr(sampler, "p_batch", 0.0) for sampler in self.samplers)
        self.agent = agent
        self.buffer = Buffer(max(1.0 - direct, 0.0)) if buffer is None else _made(buffer)
        self.log = Log() if log is None else _made(log)
        _check_shares(direct, getattr(self.buffer, "p_total", 0.0))

        self.bs = 0
        self.sl: int | None = None
        self.buffer_frequency: int | None = None
        self.batch_state = BatchState()
        self.cbs: list[Any] = []
        self._planned = 0
        self._stopping = self._has_drawn_nothing = False
        agents = [agent] if hasattr(agent, "order") else []
        given = [*agents, *self.samplers, *self.rewards, *self.losses, *_callbacks(cbs, "cbs")]
        self.register_cbs([*given, self.buffer, self.log])
        self("setup")

    def __repr__(self) -> str:
        names = ", ".join(printable(str(cb.name)) for cb in self.cbs)
        return f"Environment(iterations={self.log.iterations}, callbacks=[{names}])"

    def _repr_html_(self) -> str | None:
        return _html.or_none(self._as_html)

    def _as_html(self) -> str:
        rows = [(cb.order, cb.name, type(cb).__name__) for cb in self.cbs]
        caption = f"Environment: {self.log.iterations:,} iterations"
        return _html.table(["order", "callback", "class"], rows, caption=caption)

    def __call__(self, event: str) -> None:
        """Call every callback with an event."""
        for cb in self.cbs:
            cb(event)

    def register_cbs(self, cbs: Sequence[Any]) -> list[Any]:
        """Register callbacks; return them.

        Args:
            cbs: Callbacks, or classes of callbacks that need no argument.
        """
        registered = [_made(cb) for cb in as_list(cbs, "cbs") if cb is not None]
        for cb in registered:
            if not (callable(cb) and hasattr(cb, "name") and hasattr(cb, "order")):
                raise InvalidArgument(
                    f"{shown(cb)} is not a callback: put a function that makes samples into a "
                    "FunctionSampler, a function that measures them into a RewardCallback, and "
                    "anything else into a Callback of your own."
                )
            taken = getattr(self, cb.name, None)
            if taken is not None and taken is not cb and not hasattr(taken, "order"):
                raise InvalidArgument(
                    f"{cb.name!r} cannot name a callback, because "
                    f"Environment.{cb.name} is another attribute: choose "
                    "another name."
                )
            cb.environment = self
            setattr(self, cb.name, cb)
        self.cbs = sorted([*self.cbs, *registered], key=lambda cb: int(cb.order))
        return registered

    def remove_cbs(self, cbs: Sequence[Any]) -> None:
        """Remove callbacks from the loop.

        Args:
            cbs: Registered callbacks.
        """
        for cb in as_list(cbs, "cbs"):
            place = next((i for i, each in enumerate(self.cbs) if each is cb), None)
            if place is None:
                raise InvalidArgument(
                    f"{shown(cb)} is not a callback of this loop: remove only registered callbacks."
                )
            del self.cbs[place]
            cb.environment = None
            cb.batch_state = None
            vars(self).pop(cb.name, None)

    def fit(
        self,
        bs: int,
        sl: int | None = None,
        iters: int = 100,
        report: int | None = 10,
        cbs: Sequence[Any] | None = None,
        *,
        buffer_frequency: int | None = None,
    ) -> None:
        """Run the loop until it has done `iters` iterations more than earlier fits planned.

        A script that is killed and run again with the same buffer resumes at the unfinished
        iteration, and runs the iterations that remain. With a `Checkpoint` the resumed run equals
        an uninterrupted one, to the last bit. A buffer opened with `fresh=True` begins a new run
        instead. An exception (also Ctrl-C) releases the claimed batch. An iteration whose batch
        another process has released before it was settled does not count, and is repeated.

        Processes that fit on one buffer share its iterations, with every batch that any process
        settles: `iters` is their total, each iteration has a number and metrics of its own, and
        each process finishes the iteration that it has begun. A `Checkpoint` then has the state of
        the process that settled last: only a run of one process resumes to the last bit.

        Args:
            bs: Batch size; -1 takes all waiting samples.
            sl: Largest length of a sample, for callbacks that generate sequences.
            iters: Number of iterations.
            report: Iterations from one printed line to the next; 0 or None for no lines. A
                notebook shows the newest 20 lines as one table.
            cbs: Callbacks for this fit only.
            buffer_frequency: Most iterations from one building of the buffer to the next; 0 or None
                for no limit. The buffer is always built if it holds less than a batch.
        """
        bs = require_count(
            bs, rule := "bs must be 1 or more, or -1 for all waiting samples", least=-1
        )
        if bs == 0:
            raise InvalidArgument(f"{rule}; got 0.")
        iters = require_count(iters, "iters must be a number of iterations")
        sl = None if sl is None else require_count(sl, "sl must be the length of a sample, or None")
        self.bs, self.sl, self.buffer_frequency = (
            bs,
            sl,
            _every(buffer_frequency, "buffer_frequency"),
        )
        self.log.report = _every(report, "report")
        extra = self.register_cbs(_callbacks(cbs, "cbs"))
        self._planned += iters
        self._stopping = self._has_drawn_nothing = False
        try:
            for cb in extra:
                cb("setup")
            begun_at = self.log.iterations
            self("before_train")
            # The fit before may have settled an iteration without counting it.
            self._planned += self.log.iterations - begun_at
            if iters and self.log.iterations >= self._planned:
                logger.warning(
                    "no iteration is left: %d are done, and the fit is for %d; %s(fresh=True) "
                    "begins another run",
                    self.log.iterations,
                    self._planned,
                    type(self.buffer).__name__,
                )
            self._run()
            self("after_train")
        except BaseException:
            self._abort()
            raise
        finally:
            self._planned = min(self._planned, self.log.iterations)
            self.remove_cbs(extra)

    def stop(self) -> None:
        """End the fit after this iteration; before the first one, run none."""
        self._stopping = True

    def _run(self) -> None:
        with fit_progress(self.log, total=self._planned) as show:
            while self.log.iterations < self._planned and not self._stopping:
                if getattr(self.buffer, "is_spent", False):
                    logger.warning("the budget of the buffer is used up: the fit ends")
                    break
                self._iterate()
                show()

    def _iterate(self) -> None:
        if self._is_build_due():
            self._phase("build_buffer", BUILD)
        self.batch_state = BatchState()
        self._phase("sample_batch", SAMPLE)
        if self.log.iterations >= self._planned:  # other processes have settled the others
            self("abort_batch")
            return
        if not self.batch_state.samples and not self._has_drawn_nothing:
            self._has_drawn_nothing = True
            logger.warning(
                "iteration %d has an empty batch: the buffer has no sample to draw, and no "
                "sampler added one; empty iterations count all the same",
                self.log.iterations,
            )
        self._phase("compute_reward", REWARD)
        self._phase("get_model_outputs", OUTPUTS)
        with self._timed("compute_loss"):
            self("compute_loss")
            self("zero_grad")
            loss = self.batch_state.loss
            if getattr(loss, "requires_grad", False):
                loss.backward()
            self("before_step")
            self("step")
        self._phase("after_batch", ("after_batch",))
        if getattr(self.buffer, "is_lost", False):  # the log has not counted the iteration
            self("abort_batch")

    def _is_build_due(self) -> bool:
        # A killed run may have built this iteration's samples already. The size before that leads
        # to the same decision.
        size = min(len(self.buffer), self._size_at_checkpoint())
        iteration, frequency = self.log.iterations, self.buffer_frequency
        return (
            size < self.bs
            or self.bs == -1
            or iteration == 0
            or bool(frequency and iteration % frequency == 0)
        )

    def _size_at_checkpoint(self) -> float:
        size = getattr(self.buffer, "resumed_size", None)
        if size is None:
            return float("inf")
        self.buffer.resumed_size = None
        return float(size)

    def _phase(self, name: str, events: Sequence[str]) -> None:
        with self._timed(name):
            for event in events:
                self(event)

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.log.timelog[phase].append(time.perf_counter() - start)

    def _abort(self) -> None:
        """Call `abort_batch` of every callback; errors here must not hide the first exception."""
        for cb in self.cbs:
            if not self._has_cleaned_up(cb):
                self._has_cleaned_up(cb)  # once more after a second Ctrl-C

    def _has_cleaned_up(self, cb: Any) -> bool:
        """Call `abort_batch` of a callback; return False if it was interrupted."""
        try:
            cb("abort_batch")
        except BaseException as exc:
            logger.exception("callback %r could not clean up", cb.name)
            return isinstance(exc, Exception)
        return True


def _callbacks(given: Any, name: str) -> list[Any]:
    return [] if given is None else as_list(given, name)


def _made(callback: Any) -> Any:
    """Return a callback; of a class without arguments, an object."""
    if not isinstance(callback, type):
        return callback
    try:
        inspect.signature(callback).bind()
    except TypeError as exc:
        name = callback.__name__
        raise InvalidArgument(
            f"{name} is a class that needs arguments ({exc}): give an object, {name}(...)."
        ) from None
    except ValueError:  # no class of Python code
        pass
    return callback()


def _every(given: Any, name: str) -> int | None:
    rule = f"{name} must be a number of iterations, or 0 or None for never"
    return None if given is None else require_count(given, rule)


def _check_shares(direct: float, p_total: float) -> None:
    if p_total + direct > 1.0 + 1e-9:
        raise InvalidArgument(
            f"the shares of a batch add up to more than 1: {p_total} from the buffer and "
            f"{direct} from the samplers."
        )
