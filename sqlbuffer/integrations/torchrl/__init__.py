"""TorchRL's replay buffers on a database: a storage, and a prioritised sampler."""

from __future__ import annotations

from sqlbuffer.errors import MissingExtra

try:
    import torchrl.data  # noqa: F401
except ImportError as exc:
    raise MissingExtra(
        "SqlStorage and SqlSampler need TorchRL: pip install 'sqlbuffer[torchrl]'."
    ) from exc

from sqlbuffer.integrations.torchrl.sampler import SqlSampler
from sqlbuffer.integrations.torchrl.storage import SqlStorage
from sqlbuffer.integrations.torchrl.writer import SqlWriter

__all__ = ["SqlSampler", "SqlStorage", "SqlWriter"]
