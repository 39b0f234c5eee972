"""Samples with structure go in by columns, and come out stacked."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from helpers.cleanup import hold
from helpers.direct import connect
from helpers.structures import Step
from sqlbuffer.core import add
from sqlbuffer.errors import InvalidArgument, InvalidPayload, StructureMismatch, UnsupportedType
from sqlbuffer.samples import codec, decoded, hashing
from sqlbuffer.store import SampleStore


def transitions(n: int) -> list[Any]:
    return [
        {
            "obs": np.arange(i, i + 4, dtype="f4"),
            "action": i * 7,
            "reward": i / 8,
            "next": torch.full((2,), float(i)),
            "done": i % 2 == 0,
            "step": Step(i, "a"),
        }
        for i in range(n)
    ]


def test_transitions_in_and_arrays_out(store: SampleStore) -> None:
    assert store.add(transitions(40) + transitions(20)).duplicates == 20
    assert store.add(list(reversed(transitions(40)))).duplicates == 40  # whatever their order
    store.score(lambda samples: [sample["reward"] for sample in samples])
    batch = hold(store.sample(16))
    arrays = batch.stacked()
    assert list(arrays) == ["obs", "action", "reward", "next", "done", "step"]
    assert (arrays["obs"].shape, arrays["obs"].dtype) == ((16, 4), np.float32)
    assert arrays["next"].shape == (16, 2)
    assert [arrays[key].dtype for key in ("action", "reward", "done")] == [
        *(np.int64, np.float64, np.bool_),
    ]
    for i, sample in enumerate(batch.samples):
        assert sample["action"] == arrays["action"][i] == 7 * arrays["obs"][i, 0]
        assert sample["step"] == Step(arrays["step"].obs[i], arrays["step"].reward[i])
        assert torch.equal(sample["next"], arrays["next"][i])
    batch.settle(arrays["reward"])
    assert store.check() == []


def test_a_batch_of_two_structures_is_refused_and_stays_open(store: SampleStore) -> None:
    store.add([{"a": 1, "b": 1.5}] + [{"a": i} for i in range(2, 9)])
    store.score(lambda samples: [1.0] * len(samples))
    batch = hold(store.sample(8))
    with pytest.raises(StructureMismatch, match=r"sample \d has the keys"):
        batch.stacked()
    batch.settle(np.ones(8))
    with pytest.raises(InvalidArgument, match="not empty"):
        hold(store.sample(8)).stacked()


def test_samples_are_decoded_when_they_are_read(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(transitions(20))
    store.score(lambda samples: [1.0] * len(samples))
    read: list[int] = []
    whole = decoded.decode_all

    def noted(texts: Any, *rest: Any, **how: Any) -> list[object]:
        read.append(len(texts))
        return whole(texts, *rest, **how)

    monkeypatch.setattr(decoded, "decode_all", noted)
    batch = hold(store.sample(16))
    assert len(batch) == 16
    assert len(batch.stacked()["obs"]) == 16
    assert read == [1]  # the first, which proves that all can be read
    copied = pickle.loads(pickle.dumps(batch.samples))
    assert read == [1, 16]
    assert [each["action"] for each in copied] == batch.stacked()["action"].tolist()


def test_a_sample_that_cannot_be_read_is_not_drawn(store: SampleStore, store_url: str) -> None:
    store.add([{"a": i, "b": np.zeros(2)} for i in range(8)])
    store.score(lambda samples: [1.0] * len(samples))
    with connect(store_url) as connection:
        connection.exec_driver_sql(
            "UPDATE samples SET payload = substr(payload, 1, 20) WHERE id = 5"
        )
    with pytest.raises(InvalidPayload):
        store.sample(8)
    assert store.stats().waiting == 8


def test_the_first_sample_without_a_hash_is_named(store: SampleStore) -> None:
    samples = transitions(30)
    samples[17] = samples[17] | {"action": object()}
    with pytest.raises(UnsupportedType, match=r"sample 17, .*object is not a supported type"):
        store.add(samples)
    assert len(store) == 0


def test_what_is_stored_does_not_depend_on_the_way(
    new_store: Callable[..., SampleStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_columns, alone = new_store(name="columns"), new_store(name="alone")
    by_columns.add(transitions(12))
    for module in (add, codec, hashing):
        monkeypatch.setattr(module, "hash_and_encode", lambda *_, **__: None)
    alone.add(transitions(12))
    columns = ["hash", "sample", "state"]
    assert by_columns.to_pandas(columns=columns).equals(alone.to_pandas(columns=columns))
