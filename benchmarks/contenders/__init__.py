"""The contenders, in the order of the tables. Each imports its library when it is used, not before."""

from __future__ import annotations

from benchmarks.contenders.base import Contender, DatabaseContender
from benchmarks.contenders.cpprb_ import Cpprb
from benchmarks.contenders.list_buffer import ListBuffer
from benchmarks.contenders.mrl_ import Mrl
from benchmarks.contenders.raw_postgres import RawPostgresql
from benchmarks.contenders.raw_sqlite import RawSqlite
from benchmarks.contenders.reverb_ import Reverb
from benchmarks.contenders.sqlbuffer_ import SqlbufferPostgresql, SqlbufferSqlite
from benchmarks.contenders.torchrl_ import TorchrlStrings, TorchrlTensors
from benchmarks.contenders.usual_sql import UsualPostgresql, UsualSqlite

__all__ = ["BY_NAME", "RAW_OF", "Contender", "DatabaseContender"]

BY_NAME: dict[str, type[Contender]] = {
    kind.name: kind
    for kind in (
        *(SqlbufferSqlite, RawSqlite, UsualSqlite),
        *(SqlbufferPostgresql, RawPostgresql, UsualPostgresql),
        *(ListBuffer, Mrl, Cpprb, TorchrlStrings, TorchrlTensors, Reverb),
    )
}

RAW_OF = {"sqlite": RawSqlite.name, "postgresql": RawPostgresql.name, "memory": RawSqlite.name}
"""The floor with which each family is compared."""
