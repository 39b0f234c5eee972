"""Values of the metas in a condition in SQL: their paths, their types, and the way out of two."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from sqlbuffer._messages import listed
from sqlbuffer.core.meta_values import Form, Path
from sqlbuffer.core.sql_functions import Use
from sqlbuffer.core.sql_tokens import Token
from sqlbuffer.errors import InvalidArgument

WORDS: dict[type, str] = {
    str: "text",
    float: "numbers",
    bool: "true or false",
    dict: "lists or objects",
    dt.datetime: "times",
    bytes: "bytes",
}
WAY_OUT = (
    "compare with values of one type, or tell the type: CAST(meta.NAME AS TEXT), AS REAL or AS "
    "BOOLEAN"
)
_OF_METAS = (str, float, bool)


@dataclass(eq=False)
class Value:
    """A value of the metas, at one place of a condition.

    Attributes:
        text: What the user wrote for it.
        path: Its name, and keys and numbers of what is within it.
        start: The place in the SQL of all that stands for it, with a CAST around it.
        end: The place behind.
        group: What has the same type.
        cast: The type that a CAST gives it.
        may_be_nested: Whether a function that is not known here takes it.
        is_checked: Whether `require_text` was called.
        uses: What it is used for as a number.
    """

    text: str
    path: Path
    start: int
    end: int
    group: Group
    cast: type | None = None
    may_be_nested: bool = False
    is_checked: bool = False
    uses: set[Use] = field(default_factory=set)

    def form_of(self, kind: type) -> Form:
        """Return the form in which the statement has it if it is of this type."""
        if self.cast is str:
            return Form.AS_TEXT
        if kind is not float:
            return {str: Form.TEXT, bool: Form.FLAG}.get(kind, Form.NESTED)
        if Use.WHOLE in self.uses:
            return Form.WHOLE
        is_cast = self.cast is float
        if Use.DECIMAL in self.uses:
            return Form.AS_DECIMAL if is_cast else Form.DECIMAL
        if Use.FLOAT in self.uses:
            return Form.AS_FLOAT if is_cast else Form.FLOAT
        return Form.AS_NUMBER if is_cast else Form.NUMBER

    def require_text(self, has_fractions: Callable[[Path], bool]) -> None:
        """Refuse a CAST to text of numbers that the databases write in several ways.

        Raises:
            InvalidArgument: If there are some.
        """
        if has_fractions(self.path):
            raise InvalidArgument(
                f"where has {shown_sql(self.text)} as text, and samples have numbers there that "
                "are no integers of 64 bits, which the databases write in different ways: compare "
                "them as numbers, CAST(meta.NAME AS REAL)."
            )
        self.is_checked = True


class Group:
    """Expressions that have one type: two sides of `=`, arguments of `coalesce`, a list of IN.

    Attributes:
        kinds: Types that are told: by literals, columns and operators.
        values: Values of the metas among them.
        numbers: Literals among them.
        about: A value of the metas that one of them is made of; "" if there is none.
        is_null_test: Whether IS NULL asks for one.
        is_compared: Whether `nullif` compares them.
    """

    def __init__(self, *kinds: type, about: str = "") -> None:
        self.kinds = set(kinds)
        self.values: list[Value] = []
        self.numbers: list[Token] = []
        self.about = about
        self.is_null_test = self.is_compared = False
        self._joined: Group | None = None

    @property
    def root(self) -> Group:
        """The group that it is part of."""
        found = self
        while found._joined is not None:
            found = found._joined
        return found

    def join(self, other: Group) -> None:
        """Let another group have the same type."""
        into, gone = self.root, other.root
        if into is gone:
            return
        gone._joined = into
        into.kinds |= gone.kinds
        into.values += gone.values
        into.numbers += gone.numbers
        into.about = into.about or gone.about
        into.is_null_test |= gone.is_null_test
        into.is_compared |= gone.is_compared

    @property
    def may_be_any(self) -> bool:
        """Whether it is enough to know if its values are there."""
        return self.is_null_test and not self.is_compared

    def require_one_type(self) -> None:
        """Refuse what PostgreSQL would refuse, and SQLite would answer by some rule of its own.

        Raises:
            InvalidArgument: If a value of the metas would have two types, or one that JSON has not.
        """
        if not self.about:
            return
        if len(self.kinds) > 1:
            raise InvalidArgument(
                f"where takes {shown_sql(self.about)} for {of_kinds(self.kinds)} at once: "
                f"{WAY_OUT}."
            )
        if self.values and not self.kinds <= set(_OF_METAS):
            raise InvalidArgument(
                f"where compares {shown_sql(self.about)} with {of_kinds(self.kinds)}, which JSON "
                "does not have: compare it with text, a number, true or false."
            )
        if float in self.kinds:
            for each in self.numbers:
                _require_exact(each)

    def kind(self, stored: Collection[type]) -> type | None:
        """Return its type by the types of stored values; None if there are none.

        Raises:
            InvalidArgument: If there are several.
        """
        if len(stored) > 1 or (dict in stored and not all(v.may_be_nested for v in self.values)):
            raise InvalidArgument(
                f"where does not tell the type of {shown_sql(self.about)}, and samples have "
                f"{of_kinds(stored)} under this name: {WAY_OUT}."
            )
        return next(iter(stored), None)


def _require_exact(literal: Token) -> None:
    """Refuse a number that SQLite rounds and PostgreSQL does not."""
    try:
        number = Decimal(literal.text)
    except InvalidOperation:
        return  # hexadecimal digits; else the database refuses it
    is_integer = literal.text.isdigit() and number < 2**63
    if not is_integer and Decimal(repr(float(number))) != number:
        raise InvalidArgument(
            f"where compares a value of the metas with {shown_sql(literal.text)}, which has more "
            "digits than a float: write an integer below 2^63, or a number as Python shows it."
        )


def of_kinds(kinds: Iterable[type]) -> str:
    """Return the words for types."""
    found = set(kinds)
    words = [word for kind, word in WORDS.items() if kind in found]
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def shown_sql(text: str) -> str:
    """Return a part of a user's SQL for a message."""
    return listed([" ".join(text.split())])
