"""Sums of 1/p over what is drawn estimate totals of what waits, without bias, whatever happens to a
buffer.

A program is some forty acts at random: adds, scores with new lowest ones among them, draws with and
without a share by argmax, settlements, releases, removals, refreshes with and without a budget. The
sum of what its draws miss the truth by is a martingale, and its size is estimated from the draws
too (Horvitz and Thompson 1952). The soak, by hand:
`pytest -m soak -n 0 -s tests/integration/test_totals.py`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from helpers import programs
from helpers.forked import forkserver
from sqlbuffer.store import open_store

pytestmark = pytest.mark.slow

N_ERRORS = 4.0
MOST_BEYOND = 0.005


def told(found: list[programs.Totals]) -> np.ndarray:
    """Print how far the programs are from the truth; return it in standard errors, (n,) floats."""
    misses = np.array([totals.misses() for totals in found])
    n_known, n_unknown = (
        sum(getattr(totals, name) for totals in found) for name in ("n_draws", "n_unknown")
    )
    print(
        f"{len(found)} programs, {n_known} draws with and {n_unknown} without probabilities; "
        f"misses in standard errors: median {np.median(misses):.2f}, "
        f"largest {np.sort(misses)[-5:].round(2)}, {(misses > N_ERRORS).sum()} beyond {N_ERRORS:g}",
        flush=True,
    )
    return misses


def assert_right(found: list[programs.Totals], *, least_known: float) -> None:
    misses = told(found)
    n_known = sum(totals.n_draws for totals in found)
    n_unknown = sum(totals.n_unknown for totals in found)
    assert n_known >= least_known * (n_known + n_unknown)
    assert (misses > N_ERRORS).sum() <= MOST_BEYOND * len(misses), np.flatnonzero(misses > N_ERRORS)


def by_hundreds(play: Callable[[range], list[programs.Totals]]) -> list[programs.Totals]:
    """Play a thousand programs, and tell after each hundred: a soak that is stopped has told."""
    found: list[programs.Totals] = []
    for first in range(0, 1_000, 100):
        found += play(range(first, first + 100))
        told(found)
    return found


@pytest.mark.parametrize(("kind", "n"), [("sqlite", 6), ("postgresql", 4)])
def test_totals_of_programs(kind: str, n: int, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    assert_right([programs.play_alone(url, seed) for seed in range(n)], least_known=0.5)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_totals_of_a_thousand_programs(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    found = by_hundreds(lambda seeds: [programs.play_alone(url, seed) for seed in seeds])
    assert_right(found, least_known=0.5)


def together(url: str, seeds: range, n_acts: int) -> list[programs.Totals]:
    """Run programs of three processes at a time."""
    for seed in seeds:
        with open_store(
            url, name=f"together {seed}", seed=seed, weighting=programs.WEIGHTINGS[seed % 4]
        ):
            pass
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool
    )
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SEQUENCE IF NOT EXISTS {programs.SEQUENCE}")
    context = forkserver()
    barrier, results = context.Barrier(3), context.Queue()
    events: dict[int, list[Any]] = {seed: [] for seed in seeds}
    processes = [
        context.Process(
            target=programs.play_together,
            args=(url, number, seeds, barrier, n_acts, results),
            daemon=True,
        )
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for _ in range(3 * len(seeds)):
        seed, noted = results.get(timeout=300)
        events[seed] += noted
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for seed in seeds:
        with open_store(
            url, name=f"together {seed}", seed=seed, weighting=programs.WEIGHTINGS[seed % 4]
        ) as store:
            assert store.check() == []
    return [programs.totals_of(events[seed]) for seed in seeds]


def test_totals_of_three_processes(postgresql_url: str) -> None:
    assert_right(together(postgresql_url, range(4), n_acts=15), least_known=0.5)


@pytest.mark.soak
def test_totals_of_three_processes_in_a_thousand_programs(postgresql_url: str) -> None:
    found = by_hundreds(lambda seeds: together(postgresql_url, seeds, n_acts=40))
    assert_right(found, least_known=0.5)
