"""The pages of the documentation: what they show runs, and the site is built without a warning."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from _pytest.mark import ParameterSet

from helpers import documents
from helpers.forked import Forked

ROOT = pathlib.Path(__file__).parents[2]
FOLDERS = ("tutorials", "how-to")
RUN = [
    ROOT / "docs" / "index.md",
    *sorted(page for folder in FOLDERS for page in (ROOT / "docs" / folder).glob("*.md")),
]


def case(page: pathlib.Path) -> ParameterSet:
    """Return the case of a page; that of a library's integration needs the library."""
    needs_library = f"sqlbuffer.integrations.{page.stem} import" in page.read_text()
    marks = [pytest.mark.integrations] if needs_library else []
    return pytest.param(page, id=page.stem, marks=marks)


@pytest.mark.parametrize("page", [case(page) for page in RUN])
def test_code_blocks_run(
    page: pathlib.Path, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    needs_server = "postgresql://" in page.read_text()
    url = request.getfixturevalue("postgresql_url") if needs_server else None
    process = Forked(functools.partial(documents.run, page, url), [], tmp_path)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, f"{out}\n{errors}"


def build_site(folder: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_the_site_is_built_without_a_warning(tmp_path: pathlib.Path) -> None:
    """Links, anchors and names of the reference included; no page asks another host."""
    build_site(tmp_path)
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["']?https?:""", page.read_text()
        )
        assert not loaded, page


SEARCHED = {
    "minimize": "how-to/changed-reward.html",
    "minimise": "how-to/changed-reward.html",
    "retry failures": "how-to/failing-rewards.html",
    "worker on another host": "how-to/workers.html",
    "power cut": "how-to/backup.html",
    "who holds a batch": "how-to/workers.html",
    "leave": "how-to/backup.html",
}


@pytest.mark.browser
def test_the_search_of_a_page_from_a_folder_finds_the_answer_first(tmp_path: pathlib.Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    build_site(tmp_path)
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        for words, found in SEARCHED.items():
            page.goto((tmp_path / "index.html").as_uri())
            page.locator(".md-search__input").click()
            expect(page.locator(".md-search-result__meta")).to_have_text("Type to start searching")
            page.keyboard.type(words, delay=30)  # ms, as a person does
            first = page.locator("a.md-search-result__link").first
            expect(first).to_have_attribute("href", re.compile(re.escape(found)))
        browser.close()
