"""Samples that are hashed and encoded by their structure have the bytes of single samples."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from helpers.structures import batches
from sqlbuffer.errors import InvalidArgument, UnsupportedType
from sqlbuffer.samples import columns
from sqlbuffer.samples.codec import encode_all
from sqlbuffer.samples.encoded import Encoded, hash_and_encode
from sqlbuffer.samples.hashing import digest


def one_by_one(values: list[Any]) -> tuple[list[bytes], Encoded]:
    rows = [encode_all([value]) for value in values]
    columns_of_all = ([getattr(row, name)[0] for row in rows] for name in Encoded._fields)
    return [digest(value) for value in values], Encoded(*columns_of_all)


@pytest.mark.parametrize("few", [1, 8])
def test_columns_are_the_bytes_and_texts_of_single_samples(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "FEW", few)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(batches())
    def compare(values: list[Any]) -> None:
        try:
            expected = one_by_one(values)
        except (UnsupportedType, InvalidArgument):
            assert hash_and_encode(values) is None
            return
        is_text = all(type(value) is str for value in values)
        if is_text or any(isinstance(value, str) and type(value) is not str for value in values):
            return  # other paths
        assert hash_and_encode(values) == expected

    compare()


EXAMPLES = 25
