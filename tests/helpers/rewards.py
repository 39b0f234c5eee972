"""Reward functions that misbehave as their sample says.

Child processes import this module, so it imports little.
"""

import ctypes
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from helpers.polling import until

CALLS = "SQLBUFFER_TEST_CALLS"
"""Environment variable: a file to which each call appends its sample and its process."""


def dock(sample: str) -> Any:
    """Do as the first word of the sample says."""
    word, _, rest = sample.partition(" ")
    note(sample)
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "exit":
        os._exit(int(rest))
    elif word == "crash":
        ctypes.string_at(0)
    elif word == "hang":
        time.sleep(300)
    elif word == "hang-in-c":
        ctypes.PyDLL(None).sleep(300)  # holds the interpreter
    elif word == "hang-in-program":
        subprocess.run(["sleep", "300"], check=True)
    elif word == "sleep":
        time.sleep(float(rest))
    elif word == "await":
        until(lambda: os.path.exists(rest))
    elif word == "raise":
        raise ValueError("no conformer")
    elif word == "leave":
        sys.exit("bye")
    elif word == "none":
        return None
    elif word == "say":
        print(rest)
    return 1.0


def dock_all(samples: list[str]) -> list[Any]:
    return [dock(sample) for sample in samples]


def exact(sample: str) -> float:
    """Take a moment, and return the same reward in each process."""
    note(sample)
    time.sleep(0.002)
    return math.sin(float(sample[1:]) / 300)


def slow(sample: str) -> float:
    note(sample)
    time.sleep(0.02)
    return float(sample[1:])


def slow_list(samples: list[str]) -> list[float]:
    return [slow(sample) for sample in samples]


def note(sample: str) -> None:
    if CALLS in os.environ:
        with open(os.environ[CALLS], "a") as file:
            file.write(f"{os.getpid()} {sample}\n")


def calls(path: pathlib.Path) -> list[tuple[int, str]]:
    """The calls so far: their processes and samples."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split(" ", 1)[0]), line.split(" ", 1)[1]) for line in lines]


class SlowToLoad:
    """`dock`, which loads while `path` exists, and says so in another file."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return _load_slowly, (self._path,)

    def __call__(self, sample: str) -> Any:
        return dock(sample)


def _load_slowly(path: pathlib.Path) -> SlowToLoad:
    path.with_suffix(".loading").touch()
    until(lambda: not path.exists())
    return SlowToLoad(path)


def loaded(sample: str) -> Any:
    """Measure whether the process of a call has loaded a module."""
    return sample in sys.modules


def refuse(sample: str) -> float:
    """Fail with the sample as the message."""
    raise ValueError(sample)
