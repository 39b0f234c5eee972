"""TensorDicts and trees of tensors to samples, one for each row, and back.

The sample of a TensorDict is a dict of its entries; nested TensorDicts are nested dicts. Its batch
size without the first dimension stands under the key "", at the root and wherever it differs from
that of the parent. An entry that is no tensor is a dict with the key "=".
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import (
    LazyStackedTensorDict,
    NonTensorData,
    NonTensorStack,
    TensorDict,
    TensorDictBase,
    is_non_tensor,
    is_tensor_collection,
)
from torch.utils._pytree import tree_flatten, tree_unflatten

from sqlbuffer._messages import shown
from sqlbuffer.errors import InvalidArgument, StructureMismatch
from sqlbuffer.samples.decoded import Decoded

_BATCH, _OTHER = "", "="


def rows_of(data: Any, without: Sequence[Any] = ()) -> list[Any]:
    """Return the samples of data with n rows.

    Args:
        data: A TensorDict with a first dimension of n, a tensor of n rows, a list of n elements, or
            a tree of tensors of n rows each.
        without: Keys of a TensorDict that are not stored.

    Raises:
        InvalidArgument: If it is a tensorclass, or if it has no first dimension.
    """
    if isinstance(data, list):
        return [row_of(each, without) for each in data]
    if is_tensor_collection(data):
        if not data.ndim:
            raise InvalidArgument(
                "a TensorDict without a batch size has no rows: add it with add, or give it a "
                "batch size."
            )
        return _rows_of_tensordict(_plain(data, without))
    leaves, tree = tree_flatten(data)
    columns = [_rows_of_tensor(leaf) for leaf in leaves]
    return [tree_unflatten(list(row), tree) for row in zip(*columns, strict=True)]


def row_of(data: Any, without: Sequence[Any] = ()) -> Any:
    """Return the sample of one element."""
    if is_tensor_collection(data):
        return _rows_of_tensordict(_plain(data, without).unsqueeze(0))[0]
    return data


def _plain(data: Any, without: Sequence[Any]) -> TensorDictBase:
    """Return a TensorDict without some of its keys."""
    if not isinstance(data, TensorDictBase):
        raise InvalidArgument(
            f"a {type(data).__name__} is a tensorclass, which is not stored: give "
            "data.to_tensordict()."
        )
    return data.exclude(*without) if without else data


def _rows_of_tensordict(data: TensorDictBase) -> list[dict[str, Any]]:
    if isinstance(data, LazyStackedTensorDict) and data.stack_dim == 0:
        # Its parts may differ in their keys and shapes.
        return [_rows(each.unsqueeze(0), None)[0] for each in data.tensordicts]
    try:
        return _rows(data, None)
    except RuntimeError as exc:  # of a stack along another dimension
        raise InvalidArgument(
            f"an element whose parts differ in shape is not stored ({exc}): pad its entries."
        ) from exc


def _rows(data: TensorDictBase, of_parent: Sequence[int] | None) -> list[dict[str, Any]]:
    """Return a dict for each of the n rows, n being the first dimension of the batch size."""
    n, batch = len(data), list(data.batch_size[1:])
    columns: dict[str, Any] = {} if batch == of_parent else {_BATCH: itertools.repeat(batch, n)}
    for key, value in data.items():
        columns[key] = _column(key, value, n, batch)
    names = list(columns)
    if not names:
        return [{} for _ in range(n)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _column(key: str, value: Any, n: int, batch: Sequence[int]) -> Sequence[Any]:
    if key in (_BATCH, _OTHER):
        raise InvalidArgument(f"a TensorDict with the key {shown(key)} is not stored: rename it.")
    if is_non_tensor(value):
        data = value.tolist() if isinstance(value, NonTensorStack) else [value.data] * n
        return [{_OTHER: each} for each in data]
    if is_tensor_collection(value):
        return _rows(_plain(value, ()), batch)
    return _rows_of_tensor(value)


def _rows_of_tensor(value: Any) -> Sequence[Any]:
    if not isinstance(value, torch.Tensor) or not value.ndim:
        raise InvalidArgument(
            f"a tree with {shown(value)} has no rows: give a list of elements, or a tree of "
            "tensors with the same first dimension."
        )
    return value.detach().cpu().unbind(0)


def stacked(found: Decoded) -> Any:
    """Return n samples as one TensorDict, or as one tree of tensors, with a first dimension of n.

    Samples that differ in structure are a lazily stacked TensorDict, or a list.
    """
    try:
        tree = found.stacked()
    except StructureMismatch:
        return _listed(found.samples)
    if not _is_tensordict(tree):
        return tree
    try:
        return _tensordict(tree, len(found), None)
    except _NotStacked:
        return _listed(found.samples)


def single(sample: Any) -> Any:
    """Return one sample as it was added."""
    return _one(sample, None) if _is_tensordict(sample) else sample


def _is_tensordict(tree: Any) -> bool:
    return type(tree) is dict and _BATCH in tree


class _NotStacked(Exception):
    """The samples have entries that are no tensors, or differ in their batch size."""


def _listed(samples: list[Any]) -> Any:
    rows = list(map(single, samples))
    if not all(map(is_tensor_collection, rows)):
        return rows
    return LazyStackedTensorDict.maybe_dense_stack(rows)


def _tensordict(tree: dict[str, Any], n: int, of_parent: list[int] | None) -> TensorDict:
    if _OTHER in tree:
        raise _NotStacked
    tree = dict(tree)
    batch = of_parent if _BATCH not in tree else [_same(sizes) for sizes in tree.pop(_BATCH)]
    entries = {
        key: _tensordict(value, n, batch) if type(value) is dict else value
        for key, value in tree.items()
    }
    return TensorDict(entries, batch_size=[n, *(batch or [])])


def _same(sizes: Any) -> int:
    first, *others = set(sizes.tolist())
    if others:
        raise _NotStacked
    return int(first)


def _one(tree: dict[str, Any], of_parent: list[int] | None) -> Any:
    if _OTHER in tree:
        return NonTensorData(tree[_OTHER], batch_size=of_parent)
    batch = tree.get(_BATCH, of_parent)
    entries = {
        key: _one(value, batch) if type(value) is dict else value
        for key, value in tree.items()
        if key != _BATCH
    }
    return TensorDict(entries, batch_size=batch)
