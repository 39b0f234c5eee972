"""Conditions in SQL: what is taken for a value of the metas, and what is left as it is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbuffer.core.sql_condition import SqlCondition
from sqlbuffer.errors import InvalidArgument

UNTOUCHED = [
    "'meta.mw'",
    "'it''s meta.mw'",
    r"E'it\'s meta.mw'",
    r"e'\\'",
    "$$ meta.mw ' $$",
    "$a$ $$ meta.mw $a$",
    "`meta.mw`",
    "-- it's meta.mw\n",
    "/* it's meta.mw */",
    "/* /* ' */ meta.mw */",
    "x.meta.mw",
    "metas.mw",
    "a_meta.mw",
    "meta IS NULL",
    "json_extract(meta, '$.mw')",
    "reward > .5e-3",
    "a[1]::text",
    "(source = 'x')",
]
VALUES = {
    "meta.mw": "mw",
    "META . mw": "mw",
    '"meta"."LogP (2)"': "LogP (2)",
    'meta."a "" b"': 'a " b',
    "meta.größe": "größe",
    "meta.a.b": "a.b",
    "meta.2d": "2d",
    "meta.a$b": "a$b",
}


@given(st.lists(st.sampled_from([*UNTOUCHED, *VALUES]), min_size=1))
def test_only_values_of_the_metas_are_replaced(parts: list[str]) -> None:
    found = SqlCondition(" , ".join(parts))
    columns = list(found.columns)
    kept = [re.sub(r'"meta \d+"', "VALUE", part) for part in found.sql.split(" , ")]
    assert kept == ["VALUE" if part in VALUES else part for part in parts]
    assert {name for name in columns if name.startswith("meta ")} == set(
        re.findall(r'"(meta \d+)"', found.sql)
    )
    assert [value.path for value in found._values] == [
        (VALUES[part],) for part in parts if part in VALUES
    ]


WORDS = [
    *("meta.x", "meta.y->>'k'", "reward", "1", "2.5", "'a'", "true", "NULL", "samples"),
    *("(", ")", ",", "[", "]", "::", "text", "CAST(", "AS", "real", "CASE", "WHEN", "THEN", "ELSE"),
    *("END", "AND", "OR", "NOT", "IN", "BETWEEN", "IS", "LIKE", "ESCAPE", "=", "<", "+", "-", "*"),
    *("/", "%", "||", "->", "->>", "~", "lower(", "coalesce(", "f(", "EXISTS", "SELECT", "FROM"),
    *("WHERE", "VALUES", "ARRAY", "DISTINCT", "COLLATE", ";", ".", "DATE", "ISNULL", "@>"),
]


@given(st.lists(st.sampled_from(WORDS), max_size=30))
def test_any_words_are_read_to_their_end(words: list[str]) -> None:
    text = " ".join(words)
    try:
        found = SqlCondition(text)
    except InvalidArgument as exc:
        assert "where" in str(exc)  # noqa: PT017
    else:
        n = sum(word.startswith("meta.") for word in words)
        assert len(found._values) == n
        assert "meta." not in found.sql


def test_a_deep_condition_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="nests too deep"):
        SqlCondition("(" * 10_000 + "meta.x > 1" + ")" * 10_000)


@given(st.text(st.sampled_from("'\"`$/*-.meta \n\\E1>")))
def test_any_text_is_read_to_its_end(text: str) -> None:
    try:
        assert SqlCondition(text).text == text
    except InvalidArgument as exc:
        assert "is the name of no column" in str(exc)  # noqa: PT017


@given(st.sampled_from(["reward > 1", "text = 'state'", "id < 3 -- sample", "source IN ('a')"]))
def test_a_condition_on_the_table_is_left_as_it_is(text: str) -> None:
    found = SqlCondition(text)
    assert (found.sql, found.columns) == (text, {})
