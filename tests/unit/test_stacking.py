"""Stacked samples: their container with leaves of shape (n, ...), whichever way they are read."""

from __future__ import annotations

import math
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.strategies import Ligand, Point, exactly
from helpers.structures import Step, Transition, batches
from sqlbuffer.errors import InvalidArgument, InvalidPayload, StructureMismatch, UnsupportedType
from sqlbuffer.samples.codec import decode_all, encode_all
from sqlbuffer.samples.decoded import Decoded
from sqlbuffer.samples.stacking import stack


def decoded(values: list[Any]) -> Decoded:
    return Decoded(*encode_all(values), allow_pickle=False)


def outcome(call: Any) -> Any:
    try:
        return call()
    except (InvalidArgument, InvalidPayload) as exc:
        return type(exc), str(exc)


@settings(max_examples=20, deadline=None)
@given(batches(n=6))
def test_columns_of_payloads_stack_as_decoded_samples_do(values: list[Any]) -> None:
    try:
        stored = encode_all(values)
    except (UnsupportedType, InvalidArgument):
        return
    found, samples = Decoded(*stored, allow_pickle=False), decode_all(*stored)
    assert exactly(outcome(found.stacked), outcome(lambda: stack(samples)))
    assert exactly(found.samples, samples)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_a_damaged_payload_is_refused_as_it_is_alone(seed: int) -> None:
    rng = random.Random(seed)
    made = [np.float32([1, 2]), True, 1.5, 300, "ab", None, np.zeros(2, bool), np.int8(4), (1,)]
    sample = dict(zip("abcdefghij", rng.sample(made, 4), strict=False))
    texts, payloads, codecs = encode_all([sample] * 4)
    content = bytearray(payloads[2] or b"")
    for _ in range(rng.choice((1, 1, 2))):
        content[rng.randrange(len(content))] = rng.choice((0, 2, 23, 24, 0x61, 0xF4, 0xFB, 0xFF))
    payloads[2] = bytes(content)[: rng.choice((None, None, -1))]
    stored = texts, payloads, codecs
    alone = outcome(lambda: decode_all(*stored))
    assert exactly(outcome(lambda: Decoded(*stored, allow_pickle=False).samples), alone)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([1, 2, 3, -4], np.array([1, 2, 3, -4])),
        ([1.5, math.inf, 0.0, 2.0], np.array([1.5, math.inf, 0.0, 2.0])),
        ([True, False, True, True], np.array([True, False, True, True])),
        ([1, 0.5, True, 2], np.array([1, 0.5, 1, 2])),
        ([True, 2, 3, 4], np.array([1, 2, 3, 4])),
        ([np.float32(1), np.float32(2)] * 2, np.float32([1, 2, 1, 2])),
        ([np.float32(1), 2] * 2, np.array([1.0, 2, 1, 2])),
        (["a", "b"] * 2, ["a", "b"] * 2),
        ([None] * 4, [None] * 4),
        ([(1, "a")] * 4, (np.array([1] * 4), ["a"] * 4)),
        ([[0.5, 2]] * 4, [np.array([0.5] * 4), np.array([2] * 4)]),
        ([{"a": {"b": 1}}] * 4, {"a": {"b": np.array([1] * 4)}}),
        ([{}] * 4, {}),
        ([np.eye(2, dtype="f2")] * 4, np.stack([np.eye(2, dtype="f2")] * 4)),
        ([np.array(1), np.array(0.5)] * 2, np.array([1, 0.5, 1, 0.5])),
        ([np.zeros((0, 3))] * 4, np.zeros((4, 0, 3))),
        ([torch.ones(2).bfloat16()] * 4, torch.ones(4, 2).bfloat16()),
        ([torch.ones(2), torch.ones(2, dtype=torch.int64)] * 2, torch.ones(4, 2)),
        ([Step(np.ones(2), 1)] * 4, Step(np.ones((4, 2)), np.array([1] * 4))),
        ([Point(1, 2)] * 4, Point(np.array([1] * 4), np.array([2] * 4))),
        ([Ligand("a", 1)] * 4, Ligand(["a"] * 4, np.array([1] * 4), [None] * 4)),
        ([{"a": 1, "b": 2}, {"b": 3, "a": 4}], {"a": np.array([1, 4]), "b": np.array([2, 3])}),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, list) else "",
)
def test_the_leaves_of_a_stack(samples: list[Any], expected: Any) -> None:
    found = decoded(samples).stacked()
    assert exactly(found, expected)


@pytest.mark.parametrize(
    ("usual", "other", "message"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, r"sample 3 has the keys \['a', 'b'\]"),
        ({"a": 1}, {"a": "x"}, r"sample 3 has a str at \['a'\], and sample 0 has a number"),
        ({"a": (1, 2)}, {"a": (1,)}, r"sample 3 has 1 elements at \['a'\]"),
        ({"a": 1}, {"a": None}, r"sample 3 has None at \['a'\]"),
        ([np.ones(2)], [np.ones(3)], r"sample 3 has shape \(3,\) at \[0\], and sample 0 has shape"),
        (np.array(1), 1, "sample 3 has a number, and sample 0 has a ndarray"),
        (np.ones(2), torch.ones(2), "sample 3 has a Tensor"),
        (torch.ones(2), torch.ones(2, 2), r"sample 3 has shape \(2, 2\)"),
        (Step({"a": 1}, 1), Step(1, 1), r"sample 3 has a number at \.obs"),
        (Transition(1, 2), Step(1, 2), "sample 3 has a Step, and sample 0 has a Transition"),
    ],
)
def test_another_structure_is_refused_with_its_position(
    usual: Any, other: Any, message: str
) -> None:
    with pytest.raises(StructureMismatch, match=message):
        decoded([usual, usual, usual, other, usual]).stacked()


def test_nothing_and_large_integers_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="not empty"):
        decoded([]).stacked()
    with pytest.raises(InvalidArgument, match=r"sample 2 has .* at \['a'\], which is no int64"):
        decoded([{"a": 1}, {"a": 2}, {"a": 2**63}, {"a": 1}]).stacked()


def test_samples_of_one_structure_are_decoded_when_they_are_read() -> None:
    stored = decoded([{"a": i, "b": np.ones(2)} for i in range(5)])
    first = stored.stacked()
    first["b"] += 1  # writable, and new at each call
    assert stored._samples is None
    assert [sample["a"] for sample in stored.samples] == list(range(5))
    assert stored.samples is stored.samples
    assert exactly(stored.stacked()["b"], np.ones((5, 2)))
    copied = pickle.loads(pickle.dumps(stored))
    assert exactly(copied.stacked(), stored.stacked())
