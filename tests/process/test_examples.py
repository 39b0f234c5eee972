"""The main job, killed with SIGKILL at random moments and started again, loses nothing and measures
nothing twice.
"""

import json
import pathlib
import random
import signal
import time
from collections import Counter

import pytest

from helpers.forked import Forked
from helpers.searches import search
from sqlbuffer.store import open_store

CALLS = 200
KILLS = 2
CALLS_WITH_KILLS = 150


def start(url: str, log: pathlib.Path, *options: str) -> Forked:
    return Forked(search, [str(log), "--calls", str(CALLS), "--url", url, *options], log.parent)


@pytest.mark.parametrize(
    "options", ["--buffer predictive", "--buffer uniform", "--acquisition thompson --argmax 0.2"]
)
def test_the_search_finds_better_molecules_than_it_started_with(
    tmp_path: pathlib.Path, options: str
) -> None:
    process = start(
        f"sqlite:///{tmp_path}/m.db", tmp_path / "log", "--oracle", "plogp", *options.split()
    )
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    found = {
        line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in output.splitlines()[-5:]
    }
    assert float(found["best of all"]) > float(found["best of the first batch"])
    assert int(found["oracle calls"]) == CALLS
    assert float(found["AUC top-10"]) > 0


def test_killed_at_random_moments(store_url: str, tmp_path: pathlib.Path) -> None:
    rng = random.Random(store_url.partition(":")[0])
    log, kills, output = tmp_path / "log", 0, ""
    log.touch()
    for _ in range(60):
        process = start(store_url, log, "--calls", str(CALLS_WITH_KILLS))
        known = log.stat().st_size
        if kills < KILLS:
            while log.stat().st_size == known and process.is_alive():
                time.sleep(0.02)  # the interesting moments begin with the first measurement
            time.sleep(rng.uniform(0.0, 0.4))
            if process.is_alive():
                process.kill()
                kills += 1
        output = "".join(process.communicate(timeout=300))
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
    assert kills == KILLS
    assert f"oracle calls              {CALLS_WITH_KILLS}" in output

    with pytest.warns(
        UserWarning, match="created with key=molecules:canonical_smiles, but is opened with no key="
    ):
        opened = open_store(store_url, name="celecoxib-ucb-0")
    with opened as store:
        assert store.check() == []
        stats = store.stats()
        assert (stats.measured, stats.claimed) == (CALLS_WITH_KILLS, 0)
        rows = {row["sample"]: row for row in store.top(CALLS_WITH_KILLS)}
        iterations = {row["iteration"] for row in store.history()}
        assert iterations == set(range(stats.iteration))
    measured = [json.loads(line) for line in log.read_text().splitlines()]
    assert {smiles for smiles, _ in measured} >= set(rows)
    for smiles, when in measured:
        if smiles in rows:
            assert when <= rows[smiles]["rewarded_at"].isoformat(), (
                f"{smiles} was measured after it had been stored"
            )
    assert max(Counter(smiles for smiles, _ in measured).values()) <= kills + 1


def test_more_calls_go_on_from_where_a_finished_search_stood(tmp_path: pathlib.Path) -> None:
    url, log = f"sqlite:///{tmp_path}/m.db", tmp_path / "log"
    for calls in ("60", "110"):
        process = start(url, log, "--calls", calls)
        output = "".join(process.communicate(timeout=300))
        assert process.returncode == 0, output
        assert f"oracle calls              {calls}" in output
    assert "resuming at iteration 2" in output


def test_a_wrong_url_is_one_clear_line(tmp_path: pathlib.Path) -> None:
    process = start("mysql://nowhere/x", tmp_path / "log")
    _, output = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.strip().count("\n") == 0
    assert "sqlite:///FILE" in output
