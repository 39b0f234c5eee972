"""Backups: a second SQLite file, or an archive of pg_dump."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import sqlalchemy as sa

from sqlbuffer._files import too_long
from sqlbuffer.db.backends.base import SCHEMA
from sqlbuffer.db.backends.sqlite_errors import way_out
from sqlbuffer.errors import DatabaseUnavailable, InvalidArgument


def require_new(target: pathlib.Path) -> None:
    """Raise if there is a file, or no folder for it, or if its name is too long."""
    if fault := too_long(target.name):
        raise InvalidArgument(f"{fault}.")
    if target.exists():
        raise InvalidArgument(f"{target} exists: give the name of a new file.")
    if not target.parent.is_dir():
        raise InvalidArgument(f"there is no folder {target.parent}: create it first.")


def copy_sqlite(connection: sa.Connection, target: pathlib.Path) -> None:
    """Write the state of the database at this moment into a file without free pages.

    Raises:
        DatabaseUnavailable: If it fails.
    """
    driver: Any = connection.connection.driver_connection  # of any SQLite library
    driver.set_authorizer(None)  # the one of readers refuses to attach the new file
    connection.commit()
    try:
        driver.execute("VACUUM INTO ?", (os.fspath(target),))
    except connection.dialect.loaded_dbapi.Error as exc:
        raise DatabaseUnavailable(
            f"the backup failed ({exc}): {way_out(exc) or 'run it again'}."
        ) from exc


def dump_postgresql(url: sa.URL, target: pathlib.Path) -> None:
    """Let pg_dump write our schema into an archive, for pg_restore.

    Raises:
        DatabaseUnavailable: If there is no pg_dump, or it fails.
    """
    program = shutil.which("pg_dump")
    if program is None:
        raise DatabaseUnavailable(
            "a backup of PostgreSQL needs the program pg_dump: install the client programs of the "
            "server's version, or of a newer one."
        )
    address = url.set(drivername="postgresql", password=None).render_as_string()
    environment = os.environ | {"LC_ALL": "C"}  # for messages in English
    if url.password is not None:
        environment["PGPASSWORD"] = str(url.password)
    command = [program, "--format=custom", f"--schema={SCHEMA}", f"--file={target}", address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise DatabaseUnavailable(f"pg_dump failed: {_reason(said)}.")


_DENIED = re.compile(r"permission denied.*|failed to get data.*may lack SELECT privilege")
_VERSIONS = re.compile(r"server version: (\d+).*; .* version: .*")


def _reason(said: str) -> str:
    """Return why pg_dump failed, from the lines that it has written, with a way out if known."""
    if versions := _VERSIONS.search(said):
        return (
            f"{versions[0]}: install the client programs of PostgreSQL {versions[1]} or newer, and "
            "put their folder first on PATH"
        )
    if denied := _DENIED.search(said):
        return (
            f"{denied[0].rstrip('.')}: run the backup as the role that ran `sqlbuffer db upgrade`, "
            "which owns the tables; readers and workers may not back up"
        )
    return said.splitlines()[-1].rstrip(".")
