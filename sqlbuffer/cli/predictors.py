"""`sqlbuffer predictors`: the versions of a buffer's predictor."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import OneBuffer, Url, handles, open_existing
from sqlbuffer.core.predictor_versions import read_predictors
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks.words import correlation

_COLUMNS = (
    *("version", "iteration", "rows_trained", "rows_held_out", "train_loss", "valid_loss"),
    *("rank_correlation", "r2", "trained_at"),
)


@reading("sqlbuffer predictors", "sqlbuffer predictors --name qed --json")
def predictors(url: Url = DEFAULT_URL, name: OneBuffer = "default") -> Answer:
    """Show the versions of a buffer's predictor.

    Each training stores a version. "rank_correlation" (Spearman's) and "r2" compare predictions
    with measured rewards of "rows_held_out" samples that the predictor has never seen. The table
    shows neither below 10 rows, of which they say nothing; --json and --csv have them.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        found = buffer.read(read_predictors)
    rows = [dataclasses.asdict(version) for version in found]
    return Answer(
        _COLUMNS, rows, shown={name: _if_known(name) for name in ("rank_correlation", "r2")}
    )


def _if_known(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: correlation(row[name], row["rows_held_out"])
