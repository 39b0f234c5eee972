"""Values of the metas in a condition that no sample has: most likely a wrong name."""

from __future__ import annotations

from sqlbuffer._messages import listed, shown
from sqlbuffer.cli import output
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.where import Checked, missing_metas


def tell_missing_metas(buffer: BufferHandle, where: Checked) -> None:
    """Say which values of the metas in a condition that no sample meets are stored for none."""
    if names := missing_metas(buffer, where):
        output.line(f"no sample of buffer {shown(buffer.name)} has {listed(names)}", stderr=True)
