"""The tables of a buffer: which views they show, and what the query of a URL asks for."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from starlette.datastructures import QueryParams

from sqlbuffer._messages import shown
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.looks.rows import Filter, Kind, comparable, find_rows

ROWS = 50
"""Rows of a page, if the URL does not ask for another number."""

MOST_ROWS = 1000
MOST_FILTERS = 20
LONGEST_VALUE = 10_000
"""Most characters of the value of a filter: SQLite takes a pattern of 50,000 bytes."""

TABLES = {
    "samples": Kind(
        "sample_overview",
        (
            *("sample_id", "sample", "key", "state", "source", "reward", "score", "error"),
            *("attempts", "created_iteration", "score_version", "created_at", "measured_at"),
        ),
    ),
    "batches": Kind(
        "batch_overview",
        (
            *("batch_id", "iteration", "state", "size", "n_argmax", "mean_reward", "open_s"),
            *("worker_id", "drawn_at", "settled_at", "released_at", "lease_until"),
        ),
    ),
    "measurements": Kind(
        "measurement_overview",
        (
            *("measurement_id", "sample_id", "sample", "source", "reward", "error", "seconds"),
            *("batch_id", "iteration", "objective", "worker_id", "measured_at", "details"),
        ),
    ),
    "failures": Kind(
        "failure_overview",
        (
            *("measurement_id", "sample_id", "sample", "source", "reason", "error", "seconds"),
            *("attempts", "sample_state", "batch_id", "iteration", "worker_id", "measured_at"),
        ),
    ),
    "predictors": Kind(
        "predictor_overview",
        (
            *("predictor", "iteration", "rows_trained", "rows_held_out", "train_loss"),
            *("valid_loss", "rank_correlation", "r2", "size_bytes", "worker_id", "trained_at"),
        ),
        is_keyed=False,
    ),
    "workers": Kind(
        "worker_overview",
        (
            *("worker_id", "host", "pid", "state", "open_batches", "batches", "added", "drawn"),
            *("settled", "released", "measured", "failed", "silent_s", "attached_at", "seen_at"),
            "finished_at",
        ),
        is_keyed=False,
    ),
}
"""The tables by their names in URLs."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the query of a URL asks for.

    `column`, `operator` and `value` come as often as there are filters, in the same order.
    """

    filters: tuple[Filter, ...]
    sort: str | None
    is_descending: bool
    page: int
    n: int

    @classmethod
    def from_query(cls, given: QueryParams) -> Asked:
        """Read the query of a URL.

        Raises:
            InvalidArgument: If a value is none that it may have.
        """
        parts = [given.getlist(name) for name in ("column", "operator", "value")]
        if len({len(part) for part in parts}) > 1 or len(parts[0]) > MOST_FILTERS:
            raise InvalidArgument(
                "column, operator and value come once for each filter, at most "
                f"{MOST_FILTERS} times; got {[len(part) for part in parts]}."
            )
        filters = tuple(Filter(*each) for each in zip(*parts, strict=True) if each[0])
        if any(len(each.value) > LONGEST_VALUE for each in filters):
            raise InvalidArgument(
                f"the value of a filter has at most {LONGEST_VALUE:,} characters: shorten it, or "
                "use `sqlbuffer sql`."
            )
        order = given.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidArgument(f"order must be asc or desc; got {shown(order)}.")
        return cls(
            filters,
            given.get("sort") or None,
            order == "desc",
            _number(given, "page", 1, most=1_000_000),
            _number(given, "n", ROWS, most=MOST_ROWS),
        )

    def as_query(self) -> dict[str, Any]:
        """Return the query that asks for the same."""
        return {
            "column": [each.column for each in self.filters],
            "operator": [each.operator for each in self.filters],
            "value": [each.value for each in self.filters],
            "sort": self.sort,
            "order": None if self.is_descending else "asc",
            "page": None if self.page == 1 else self.page,
            "n": None if self.n == ROWS else self.n,
        }

    def without(self, place: int) -> Asked:
        """Return it without a filter, at the first page."""
        left = (*self.filters[:place], *self.filters[place + 1 :])
        return dataclasses.replace(self, filters=left, page=1)


def _number(given: QueryParams, name: str, default: int, *, most: int) -> int:
    text = given.get(name) or str(default)
    number = int(text) if re.fullmatch("[0-9]{1,10}", text) else 0
    if not 1 <= number <= most:
        raise InvalidArgument(f"{name} must be a number from 1 to {most:,}; got {shown(text)}.")
    return number


def read_table(tx: Transaction, kind: Kind, asked: Asked) -> dict[str, Any]:
    """Return a page of a table, with the SQL that returns it."""
    found = find_rows(
        tx,
        kind,
        asked.filters,
        sort=asked.sort,
        is_descending=asked.is_descending,
        limit=asked.n,
        offset=(asked.page - 1) * asked.n,
    )
    columns = [name for name in kind.columns if name != "key" or tx.buffer.keep_key]
    return {
        "columns": columns,
        "rows": [{name: row[name] for name in columns} for row in found.rows],
        "has_more": found.has_more,
        "sortable": list(comparable(kind)),
        "sort": asked.sort or kind.key,
        "is_descending": asked.is_descending,
        "filters": [dataclasses.asdict(each) for each in asked.filters],
        "page": asked.page,
        "sql": found.sql,
    }
