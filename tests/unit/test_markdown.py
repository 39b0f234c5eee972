"""Markdown has one sentence a line, and table cells of at most 120 characters: diffs stay small,
tables readable. A page is short, and the first one leads to answers.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
CODE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
FRONT_MATTER = re.compile(r"\A---\n.*?^---$", re.MULTILINE | re.DOTALL)
NEXT_SENTENCE = re.compile(r"""[.!?]["')*]* (?=[("'*\[]*[A-Z])""")
PARAGRAPH_START = re.compile(r"\s*(?:$|[#|>!]|:::|[-*] |\d+\. )")


def without_code(text: str) -> str:
    return CODE.sub("", FRONT_MATTER.sub("", text))


def faults(text: str) -> list[str]:
    """Find lines with two sentences, lines that end within a sentence, and cells that
    are too long.
    """
    found, unfinished = [], ""
    for line in without_code(text).splitlines():
        if unfinished and not PARAGRAPH_START.match(line):
            found.append(f"ends within a sentence: {unfinished}")
        if line.startswith("|"):
            found += [
                f"cell too long: {cell}" for cell in line.split("|") if len(cell.strip()) > 120
            ]
        elif NEXT_SENTENCE.search(re.sub(r"`[^`]*`", "X", re.sub(r"^\s*\d+\. ", "", line))):
            found.append(f"two sentences: {line}")
        is_open = not PARAGRAPH_START.match(line) or re.match(r"\s*(?:[-*] |\d+\. )", line)
        unfinished = line if is_open and not re.search(r"""[.!?:;]["')*]*$""", line) else ""
    return found


def test_one_sentence_a_line_and_short_cells() -> None:
    assert {page.name: found for page in PAGES if (found := faults(page.read_text()))} == {}


def test_faults_are_found() -> None:
    assert (
        faults(
            "One sentence.\nAnother `a. B` one, e.g. this.\n\n- An item\n- (An item.)\n\n1. One.\n"
        )
        == []
    )
    assert faults("```\nA. B\nC\n```\n") == []
    for text in ("One. Two.\n", "A sentence\nover two lines.\n", f"| {'x' * 121} |"):
        assert len(faults(text)) == 1


def test_no_page_is_long() -> None:
    """Of lines of text: code and tables are not read from top to bottom."""
    pages = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]
    for page in pages:
        lines = [line.strip() for line in without_code(page.read_text()).splitlines()]
        assert sum(bool(line) and not line.startswith("|") for line in lines) <= 150, page


QUESTIONS = {
    "minimise": "Minimise",
    "retry failures": "Retry failures",
    "add a worker on another host": "Add a worker on another host",
    "a power cut": "What a power cut may take",
    "who holds a batch": "Who holds a batch",
    "leave": "export everything",
}


def test_the_first_page_leads_to_answers_under_headings_of_the_same_words() -> None:
    start = ROOT / "docs" / "index.md"
    rows = re.findall(r"^\| (.*\?) \| \[(.*)\]\((.*)#(.*)\) \|$", start.read_text(), re.MULTILINE)
    for question, words in QUESTIONS.items():
        (found,) = [row for row in rows if question in row[0].lower()]
        _, title, page, anchor = found
        assert words in title
        assert f"\n## {title}\n" in (start.parent / page).read_text()
        assert anchor == re.sub(r"[^a-z ]", "", title.lower()).replace(" ", "-")
    assert "docs/index.md#find-it-fast" in (ROOT / "README.md").read_text()
