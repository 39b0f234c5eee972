"""Files and tables of others: what goes out comes in again, and what is wrong is named."""

import io
import json
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from helpers import inside
from helpers.commands import Result, run, unstyled
from helpers.strategies import Colour, Ligand
from sqlbuffer.cli.main import app
from sqlbuffer.db.schema import measurements
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.exchange import export, formats, import_, rows
from sqlbuffer.exchange.mapping import value_from
from sqlbuffer.store import SampleStore, open_store

TEXTS = [
    *(
        "CCO",
        "a\rb",
        "a\nb",
        "a\r\nb",
        'say "x"',
        ",",
        " lead and trail ",
        "\t",
        "=1+1",
        "@SUM(A)",
    ),
    *("\u202eoc", "\x1b[31mred", "it's", "back\\slash", "é", "\u2028", "😀", "007", "nan", "null"),
    *("1e5", "true", "[]", "-", "x" * 200_000, '"', '""', "\ufeffmark", "#comment"),
]
WORDS = [text for text in TEXTS if text.split() == [text]]
META = {"mw": 46.07, "n": 2, "note": "=1+1", "is_salt": False, "gap": None, "tags": ["a", {"b": 1}]}


def fill(store: SampleStore, samples: list[Any]) -> None:
    """Store samples of all states, with sources and metas."""
    third = len(samples) // 3
    store.add(samples[:third], [f"source {i % 2}" for i in range(third)], META)
    store.record(samples[third : 2 * third], np.linspace(-1.0, 1.0, third) / 3, "lab", meta=META)
    failed = samples[2 * third :]
    seconds = [0.1 * i for i in range(len(failed))]
    errors = [f"no conformer,\n{i}" for i in range(len(failed))]
    store.record(failed, [None] * len(failed), errors=errors, seconds=seconds)


def told(store: SampleStore) -> list[dict[str, Any]]:
    """What a file keeps of each sample, by hash."""
    names = ["hash", "source", "reward", "error", "seconds", "meta"]
    return store.to_arrow(names).sort_by("hash").to_pylist()


@pytest.mark.each_database
@pytest.mark.parametrize(
    ("form", "samples"), [("csv", TEXTS), ("jsonl", TEXTS), ("parquet", TEXTS), ("smi", WORDS)]
)
def test_strings_come_back_as_they_were(
    store_url: str, tmp_path: pathlib.Path, form: str, samples: list[str]
) -> None:
    file = str(tmp_path / f"all.{form}")
    with open_store(store_url) as store:
        fill(store, samples)
        before = told(store)
    assert run("export", file, url=store_url).code == 0
    assert run("import", file, "--name", "again", url=store_url).code == 0
    with open_store(store_url, name="again") as again:
        names = ["hash"] if form == "smi" else list(before[0])
        assert [[row[name] for name in names] for row in told(again)] == [
            [row[name] for name in names] for row in before
        ]
        assert again.check() == []
        n = len(samples)
        assert len(again) == (n if form == "smi" else n // 3), "the others are measured"


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_samples_of_every_type_come_back(store_url: str, tmp_path: pathlib.Path, form: str) -> None:
    samples: list[Any] = [
        *("text", "nul\0", "\ud800", b"", b"x", 1, 2**70, 0.5, math.nan, False, (1, "two")),
        *([1, [2]], None, {"three": 4.5}, frozenset({1}), np.arange(6.0).reshape(2, 3), 1j),
        *(Ligand("a", (0, 1)), Colour.RED),
    ]
    file = str(tmp_path / f"all.{form}")
    with open_store(store_url) as store:
        fill(store, samples)
        before = told(store)
        types = {type(sample) for sample in store.samples_of(range(1, 50)).values()}
    assert run("export", file, url=store_url).code == 0
    assert run("import", file, "--name", "again", url=store_url).code == 0
    with open_store(store_url, name="again") as again:
        assert told(again) == before
        assert {type(sample) for sample in again.samples_of(range(1, 100)).values()} == types
    shown = run("export", "-", "--format", "csv", url=store_url)
    assert f"{len(samples) - 1} of them are no text" in shown.err


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_values_of_metas_come_back_from_columns_of_their_own(
    sqlite_url: str, tmp_path: pathlib.Path, form: str
) -> None:
    file = str(tmp_path / f"metas.{form}")
    with open_store(sqlite_url) as store:
        store.add(["a", "b"], meta=[{"mw": 1.5, "n": 2, "x": "y"}, {"mw": None, "n": 3, "x": "z"}])
        before = store.to_arrow(["hash", "meta"]).to_pylist()
    names = "sample,meta.mw,meta.n,meta.x"
    assert run("export", file, "--columns", names, url=sqlite_url).code == 0
    options = () if form != "jsonl" else ("--sample", "sample", "--meta", "meta.mw,meta.n,meta.x")
    assert run("import", file, "--name", "again", *options, url=sqlite_url).code == 0
    with open_store(sqlite_url, name="again") as again:
        assert again.to_arrow(["hash", "meta"]).to_pylist() == before


# Texts as databases take them: no NUL, and no lone surrogates.
storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@pytest.mark.slow
@given(st.lists(st.tuples(storable.filter(bool), st.none() | storable.filter(bool)), max_size=5))
def test_fields_of_csv_are_exact(pairs: list[tuple[str, str | None]]) -> None:
    file = io.BytesIO()
    columns = {"sample": [a for a, _ in pairs], "error": [b for _, b in pairs]}
    export._write_csv(file, ["sample", "error"], iter([columns]))
    file.seek(0)
    found = rows.rows_of(file, "csv")
    assert [tuple(row.values.values()) for row in found.read([])] == pairs


@pytest.mark.slow
@given(st.lists(storable, max_size=5))
def test_lines_of_json_are_exact(texts: list[str]) -> None:
    file = io.BytesIO()
    export._write_jsonl(file, ["sample"], iter([{"sample": texts}]))
    file.seek(0)
    assert [row.values["sample"] for row in rows.rows_of(file, "jsonl").read([])] == texts


VENDOR = """smiles,score,mw,vendor
CCO,1.5,46,acme
CCN,,45.1,acme
,3,1,x
CCC,abc,1,x
"C,C",2
CCO,1.5,46,acme
CCB,inf,1,x
"a
b",-2,007,"x y"
\udcff,1,1,x
CC1,1_0,1,x
CC2,nan,,
"""
MAPPED = ("--sample", "smiles", "--reward", "score", "--meta", "mw", "--source-column", "vendor")


def test_wrong_lines_are_refused_by_number_and_reason(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    file, wrong = tmp_path / "vendor.csv", tmp_path / "wrong.csv"
    file.write_text(VENDOR, encoding="utf-8", errors="surrogateescape")
    result = run("import", str(file), *MAPPED, "--refused", str(wrong), url=store_url)
    reasons = {
        4: "it has no sample in column 'smiles'",
        5: "'abc' in column 'score' is not a number",
        6: "it has 2 fields, and the first line 4",
        8: "the reward is inf",
        11: "it is not UTF-8",
        12: "'1_0' in column 'score' is not a number",
    }
    *told, direction = result.err.splitlines()
    assert told == [f"line {n}: {reason}" for n, reason in reasons.items()]
    assert direction.startswith("default is new and maximizes")
    kept = wrong.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    assert kept[0] == "line,reason,smiles,score,mw,vendor"
    assert [line.partition(",")[0] for line in kept[1:]] == [str(n) for n in reasons]
    given = VENDOR.replace("a\nb", "a b").splitlines()
    for n, line in zip(reasons, kept[1:], strict=True):
        assert line.endswith("," + given[n - 1 - (n > 9)]), "the row as it was"
    assert result.out == (
        "11 rows: 4 samples added, 0 known, 1 repeated, 2 rewards and 0 failures stored, "
        "6 refused\n"
    )
    with open_store(store_url) as store:
        found = store.to_arrow(["sample", "state", "reward", "source", "meta"]).to_pylist()
        assert {tuple(row.values()) for row in found} == {
            ("CCO", "measured", 1.5, "acme", '{"mw": 46}'),
            ("CCN", "waiting", None, "acme", '{"mw": 45.1}'),
            ("a\nb", "measured", -2.0, "x y", '{"mw": "007"}'),
            ("CC2", "waiting", None, "", '{"mw": null}'),
        }


MENDED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "csv": ("smiles,mw\nCCO,x\n,2\nC;C,3\n", ",", ("--sample", "smiles", "--meta", "mw")),
    "tsv": ("smiles\tmw\nCCO\tx\n\t2\nC,C\t3\n", "\t", ("--sample", "smiles", "--meta", "mw")),
    "jsonl": ('{"sample": "CCO"}\n{"x": 2}\n{"sample": [1]}\n', '"x": 2', ()),
}


@pytest.mark.parametrize("form", MENDED)
def test_refused_rows_are_mended_and_imported(
    sqlite_url: str, tmp_path: pathlib.Path, form: str
) -> None:
    content, before, options = MENDED[form]
    file, wrong = tmp_path / f"all.{form}", tmp_path / f"wrong.{form}"
    file.write_text(content)
    words = ("import", str(file), *options)
    assert "1 refused" in run(*words, "--refused", str(wrong), url=sqlite_url).out
    kept = wrong.read_text()
    after = '"sample": "CCC"' if form == "jsonl" else f"{before}CCC{before}"
    mended = kept.replace(before if form == "jsonl" else before * 2, after)
    wrong.write_text(mended)
    again = run("import", str(wrong), *options, url=sqlite_url)
    assert again.out.startswith("1 row: 1 sample added"), kept
    with open_store(sqlite_url) as store:
        assert len(store) == 3
        assert "CCC" in store.waiting().samples
    other = tmp_path / ("wrong.csv" if form == "jsonl" else "wrong.jsonl")
    refused = run(*words, "--refused", str(other), url=sqlite_url)
    assert "give --refused a name that ends with" in unstyled(refused.err)


@pytest.mark.parametrize("delimiter", ["tab", "semicolon", "|", ".tsv"])
def test_other_delimiters(sqlite_url: str, tmp_path: pathlib.Path, delimiter: str) -> None:
    texts = ["a\tb", "a;b", "a|b", "a,b", '"']
    with open_store(sqlite_url) as store:
        store.add(texts, "x;y|z,\t")
        before = told(store)
    is_name = delimiter == ".tsv"
    file = str(tmp_path / ("all.tsv" if is_name else "all.csv"))
    options = () if is_name else ("--delimiter", delimiter)
    assert run("export", file, "--columns", "sample,source", *options, url=sqlite_url).code == 0
    with open(file, newline="") as written:
        assert "," not in written.readline()
    assert run("import", file, "--name", "again", *options, url=sqlite_url).code == 0
    with open_store(sqlite_url, name="again") as again:
        assert told(again) == before


def test_nan_in_json_lines_and_the_empty_text_in_csv_are_told(
    sqlite_url: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"sample": "", "meta": {"x": NaN}}\n{"sample": "b", "meta": {"x": "NaN"}}\n')
    assert "1 row has NaN" in run("import", str(file), url=sqlite_url).err
    shown = run("export", str(tmp_path / "x.csv"), url=sqlite_url)
    assert "1 of them is the empty text" in shown.err
    back = run("import", str(tmp_path / "x.csv"), "--name", "again", url=sqlite_url)
    assert "it has no sample in column 'sample'" in back.err
    whole = run("export", str(tmp_path / "y.jsonl"), url=sqlite_url)
    assert "empty" not in whole.err
    assert (
        "2 samples added"
        in run("import", str(tmp_path / "y.jsonl"), "--name", "third", url=sqlite_url).out
    )


@pytest.mark.parametrize(
    ("form", "content", "reasons"),
    [
        ("jsonl", b'{"sample": 1}\n\n[]\n{"sample"\n{"x": 1}\n\xff\n', [3, 4, 5, 6]),
        ("smi", b"CCO ethanol\n\n\xff\n", [3]),
        ("csv", b'sample\nCCO\n"a"b\nCCN\n', [3]),
    ],
)
def test_lines_that_are_not_of_the_format(
    sqlite_url: str, tmp_path: pathlib.Path, form: str, content: bytes, reasons: list[int]
) -> None:
    file = tmp_path / f"wrong.{form}"
    file.write_bytes(content)
    result = run("import", str(file), url=sqlite_url)
    assert [int(line.split(":")[0].split()[1]) for line in result.err.splitlines()] == reasons
    assert result.code == 0
    with open_store(sqlite_url) as store:
        assert len(store) >= 1


def test_refused_lines_on_the_terminal_are_limited(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.jsonl").write_text("[]\n" * 30)
    result = run("import", str(tmp_path / "x.jsonl"), url=sqlite_url)
    assert len(result.err.splitlines()) == 21
    assert "... and 10 more refused rows; --refused FILE" in result.err
    assert result.code == 1, "nothing was stored"


def test_an_import_that_was_killed_goes_on(
    store_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_, "CHUNK", 3)
    file = tmp_path / "all.jsonl"
    lines = [
        json.dumps({"sample": f"s{i}", "reward": None if i % 3 else i, "error": None})
        for i in range(20)
    ]
    lines += [json.dumps({"sample": "f", "error": "broken"}), lines[0], lines[1]]
    file.write_text("\n".join(lines))
    n_stored = 0
    kept = import_._store

    def stopped(*given: Any) -> Any:
        nonlocal n_stored
        n_stored += 1
        if n_stored == 3:
            raise KeyboardInterrupt
        return kept(*given)

    monkeypatch.setattr(import_, "_store", stopped)
    assert run("import", str(file), url=store_url).code != 0
    with open_store(store_url) as store:
        assert store.stats().stored == 6
    result = run("import", str(file), url=store_url)
    assert result.out.startswith(
        "23 rows: 15 samples added, 6 known, 2 repeated, 5 rewards and 1 failure"
    )
    again = run("import", str(file), url=store_url)
    assert again.out.startswith(
        "23 rows: 0 samples added, 21 known, 2 repeated, 0 rewards and 0 failures"
    )
    with open_store(store_url) as store:
        stats = store.stats()
        assert (stats.stored, stats.measured, stats.failed, len(store)) == (21, 7, 1, 13)
        assert store.check() == []
        with store.connect() as connection:
            n = connection.exec_driver_sql("SELECT count(*) FROM measurements").scalar()
        assert n == 8


def test_an_export_that_fails_leaves_the_file_of_before(
    sqlite_url: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "all.smi"
    file.write_text("before")
    with open_store(sqlite_url) as store:
        store.add(["a b"])
    result = run("export", str(file), url=sqlite_url)
    assert result.code == 2
    assert "sample 1 is 'a b'" in unstyled(result.err)
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if "all" in path.name] == ["all.smi"]


def test_columns_and_samples_are_chosen(store_url: str) -> None:
    with open_store(store_url) as store:
        fill(store, TEXTS[:9])
    options = ("--columns", "meta.n,reward,source", "--where", "source = 'lab'")
    shown = run("export", "-", "--format", "csv", *options, url=store_url)
    head, *lines = shown.out.splitlines()
    assert head == "meta.n,reward,source"
    assert sorted(lines) == ["2,-0.3333333333333333,lab", "2,0.0,lab", "2,0.3333333333333333,lab"]
    shown = run("export", "-", "--format", "jsonl", "--columns", "sample_id,meta", url=store_url)
    assert [json.loads(line)["meta"] for line in shown.out.splitlines()].count(META) == 6


def test_a_pipe_is_read_and_written(sqlite_url: str) -> None:
    words = ["import", "-", "--format", "smi", "--source", "lib", "--url", sqlite_url]
    assert CliRunner().invoke(app, words, input="CCO\nCCN x\n").exit_code == 0
    shown = run("export", "-", "--format", "smi", "--columns", "source", url=sqlite_url)
    assert sorted(shown.out.splitlines()) == ["CCN\tlib", "CCO\tlib"]


def test_a_terminal_gets_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", shown)
    columns = {"sample": ["\x1b[31mred", "a\nb", "\u202eé"]}
    with formats.written("-") as file:
        export._write_csv(file, ["sample"], iter([columns]))
    assert shown.getvalue() == 'sample\n\\x1b[31mred\n"a\nb"\n\\u202eé\n'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "all.txt"], "give a name that ends with one of .csv, .jsonl, .parquet, .smi"),
        (["export", "no/such/folder.csv"], "cannot be written: No such file or directory"),
        (["export", "a.csv", "--columns", "nope"], "there is no column 'nope'"),
        (["export", "a.csv", "--where", "nope > 1"], "where must be a condition"),
        (["import", "missing.csv"], "cannot be read: No such file or directory"),
        (["import", "."], "give a name that ends with"),
        (["import", "empty.csv"], "must name each column once"),
        (["import", "vendor.csv"], "the file has no column 'sample', but 'smiles', 'mw'"),
        (["import", "vendor.csv", "--sample", "x"], "the file has no column 'x'"),
        (["export", "a.csv", "--delimiter", "ab"], "--delimiter must be tab, semicolon"),
        (["export", "a.jsonl", "--delimiter", ";"], "--delimiter is of CSV files"),
        (["import", "vendor.csv", "--delimiter", ";"], "and --delimiter the character between"),
        (["import", "vendor.csv", "--format", "parquet"], "the file is not Parquet"),
        (["import", "vendor.csv", "--sample", "smiles", "--key", "os.path:x"], "no function 'x'"),
    ],
)
def test_wrong_words_are_explained(
    sqlite_url: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "vendor.csv").write_text("smiles,mw\nCCO,1\n")
    if words[0] == "export":
        open_store(sqlite_url).close()
    else:
        sqlite_url = f"sqlite:///{tmp_path}/new.db"
    result = run(*words, url=sqlite_url, COLUMNS="300")
    assert not (tmp_path / "new.db").exists()
    assert result.code == 2
    assert message in " ".join(unstyled(result.err).split())


def test_a_new_buffer_is_drawn_from_at_once_and_minimizes_if_asked(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "docked.csv").write_text("smiles,score,mw\nCCO,-3,46\nCCN,-5,45\nCCC,,44\n")
    given = ("--sample", "smiles", "--reward", "score", "--direction", "minimize")
    result = run("import", str(tmp_path / "docked.csv"), *given, url=store_url)
    assert (result.code, result.err) == (0, "columns that were not imported: mw\n")
    with open_store(store_url) as store:
        assert store.top(1)[0]["sample"] == "CCN"
        assert store.sample(1).samples == ["CCC"]
    again = run("import", str(tmp_path / "docked.csv"), *given[:-1], "maximize", url=store_url)
    assert (again.code, "direction" in again.err) == (2 if again.code == 2 else 1, True)


def test_the_key_of_a_buffer_decides_which_samples_are_equal(
    sqlite_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys.py").write_text(
        "def lower(text):\n"
        "    if text == 'bad':\n        raise ValueError('no molecule')\n"
        "    return None if text == 'none' else text.lower()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "x.smi").write_text("CCO\ncco\nbad\nnone\nCCN\n")
    result = run("import", "x.smi", "--key", "keys:lower", url=sqlite_url)
    assert result.err.splitlines() == [
        "line 3: ValueError: no molecule",
        "line 4: keys:lower returned None for 'none'",
    ]
    assert result.out.startswith("5 rows: 2 samples added, 0 known, 1 repeated")


@pytest.mark.each_database
def test_a_buffer_with_a_key_is_not_filled_without_it(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "x.smi").write_text("CCO\nC-C-O\n")
    for name, key in (("named", str.lower), ("unnamed", lambda sample: sample)):
        with open_store(store_url, name=name, key=key) as store:
            store.add(["cco"])
        result = run("import", str(tmp_path / "x.smi"), "--name", name, url=store_url)
        with open_store(store_url, name=name, key=key) as store:
            assert (result.code, len(store)) == (2, 1)
        said = " ".join(re.sub(r"[│╭╰╮╯─]", " ", unstyled(result.err)).split())
        assert f"buffer {name!r} was created with" in said, said
        option = "builtins:str.lower" if name == "named" else "MODULE:FUNCTION"
        assert f"give that function with --key {option}." in said, said
    words = ("--name", "named", "--key", "builtins:str.lower")
    assert run("import", str(tmp_path / "x.smi"), *words, url=store_url).code == 0


@pytest.fixture
def lab(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a module, whose function is a key."""
    (tmp_path / "lab_keys.py").write_text(
        "def lower(text):\n    return None if text == 'none' else text.lower()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


KEY = ("--key", "lab_keys:lower")


def said_on_stderr(result: Result) -> str:
    return " ".join(re.sub(r"[│╭╰╮╯─]", " ", unstyled(result.err)).split())


def test_a_buffer_without_a_key_is_not_filled_with_one_and_can_get_one(
    store_url: str, lab: None
) -> None:
    pathlib.Path("x.csv").write_text("sample,reward\nCCO,1\ncco,2\nCCN,\n")
    assert run("import", "x.csv", url=store_url).code == 0
    refused = run("import", "x.csv", *KEY, url=store_url)
    assert (refused.code, "was created without a key" in said_on_stderr(refused)) == (2, True)
    assert "sqlbuffer export all.parquet --name default" in said_on_stderr(refused)
    with open_store(store_url) as store:
        assert (len(store), store.stats().stored) == (1, 3)
    assert run("export", "all.parquet", url=store_url).code == 0
    made = run("import", "all.parquet", *KEY, "--keep-key", "--name", "keyed", url=store_url)
    assert (made.code, "warning" in made.err) == (0, False)
    again = run("import", "all.parquet", *KEY, "--name", "keyed", url=store_url)
    assert again.out.startswith("3 rows: 0 samples added, 2 known, 1 repeated, 0 rewards")
    (best,) = json.loads(run("top", "--name", "keyed", "--json", url=store_url).out)
    assert (best["key"], best["reward"] in (1.0, 2.0)) == ("cco", True)
    numbers = json.loads(run("stats", "--name", "keyed", "--json", url=store_url).out)
    assert (numbers["stored"], numbers["measured"], numbers["waiting"]) == (2, 1, 1)
    assert run("export", "back.parquet", "--name", "keyed", url=store_url).code == 0
    bare = run("import", "back.parquet", "--name", "bare", url=store_url)
    assert "the file is of a buffer with key=lab_keys:lower" in bare.err
    assert "--key lab_keys:lower makes them one" in bare.err
    assert "warning" not in run("import", "back.parquet", "--name", "bare", url=store_url).err
    assert run("import", "x.csv", "--keep-key", "--name", "n", url=store_url).code == 2


def test_a_sample_is_shown_by_its_key(store_url: str, lab: None) -> None:
    pathlib.Path("x.csv").write_text("sample\nCCO\n")
    run("import", "x.csv", *KEY, "--name", "keyed", url=store_url)
    run("import", "x.csv", "--name", "bare", url=store_url)
    shown = run("show", "cCo", *KEY, "--name", "keyed", "--json", url=store_url)
    assert (shown.code, json.loads(shown.out)["sample"]) == (0, "CCO")
    for words, expected in {
        ("cCo", "--name", "keyed"): "--key MODULE:FUNCTION finds other spellings",
        ("CCC", "--name", "keyed", *KEY): "no sample with the number, hash, text or key 'CCC'",
        ("none", "--name", "keyed", *KEY): "lab_keys:lower returned None for 'none'",
        ("cCo", "--name", "keyed", "--key", "os:getpid"): "os:getpid failed for 'cCo': TypeError",
        ("cCo", "--name", "bare", *KEY): "it was created without a key",
        ("cCo", "--name", "bare"): "`sqlbuffer top` and `sqlbuffer sql` show samples.",
    }.items():
        refused = run("show", *words, url=store_url)
        assert (refused.code, expected in said_on_stderr(refused)) == (2, True), words


DIRECTIONS = {
    # Columns of the file, its direction, the option: what is said.
    ("sample,reward", None, None): "new is new and maximizes: give --direction minimize if a",
    ("sample", None, None): "",
    ("sample,reward", None, "maximize"): "",
    ("sample,reward", None, "minimize"): "",
    ("sample,reward", "minimize", None): "new is to minimize, as the file tells of old",
    ("sample,reward", "minimize", "minimize"): "",
    ("sample,reward", "minimize", "maximize"): "new is to maximize, but the rewards of the file",
}


@pytest.mark.slow
def test_the_direction_of_a_new_buffer_is_told(sqlite_url: str, lab: None) -> None:
    for (columns, of_file, option), said in DIRECTIONS.items():
        table = pa.table({name: ["1"] for name in columns.split(",")})
        about = json.dumps({"name": "old", "direction": of_file}).encode()
        file = f"x.{'parquet' if of_file else 'csv'}"
        if of_file:
            pq.write_table(table.replace_schema_metadata({b"sqlbuffer": about}), file)
        else:
            pathlib.Path(file).write_text(f"{columns}\n{'1,1' if ',' in columns else '1'}\n")
        words = ("import", file, "--name", "new", *(("--direction", option) if option else ()))
        first = run(*words, url=sqlite_url)
        assert first.err.startswith(said), (columns, of_file, option, first)
        assert bool(said) == ("maximize" in first.err or "minimize" in first.err), first
        with open_store(sqlite_url, name="new", create=False) as store:
            assert store.direction == (option or of_file or "maximize")
        assert "maximizes" not in run(*words, url=sqlite_url).err, "it is told once"
        assert run("rm", "new", "--yes", url=sqlite_url).code == 0


def test_numbers_and_flags_of_csv() -> None:
    assert [value_from(text) for text in ("1", "-0.5e1", "0.0")] == [1, -5.0, 0.0]
    for text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        assert value_from(text) is (text.lower() == "true")
    for text in ("007", "1_0", "nan", "1e999", "", "+1", "1.", " 1", "9" * 5_000, "tRUE", "yes"):
        assert value_from(text) == text


@pytest.mark.each_database
def test_flags_of_pandas_are_found_and_come_back(store_url: str, tmp_path: pathlib.Path) -> None:
    file, out = str(tmp_path / "flags.csv"), str(tmp_path / "out.csv")
    frame = pd.DataFrame({"smiles": ["a", "b", "c"], "flag": [True, False, None], "x": ["1", 2, 3]})
    frame.to_csv(file, index=False)
    mapped = ("--sample", "smiles", "--meta", "flag", "--source-column", "flag")
    assert run("import", file, *mapped, url=store_url).code == 0
    with open_store(store_url) as store:
        for where, found in {
            "meta.flag": "a",
            "NOT meta.flag": "b",
            "source = 'True'": "a",
        }.items():
            assert store.to_arrow(["sample"], where)["sample"].to_pylist() == [found], where
        store.add(["d"], meta={"flag": "true"})
        before = store.to_arrow(["sample", "meta.flag"], ("sample", "!=", "d")).to_pylist()
    assert run("export", out, "--columns", "sample,meta.flag", url=store_url).code == 0
    assert run("import", out, "--name", "again", url=store_url).code == 0
    with open_store(store_url, name="again") as again:
        assert again.to_arrow(["sample", "meta.flag"], ("sample", "!=", "d")).to_pylist() == before
        of_text = again.to_arrow(["meta.flag"], ("sample", "=", "d"))["meta.flag"].to_pylist()
        assert of_text == [True], "as the text '46' comes back as a number"
    shown = run("export", "-", "--format", "smi", "--columns", "meta.flag", url=store_url)
    assert sorted(shown.out.splitlines()) == ["a\ttrue", "b\tfalse", "c\t", "d\ttrue"]
    rewards = run("import", file, "--sample", "smiles", "--reward", "flag", url=store_url)
    assert "line 2: 'True' in column 'flag' is not a number" in rewards.err


@pytest.mark.each_database
def test_metas_that_are_not_stored_are_told(store_url: str, tmp_path: pathlib.Path) -> None:
    def told(content: str, *options: str, form: str = "csv") -> str:
        file = tmp_path / f"x.{form}"
        file.write_text(content)
        result = run("import", str(file), *options, url=store_url)
        assert result.code == 0, result
        lines = [line for line in result.err.splitlines() if "metas" in line]
        return "".join(lines)

    content = "sample,mw,batch,reward\na,46.0,1,\nb,1e22,2,\nc,,3,0.5\nd,7,x,\n"
    keep = "metas that were not stored: known and repeated samples keep the metas that they have"
    first = ("--sample", "sample", "--meta", "mw", "--reward", "reward")
    assert told(content, *first) == ""
    assert told(content, *first) == "", "the metas are those that are stored"
    with open_store(store_url) as store:
        before = store.to_arrow(["sample", "meta", "state"]).to_pylist()
        store.remove([row.item() for row in store.waiting().ids])
    more = ("--sample", "sample", "--meta", "mw,batch", "--reward", "reward")
    assert told(content, *more) == f"4 rows have {keep}"
    assert told(content.replace("46.0", "47"), *first) == f"1 row has {keep}"
    assert told(content.replace("46.0", ""), *first) == "", "nothing is lost"
    lines = [{"sample": "e", "meta": {"n": n}} for n in (1, 1, 2)] + [{"sample": "e"}]
    repeated = "\n".join(map(json.dumps, lines))
    assert told(repeated, form="jsonl") == f"1 row has {keep}"
    with open_store(store_url) as store:
        after = store.to_arrow(["sample", "meta"], ("sample", "!=", "e")).to_pylist()
        assert after == [{name: row[name] for name in ("sample", "meta")} for row in before]
        assert store.add(["a", "b"], meta={"batch": 9}, requeue=True).requeued == 2
        store.record(["c"], [0.25], meta={"batch": 9})
        assert store.to_arrow(["sample", "meta"], ("sample", "!=", "e")).to_pylist() == after


def test_the_imported_file_and_refused_rows_of_before_are_not_emptied(
    sqlite_url: str, tmp_path: pathlib.Path
) -> None:
    file, wrong = tmp_path / "x.csv", tmp_path / "wrong.csv"
    content = "sample\na\n" * 5_000
    file.write_text(content)
    wrong.symlink_to(file)
    for refused in (file, wrong):
        told = run("import", str(file), "--refused", str(refused), url=sqlite_url)
        assert (told.code, "give --refused another name" in said_on_stderr(told)) == (2, True)
        assert file.read_text() == content
    wrong.unlink()
    wrong.write_text("line,reason,sample\n")
    for options in (("--sample", "none"), ("--keep-key",), ("--key", "none:none")):
        assert run("import", str(file), *options, "--refused", str(wrong), url=sqlite_url).code == 2
        assert wrong.read_text() == "line,reason,sample\n", options


@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_wrong_condition_is_told_before_any_output(
    store_url: str, tmp_path: pathlib.Path, form: str
) -> None:
    with open_store(store_url) as store:
        store.add(["a", "b"])
    for where in ("seconds > 1", "reward >", "meta.a = 1 = 2"):
        result = run("export", "-", "--format", form, "--where", where, url=store_url)
        assert (result.code, result.out) == (2, ""), where
        assert "Invalid value: where " in said_on_stderr(result)
        file = tmp_path / f"x.{form}"
        assert run("export", str(file), "--where", where, url=store_url).code == 2
        assert not list(tmp_path.glob("*x*")), "no file, and no part of one"
    shown = run("export", "-", "--format", "csv", "--where", "reward > 1", url=store_url)
    assert len(shown.out.splitlines()) == 1, "the header of no rows"


def test_columns_in_quotes_are_exported(store_url: str) -> None:
    with open_store(store_url) as store:
        store.add(["a"], meta={"batch no": 7, "x,y": 8})
    names = 'sample,meta."batch no",meta."x,y"'
    where = 'meta."batch no" = 7'
    words = ("export", "-", "--format", "csv", "--columns", names, "--where", where)
    shown = run(*words, url=store_url)
    assert shown.out == 'sample,meta.batch no,"meta.x,y"\na,7,8\n'


def test_the_python_of_the_page_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = pathlib.Path(__file__).parents[2] / "docs" / "files.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    scope["store"].close()
    assert "46.07" in capsys.readouterr().out
    assert scope["frame"]["reward"].tolist() == [0.41]


# -- tables of other libraries ---------------------------------------------------------------------

COLUMNS = {"smiles": ["CCO", "CCN", "CCO"], "mw": [46, None, 46], "when": ["2020"] * 3}
TABLES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "pandas with an index": lambda: pd.DataFrame(COLUMNS, index=[5, 6, 7]),
    "arrow": lambda: pa.table(COLUMNS),
    "reader": lambda: pa.table(COLUMNS).to_reader(max_chunksize=1),
    "dataframe": lambda: Interchanged(pd.DataFrame(COLUMNS)),
}


class Interchanged:
    """A table of the older protocol alone."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    def __dataframe__(self, **options: Any) -> Any:
        return pa.table(self._frame).__dataframe__(**options)


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_added_with_its_other_columns_as_meta(sqlite_url: str, kind: str) -> None:
    with open_store(sqlite_url) as store:
        result = store.add(TABLES[kind](), "vendor", sample="smiles")
        assert (result.added, result.duplicates) == (2, 1)
        found = store.to_arrow(["sample", "source", "meta.mw", "meta.when"]).to_pylist()
        assert sorted(map(str, (tuple(row.values()) for row in found))) == [
            "('CCN', 'vendor', None, '2020')",
            "('CCO', 'vendor', 46, '2020')"
            if kind in ("arrow", "reader")
            else "('CCO', 'vendor', 46.0, '2020')",
        ]


def test_a_table_of_a_store_is_added_to_another(new_store: Callable[..., SampleStore]) -> None:
    store, other = new_store(), new_store(name="other")
    store.record(["a", "b"], [1.0, 2.0])
    assert other.add(store.table(["sample", "created_at"]), ["x", "y"], sample="sample").added == 2
    assert sorted(other.to_arrow(["source"])["source"].to_pylist()) == ["x", "y"]


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (pd.DataFrame(COLUMNS), {"sample": "nope"}, "the table must have a column 'nope'"),
        (pd.DataFrame({"s": ["a", None]}), {"sample": "s"}, "row 1 of the table has no value"),
        (["a"], {"sample": "s"}, "give a table of pandas"),
        (pd.DataFrame(COLUMNS), {"sample": "smiles", "meta": {}}, "give sample= without meta="),
        (pd.DataFrame(COLUMNS), {"sample": "smiles", "source": ["a"]}, "3 samples came with 1"),
        (pd.DataFrame({"s": ["a", "b"], "x": [1, np.inf]}), {"sample": "s"}, r"meta\[1\]\['x'\]"),
        (
            pd.DataFrame({"s": ["a", "b\ud800"]}, dtype=object),
            {"sample": "s"},
            "row 1 of the table has .* in column 's', a lone surrogate",
        ),
        (pd.DataFrame({"s": ["a", 1]}), {"sample": "s"}, "give each column one type"),
        (pd.DataFrame(COLUMNS), {}, "`add` takes a table with sample='smiles'"),
    ],
)
def test_a_wrong_table_is_refused(
    sqlite_url: str, table: Any, options: dict[str, Any], message: str
) -> None:
    with open_store(sqlite_url) as store, pytest.raises(InvalidArgument, match=message):
        store.add(table, **options)


def test_positions_of_a_table_count_on(sqlite_url: str) -> None:
    batches = pa.table({"s": ["a", "b", "none"]}).to_reader(max_chunksize=1)
    with open_store(sqlite_url, key=none_of) as store:
        assert store.add(batches, sample="s").refused_at == (2,)


def none_of(text: str) -> str | None:
    return None if text == "none" else text


def test_all_rewards_of_a_sample_in_a_file_are_kept_and_imported_once(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "r.csv").write_text("sample,reward,error\nz,1,\nz,2,\nq,,boom\nz,1,\nq,3,\n")
    rows = None
    for _ in range(3):
        assert run("import", str(tmp_path / "r.csv"), url=store_url).code == 0
        with open_store(store_url) as store:
            sql = sa.select(measurements.c.reward, measurements.c.error).order_by(measurements.c.id)
            found = [tuple(row) for row in inside.rows(store, sql)]
            assert {row["sample"]: row["reward"] for row in store.top(9)} == {"z": 2.0, "q": 3.0}
        assert rows in (None, found)
        rows = found
    assert sorted(map(str, found)) == sorted(
        map(str, [(1.0, None), (None, "boom"), (2.0, None), (3.0, None)])
    )


@pytest.mark.parametrize(
    ("about", "shown"),
    [
        (b'{"direction": "minimize"}', "the file tells of its buffer\n"),
        (b'{"direction": "minimize", "name": "%s"}' % (b"n" * 10_000), "nnn...\n"),
        (b"[" * 100_000, ""),
    ],
    ids=["nameless", "long", "deep"],
)
def test_an_import_takes_what_any_program_has_told(
    store_url: str, tmp_path: pathlib.Path, about: bytes, shown: str
) -> None:
    table = pa.table({"sample": ["a"], "reward": [1.0]})
    pq.write_table(table.replace_schema_metadata({b"sqlbuffer": about}), tmp_path / "x.parquet")
    told = run("import", str(tmp_path / "x.parquet"), url=store_url)
    assert (told.code, told.err.endswith(shown)) == (0, True)
    assert all(len(line) < 200 for line in told.err.splitlines())


def test_an_import_of_parquet_takes_the_direction_of_the_file(
    store_url: str, tmp_path: pathlib.Path
) -> None:
    file = str(tmp_path / "x.parquet")
    with open_store(store_url, name="old", direction="minimize") as store:
        store.record(["a", "b"], [1.0, 2.0], details=[{"k": 1}, None])
    assert run("export", file, "--name", "old", url=store_url).code == 0
    told = run("import", file, "--name", "new", url=store_url)
    assert told.code == 0
    assert "new is to minimize, as the file tells of old" in told.err
    again = run("import", file, "--name", "new", url=store_url)
    assert (again.code, "is to" in again.err) == (0, False)
    with open_store(store_url, name="new", create=False) as store:
        assert (store.direction, store.top(1)[0]["sample"]) == ("minimize", "a")
    given = run("import", file, "--name", "up", "--direction", "maximize", url=store_url)
    assert (given.code, "up is to maximize, but the rewards of" in given.err) == (0, True)
    other = run("import", file, "--name", "up", url=store_url)
    assert "up is to maximize, but the rewards of the file are to minimize" in other.err
    with open_store(store_url, name="up", create=False) as store:
        assert store.direction == "maximize"
