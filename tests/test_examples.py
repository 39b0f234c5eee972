"""The main job, killed with SIGKILL at random moments and started again, loses nothing and measures nothing twice."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from sqlbuffer.store import open_store

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "molecule_search.py"
CALLS = 400
KILLS = 10
CALLS_WITH_KILLS = 600

# Runs the example; what its oracle measures is written down first, so that a second measurement would be seen.
WITNESS = """
import datetime, json, os, runpy, sys, time
sys.path.insert(0, os.path.dirname(sys.argv[1]))
import molecules

log = open(sys.argv.pop(2), "a", buffering=1)

def witnessed(oracle):
    def measure(smiles):
        time.sleep(0.005)  # a batch takes long enough for ten kills to come before the end
        log.write(json.dumps([smiles, datetime.datetime.now(datetime.timezone.utc).isoformat()]) + "\\n")
        return oracle(smiles)
    return measure

molecules.ORACLES = {name: witnessed(oracle) for name, oracle in molecules.ORACLES.items()}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(url: str, log: pathlib.Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WITNESS, str(EXAMPLE), str(log), "--calls", str(CALLS), "--url", url, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=log.parent)


@pytest.mark.parametrize("options", ["--buffer predictive", "--buffer uniform", "--acquisition thompson --argmax 0.2"])
def test_the_search_finds_better_molecules_than_it_started_with(tmp_path: pathlib.Path, options: str) -> None:
    process = start(f"sqlite:///{tmp_path}/m.db", tmp_path / "log", "--oracle", "plogp", *options.split())
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    found = {line.rsplit(maxsplit=1)[0].strip(): line.split()[-1] for line in output.splitlines()[-5:]}
    assert float(found["best of all"]) > float(found["best of the first batch"])
    assert int(found["oracle calls"]) == CALLS
    assert float(found["AUC top-10"]) > 0


def test_killed_at_ten_random_moments(store_url: str, tmp_path: pathlib.Path) -> None:
    rng = random.Random(store_url.partition(":")[0])
    log, kills, output = tmp_path / "log", 0, ""
    log.touch()
    for _ in range(60):
        process = start(store_url, log, "--calls", str(CALLS_WITH_KILLS))
        known = log.stat().st_size
        if kills < KILLS:
            while log.stat().st_size == known and process.poll() is None:
                time.sleep(0.02)  # the interesting moments begin with the first measurement
            time.sleep(rng.uniform(0.0, 0.4))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        output, _ = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, output
    assert kills == KILLS
    assert f"oracle calls              {CALLS_WITH_KILLS}" in output

    with open_store(store_url, name="celecoxib-predictive-0") as store:
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
            assert when <= rows[smiles]["rewarded_at"].isoformat(), f"{smiles} was measured after it had been stored"
    assert max(Counter(smiles for smiles, _ in measured).values()) <= kills + 1


def test_more_calls_go_on_from_where_a_finished_search_stood(tmp_path: pathlib.Path) -> None:
    url, log = f"sqlite:///{tmp_path}/m.db", tmp_path / "log"
    for calls in ("60", "110"):
        process = start(url, log, "--calls", calls)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        assert f"oracle calls              {calls}" in output
    assert "going on at iteration 2" in output


def test_a_wrong_url_is_one_clear_line(tmp_path: pathlib.Path) -> None:
    process = start("mysql://nowhere/x", tmp_path / "log")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.strip().count("\n") == 0
    assert "sqlite:///FILE" in output
