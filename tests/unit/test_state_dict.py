"""Any state as bytes and back: exact, without pickle, and with the key of what cannot be stored."""

import collections
import math
from typing import Any

import cbor2
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from sqlbuffer.errors import InvalidPayload, UnsupportedType
from sqlbuffer.samples.state_dict import REST, pack, unpack


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
        )
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def test_a_state_comes_back_as_it_was() -> None:
    state = {
        "betas": (0.9, 0.999),
        "foreach": None,
        "maximize": False,
        "lr": 0.1 + 0.2,
        "best": -math.inf,
        "nothing": math.nan,
        3: {
            "step": torch.tensor(7.0),
            "moments": [torch.zeros(2, 0), torch.ones(3, dtype=torch.bfloat16)],
        },
        "big": 2**127 + 1,
        "words": ["", "ü", b"\0"],
        "key": np.arange(4, dtype=np.uint32),
        "complex": torch.tensor([1 + 2j]),
        "empty": [{}, [], ()],
    }
    assert same(unpack(pack(state)), state)


def test_views_that_conjugate_or_negate_are_tensors_of_their_own() -> None:
    """They share memory, shape and strides with what they are views of."""
    z = torch.tensor([1 + 2j, 3 - 4j])
    state = {"z": z, "conj": z.conj(), "imag of conj": z.conj().imag, "imag": z.imag}
    assert state["imag of conj"].is_neg()
    found = unpack(pack(state))
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor.resolve_conj().resolve_neg()), name


@pytest.mark.parametrize("state", [None, 1.5, torch.arange(3), [], "word"])
def test_a_state_may_be_anything(state: Any) -> None:
    assert same(unpack(pack(state)), state)


def test_the_file_is_safetensors_with_the_tensors_under_their_paths() -> None:
    linear = nn.Linear(2, 1)
    file = safetensors.torch.load(pack({"model": linear.state_dict(), "step": 3}))
    assert set(file) == {"/model/weight", "/model/bias", REST}
    assert torch.equal(file["/model/weight"], linear.weight.detach())


def test_one_tensor_under_two_names_is_stored_once_and_comes_back_as_two() -> None:
    weight = torch.randn(100, 100)
    packed = pack({"a": weight, "b": [weight], "c": weight.T})
    assert len(packed) < 2 * weight.nbytes + 1000
    back = unpack(packed)
    assert torch.equal(back["c"], weight.T)
    back["a"].zero_()
    assert torch.equal(back["b"][0], weight)


def test_paths_that_look_alike_are_kept_apart() -> None:
    state = {
        "a/b": torch.ones(1),
        "a": {"b": torch.zeros(1)},
        1: torch.tensor(5),
        "1": torch.tensor(6),
        "": torch.ones(2),
    }
    assert same(unpack(pack(state)), state)


def test_mappings_become_dicts() -> None:
    state = collections.OrderedDict(a=collections.defaultdict(list, {"x": [1]}))
    assert same(unpack(pack(state)), {"a": {"x": [1]}})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.sin, "built-in function sin"),
        (nn.ReLU(), "ReLU()"),
        (torch.ones(2).to_sparse(), "not dense"),
    ],
)
def test_what_cannot_be_stored_is_named(value: Any, shown: str) -> None:
    with pytest.raises(UnsupportedType, match="schedule/lambdas/1 cannot be stored") as caught:
        pack({"schedule": {"lambdas": [None, value]}})
    assert shown in str(caught.value)


def packed_rest(content: Any) -> bytes:
    payload = torch.frombuffer(bytearray(cbor2.dumps(content)), dtype=torch.uint8)
    return safetensors.torch.save({REST: payload})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        pack({"a": torch.ones(3)})[:-4],
        safetensors.torch.save({"a": torch.ones(1)}),
        packed_rest([1, 2]),
        packed_rest(7),
        packed_rest(
            [cbor2.CBORTag(27, ["object", "sqlbuffer.training.packing.Stored", ["missing"]])]
        ),
        packed_rest([cbor2.CBORTag(35, "(a+)+$")]),
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidPayload):
        unpack(data)
