"""Functions and classes that several test files use."""

import pathlib

import pytest

_FILES = pathlib.Path(__file__).parent.glob("[!_]*.py")
pytest.register_assert_rewrite(*(f"helpers.{file.stem}" for file in _FILES))
