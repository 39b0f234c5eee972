"""The questions of docs/schema.md with their SQL, for a buffer of any name."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re

_SECTION = re.compile(r"^### (.+?)\n(.*?)^```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)
_EXAMPLE = "'celecoxib-ucb-0'"
"""The buffer of the page."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A question, and the SQL that answers it.

    Attributes:
        slug: Its name in a URL.
        question: The question.
        sql: The SQL, of the buffer of the page.
    """

    slug: str
    question: str
    sql: str

    def of_buffer(self, name: str) -> str:
        """Return the SQL for another buffer."""
        return self.sql.replace(_EXAMPLE, "'{}'".format(name.replace("'", "''")))


@functools.cache
def recipes() -> tuple[Recipe, ...]:
    """Return the questions in the order of the page, which the wheel holds."""
    package = pathlib.Path(__file__).parents[1]
    shipped = package / "web" / "schema.md"
    page = shipped if shipped.exists() else package.parent / "docs" / "schema.md"
    text = page.read_text(encoding="utf-8").partition("\n## Questions\n")[2]
    text = text.partition("\n## ")[0]
    return tuple(
        Recipe("-".join(re.findall(r"[a-z0-9]+", question.lower())), question, sql.strip())
        for question, _, sql in (
            (found[1], found[2], found[3]) for found in _SECTION.finditer(text + "\n")
        )
    )
