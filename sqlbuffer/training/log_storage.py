"""Stores a log's columns of each batch, one cell for each sample, and metrics that are strings.

Rewards, predictions and sources are stored as the batch had them. Other tables cannot tell them:
rewards may have been modified, and samples may have entered or left the batch. A sample that was
drawn is stored by its id, any other sample as a whole.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sqlbuffer.core.read import samples_of
from sqlbuffer.errors import UnsupportedType
from sqlbuffer.samples.codec import decode_all, encode_all

if TYPE_CHECKING:
    from sqlbuffer.store import SampleStore

logger = logging.getLogger(__name__)

LOG = "log"
"""Name of the checkpoints."""

Columns = dict[str, Any]
"""Columns of one batch by name, each a list or an array with one cell for each sample."""

_warned: set[str] = set()


def column(values: Any, n: int) -> list[Any] | NDArray[Any]:
    """Return n cells, one for each sample; another number of values is repeated as one value."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    one_each = np.ndim(values) > 0 if isinstance(values, np.ndarray) else isinstance(values, list)
    if not one_each or len(values) != n:
        return [values] * n
    return list(values) if isinstance(values, list) or values.dtype == object else values.copy()


def cells(batch: Columns, name: str) -> list[Any]:
    """Return the cells of a column, NaN if the batch does not have the column."""
    return list(batch[name]) if name in batch else [math.nan] * len(batch["iteration"])


def pack_batch(
    iteration: int,
    names: Sequence[str],
    words: Mapping[str, str],
    batch: Columns,
    ids_of: Callable[[Sequence[Any]], list[int | None]] | None,
) -> bytes:
    """Return a batch as bytes.

    Args:
        iteration: The batch's iteration.
        names: The metrics that have values, in printed order.
        words: The metrics of this iteration that are strings.
        batch: The batch's columns; empty if none are kept.
        ids_of: Returns the ids of samples, None for a sample that has none.
    """
    columns = dict(batch)
    samples = columns.pop("samples", [])
    columns["ids"] = [None] * len(samples) if ids_of is None else ids_of(samples)
    columns["others"] = [
        sample for sample, number in zip(samples, columns["ids"], strict=True) if number is None
    ]
    content = {
        "iteration": iteration,
        "names": list(names),
        "words": dict(words),
        "columns": columns,
    }
    try:
        return _encoded(content)
    except UnsupportedType:
        content["columns"] = {
            name: cells for name, cells in columns.items() if _is_storable(name, cells)
        }
        return _encoded(content)


def read_words(store: SampleStore) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the names of metrics in printed order, and metrics that are strings.

    The latter have the form of `store.history()`.
    """
    newest = store.checkpoint(LOG)
    if newest is None:
        return [], []
    names: list[str] = _content(newest[1])["names"]
    if {row["name"] for row in store.history()}.issuperset(names):
        return names, []
    contents = [_content(packed) for _, packed in store.checkpoints(LOG)]
    return names, [
        {"iteration": content["iteration"], "name": name, "value": word}
        for content in contents
        for name, word in content["words"].items()
    ]


def read_batches(store: SampleStore, *, before: int | None) -> list[Columns]:
    """Return the stored batches of iterations before `before` as columns, the oldest first."""
    contents = [_content(packed) for _, packed in store.checkpoints(LOG)]
    earlier = [
        content["columns"]
        for content in contents
        if before is None or content["iteration"] < before
    ]
    found = [columns for columns in earlier if "iteration" in columns]
    # Stored ids return to earlier states together with the database: they need no proof.
    known = store._buffer.read(
        samples_of, [number for columns in found for number in columns["ids"] if number is not None]
    )
    for columns in found:
        ids, others = columns.pop("ids"), iter(columns.pop("others", []))
        columns["samples"] = [
            next(others, math.nan) if i is None else known.get(i, math.nan) for i in ids
        ]
    return found


def _content(packed: bytes) -> dict[str, Any]:
    (content,) = decode_all([""], [packed], ["cbor"])
    return cast("dict[str, Any]", content)


def _encoded(content: object) -> bytes:
    (payload,) = encode_all([content]).payloads
    return payload or b""


def _is_storable(name: str, cells: Any) -> bool:
    try:
        encode_all([cells])
    except UnsupportedType as exc:
        if name not in _warned:
            logger.warning(
                "log %r is not stored, and a resumed run has NaN in its place: %s", name, exc
            )
            _warned.add(name)
        return False
    return True
