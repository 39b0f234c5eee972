"""Processes that start at once, forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:  # each forked process imports this module
    import pytest

HELPERS = pathlib.Path(__file__).parent
TESTS = HELPERS.parent
EXAMPLES = TESTS.parent / "examples"

server_databases: list[str] = []
"""URLs of databases of a server, if one runs; statements are compiled for it too."""


def forkserver() -> ForkServerContext:
    """Return the context of `multiprocessing` whose processes have everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    environment = {"PYTHONPATH": os.pathsep.join([str(HELPERS), str(TESTS), str(EXAMPLES)])}
    if server_databases:
        environment["SQLBUFFER_PRELOADED"] = server_databases[0]
    with mock.patch.dict(os.environ, environment):
        multiprocessing.forkserver.ensure_running()
    return context


def train_in_forks(patch: pytest.MonkeyPatch) -> None:
    """Let processes that would be spawned, and import torch, be forked from the server instead."""
    get_context = multiprocessing.get_context
    patch.setattr(
        multiprocessing,
        "get_context",
        lambda method=None: forkserver() if method == "spawn" else get_context(method),
    )


class Forked:
    """A program in a forked process, used as a `subprocess.Popen` is.

    Args:
        program: What it does, a function of a module.
        words: What follows the program's name in `sys.argv`.
        folder: Where it is started.
    """

    def __init__(self, program: Callable[[], Any], words: list[str], folder: pathlib.Path) -> None:
        self._said = [tempfile.NamedTemporaryFile("r") for _ in ("stdout", "stderr")]  # noqa: SIM115
        self._process = forkserver().Process(
            target=_live, args=(program, words, folder, [said.name for said in self._said])
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.kill, self.terminate, self.is_alive = (
            self._process.kill,
            self._process.terminate,
            self._process.is_alive,
        )

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; return what it wrote to stdout and stderr."""
        self._process.join(timeout)
        assert self.returncode is not None, f"no end after {timeout} s"
        if self._said:
            self._texts = [said.read() for said in self._said]
            while self._said:
                self._said.pop().close()
        out, err = self._texts
        return out, err


def _live(
    program: Callable[[], Any], words: list[str], folder: pathlib.Path, said: list[str]
) -> None:
    import torch

    os.chdir(folder)
    for number, file in enumerate(said, start=1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    sys.argv[1:] = words
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    program()
