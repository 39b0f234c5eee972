"""Conditions in SQL: what is taken for a value of the metas, and what is left as it is."""

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


@given(st.lists(st.sampled_from([*UNTOUCHED, *VALUES])))
def test_only_values_of_the_metas_are_replaced(parts: list[str]) -> None:
    found = SqlCondition(" , ".join(parts))
    keys = list(dict.fromkeys(VALUES[part] for part in parts if part in VALUES))
    named = [f'"meta {keys.index(VALUES[part])}"' if part in VALUES else part for part in parts]
    assert found.sql == " , ".join(named)
    assert keys == [name for name, _ in found._values]


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
