"""Pages of the documentation that are run as a reader would: from the first code block to the last.

A block with a title is a file, which is written. `python` is executed, all blocks of a page in one
namespace; each line of `sh` is a command; `text` is what a command printed, and is not run.
"""

import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
from typing import NamedTuple

from helpers import commands

BLOCK = re.compile(r"^(?P<indent> *)```(?P<info>.*)\n(?P<code>(?:.*\n)*?)(?P=indent)```$", re.M)
TITLE = re.compile(r'title="(?P<title>[^"]+)"')
NOT_RUN = ("text", "mermaid")
KNOWN = ("python", "sh", "sql", "csv", *NOT_RUN)


class Block(NamedTuple):
    """A code block of a page."""

    language: str
    title: str | None
    code: str
    line: int


def blocks_of(text: str) -> list[Block]:
    """Return the code blocks of a page, in their order."""
    return [
        Block(
            language=found["info"].split(maxsplit=1)[0] if found["info"] else "",
            title=title["title"] if (title := TITLE.search(found["info"])) else None,
            code=re.sub(f"^{found['indent']}", "", found["code"], flags=re.M),
            line=text.count("\n", 0, found.start()) + 1,
        )
        for found in BLOCK.finditer(text)
    ]


def without_blocks(text: str) -> str:
    """Return the text of a page without its code blocks."""
    return BLOCK.sub("", text)


def run(page: pathlib.Path, url: str | None = None) -> None:
    """Run the blocks of a page in the working directory.

    Args:
        page: The page.
        url: Database to put in the place of `postgresql://me@server/lab`.
    """
    sys.path.insert(0, ".")  # files of the page are modules, as with `python` and `-m`
    namespace = {"__name__": "__main__"}
    for block in blocks_of(page.read_text()):
        code = block.code.replace("postgresql://me@server/lab", url or "")
        try:
            _run(block, code, namespace)
        except BaseException as exc:
            exc.add_note(f"{page.name}, line {block.line}") if sys.version_info >= (3, 11) else None
            raise


def _run(block: Block, code: str, namespace: dict[str, object]) -> None:
    assert block.language in KNOWN, f"line {block.line}: which language is {block.language!r}?"
    if block.title is not None:
        pathlib.Path(block.title).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(block.title).write_text(code)
    elif block.language == "python":
        exec(compile(code, f"line {block.line}", "exec"), namespace)
    elif block.language == "sh":
        for line in code.replace("\\\n", " ").splitlines():
            _command(line)


def _command(line: str) -> None:
    """Run a command; Python and sqlbuffer in this process, which has everything imported."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["export"]:
        os.environ.update([words[1].split("=", 1)])
    elif words[:1] == ["python"]:
        runpy.run_path(words[1], run_name="__main__")
    elif words[:1] == ["sqlbuffer"] and not {"|", "&", ">"} & set(words):
        result = commands.run(*words[1:], url=os.environ.get("SQLBUFFER_URL"))
        print(result.out, result.err)
        assert result.code == 0, line
    else:
        subprocess.run(["bash", "-ec", line], check=True)
