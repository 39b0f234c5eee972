"""Processes of other users, which run the Python that a test sends them."""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

LOOP = """
import json, os, sys, warnings
from sqlbuffer import open_store
from sqlbuffer.db.backends import parse_url
from sqlbuffer.looks.sql import ask

def look(file):
    # What each way to read finds in a file.
    with open_store(file, read_only=True, name="run") as store:
        found = [len(store), sorted(store.waiting().samples), store.check()]
        with store.connect() as connection:
            found.append(connection.exec_driver_sql("SELECT count(*) FROM samples").scalar())
    with ask(file, "SELECT count(*) FROM samples") as answer:
        found.append(next(iter(answer.rows))[0])
    return found

def write(file, *samples):
    with open_store(file, name="run", weighting="uniform") as store:
        return store.add(list(samples)).added

write(sys.argv[2], "a")  # imports every module: another user may not read them
look(sys.argv[2])
if uid := int(sys.argv[1]):
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
for line in sys.stdin:
    try:
        answer = {"answer": eval(json.loads(line))}
    except Exception as exc:
        answer = {"error": f"{type(exc).__name__}: {exc}"}
    print(json.dumps(answer), flush=True)
"""


class User:
    """A process that evaluates expressions as one user.

    Its names are `look(file)`, `write(file, *samples)`, `open_store` and `os`.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, expression: str) -> Any:
        """Return the value of an expression, or the text of its error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(expression) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        return found.get("answer", found.get("error"))


@contextlib.contextmanager
def user(uid: int | None) -> Iterator[User]:
    """Start a process of a user; None for the user of this process."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "imports.db")
        with subprocess.Popen(
            [sys.executable, "-c", LOOP, str(uid or 0), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield User(process)
            process.communicate(timeout=60)
