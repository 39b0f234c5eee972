"""A buffer remembers its key function: another process that forgets it, or has another one, is told
so.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from sqlbuffer.core.attach import key_name, key_shown
from sqlbuffer.db.database import Database
from sqlbuffer.db.schema import buffers
from sqlbuffer.store import open_store

HERE = __name__


def lowered(sample: str) -> str:
    return sample.lower()


def stripped(sample: str) -> str:
    return sample.strip()


class Keys:
    """Key functions that are members of an object."""

    def method(self, sample: str) -> str:
        return sample.lower()

    def __call__(self, sample: str) -> str:
        return sample.lower()


KEYS: dict[str, tuple[Callable[[Any], Any] | None, str]] = {
    "none": (None, ""),
    "function": (lowered, f"{HERE}.lowered"),
    "other": (stripped, f"{HERE}.stripped"),
    "method": (Keys().method, f"{HERE}.Keys.method"),
    "of a type": (str.lower, "builtins.str.lower"),
    "type": (str, "builtins.str"),
    "built in": (len, "builtins.len"),
    "lambda": (lambda sample: sample.lower(), "?"),
    "partial": (functools.partial(lowered), "?"),
    "object": (Keys(), "?"),
}


@contextlib.contextmanager
def warned(*parts: str) -> Iterator[None]:
    """Expect one warning with these parts, or none."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    assert len(found) == bool(parts)
    assert all(part in str(found[0].message) for part in parts)
    assert all(warning.filename == __file__ for warning in found), (
        "the warning points to the caller"
    )


def shown(name: str) -> str:
    module, _, function = name.rpartition(".")
    return {"": "no key=", "?": "a key= without a name"}.get(name, f"key={module}:{function}")


def test_a_key_is_stored_by_module_and_name(store_url: str) -> None:
    assert {kind: key_name(key) for kind, (key, _) in KEYS.items()} == {
        kind: name for kind, (_, name) in KEYS.items()
    }
    for key in (None, lowered, str.lower):
        with open_store(store_url, name=f"of {key_name(key)}", key=key) as store:
            assert store.stats().key == key_name(key)

    def inner(sample: str) -> str:
        return sample

    assert key_name(inner).endswith("<locals>.inner")
    assert key_name(np.sin).endswith("sin")


@pytest.mark.slow
def test_another_key_or_none_is_a_warning_with_both_names(store_url: str) -> None:
    some = {kind: KEYS[kind] for kind in ("none", "function", "other", "lambda")}
    for (first, (key, name)), (second, (other, other_name)) in itertools.product(
        some.items(), repeat=2
    ):
        open_store(store_url, name=f"{first} {second}", key=key).close()
        is_other = name != other_name and not (
            "?" in (name, other_name) and "" not in (name, other_name)
        )
        with warned(*(f"with {shown(name)},", f"with {shown(other_name)}:") if is_other else ()):
            store = open_store(store_url, name=f"{first} {second}", key=other)
        assert store.stats().key == name, "the stored name stays"
        store.close()


@pytest.mark.slow
def test_a_key_of_a_script_is_that_of_its_module(store_url: str, tmp_path: Path) -> None:
    script = tmp_path / "canonical_script.py"
    script.write_text(
        "import sys\nfrom sqlbuffer import open_store\n"
        "def canonical(sample): return sample.lower()\n"
        "if __name__ == '__main__': open_store(sys.argv[1], key=canonical).close()\n"
    )
    root = Path(__file__).parents[2]
    path = os.pathsep.join((str(root), str(tmp_path)))
    run = functools.partial(subprocess.run, env=os.environ | {"PYTHONPATH": path}, check=True)
    as_module = [sys.executable, "-W", "error", "-c"]
    text = (
        "import sys, canonical_script as s; from sqlbuffer import open_store; open_store({}, "
        "key=s.{})"
    )
    run([sys.executable, "-W", "error", str(script), store_url])
    run([*as_module, text.format("sys.argv[1]", "canonical"), store_url])
    with warned("key=canonical of a script", f"{HERE}:lowered"):
        open_store(store_url, key=lowered).close()


def test_a_buffer_of_an_older_release_takes_the_key_of_the_first_writer(store_url: str) -> None:
    open_store(store_url).close()
    database = Database(store_url)
    database.write(lambda connection: connection.execute(sa.update(buffers).values(key=None)))
    database.close()
    with warned(), open_store(store_url) as reader, open_store(store_url, key=lowered) as store:
        assert reader.stats().key is None
        assert len(reader) == 0
        store.add(["A"])
        assert reader.stats().key == f"{HERE}.lowered"
        store.copy("copy").close()
    for name in ("default", "copy"):
        with warned("no key=", "lowered"), open_store(store_url, name=name) as store:
            assert store.stats().key == f"{HERE}.lowered"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lab.mols.canonical", "key=lab.mols:canonical"),
        ("builtins.str.lower", "key=builtins:str.lower"),
        ("canonical", "key=canonical"),
        ("lab.make.<locals>.canonical", "key=lab.make.<locals>.canonical"),
        ("lab.\x1b[2J", "key=lab:\\x1b[2J"),
    ],
)
def test_a_key_is_shown_as_an_option_takes_it(
    name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert key_shown(name) == expected
    monkeypatch.setitem(sys.modules, "lab", types.ModuleType("lab"))  # without lab.mols
    assert key_shown(name) == expected


def test_a_reader_needs_a_key_only_to_look_samples_up(store_url: str) -> None:
    with open_store(store_url, key=lowered) as store:
        store.record(["A"], [1.0])
    with warned(), open_store(store_url, read_only=True) as reader:
        assert (reader.stats().measured, reader.check()) == (1, [])
    with warned(f"with {shown(f'{HERE}.lowered')}, but is opened with no key="):
        assert reader.rewards_of(["A"]) == [None]
    with warned(), open_store(store_url, read_only=True, key=lowered) as reader:
        assert reader.rewards_of(["a"]) == [1.0]


@pytest.mark.slow
def test_a_copy_and_a_fresh_buffer_know_their_key(store_url: str) -> None:
    with warned(), open_store(store_url, key=lowered) as store:
        store.add(["A", "b"])
        with (
            store.copy("copy", at_iteration=0) as copy,
            open_store(store_url, key=stripped, fresh=True) as fresh,
        ):
            assert (copy.stats().key, fresh.stats().key) == (f"{HERE}.lowered", f"{HERE}.stripped")
        open_store(store_url, name="copy", key=lowered).close()
    with warned("lowered", "stripped"):
        open_store(store_url, name="copy", key=stripped).close()
