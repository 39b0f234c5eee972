"""What a process does in the background while it is attached: say that it is alive, and look after the dead."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

from sqlbuffer.attachment import Attachment
from sqlbuffer.batches import release_dead
from sqlbuffer.heartbeat import INTERVAL_S, Beat, Heartbeat
from sqlbuffer.leases import look
from sqlbuffer.workers import beat


def with_heartbeat(attachment: Attachment) -> Attachment:
    """Return the attachment with a heartbeat, which its first write starts."""
    interval_s = min(INTERVAL_S, attachment.grace_s / 4)
    return dataclasses.replace(attachment, heartbeat=Heartbeat(functools.partial(_beats, attachment), interval_s))


@contextlib.contextmanager
def _beats(attachment: Attachment) -> Iterator[Beat]:
    """Give what a beat does, on a connection of its own: a lock or a loss of the others does not concern it."""
    with attachment.beside() as beside:

        def attend() -> None:
            beside.database.write(functools.partial(beat, buffer_id=beside.buffer_id))
            release_dead(beside)
            beside.database.read(functools.partial(look, attachment=beside))

        yield attend
