"""The contenders, in the order of the tables. Each imports its library when it is used."""

from __future__ import annotations

from benchmarks.contenders import memory, ours, usual
from benchmarks.contenders.base import Contender, DatabaseContender
from benchmarks.contenders.raw_postgres import RawPostgresql
from benchmarks.contenders.raw_sqlite import RawSqlite

__all__ = ["BY_NAME", "RAW_OF", "Contender", "DatabaseContender"]

BY_NAME: dict[str, type[Contender]] = {
    kind.name: kind
    for kind in (
        *(ours.SqlbufferSqlite, RawSqlite, usual.UsualSqlite),
        *(ours.SqlbufferPostgresql, RawPostgresql, usual.UsualPostgresql),
        *(memory.ListBuffer, memory.Mrl, memory.Cpprb),
        *(memory.TorchrlStrings, memory.TorchrlTensors, memory.Reverb),
    )
}

RAW_OF = {"sqlite": RawSqlite.name, "postgresql": RawPostgresql.name, "memory": RawSqlite.name}
"""The floor with which each family is compared."""
