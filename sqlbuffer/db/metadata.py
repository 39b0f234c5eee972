"""The parts that all tables share: the metadata, and the column of the buffer."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, MetaData

metadata = MetaData(
    naming_convention={
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

OF_BUFFER = "The buffer it belongs to"
"""Comment of the column `buffer_id`."""


def buffer_key() -> Column[int]:
    """Return the column `buffer_id` of a table that has it as the first part of its key."""
    return Column(
        "buffer_id", Integer, ForeignKey("buffers.id"), primary_key=True, comment=OF_BUFFER
    )
