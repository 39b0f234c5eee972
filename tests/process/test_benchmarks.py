"""The benchmark runs, and its contenders do what they claim."""

import functools
import json
import pathlib
import re
import runpy
import subprocess
import time
import types
from typing import Any

import numpy as np
import pytest
import typer

from benchmarks import buffers_compared, compare, follow, report, streams, targets
from benchmarks.cases import CASES, PROCESSES
from benchmarks.contenders import BY_NAME
from benchmarks.contenders.memory import ListBuffer
from benchmarks.data import LENGTH, scores, texts
from benchmarks.databases import PostgresServer, SqliteFiles
from benchmarks.measure import CLOCKS, Task, alternate, timed
from benchmarks.report import Results, significant
from benchmarks.stage import Record, Workshop
from helpers.forked import Forked
from helpers.searches import search

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 100


def run_module(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as `python -m` does, in a process that has everything imported."""
    module = functools.partial(runpy.run_module, name, run_name="__main__", alter_sys=True)
    process = Forked(module, list(words), ROOT)
    out, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode or 0, out, errors)


def test_ways_to_draw_are_compared_and_searches_that_have_ended_are_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forked(command: list[str], **_: Any) -> Any:
        """Run a search in a process that has everything imported."""
        process = Forked(search, [str(tmp_path / "log"), *command[2:]], tmp_path)
        out, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(command, process.returncode or 0, out, errors)

    monkeypatch.setattr(buffers_compared, "subprocess", types.SimpleNamespace(run=forked))
    buffers_compared.compare(tmp_path, 1, 24, 1, "plogp", "greedy-0.5,ucb-0.5")
    first = capsys.readouterr().out
    title, _, greedy, bound = first.splitlines()
    assert title == "| | plogp |"
    assert re.fullmatch(r"\| greedy \| \d\.\d{3} \|", greedy)
    assert re.fullmatch(
        r"\| upper confidence bound \| \d\.\d{3} \([+-]\d\.\d{3}, [01]/1\) \|", bound
    )
    for database in tmp_path.glob("*.db"):
        database.unlink()
    chosen = ["--oracles", "plogp", "--ways", "greedy-0.5,ucb-0.5", "--seeds", "1", "--calls", "24"]
    again = run_module("benchmarks.buffers_compared", "--folder", str(tmp_path), *chosen)
    assert (again.returncode, again.stdout) == (0, first), again.stderr
    assert not list(tmp_path.glob("*.db"))


def test_the_command_measures_writes_tables_and_plots(tmp_path: pathlib.Path) -> None:
    who = ["sqlbuffer-sqlite", "usual-sqlite", "list"]
    crowds = {f"processes-{number}" for number in PROCESSES}
    cases = [case for case in CASES if case not in crowds - {"processes-2"}]
    words = [
        "--sizes",
        str(SIZE),
        "--repeats",
        "1",
        "--contenders",
        ",".join(who),
        "--cases",
        ",".join(cases),
        "--out",
        str(tmp_path),
    ]
    done = run_module("benchmarks", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    measured = {(record["case"], record["contender"]) for record in found["records"]}
    assert measured == {
        (case, name) for case in cases for name in who if case in BY_NAME[name].abilities
    }
    assert all(record["values"] and min(record["values"]) > 0 for record in found["records"])
    tables = (tmp_path / "tables.md").read_text()
    assert all(f"## {case.title}\n" in tables for name, case in CASES.items() if name in cases)
    assert "## Targets" in tables
    assert "| usual-sqlite |" in tables
    for case in cases:
        assert (tmp_path / f"{case}.png").exists() == (case != "import")


def test_processor_time_leaves_out_what_is_done_elsewhere(tmp_path: pathlib.Path) -> None:
    words = (
        "--cpu --sizes 100 --repeats 1 --cases draw,import --contenders "
        "list,usual-sqlite,usual-postgresql"
    ).split()
    done = run_module("benchmarks", *words, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = Results.load(tmp_path / "results.json")
    assert {(record.case, record.contender) for record in results.records} == {
        ("draw", "list"),
        ("draw", "usual-sqlite"),
    }
    assert results.missing == {"usual-postgresql": "a server does its work"}
    assert "processor time" in (tmp_path / "tables.md").read_text()


def test_a_call_is_timed_by_the_clock_that_is_given() -> None:
    assert timed(lambda: time.sleep(0.2)) >= 0.2
    assert timed(lambda: time.sleep(0.2), CLOCKS["cpu"]) < 0.2


def test_a_database_is_built_once_and_copied(server_url: str, tmp_path: pathlib.Path) -> None:
    for family, databases in (
        ("sqlite", SqliteFiles(tmp_path)),
        ("postgresql", PostgresServer(server_url)),
    ):
        workshop, drawn = Workshop({family: databases}), []
        for mode in ("consume", "consume", "replay"):
            contender = BY_NAME[f"sqlbuffer-{family}"]()
            contender.furnish(workshop, SIZE, mode=mode)
            drawn.append(contender.draw(20))
            assert contender.count() == SIZE - 20 * (mode == "consume")
            contender.discard(workshop)
        assert drawn[0] == drawn[1]
        databases.close()


@pytest.mark.parametrize("pct_argmax", [0.0, 0.1])
def test_the_list_buffer_never_returns_repeats(pct_argmax: float) -> None:
    buffer = ListBuffer()
    buffer.start()
    items = texts(0, SIZE)
    buffer.add(items)
    buffer.add(items[:50])
    buffer.score()
    assert buffer.count() == SIZE
    heaviest = items[int(scores(items).argmax())]
    first = buffer.draw(SIZE // 2, pct_argmax)
    drawn = first + buffer.draw(SIZE // 2, pct_argmax)
    assert sorted(drawn) == sorted(items)
    assert not pct_argmax or heaviest in first[: round(SIZE // 2 * pct_argmax)]
    assert buffer.count() == 0


def test_samples_are_distinct_and_scores_do_not_depend_on_the_company() -> None:
    items = texts(0, 10_000)
    assert len(set(items)) == 10_000
    assert {len(text) for text in items} == {LENGTH}
    assert texts(5_000, 10) == items[5_000:5_010]
    np.testing.assert_allclose(scores(items[7:9]), scores(items)[7:9], atol=1e-9)
    assert 0.0 <= scores(items).min() < 0.01 < 0.99 < scores(items).max() < 1.0


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    tasks = [Task(name, lambda name=name: calls.append(name)) for name in "abc"]  # type: ignore[misc]
    found = alternate(tasks, repeats=3, warm_ups=1)
    assert [sorted(calls[i : i + 3]) for i in range(0, 12, 3)] == [["a", "b", "c"]] * 4
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3, "c": 3}


def test_results_come_back_from_json_and_are_judged(tmp_path: pathlib.Path) -> None:
    about = {"date": "", "machine": {}, "versions": {}, "databases": {}, "options": {}}
    records = [
        Record("processes-2", "sqlbuffer-postgresql", 1000, [3.0, 1.0, 2.0]),
        Record("processes-1", "sqlbuffer-postgresql", 1000, [2.0]),
        Record("len", "sqlbuffer-sqlite", 1000, [0.0001]),
    ]
    Results(about, {"mrl": "not installed"}, {1000: {"list": "too large"}}, records).save(
        tmp_path / "results.json"
    )
    results = Results.load(tmp_path / "results.json")
    assert results.median("processes-2", "sqlbuffer-postgresql", 1000) == 2.0
    assert results.left_out == {1000: {"list": "too large"}}
    assert targets.verdicts(results) == [
        ["processes-2 sqlbuffer-postgresql / processes-1", "1,000", ">= 1.5", "1.00", "missed"],
        ["len sqlbuffer-sqlite ms", "1,000", "<= 1", "0.100", "met"],
    ]
    assert [file.name for file in report.plot(results, tmp_path)] == [
        *("len.png", "processes-1.png", "processes-2.png")
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (1.5, "1.50"), (99.95, "100"), (123456.0, "123,000")],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_a_target_compares_contenders_cases_or_sizes() -> None:
    def record(case: str, contender: str, size: int, seconds: float) -> Record:
        return Record(case, contender, size, [seconds])

    records = [
        record("draw", "sqlbuffer-sqlite", 10_000, 0.004),
        record("draw", "sqlbuffer-sqlite", 10_000_000, 0.006),
        record("add-more", "sqlbuffer-sqlite", 1000, 0.5),
        record("add-duplicates", "sqlbuffer-sqlite", 1000, 1.0),
        record("iteration", "list", 10_000, 1.0),
        record("iteration", "sqlbuffer-sqlite", 10_000, 2.0),
    ]
    found = {tuple(row[:2]): row[3:] for row in targets.verdicts(Results({}, {}, {}, records))}
    assert found == {
        ("draw sqlbuffer-sqlite / 10000", "10,000,000"): ["1.50", "met"],
        ("add-duplicates sqlbuffer-sqlite / add-more", "1,000"): ["2.00", "missed"],
        ("iteration sqlbuffer-sqlite / list", "10,000"): ["2.00", "met"],
    }


def test_a_checkout_is_compared_with_itself() -> None:
    options = ["--n", "1024", "--pairs", "2", "--times", "1", "--cpu"]
    met = run_module("benchmarks.compare", str(ROOT), *options, "--bound", "1000")
    assert met.returncode == 0, met.stderr
    rows = [line.split(" | ") for line in met.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["| draw", "| settle", "| iteration", "| add", "| fill"]
    assert {row[-1] for row in rows[1:]} == {"met |"}


@pytest.mark.parametrize(("mode", "n"), [("consume", 5_200), ("replay", 1_100)])
def test_a_stream_is_timed_against_claims_by_hand(
    mode: str, n: int, tmp_path: pathlib.Path
) -> None:
    found = streams.medians(SqliteFiles(tmp_path), mode, n, 2)
    assert sorted(found) == ["by hand", "stream"]


def test_a_case_is_slower_when_its_whole_interval_lies_above_the_bound() -> None:
    assert [compare.verdict(low, 1.03) for low in (0.9, 1.03, 1.04)] == ["met", "met", "slower"]
    assert compare.verdict(2.0, None) == ""


def test_only_a_checkout_is_compared(tmp_path: pathlib.Path) -> None:
    refused = run_module("benchmarks.compare", str(tmp_path), "--n", "1024", "--pairs", "2")
    assert refused.returncode == 1
    assert str(tmp_path) in refused.stderr


def test_several_processes_need_databases_that_they_can_write_at_once() -> None:
    with pytest.raises(typer.BadParameter, match="--url"):
        compare.main(ROOT, processes=2)


def test_a_call_through_another_library_is_charged_to_its_caller_in_the_package(
    tmp_path: pathlib.Path,
) -> None:
    from sqlbuffer.samples import hashing

    trace, found = follow.follow(lambda: [hashing.digest("C"), sorted(["C", "N"], key=len)])
    assert len(found) == 2  # type: ignore[arg-type]
    assert "hashing.py" in "".join(trace.modules)
    assert all(caller.split(":")[0] != called.split(":")[0] for caller, called in trace.calls)


def test_a_sample_is_followed_through_all_operations(tmp_path: pathlib.Path) -> None:
    first, again = (follow.rounds(f"sqlite:///{tmp_path / name}.db") for name in "ab")
    assert list(first) == ["add", "score", "sample", "settle"]
    for name, trace in first.items():
        assert len(trace.modules) > 1
        assert trace.calls == again[name].calls
        assert trace.modules == {place.split(":")[0] for call in trace.calls for place in call}
    done = run_module("benchmarks.follow")
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    counted = [
        [name, str(len(trace.modules)), str(len(trace.calls))] for name, trace in first.items()
    ]
    assert rows == [*counted, ["at most", "9", "20"]]
