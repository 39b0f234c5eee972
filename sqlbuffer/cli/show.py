"""`sqlbuffer show`: one sample and its story."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from sqlbuffer._messages import listed, printable, shown, summary
from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import OneBuffer, Url, explained, handles, open_existing
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.db import queries
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.looks.story import MOST_EQUAL, STORY, find_by_hash, find_samples, tell


@reading("sqlbuffer show 17", "sqlbuffer show known --name default", "sqlbuffer show 17 --json")
def show(
    sample: Annotated[
        str, typer.Argument(metavar="ID|HASH|TEXT", help="Its number, hash, text or key.")
    ],
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
    key: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="The key of the buffer, such as lab.mols:canonical, which finds other spellings.",
        ),
    ] = None,
) -> Answer:
    """Show one sample and its whole story.

    The story tells when the sample was added, scored, drawn, measured and given back, and by which
    worker. It reads all draws of the buffer; draws that `sqlbuffer prune` has dropped are missing.

    Digits are the number of a sample, 32 hexadecimal digits its hash; everything else is its text,
    or its key if the buffer keeps keys. A buffer with a key stores a sample as it was first
    spelled: --key finds it by every other spelling.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        ids = buffer.read(find_samples, sample)
        if not ids and key is not None:
            ids = explained(lambda: _by_key(buffer, sample, key))
        if not ids:
            raise typer.BadParameter(printable(_not_found(buffer, sample, key)))
        if len(ids) > 1:
            n = f"more than {MOST_EQUAL}" if len(ids) > MOST_EQUAL else len(ids)
            named = listed(map(str, ids))
            output.line(f"{n} samples have this text: {named}; this is {ids[0]}", stderr=True)
        row = buffer.read(tell, ids[0])
    columns = [field for field in row if field != "story"]
    return Answer(columns, [row], is_one=True, part="story", part_columns=STORY)


def _by_key(buffer: BufferHandle, sample: str, key: str) -> list[int]:
    """Return the ids of the samples with the key of a text."""
    from sqlbuffer.core.keys import hashes_of_keys  # numpy and the codec
    from sqlbuffer.measuring.functions import function_from

    find = function_from(key, example="lab.mols:canonical")
    try:
        (digest,) = hashes_of_keys([find(sample)], start=None)
    except Exception as exc:  # a key function may raise anything
        raise InvalidArgument(f"{key} failed for {shown(sample)}: {summary(exc)}") from exc
    if digest is None:
        raise InvalidArgument(
            f"{key} returned None for {shown(sample)}: no buffer with this key has it."
        )
    return buffer.read(find_by_hash, digest)


def _not_found(buffer: BufferHandle, sample: str, key: str | None) -> str:
    stored = buffer.read(lambda tx: tx.own_row(queries.buffers.objective_and_key())).key
    way_out = "`sqlbuffer top` and `sqlbuffer sql` show samples"
    if stored and key is None:
        named = "a key function" if stored == "?" else f"key={shown(stored)}"
        way_out += f"; it has {named}, and --key MODULE:FUNCTION finds other spellings"
    if key is not None and stored == "":
        way_out += "; it was created without a key"
    what = "number, hash or text" if key is None else "number, hash, text or key"
    return f"buffer {buffer.name} has no sample with the {what} {shown(sample)}: {way_out}."
