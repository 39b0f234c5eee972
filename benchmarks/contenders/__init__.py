"""The contenders, in the order of the tables. Each imports its library when it is used."""

from __future__ import annotations

from benchmarks.contenders import memory, ours, usual
from benchmarks.contenders.base import Contender, DatabaseContender

__all__ = ["BY_NAME", "Contender", "DatabaseContender"]

BY_NAME: dict[str, type[Contender]] = {
    kind.name: kind
    for kind in (
        *(ours.SqlbufferSqlite, usual.UsualSqlite),
        *(ours.SqlbufferPostgresql, usual.UsualPostgresql),
        *(memory.ListBuffer, memory.Mrl, memory.Cpprb),
        *(memory.TorchrlStrings, memory.TorchrlTensors, memory.Reverb),
    )
}
