"""Reads a condition in SQL for the types of the values of the metas in it.

JSON has no type of SQL, and the databases differ in what they do with a value of another type than
an operator takes: PostgreSQL refuses it, and SQLite goes on. Both therefore get values of one type,
which is that of the operands next to it. The grammar is that of expressions, of both databases;
what it does not know tells nothing of types, and the database judges it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from sqlbuffer.core.sql_functions import ADDING, BITWISE, COMPARING, MULTIPLYING, OF_TEXT, Use
from sqlbuffer.core.sql_operands import NESTED, Operands
from sqlbuffer.core.sql_reader import Node
from sqlbuffer.core.sql_tokens import Token
from sqlbuffer.errors import InvalidArgument

KNOWN = {*COMPARING, *OF_TEXT, *MULTIPLYING, *BITWISE, *NESTED, "||", "*"}

_OR, _AND, _NOT, _COMPARED, _ADDED, _MULTIPLIED = range(6)


class Types(Operands):
    """The values of the metas in a condition, with what tells their types.

    Args:
        tokens: The condition.
        columns: Types of columns by their names, in lower case.

    Attributes:
        values: The values, in the order of the text.

    Raises:
        InvalidArgument: If a value would have two types, or is used in a way in which the databases
            differ.
    """

    def __init__(self, tokens: Sequence[Token], columns: Mapping[str, type]) -> None:
        super().__init__(tokens, columns)
        try:
            self._is_true(self._expression())
            while self._at < len(tokens):  # no SQL, or a part that is not known here
                self._progress(self._expression)
        except RecursionError:
            raise InvalidArgument(
                "where nests too deep for values of the metas: take parentheses out."
            ) from None
        for group in {id(each.root): each.root for each in self.groups}.values():
            group.require_one_type()

    @property
    def integers(self) -> list[Token]:
        """Integers in the text next to values that are divided: SQLite would drop the rest."""
        groups = {id(each.group.root): each.group.root for each in self.values}
        return [
            number
            for group in groups.values()
            if any(Use.FLOAT in value.uses for value in group.values)
            for number in group.numbers
            if number.text.isdigit()
        ]

    @property
    def times(self) -> list[Token]:
        """Literals and words that are compared with a time."""
        return [token for token, group in self.may_be_times if dt.datetime in group.root.kinds]

    # -- operators ---------------------------------------------------------------------------------

    def _expression(self, level: int = _OR) -> Node:
        """Read an expression whose operators bind as tightly as this level, or more."""
        start = self._at
        if level <= _NOT and self._takes("NOT"):
            operand = self._expression(_NOT)
            self._is_true(operand)
            left = self._node(bool, operand)
        else:
            left = self._signed()
        while (found := self._operator(left, level, start)) is not None:
            left = found
        return left

    def _operator(self, left: Node, level: int, start: int) -> Node | None:
        """Read an operator and what follows it; None if there is none of this level.

        `start` is the number of the first token of what stands before it.
        """
        word = self._token().word
        for least, words in ((_OR, {"OR"}), (_AND, {"AND"})):
            if word in words and level <= least:
                self._at += 1
                right = self._expression(least + 1)
                self._is_true(left, right)
                return self._node(bool, left, right)
        signs = self._operator_of_signs()
        if signs.rstrip("*") not in KNOWN | {""}:
            if level > _ADDED:
                return None
            while signs:
                signs = signs[len(self._next().text) :]
            return self._unknown(left, self._expression(_MULTIPLIED))
        if level <= _COMPARED and (found := self._comparison(left)) is not None:
            return found
        if level <= _ADDED and word in (ADDING | BITWISE | {*NESTED}):
            self._at += 1
            return self._computed(word, left, self._expression(_MULTIPLIED))
        if level <= _MULTIPLIED and word in MULTIPLYING:
            self._at += 1
            dividend = self._tokens[start], self._tokens[self._at - 2]
            found = self._computed(word, left, self._signed())
            if word == "/" and found.values and left.itself is None:
                self.divided.append(dividend)
            return found
        return None

    def _computed(self, word: str, left: Node, right: Node) -> Node:
        if word in NESTED:  # of a column of the database
            return self._node(None)
        if word == "||":
            self._require(str, left, right)
            return self._node(str, left, right)
        self._require(float, left, right)
        result = self._node(float, left, right)
        if word == "%" or word in BITWISE:
            self._whole(word, left, right)
            result.is_whole = True
        else:
            for value in result.values:
                value.uses.add(Use.FLOAT)
        return result

    def _whole(self, word: str, *nodes: Node) -> None:
        """Note that values are integers, for an operator that has no meaning for others.

        Raises:
            InvalidArgument: If an operand is computed of values of the metas.
        """
        if not any(node.values for node in nodes):
            return
        for node in (each for each in nodes if not each.is_whole):
            root = node.group.root
            is_one_type = all(v.group.root is root and v.cast is None for v in node.values)
            numbers = root.numbers
            if (
                is_one_type
                and all(each.text.isdigit() for each in numbers)
                and (node.values or numbers)
            ):
                for value in node.values:
                    value.uses.add(Use.WHOLE)
            else:
                raise InvalidArgument(
                    f"where has {word} with an operand that may have a fraction, which SQLite cuts "
                    f"off and PostgreSQL does not: {word} takes meta.NAME and integers, as in "
                    "meta.NAME % 2 = 1."
                )

    def _comparison(self, left: Node) -> Node | None:
        is_not = self._token().word == "NOT"
        word = self._token(is_not).word
        if is_not and word == "NULL":  # of SQLite
            self._at += 2
            return self._null_test(left)
        known = {"IN", "BETWEEN", *OF_TEXT}
        if word not in known | (set() if is_not else {*COMPARING, "IS", "ISNULL", "NOTNULL"}):
            return None
        self._at += 1 + is_not
        if word in ("ISNULL", "NOTNULL"):
            return self._null_test(left)
        if word == "IS":
            return self._is(left)
        if word in OF_TEXT:
            return self._like(word, left)
        if word == "BETWEEN":
            self._takes("SYMMETRIC", "ASYMMETRIC")
            low = self._expression(_ADDED)
            self._takes("AND")
            parts = [left, low, self._expression(_ADDED)]
        elif word == "IN" and self._token().word == "(":
            parts = [left, *self._listed()]
        else:
            parts = [left, self._expression(_ADDED)]
        self._join(*parts)
        return self._node(bool, *parts)

    def _null_test(self, left: Node) -> Node:
        left.group.root.is_null_test = True
        return self._node(bool, left)

    def _is(self, left: Node) -> Node:
        self._takes("NOT")
        word = self._token().word
        if self._takes("NULL"):
            return self._null_test(left)
        if self._takes("TRUE", "FALSE", "UNKNOWN"):
            self._is_true(left)
            return self._node(bool, left)
        if word == "DISTINCT":
            self._at += 1
            self._takes("FROM")
        right = self._expression(_ADDED)
        self._join(left, right)
        return self._node(bool, left, right)

    def _like(self, word: str, left: Node) -> Node:
        if word == "SIMILAR":
            self._takes("TO")
        if word in ("~", "!~", "~~", "!~~"):
            self._takes("*")
        right = self._expression(_ADDED)
        self._require(str, left, right)
        if self._takes("ESCAPE"):
            self._expression(_ADDED)
        return self._node(bool, left, right)
