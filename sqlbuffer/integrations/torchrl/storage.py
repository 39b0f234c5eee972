"""A storage of TorchRL's replay buffers in a database."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import torch
from torchrl.data.replay_buffers.checkpointers import StorageCheckpointerBase
from torchrl.data.replay_buffers.storages import Storage, StoreStorage
from torchrl.data.replay_buffers.writers import RoundRobinWriter

from sqlbuffer._messages import shown, summary
from sqlbuffer._validation import LARGEST_INT, as_priorities, require_int
from sqlbuffer.core.ring import Cursor
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.integrations.slots import Picked, Slots
from sqlbuffer.integrations.torchrl import transitions
from sqlbuffer.integrations.torchrl.indices import as_slots, is_single
from sqlbuffer.integrations.torchrl.sampler import SqlSampler
from sqlbuffer.integrations.torchrl.writer import SqlWriter
from sqlbuffer.samples.encoded import Encoded
from sqlbuffer.store import SampleStore

_COLUMNS = ("texts", "payloads", "codecs")


class _Checkpointer(StorageCheckpointerBase):
    """Writes the state of a storage into a folder, and reads it from there."""

    def dumps(self, storage: SqlStorage, path: Any) -> None:
        folder = pathlib.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        state = storage.state_dict()
        arrays = {name: state[name].numpy() for name in state if name != "cursor"}
        np.savez(folder / "storage.npz", cursor=np.array(state["cursor"]), **arrays)

    def loads(self, storage: SqlStorage, path: Any) -> None:
        with np.load(pathlib.Path(path) / "storage.npz", allow_pickle=False) as found:
            state = {name: torch.from_numpy(found[name]) for name in found.files}
        storage.load_state_dict({**state, "cursor": state["cursor"].tolist()})


class SqlStorage(StoreStorage):
    """Elements of a replay buffer as rows of a database: an SQLite file, or PostgreSQL.

    It takes the place of `LazyTensorStorage`. The slots are a ring of `max_size`; each `extend` is
    one transaction. A process that opens the same URL goes on with the contents, the cursor and
    the priorities, also after it was killed. Any number of processes may write and sample.

    An element is a TensorDict, a tensor, a tree of tensors, or any other supported sample. The
    priority key of a `TensorDictReplayBuffer` and its key "index" are not stored.

    Args:
        url: SQLAlchemy URL; by default as in `open_store`.
        max_size: Number of slots. It is stored, and must be the same when the storage is opened
            again.
        name: Name of the buffer; one database holds any number.
        seed: Seed of the draws of a new buffer, see `open_store`. `SqlSampler` draws by it, and
            not by the generator of the replay buffer.
        durability: See `open_store`.
        allow_pickle: See `open_store`: store entries of unknown types.
        create: False: open only a buffer that exists.

    Raises:
        InvalidArgument: If `max_size` is no positive number, or too large.
        SettingsMismatch: If the buffer exists with another `max_size`, or was made by `open_store`.
    """

    _default_checkpointer = _Checkpointer

    def __init__(
        self,
        url: Any = None,
        *,
        max_size: int,
        name: str = "default",
        seed: int | None = None,
        durability: str = "normal",
        allow_pickle: bool = False,
        create: bool = True,
    ) -> None:
        rule = f"max_size must be a positive number of slots, at most {LARGEST_INT:,}"
        size = require_int(max_size, rule, least=1)
        Storage.__init__(self, size)  # not that of StoreStorage, which needs a key-value store
        self._options: dict[str, Any] = {
            "url": url,
            "name": name,
            "seed": seed,
            "durability": durability,
            "allow_pickle": allow_pickle,
            "create": create,
        }
        self._slots: Slots | None = None
        self._picked: tuple[Any, Picked] | None = None
        _ = self.slots  # what is wrong with the URL is told here

    def __repr__(self) -> str:
        return f"SqlStorage({self.store!r}, max_size={self.max_size})"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the connections: the process that gets the storage opens its own."""
        return {**vars(self), "_rng": None, "_slots": None, "_picked": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def slots(self) -> Slots:
        """The ring of this process."""
        if self._slots is None:
            self._slots = Slots(max_size=self.max_size, **self._options)
        return self._slots

    @property
    def store(self) -> SampleStore:
        """The buffer, to look at: samples are written by the replay buffer alone."""
        return self.slots.store

    def close(self) -> None:
        """Close the connections; a use opens new ones."""
        self.store.close()

    # -- what a replay buffer attaches ------------------------------------------------------------

    @property
    def checkpointer(self) -> StorageCheckpointerBase:
        """What writes the storage into a folder."""
        return self._checkpointer

    @checkpointer.setter
    def checkpointer(self, value: StorageCheckpointerBase | None) -> None:
        """Set it; a replay buffer does so once it has its sampler and its writer."""
        self._checkpointer = self._default_checkpointer() if value is None else value
        for buffer in self._attached_entities:
            if isinstance(buffer.writer, RoundRobinWriter):
                buffer.set_writer(SqlWriter())
            if isinstance(buffer.sampler, SqlSampler):
                buffer.sampler.attach(self)

    @property
    def _not_stored(self) -> list[Any]:
        """Keys that a `TensorDictReplayBuffer` gives to its TensorDicts itself."""
        buffers = self._attached_entities
        own = [buffer.priority_key for buffer in buffers if hasattr(buffer, "priority_key")]
        return [*own, "index"] if own else []

    # -- elements ---------------------------------------------------------------------------------

    def append(self, data: Any) -> list[int]:
        """Write elements into the next slots, in one transaction; return the slots."""
        rows = transitions.rows_of(data, self._not_stored)
        if not rows:
            raise RuntimeError(f"Expected at least one element in extend. Got {shown(data)}.")
        return self.slots.append(rows)

    def append_one(self, data: Any) -> list[int]:
        """Write one element into the next slot; return the slot in a list."""
        return self.slots.append([transitions.row_of(data, self._not_stored)])

    def set(self, cursor: Any, data: Any, *, set_cursor: bool = True) -> None:
        """Write elements into slots, in one transaction, with the highest known priority.

        Args:
            cursor: A slot, or n slots as a slice, range, list, array or tensor.
            data: One element; or n elements, see `ReplayBuffer.extend`.
            set_cursor: Go on behind the last of the slots.

        Raises:
            InvalidArgument: If there is not one element for each slot, or if slots before them
                would have none.
        """
        if is_single(cursor):
            rows = [transitions.row_of(data, self._not_stored)]
        else:
            rows = transitions.rows_of(data, self._not_stored)
        slots = as_slots(cursor, len(self), last=self.max_size - 1)
        if len(slots) != len(rows):
            raise InvalidArgument(
                f"{len(slots)} slots came with {len(rows)} elements: give one for each."
            )
        if rows:
            self.slots.put(slots, rows, moves=set_cursor)

    def get(self, index: Any) -> Any:
        """Return the element of a slot, or those of n slots with a first dimension of n.

        Raises:
            IndexError: If a slot has no element.
        """
        picked = self._picked  # which another thread may replace at any moment
        if picked is not None and picked[0] is index:
            return transitions.stacked(picked[1].samples)
        slots = as_slots(index, len(self))
        if is_single(index):
            return transitions.single(self.slots.read(slots).samples[0])
        if not slots:
            raise IndexError("no slots were given, of an index without elements.")
        return transitions.stacked(self.slots.read(slots))

    def pick(self, n: int) -> tuple[torch.Tensor, Picked]:
        """Draw n elements by their priorities; `get` of the returned index returns them."""
        picked = self.slots.draw(n)
        index = torch.from_numpy(picked.slots)
        self._picked = index, picked
        return index, picked

    def __len__(self) -> int:
        return len(self.slots)

    def contains(self, item: Any) -> Any:
        """Tell whether slots have an element."""
        length = len(self)
        if is_single(item):
            found = -length <= int(item) < length
            return torch.tensor(found) if isinstance(item, torch.Tensor) else found
        numbers = torch.as_tensor(item)
        if numbers.dtype == torch.bool:
            return bool(numbers.sum() <= length)
        return (numbers >= -length) & (numbers < length)

    def _empty(self) -> None:
        self.slots.empty()

    # -- states -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all elements as they are stored, their priorities and the cursor, at one moment.

        A checkpoint of the training does not need it: the database has the elements.
        """
        slots, contents, scores, cursor = self.slots.everything()
        columns = zip(_COLUMNS, map(_joined, contents), strict=True)
        return {
            "slots": torch.tensor(slots, dtype=torch.int64),
            "scores": torch.from_numpy(scores),
            "cursor": list(cursor),
            **{f"{name}_{part}": tensor for name, parts in columns for part, tensor in parts},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Replace all elements by those of a state, in one transaction.

        Raises:
            InvalidArgument: If the state is of a storage with more slots, or not of a `SqlStorage`.
                Nothing is stored.
        """
        try:
            slots, contents, scores, cursor = _parts_of(state_dict)
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise InvalidArgument(
                f"this is not the state of a SqlStorage ({summary(exc)}): give what its state_dict "
                "has returned."
            ) from exc
        if max(slots, default=0) >= self.max_size:
            raise InvalidArgument(
                f"a state with slot {max(slots)} is of a larger storage than one of {self.max_size}"
                " slots: open a storage with the max_size of the state."
            )
        at = Cursor(cursor.slot % self.max_size, cursor.writes)
        self.slots.restore(slots, contents, scores, at)


def _parts_of(state: dict[str, Any]) -> tuple[list[int], Encoded, Any, Cursor]:
    """Return the slots, samples, scores and cursor of a state; raise any error if it is none."""
    slots, scores = state["slots"].tolist(), state["scores"].numpy()
    texts, payloads, codecs = (_split(state, name) for name in _COLUMNS)
    if {len(part) for part in (scores, texts, payloads, codecs)} != {len(slots)}:
        raise ValueError("its parts differ in length")
    if len(set(slots)) < len(slots) or min(slots, default=0) < 0:
        raise ValueError("its slots are not different numbers")
    contents = Encoded(
        [text.decode() for text in texts], payloads, [codec.decode() for codec in codecs]
    )
    return slots, contents, as_priorities(scores, len(slots)), Cursor(*map(int, state["cursor"]))


def _joined(values: Any) -> list[tuple[str, torch.Tensor]]:
    """Return values as the bytes of all, and the size of each; -1 for None."""
    each = [value.encode() if isinstance(value, str) else value for value in values]
    data = b"".join(value for value in each if value is not None)
    sizes = [-1 if value is None else len(value) for value in each]
    return [
        ("bytes", torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0)),
        ("sizes", torch.tensor(sizes, dtype=torch.int64)),
    ]


def _split(state: dict[str, Any], name: str) -> list[Any]:
    """Return the values that `_joined` has joined."""
    data, at = state[f"{name}_bytes"].numpy().tobytes(), 0
    values: list[Any] = []
    for size in state[f"{name}_sizes"].tolist():
        values.append(None if size < 0 else data[at : at + size])
        at += max(size, 0)
    if at != len(data):
        raise ValueError(f"{name} have {len(data)} bytes, not {at}")
    return values
