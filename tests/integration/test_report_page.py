"""The report of a buffer: one page that holds all it shows, asks for nothing, and shows any text
as text.
"""

import builtins
import dataclasses
import html.parser
import json
import pathlib
import re
import sys
import time
from typing import Any

import numpy as np
import pytest

from helpers import inside
from helpers.commands import refused, run
from helpers.pages import HOSTILE, RUN, TEXTS, fill
from sqlbuffer._messages import printable
from sqlbuffer.cli import output
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.maintenance import audit
from sqlbuffer.plots.registry import KINDS
from sqlbuffer.store import open_store
from sqlbuffer.web import report


class Page(html.parser.HTMLParser):
    """What a browser finds in a page: its elements, texts, and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._in = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts.append(data)
        elif self._in != "style":
            self.texts.append(data)

    @property
    def held(self) -> Any:
        """The JSON that the page holds."""
        return json.loads(self.scripts[0])


def page_of(url: str, name: str, *options: str, tmp_path: pathlib.Path) -> Page:
    file = tmp_path / "x.html"
    result = run("report", name, "-o", str(file), *options, url=url)
    assert (result.code, result.err) == (0, ""), result
    assert result.out.strip() == f"{printable(name)} in {file}"
    return Page(file.read_text())


@pytest.mark.slow
def test_a_report_shows_a_run(store_url: str, tmp_path: pathlib.Path) -> None:
    fill(store_url)
    page = page_of(store_url, RUN, tmp_path=tmp_path)
    text = " ".join(" ".join(page.texts).split())
    with open_store(store_url, name=RUN) as store:
        stats, best = store.stats(), store.top(1)[0]
    assert "The stored data is sound: every row was checked." in text
    for state in ("waiting", "claimed", "measured", "failed"):
        assert re.search(rf"{state} {getattr(stats, state)} ", text), state
    assert f"{stats.best_reward:.4g}" in text
    assert best["sample"] in text
    assert "minimize" in text
    assert list(page.held["figures"]) == sorted(KINDS)
    for kind, figure in page.held["figures"].items():
        has_place = ("div", kind) in [
            (tag, (given.get("id") or "").removeprefix("chart-")) for tag, given in page.elements
        ]
        assert has_place == bool(figure["data"]), "a sentence stands for a picture without data"
        assert figure["empty"] in text
        assert figure["data"] or figure["layout"]["annotations"]
    curve = page.held["figures"]["best"]["data"][0]
    assert curve["y"][-1] == stats.best_reward


def test_a_report_asks_for_nothing(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    open_store(sqlite_url, name="new").close()
    page = page_of(sqlite_url, "new", "--no-check", tmp_path=tmp_path)
    given = [(tag, name, value) for tag, all_ in page.elements for name, value in all_.items()]
    loaded = [each for each in given if each[1] in ("src", "href", "srcset", "action", "data")]
    assert loaded == []
    (policy,) = [value for tag, name, value in given if name == "content" and "default" in value]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    n_hashes = policy.count("'sha256-")
    assert (len(page.scripts), n_hashes) == (4, 3)  # JSON is no script
    assert "'unsafe-eval'" not in policy
    assert policy.partition("script-src")[2].count("unsafe-inline") == 0
    assert "The stored data was not checked." in " ".join(page.texts)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.slow
def test_hostile_texts_are_text(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    fill(sqlite_url)
    known = {tag for tag, _ in page_of(sqlite_url, RUN, tmp_path=tmp_path).elements}
    with open_store(sqlite_url, name=HOSTILE) as store:
        store.record([f"own {i}" for i in range(12)], list(range(12)), TEXTS[:12])
    page = page_of(sqlite_url, HOSTILE, tmp_path=tmp_path)
    tags = [tag for tag, _ in page.elements]
    assert set(tags) <= known | {"li", "ol"}
    assert tags.count("script") == 4
    assert not [name for _, given in page.elements for name in given if name.startswith("on")]
    texts = "".join(page.texts)
    assert printable(HOSTILE) in texts
    with open_store(sqlite_url, name=HOSTILE) as store:
        for row in store.top(10):
            assert printable(row["source"]) in texts
            assert printable(row["sample"]) in texts
    labels = page.held["figures"]["sources"]["layout"]["yaxis"]["ticktext"]
    assert len(labels) == 10
    assert not re.search(r"[<>\u202e]", "".join(labels))
    assert not re.search(r"[<>&]", page.scripts[0])
    assert len(TEXTS) == 200


@pytest.mark.slow
def test_the_best_samples_are_drawn(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    with open_store(sqlite_url, name="molecules") as store:
        store.record(["CCO", "c1ccccc1"], [1.0, 2.0])
    with open_store(sqlite_url, name="images") as store:
        store.record([np.eye(8, dtype=np.float32), np.ones((8, 8, 3), np.uint8)], [1.0, 2.0])
    for name, kind in (("molecules", "image/svg+xml"), ("images", "image/png")):
        page = page_of(sqlite_url, name, "--no-check", tmp_path=tmp_path)
        images = [given for tag, given in page.elements if tag == "img"]
        dark = [given for tag, given in page.elements if tag == "source"]
        assert len(images) == len(dark) == 2
        for given in images:
            assert str(given["src"]).startswith(f"data:{kind};base64,")
            assert given["alt"]


@pytest.mark.slow
def test_a_report_names_the_faults_of_a_buffer(sqlite_url: str, tmp_path: pathlib.Path) -> None:
    import sqlalchemy as sa

    with open_store(sqlite_url) as store:
        store.add(["a", "b"])
        inside.execute(store, sa.text("DELETE FROM pool"))
    page = page_of(sqlite_url, "default", tmp_path=tmp_path)
    (bad, *_) = [given for _, given in page.elements if given.get("class") == "dot bad"]
    assert bad
    assert "sound" not in " ".join(page.texts)


PARTS = (
    *("storage", "types", "counters", "membership", "keys"),
    *("weights", "batches", "measurements", "ticks"),
)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["report", "db check"])
def test_a_long_step_is_a_line_in_a_pipe(
    command: str, sqlite_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(sqlite_url).close()
    monkeypatch.setattr(output, "LONG_S", 0.02)

    def slow(tx: Transaction) -> list[str]:
        time.sleep(0.1)
        return []

    monkeypatch.setattr(audit, "_keys", slow)
    slow.__name__ = "_keys"
    words = {
        "report": ("report", "default", "-o", str(tmp_path / "x.html")),
        "db check": ("db", "check"),
    }
    result = run(*words[command], url=sqlite_url)
    assert result.code == 0
    told = {"report": "checking every row: keys ...", "db check": "checking default (1 of 1): keys"}
    assert told[command] in result.err
    assert "keys" not in result.out


@pytest.mark.slow
@pytest.mark.each_database  # PostgreSQL reads nothing more in a transaction after an error
@pytest.mark.parametrize("part", ["SQL", "read", "picture"])
def test_a_picture_that_fails_leaves_the_others(
    part: str, store_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(store_url) as store:
        store.record(["a"], [0.25])

    def fail(tx: Transaction) -> Any:
        if part == "SQL":
            tx.connection.exec_driver_sql("SELECT 1 / 0")  # NULL on SQLite
        raise OverflowError("too\nlarge")

    def fail_to_draw(data: Any) -> Any:
        raise ZeroDivisionError("too small")

    made = KINDS["failures"]
    changes: Any = {"picture": fail_to_draw} if part == "picture" else {"read": fail}
    monkeypatch.setitem(KINDS, "failures", dataclasses.replace(made, **changes))
    file = tmp_path / "x.html"
    result = run("report", "default", "-o", str(file), url=store_url)
    assert result.code == 0
    reason = re.fullmatch("the picture failures could not be drawn: (.*)\n", result.err)
    assert reason is not None
    assert reason[1] in ("too large", "too", "too small", "division by zero")
    page = Page(file.read_text())
    assert sorted(page.held["figures"]) == sorted(KINDS)
    (annotation,) = page.held["figures"]["failures"]["layout"]["annotations"]
    assert (
        annotation["text"].replace("<br>", " ") == f"This picture could not be drawn: {reason[1]}"
    )
    assert page.held["figures"]["best"]["data"][0]["y"] == [0.25]
    assert "sound" in " ".join(page.texts)


def test_each_step_is_told(sqlite_url: str) -> None:
    steps: list[str] = []
    with open_store(sqlite_url) as store:
        inside.handle_of(store).read(report.read, tell=steps.append)
    assert steps == [
        "counting",
        *(f"drawing {kind}" for kind in KINDS),
        "drawing samples",
        *(f"checking every row: {part}" for part in PARTS),
    ]


@pytest.mark.slow
def test_a_report_says_what_is_wrong(
    sqlite_url: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(sqlite_url).close()
    assert "no buffer 'none'" in refused(run("report", "none", url=sqlite_url))
    nowhere = run("report", "default", "-o", f"{tmp_path}/no/x.html", url=sqlite_url)
    assert (nowhere.code, "there is no folder" in nowhere.err) == (2, True)
    folder = tmp_path / "folder.html"
    folder.mkdir()
    taken = run("report", "default", "-o", str(folder), "--no-check", url=sqlite_url)
    assert "cannot be written" in refused(taken)

    imported = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "plotly" or name.startswith("plotly."):
            raise ModuleNotFoundError(f"No module named {name!r}", name="plotly")
        return imported(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "sqlbuffer.web.report")
    monkeypatch.delattr("sqlbuffer.web.report")
    monkeypatch.setattr(builtins, "__import__", without)
    message = refused(run("report", "default", url=sqlite_url))
    assert message == "error: a report needs plotly: pip install 'sqlbuffer[web]'."
