"""Retraining: trains an agent on the stored rewards and stores it as a new predictor version."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from sqlbuffer._messages import n_of
from sqlbuffer._validation import (
    as_floats,
    is_learning_rate,
    is_part,
    require_count,
    require_flag,
    require_real,
)
from sqlbuffer.core.labels import READ_AT_ONCE, LabelledRows
from sqlbuffer.errors import TrainingDiverged
from sqlbuffer.predictor.metrics import measures
from sqlbuffer.predictor.weights import dump_state, is_finite, load_state
from sqlbuffer.records import LEAST_ROWS

if TYPE_CHECKING:
    from sqlbuffer.core.leases import Lease
    from sqlbuffer.core.predictor_versions import PredictorVersion
    from sqlbuffer.store import SampleStore

logger = logging.getLogger(__name__)


def retrain(
    store: SampleStore,
    agent: Any,
    *,
    bs: int,
    epochs: int,
    lr: float,
    percent_valid: float | None = None,
    percent_test: float = 0.05,
    patience: int | None = None,
    where: str | sa.ColumnElement[bool] | None = None,
    newest: int | None = None,
    best: float | None = None,
    min_rows: int = 2,
    keep: int | None = None,
    silent: bool = True,
    lease: Lease | None = None,
    checkpoint: Mapping[str, bytes] | None = None,
) -> PredictorVersion | None:
    """Train the agent on the stored labelled rows, and store it as a new predictor version.

    A share of the rows is held out of every training. The hash of a row decides, so a row never
    changes sides: the measures of a version are of samples that no version was trained on, unless
    the agent is also trained elsewhere (`online=True`). Rewards are learnt as they were measured,
    whatever the direction of the buffer. No transaction is open during the training.

    Args:
        store: The buffer.
        agent: A `PredictiveAgent`, or any object with `update_dataset_from_inputs` and
            `train_supervised`. It is measured if it has `predict_data`.
        bs: Rows per training step.
        epochs: Passes over the rows.
        lr: Learning rate.
        percent_valid: Share of the other rows by which the agent chooses its best epoch; None for
            the agent's default.
        percent_test: Share of the rows held out to measure the version, in [0, 1).
        patience: Stop after this many epochs without an improvement; None for never.
        where: A condition, see `SampleStore.table`.
        newest: Most rows, those measured last.
        best: Of these, the share in (0, 1] with the best rewards: the highest, or the lowest if the
            buffer's direction is "minimize".
        min_rows: Smallest number of labelled rows for a training.
        keep: Keep the states of this many of the newest versions, and of each version whose scores
            are still in use; measures are always kept. None keeps all.
        silent: Show no progress bar.
        lease: The lease of the job. Without a lease other processes may train at the same time.
        checkpoint: States to resume from, by name, stored with the version.

    Returns:
        The version; None if there were too few rows.

    Raises:
        TrainingDiverged: If the loss or the weights are not finite. The agent has its old weights,
            and no version is stored.
        LeaseLost: If the lease is not held any more. The agent has its old weights, and no version
            is stored.

    Examples:
        >>> from sqlbuffer.retraining import retrain
        >>> store.record(molecules, [len(molecule) for molecule in molecules]).duplicates
        10
        >>> version = retrain(store, agent, bs=4, epochs=20, lr=0.1)
        >>> version.rows_trained, version.rows_held_out
        (12, 0)
    """
    given = checked(
        bs=bs,
        epochs=epochs,
        lr=lr,
        percent_valid=percent_valid,
        percent_test=percent_test,
        patience=patience,
        min_rows=min_rows,
        keep=keep,
    )
    bs, epochs, lr, percent_test, min_rows, keep = (
        given[name] for name in ("bs", "epochs", "lr", "percent_test", "min_rows", "keep")
    )
    silent = require_flag(silent, "silent")
    rows = store.labelled_rows(where=where, newest=newest, best=best)
    train, test = split(rows, percent_test)
    if len(rows) < min_rows or not len(train):
        logger.info(
            "predictor not trained: %d labelled rows, at least %d are needed", len(rows), min_rows
        )
        return None
    options = {name: given[name] for name in ("percent_valid", "patience")}
    options = {name: value for name, value in options.items() if value is not None}
    with _all_or_nothing(agent):
        # Other agents get a list, in case they use a method that only lists have.
        streams = getattr(agent, "streams", False)
        agent.update_dataset_from_inputs(train if streams else list(train), train.rewards)
        found = dict(agent.train_supervised(bs, epochs, lr, silent=silent, **options) or {})
        if math.isnan(found.get("train_loss", 0.0)) or not is_finite(agent):
            raise TrainingDiverged(
                f"the training diverged on {len(train)} rows, and the predictor keeps its old "
                "weights: lower the "
                f"learning rate ({lr}), or look for features or rewards that are out of range."
            )
        found |= measure(agent, test)
        version = store.save_predictor(
            dump_state(agent),
            rows_trained=len(train),
            rows_held_out=len(test),
            metrics=found,
            keep=keep,
            lease=lease,
            checkpoint=checkpoint,
        )
    logger.info("predictor %d trained on %s", version, _told(len(train), len(test), found))
    return store.newest_predictor()


_TOLD = {"train_loss": 0, "valid_loss": 0, "rank_correlation": LEAST_ROWS, "r2": LEAST_ROWS}
"""Measures of the log, and the rows that must be held out for each."""


def _told(n_train: int, n_test: int, metrics: Mapping[str, Any]) -> str:
    """Return the rows of a training, and its measures to four digits."""
    rows = f"{n_of(n_train, 'row')}, {n_test:,} held out"
    told = [
        f"{name.replace('_', ' ')} {metrics[name]:.4g}"
        for name, least in _TOLD.items()
        if n_test >= least and isinstance(metrics.get(name), numbers.Real)
    ]
    return f"{rows}: {', '.join(told)}" if told else rows


_count = functools.partial(require_count, least=1)
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "bs": lambda n: _count(n, "bs must be 1 or more"),
    "epochs": lambda n: _count(n, "epochs must be 1 or more"),
    "lr": lambda value: require_real(
        value, "lr must be a learning rate, 0 or more and 1e30 at most", is_learning_rate
    ),
    "percent_test": lambda value: require_real(
        value, "percent_test is a share of the rows in [0, 1)", is_part
    ),
    "min_rows": lambda n: require_count(n, "min_rows must be a number of rows"),
}
_CHECKS_UNLESS_NONE: dict[str, Callable[[Any], Any]] = {
    "percent_valid": lambda value: require_real(
        value, "percent_valid is a share of the rows in [0, 1)", is_part
    ),
    "patience": lambda n: _count(n, "patience must be 1 or more epochs, or None"),
    "keep": lambda n: _count(n, "keep must be 1 or more versions, or None for all"),
}


def checked(**options: Any) -> dict[str, Any]:
    """Return some of the arguments of `retrain`, those that are numbers, converted.

    Raises:
        InvalidArgument: If one is out of range.
    """
    found = {name: check(options[name]) for name, check in _CHECKS.items() if name in options}
    return found | {
        name: None if options[name] is None else check(options[name])
        for name, check in _CHECKS_UNLESS_NONE.items()
        if name in options
    }


def split(rows: LabelledRows, percent_test: float) -> tuple[LabelledRows, LabelledRows]:
    """Return the rows to train on and those held out; places of the former span [0, 1) again."""
    is_test = rows.places < percent_test
    train = rows.subset(~is_test)
    train.places = (train.places - percent_test) / (1.0 - percent_test)
    return train, rows.subset(is_test)


def measure(agent: Any, rows: LabelledRows) -> dict[str, Any]:
    """Return measures of the agent's predictions of rows that it was not trained on.

    Empty without rows, or if the agent has no `predict_data`.
    """
    if not len(rows) or not hasattr(agent, "predict_data"):
        return {}
    parts = (rows[start : start + READ_AT_ONCE] for start in range(0, len(rows), READ_AT_ONCE))
    return measures(
        np.concatenate([as_floats(agent.predict_data(part)).reshape(-1) for part in parts]),
        rows.rewards,
    )


@contextlib.contextmanager
def _all_or_nothing(agent: Any) -> Iterator[None]:
    """Restore the agent's weights if the block fails, also by Ctrl-C."""
    before = dump_state(agent)
    try:
        yield
    except BaseException:
        load_state(agent, before)
        raise
