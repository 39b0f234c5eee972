"""A buffer that keeps keys stores the key of each sample as text, however the sample comes in."""

from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.commands import run
from sqlbuffer.db import schema
from sqlbuffer.errors import InvalidArgument, SettingsMismatch
from sqlbuffer.store import SampleStore, open_store


def lower(sample: str) -> str | None:
    """The canonical form of a word; a word with a space has none."""
    return None if " " in sample else sample.lower()


def pair(sample: str) -> tuple[str, int]:
    return sample.lower(), len(sample)


def keys(store: SampleStore) -> dict[str, str | None]:
    rows = inside.rows(
        store,
        sa.select(schema.samples.c.text, schema.samples.c.key).where(
            schema.samples.c.buffer_id == inside.buffer_id(store)
        ),
    )
    return {row.text: row.key for row in rows}


@pytest.mark.parametrize("weighting", ["uniform", "shift"])
def test_every_way_in_stores_the_key(store_url: str, weighting: str) -> None:
    with open_store(store_url, key=lower, keep_key=True, weighting=weighting) as store:
        assert store.add(["Add", "ADD", "a dd"]).refused_at == (2,)
        store.add_one("One")
        store.record(["Record", "Add"], [1.0, 2.0])
        store.replace(store.waiting().ids[-1:], ["Replaced"])
        store.add(["Again"])
        store.score(lambda samples: [1.0] * len(samples))
        batch = store.sample(2)
        batch.settle([3.0] * 2, record=(["Extra", "Again"], [4.0, 5.0], ""))
        store.add(["AGAIN", "New"], requeue=True)
        store._store_unmeasured(["Unmeasured"], [""])
        found = keys(store)
        assert found == {text: text.lower() for text in found}
        assert {*found} == {
            *("Add", "One", "Record", "Replaced", "Again", "Extra", "New", "Unmeasured")
        }
        assert store.check() == []
        with store.copy("copied") as copy:
            assert keys(copy) == found
            assert copy.add(["COPIED"]).added == 1
            assert keys(copy)["COPIED"] == "copied"


def test_a_key_that_is_no_string_is_rendered_as_samples_are(store_url: str) -> None:
    with open_store(store_url, key=pair, keep_key=True) as store:
        store.add(["Abc"])
        assert keys(store) == {"Abc": "('abc', 3)"}


def test_a_sample_that_the_database_has_lost_is_stored_again_with_its_key(store_url: str) -> None:
    with open_store(store_url, key=lower, keep_key=True, weighting="uniform") as store:
        store.add(["Lost"])
        batch = store.sample(1)
        inside.execute(store, sa.delete(schema.samples))
        batch.settle([1.0])
        assert keys(store) == {"Lost": "lost"}


def test_keys_are_shown_to_people(store_url: str) -> None:
    with open_store(store_url, key=lower, keep_key=True, weighting="uniform") as store:
        store.add(["Bad", "Good"])
        batch = store.sample(2)
        batch.settle([1.0 if sample == "Good" else None for sample in batch.samples])
        assert [row["key"] for row in store.top()] == ["good"]
        assert [row["key"] for row in store.failed()] == ["bad"]
    shown = run("sql", "SELECT text, key FROM sample_overview ORDER BY text", url=store_url).out
    assert "Bad" in shown
    assert "bad" in shown
    assert "good" in run("top", url=store_url).out
    assert '"key": "good"' in run("top", "--json", url=store_url).out
    assert "bad" in run("failed", url=store_url).out


def test_a_buffer_that_keeps_no_keys_has_none(store_url: str) -> None:
    with open_store(store_url, key=lower, weighting="uniform") as store:
        store.add(["A"])
        store.record(["B"], [1.0])
        assert keys(store) == {"A": None, "B": None}
        assert "key" not in store.top()[0]


def test_the_setting_is_stored(store_url: str) -> None:
    open_store(store_url, name="with", key=lower, keep_key=True).close()
    open_store(store_url, name="without", key=lower).close()
    with open_store(store_url, name="with", key=lower) as store:
        store.add(["A"])
        assert keys(store) == {"A": "a"}
    for name, given in (("with", False), ("without", True)):
        with pytest.raises(
            SettingsMismatch,
            match=rf"^buffer '{name}' is stored with keep_key={not given}, but was opened with "
            rf"keep_key={given}: open it without keep_key, which takes the stored value, or begin "
            r"a new buffer, under another name\.$",
        ):
            open_store(store_url, name=name, key=lower, keep_key=given)


def test_keys_are_not_kept_without_a_key(store_url: str) -> None:
    with pytest.raises(
        InvalidArgument, match=r"^keep_key=True stores .* no key function: give key=, too\.$"
    ):
        open_store(store_url, keep_key=True)
    open_store(store_url, key=lower, keep_key=True).close()
    with pytest.warns(UserWarning, match="but is opened with no key="):
        store = open_store(store_url)
    with store:
        writes: list[Any] = [lambda: store.add(["A"]), lambda: store.record(["A"], [1.0])]
        for write in writes:
            with pytest.raises(InvalidArgument, match=r"keeps the key of each sample, .*give the"):
                write()
        assert keys(store) == {}
