"""A million samples go out and come in again, in a process that stays small."""

import os
import pathlib
import subprocess
import sys

import pytest

from sqlbuffer.store import open_store

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
]

N = 1_000_000
MOST_KB = 300_000
WATCHED = """
import re, sys, threading, time
from sqlbuffer.cli.main import main

peak = [0]


def watch():
    while True:
        status = open("/proc/self/status").read()
        peak[0] = max(peak[0], int(re.search(r"RssAnon:\\s+(\\d+)", status)[1]))
        time.sleep(0.05)


threading.Thread(target=watch, daemon=True).start()
try:
    main()
finally:
    print(f"PEAK {peak[0]}", file=sys.stderr)
"""
"""Runs a command, and prints its largest memory, without the pages of the file that SQLite maps."""


def run(folder: pathlib.Path, *words: str) -> str:
    """Run a command; return what it prints, with its time and memory."""
    before_s = os.times().children_user
    environment = os.environ | {"SQLBUFFER_URL": "sqlite:///big.db"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.rpartition("PEAK ")[2])
    taken_s = os.times().children_user - before_s
    print(f"{words[0]} {words[1]}: {peak / 1000:.0f} MB, {taken_s:.0f} s of processor time")
    assert peak < MOST_KB, words
    return done.stdout


def test_a_million_samples_go_out_and_come_in_again(tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "big.csv", "w") as file:
        file.write("smiles,score,mw,logp\n")
        for i in range(N):
            reward = i / 7 if i % 2 else ""
            file.write(f"C1CC{i:07d}N(C)C(=O)c1ccccc1,{reward},{100 + i / 1000},{i % 70 / 10}\n")
    columns = ("--sample", "smiles", "--reward", "score", "--meta", "mw,logp")
    told = run(tmp_path, "import", "big.csv", *columns)
    assert told.startswith(f"{N:,} rows: {N:,} samples added")
    again = run(tmp_path, "import", "big.csv", *columns)
    assert again.startswith(f"{N:,} rows: 0 samples added, {N:,} known, 0 repeated, 0 rewards")
    for form in ("csv", "jsonl", "parquet", "smi"):
        run(tmp_path, "export", f"out.{form}")
    run(tmp_path, "import", "out.parquet", "--name", "again")
    with open_store(f"sqlite:///{tmp_path}/big.db") as store, store.connect() as connection:
        different = connection.exec_driver_sql(
            "SELECT count(*) FROM (SELECT hash, reward, meta FROM samples WHERE buffer_id = 1 "
            "EXCEPT SELECT hash, reward, meta FROM samples WHERE buffer_id = 2)"
        ).scalar()
        assert (different, store.stats().stored) == (0, N)
