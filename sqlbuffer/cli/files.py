"""Files that commands write: checked before anything is read, and there when they are complete."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import typer

from sqlbuffer._files import part_of, too_long
from sqlbuffer.errors import InvalidArgument


def require_file(out: pathlib.Path, endings: Sequence[str] = ()) -> None:
    """Check the name of a file that shall be written.

    Raises:
        typer.BadParameter: If its ending is none of `endings`, its name is too long, or there is no
            folder for it.
    """
    if endings and out.suffix.lower() not in endings:
        raise typer.BadParameter(
            f"--out {out} must end in {', '.join(endings[:-1])} or {endings[-1]}."
        )
    if fault := too_long(out.name):
        raise typer.BadParameter(f"{fault}.")
    if not out.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {out.parent} for {out.name}.")


@contextlib.contextmanager
def complete(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the path of a file to write, which gets its name when the block has ended.

    Raises:
        InvalidArgument: If the file cannot be written.
    """
    part = part_of(out)
    try:
        yield part
        os.replace(part, out)
    except OSError as exc:
        raise InvalidArgument(f"{out} cannot be written: {exc.strerror or exc}.") from exc
    finally:
        part.unlink(missing_ok=True)
