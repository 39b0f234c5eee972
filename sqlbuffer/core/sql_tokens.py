"""The tokens of SQL that a user writes; of both databases, by their common rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from sqlbuffer._validation import as_name

_TOKEN = re.compile(
    r"""
      (?P<text> E'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<gap> \s+ | --[^\n]* )
    | (?P<comment> /\* )
    | (?P<value> (?:meta|"meta") \s*\.\s*
        (?: "(?P<quoted>(?:[^"]|"")+)" | (?P<plain>\w[\w$]*(?:\.\w[\w$]*)*) ) )
    | (?P<number> \.?\d (?: [\w.] | (?<=\d[eE])[+-](?=\d) )* )
    | (?P<name> "(?:[^"]|"")*" | `[^`]*` | [^\W\d][\w$]* )
    | (?P<sign> :: | \|\| | ->>? | [<>=!~]+ | . )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


class Token(NamedTuple):
    """A word, a name, a literal or a sign of SQL.

    Attributes:
        kind: "text", "number", "name", "value" (of the metas), or "sign".
        text: The token as it was written.
        key: Name of a value of the metas, empty for other tokens.
        start: Its place in the SQL.
        end: The place behind it.
    """

    kind: str
    text: str
    key: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """A word of SQL in capitals, or a sign; empty for literals and values of the metas."""
        return self.text.upper() if self.kind in ("name", "sign") else ""


def tokens_of(sql: str) -> Iterator[Token]:
    """Return the tokens of SQL, without comments."""
    at, last = 0, ""
    while found := _TOKEN.match(sql, at):
        at = found.end()
        kind = str(found.lastgroup)  # of groups in groups the outer one, which ends last
        if kind == "comment":
            at = _end_of_comment(sql, at)
        elif kind != "gap":
            key = "" if last == "." else _key(found)  # x.meta.y is a name of the database's own
            yield Token(kind, found[0], key, found.start(), at)
            last = found[0]


def _key(found: re.Match[str]) -> str:
    if found["value"] is None:
        return ""
    key = found["plain"] or found["quoted"].replace('""', '"')
    return as_name(key, "a value of the metas")


def _end_of_comment(sql: str, at: int) -> int:
    """Return the end of a comment, in which comments may stand, as PostgreSQL has it."""
    depth = 1
    for found in re.compile(r"/\*|\*/").finditer(sql, at):
        depth += 1 if found[0] == "/*" else -1
        if not depth:
            return found.end()
    return len(sql)
