"""Reads operands in a condition in SQL: values of the metas, columns, functions, casts."""

from __future__ import annotations

import abc
import datetime as dt

from sqlbuffer.core import sql_times
from sqlbuffer.core.meta_values import Path
from sqlbuffer.core.sql_functions import (
    CASTS,
    CLAUSES,
    CONDITIONS,
    FUNCTIONS,
    IN_ARGUMENTS,
    OF_TIME,
    QUERIES,
    Use,
)
from sqlbuffer.core.sql_reader import Node, Reader
from sqlbuffer.core.sql_tokens import Token
from sqlbuffer.core.sql_values import Group, Value, shown_sql
from sqlbuffer.errors import InvalidArgument

NESTED = ("->", "->>")
"""Operators for what is within a value."""


class Operands(Reader, abc.ABC):
    """What stands between operators. `Types` reads expressions, of which operands are made."""

    @abc.abstractmethod
    def _expression(self) -> Node:
        """Read an expression, which ends where none of its operators follows."""

    @abc.abstractmethod
    def _whole(self, word: str, *nodes: Node) -> None:
        """Note that an operator or a function takes integers alone."""

    # -- operands ----------------------------------------------------------------------------------

    def _signed(self) -> Node:
        if self._takes("+", "-", "~"):
            operand = self._signed()
            self._require(float, operand)
            return self._node(float, operand) if operand.values else operand
        start = self._at
        node = self._operand()
        while True:
            if self._takes("::"):
                node = self._cast(node, self._type(), start)
            elif self._takes("COLLATE"):
                self._at += 1
            elif self._token().word == "AT" and self._token(1).word == "TIME":
                self._at += 3  # AT TIME ZONE
                self._signed()
                node = self._node(dt.datetime, node)
            elif self._takes("["):
                while self._at < len(self._tokens) and not self._takes("]"):
                    self._progress(self._expression)
                node = self._node(None)
            else:
                return node

    def _operand(self) -> Node:
        token = self._next()
        if token.key:
            return self._value(token)
        if token.kind == "text":
            return self._may_be_time(token, self._node(str))
        if token.kind == "number":
            node = self._node(float)
            node.group.numbers.append(token)
            return node
        if token.word == "(":
            self._at -= 1
            found = self._listed()
            return found[0] if len(found) == 1 else Node(items=tuple(found))
        read = {
            "CASE": self._case,
            "CAST": self._cast_call,
            "EXISTS": self._exists,
            "TRUE": lambda: self._node(bool),
            "FALSE": lambda: self._node(bool),
            "NULL": lambda: self._node(None),
            "ARRAY": self._array,
        }.get(token.word)
        if read is not None:
            return read()
        if token.kind != "name":
            return self._node(None)
        return self._named(token)

    def _value(self, token: Token) -> Node:
        """Read a value of the metas, and keys and numbers of what is within it."""
        start, path, arrow = self._at - 1, [token.key], ""
        steps: list[str | int] = [*path]
        while self._token().word in NESTED:
            arrow = self._next().word
            literal = self._next()
            if literal.kind == "text" and literal.text.startswith("'"):
                steps.append(literal.text[1:-1].replace("''", "'"))
            elif literal.kind == "number" and literal.text.isdigit() and len(literal.text) < 10:
                steps.append(int(literal.text))
            else:
                raise InvalidArgument(
                    f"where has {shown_sql(arrow + ' ' + literal.text)} after {token.text}: a key "
                    "in single quotes, or a place in a list from 0 on, stands there."
                )
        text = " ".join(each.text for each in self._tokens[start : self._at])
        if arrow == "->":
            raise InvalidArgument(
                f"where has {shown_sql(text)}, which is JSON: ->> in the place of the last -> is "
                "its value."
            )
        return self._of_value(text, tuple(steps), start)

    def _of_value(self, text: str, path: Path, start: int) -> Node:
        group = Group(about=text)
        value = Value(text, path, self._tokens[start].start, self._token(-1).end, group)
        group.values.append(value)
        self.groups.append(group)
        self.values.append(value)
        return Node(group, (value,), value)

    def _named(self, token: Token) -> Node:
        """Read a column, or a function and its arguments."""
        name = token.text
        while self._token().text == "." and self._token(1).kind == "name":
            self._at += 1
            name = self._next().text
        if self._token().word == "(":
            begin = [token, *self._tokens[self._at : self._at + 1 + (self._token(1).text == ")")]]
            words = "".join(each.word for each in begin)
            call = Token(token.kind, words, "", token.start, begin[-1].end)
            found = self._function(name.strip('"`').upper())
            return self._may_be_time(call, found) if words in sql_times.WORDS else found
        if self._token().kind == "text":  # interval '1 day', x'00'
            self._at += 1
            return self._node(dt.datetime if name.upper() in OF_TIME else None)
        found = self._node(self._columns.get(name.strip('"`').lower()))
        return self._may_be_time(token, found) if token.word in sql_times.WORDS else found

    def _may_be_time(self, token: Token, node: Node) -> Node:
        self.may_be_times.append((token, node.group))
        return node

    def _function(self, name: str) -> Node:
        given = self._listed()
        known = FUNCTIONS.get(name)
        is_array = name in ("ANY", "ALL", "SOME") and self._token(-2).kind == "text"
        if known is None or is_array:  # the text '{1, 2}' is an array of any type
            return self._unknown(*given)
        kinds = [known.arguments[min(i, len(known.arguments) - 1)] for i in range(len(given))]
        same = [node for node, kind in zip(given, kinds, strict=True) if kind is None]
        for each in (str, float, bool):
            self._require(each, *(n for n, kind in zip(given, kinds, strict=True) if kind is each))
        is_whole = known.result is int
        result = self._node(float if is_whole else known.result, *given)
        result.is_whole = is_whole
        if known.result is None and same:
            self._join(*same)
            same[0].group.root.is_compared |= name == "NULLIF"
            result = Node(same[0].group, result.values)
        if known.use is Use.WHOLE:
            self._whole(name.lower(), *given)
        elif known.use is not None:
            for value in result.values:
                value.uses.add(known.use)
        return result

    def _unknown(self, *nodes: Node) -> Node:
        """Return what a function or an operator gives that is not known here."""
        for node in nodes:
            if node.itself is not None:
                node.itself.may_be_nested = True
        return self._node(None)

    def _listed(self) -> list[Node]:
        """Read a list in parentheses, or a subquery."""
        if self._token(1).word in QUERIES:
            self._at += 1
            return [self._query()]
        self._at += 1
        found = []
        while self._at < len(self._tokens) and not self._takes(")"):
            if not self._takes(",", "*", *IN_ARGUMENTS):
                found.append(self._progress(self._expression))
        return found or [self._node(None)]

    def _query(self) -> Node:
        """Read a subquery up to its parenthesis; its type is that of its first column."""
        first, last = None, ""
        while self._at < len(self._tokens) and not self._takes(")"):
            if self._token().word in CLAUSES or self._token().word in (",", "*"):
                last = self._next().word
                continue
            node = self._progress(self._expression)
            if last in CONDITIONS:
                self._is_true(node)
            elif last in ("SELECT", "ALL", "DISTINCT", "VALUES"):
                first = first or node
            last = ""
        return first or self._node(None)

    def _case(self) -> Node:
        operand = None if self._token().word == "WHEN" else self._progress(self._expression)
        results, parts = [], [] if operand is None else [operand]
        while self._at < len(self._tokens) and not self._takes("END"):
            if self._takes("WHEN"):
                when = self._expression()
                parts.append(when)
                if operand is None:
                    self._is_true(when)
                else:
                    self._join(operand, when)
            elif self._takes("THEN", "ELSE"):
                results.append(self._expression())
            else:
                self._at += 1
        if not results:
            return self._node(None)
        self._join(*results)
        return Node(results[0].group, self._node(None, *parts, *results).values)

    def _exists(self) -> Node:
        if self._token().word == "(":
            self._listed()
        return self._node(bool)

    def _array(self) -> Node:
        """Read the elements of an array, which `= ANY (ARRAY[1, 2])` compares."""
        found = []
        if self._takes("["):
            while self._at < len(self._tokens) and not self._takes("]"):
                if not self._takes(","):
                    found.append(self._progress(self._expression))
        if not found:
            return self._node(None)
        self._join(*found)
        return found[0]

    # -- casts -------------------------------------------------------------------------------------

    def _cast_call(self) -> Node:
        start = self._at - 1
        if not self._takes("("):
            return self._node(None)
        node = self._progress(self._expression)
        self._takes("AS")
        words = self._type()
        while self._at < len(self._tokens) and not self._takes(")"):
            words += f" {self._next().text}"
        return self._cast(node, words, start)

    def _type(self) -> str:
        """Read the name of a type, with its length and brackets."""
        words = [self._next().text.upper()]
        while self._token().word in ("PRECISION", "VARYING"):
            words.append(self._next().word)
        while self._token().word in ("(", "["):
            while self._at < len(self._tokens):
                words.append(self._next().text)
                if words[-1] in (")", "]"):
                    break
        return " ".join(words)

    def _cast(self, node: Node, words: str, start: int) -> Node:
        """Return the value that a CAST gives, of which a value of the metas takes the type.

        Raises:
            InvalidArgument: If the databases would cast it in different ways.
        """
        kind = CASTS.get(words)
        if not node.values:
            return self._node(kind)
        value = node.itself
        if value is None or value.cast is not None:
            raise InvalidArgument(
                f"where casts what is made of {shown_sql(node.values[0].text)}, which the "
                "databases do in different ways: CAST takes meta.NAME alone, so compare text with "
                "text, such as substr(meta.date, 6, 2) = '07', and numbers with numbers."
            )
        if kind is None:
            raise InvalidArgument(
                f"where casts {shown_sql(value.text)} to {shown_sql(words)}, which the databases "
                f"do in different ways: {_way_out(words)}"
            )
        value.cast = kind
        value.start = self._tokens[start].start
        value.end = self._token(-1).end
        self._require(kind, node)
        return node


def _way_out(words: str) -> str:
    """Return what a value of the metas can be instead of a type that it is not cast to."""
    if words.split()[0] in OF_TIME:
        return "compare times as text, whose order is theirs: meta.date >= '2026-01-31'."
    return (
        "TEXT, REAL and BOOLEAN are the types for a value of the metas, and round or floor makes "
        "an integer."
    )
