"""The outcome of one measurement, and the text of its failure."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import traceback
from typing import Any

from sqlbuffer._messages import printable

LONGEST_REASON = 2000
"""Characters of the reason of a failure."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How the measurement of one sample has ended.

    Attributes:
        index: Position of the sample among all samples that were submitted, from 0.
        reward: The reward, a finite float; NaN if the measurement failed; None if the child
            process died, which measures nothing.
        error: Why there is no reward, in one line of at most 2,000 characters without control
            characters, such as "ValueError: no conformer (dock.py, line 12)"; None with a reward.
        seconds: How long the call took; of a call for several samples, the share of one.
        details: What the reward function returned with the reward, a mapping that JSON can hold.
        died: The child process died in this call; a repetition may succeed.
    """

    index: int
    reward: float | None
    error: str | None = None
    seconds: float = 0.0
    details: dict[str, Any] | None = None
    died: bool = False

    @property
    def has_failed(self) -> bool:
        """True without a reward."""
        return self.reward is None or math.isnan(self.reward)

    @property
    def ended_by(self) -> tuple[str, str]:
        """What ended a call without a reward, and how: "worker died" and "exit code 1", or ""."""
        if not self.died:
            return "", ""
        what, _, how = (self.error or "").partition(", ")
        return what, how


def reason_of(error: BaseException) -> str:
    """Return an error of a reward function as a reason: class, message, and where it was raised."""
    try:
        message = str(error)
    except Exception:  # a __str__ of user code
        message = "the message cannot be read"
    place = _place_of(error)
    name = type(error).__name__
    text = one_line(f"{name}: {message}" if message.strip() else name, LONGEST_REASON - len(place))
    return text + place


def one_line(text: str, longest: int = LONGEST_REASON) -> str:
    """Return a text in one line without control characters, cut to a number of characters."""
    line = printable(" ".join(text[: 2 * longest].split()))
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def _place_of(error: BaseException) -> str:
    """Return the file and line that raised an error; empty if no Python code of the user did."""
    frames = traceback.extract_tb(error.__traceback__)
    if len(frames) < 2:  # the first frame is the call in this package
        return ""
    name = one_line(os.path.basename(frames[-1].filename), 100)
    return f" ({name}, line {frames[-1].lineno})"


def exit_of(exit_code: int) -> str:
    """Return an exit code of a child process as text, with the name of a signal."""
    try:
        return f"exit code {exit_code} ({signal.Signals(-exit_code).name})"
    except ValueError:
        return f"exit code {exit_code}"
