"""Reads the tokens of a condition in SQL, and joins what has one type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlbuffer.core.sql_functions import OPERATOR_SIGNS
from sqlbuffer.core.sql_tokens import Token
from sqlbuffer.core.sql_values import Group, Value

_END = Token("", "", "", 0, 0)


@dataclass
class Node:
    """An expression: its type, the values of the metas within it, and the one that it is itself.

    Attributes:
        is_whole: Whether it is an integer of each database, such as a length.
    """

    group: Group = field(default_factory=Group)
    values: tuple[Value, ...] = ()
    itself: Value | None = None
    items: tuple[Node, ...] = ()
    is_whole: bool = False


class Reader:
    """The tokens of a condition, and how far they are read.

    Args:
        tokens: The condition.
        columns: Types of columns by their names, in lower case.

    Attributes:
        values: The values of the metas, in the order of the text.
        groups: What has one type.
        may_be_times: Literals and words that may be compared with a time.
        divided: First and last tokens of expressions that are divided, and may be integers.
    """

    def __init__(self, tokens: Sequence[Token], columns: Mapping[str, type]) -> None:
        self._tokens = tokens
        self._columns = columns
        self._at = 0
        self.groups: list[Group] = []
        self.values: list[Value] = []
        self.may_be_times: list[tuple[Token, Group]] = []
        self.divided: list[tuple[Token, Token]] = []

    # -- tokens ------------------------------------------------------------------------------------

    def _token(self, ahead: int = 0) -> Token:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else _END

    def _next(self) -> Token:
        self._at += 1
        return self._token(-1)

    def _takes(self, *words: str) -> bool:
        """Read a token if it is one of these words."""
        if self._token().word not in words:
            return False
        self._at += 1
        return True

    def _operator_of_signs(self) -> str:
        """Return the signs that stand together from here on; without + and -, which are signs of
        numbers there.
        """
        ahead, found = 0, ""
        while (token := self._token(ahead)).kind == "sign" and OPERATOR_SIGNS.issuperset(
            token.text
        ):
            if ahead and token.start != self._token(ahead - 1).end:
                break
            found += token.text
            ahead += 1
        return found

    def _progress(self, read: Callable[[], Node]) -> Node:
        """Read an expression, at least one token."""
        at = self._at
        node = read()
        self._at = max(self._at, at + 1)
        return node

    # -- types -------------------------------------------------------------------------------------

    def _node(self, kind: type | None, *parts: Node) -> Node:
        """Return an expression of its own type that is made of others."""
        values = tuple(value for part in parts for value in part.values)
        about = values[0].text if values else ""
        group = Group(*([] if kind is None else [kind]), about=about)
        self.groups.append(group)
        return Node(group, values)

    def _require(self, kind: type, *nodes: Node) -> None:
        """Give operands of one operator a type, if a value of the metas is among them."""
        about = next((value.text for node in nodes for value in node.values), "")
        for node in nodes if about else ():
            root = node.group.root
            root.kinds.add(kind)
            root.about = root.about or about

    def _is_true(self, *nodes: Node) -> None:
        self._require(bool, *nodes)

    def _join(self, *nodes: Node) -> None:
        first, *others = nodes
        for other in others:
            first.group.join(other.group)
            if len(first.items) == len(other.items):
                for pair in zip(first.items, other.items, strict=True):
                    self._join(*pair)
