"""Words of SQL that tell the types of their operands: functions, operators and types of CAST."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Use(enum.Enum):
    """What a number is used for."""

    FLOAT = "arithmetic of floats, as Python computes: SQLite would divide integers without rest"
    DECIMAL = "a function that PostgreSQL has for numeric alone, such as `round` of two numbers"
    WHOLE = "a remainder, for which SQLite cuts numbers to integers"


class Function(NamedTuple):
    """A function that both databases have, or one of them.

    Attributes:
        arguments: Types of its arguments, the last one for all that follow; None for the type that
            all of these have.
        result: The type of its value, `int` for a number without a fraction; None for that of its
            arguments.
        use: What its numbers are used for.
    """

    arguments: tuple[type | None, ...]
    result: type | None
    use: Use | None = None


def _functions(names: str, *given: type | None, use: Use | None = None) -> dict[str, Function]:
    return dict.fromkeys(names.upper().split(), Function(given[:-1], given[-1], use))


FUNCTIONS: dict[str, Function] = {
    **_functions("lower upper initcap trim ltrim rtrim btrim replace translate reverse", str, str),
    **_functions("md5 quote_literal regexp_replace", str, str),
    **_functions("substr substring left right repeat", str, float, str),
    **_functions("lpad rpad", str, float, str, str),
    **_functions("split_part", str, str, float, str),
    **_functions("length char_length character_length octet_length", str, int),
    **_functions("instr strpos position unicode ascii", str, int),
    **_functions("starts_with regexp_like", str, bool),
    **_functions("abs ceil ceiling floor", float, float),
    **_functions("sign", float, int),
    **_functions("round trunc log", float, float, use=Use.DECIMAL),
    **_functions(
        "sqrt cbrt exp ln log10 log2 pow power degrees radians", float, float, use=Use.FLOAT
    ),
    **_functions("sin cos tan asin acos atan atan2 sinh cosh tanh", float, float, use=Use.FLOAT),
    **_functions("mod", float, int, use=Use.WHOLE),
    **_functions("coalesce ifnull nullif min max greatest least", None, None),
    **_functions("any all some array", None, None),
}
"""Functions by name, in capitals."""

CASTS: dict[str, type] = {
    **dict.fromkeys(("TEXT", "VARCHAR", "CHARACTER VARYING"), str),
    **dict.fromkeys(("REAL", "FLOAT", "FLOAT8", "DOUBLE", "DOUBLE PRECISION"), float),
    **dict.fromkeys(("NUMERIC", "DECIMAL"), float),
    **dict.fromkeys(("BOOLEAN", "BOOL"), bool),
}
"""Types that a value of the metas may be cast to, by what they are here."""

COMPARING = {"=", "==", "!=", "<>", "<", "<=", ">", ">="}
OF_TEXT = {"LIKE", "ILIKE", "GLOB", "REGEXP", "SIMILAR", "~", "!~", "~~", "!~~"}
ADDING = {"+", "-", "||"}
MULTIPLYING = {"*", "/", "%", "^"}
BITWISE = {"&", "|", "<<", ">>"}
OPERATOR_SIGNS = set("*/<>=~!@#%^&|?")
"""Characters of operators, of which PostgreSQL has many, such as `@>`, `?` and `^@`."""
OF_TIME = {"DATE", "TIMESTAMP", "TIMESTAMPTZ"}
"""Words before a literal that is a time."""
QUERIES = {"SELECT", "VALUES", "WITH"}
CONDITIONS = {"WHERE", "HAVING", "ON"}
CLAUSES = {
    *QUERIES,
    *CONDITIONS,
    *"FROM GROUP BY ORDER LIMIT OFFSET UNION INTERSECT EXCEPT ALL DISTINCT JOIN LEFT RIGHT".split(),
    *"FULL INNER OUTER CROSS NATURAL LATERAL USING AS ASC DESC".split(),
}
"""Words between the expressions of a subquery."""
IN_ARGUMENTS = {"FROM", "FOR", "BOTH", "LEADING", "TRAILING", "DISTINCT", "ALL"}
"""Words between the arguments of a function, such as `substring(x FROM 2 FOR 3)`."""
