"""Commands of the command line, run in this process."""

import re
from typing import Any

from typer.testing import CliRunner

from sqlbuffer.cli.main import app


class Result:
    """What a command left behind."""

    def __init__(self, outcome: Any) -> None:
        self.code: int = outcome.exit_code
        self.out: str = outcome.stdout
        self.err: str = outcome.stderr
        self.exception = outcome.exception

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}\n{self.exception!r}"


def run(*arguments: str, url: str | None = None, **environment: str) -> Result:
    """Run a command; the database is given by the environment variable, and SQL runs as a role that
    may do no more.
    """
    if (
        arguments[:1] == ("sql",)
        and str(url).startswith("postgresql")
        and "--role" not in arguments
    ):
        arguments += ("--role", "pg_read_all_data")
    clean = {
        "FORCE_COLOR": None,
        "TTY_COMPATIBLE": None,
        "COLUMNS": None,
        "SQLBUFFER_URL": url,
        **environment,
    }
    return Result(CliRunner().invoke(app, list(arguments), env=clean))


def unstyled(text: str) -> str:
    """Return a text without the codes for bold and colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def refused(result: Result) -> str:
    """Return the one line on stderr of a command that failed as it should."""
    assert result.code == 1, result
    assert isinstance(result.exception, SystemExit)
    (line,) = result.err.splitlines()
    assert line.startswith("error: ")
    return line
