"""`sqlbuffer show`: one sample and its story."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from sqlbuffer._messages import printable, shown
from sqlbuffer.cli import output
from sqlbuffer.cli.answers import Answer, reading
from sqlbuffer.cli.common import OneBuffer, Url, handles, open_existing
from sqlbuffer.db.database import DEFAULT_URL
from sqlbuffer.looks.story import STORY, find_samples, tell


@reading("sqlbuffer show 17", "sqlbuffer show known --name default", "sqlbuffer show 17 --json")
def show(
    sample: Annotated[
        str, typer.Argument(metavar="ID|HASH|TEXT", help="Its number, hash, text or key.")
    ],
    url: Url = DEFAULT_URL,
    name: OneBuffer = "default",
) -> Answer:
    """Show one sample and its whole story.

    The story tells when the sample was added, scored, drawn, measured and given back, and by which
    worker. It reads all draws of the buffer; draws that `sqlbuffer prune` has dropped are missing.

    Digits are the number of a sample, 32 hexadecimal digits its hash; everything else is its text,
    or its key if the buffer keeps keys.
    """
    with contextlib.closing(open_existing(url)) as database:
        (buffer,) = handles(database, name)
        ids = buffer.read(find_samples, sample)
        if not ids:
            raise typer.BadParameter(
                printable(
                    f"buffer {name} has no sample with the number, hash or text {shown(sample)}: "
                    "`sqlbuffer top` and `sqlbuffer sql` show samples."
                )
            )
        if len(ids) > 1:
            output.line(f"{len(ids)} samples have this text: {ids}; this is {ids[0]}", stderr=True)
        row = buffer.read(tell, ids[0])
    columns = [field for field in row if field != "story"]
    return Answer(columns, [row], is_one=True, part="story", part_columns=STORY)
