"""Samples that are hashed and encoded by their structure have the bytes of single samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from helpers.strategies import Point
from helpers.structures import Step, Transition, batches
from sqlbuffer.errors import InvalidArgument, UnsupportedType
from sqlbuffer.samples import columns, encoded
from sqlbuffer.samples.codec import encode_all
from sqlbuffer.samples.encoded import Encoded, hash_and_encode
from sqlbuffer.samples.hashing import digest, digests


def one_by_one(values: list[Any]) -> tuple[list[bytes], Encoded]:
    rows = [encode_all([value]) for value in values]
    columns_of_all = ([getattr(row, name)[0] for row in rows] for name in Encoded._fields)
    return [digest(value) for value in values], Encoded(*columns_of_all)


@pytest.mark.parametrize("few", [1, 8])  # values of one structure that make a column
def test_columns_are_the_bytes_and_texts_of_single_samples(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "FEW", few)

    @settings(max_examples=20, deadline=None)
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


def test_a_transition_has_a_short_text() -> None:
    sample = {
        "obs": np.float32([0.125, -1, 2, 3]),
        "action": 3,
        "reward": 0.5,
        "next": torch.ones(1, 2, dtype=torch.int64),
        "done": False,
    }
    assert encode_all([sample] * 9).texts[0] == (
        "{'action': 3, 'done': False, 'next': int64[1,2](1 1), "
        "'obs': float32[4](0.125 -1 ...), 'reward': 0.5}"
    )


def test_an_unsupported_sample_is_named_among_many_of_one_structure() -> None:
    samples: list[object] = [{"a": i, "b": np.zeros(2)} for i in range(40)]
    samples[33] = {"a": object(), "b": np.zeros(2)}
    for function in (digests, encode_all):
        with pytest.raises(UnsupportedType, match=r"sample 133, .*object is not a supported type"):
            function(samples, numbers=range(100, 140))


def test_samples_of_one_structure_take_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or they would be right, and slow."""
    alone: list[object] = []
    monkeypatch.setattr(columns, "_one_by_one", lambda values, *_: alone.extend(values))
    for make in (
        lambda i: {
            "obs": np.full(4, i, "f4"),
            "action": i,
            "reward": i / 7,
            "done": i > 3,
            "s": "a",
        },
        lambda i: (torch.full((2,), i), [np.float32(i), np.int64(i), np.bool_(i)], None),
        lambda i: Transition(np.full(i % 3, i), i, note=b"a"),
        lambda i: Step([i] * (i % 5), {"a": {"b": (i,)}}),
        lambda i: Point(i, i),
    ):
        assert hash_and_encode([make(i) for i in range(20)]) is not None
    assert not alone


def test_chunks_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "CHUNK_BYTES", 1_000)
    samples = [{"a": i, "b": np.full(i % 7, i)} for i in range(200)]
    assert hash_and_encode(samples) == one_by_one(samples)
