"""The retraining job: one of any number of processes does it, and all others load the result."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from sqlbuffer._integrity import no_progress
from sqlbuffer._messages import n_of, printable, shown, summary
from sqlbuffer._typing import Floats
from sqlbuffer._validation import as_mapping, require_count, require_flag
from sqlbuffer.core.leases import Job
from sqlbuffer.core.predictor_versions import Mark, PredictorVersion
from sqlbuffer.core.weights import Overtaken
from sqlbuffer.errors import EXITS, DatabaseUnavailable, InvalidArgument, LeaseLost
from sqlbuffer.predictor.acquisition import Acquisition, Incumbents, Rule, acquisition_from
from sqlbuffer.predictor.evaluation import evaluate, predict
from sqlbuffer.predictor.negated import NegatedAgent, NegatedIncumbents
from sqlbuffer.predictor.weights import load_state
from sqlbuffer.retraining.schedule import Schedule
from sqlbuffer.retraining.train import checked, retrain
from sqlbuffer.store import SampleStore

RETRAIN = "retrain"
"""Name of the job."""

_MOST_OVERTAKEN = 100
"""How often other processes may store a predictor while this one loads one for a refresh."""

POLL_S = 2.0
"""Longest sleep of a worker, in seconds, before it looks whether the job is due."""

logger = logging.getLogger(__name__)


def retrain_alone(
    store: SampleStore,
    agent: Any,
    *,
    seen: int | None = None,
    then: Callable[[], object] | None = None,
    during: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    **options: Any,
) -> PredictorVersion | None:
    """Retrain the agent and store the new version; do not wait if another process has the job.

    Args:
        store: The buffer.
        agent: The agent, which holds the newest stored predictor.
        seen: Take the job only if it was taken this often so far.
        then: Called under the lease once a new version is stored.
        during: Returns a context for the work under the lease.
        **options: Keywords of `retraining.retrain`.

    Returns:
        The version; None if another process has the job or there were too few rows.

    Raises:
        LeaseLost: If another process took over. The agent has its old weights, and no version is
            stored.
        TrainingDiverged: See `retrain`.
    """
    with store.leased(RETRAIN, seen) as lease:
        if lease is None:
            logger.info("not retrained: another worker has the job")
            return None
        with during():
            version = retrain(store, agent, **options, lease=lease)
            if version is not None and then is not None:
                then()
        return version


@contextlib.contextmanager
def _exits_as_errors() -> Iterator[None]:
    """Turn an agent's `sys.exit()` into an error: as a signal it would make the job due at once."""
    try:
        yield
    except EXITS as exc:
        raise RuntimeError(
            f"the agent's code raised {summary(exc)}: raise an error instead"
        ) from exc


def load_newer(store: SampleStore, agent: Any, held: Mark | None) -> tuple[Mark | None, int]:
    """Load the newest stored predictor into an agent that holds another one.

    Returns:
        The mark of the predictor that the agent then holds, and the version of its scores.
    """
    newest = store._newer(held)
    if newest.mark is None or newest.state is None:
        return held, newest.version
    load_state(agent, newest.state)
    logger.info("predictor %d loaded", newest.mark.version)
    return newest.mark, newest.version


def score_by_newest(
    store: SampleStore,
    load: Callable[[], int],
    score_fn: Callable[[list[Any]], Any],
    only: str,
    **options: Any,
) -> int:
    """Score by the newest predictor, see `SampleStore.score`; label the scores with its version.

    If another process has stored a predictor since the agent's was loaded, a refresh loads that
    predictor first.

    Args:
        store: The buffer.
        load: Loads the newest predictor; returns the version of its scores.
        score_fn: Scores samples by the loaded predictor.
        only: "missing", "stale" or "all".
        **options: Keywords of `SampleStore._score_by`.

    Returns:
        The number of samples scored.
    """
    for _ in range(_MOST_OVERTAKEN):
        with contextlib.suppress(Overtaken):
            return store._score_by(load(), score_fn, only, **options)
    raise no_progress("a refresh that looks for the newest predictor")


def score_function(
    store: SampleStore, agent: Any, acquisition: Acquisition | None, bs: int
) -> Callable[[list[Any]], Floats]:
    """Return a function that scores samples by predictions or an acquisition, `bs` at a time.

    A higher score is better: in a buffer that minimizes, predictions and incumbent are negated.

    The function serves one pass through the pool: its first call fixes the acquisition's rule for
    all samples, whether or not predictors are stored during the pass.
    """
    incumbents: Incumbents = store
    if store.direction == "minimize":
        agent, incumbents = NegatedAgent(agent), NegatedIncumbents(store)
    rules: list[Rule] = []

    def scores(samples: list[Any]) -> Floats:
        if acquisition is None:
            return np.asarray(predict(agent, samples, bs).detach().double().cpu().numpy())
        if not rules:
            rules.append(acquisition.rule(agent, incumbents))
        return np.concatenate([np.zeros(0), *evaluate(agent, rules[0], samples, bs)])

    return scores


class Worker:
    """Retrains a buffer's predictor on a schedule, and rescores the waiting samples.

    Args:
        store: The buffer.
        agent: The agent; the newest stored predictor is loaded into it.
        schedule: When the job is due.
        retraining: Keywords of `retraining.retrain`.
        pred_bs: Samples to predict at a time.
        acquisition: How a prediction becomes a score, see `PredictiveBuffer`.
        refresh: Rescore the waiting samples after each retraining.
    """

    def __init__(
        self,
        store: SampleStore,
        agent: Any,
        *,
        schedule: Schedule,
        retraining: Mapping[str, Any],
        pred_bs: int = 1024,
        acquisition: str | Acquisition = "greedy",
        refresh: bool = True,
    ) -> None:
        if not isinstance(schedule, Schedule):
            raise InvalidArgument(f"schedule must be a Schedule, got {shown(schedule)}.")
        refresh = require_flag(refresh, "refresh")
        pred_bs = require_count(pred_bs, "pred_bs must be a whole number, 1 or more", least=1)
        self._store = store
        self._agent = agent
        self._schedule = schedule
        self._retraining = as_mapping(retraining, "retraining")
        self._acquisition = acquisition_from(acquisition, agent)
        self._pred_bs = pred_bs
        self._refresh = refresh
        rows = {name: retraining.get(name) for name in ("where", "newest", "best")}
        store.labelled_rows(**rows)  # raises InvalidArgument now, not in the first round
        checked(**retraining)  # likewise
        self._held: Mark | None = None
        self._load_newer()
        store.announce_job(RETRAIN, str(schedule))

    def serve(self, is_told_to_stop: Callable[[], bool]) -> None:
        """Do the job when it is due, until told to stop; errors are logged and stored with it."""
        while not is_told_to_stop():
            try:
                job = self._job()
                if not self._schedule.is_due(job):
                    wait_s = self._wait_s(job)
                elif self.do(job):
                    continue
                else:  # a job that failed before it was taken is still due
                    wait_s = POLL_S
            except DatabaseUnavailable as exc:
                logger.error("%s", exc)
                wait_s = POLL_S
            time.sleep(wait_s)

    def once(self) -> bool:
        """Do the job if it is due; return False if it failed."""
        job = self._job()
        if self._schedule.is_due(job):
            return self.do(job)
        logger.info("not due: %s", _why_not(job))
        return True

    def do(self, job: Job) -> bool:
        """Do the job unless a process has done it since `job` was read; return False on failure."""
        try:
            with _exits_as_errors():
                self._load_newer()
            trained = retrain_alone(
                self._store,
                self._agent,
                seen=job.runs,
                then=self._rescore,
                during=_exits_as_errors,
                **self._retraining,
            )
        except DatabaseUnavailable:
            raise
        except LeaseLost as exc:
            logger.warning("%s", exc)
            return False
        except Exception:
            logger.exception("the job %r failed, and runs again when it is next due", job.name)
            return False
        self._held = self._held if trained is None else trained.mark
        return True

    def _load_newer(self) -> int:
        self._held, version = load_newer(self._store, self._agent, self._held)
        return version

    def _job(self) -> Job:
        return next(job for job in self._store.jobs() if job.name == RETRAIN)

    def _wait_s(self, job: Job) -> float:
        due_in_s = self._schedule.due_in_s(job)
        return POLL_S if due_in_s is None else min(max(due_in_s, 0.01), POLL_S)

    def _rescore(self) -> None:
        if self._refresh:
            scores = score_function(self._store, self._agent, self._acquisition, self._pred_bs)
            n = score_by_newest(self._store, self._load_newer, scores, "stale")
            logger.info("%s rescored", n_of(n, "waiting sample"))


def _why_not(job: Job) -> str:
    """Return why a job is not due."""
    if job.is_held:
        return f"{printable(job.owner or '')} runs it"
    n = job.measured_now - job.measured
    new = n_of(n, "sample was measured", "samples were measured") + " since the last run"
    if job.started_ago_s is None or not math.isfinite(job.started_ago_s):
        return f"{new}; it runs {job.schedule}"
    return f"{new}, {job.started_ago_s:.0f} s ago; it runs {job.schedule}"
