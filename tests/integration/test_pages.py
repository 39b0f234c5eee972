"""The pages of `sqlbuffer serve`, without a browser: what they show, and whom they refuse."""

import asyncio
import contextlib
import html
import json
import os
import pathlib
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from helpers import inside
from helpers.pages import HOSTILE, RUN, TEXTS, TOKEN, database, fill
from sqlbuffer._messages import printable
from sqlbuffer.db.backends import sqlite_files
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.looks.opening import handles, open_existing
from sqlbuffer.looks.overview import STATES, overview
from sqlbuffer.looks.sql import ask
from sqlbuffer.plots.registry import KINDS
from sqlbuffer.store import open_store
from sqlbuffer.web import pages, pictures, recipes, rendering, security
from sqlbuffer.web.app import SQL_READERS, create_app
from sqlbuffer.web.names import from_path, to_path
from sqlbuffer.web.rendering import duration
from sqlbuffer.web.source import Source
from sqlbuffer.web.tables import TABLES

RUN_PATH, HOSTILE_PATH = f"/b/{to_path(RUN)}", f"/b/{to_path(HOSTILE)}"
OF_BUFFER = (
    "",
    *(f"/{name}" for name in (*TABLES, "jobs", "metrics", "charts", "sql", "sample/1")),
)
BROWSER = {"accept": "text/html,*/*;q=0.8"}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with database(request.param, request) as url:
        fill(url)
        yield url


def role_of(url: str) -> str | None:
    return "pg_read_all_data" if url.startswith("postgresql") else None


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[TestClient]:
    source = Source.open(url, role=role_of(url), has_metrics=True)
    app = create_app(source, hosts=frozenset({"testserver", "127.0.0.1"}))
    with TestClient(app, headers=BROWSER, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def locked(url: str) -> Iterator[TestClient]:
    app = create_app(Source.open(url), token=TOKEN)
    with TestClient(app, headers=BROWSER, follow_redirects=False) as client:
        yield client


def answer(client: TestClient, path: str) -> Any:
    found = client.get(path)
    assert found.status_code == 200, (path, found.text)
    return found.json()


def rows_of(url: str, sql: str) -> list[dict[str, Any]]:
    with ask(url, sql, role=role_of(url)) as found:
        return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


@pytest.mark.slow
def test_pages_of_a_file_that_has_gone_say_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would show its last state for ever."""
    monkeypatch.setattr(sqlite_files, "LATELY_S", 0.0)
    file = tmp_path / "run.db"
    with open_store(f"sqlite:///{file}", name="run", weighting="uniform") as store:
        store.add(["CCO"])
    with TestClient(create_app(Source.open(f"sqlite:///{file}"))) as client:
        client.base_url = "http://127.0.0.1"
        path = "/b/run/samples.json"
        assert len(answer(client, path)["rows"]) == 1
        file.rename(tmp_path / "moved.db")
        found = client.get(path)
        assert (found.status_code, "was removed or moved" in found.text) == (503, True)
        open_store(f"sqlite:///{file}").close()
        found = client.get(path)
        assert (found.status_code, "was replaced" in found.text) == (503, True)
        os.replace(tmp_path / "moved.db", file)
        assert len(answer(client, path)["rows"]) == 1


# -- what they show -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("base", [RUN_PATH, HOSTILE_PATH], ids=["run", "hostile"])
def test_every_page_has_a_twin(client: TestClient, base: str) -> None:
    number = answer(client, f"{base}/samples.json?n=1")["rows"][0]["sample_id"]
    for path in OF_BUFFER:
        path = path.replace("sample/1", f"sample/{number}")
        page = client.get(base + path)
        assert page.status_code == 200, (path, page.text)
        assert page.headers["content-type"].startswith("text/html")
        twin = answer(client, f"{base}{path}.json")
        assert twin["name"] in (RUN, HOSTILE)
        if "sql" not in path:
            assert f'href="{base}{path}.json"' in page.text


def test_the_list_of_buffers(client: TestClient) -> None:
    assert {each["name"] for each in answer(client, "/index.json")["buffers"]} == {HOSTILE, RUN}
    assert HOSTILE in html.unescape(client.get("/").text)
    assert answer(client, f"/compare.json?{urlencode({'a': RUN, 'b': HOSTILE})}")["rows"]


def test_numbers_are_those_of_sql_in_the_same_snapshot(url: str) -> None:
    """While another thread writes, one transaction reads both."""
    of_view = sa.text("SELECT * FROM buffer_overview WHERE buffer = :name")
    is_over = threading.Event()

    def write() -> None:
        with open_store(url, name="busy", weighting="uniform") as store:
            n = 0
            while not is_over.is_set():
                n += 1
                store.add([f"{n}-{i}" for i in range(5)])
                with store.sample(3) as batch:
                    batch.settle([1.0, 2.0, float("nan")])

    writer = threading.Thread(target=write)
    open_store(url, name="busy", weighting="uniform").close()
    writer.start()
    database = open_existing(url, read_only=True)
    try:
        for _ in range(4):
            (buffer,) = handles(database, "busy")
            schema = "sqlbuffer." if url.startswith("postgresql") else ""
            statement = sa.text(of_view.text.replace("FROM ", f"FROM {schema}"))

            def both(tx: Any, statement: Any = statement) -> tuple[Any, Any]:
                row = tx.connection.execute(statement, {"name": "busy"}).mappings().one()
                return overview(tx), row

            page, row = buffer.read(both)
            states = {name: row[name] for name in ("waiting", "claimed", "measured", "failed")}
            out = row["stored"] - sum(states.values())
            assert page["states"] == {**states, "out": out}
            assert (page["best_reward"], page["iteration"]) == (
                row["best_reward"],
                row["iteration"],
            )
    finally:
        is_over.set()
        writer.join()
        database.close()
        with open_store(url, name="busy") as store:
            store.delete(force=True)


def test_the_first_screen_in_numbers(url: str, client: TestClient) -> None:
    found = answer(client, f"{RUN_PATH}.json")
    (row,) = rows_of(url, f"SELECT * FROM buffer_overview WHERE buffer = '{RUN}'")
    assert found["states"] == {"waiting": 37, "claimed": 4, "measured": 18, "failed": 2, "out": 0}
    assert all(row[name] == n for name, n in found["states"].items() if name != "out")
    assert (found["budget_left"], found["budget_used"]) == (40 - row["budget_used"], 24)
    best = rows_of(
        url,
        f"SELECT sample_id FROM sample_overview WHERE buffer = '{RUN}' AND reward IS NOT NULL "
        "ORDER BY reward LIMIT 10",
    )
    assert found["best_reward"] == row["best_reward"] == found["best"][0]["reward"]
    assert {each["id"] for each in found["best"][:5]} <= {each["sample_id"] for each in best}
    text = client.get(RUN_PATH).text
    assert "24 of 40 samples are used" in text
    assert "<h1>docking &lt;run&gt;</h1>" in text


def test_words_of_the_first_screen_are_explained(client: TestClient) -> None:
    page = client.get(RUN_PATH).text
    found = dict(re.findall(r'<abbr title="([^"]+)">([^<]+)</abbr>', page))
    words = set(found.values())
    run = answer(client, f"{RUN_PATH}.json")
    states = {state for state, n in run["states"].items() if n is not None}
    assert states | {run["mode"], run["direction"], run["kind"]} <= words
    assert {"best", "duplicates", "time left", "claims", "settled", "heartbeat"} <= words
    assert all(text.endswith(".") for text in found)
    module = rendering._templates().get_template("_words.html").module
    every = {
        *STATES,
        "shift",
        "softmax",
        "power",
        "uniform",
        "consume",
        "replay",
        "maximize",
        "minimize",
    }
    assert every <= set(module.MEANINGS)


@pytest.mark.slow
def test_a_run_that_stands_still_has_no_time_left(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> dict[str, Any]:
        with contextlib.closing(open_existing(store_url, read_only=True)) as database:
            return handles(database, "stuck")[0].read(overview)

    with open_store(store_url, name="stuck", weighting="uniform") as store:
        store.add(list("abcde"))
        for _ in range(2):
            store.sample(2).settle([1.0, 2.0])
        held = store.sample(1)
        found = look()
        assert found["seconds_left"] == pytest.approx(3600 / found["pace"]["per_hour"])
        assert (found["standstill"], found["states"]["waiting"]) == (None, 0)
        monkeypatch.setattr("sqlbuffer.looks.overview._SLOW", 0)
        assert look()["pace"]["per_hour"] is not None, "less than a minute is never long"
        monkeypatch.setattr("sqlbuffer.looks.overview._SLOW_S", -1.0)
        found = look()
        assert (found["pace"]["per_hour"], found["seconds_left"]) == (None, None)
        assert found["newest"] == "1 sample is claimed; the newest measurement is 0 s old."
        assert found["standstill"] == "none measured for 0 s"
        held.release()
    found = look()
    assert (found["seconds_left"], found["standstill"]) == (None, "no worker runs")


def test_a_pool_that_stays_full_has_no_time_left(store_url: str) -> None:
    with open_store(store_url, mode="replay", weighting="uniform") as store:
        store.add(list("abcde"))
        for _ in range(2):
            store.sample(2).settle([1.0, 2.0])
        buffer = inside.handle_of(store)
        found = buffer.read(overview)
        assert (found["seconds_left"], found["standstill"]) == (None, "drawn samples wait again")
        store.set_budget(10)
        found = buffer.read(overview)
        assert found["standstill"] is None
        expected = found["budget_left"] / found["pace"]["per_hour"] * 3600
        assert found["seconds_left"] == pytest.approx(expected)


@pytest.mark.parametrize("name", TABLES)
def test_the_sql_of_a_table_returns_its_rows(url: str, client: TestClient, name: str) -> None:
    found = answer(client, f"{RUN_PATH}/{name}.json")
    key = found["columns"][0]
    assert [row[key] for row in found["rows"]] == [row[key] for row in rows_of(url, found["sql"])]
    assert found["sql"] in html.unescape(client.get(f"{RUN_PATH}/{name}").text)


def filtered(client: TestClient, table: str, *filters: tuple[str, str, str], **more: Any) -> Any:
    columns, operators, values = zip(*filters, strict=True)
    query = {"column": columns, "operator": operators, "value": values, **more}
    return client.get(f"{RUN_PATH}/{table}.json?{urlencode(query, doseq=True)}")


@pytest.mark.parametrize(
    ("table", "given", "condition"),
    [
        ("samples", ("state", "=", "failed"), "state = 'failed'"),
        ("samples", ("reward", "<=", "-20"), "reward <= -20"),
        ("samples", ("sample", "like", "N%"), "substr(sample, 1, 1) = 'N'"),
        ("samples", ("source", "in", "library, image"), "source IN ('library', 'image')"),
        ("samples", ("reward", "is there", ""), "reward IS NOT NULL"),
        ("samples", ("measured_at", ">", "2020-01-01"), "measured_at IS NOT NULL"),
        ("batches", ("state", "!=", "settled"), "state <> 'settled'"),
        ("measurements", ("error", "is missing", ""), "error IS NULL"),
        ("failures", ("reason", "=", "ValueError"), "reason = 'ValueError'"),
        ("predictors", ("rows_trained", ">", "1"), "rows_trained > 1"),
    ],
)
def test_filters(
    url: str, client: TestClient, table: str, given: tuple[str, str, str], condition: str
) -> None:
    found = filtered(client, table, given).json()
    view, key = TABLES[table].view, TABLES[table].key
    sql = f"SELECT {key} FROM {view} WHERE buffer = '{RUN}' AND {condition} ORDER BY {key} DESC"
    expected = [row[key] for row in rows_of(url, sql)][:50]
    assert [row[key] for row in found["rows"]] == expected
    assert found["filters"] == [dict(zip(("column", "operator", "value"), given, strict=True))]


def test_rows_are_sorted_and_paged(client: TestClient) -> None:
    pages = [
        answer(client, f"{RUN_PATH}/samples.json?sort=score&order=asc&n=25&page={page}")
        for page in (1, 2, 3)
    ]
    scores = [row["score"] for page in pages for row in page["rows"]]
    assert scores == [*sorted(each for each in scores if each is not None), None]
    assert [page["has_more"] for page in pages] == [True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    "query",
    [
        "column=reward&operator=%3E",
        "column=reward&operator=~&value=1",
        "column=reward&operator=%3E&value=high",
        "column=1%3D1&operator=%3D&value=1",
        "column=queued&operator=%3D&value=true",
        "sort=payload",
        "sort=score)%3B--",
        "order=up",
        "page=0",
        "n=100000",
        "n=0000000001000000",
        "page=00000000001",
        "page=2000000",
        "n=%D9%A3",
        f"n={'1' * 5_000}",
        f"page={'9' * 5_000}",
        f"column=sample&operator=like&value={'%25' * 15_000}",
        f"column=sample&operator=like&value={'a' * 60_000}",
        f"column=sample_id&operator=%3D&value={'9' * 5_000}",
    ],
)
def test_a_wrong_query_is_one_sentence(client: TestClient, query: str) -> None:
    for twin in ("", ".json"):
        found = client.get(f"{RUN_PATH}/samples{twin}?{query}")
        assert found.status_code == 400
        assert "Traceback" not in found.text


@pytest.mark.parametrize("kind", KINDS)
def test_charts_are_described(client: TestClient, kind: str) -> None:
    for base in (RUN_PATH, HOSTILE_PATH):
        found = answer(client, f"{base}/charts/{kind}.json")
        assert {"data", "layout", "note"} <= found.keys()
        drawn = {name: found[name] for name in ("data", "layout")}  # Plotly reads markup in these
        assert "<script" not in json.dumps(drawn), "the note is the textContent of an element"


def test_samples_as_pictures(client: TestClient) -> None:
    found = filtered(client, "samples", ("source", "=", "image")).json()["rows"][0]
    picture = client.get(f"{RUN_PATH}/sample/{found['sample_id']}/picture")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content[16:24] == b"\0\0\0\x08\0\0\0\x08"
    molecule = filtered(client, "samples", ("sample", "=", "CCO")).json()["rows"][0]["sample_id"]
    drawn = client.get(f"{RUN_PATH}/sample/{molecule}/picture?theme=dark")
    assert drawn.headers["content-type"].startswith("image/svg+xml")
    for number in ("9" * 19, "9" * 5_000, "-1", "x"):
        for twin in ("", ".json", "/picture"):
            assert client.get(f"{HOSTILE_PATH}/sample/{number}{twin}").status_code == 404
    assert pictures.drawable(["CCO", "c1ccccc1"])
    assert not pictures.drawable(["no molecule", "x"])


def test_prometheus_reads_the_metrics(client: TestClient) -> None:
    lines = client.get("/metrics").text.splitlines()
    assert f'sqlbuffer_samples{{buffer="{RUN}",state="failed"}} 2' in lines
    assert all(re.fullmatch(r'(# .*|\w+\{(\w+="([^"\\]|\\.)*",?)+\} \S+)', line) for line in lines)


def test_times_are_short() -> None:
    found = [
        duration(each) for each in (None, 0.2, 59, 60, 3_661, 86_400 * 3 + 7_200, float("inf"))
    ]
    assert found == ["-", "0 s", "59 s", "1 min", "1 h 1 min", "3 d 2 h", "-"]


def test_any_name_is_a_part_of_a_path() -> None:
    for name in (RUN, HOSTILE, "a/../b", "~41", "é", ".json", " "):
        assert re.fullmatch(r"[A-Za-z0-9_~-]+", to_path(name))
        assert from_path(to_path(name)) == name
    assert [from_path(each) for each in ("%41", "~41", "~FF", "a.b")] == [None] * 4


# -- hostile texts --------------------------------------------------------------------------------


@pytest.mark.slow
def test_hostile_texts_are_text(client: TestClient) -> None:
    known = "".join(
        client.get(f"{HOSTILE_PATH}{path}").text
        for path in ("", "/samples?n=1000", "/measurements", "/failures", "/sample/70", "/workers")
    )
    known += "".join(
        client.get(f"{HOSTILE_PATH}/sample/{row['sample_id']}").text
        for row in answer(client, f"{HOSTILE_PATH}/samples.json?n=5")["rows"]
    )
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z!][\w-]*)", known))
    ours = "html head meta title link script body a header div span button nav main footer details"
    ours += " summary pre h1 h2 p ul ol li strong label progress section form input select option"
    ours += " table thead tbody tr th td code time picture source img abbr !doctype"
    assert tags <= set(ours.split()), tags
    assert not re.search(r"<script(?! src=\"/static/)", known)
    assert not re.search(r"<[^>]*\son\w+=", re.sub(r'"[^"]*"', '""', known))
    assert len(TEXTS) == 200
    shown = html.unescape(known)
    assert all(printable(each)[:60] in shown for each in TEXTS)


def test_hostile_texts_in_json(client: TestClient) -> None:
    found = client.get(f"{HOSTILE_PATH}/samples.json?n=1000")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert {row["sample"] for row in found.json()["rows"]} == set(TEXTS)


# -- whom they refuse -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", f"{RUN_PATH}.json", "/static/page.js", "/metrics"])
def test_another_host_is_refused(client: TestClient, path: str) -> None:
    """A name of an attacker that points to this machine."""
    for host in ("evil.example", "127.0.0.1.evil.example", "testserver.evil.example:80", ""):
        assert client.get(path, headers={"host": host}).status_code == 421
    assert client.get(path, headers={"host": "127.0.0.1:8765"}).status_code == 200


def sent(app: Any, path: str, *headers: tuple[str, str]) -> int:
    """Return the status of the answer to a request with these headers and no other ones."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": "GET", "scheme": "http", "path": path, "headers": raw}
    scope |= {"query_string": b"", "raw_path": path.encode(), "root_path": ""}
    answers: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        answers.append(message)

    asyncio.run(app(scope, receive, send))
    assert set(security.HEADERS) <= {name.decode() for name, _ in answers[0]["headers"]}
    return int(answers[0]["status"])


@pytest.mark.parametrize(
    "host",
    [
        "x/static/?",
        "x/login?",
        "x/static/#",
        "x@y",
        "x:80/static/?",
        "x:",
        "x y",
        "[::1",
        "[x]",
        "",
        "\xe9",
        "x:123456",
    ],
)
def test_a_host_that_is_no_name_is_refused(url: str, host: str) -> None:
    app = create_app(Source.open(url), token=TOKEN)
    path = f"{RUN_PATH}.json"
    assert sent(app, path, ("host", host)) == 400
    assert sent(app, path, ("host", "a"), ("host", "b")) == 400


def test_the_guard_and_the_pages_judge_the_same_path(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older releases of Starlette make the URL of the header `Host`."""
    monkeypatch.delattr(HTTPConnection, "url")
    app = create_app(Source.open(url), token=TOKEN)
    bearer = ("authorization", f"Bearer {TOKEN}")
    for path in ("/", f"{RUN_PATH}.json", f"{RUN_PATH}/jobs", "/none", f"{RUN_PATH}/none"):
        assert sent(app, path, ("host", "x")) == 401
        assert sent(app, path, ("host", "x"), bearer) == (404 if "none" in path else 200)


def test_hosts_are_names_with_or_without_a_port(url: str) -> None:
    app = create_app(Source.open(url), token=TOKEN)
    for host in ("run.example", "RUN_1:80", "127.0.0.1:8765", "[::1]", "[fe80::1]:8765"):
        assert sent(app, f"{RUN_PATH}.json", ("host", host)) == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver:81"},
        {"origin": "file://"},
        {"origin": "http://[::1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
)
def test_another_site_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        found = client.request(method, f"{RUN_PATH}/sql", headers=headers)
        assert found.status_code == 403
    own = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
    assert client.get(f"{RUN_PATH}/sql", headers=own).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200


def test_every_answer_has_the_headers(client: TestClient, locked: TestClient) -> None:
    answers = [client.get(path) for path in ("/", "/none", "/index.json", "/static/page.css")]
    answers += [locked.get("/"), client.get("/", headers={"host": "evil.example"})]
    for found in answers:
        others = {"cache-control": found.headers["cache-control"]}
        assert (security.HEADERS | others).items() <= dict(found.headers).items()
        policy = found.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe-eval" not in policy
        assert "script-src" not in policy
        assert "unsafe-inline" not in policy
    policy = client.get(RUN_PATH).headers["content-security-policy"]
    assert policy == security.CHARTS_POLICY
    assert "unsafe-inline" not in client.get(f"{RUN_PATH}/sql").headers["content-security-policy"]
    assert answers[0].headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fapp.py",
        "/static//etc/passwd",
        "/b/~2E~2E/samples",
        "/b/..%2f..%2fetc%2fpasswd",
        f"{RUN_PATH}/../../static/%2e%2e/pages.py",
        f"{RUN_PATH}/samples/../../../../etc/passwd",
        f"{RUN_PATH}/charts/../sql.json.json",
    ],
)
def test_no_other_file_is_read(client: TestClient, path: str) -> None:
    found = client.get(path)
    assert found.status_code in (404, 400), found.text
    assert "root:" not in found.text
    assert "import" not in found.text


def test_only_reading_methods(client: TestClient) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert client.request(method, "/").status_code == 405
    assert client.post("/").status_code == 405


def test_a_token_is_given_once(locked: TestClient) -> None:
    assert locked.get("/").status_code == 401
    assert "password" in locked.get(f"{RUN_PATH}/samples?n=2").text
    assert locked.get("/index.json").json().keys() == {"error"}
    for wrong in ("", "correct", TOKEN + "x", "é"):
        assert locked.get("/", params={"token": wrong}).status_code == 401
        assert locked.post("/login", data={"token": wrong}).status_code == 401
        assert (
            locked.get("/", headers={"authorization": f"Bearer {wrong}".encode()}).status_code
            == 401
        )
    assert not locked.cookies
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert locked.get("/index.json", headers=bearer).status_code == 200

    link = locked.get(f"{RUN_PATH}/samples", params={"n": "2", "token": TOKEN})
    assert (link.status_code, link.headers["location"]) == (303, f"{RUN_PATH}/samples?n=2")
    cookie = link.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert locked.get(link.headers["location"]).status_code == 200
    locked.cookies.clear()

    form = {"token": f" {TOKEN} ", "next": "//evil.example/"}
    opened = locked.post("/login", data=form)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    locked.cookies.clear()
    name, proof = cookie.partition(";")[0].split("=")
    locked.cookies.set(name, proof[:-1] + ("1" if proof[-1] == "0" else "0"))
    assert locked.get("/").status_code == 401


def test_a_token_can_not_be_guessed() -> None:
    for weak in ("", "short", " " * 30, "pässwörter sind lang"):
        with pytest.raises(InvalidArgument, match="at least 16"):
            security.as_token(weak)
    assert security.as_token(f"{TOKEN}\n") == TOKEN
    assert security.as_token(None) is None


# -- SQL ------------------------------------------------------------------------------------------


def typed(client: TestClient, sql: str) -> Any:
    return client.post(f"{RUN_PATH}/sql.json", data={"sql": sql}).json()


@pytest.mark.slow
def test_recipes_run_as_they_are(client: TestClient) -> None:
    assert len(recipes.recipes()) >= 15
    for recipe in recipes.recipes():
        page = client.get(f"{RUN_PATH}/sql", params={"recipe": recipe.slug}).text
        shown = html.unescape(re.findall(r"<textarea[^>]*>(.*?)</textarea>", page, re.DOTALL)[0])
        found = typed(client, shown)
        assert (found["error"], bool(found["columns"])) == (None, True), recipe.question
    assert client.get(f"{RUN_PATH}/sql?recipe=none").status_code == 400


def test_sql_of_the_url_does_not_run(client: TestClient) -> None:
    assert answer(client, f"{RUN_PATH}/sql.json?sql=SELECT+1")["columns"] == []


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM samples",
        "UPDATE buffers SET name = 'x'",
        "DROP TABLE samples",
        "SELECT 1; DELETE FROM samples",
        "WITH x AS (SELECT 1) DELETE FROM samples",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = DELETE",
        "COPY samples TO '/tmp/x'",
        "SELECT load_extension('x')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "COMMIT",
        "no sql \0",
    ],
)
def test_sql_that_writes_is_refused(url: str, client: TestClient, sql: str) -> None:
    before = rows_of(url, "SELECT count(*) AS n FROM samples")
    found = typed(client, sql)
    assert found["error"]
    assert found["rows"] == []
    assert rows_of(url, "SELECT count(*) AS n FROM samples") == before


@pytest.mark.parametrize(
    "end", [";", ";\n", "; -- a comment", "; /* a; comment */ ;; -- it's", " -- ; a comment", ";;"]
)
def test_sql_may_end_with_semicolons_and_comments(client: TestClient, end: str) -> None:
    found = typed(client, f"SELECT ';' AS a /* ; */{end}")
    assert (found["error"], found["rows"]) == (None, [{"a": ";"}])


def test_sql_ends_in_time(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SQL_TIMEOUT_S", 0.2)
    long = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 1000000000) "
    found = typed(client, f"{long} SELECT count(*) FROM t")
    assert "took more than 0.2 s" in found["error"]


def test_sql_shows_the_first_rows(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SQL_ROWS", 7)
    found = typed(client, "SELECT sample FROM sample_overview ORDER BY sample_id -- all")
    assert (len(found["rows"]), found["has_more"]) == (7, True)
    page = client.post(f"{RUN_PATH}/sql", data={"sql": "SELECT '<script>' AS \"<b>\""}).text
    assert "<script>" not in page
    assert "<b>" not in page


def test_sql_shows_no_more_bytes_than_a_browser_takes(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "SQL_BYTES", 1_000)
    long = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {}) "
    long += "SELECT 'x{}' AS x FROM t"
    found = typed(client, long.format(40, "x" * 299))
    assert (len(found["rows"]), found["has_more"]) == (3, True)
    found = typed(client, long.format(3, "x" * 299))
    assert (len(found["rows"]), found["has_more"]) == (3, False)
    found = typed(client, long.format(1, "x" * 1_000))
    assert (len(found["rows"]), found["has_more"]) == (0, True)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 sets no limit before 3.11")
def test_sql_of_the_page_has_no_long_values_on_sqlite(url: str, client: TestClient) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("PostgreSQL ends a function in time")
    for sql in (
        "SELECT hex(zeroblob(600000))",  # first: the next one takes minutes without the limit
        "SELECT instr(zeroblob(200000000), zeroblob(90000000) || x'01')",
    ):
        assert "too big" in typed(client, sql)["error"]
    pattern = f"SELECT 1 WHERE 'x' LIKE '{'%a' * 600}'"
    assert "too complex" in typed(client, pattern)["error"]
    assert typed(client, "SELECT length(hex(zeroblob(400000))) AS n")["rows"] == [{"n": 800_000}]
    assert rows_of(url, "SELECT length(hex(zeroblob(600000))) AS n") == [{"n": 1_200_000}]


def test_sql_of_the_page_has_no_long_rows(client: TestClient) -> None:
    """A driver holds a whole row: one value of 500 MB would be in the memory of the page."""
    is_sqlite = typed(client, "SELECT sqlite_version()")["error"] is None
    long = "hex(zeroblob({}))" if is_sqlite else "repeat('xx', {})"
    found = typed(client, f"SELECT 'x' AS a, {long.format(600_000)} AS b")
    assert ("too big" if is_sqlite else "a row has 1200004 bytes") in found["error"]
    found = typed(client, f"SELECT length({long.format(400_000)}) AS n")
    assert found["rows"] == [{"n": 800_000}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT {}) AS sqlbuffer_row UNION ALL SELECT * FROM (SELECT 'a'",
        "SELECT 1) SELECT {} FROM (SELECT 1",
        "/* /* */ */ SELECT {}",
        "-- a\rSELECT {}",
    ],
)
def test_no_sql_of_the_page_gets_past_the_bound(client: TestClient, sql: str) -> None:
    is_sqlite = typed(client, "SELECT sqlite_version()")["error"] is None
    long = "hex(zeroblob(600000))" if is_sqlite else "repeat('xx', 600000)"
    assert typed(client, sql.format(long))["rows"] == []


@pytest.mark.parametrize(
    ("sql", "columns", "rows"),
    [
        ("SELECT 1 AS a, 2 AS a -- twice", ["a", "a:1"], [[1, 2]]),
        ("-- first\n/* b */ WITH x AS (SELECT 3 AS n) SELECT * FROM x", ["n"], [[3]]),
        ("VALUES (1), (2)", ["column1"], [[1], [2]]),
        (
            "SELECT * FROM (SELECT 1 AS n UNION ALL SELECT 3 UNION ALL SELECT 2) t ORDER BY n DESC",
            ["n"],
            [[3], [2], [1]],
        ),
        (
            "SELECT NULL AS b, 'a' AS sqlbuffer_row",
            ["b", "sqlbuffer_row"],
            [[None, "a"]],
        ),
        ("SELECT 1 AS n LIMIT 0", ["n"], []),
        ("SELECT ';' AS n ;\n", ["n"], [[";"]]),
    ],
)
def test_sql_of_the_page_has_its_own_columns_and_order(
    client: TestClient, sql: str, columns: list[str], rows: list[list[Any]]
) -> None:
    found = typed(client, sql)
    assert found["error"] is None
    assert found["columns"] == columns
    assert [list(row.values()) for row in found["rows"]] == rows


def test_sql_does_not_keep_other_pages_waiting(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_over = threading.Event()
    begun = threading.Semaphore(0)

    def wait(*_: Any) -> Any:
        begun.release()
        assert is_over.wait(20)
        return {}

    monkeypatch.setattr(pages, "_answer", wait)
    asking = [threading.Thread(target=typed, args=(client, "SELECT 1")) for _ in range(8)]
    for each in asking:
        each.start()
    try:
        assert all(begun.acquire(timeout=20) for _ in range(SQL_READERS))
        assert client.get(RUN_PATH).status_code == 200
        assert not begun.acquire(blocking=False)
    finally:
        is_over.set()
        for each in asking:
            each.join()


def test_a_long_form_is_refused(client: TestClient, locked: TestClient) -> None:
    long = "SELECT 1 -- " + "x" * security.LONGEST_FORM
    for path in (f"{RUN_PATH}/sql", f"{RUN_PATH}/sql.json"):
        found = client.post(path, data={"sql": long})
        assert (found.status_code, "100,000 bytes" in found.text) == (413, True)
    assert client.post(f"{RUN_PATH}/sql.json", data={"sql": long[:90_000]}).json()["rows"]
    assert locked.post("/login", data={"token": long}).status_code == 413


# -- errors ---------------------------------------------------------------------------------------


def test_errors_are_pages(client: TestClient) -> None:
    for path in ("/none", "/b/none", f"{RUN_PATH}/none", f"{RUN_PATH}/sample/999999", "/b/no.ne"):
        for twin in ("", ".json"):
            found = client.get(path + twin)
            assert found.status_code == 404, path
            assert "Traceback" not in found.text


def test_an_unknown_error_tells_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source.open(url)
    monkeypatch.setattr(Source, "buffers", lambda _: 1 / 0)
    with TestClient(create_app(source)) as client:  # which raises what the server would log
        found = client.get("/")
    assert (found.status_code, "division" in found.text) == (500, False)
    assert security.HEADERS.items() <= dict(found.headers).items()
    assert [each.getMessage() for each in caplog.records] == [
        "/: ZeroDivisionError: division by zero"
    ]
    assert all(each.exc_info is None for each in caplog.records)


def test_an_error_of_the_guard_is_an_answer(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(security, "_is_foreign", lambda _: 1 / 0)
    assert sent(create_app(Source.open(url)), "/\n", ("host", "x")) == 500
    assert [each.exc_info for each in caplog.records] == [None]
    assert "\n" not in caplog.records[0].getMessage()
