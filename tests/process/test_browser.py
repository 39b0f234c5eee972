"""The pages in a browser, on both databases, while four processes write.

    pytest -n 0 -m browser

They need the extra `browser` and Chromium: that of the system, or Playwright's own.
"""

import contextlib
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.commands import run
from helpers.pages import HOSTILE, RUN, database, fill
from sqlbuffer.looks.sql import ask
from sqlbuffer.plots import palette
from sqlbuffer.plots.registry import KINDS
from sqlbuffer.store import open_store
from sqlbuffer.web.names import to_path

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LIVE = "live"
BASE = f"/b/{to_path(LIVE)}"
PAGES = (
    *("/", "/compare", BASE, f"{BASE}/charts", f"{BASE}/samples", f"{BASE}/batches"),
    *(f"{BASE}/measurements", f"{BASE}/failures", f"{BASE}/predictors", f"{BASE}/workers"),
    *(f"{BASE}/jobs", f"{BASE}/metrics", f"{BASE}/sql", f"{BASE}/sample/1", f"/b/{to_path(RUN)}"),
    *(f"/b/{to_path(HOSTILE)}", f"/b/{to_path(HOSTILE)}/samples", "/none"),
)

WRITER = """
import random, sys, time
from sqlbuffer.store import open_store
rng = random.Random(int(sys.argv[2]))
with open_store(sys.argv[1], name="live") as store:
    while True:
        names = [f"C{'N' * rng.randrange(1, 30)}{rng.random()}" for _ in range(8)]
        store.add(names, source=rng.choice(["library", "mutation"]))
        store.score(lambda samples: [rng.random() for _ in samples])
        batch = store.sample(6)
        errors = [None if rng.random() > 0.2 else "ValueError: no pose" for _ in batch.ids]
        rewards = [None if error else rng.random() for error in errors]
        batch.report(batch.ids, rewards, errors=errors)
        time.sleep(0.05)
"""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with database(request.param, request) as url:
        fill(url)
        with open_store(url, name=LIVE) as store:
            store.add(["first"], source="library")
            store.save_predictor(b"x", rows_trained=9, metrics={"rank_correlation": 0.5})
        yield url


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Any]:
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server(url: str) -> Iterator[str]:
    role = ["--role", "pg_read_all_data"] if url.startswith("postgresql") else []
    with running("-m", "sqlbuffer", "serve", "--url", url, "--port", "0", *role) as process:
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+)/ shows ", line)
        assert found, (line, process.stderr.read())
        yield found[1]
    assert process.returncode == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield browser
        browser.close()


class Page:
    """A page of the browser, and what went wrong on it."""

    def __init__(self, browser: Any, server: str, **options: Any) -> None:
        self.context = browser.new_context(base_url=server, **options)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._check)
        self.server = server

    def _note(self, message: Any) -> None:
        is_expected = "404" in message.text  # of the page that is not there
        if message.type in ("error", "warning") and not is_expected:
            self.faults.append(message.text)

    def _check(self, request: Any) -> None:
        if not request.url.startswith((self.server, "data:")):
            self.faults.append(f"request to {request.url}")

    def open(self, path: str) -> Any:
        self.page.goto(path)
        self.wait_for(
            "[...document.querySelectorAll('[data-chart]')].every("
            "each => each.querySelector('svg.main-svg'))"
        )
        return self.page

    def wait_for(self, condition: str, *, most_s: float = 30) -> None:
        end = time.monotonic() + most_s
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, (condition, self.faults)
            self.page.wait_for_timeout(100)


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Page]:
    made = Page(browser, server, viewport={"width": 1280, "height": 900})
    yield made
    made.context.close()
    assert not made.faults


def numbers(page: Any) -> dict[str, int]:
    """The tiles of the first screen."""
    return {
        state: int(page.inner_text(f".tile.{state} strong").replace(",", ""))
        for state in ("waiting", "claimed", "measured", "failed")
    }


def numbers_of(url: str) -> dict[str, int]:
    role = "pg_read_all_data" if url.startswith("postgresql") else None
    sql = f"SELECT waiting, claimed, measured, failed FROM buffer_overview WHERE buffer = '{LIVE}'"
    with ask(url, sql, role=role) as found:
        return dict(zip(found.columns, next(found.rows), strict=True))


MEASURED = "Number(document.querySelector('.tile.measured strong').innerText.replace(',', ''))"
MARKS = """
Object.fromEntries([...document.querySelectorAll("[data-chart]")].map(each => [each.id,
    each.querySelectorAll(".trace path, .point path, path.point, .bars path").length]))
"""


def test_a_page_follows_the_run(url: str, server: str, page: Page) -> None:
    """Four processes write; numbers move, focus, scrolling and selection stay, then all agree."""
    shown = page.open(BASE)
    with contextlib.ExitStack() as stack:
        for seed in range(4):
            stack.enter_context(running("-c", WRITER, url, str(seed)))
        page.wait_for(f"{MEASURED} > 50")
        page.wait_for("document.querySelectorAll('#at-work tbody tr').length === 4")
        shown.focus(".tile.failed a")
        shown.evaluate("window.scrollTo(0, 300); window.isSame = true")
        before = numbers(shown)
        page.wait_for(f"{MEASURED} > {before['measured']}")
        assert shown.evaluate("document.activeElement.matches('.tile.failed a')")
        assert shown.evaluate("window.scrollY") == 300
        assert shown.evaluate("window.isSame")
        page.open(BASE)
        marks = shown.evaluate(MARKS)
        assert all(marks.values()), marks
        assert marks["chart-best"] >= 2
        for path in (BASE, f"{BASE}/samples?sort=reward", f"{BASE}/failures", f"{BASE}/workers"):
            page.open(path)
    expected = numbers_of(url)
    page.open(BASE)
    page.wait_for(f"{MEASURED} === {expected['measured']}")
    assert numbers(shown) == expected


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_no_serious_fault(browser: Any, server: str, theme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    viewport = {"width": width, "height": 844}
    made = Page(browser, server, viewport=viewport, color_scheme=theme)
    for path in PAGES:
        page = made.open(path)
        found = Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        about = [(each["id"], each["nodes"][0]["failureSummary"]) for each in serious]
        assert not about, (path, about)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    made.context.close()
    assert not made.faults


def test_the_keyboard_is_enough(page: Page) -> None:
    shown = page.open(f"{BASE}/samples")
    press = shown.keyboard.press
    press("Tab")
    assert shown.evaluate("document.activeElement.className") == "skip"
    assert shown.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press("Enter")
    press("Tab")
    assert shown.evaluate("document.activeElement.name") == "column"
    shown.keyboard.type("state")
    press("Tab")
    press("Tab")
    shown.keyboard.type("failed")
    press("Enter")
    shown.wait_for_url("**column=state**")
    cells = shown.query_selector_all("#rows tbody td:nth-child(3)")
    states = [cell.inner_text() for cell in cells]
    assert set(states) <= {"failed"}


def test_hostile_texts_run_nothing(page: Page) -> None:
    page.page.on("dialog", lambda dialog: page.faults.append(dialog.message))
    for path in ("", "/samples?n=1000", "/measurements", "/failures", "/charts"):
        page.open(f"/b/{to_path(HOSTILE)}{path}")
    assert (
        page.page.evaluate("document.querySelectorAll('main img[src=x], main script').length") == 0
    )


def test_sql_in_the_browser(page: Page) -> None:
    shown = page.open(f"{BASE}/sql?recipe=what-do-failures-cost-by-reason")
    shown.click(".sql-form button")
    shown.wait_for_selector("table")
    assert "reason" in shown.inner_text("thead")


@pytest.mark.parametrize("name", [RUN, HOSTILE])
@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_report_draws_its_charts_without_a_request(
    url: str, browser: Any, tmp_path: pathlib.Path, name: str, theme: str, width: int
) -> None:
    file = tmp_path / "report.html"
    written = run("report", name, "--no-check", "-o", str(file), url=url)
    assert written.code == 0, written
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("request", lambda request: faults.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('.chart')].every(each => each.querySelector('.main-svg'))"
    )
    n_shown = page.evaluate("document.querySelectorAll('.chart, .chart-card .empty').length")
    assert n_shown == len(KINDS)
    assert [each for each in faults if not each.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    n_points = page.evaluate("document.querySelectorAll('#chart-predicted .point').length")
    assert (n_points > 0) == (name == RUN)
    colour = page.evaluate("getComputedStyle(document.querySelector('#chart-best text')).fill")
    muted = palette.color("muted", theme)
    assert colour == f"rgb({', '.join(str(int(muted[i : i + 2], 16)) for i in (1, 3, 5))})"
    page.close()
