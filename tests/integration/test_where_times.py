"""Conditions on times: both databases compare them as times, however the text is written."""

import datetime as dt
import operator
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from helpers import inside
from sqlbuffer.db.schema import samples
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.store import SampleStore, open_store

NewStore = Callable[..., SampleStore]


def found(store: SampleStore, where: str) -> list[str]:
    return list(store.to_arrow(["sample"], where)["sample"].to_pylist())


MOMENT = dt.datetime(2026, 12, 1, 3, 40, 43, 700_000, dt.timezone.utc)
"""When a sample was stored; `MOMENT` at other hours are those of other zones."""
TIMES = {
    "2026-12-01": MOMENT.replace(hour=0, minute=0, second=0, microsecond=0),
    "2026-12-02": dt.datetime(2026, 12, 2, tzinfo=dt.timezone.utc),
    "2026-12-01 03:40": MOMENT.replace(second=0, microsecond=0),
    "2026-12-01 03:41Z": MOMENT.replace(minute=41, second=0, microsecond=0),
    "2026-12-01 03:40:43Z": MOMENT.replace(microsecond=0),
    "2026-12-01T03:40:43.7": MOMENT,
    "2026-12-01 03:40:43.700001 UTC": MOMENT.replace(microsecond=700_001),
    "2026-12-01 03:40:44+00": MOMENT.replace(second=44, microsecond=0),
    "2026-12-01 05:10:43.69+0130": MOMENT.replace(microsecond=690_000),
    "2026-11-30T22:40:43.71-05:00": MOMENT.replace(microsecond=710_000),
}
SIGNS = (("<", operator.lt, ">"), ("=", operator.eq, "="), (">", operator.gt, "<"))


@pytest.mark.slow
@pytest.mark.each_database
def test_times_are_compared_as_times(new_store: NewStore) -> None:
    store = new_store(weighting="uniform")
    store.add(["a"], meta=[{"b": True}])
    inside.database_of(store).write(
        lambda connection: connection.execute(sa.update(samples).values(created_at=MOMENT))
    )
    for text, time in TIMES.items():
        for sign, compare, mirrored in SIGNS:
            holds = compare(MOMENT, time)
            for where in (
                f"created_at {sign} '{text}'",
                f"'{text}' {mirrored} created_at AND meta.b",
                f"coalesce(measured_at, created_at) {sign} '{text}'",
                f"id IN (SELECT sample_id FROM sample_overview WHERE created_at {sign} '{text}')",
            ):
                assert bool(found(store, where)) == holds, where
        assert bool(found(store, f"created_at BETWEEN '{text}' AND '2027-01-01'")) == (
            time <= MOMENT
        )
        assert bool(found(store, f"created_at NOT IN ('2020-01-01', '{text}')")) == (time != MOMENT)
    for text in ("yesterday", "2026-12", "2026-13-01", "03:40", "", "2026-12-01 3:40", "9e99"):
        with pytest.raises(InvalidArgument, match=r"compares a time with .* which is none: write"):
            found(store, f"created_at > '{text}'")
    assert found(store, f"sample = '{next(iter(TIMES))}' OR source <> 'yesterday'") == ["a"]


def test_functions_of_times_give_times_of_the_stored_form(sqlite_url: str) -> None:
    with open_store(sqlite_url, weighting="uniform") as store:
        store.add(["a"])
        for where, n in {
            "created_at > datetime('now', '-1 minute')": 1,
            "created_at > datetime('now', '+1 minute')": 0,
            "created_at < datetime('now', '+1 minute') AND source = ''": 1,
            "created_at <= datetime()": 1,
            "created_at > DATETIME ( )": 0,
            "created_at <= current_timestamp": 1,
            "created_at > CURRENT_TIMESTAMP": 0,
            "datetime(created_at) > datetime('now', '-1 minute')": 1,
            "length(datetime('now')) = 19": 1,
        }.items():
            assert len(found(store, where)) == n, where
