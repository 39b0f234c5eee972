"""Reward functions: found by their path, and packed for another process."""

from __future__ import annotations

import importlib
import inspect
import io
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import cloudpickle

from sqlbuffer._messages import shown, summary
from sqlbuffer._validation import require_function
from sqlbuffer.errors import EXITS, InvalidArgument


def function_from(path: str, *, example: str = "lab.dock:dock") -> Callable[..., Any]:
    """Import a function by its path, such as "lab.dock:dock".

    Modules of the working directory are found, as by `python -m`.

    Args:
        path: Module and name.
        example: A path for the message.

    Raises:
        InvalidArgument: If there is no such module or function.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise InvalidArgument(f"give MODULE:FUNCTION, such as {example}; got {shown(path)}.")
    if sys.path[:1] != [os.getcwd()]:
        sys.path.insert(0, os.getcwd())
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):  # a method has its class before it
            function = getattr(function, part, None)
    except (Exception, *EXITS) as exc:
        meant = _module_of_file(module)
        hint = "" if meant is None else f" A module is named without .py: give {meant}:{name}."
        raise InvalidArgument(f"{module} cannot be imported: {summary(exc)}.{hint}") from exc
    if not callable(function):
        raise InvalidArgument(f"{module} has no function {name!r}.")
    found: Callable[..., Any] = function
    return found


def _module_of_file(path: str) -> str | None:
    """Return the module that the path of a file in the working directory means, None if none."""
    file = os.path.relpath(path)
    parts = file.removesuffix(".py").split(os.sep)
    is_module = file.endswith(".py") and all(part.isidentifier() for part in parts)
    return ".".join(parts) if is_module and os.path.isfile(file) else None


def require_reward_function(fn: Any) -> Callable[[Any], Any]:
    """Return a reward function.

    Raises:
        InvalidArgument: If the value cannot be called, or returns a coroutine.
    """
    found: Callable[[Any], Any] = require_function(
        fn, "a reward function must take a sample, or a list of samples with each=False", takes=1
    )
    if inspect.iscoroutinefunction(fn):
        raise InvalidArgument(
            f"the reward function {shown(fn)} is async: wrap it in a function that calls "
            "asyncio.run."
        )
    return found


def packed(function: Callable[[Any], Any]) -> bytes:
    """Return a function as bytes, from which `pickle.loads` makes it in another process.

    A function of a module travels by its name. A lambda, a closure and a function of a notebook or
    of the script that runs travel with their code, so that no child process runs the script again.

    Raises:
        InvalidArgument: If the function holds an object that does not travel, such as a connection.
    """
    try:
        return packed_value(function)
    except Exception as exc:
        raise InvalidArgument(
            f"the reward function {shown(function)} cannot be sent to child processes "
            f"({summary(exc)}): define it at the top level of a module, and open such objects "
            "in it, or use n_jobs=1 without timeout_s."
        ) from exc


def packed_value(value: Any) -> bytes:
    """Return a value as bytes for `pickle.loads`."""
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Keeps the file of a function, which the reason of a failure names.

    cloudpickle 3.1 writes "<dynamic-code>" in its place.
    """

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is made again."""
        if not isinstance(obj, types.CodeType):
            return super().reducer_override(obj)
        make, values = self.dispatch_table[types.CodeType](obj)
        return make, tuple(obj.co_filename if it == "<dynamic-code>" else it for it in values)
