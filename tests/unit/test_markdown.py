"""Markdown has one sentence a line, and table cells of at most 120 characters: diffs stay small,
tables readable.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
NEXT_SENTENCE = re.compile(r"""[.!?]["')*]* (?=[("'*\[]*[A-Z])""")
PARAGRAPH_START = re.compile(r"\s*(?:$|[#|>!]|:::|[-*] |\d+\. )")


def faults(text: str) -> list[str]:
    """Find lines with two sentences, lines that end within a sentence, and cells that
    are too long.
    """
    found, unfinished = [], ""
    text = re.sub(r"\A---\n.*?^---$", "", text, flags=re.MULTILINE | re.DOTALL)  # front matter
    for line in re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL).splitlines():
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
