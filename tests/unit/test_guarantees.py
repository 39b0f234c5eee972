"""Each sentence of `docs/guarantees*.md` has a test that would notice, and each promise of the
README is one of these sentences.
"""

import inspect
import pathlib
import re

from sqlbuffer.store import open_store
from sqlbuffer.training import Buffer

ROOT = pathlib.Path(__file__).parents[2]
TABLE = "\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("guarantees*.md")))
SECTIONS = re.findall(r"^> ([^\n]*)\n\n(.*?)(?=^> |^#|\Z)", TABLE, re.MULTILINE | re.DOTALL)


def test_every_promise_of_the_readme_is_one_of_the_page() -> None:
    section = (
        (ROOT / "README.md").read_text().split("\n## What it guarantees\n")[1].split("\n## ")[0]
    )
    promises = re.findall(r"\*\*(.*?)\*\*", section)
    assert len(promises) > 10
    for promise in promises:
        assert any(promise.lower() in sentence.lower() for sentence, _ in SECTIONS), promise


def test_every_sentence_has_its_tests() -> None:
    for sentence, tests in SECTIONS:
        assert re.search(r"^- `tests/\w+/test_\w+\.py::test_\w+`", tests, re.MULTILINE), sentence
        assert "  - the change: " in tests, sentence


def test_every_test_that_is_named_is_there() -> None:
    for _, tests in SECTIONS:
        for line in tests.splitlines():
            file = re.search(r"tests/(\w+/test_\w+\.py)::", line)
            names = re.findall(r"(?:`|::)(test_\w+)`", line)
            assert bool(file) == bool(names), line
            if file:
                code = (ROOT / "tests" / file[1]).read_text()
                assert [name for name in names if f"def {name}(" not in code] == [], line


def test_silence_is_a_minute_unless_one_says_otherwise() -> None:
    assert {
        inspect.signature(opener).parameters["grace_s"].default for opener in (open_store, Buffer)
    } == {60.0}
